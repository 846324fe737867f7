package door

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/route"
	"github.com/go-usher/usher/internal/sniff"
	"github.com/go-usher/usher/internal/upstream"
	"github.com/go-usher/usher/ipc"
)

// conn is a connection while it is the door's. One goroutine sees it through:
//
//	accepted ──► learn ──► route ──► handed over                 the taker's
//	               │         │  └──► proxied ──► both ends done  the door copies
//	               ▼         ▼
//	             refused, each with an end that its protocol knows
type conn struct {
	door     *Door
	listener *listener
	settings *listenerSettings
	tcp      *net.TCPConn // as accepted; closed once there is an offer of it
	nc       twoWay       // what the door does I/O on: tcp, or what was reclaimed; nil while it is an offer
	accepted time.Time

	peer    netip.AddrPort // the other end of the connection
	client  netip.AddrPort // who the connection comes from: peer, or whom a trusted proxy names
	trusted bool           // peer is a proxy whose header is believed
	counted bool           // in listener.clients, by client

	// What learn found out.
	seen   sniff.Result
	prefix []byte // what had to be read for it, where the system cannot peek

	// For its line in the log.
	route    *routePlan
	target   string
	peek     time.Duration
	handover time.Duration
	id       string

	// In the listener's queue of those in the peek phase, which guards them.
	inQueue       bool
	before, after *conn
}

// twoWay is a connection whose two ways can end apart: a *net.TCPConn or a *usher.Conn.
type twoWay interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// admit counts c among its client's, or refuses it.
func (c *conn) admit() bool {
	limits := &c.settings.Limits
	refused := c.listener.clients.add(c.client.Addr(), limits.PerIP, limits.PerIPRate)
	if refused != "" {
		c.refuse(admin.Limited, refused)
		return false
	}
	c.counted = true
	return true
}

// serve sees c through.
func (c *conn) serve() {
	defer c.left()
	if outcome, reason := c.learn(); outcome != "" {
		c.refuse(outcome, reason)
		return
	}
	p := c.door.current()
	release := sync.OnceFunc(p.release)
	defer release()
	c.route = p.find(&route.Query{
		Host: c.seen.Host, Path: c.seen.Path, ALPN: c.seen.ALPN, Listener: c.settings.Name, Client: c.client.Addr(),
	})
	if c.route == nil {
		c.refuse(admin.NoRoute, "no route matches")
		return
	}
	c.follow(p, release)
}

// left is when c is not the door's any more.
func (c *conn) left() {
	if c.counted {
		c.listener.clients.remove(c.client.Addr())
	}
	c.settings.stats.open.Add(-1)
	c.door.stats.open.Add(-1)
}

// learn finds out what the client wants. It returns an outcome where that cannot be.
func (c *conn) learn() (admin.Outcome, string) {
	if c.settings.Sniff == config.SniffNone && !c.trusted {
		return "", ""
	}
	c.tcp.SetReadDeadline(c.accepted.Add(c.settings.Limits.PeekTimeout))
	c.listener.waiting.add(c, c.settings.Limits.Peeking)
	stop := context.AfterFunc(c.door.life, func() { c.tcp.SetReadDeadline(past) })
	in := &inspection{conn: c, limit: int(c.settings.Limits.PeekBytes)}
	err := c.look(in)
	stop()
	evicted := !c.listener.waiting.remove(c)
	c.peek = time.Since(c.accepted)
	c.settings.stats.peek.Observe(c.peek)
	c.seen = in.seen
	if err == nil {
		c.tcp.SetReadDeadline(time.Time{})
		return "", "" // evicted or not: it is known where it goes
	}
	if evicted {
		return admin.Evicted, "the oldest in the peek phase, when there were more than limits.peeking"
	}
	return c.unlearnt(in, err)
}

// past is a deadline that wakes whoever waits.
var past = time.Unix(1, 0)

// unlearnt says what an error of look means.
func (c *conn) unlearnt(in *inspection, err error) (admin.Outcome, string) {
	switch {
	case errors.Is(err, errNotAdmitted):
		return admin.Limited, in.refused
	case errors.Is(err, errTooLong):
		return admin.TooLong, "what it wants is not known after limits.peek_bytes"
	case errors.Is(err, os.ErrDeadlineExceeded) && c.door.life.Err() != nil:
		return admin.ShutDown, "the door has ended"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return admin.Timeout, "what it wants is not known after limits.peek_timeout, with " + strconv.Itoa(in.had) + " bytes"
	case in.verdict:
		return admin.Malformed, err.Error()
	}
	return admin.Gone, "the client left: " + err.Error()
}

// Errors of inspection.inspect that are not the client's fault against a protocol.
var (
	errTooLong     = errors.New("too many bytes")
	errNotAdmitted = errors.New("not admitted")
)

// inspection looks at first bytes as they come.
type inspection struct {
	conn    *conn
	limit   int
	headed  bool // the PROXY header is behind us
	seen    sniff.Result
	had     int    // bytes at the last look
	verdict bool   // the error is about the bytes
	refused string // why the client was not admitted
}

// inspect looks at all the bytes that there are of the stream. It returns how many of them are a PROXY
// protocol header, which is to be taken off the stream before anything else is done, and sniff.ErrShort as
// long as more are needed.
func (in *inspection) inspect(b []byte) (header int, err error) {
	in.had = len(b)
	if in.conn.trusted && !in.headed {
		if header, err = in.inspectHeader(b); err != nil {
			return 0, err
		}
		b = b[header:]
	}
	if in.conn.settings.Sniff == config.SniffNone {
		return header, nil
	}
	if len(b) > in.limit {
		b = b[:in.limit]
	}
	in.seen, err = sniff.Sniff(b, sniffModes[in.conn.settings.Sniff])
	if err == sniff.ErrShort && len(b) >= in.limit {
		return header, errTooLong
	}
	in.verdict = err != nil && err != sniff.ErrShort
	return header, err
}

