package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
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
	from    *accepter

	settings atomic.Pointer[listenerSettings]
	started  bool // door.reloading guards it
	waiting  waiting
	clients  clients

	held     atomic.Bool               // it is not to accept, for another door may
	shared   bool                      // that door uses the socket; the takeover's
	idle     chan struct{}             // closed when acceptAll has returned; door.reloading guards it, or a takeover
	stopping atomic.Pointer[time.Time] // when it gives up what the kernel has for it
	late     bool                      // acceptAll's: the last Accept has timed out
	end      sync.Once
	ended    chan struct{} // closed when the socket is

	failed   atomic.Pointer[string] // why it could not accept, the last time
	failedAt atomic.Int64           // when, in nanoseconds of Unix time
	logged   time.Time              // when that was logged; acceptAll's
}

// listenerSettings is what a reload can change of a listener.
type listenerSettings struct {
	*config.Listener
	trusted networks
	stats   *listenerStats
}

// listenerFor returns the listener that there is for one of p's, or opens one: an address with the port 0 may be there
// several times. d.reloading is held.
func (p *plan) listenerFor(lc *config.Listener) (*listener, error) {
	d := p.door
	if d.plan != nil {
		var found *listener
		for _, l := range d.plan.listeners {
			if l.address != lc.Address || slices.Contains(p.listeners, l) {
				continue
			}
			if name := l.settings.Load().Name; name == lc.Name || found == nil && !p.names(lc.Address, name) {
				found = l
			}
		}
		if found != nil {
			return found, nil
		}
	}
	d.waitForStopped(lc.Address)
	nl, err := p.open(lc)
	if err != nil {
		return nil, err
	}
	tl, ok := nl.(*net.TCPListener)
	if !ok {
		nl.Close()
		return nil, fmt.Errorf("%s is a %T, and the door accepts TCP connections only", lc.Address, nl)
	}
	from, err := newAccepter(tl)
	if err != nil {
		return nil, err
	}
	l := &listener{door: d, address: lc.Address, from: from, ended: make(chan struct{})}
	l.settings.Store(l.with(lc))
	return l, nil
}

// names says whether a listener of p at an address has a name: what there is of that name is for it, and for no other.
func (p *plan) names(address, name string) bool {
	return slices.ContainsFunc(p.config.Listeners, func(l config.Listener) bool { return l.Address == address && l.Name == name })
}

