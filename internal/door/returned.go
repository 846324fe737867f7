package door

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/upstream"
	"golang.org/x/time/rate"
)

// origin is the process that a connection has come from which was not accepted here. The zero value is of one that was.
//
// What a taker says of a connection is believed as far as it could have had it so by connecting itself: its listener and its
// client are what the kernel says, and its route is looked up anew. The door before this one knows what it says.
type origin struct {
	pid      int
	endpoint *endpoint // whose taker has given it back; nil if the old door has passed it on
	returned bool      // a taker has given it back, here or to the old door: it may be between two requests
	id       string    // that it had when it was handed over, as the taker says
}

// returned is given each connection that a taker of e gives back, in a goroutine of its own.
func (e *endpoint) returned(nc *usher.Conn) {
	e.stats.returned.Add(1)
	e.door.receive(nc, origin{pid: nc.Giver().PID, endpoint: e, returned: true, id: cut(nc.Info().ID)})
}

// receiveFrom receives the connections that the old door is in the middle of learning from, until no more will come on l.
func (d *Door) receiveFrom(l *usher.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		conn := nc.(*usher.Conn)
		d.receive(conn, origin{pid: conn.Giver().PID})
	}
}

// receive takes over a connection that another process has passed to the door, and has a goroutine see it through. When it
// returns the connection is counted, so that the door does not end before.
func (d *Door) receive(nc *usher.Conn, from origin) {
	if !d.work.add() { // the door has seen to its last connection, and ends
		upstream.Reset(nc)
		return
	}
	info := nc.Info()
	local, peer := addresses(nc)
	l := d.acceptor(info.Listener, local)
	if l == nil {
		defer d.work.Done()
		d.stats.route(noRoute).count("", admin.NoRoute)
		d.log.Warn("a connection has come back that no listener can have accepted",
			from.attr(), "listener", cut(info.Listener), "local", local.String(), "client", peer.String())
		upstream.Reset(nc)
		return
	}
	go l.received(nc, peer, from).serve()
}

// received makes a connection that was accepted here, or could have been, one of l's.
func (l *listener) received(nc *usher.Conn, peer netip.AddrPort, from origin) *conn {
	s := l.settings.Load()
	c := &conn{door: l.door, listener: l, settings: s, origin: from, accepted: time.Now(), nc: nc, prefix: unread(nc), peer: peer}
	if !peer.IsValid() {
		// The client has gone, and the kernel has forgotten it. What the other process says will do for the log.
		c.peer = addrPort(nc.RemoteAddr())
	}
	c.client = c.peer
	if from.endpoint != nil {
		c.believe(nc.Info().Client)
	} else {
		c.goOn(nc.Info())
	}
	if !c.trusted {
		// It was admitted once. No limit is asked again: a taker that ends gives all back at once.
		l.clients.readmit(c.client.Addr())
		c.counted = true
	}
	l.door.stats.open.Add(1)
	s.stats.open.Add(1)
	return c
}

// believe takes a client's address from a taker, who may have it from this door: a proxy that is trusted has named it,
// in a header that is off the stream. Of any other peer it is made up.
func (c *conn) believe(client netip.AddrPort) {
	if client.IsValid() && c.settings.trusted.contain(c.peer.Addr()) {
		c.client = client
	}
}

// unread returns what nc's giver has read of it, which nc does not return any more.
func unread(nc *usher.Conn) []byte {
	n := nc.Buffered()
	if n == 0 {
		return nil
	}
	b := make([]byte, n)
	n, _ = nc.Read(b) // which is all of it, from memory
	return b[:n]
}

// acceptor returns the listener in force that accepts at a connection's own address, which is the kernel's word. The name
// decides where several do; one that a reload has taken away may have an heir of another name.
func (d *Door) acceptor(name string, local netip.AddrPort) *listener {
	d.mu.RLock()
	listeners := d.plan.listeners
	d.mu.RUnlock()
	var best *listener
	most := 0
	for _, l := range listeners {
		fit := fits(addrPort(l.from.addr), local)
		if fit > 0 && l.settings.Load().Name == name {
			fit++
		}
		if fit > most {
			best, most = l, fit
		}
	}
	return best
}

