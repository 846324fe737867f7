package door

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
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
//	accepted ──► learn ──► route ──► handed over                 the taker's, who may give it back: received
//	received ───►│ │         │  └──► proxied ──► both ends done  the door copies
//	             │ ▼         ▼
//	             │ refused, each with an end that its protocol knows
//	             └─► surrendered                                 the next door's
type conn struct {
	door     *Door
	listener *listener
	settings *listenerSettings
	accepted time.Time
	origin   origin // if it was not accepted here

	in    incoming     // as accepted; nil once it has become one of the others
	nc    twoWay       // what the door does I/O on; nil while there is an offer
	offer *usher.Offer // nil while there is none

	peer    netip.AddrPort // the other end of the connection
	client  netip.AddrPort // who the connection comes from: peer, or whom a trusted proxy names
	dialed  netip.AddrPort // where client has connected to, if a trusted proxy names it and no other door or taker had c since
	trusted bool           // peer is a proxy whose header is believed, and has yet to come
	counted bool           // in listener.clients, by client
	limited string         // why it was not admitted when it was accepted

	// What quick or learn found out.
	learnt bool
	seen   sniff.Result
	prefix []byte // what was read of it: by whoever had it before, or for learn, where the system cannot peek

	plan *plan // held, once it has a route

	// How far quick has come with the route's own target.
	order []*endpoint // in which to try its endpoints, of which none was
	tried *endpoint   // the one that was tried in vain

	// For its line in the log.
	route    *routePlan
	target   string
	failed   []error // what came of the targets that it did not go to
	peek     time.Duration
	began    time.Time // to try targets
	handover time.Duration
	id       string

	// In the listener's queue of those in the peek phase, which guards them.
	inQueue       bool
	before, after *conn
	called        *departure // to which it was taken out of the queue; nil if it was not
}

// twoWay is a connection whose two ways can end apart: a *net.TCPConn or a *usher.Conn.
type twoWay interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// admit counts c among its client's connections, or says which limit forbids it.
func (c *conn) admit() (refused string) {
	limits := &c.settings.Limits
	refused = c.listener.clients.add(c.client.Addr(), limits.PerIP, limits.PerIPRate)
	c.counted = refused == ""
	return refused
}

// serve sees c through.
func (c *conn) serve() {
	defer c.left()
	defer c.release()
	if c.in != nil && !c.own() {
		return
	}
	if c.limited != "" {
		c.refuse(admin.Limited, c.limited)
		return
	}
	if !c.learnt && !c.learn() {
		return
	}
	if !c.origin.pace(c.door.life) {
		c.refuse(admin.Unavailable, "its taker gives back more connections than the door passes on")
		return
	}
	if c.plan == nil {
		c.find()
	}
	if c.route == nil {
		c.refuse(admin.NoRoute, "no route matches")
		return
	}
	c.follow()
}

// own makes c a connection of package net, which can wait. It returns false where there is no descriptor for that: the
// connection is lost then.
func (c *conn) own() bool {
	var err error
	for began := time.Now(); ; time.Sleep(maxPause) {
		var tcp *net.TCPConn
		err = c.door.spare.use(func() error {
			tcp, err = c.in.TCP()
			return err
		})
		if err == nil {
			c.in, c.nc = nil, tcp
			return true
		}
		if !c.mayTakeBack(err, began) {
			break
		}
	}
	c.finished(admin.Failed, err)
	c.in.Close()
	return false
}

// find finds its route, in the plan that is in force, and holds that: the endpoints are the plan's.
func (c *conn) find() {
	c.plan = c.door.current()
	c.route = c.plan.find(&route.Query{
		Host: c.seen.Host, Path: c.seen.Path, ALPN: c.seen.ALPN, Listener: c.settings.Name, Client: c.client.Addr(),
	})
}

// release lets go of the plan.
func (c *conn) release() {
	if c.plan != nil {
		c.plan.release()
		c.plan = nil
	}
}

// left is when c is not the door's any more.
func (c *conn) left() {
	if c.counted {
		c.listener.clients.remove(c.client.Addr())
	}
	c.settings.stats.open.Add(-1)
	c.door.stats.open.Add(-1)
	c.door.reserve.refill()
	c.door.spare.refill()
	c.door.work.Done()
}

// learn finds out what the client wants. It returns false where that cannot be, and has refused c then, or where the
// next door does it.
func (c *conn) learn() bool {
	if c.settings.Sniff == config.SniffNone && !c.trusted {
		return true
	}
	in := &inspection{conn: c, limit: int(c.settings.Limits.PeekBytes)}
	err := c.wait(in)
	for err == errCalled {
		if c.departs() {
			return false
		}
		err = c.wait(in)
	}
	c.peek = time.Since(c.accepted)
	c.settings.stats.peek.Observe(c.peek)
	c.seen = in.seen
	if err != nil {
		c.refuse(c.unlearnt(in, err))
		return false
	}
	return true
}