// waitForStopped waits for a listener at an address that a reload has stopped, and another wants back.
func (d *Door) waitForStopped(address string) {
	d.stopped = slices.DeleteFunc(d.stopped, func(l *listener) bool {
		if l.address == address {
			<-l.ended
		}
		return isClosed(l.ended)
	})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// systemdPrefix begins the address of a socket that systemd has opened.
const systemdPrefix = "systemd:"

func isPassed(address string) bool { return strings.HasPrefix(address, systemdPrefix) }

func (p *plan) open(lc *config.Listener) (net.Listener, error) {
	d := p.door
	if name, ok := strings.CutPrefix(lc.Address, systemdPrefix); ok {
		return d.passed.take(name)
	}
	if l := d.inherited.take(lc, p.names); l != nil {
		return l, nil
	}
	// Not MPTCP, which is package net's default: not all kernels pass on to connections what is set on the listener then.
	var how net.ListenConfig
	how.SetMultipathTCP(false)
	return d.insist(func() (net.Listener, error) { return how.Listen(context.Background(), "tcp", lc.Address) })
}

// insist calls listen until the address is free, for as long as the options say when the door starts.
func (d *Door) insist(listen func() (net.Listener, error)) (net.Listener, error) {
	end := d.started.Add(d.addressWait())
	for {
		l, err := listen()
		if !isInUse(err) || d.plan != nil || time.Now().After(end) {
			return l, err
		}
		time.Sleep(maxPause)
	}
}

func (d *Door) addressWait() time.Duration {
	if p := d.options.Predecessor; p != nil && p.gone {
		return max(d.options.AddressWait, deathTime)
	}
	return d.options.AddressWait
}

// deathTime is for the kernel to close all that a process had which was killed: its channels may end before its sockets do.
const deathTime = 2 * time.Second

func (l *listener) with(lc *config.Listener) *listenerSettings {
	return &listenerSettings{Listener: lc, trusted: lc.AcceptProxy, stats: l.door.stats.listener(lc.Name)}
}

// use puts settings in force, and accepts from then on. door.reloading is held.
func (l *listener) use(lc *config.Listener) {
	l.settings.Store(l.with(lc))
	l.setDefer()
	if l.started {
		return
	}
	l.started = true
	l.door.log.Info("listening", "listener", lc.Name, "address", l.from.addr.String())
	l.begin()
}

func (l *listener) setDefer() {
	s := l.settings.Load()
	l.from.deferAccept(s.DeferAccept && s.Sniff != config.SniffNone)
}

func (l *listener) begin() {
	idle := make(chan struct{})
	l.idle = idle
	l.door.work.Go(func() {
		defer close(idle)
		l.acceptAll()
		if !l.held.Load() {
			l.close()
		}
	})
}

// hold ends accepting at once, and leaves the socket as it is: who connects waits in the kernel, for this door or for
// another that has the socket. No configuration is applied until resume or close.
func (l *listener) hold() {
	l.held.Store(true)
	l.from.setDeadline(past)
	<-l.idle
}

// resume accepts again after hold. What the other door has set on the socket is undone: it is the same for both.
func (l *listener) resume() {
	l.held.Store(false)
	l.setDefer()
	l.from.setDeadline(time.Time{})
	l.begin()
}

// close closes the socket, which resets the clients in its queue unless another process has the socket, too.
func (l *listener) close() {
	l.end.Do(func() {
		l.from.close()
		close(l.ended)
	})
}

// closeUnstarted is for a plan that failed: it closes what that plan has opened.
func (l *listener) closeUnstarted() {
	if !l.started {
		l.from.close()
	}
}

// To close a socket resets the clients that the kernel has accepted for it. So a listener that stops goes on
// until it has twice found none, after stopGrace and then lastGrace, and gives up only after stopMost.
const (
	stopGrace = 20 * time.Millisecond
	lastGrace = 50 * time.Millisecond
	stopMost  = 2 * time.Second
)

// stop ends accepting once the queue is empty.
func (l *listener) stop() {
	end := time.Now().Add(stopMost)
	l.stopping.Store(&end)
	l.from.deferAccept(false) // so that none that speaks now is kept back: to close the socket resets those
	l.from.setDeadline(time.Now().Add(stopGrace))
}

// goesOn says whether to accept once more, as it is unless the listener stops. Accept does not look at the queue when
// its deadline is over: so that is put off each time, and one time-out, which a busy machine can cause, is not
// believed.
func (l *listener) goesOn(err error) bool {
	end := l.stopping.Load()
	if end == nil {
		return true
	}
	grace, late := stopGrace, errors.Is(err, os.ErrDeadlineExceeded)
	if late && l.late || time.Now().After(*end) {
		return false
	}
	if late {
		grace = lastGrace
	}
	l.late = late
	l.from.setDeadline(time.Now().Add(grace))
	return true
}

// acceptAll accepts until stop or hold. It never gives up: what fails, fails for want of descriptors or memory, and
// the clients wait in the kernel until there are some again.
func (l *listener) acceptAll() {
	defer context.AfterFunc(l.door.life, func() { l.from.close() })()
	pause := minPause
	for {
		s, err := l.from.accept()
		if err == nil {
			pause = minPause
			l.accepted(s)
		} else if errors.Is(err, net.ErrClosed) {
			return
		}
		if l.held.Load() || !l.goesOn(err) {
			return
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			l.acceptFailed(err)
			time.Sleep(pause)
			pause = min(2*pause, maxPause)
		}
	}
}

// Between two tries to accept. The first is short, for a descriptor is free again as soon as one connection
// has been handed over.
const (
	minPause = time.Millisecond
	maxPause = 50 * time.Millisecond
)

// acceptFailed makes room: whoever has not said what it wants for the longest has to go, or silent clients could
// keep all others out for as long as a peek may take.
func (l *listener) acceptFailed(err error) {
	s := l.settings.Load()
	s.stats.acceptErrors.Add(1)
	text := err.Error()
	l.failed.Store(&text)
	l.failedAt.Store(time.Now().UnixNano())
	if time.Since(l.logged) > failureShown {
		l.logged = time.Now()
		l.door.log.Error("cannot accept connections; they wait", "listener", s.Name, "error", err)
	}
	if outOfDescriptors(err) {
		l.waiting.evict(patientPeek)
	}
}

// failureShown is for how long the status tells of a failure to accept, and how often the log does.
const failureShown = 5 * time.Second

// patientPeek is how long a connection may be in the peek phase however short of descriptors the door is. A client
// that says at once what it wants is through long before.
const patientPeek = 250 * time.Millisecond

// incoming is a connection that was accepted. It is a net.Conn for being offered; to read and write, it has to become
// one of package net.
type incoming interface {
	net.Conn
	AddrPorts() (local, remote netip.AddrPort)
	TCP() (*net.TCPConn, error)
}

// accepted takes over a connection. It goes on in a goroutine of its own, unless it is clear at once what becomes of it.
func (l *listener) accepted(in incoming) {
	s := l.settings.Load()
	s.stats.accepted.Add(1)
	c := &conn{door: l.door, listener: l, settings: s, in: in, accepted: time.Now()}
	_, c.peer = in.AddrPorts()
	c.client = c.peer
	c.trusted = s.trusted.contain(c.peer.Addr())
	refused := ""
	if !c.trusted {
		refused = c.admit()
	}
	l.door.work.Add(1)
	l.door.stats.open.Add(1)
	s.stats.open.Add(1)
	if refused != "" {
		c.limited = refused
	} else if c.quick() {
		return
	}
	go c.serve()
}

func (l *listener) status() admin.ListenerStatus {
	s := l.settings.Load()
	st := admin.ListenerStatus{
		Name: s.Name, Address: l.from.addr.String(), Sniff: string(s.Sniff),
		Accepted: s.stats.accepted.Load(), AcceptErrors: s.stats.acceptErrors.Load(),
		Peeking: l.waiting.len(), Open: int(s.stats.open.Load()), Peek: s.stats.peek.Histogram(),
	}
	if since := time.Since(time.Unix(0, l.failedAt.Load())); since < failureShown {
		st.Error = *l.failed.Load()
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
		w.evictLocked()
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

// evict evicts the oldest if it is there for longer than patience.
func (w *waiting) evict(patience time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first != nil && time.Since(w.first.accepted) > patience {
		w.evictLocked()
	}
}

func (w *waiting) evictLocked() {
	w.first.nc.SetReadDeadline(past) // here, so that whoever finds itself evicted finds the deadline set
	w.removeLocked(w.first)
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
