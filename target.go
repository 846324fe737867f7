package usher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
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

	// Patient lets a taker tell late what it has claimed: up to 5 ms later, or when 16 claims or half of what it may
	// have open wait to be told. What it declines it tells at once. Telling many together spares either side most of
	// what a handover costs beside the system calls for the connection itself. It suits a giver that calls TryHandoff:
	// a call of Handoff waits until it is told. Until then the giver keeps its copy of the descriptor, too, and the offer
	// counts in Open. Takers that do not know of it tell at once.
	Patient bool

	// Ended, if not nil, is told of each connection that was handed over and has ended: package usher's
	// takers report that when they close it. It is called by the goroutine that reads the channel, once at a
	// time for each channel, and must not block: meanwhile nobody learns of a claim there. What the taker
	// has to report piles up then, up to 1 MiB, and more is missed.
	//
	// What is reported is no promise. A process that is killed, or that ends with connections open or
	// right after it has closed them (but see [Listener.Shutdown]), reports nothing of those; nor does one that
	// forgets a connection instead of closing it.
	//
	// When a taker closes its listener, shuts it down or is replaced, its channel stays open for the
	// reports of the connections that it has, until the last of them has ended, or [Target.Close]. On
	// Windows, where the channel would keep the name in use, it does not, and those are not reported.
	Ended func(Report)

	// Returned, if not nil, is given each connection that a taker hands back ([Offer.HandBack]): claimed, the
	// taker's unused bytes first. It is called in a goroutine of its own, and owns the connection. Info is what the taker says,
	// normally what it was told; a giver that acts on it does well to check that against the connection's addresses.
	// [Conn.Giver] is the taker.
	//
	// How many calls run at once is for the takers to say, up to this process's limit of open files: a connection that finds no
	// descriptor stays with its taker. A giver that wants fewer closes what is too much.
	//
	// Shutdown and Detach of the target wait for calls under way, so that no connection is overlooked by a process that ends. To serve
	// one for long is for another goroutine, and a call must not wait for either of the two; it may call the target's other methods.
	//
	// A taker can hand back as long as its channel lives. That is so until the last of its connections has ended, though the taker has
	// closed its listener (not on Windows), or Shutdown was called here. To count them the channel asks for reports,
	// whether Ended is set or not; a connection that was handed back is reported with [Report.HandedOn].
	Returned func(*Conn)

	// Lost, if not nil, is told of each channel on which no more offers can be made, other than by Close
	// or Shutdown of the target, and of the reason: the taker has ended, closed, was replaced ([ErrReplaced]),
	// or has broken the protocol. It is called in a goroutine of its own.
	Lost func(taker ipc.Peer, why error)
}

// Dial is [Dial] with d's options.
func (d *Dialer) Dial(ctx context.Context, endpoint string) (*Target, error) {
	t := d.newTarget(addr(endpoint))
	t.reach = func(ctx context.Context) (*giving, error) { return t.dial(ctx, endpoint) }
	if _, err := t.channel(ctx); err != nil {
		t.end()
		return nil, opError("dial", t.addr, err)
	}
	return t, nil
}

func (d *Dialer) newTarget(a addr) *Target {
	t := &Target{dialer: *d, addr: a, dialing: make(chan struct{}, 1)}
	t.life, t.end = context.WithCancel(context.Background())
	return t
}

// DialOn greets the taker at the other end of c, as Dial does, once d.Policy has admitted it, and hands over on that channel.
// It takes c over, also if it fails. The target cannot connect anew: when the channel has ended, Handoff returns an
// error that is [net.ErrClosed].
func (d *Dialer) DialOn(ctx context.Context, c *ipc.Conn) (*Target, error) {
	t := d.newTarget(addr(c.LocalAddr().String()))
	t.reach = func(context.Context) (*giving, error) {
		return nil, fmt.Errorf("its channel has ended, and it has no endpoint: %w", net.ErrClosed)
	}
	err := admit(c, d.Policy)
	if err == nil {
		t.g, err = newGiving(ctx, c, t.hooks())
	}
	if err != nil {
		c.Close()
		t.end()
		return nil, opError("dial", t.addr, err)
	}
	return t, nil
}

// Target is where connections are handed over: an endpoint, and the channel to whoever listens there.
// When that process ends or is replaced, the next Handoff connects anew. Its methods may be called from
// several goroutines at once.
type Target struct {
	dialer Dialer
	addr   addr
	reach  func(context.Context) (*giving, error) // makes a channel

	dialing chan struct{} // a lock that can be waited for with a context
	life    context.Context
	end     context.CancelFunc // of life, by Close

	calls calls // of Returned, and who makes them

	mu     sync.Mutex
	g      *giving
	old    []*giving // that stay for reports, and some that are gone
	closed error     // net.ErrClosed, once the target is
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
	if o.outcome == nil {
		o.outcome = make(chan error, 1)
	}
	err := t.handoff(ctx, o)
	o.end(err == nil)
	return opError("handoff", t.addr, err)
}