// most is how many bytes may have to be looked at.
func (in *inspection) most() int {
	if in.conn.trusted && !in.headed {
		return in.limit + sniff.MaxProxyHeader
	}
	return in.limit
}

var sniffModes = map[config.Sniff]sniff.Mode{
	config.SniffAuto: sniff.Auto, config.SniffTLS: sniff.OnlyTLS, config.SniffHTTP: sniff.OnlyHTTP,
}

// inspectHeader reads the header that a trusted proxy has to send.
func (in *inspection) inspectHeader(b []byte) (int, error) {
	header, n, err := sniff.Proxy(b)
	if err != nil {
		in.verdict = err != sniff.ErrShort
		return 0, err
	}
	in.headed = true
	if header.Source.IsValid() {
		in.conn.client = netip.AddrPortFrom(header.Source.Addr().Unmap(), header.Source.Port())
	}
	if !header.Source.IsValid() { // the proxy speaks for itself, as health checks do
		return n, nil
	}
	limits := &in.conn.settings.Limits
	if in.refused = in.conn.listener.clients.add(in.conn.client.Addr(), limits.PerIP, limits.PerIPRate); in.refused != "" {
		return 0, errNotAdmitted
	}
	in.conn.counted = true
	return n, nil
}

// follow brings c to a target of its route, the first that can be had.
func (c *conn) follow(p *plan, release func()) {
	var offer *usher.Offer
	var failed []error
	began := time.Now()
	for _, t := range c.route.targets {
		switch {
		case t.reject:
			if c.take(offer, &failed) {
				c.target = t.words
				c.refuse(admin.Rejected, "its route says so")
			}
			return
		case t.backends != nil:
			if !c.take(offer, &failed) {
				return
			}
			offer = nil
			if c.proxy(t, release, &failed) {
				return
			}
		default:
			if offer == nil && !c.offer(&offer, &failed) {
				return
			}
			if c.handOver(p, t, offer, &failed) {
				c.handover = time.Since(began)
				c.route.stats.handover.Observe(c.handover)
				c.finished(admin.HandedOver, nil)
				return
			}
		}
	}
	if c.take(offer, &failed) {
		c.refuse(admin.Unavailable, reasons(failed))
	}
}

// offer makes the connection an offer. It returns false if the connection is lost.
func (c *conn) offer(into **usher.Offer, failed *[]error) bool {
	if c.id == "" {
		c.id = c.door.nextID()
	}
	info := usher.Info{ID: c.id, Route: c.route.name, Path: c.seen.Path}
	if c.seen.Protocol == sniff.ProtocolTLS {
		info.ServerName, info.ALPN = c.seen.Host, c.seen.ALPN
	} else {
		info.Host = c.seen.Host
	}
	if c.client != c.peer {
		info.Client = c.client
	}
	o, err := usher.NewOffer(c.nc, c.prefix, info)
	if err != nil { // it is ours as it was
		*failed = append(*failed, err)
		c.refuse(admin.Failed, err.Error())
		return false
	}
	c.nc, c.prefix, *into = nil, nil, o
	return true
}

// take makes the door the one that does I/O again, if there was an offer. It returns false if the connection
// is lost.
func (c *conn) take(o *usher.Offer, failed *[]error) bool {
	if o == nil {
		return true
	}
	mine, err := o.Reclaim()
	if err != nil {
		c.finished(admin.Failed, err)
		return false
	}
	c.nc = mine
	return true
}

// handOver offers the connection to one endpoint after another, those first that have the fewest offers under
// way, and returns true when a taker has claimed it.
func (c *conn) handOver(p *plan, t *targetPlan, o *usher.Offer, failed *[]error) bool {
	for _, e := range p.endpointsFor(t, c.seen.Host) {
		err := c.handOverTo(e, t.timeout, o)
		if err == nil {
			c.target = e.name
			return true
		}
		*failed = append(*failed, err)
		if c.door.life.Err() != nil {
			return false
		}
	}
	return false
}

func (c *conn) handOverTo(e *endpoint, timeout time.Duration, o *usher.Offer) error {
	ctx, cancel := context.WithTimeout(c.door.life, timeout)
	defer cancel()
	return e.handoff(ctx, o)
}

// proxy copies between the client and a backend until both are done, and returns true, or false where no
// backend could be reached. It calls release when it has one: a connection may be proxied for days, and the
// plan that has brought it there is not needed for that.
func (c *conn) proxy(t *targetPlan, release func(), failed *[]error) bool {
	to, backend, err := t.backends.pool.Dial(c.door.life, upstream.Addresses{Client: c.client, Local: addrPort(c.nc.LocalAddr())})
	if err != nil {
		*failed = append(*failed, err)
		return false
	}
	defer backend.Done()
	if c.id == "" {
		c.id = c.door.nextID()
	}
	c.target = backend.Address
	c.finished(admin.Proxied, nil)
	release()
	began := time.Now()
	stats, err := upstream.Copy(c.door.life, c.whole(), to)
	c.door.ended(c.route.name, ending{
		id: c.id, client: c.client.String(), host: c.seen.Host, target: c.target,
		received: stats.Received, sent: stats.Sent, lasted: time.Since(began), err: err,
	})
	return true
}

// whole is the connection with what was read of it already.
func (c *conn) whole() upstream.Conn {
	if len(c.prefix) == 0 {
		return c.nc
	}
	return ipc.NewPrefixConn(c.nc, c.prefix)
}

func reasons(failed []error) string {
	text := ""
	for i, err := range failed {
		if i > 0 {
			text += "; "
		}
		text += err.Error()
	}
	return text
}
