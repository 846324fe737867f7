package usher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"time"

	"github.com/go-usher/usher/ipc"
)

// Dial connects to the taker at an endpoint, checks that the same user or root serves it, and greets
// it. The context bounds the connecting, not the target.
func Dial(ctx context.Context, endpoint string) (*Target, error) {
	return new(Dialer).Dial(ctx, endpoint)
}

// Dialer has options for connecting to a taker. Its zero value is that of [Dial].
type Dialer struct {
	// Policy decides whether the process that listens may be handed connections. Nil means
	// [ipc.SameUser].
	Policy ipc.Policy
}

// Dial is [Dial] with d's options.
func (d *Dialer) Dial(ctx context.Context, endpoint string) (*Target, error) {
	t := &Target{dialer: *d, endpoint: endpoint, addr: addr(endpoint), dialing: make(chan struct{}, 1)}
	t.life, t.end = context.WithCancel(context.Background())
	if _, err := t.channel(ctx); err != nil {
		t.end()
		return nil, opError("dial", t.addr, err)
	}
	return t, nil
}

// Target is where connections are handed over: an endpoint, and the channel to whoever listens there.
// When that process ends or is replaced, the next Handoff connects anew. Its methods may be called from
// several goroutines at once.
type Target struct {
	dialer   Dialer
	endpoint string
	addr     addr

	dialing chan struct{} // a lock that can be waited for with a context
	life    context.Context
	end     context.CancelFunc // of life, by Close

	mu     sync.Mutex
	g      *giving
	closed bool
}

// handoffTries bounds how often one Handoff goes on to another channel when takers end or leave under
// it: a taker that crashes over each connection would be fed for ever.
const handoffTries = 4

// Handoff hands o over. It returns nil if and only if the taker has claimed the connection, which is
// the taker's then, whatever becomes of that; o is spent. On every error the giver still owns the
// connection, and may call Handoff again, here or on another target, or o.Reclaim.
//
// It returns when ctx has ended, at the latest. Until then it waits for room and for the taker's
// Accept, and when the taker ends or leaves it goes on to the process that listens at the endpoint
// then. [ErrDeclined] means that the taker said no.
func (t *Target) Handoff(ctx context.Context, o *Offer) error {
	if err := o.begin(); err != nil {
		return opError("handoff", t.addr, err)
	}
	err := t.handoff(ctx, o)
	o.end(err == nil)
	return opError("handoff", t.addr, err)
}

func (t *Target) handoff(ctx context.Context, o *Offer) error {
	for try := 1; ; try++ {
		g, err := t.channel(ctx)
		if err != nil {
			return err
		}
		err = g.handoff(ctx, o)
		if err == nil || !errors.Is(err, errChannelEnded) {
			return err
		}
		if ctx.Err() != nil { // both have ended: there was no time to go on
			return contextError(ctx, err.Error())
		}
		if try == handoffTries {
			return err
		}
	}
}

// channel returns the channel to the taker, and makes one where there is none or it has ended.
func (t *Target) channel(ctx context.Context) (*giving, error) {
	if ctx.Err() != nil {
		return nil, contextError(ctx, "before anything was done")
	}
	if g, err := t.current(); g != nil || err != nil {
		return g, err
	}
	select {
	case t.dialing <- struct{}{}:
	case <-t.life.Done():
		return nil, errTargetClosed
	case <-ctx.Done():
		return nil, contextError(ctx, "another call is connecting")
	}
	defer func() { <-t.dialing }()
	if g, err := t.current(); g != nil || err != nil { // made by another call meanwhile
		return g, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.life, cancel)() // Close ends the connecting, too
	g, err := t.connect(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		if g != nil {
			g.end(errTargetClosed)
		}
		return nil, errTargetClosed
	}
	if err != nil {
		return nil, err
	}
	t.g = g
	return g, nil
}

var errTargetClosed = fmt.Errorf("the target is closed: %w", net.ErrClosed)

// current returns the channel that there is, nil if there is none to use.
func (t *Target) current() (*giving, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errTargetClosed
	}
	if t.g == nil || t.g.hasEnded() != nil {
		return nil, nil
	}
	return t.g, nil
}

// On Windows no process listens for some milliseconds while one replaces another: then not to find any
// is worth asking again. Elsewhere the new listener appears in the place of the old.
const (
	replacePatience = 2 * time.Second
	replacePause    = 5 * time.Millisecond
)

// connect dials until a channel stands. A taker that leaves may do so before it has greeted; then
// another may listen already.
func (t *Target) connect(ctx context.Context) (*giving, error) {
	replaced := t.wasReplaced()
	giveUp := time.Now().Add(replacePatience)
	for try := 1; ; try++ {
		g, err := t.connectOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return g, err
		}
		replaced = replaced || errors.Is(err, ErrReplaced)
		gap := replaced && errors.Is(err, fs.ErrNotExist) && time.Now().Before(giveUp)
		if !gap && (!errors.Is(err, errChannelEnded) || try >= handoffTries) {
			return nil, err
		}
		if gap {
			sleep(ctx, replacePause)
		}
	}
}

func (t *Target) wasReplaced() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.g != nil && errors.Is(t.g.hasEnded(), ErrReplaced)
}

// sleep ends early when ctx does.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// connectOnce makes a channel and greets the taker.
func (t *Target) connectOnce(ctx context.Context) (*giving, error) {
	d := ipc.Dialer{Policy: t.dialer.Policy, Limits: channelLimits}
	c, err := d.Dial(ctx, t.endpoint)
	if err != nil {
		return nil, err
	}
	return newGiving(ctx, c)
}

// Close ends the channel. Calls of Handoff that wait return an error that is [net.ErrClosed], as does a
// second Close, unless the taker has claimed.
func (t *Target) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return opError("close", t.addr, net.ErrClosed)
	}
	t.closed = true
	t.end()
	if t.g != nil {
		t.g.end(errTargetClosed)
	}
	return nil
}

// Addr returns the endpoint as it was dialed.
func (t *Target) Addr() net.Addr { return t.addr }