// wait looks at the first bytes until in knows enough, as one of those in the peek phase.
func (c *conn) wait(in *inspection) error {
	nc := c.nc // which has another owner, perhaps, when the door's life ends
	nc.SetReadDeadline(c.peekUntil())
	c.listener.waiting.add(c, c.settings.Limits.Peeking)
	stop := context.AfterFunc(c.door.life, func() { nc.SetReadDeadline(past) })
	err := c.look(in)
	stop()
	if c.listener.waiting.remove(c) || err == nil {
		c.answersCall()
		nc.SetReadDeadline(time.Time{})
		return err // evicted or not, if it is known where it goes
	}
	if c.called == nil {
		return errEvicted
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.answersCall()
		return err
	}
	return errCalled
}

// peekUntil is when its time in the peek phase is up. One that comes from another door late in that time is looked at
// all the same: what it waits for may be there.
func (c *conn) peekUntil() time.Time {
	until := c.accepted.Add(c.settings.Limits.PeekTimeout)
	if least := time.Now().Add(patientPeek); c.origin.pid != 0 && until.Before(least) {
		return least
	}
	return until
}

// past is a deadline that wakes whoever waits.
var past = time.Unix(1, 0)

// unlearnt says what an error of look means.
func (c *conn) unlearnt(in *inspection, err error) (admin.Outcome, string) {
	switch {
	case err == errEvicted:
		return admin.Evicted, "the oldest in the peek phase, when there were more than limits.peeking, or no descriptors left"
	case errors.Is(err, errNotAdmitted):
		return admin.Limited, in.refused
	case errors.Is(err, errTooLong):
		return admin.TooLong, "what it wants is not known after limits.peek_bytes"
	case errors.Is(err, os.ErrDeadlineExceeded) && c.door.life.Err() != nil:
		return admin.ShutDown, "the door has ended"
	case c.origin.returned && in.had == 0:
		return admin.Idle, "its client has made no other request"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return admin.Timeout, "what it wants is not known after limits.peek_timeout, with " + strconv.Itoa(in.had) + " bytes"
	case in.verdict:
		return admin.Malformed, err.Error()
	}
	return admin.Gone, "the client left: " + err.Error()
}

// Errors of the peek phase that are not the client's fault against a protocol.
var (
	errTooLong     = errors.New("too many bytes")
	errNotAdmitted = errors.New("not admitted")
	errEvicted     = errors.New("evicted")
	errCalled      = errors.New("called to the next door")
)