// TryHandoff is Handoff for a giver that sees to many connections in one goroutine: it never waits.
//
// If it returns true, o is on offer until the taker answers, for as long as within says at most, and done is called
// once, with the error that Handoff would have returned, and when that was decided. For a connection that was claimed that
// is the time of the claim, however late the taker tells it ([Dialer.Patient]); or, if this side has found the claim before
// it was told, because the time was up or the channel has ended, then. On an error the giver still owns the connection,
// and may offer it again or reclaim it, in done as well. TryHandoff does not go on to another process when the taker
// ends or leaves, as Handoff does: done is told, and may.
//
// If it returns false nothing has happened, and done is not called: the target is not connected, the taker has all the
// offers that it may have, the channel is full, another call is sending, prefix and info have more than about 3 KB, or o is
// spent or on offer already. Handoff may do what there is to be waited for. On systems other than Linux it is always so.
//
// done is called by a goroutine of the target's, or by one of its methods (TryHandoff, Handoff, Close, Shutdown) before
// that returns: the caller should hold no lock that done takes. It may call TryHandoff, Open and Taker, but must not
// wait, nor call Close or Shutdown: the next answer of the taker may be read only when it has returned.
func (t *Target) TryHandoff(o *Offer, within time.Duration, done func(decided time.Time, err error)) bool {
	if done == nil {
		panic("usher: TryHandoff with nil done")
	}
	g, _ := t.current()
	if g == nil || o.begin() != nil {
		return false
	}
	o.done = done
	if g.tryHandoff(o, within) {
		return true
	}
	o.done = nil
	o.end(false)
	return false
}

// Connect connects to whoever listens at the endpoint now, if the target is not connected, as the next Handoff
// would. The errors are those of [Dialer.Dial].
func (t *Target) Connect(ctx context.Context) error {
	_, err := t.channel(ctx)
	return opError("dial", t.addr, err)
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
		_, err := t.current()
		return nil, err
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
	if t.closed != nil {
		if g != nil {
			g.drop(errTargetClosed)
		}
		return nil, t.closed
	}
	if err != nil {
		return nil, err
	}
	t.old = slices.DeleteFunc(append(t.old, t.living()...), (*giving).isGone)
	t.g = g
	return g, nil
}

var (
	errTargetClosed   = fmt.Errorf("the target is closed: %w", net.ErrClosed)
	errTargetShutDown = fmt.Errorf("the target is shut down: %w", net.ErrClosed)
)

// current returns the channel that there is, nil if there is none to use.
func (t *Target) current() (*giving, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed != nil {
		return nil, t.closed
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
		g, err := t.reach(ctx)
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

// dial makes a channel and greets the taker.
func (t *Target) dial(ctx context.Context, endpoint string) (*giving, error) {
	d := ipc.Dialer{Policy: t.dialer.Policy, Limits: channelLimits}
	c, err := d.Dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	return newGiving(ctx, c, t.hooks())
}

func (t *Target) hooks() hooks {
	h := hooks{addr: t.addr, patient: t.dialer.Patient, ended: t.dialer.Ended, returned: t.dialer.Returned, calls: &t.calls}
	if lost := t.dialer.Lost; lost != nil {
		h.lost = func(taker ipc.Peer, why error) { lost(taker, opError("lost", t.addr, why)) }
	}
	return h
}

// Taker returns the process that the target is connected to, as the kernel knew it when the channel was made,
// and false if there is none at the moment: the next Handoff connects anew.
func (t *Target) Taker() (ipc.Peer, bool) {
	g, _ := t.current()
	if g == nil {
		return ipc.Peer{}, false
	}
	return g.taker, true
}

// Open returns how many offers wait: to be sent, to be claimed, or, if they were withdrawn, for the taker to say that it
// has seen that, for they may be on their way still. It is [MaxOpen] at most, and does not count calls of
// Handoff that wait for room. It is cheap, for choosing the target with the fewest.
func (t *Target) Open() int {
	g, _ := t.current()
	if g == nil {
		return 0
	}
	return g.unclaimed()
}

// Close ends the channel. Calls of Handoff that wait return an error that is [net.ErrClosed], unless the taker has
// claimed; TryHandoff's done is told the same, and a second Close returns it, too. What takers have not reported yet
// ([Dialer.Ended]) is lost, and what they would hand back stays theirs; a call of Ended, Returned or done may still run when Close returns.
func (t *Target) Close() error {
	return opError("close", t.addr, t.close(errTargetClosed))
}

func (t *Target) close(why error) error {
	channels, err := t.stop(why)
	for _, g := range channels {
		g.drop(why)
	}
	return err
}

// Shutdown is Close for a target with [Dialer.Ended] or [Dialer.Returned] which waits until all connections that were handed over have
// been reported, or handed back, as far as their takers will, for as long as those live. Handoff fails at once. If ctx ends before that,
// Shutdown closes the target and returns ctx's error. Of a target that is closed or shut down already it returns
// [net.ErrClosed] when it has waited.
func (t *Target) Shutdown(ctx context.Context) error {
	channels, err := t.stop(errTargetShutDown)
	for _, g := range channels {
		select {
		case <-g.gone:
		case <-ctx.Done():
			t.Close()
			return opError("shutdown", t.addr, contextError(ctx, "takers have connections whose ends they have not reported"))
		}
	}
	if !t.calls.await(ctx) {
		return opError("shutdown", t.addr, contextError(ctx, "a call of Returned has not ended"))
	}
	return opError("shutdown", t.addr, err)
}

// stop makes Handoff fail, and returns the channels that are not gone. The error is net.ErrClosed if the target
// was stopped before.
func (t *Target) stop(why error) ([]*giving, error) {
	t.mu.Lock()
	channels := append(t.living(), t.old...)
	if t.closed != nil {
		if why != errTargetShutDown { // there is nothing to detach any more
			t.closed = why
		}
		t.mu.Unlock()
		return channels, net.ErrClosed
	}
	t.closed = why
	t.end()
	g := t.g
	t.mu.Unlock() // before TryHandoff's done is called, which may ask t something
	if g != nil {
		g.end(why)
	}
	return channels, nil
}

// living returns the channel for offers, or that was last, if it is not gone. t.mu is held.
func (t *Target) living() []*giving {
	if t.g == nil || t.g.isGone() {
		return nil
	}
	return []*giving{t.g}
}

// Addr returns the endpoint as it was dialed; for DialOn that of the channel.
func (t *Target) Addr() net.Addr { return t.addr }
