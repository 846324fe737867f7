package usherhttp

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-usher/usher"
)

// conn is a connection as the server has it. Reads end where a head or a body ends.
//
// It is at rest while the server waits for the whole head of a request: all that has been read of that is in the
// follower's head or unread. One that is at rest when the server is leaving is handed on, by the goroutine that reads there,
// which the server sees end with io.EOF. So nothing can be read meanwhile, nor a request be answered.
type conn struct {
	*usher.Conn // reading it passes by what is unread
	v           *serving

	mu       sync.Mutex
	f        follower
	unread   []byte // was read from the connection, and not by the server
	state    http.ConnState
	requests int         // that handlers have had
	due      bool        // its first request is coming, whose handler is to get it before the server is shut down
	settled  bool        // serving.leave does not wait for it
	late     *time.Timer // which settles it; nil until it is waited for
	kicked   bool        // a Read that waits is to end, and to hand it on
	giving   bool        // Misdirected gives it back
	gone     bool        // it is not the server's any more
	closed   bool
}

var (
	_ net.Conn      = (*conn)(nil)
	_ io.ReaderFrom = (*conn)(nil) // usher.Conn's, for sendfile
	_ io.WriterTo   = (*conn)(nil)
)

// aLongTimeAgo is a deadline that ends reads.
var aLongTimeAgo = time.Unix(1, 0)

// errHandOn is for Read alone.
var errHandOn = errors.New("the connection is to be handed on")

func (c *conn) Read(p []byte) (int, error) {
	for {
		n, err := c.read(p)
		if err != errHandOn {
			return n, err
		}
		if c.handOn() {
			return 0, io.EOF
		}
	}
}

// read is Read, until the connection is to be handed on: then it is gone.
func (c *conn) read(p []byte) (int, error) {
	c.mu.Lock()
	if c.gone { // net/http reads once more after a POST
		c.mu.Unlock()
		return 0, io.EOF
	}
	if c.kicked || c.atRest() && c.canHandOn() {
		c.gone = true
		c.mu.Unlock()
		return 0, errHandOn
	}
	if len(c.unread) > 0 {
		defer c.mu.Unlock()
		n := c.f.follow(c.unread[:min(len(p), len(c.unread))])
		copy(p, c.unread[:n])
		if c.unread = c.unread[n:]; len(c.unread) == 0 {
			c.unread = nil // which lets go of its memory
		}
		return n, nil
	}
	c.mu.Unlock()
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kicked && (err == nil || isTimeout(err)) {
		c.unread = slices.Clone(p[:n]) // which came in the same instant
		c.gone = true
		return 0, errHandOn
	}
	followed := c.f.follow(p[:n])
	if followed < n {
		c.unread = slices.Clone(p[followed:n])
		err = nil // the next read has it, too
	}
	return followed, err
}

func isTimeout(err error) bool {
	late, ok := err.(net.Error)
	return ok && late.Timeout()
}

// WriteTo is for whoever has hijacked the connection: what it is sent then is not followed.
func (c *conn) WriteTo(w io.Writer) (int64, error) {
	c.mu.Lock()
	unread := c.unread
	c.unread = nil
	c.f.lose()
	c.mu.Unlock()
	var written int64
	if len(unread) > 0 {
		n, err := w.Write(unread)
		written = int64(n)
		if err != nil {
			c.mu.Lock()
			c.unread = unread[n:] // what w did not take is not lost
			c.mu.Unlock()
			return written, err
		}
	}
	n, err := c.Conn.WriteTo(w)
	return written + n, err
}

// Buffered returns how many bytes have been read from the connection that Read has not returned.
func (c *conn) Buffered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.unread) + c.Conn.Buffered()
}

// Close leaves alone what is not the server's any more.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil
	}
	c.closed, c.kicked = true, false
	return c.Conn.Close()
}

// Write writes nothing on what is not the server's any more: net/http answers a head of which it has read a part and then the
// end. usher.Conn would write that where the process had no descriptor to spare for the offer, and has reclaimed it.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	if gone {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// SetReadDeadline must not undo a kick.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kicked || c.gone {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline is called by net/http also when it has read the end, if there is a WriteTimeout.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// atRest is called with c.mu held, as are those that follow.
func (c *conn) atRest() bool {
	return c.f.state == inHead && (c.state == http.StateNew || c.state == http.StateIdle) && !c.closed
}

