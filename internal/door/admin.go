package door

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
)

// adminServer answers operators at one address. A nil one is none.
type adminServer struct {
	door    *Door
	address string // as in the configuration
	l       *heldListener
	handler atomic.Pointer[http.Handler] // nil until it has been started
	stopIt  context.CancelFunc
	served  sync.WaitGroup
	shared  bool // another door uses the socket; the takeover's
}

// newAdmin returns the server that there is, if c has the same address, or opens another. d.reloading is held.
func (d *Door) newAdmin(c *config.Admin) (*adminServer, error) {
	if c == nil {
		return nil, nil
	}
	if d.admin != nil && d.admin.address == c.Address {
		return d.admin, nil
	}
	l, err := d.openAdmin(c.Address)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	return &adminServer{door: d, address: c.Address, l: hold(l)}, nil
}

func (d *Door) openAdmin(address string) (net.Listener, error) {
	if name, ok := strings.CutPrefix(address, systemdPrefix); ok {
		return d.passed.take(name)
	}
	if inherited := d.inherited.takeAdmin(address); inherited != nil {
		l, err := admin.Adopt(address, inherited)
		if !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
		// Somebody has removed its file, so nobody can connect there: here is another.
	}
	return d.insist(func() (net.Listener, error) { return admin.Listen(address) })
}

// closeUnstarted is for a server that never came into force. The socket file is that of the door which serves on.
func (a *adminServer) closeUnstarted() {
	if a != nil && a.handler.Load() == nil {
		a.l.leaveFile()
		a.l.Close()
	}
}

// use puts c in force, and serves from then on.
func (a *adminServer) use(c *config.Admin) {
	if a == nil {
		return
	}
	h := admin.Handler(admin.Options{Status: a.door.Status, Log: a.door.log, AllowRemote: c.AllowRemote})
	if a.handler.Swap(&h) != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.stopIt = cancel
	a.served.Go(func() {
		current := func(w http.ResponseWriter, r *http.Request) { (*a.handler.Load()).ServeHTTP(w, r) }
		if err := admin.Serve(ctx, a.l, http.HandlerFunc(current)); err != nil {
			a.door.log.Error("the admin address is not served any more", "address", a.l.Addr().String(), "error", err)
		}
	})
	a.door.log.Info("admin address", "address", a.l.Addr().String())
}

// hold stops accepting, and leaves the socket open: for this door or for another that has it.
func (a *adminServer) hold() {
	if a != nil {
		a.l.hold()
	}
}

// resume accepts again after hold.
func (a *adminServer) resume() {
	if a != nil {
		a.l.resume()
	}
}

// leave is stop for when another door serves, and does not wait for who is being answered. The socket's file, if it has one, is
// that door's if the socket is.
func (a *adminServer) leave() {
	if a == nil {
		return
	}
	if a.shared {
		a.l.leaveFile() // before anybody can call stop
	}
	a.door.background.Go(a.stop)
}

func (a *adminServer) stop() {
	if a == nil {
		return
	}
	a.stopIt()
	a.served.Wait()
}

// heldListener is a listener that can be told to accept nothing for a while.
type heldListener struct {
	net.Listener
	mu     sync.Mutex
	free   *sync.Cond // signals that it is not held any more, or closed
	isHeld bool
	closed bool
}

func hold(l net.Listener) *heldListener {
	h := &heldListener{Listener: l}
	h.free = sync.NewCond(&h.mu)
	return h
}

func (l *heldListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err == nil || !isLate(err) {
			return c, err
		}
		l.mu.Lock()
		for l.isHeld && !l.closed {
			l.free.Wait()
		}
		l.mu.Unlock()
	}
}

// hold has Accept wait. One that is under way may return what has come just before.
func (l *heldListener) hold()   { l.set(true, past) }
func (l *heldListener) resume() { l.set(false, time.Time{}) }

func (l *heldListener) set(held bool, deadline time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isHeld = held
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok { // as all that package net listens with
		d.SetDeadline(deadline)
	}
	l.free.Broadcast()
}

// leaveFile has Close leave the socket's file, if it has one.
func (l *heldListener) leaveFile() {
	if f, ok := l.Listener.(interface{ SetUnlinkOnClose(bool) }); ok {
		f.SetUnlinkOnClose(false)
	}
}

func (l *heldListener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.free.Broadcast()
	return l.Listener.Close()
}