// fits says how well a connection's own address fits one that is listened at: not at all if it is 0, and the kernel prefers
// a listener of this very address, 3, to one of any.
func fits(listens, local netip.AddrPort) int {
	any := listens.Addr().IsUnspecified() && (listens.Addr().Is6() || local.Addr().Is4())
	switch {
	case listens.Port() != local.Port() || !local.IsValid():
		return 0
	case listens == local:
		return 3
	case any:
		return 1
	}
	return 0
}

// A taker must not give back what it was handed before it has served anything of it. The door cannot see whether it has, so
// one that passes the same connection back for ever is held to a pace: it takes the door some part of one processor, and
// clients of others notice nothing. The pace is the endpoint's, for who gives back may say what it likes of a connection, and
// it is asked where a connection is about to be handed over again: those that wait for a request take nothing. Each that
// waits for its turn has a descriptor, so one whose turn would come late is refused at once: else a taker could give back
// duplicates of one connection until nobody else has any.
const (
	returnsPerSecond = 2000
	returnsAtOnce    = 2000
	returnPatience   = 30 * time.Second
)

func newReturnsPace() *rate.Limiter { return rate.NewLimiter(returnsPerSecond, returnsAtOnce) }

// pace waits until it is the turn of a connection that was given back, or life ends. It returns false at once if that would
// be too late.
func (o *origin) pace(life context.Context) bool {
	if o.endpoint == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(life, returnPatience)
	defer cancel()
	return o.endpoint.pace.Wait(ctx) == nil || life.Err() != nil
}

// attr says in the log where the connection has come from.
func (o *origin) attr() slog.Attr {
	switch {
	case o.endpoint != nil:
		return slog.Group("returned", "endpoint", o.endpoint.name, "pid", o.pid, "id", o.id)
	case o.returned:
		return slog.Group("passed", "pid", o.pid, "id", o.id)
	}
	return slog.Group("passed", "pid", o.pid)
}

// work counts what the door sees through before it ends. To a sync.WaitGroup nothing may be added while somebody waits for
// the last; here connections come back when they like, until there was none.
type work struct {
	mu   sync.Mutex
	n    int
	over bool
	none chan struct{} // closed when the work is over; nil until somebody waits
	last chan struct{} // closed when one is left and somebody waits; nil unless that one waits for it
}

// add counts one more, and returns false if the work is over.
func (w *work) add() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return false
	}
	w.n++
	return true
}

// Add is for who is certain that the work is not over: it is counted itself, or nobody waits yet.
func (w *work) Add(n int) {
	w.mu.Lock()
	w.n += n
	w.mu.Unlock()
}

// Done is for when one that was counted has been seen through.
func (w *work) Done() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n--
	w.tell()
}

// Go counts f and calls it in a goroutine of its own.
func (w *work) Go(f func()) {
	w.Add(1)
	go func() {
		defer w.Done()
		f()
	}()
}

// Wait waits until all that was counted has been seen through. Then the work is over.
func (w *work) Wait() {
	w.mu.Lock()
	if w.none == nil {
		w.none = make(chan struct{})
		w.tell()
	}
	w.mu.Unlock()
	<-w.none
}

// waitAsLast is for one that was counted, to see to the rest: it waits until somebody waits for the end of the work, and there
// is nothing else. One at a time may call it.
func (w *work) waitAsLast() {
	last := make(chan struct{})
	w.mu.Lock()
	w.last = last
	w.tell()
	w.mu.Unlock()
	<-last
}

// tell tells who waits. It is called with w.mu held.
func (w *work) tell() {
	switch {
	case w.none == nil:
	case w.n == 0 && !w.over:
		w.over = true
		close(w.none)
	case w.n == 1 && w.last != nil:
		close(w.last)
		w.last = nil
	}
}
