//go:build unix

package door

import (
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/sys"
)

// quick is the way of nearly every connection: its client has said by now what it wants, which leads to a taker that
// can be made an offer without waiting. It takes no goroutine, no place on the poller, and two system calls, recv and
// sendmsg. It returns false where anything is not so; serve goes on from there.
func (c *conn) quick() bool {
	if !c.glance() {
		return false
	}
	c.find()
	if c.route == nil {
		return false
	}
	t := c.route.targets[0]
	if t.reject || t.backends != nil {
		return false
	}
	c.order = c.plan.endpointsFor(t, c.seen.Host)
	return len(c.order) > 0 && c.offerTo(c.order[0], t.timeout)
}

// glance looks once at what the client has sent, and returns false if that does not do.
func (c *conn) glance() bool {
	if c.trusted { // the header of a proxy has to be taken off the stream
		return false
	}
	if c.settings.Sniff == config.SniffNone {
		c.learnt = true
		return true
	}
	in := &inspection{conn: c, limit: int(c.settings.Limits.PeekBytes)}
	if in.peek(c.in.(*sys.Socket).Descriptor()) != nil {
		return false // whatever it is: learn finds out
	}
	c.learnt, c.seen = true, in.seen
	c.peek = time.Since(c.accepted)
	c.settings.stats.peek.Observe(c.peek)
	return true
}

// offerTo makes an offer to the taker at e, and returns true if the outcome comes by itself.
func (c *conn) offerTo(e *endpoint, timeout time.Duration) bool {
	t := e.current()
	if t == nil || c.becomeOffer(c.in, c.info()) != nil {
		return false
	}
	c.begin()
	if len(c.order) > 1 { // else nobody asks how its taker does
		e.offers()
	}
	return t.TryHandoff(c.offer, timeout, func(decided time.Time, err error) { c.quickDone(e, decided, err) })
}

// quickDone is told what came of the offer of offerTo. Nobody else has c by then. It may not wait.
func (c *conn) quickDone(e *endpoint, decided time.Time, err error) {
	gone := e.count(err)
	if err == nil {
		c.handedOver(e, decided)
		c.release()
		c.left()
		return
	}
	c.order = nil // it is old by now
	if !gone {
		c.tried = e
		c.failed = append(c.failed, err)
	}
	go c.serve()
}
