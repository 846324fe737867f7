package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
)

// listener accepts at one address. It lives for as long as some plan in force names the address; what else
// the configuration says of it can change under way.
type listener struct {
	door    *Door
	address string // as in the configuration
	l       *net.TCPListener

	settings atomic.Pointer[listenerSettings] // nil until it has been started
	waiting  waiting
	clients  clients
	stopping atomic.Bool
	err      atomic.Pointer[string] // why it cannot accept just now
}

// listenerSettings is what a reload can change of a listener.
type listenerSettings struct {
	*config.Listener
	trusted networks
	stats   *listenerStats
}

// listenerFor returns the listener that is there for an address, or opens one. d.reloading is held.
func (d *Door) listenerFor(lc *config.Listener) (*listener, error) {
	if d.plan != nil {
		for _, l := range d.plan.listeners {
			if l.address == lc.Address {
				return l, nil
			}
		}
	}
	nl, err := d.open(lc.Address)
	if err != nil {
		return nil, err
	}
	tl, ok := nl.(*net.TCPListener)
	if !ok {
		nl.Close()
		return nil, fmt.Errorf("%s is a %T, and the door accepts TCP connections only", lc.Address, nl)
	}
	return &listener{door: d, address: lc.Address, l: tl}, nil
}

// systemdPrefix begins the address of a socket that systemd has opened.
const systemdPrefix = "systemd:"

func (d *Door) open(address string) (net.Listener, error) {
	if name, ok := strings.CutPrefix(address, systemdPrefix); ok {
		return d.passed.take(name)
	}
	return net.Listen("tcp", address)
}

// use puts settings in force, and accepts from then on.
func (l *listener) use(lc *config.Listener) {
	s := &listenerSettings{Listener: lc, trusted: lc.AcceptProxy, stats: l.door.stats.listener(lc.Name)}
	if l.settings.Swap(s) == nil {
		l.door.log.Info("listening", "listener", s.Name, "address", l.l.Addr().String())
		l.door.work.Go(l.acceptAll)
	}
}

// closeUnstarted is for a plan that failed: it closes what that plan has opened.
func (l *listener) closeUnstarted() {
	if l.settings.Load() == nil {
		l.l.Close()
	}
}

// stopGrace is for the connections that the kernel has accepted already: to close the socket resets them.
const stopGrace = 20 * time.Millisecond

// stop ends accepting once the queue is empty.
func (l *listener) stop() {
	l.stopping.Store(true)
	l.l.SetDeadline(time.Now().Add(stopGrace))
}

// acceptAll accepts until stop. It never gives up: what fails, fails for want of descriptors or memory, and
// the clients wait in the kernel until there are some again.
func (l *listener) acceptAll() {
	defer l.l.Close()
	defer context.AfterFunc(l.door.life, func() { l.l.Close() })()
	pause := minPause
	for {
		nc, err := l.l.AcceptTCP()
		if err == nil {
			pause = minPause
			l.err.Store(nil)
			l.accepted(nc)
			continue
		}
		if l.stopping.Load() && errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return
		}
		l.acceptFailed(err)
		time.Sleep(pause)
		pause = min(2*pause, maxPause)
	}
}

// Between two tries to accept. The first is short, for a descriptor is free again as soon as one connection
// has been handed over.
const (
	minPause = time.Millisecond
	maxPause = 50 * time.Millisecond
)

func (l *listener) acceptFailed(err error) {
	s := l.settings.Load()
	s.stats.acceptErrors.Add(1)
	text := err.Error()
	if l.err.Swap(&text) == nil { // once, until it has worked again
		l.door.log.Error("cannot accept connections; they wait", "listener", s.Name, "error", err)
	}
}

// accepted takes over nc.
func (l *listener) accepted(nc *net.TCPConn) {
	s := l.settings.Load()
	s.stats.accepted.Add(1)
	c := &conn{door: l.door, listener: l, settings: s, tcp: nc, nc: nc, accepted: time.Now()}
	c.peer = addrPort(nc.RemoteAddr())
	c.client = c.peer
	c.trusted = s.trusted.contain(c.peer.Addr())
	if !c.trusted {
		if refused := c.admit(); refused != "" {
			c.refuse(admin.Limited, refused)
			return
		}
	}
	l.door.stats.open.Add(1)
	s.stats.open.Add(1)
	l.door.work.Go(c.serve)
}

func (l *listener) status() admin.ListenerStatus {
	s := l.settings.Load()
	st := admin.ListenerStatus{
		Name: s.Name, Address: l.l.Addr().String(), Sniff: string(s.Sniff),
		Accepted: s.stats.accepted.Load(), AcceptErrors: s.stats.acceptErrors.Load(),
		Peeking: l.waiting.len(), Open: int(s.stats.open.Load()), Peek: s.stats.peek.Histogram(),
	}
	if err := l.err.Load(); err != nil {
		st.Error = *err
	}
	return st
}

// waiting are the connections in the peek phase, the oldest first.
type waiting struct {
	mu          sync.Mutex
	first, last *conn
	n           int
}

// add evicts the oldest if there are limit already: its read ends.
func (w *waiting) add(c *conn, limit int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n >= limit {
		w.first.tcp.SetReadDeadline(past) // here, so that whoever finds itself evicted finds the deadline set
		w.removeLocked(w.first)
	}
	c.inQueue, c.before = true, w.last
	if w.last == nil {
		w.first = c
	} else {
		w.last.after = c
	}
	w.last = c
	w.n++
}

// remove says whether c was still there: it was evicted otherwise.
func (w *waiting) remove(c *conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !c.inQueue {
		return false
	}
	w.removeLocked(c)
	return true
}

func (w *waiting) removeLocked(c *conn) {
	if c.before == nil {
		w.first = c.after
	} else {
		c.before.after = c.after
	}
	if c.after == nil {
		w.last = c.before
	} else {
		c.after.before = c.before
	}
	c.inQueue, c.before, c.after = false, nil, nil
	w.n--
}

func (w *waiting) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}