// canHandOn says whether there is somebody to hand the connection to, when the server is leaving.
func (c *conn) canHandOn() bool {
	way := c.v.way.Load()
	return way != nil && c.f.state != lost && (way.successor != nil || c.Returnable())
}

// hasNext says whether some of a request has been read that no handler has.
func (c *conn) hasNext() bool {
	switch {
	case c.f.state == lost:
		return false // it is not known to have
	case !c.f.known:
		return len(c.f.head)+len(c.unread) > 0
	case c.f.state == ended:
		return len(c.f.head)-c.f.mark+len(c.unread) > 0
	}
	return false // what is unread is of the body
}

// leave has the connection handed on, if that is possible now.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.atRest() || !c.canHandOn() {
		c.review()
		return
	}
	c.kicked = true
	c.Conn.SetReadDeadline(aLongTimeAgo)
}

// review settles a connection for which there is nothing left to do but what [http.Server.Shutdown] does: it answers the
// request that is under way, or closes the connection if there is none. A request that is due is awaited for a while, which
// begins when the server leaves, or later: a connection comes back late from a successor that has not claimed it.
func (c *conn) review() {
	if c.settled || c.v.way.Load() == nil || c.canHandOn() {
		return
	}
	if !c.due && !c.hasNext() {
		c.settle()
		return
	}
	if c.late == nil {
		c.late = time.AfterFunc(dueTimeout, c.expectNoMore)
	}
}

// expectNoMore is for when a request has been due for long enough.
func (c *conn) expectNoMore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = false
	c.settle()
}

func (c *conn) settle() {
	if c.settled {
		return
	}
	c.settled = true
	c.v.unsettled.Done()
	if c.late != nil {
		c.late.Stop()
	}
}

// dismiss closes a connection that has made no request here and is not expected to: net/http takes one that is new for one
// whose first request is coming, and would wait for it.
func (c *conn) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled && c.state == http.StateNew && !c.gone && !c.closed {
		c.closed = true
		c.Conn.Close()
	}
}

// changed is told of the states that the server says the connection is in.
func (c *conn) changed(state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = state
	switch state {
	case http.StateIdle:
		c.due = false
		c.f.begin()
		c.review()
	case http.StateHijacked:
		if !c.giving { // else what was read is needed
			c.f.lose()
		}
		c.end()
	case http.StateClosed:
		c.end()
	}
}

// end is for when the server is done with the connection.
func (c *conn) end() {
	c.v.forget(c)
	c.settle()
}

// arrived is told of a request that has reached its handler, and says whether it should be the last on this connection.
func (c *conn) arrived(r *http.Request) (last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = false
	c.requests++
	c.f.meets(r)
	c.review()
	return c.v.way.Load() != nil && !c.canHandOn()
}

// unused returns what has been read of the connection from where the request begins.
func (c *conn) unused() []byte { return slices.Concat(c.f.head, c.unread) }

// info returns what the giver told of the connection, as far as that is true of its next request as well.
func (c *conn) info() usher.Info {
	info := c.Info()
	if c.requests > 0 {
		info.Host, info.Path = "", ""
	}
	return info
}

// handOn hands the connection on, and says whether it is gone.
func (c *conn) handOn() bool {
	way, returnable := c.v.way.Load(), c.Returnable()
	o, err := usher.NewOffer(c.Conn, c.unused(), c.info())
	if err != nil {
		c.v.failed(err)
		c.stay()
		return false
	}
	if err := way.handOn(o, returnable); err != nil {
		c.v.failed(err)
		c.v.reclaim(o)
	}
	return true
}

// stay is for a connection that could not be offered: it goes on here.
func (c *conn) stay() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone, c.kicked = false, false
	c.Conn.SetReadDeadline(time.Time{})
	c.due = c.due || c.hasNext()
	c.f.lose()
	c.review()
}
