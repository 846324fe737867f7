package usher

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/go-usher/usher/ipc"
)

// Offer is a connection on its way to another process.
type Offer struct {
	held          held
	prefix        []byte
	info          Info
	encoded       []byte // info and addresses, as they travel
	local, remote netip.AddrPort

	// The report that is due to whoever has handed the connection to this process, and how much of it is
	// certain now: nothing happens to the connection while it is on offer.
	tally          *tally
	home           *Listener // that it came to
	received, sent int64

	// outcome has room for what comes of a Handoff, and is made for the first. It is the offer's, not the slot's: that
	// may have the next offer before the goroutine which waits here has run. done is told in its place if it is not nil.
	outcome chan error
	done    func(time.Time, error)

	mu    sync.Mutex
	state offerState
}

// held is the connection while nobody may do I/O on it.
type held interface {
	syscall.Conn

	// drop closes this process's copy, and leaves the connection alone.
	drop()

	// reclaim returns the connection, fit for I/O. held is spent then.
	reclaim() (net.Conn, error)
}

type offerState int

const (
	offerIdle  offerState = iota
	offerOpen             // Handoff runs
	offerSpent            // handed over, or reclaimed
)

// NewOffer takes c over: a *net.TCPConn, *net.UnixConn (not on Windows), or a [*Conn] or
// [*ipc.PrefixConn] of one. The connection is the offer's from then on: it is had back by Reclaim, and once
// it is handed over the offer closes this process's copy. c is closed, so that using it, or closing it once
// more, harms nobody; only a process that has no descriptor to spare must see to that itself, if c is not a *Conn. Of NewOffer and a Close
// in another goroutine one succeeds, and the other returns [net.ErrClosed]. No read or
// write may be pending on c. If NewOffer fails, c stays the caller's, as it was.
//
// prefix is what was already read from c, [MaxPrefix] bytes at most; the taker reads it first. What a
// *Conn or PrefixConn still has of its own prefix is added to it. Bytes that were only peeked at
// (MSG_PEEK) are still in the kernel and no part of it. NewOffer keeps prefix, which must not be
// changed until the offer is handed over; after a Reclaim never, for a copy may still be on its way.
//
// Deadlines of c are gone with it; socket options stay as they are.
func NewOffer(c net.Conn, prefix []byte, info Info) (*Offer, error) {
	o, err := newOffer(c, prefix, info)
	return o, opError("offer", nil, err)
}

func newOffer(c net.Conn, prefix []byte, info Info) (*Offer, error) {
	if c == nil {
		return nil, errors.New("the connection is nil")
	}
	o := &Offer{prefix: prefix, info: info}
	o.local, o.remote = addresses(c)
	var own *ipc.PrefixConn
	handed, _ := c.(*Conn)
	if handed != nil { // who closes it at the same time has come before, with the report, or comes too late
		handed.closing.Lock()
		defer handed.closing.Unlock()
		if handed.closed.Load() {
			return nil, net.ErrClosed
		}
	}
	switch c := c.(type) {
	case *Conn:
		own = c.p
	case *ipc.PrefixConn:
		own = c
	}
	more := 0
	if own != nil {
		c, more = own.NetConn(), own.Buffered()
	}
	if n := len(prefix) + more; n > MaxPrefix {
		return nil, fmt.Errorf("the prefix has %d bytes, limit %d", n, MaxPrefix)
	}
	var err error
	if o.encoded, err = encodeInfo(&info, o.local, o.remote); err != nil {
		return nil, err
	}
	if handed != nil {
		raw, _ := own.SyscallConn()
		o.received, o.sent = handed.tally.Load().total(raw, more)
	}
	if o.held, err = hold(c); err != nil {
		return nil, err
	}
	if handed != nil {
		handed.closed.Store(true) // also where there was no descriptor to spare, and what is below is in use
		o.home = handed.home.Swap(nil)
		o.tally = handed.tally.Swap(nil)  // so that closing what is left of c reports nothing
		o.tally.read(-int64(len(prefix))) // whoever reclaims it reads that once more
	}
	if more > 0 { // last, for it cannot be undone
		rest := make([]byte, more)
		n, _ := own.Read(rest)
		o.prefix = append(prefix[:len(prefix):len(prefix)], rest[:n]...)
	}
	return o, nil
}

// addresses returns those of a TCP connection.
func addresses(c net.Conn) (local, remote netip.AddrPort) {
	if s, ok := c.(interface {
		AddrPorts() (local, remote netip.AddrPort)
	}); ok { // a *sys.Socket
		return s.AddrPorts()
	}
	return addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
}

// begin reserves the offer for one Handoff.
func (o *Offer) begin() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch o.state {
	case offerOpen:
		return errors.New("the offer is being handed over already")
	case offerSpent:
		return errSpent
	}
	o.state = offerOpen
	return nil
}

var errSpent = fmt.Errorf("the offer was handed over or reclaimed before: %w", net.ErrClosed)

// end says what came of a Handoff. What was handed over is the taker's: this process's copy goes.
func (o *Offer) end(handedOver bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !handedOver {
		o.state = offerIdle
		return
	}
	o.state = offerSpent
	at(stepDrop, before)
	o.held.drop()
	at(stepDrop, after)
	if y := o.tally; y != nil {
		o.tally = nil
		y.end(o.received, o.sent, true)
	}
}

// HandBack hands the connection to the giver that it came from: o was made by NewOffer of a [*Conn] that [Listener.Accept]
// returned, or that Reclaim has made of such an offer. If that giver is gone, or takes none back, another one that has a channel to the same
// Listener can take its place for a connection whose [Info.Listener] is named, as a front door's are: the door that was started after it, say.
// It is a handover as any other: HandBack returns nil if and only if the giver has claimed
// the connection, at the latest when ctx ends, and the errors are those of [Target.Handoff]. On every error the connection is
// still this process's: Reclaim it, hand it to another process, or try again. The error is [errors.ErrUnsupported] if no giver takes any
// back, and [net.ErrClosed] if the channel has ended of the one that would; see [Conn.Returnable].
func (o *Offer) HandBack(ctx context.Context) error {
	t, err := o.wayBack()
	if err != nil {
		return opError("handback", nil, err)
	}
	return opError("handback", t.addr, t.Handoff(ctx, o))
}

// wayBack returns the target that the connection came from.
func (o *Offer) wayBack() (*Target, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state == offerSpent {
		return nil, errSpent
	}
	if t := takerBack(o.tally, o.home, &o.info); t != nil {
		return t.target()
	}
	if o.tally == nil {
		return nil, errNotReturnable
	}
	return o.tally.from.target() // which says why not
}

// Reclaim returns the connection of an offer that was not handed over, prefix first, and spends the
// offer. The error is [net.ErrClosed] for an offer that is spent; it says so when Handoff still runs. After
// any other error, as of a process that is out of descriptors while a withdrawn offer is still being sent,
// the offer is as it was. (Where there is neither a descriptor to spare nor, on Unix, memory for another one
// on the poller, the connection is lost.)
func (o *Offer) Reclaim() (*Conn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state == offerOpen {
		return nil, opError("reclaim", nil, errors.New("the offer is being handed over"))
	}
	if o.state == offerSpent {
		return nil, opError("reclaim", nil, errSpent)
	}
	c, err := o.held.reclaim()
	if err != nil {
		return nil, opError("reclaim", nil, err)
	}
	o.state = offerSpent
	conn := newConn(c, o.prefix, o.info, tcpAddr(o.local), tcpAddr(o.remote))
	conn.tally.Store(o.tally)
	conn.home.Store(o.home)
	o.tally = nil
	return conn, nil
}