// inspection looks at first bytes as they come.
type inspection struct {
	conn    *conn
	limit   int
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
	if in.conn.trusted {
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

// inspectPrefix is inspect for what was read already.
func (in *inspection) inspectPrefix() error {
	header, err := in.inspect(in.conn.prefix)
	in.conn.prefix = in.conn.prefix[header:]
	return err
}

// most is how many bytes may have to be looked at.
func (in *inspection) most() int {
	if in.conn.trusted {
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
	in.conn.trusted = false
	if !header.Source.IsValid() { // the proxy speaks for itself, as health checks do
		return n, nil
	}
	in.conn.client, in.conn.dialed = header.Source, header.Destination
	if in.refused = in.conn.admit(); in.refused != "" {
		return 0, errNotAdmitted
	}
	return n, nil
}

// follow brings c to a target of its route, the first that can be had.
func (c *conn) follow() {
	c.begin()
	for _, t := range c.route.targets {
		switch {
		case t.reject:
			if c.reclaim() {
				c.target = t.words
				c.refuse(admin.Rejected, "its route says so")
			}
			return
		case t.backends != nil:
			if !c.reclaim() || c.proxy(t) {
				return
			}
		default:
			if !c.makeOffer() {
				return
			}
			if c.handOver(t) {
				return
			}
		}
	}
	if !c.reclaim() {
		return
	}
	if c.door.life.Err() != nil {
		c.refuse(admin.ShutDown, "the door has ended")
		return
	}
	c.refuse(admin.Unavailable, reasons(c.failed))
}

// begin is when the first target is tried.
func (c *conn) begin() {
	if c.began.IsZero() {
		c.began = time.Now()
	}
}

// handedOver is when the taker at e has claimed it.
func (c *conn) handedOver(e *endpoint, claimed time.Time) {
	c.target = e.name
	c.handover = max(claimed.Sub(c.began), 0) // the taker may say when, and may say anything
	c.route.stats.handover.Observe(c.handover)
	c.finished(admin.HandedOver, nil)
}

// makeOffer makes the connection an offer, if it is none yet. It returns false where it could not, and has
// refused the connection then.
func (c *conn) makeOffer() bool {
	if c.offer != nil {
		return true
	}
	if err := c.becomeOffer(c.nc, c.info()); err != nil {
		c.refuse(admin.Failed, err.Error())
		return false
	}
	return true
}

// becomeOffer makes nc, which is what c has of the connection, an offer. If that fails it is c's as it was.
func (c *conn) becomeOffer(nc net.Conn, info usher.Info) error {
	o, err := usher.NewOffer(nc, c.prefix, info)
	if err != nil {
		return err
	}
	c.offer, c.in, c.nc, c.prefix = o, nil, nil, nil
	return nil
}

// What a taker is told of a client's words has an end: an offer has room for 64 KiB of it.
const (
	maxPath = 8 << 10 // of bytes
	maxALPN = 32      // of protocols
)

// info is what a taker is told of the connection.
func (c *conn) info() usher.Info {
	info := usher.Info{ID: c.name(), Route: c.route.name, Listener: c.settings.Name}
	if c.seen.Protocol == sniff.ProtocolTLS {
		info.ServerName, info.ALPN = c.seen.Host, c.seen.ALPN[:min(len(c.seen.ALPN), maxALPN)]
	} else {
		info.Host = c.seen.Host
	}
	if len(c.seen.Path) <= maxPath { // a part of one would be another
		info.Path = c.seen.Path
	}
	if c.client != c.peer {
		info.Client = c.client
	}
	return info
}

// name returns the connection's ID, which it gets when it is first needed.
func (c *conn) name() string {
	if c.id == "" {
		c.id = c.door.nextID()
	}
	return c.id
}

// reclaim makes the door the one that does I/O again, if there was an offer. It returns false where the
// connection is lost.
func (c *conn) reclaim() bool {
	if c.offer == nil {
		return true
	}
	mine, err := c.offer.Reclaim()
	for began := time.Now(); err != nil && c.mayTakeBack(err, began); {
		time.Sleep(maxPause)
		mine, err = c.offer.Reclaim()
	}
	if err != nil {
		c.finished(admin.Failed, err)
		return false
	}
	c.offer, c.nc = nil, mine
	return true
}

// mayTakeBack says whether it may be had back later: for want of a descriptor, of which there are more in a moment.
func (c *conn) mayTakeBack(err error, began time.Time) bool {
	return !errors.Is(err, net.ErrClosed) && time.Since(began) < reclaimPatience && c.door.life.Err() == nil
}

// reclaimPatience is how long a door out of descriptors tries to have a connection back.
const reclaimPatience = 10 * time.Second

// handOver offers the connection to one endpoint after another, those first that have the fewest offers under
// way, and returns true when a taker has claimed it.
func (c *conn) handOver(t *targetPlan) bool {
	order, tried := c.order, c.tried
	c.order, c.tried = nil, nil // for the next target has others
	if order == nil {
		order = c.plan.endpointsFor(t, c.seen.Host)
	}
	for _, e := range order {
		if e == tried {
			continue
		}
		claimed, err := c.handOverTo(e, t.timeout)
		if err == nil {
			c.handedOver(e, claimed)
			return true
		}
		c.failed = append(c.failed, err)
		if c.door.life.Err() != nil {
			return false
		}
	}
	return false
}

func (c *conn) handOverTo(e *endpoint, timeout time.Duration) (claimed time.Time, err error) {
	ctx, cancel := context.WithTimeout(c.door.life, timeout)
	defer cancel()
	for {
		claimed, err = e.handoff(ctx, c.offer)
		if !outOfDescriptors(err) || ctx.Err() != nil {
			return claimed, err
		}
		e.connectSoon() // which has some in reserve
		time.Sleep(maxPause)
	}
}

// proxy copies between the client and a backend until both are done, and returns true, or false where no
// backend could be reached. It lets go of the plan when it has one: a connection may be proxied for days, and the
// plan that has brought it there is not needed for that.
func (c *conn) proxy(t *targetPlan) bool {
	from := upstream.Addresses{Client: c.client, Local: c.dialed}
	if !from.Local.IsValid() {
		from.Local = addrPort(c.nc.LocalAddr())
	}
	to, backend, err := t.backends.pool.Dial(c.door.life, from)
	if err != nil {
		c.failed = append(c.failed, err)
		return false
	}
	defer backend.Done()
	c.name()
	c.target = backend.Address
	c.finished(admin.Proxied, nil)
	c.release()
	began := time.Now()
	stats, err := upstream.Copy(c.door.life, c.whole(), to)
	c.door.ended(c.route.name, ending{
		id: c.id, client: c.client, host: c.seen.Host, target: c.target,
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
	if len(failed) == 0 {
		return "the endpoint has gone" // of an auto route, since that was chosen
	}
	text := ""
	for i, err := range failed {
		if i > 0 {
			text += "; "
		}
		text += err.Error()
	}
	return text
}
