//go:build unix

package door

import (
	"context"
	"errors"
	"time"

	"github.com/go-usher/usher"
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
	for _, e := range c.plan.endpointsFor(t, c.seen.Host) {
		return c.offerTo(e, t.timeout)
	}
	return false
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
	if t == nil || c.becomeOffer(c.in) != nil {
		return false
	}
	began := time.Now()
	return t.TryHandoff(c.offer, timeout, func(decided time.Time, err error) { c.quickDone(e, decided.Sub(began), err) })
}

// quickDone is told what came of the offer of offerTo.
func (c *conn) quickDone(e *endpoint, took time.Duration, err error) {
	if err == nil {
		e.stats.claimed.Add(1)
		c.target = e.name
		c.handedOver(took)
		c.release()
		c.left()
		return
	}
	// The taker at e has had its time, or has said no. If it has left, there may be another by now.
	switch {
	case errors.Is(err, usher.ErrDeclined):
		e.stats.declined.Add(1)
		c.tried = e
	case errors.Is(err, context.DeadlineExceeded):
		e.stats.withdrawn.Add(1)
		c.tried = e
	}
	if c.tried != nil {
		e.note(err)
		c.failed = append(c.failed, err)
	}
	go c.serve()
}
