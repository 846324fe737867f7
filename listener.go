package usher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/go-usher/usher/ipc"
)

// DefaultBacklog is how many offers a listener keeps waiting for Accept unless told otherwise.
const DefaultBacklog = 256

// Listen listens at an endpoint and admits the same user and root; see [ListenConfig].
func Listen(endpoint string) (*Listener, error) { return new(ListenConfig).Listen(endpoint) }

// ListenConfig has options for listening. Its zero value is that of [Listen].
type ListenConfig struct {
	// Replace listens in the place of a process that listens at the endpoint already. New offers come
	// to the new listener. The old one's Accept returns [ErrReplaced], what it has not claimed goes back
	// to the givers, who hand it to the new one, and what it has claimed it keeps. On Unix there is no
	// instant without a listener; on Windows there are some milliseconds, in which a Target that was
	// connected waits, and a Dial fails. Of several processes that do so at once each replaces the one before; on Windows one
	// listens, and the others find the endpoint in use.
	Replace bool

	// Backlog is how many offers, of all channels together, may wait for Accept; [DefaultBacklog] if
	// it is zero. Each holds a descriptor. A giver whose offer finds no room is declined; it finds some
	// for [MaxOpen] offers at most.
	Backlog int

	// Mode, SecurityDescriptor and Policy say who is admitted; see [ipc.ListenConfig]. Whom [ipc.SameUser]
	// admits may replace the listener, also if Policy does not let it give connections.
	Mode               fs.FileMode
	SecurityDescriptor string
	Policy             ipc.Policy

	// Refused, if not nil, is told of each giver that Policy refused, whose channel ended by a fault, or
	// whose connection could not be used, and of the reason. It may be called by several goroutines at
	// once.
	Refused func(error)
}

// Listener receives connections that are handed over at an endpoint. It is a [net.Listener].
type Listener struct {
	config ListenConfig
	l      *ipc.Listener // nil for ListenOn
	addr   net.Addr
	window int    // offers that a channel may have open
	flags  uint32 // of the hello

	queue  chan *arrival
	closed chan struct{} // closed when Accept is to return closedErr
	idle   chan struct{} // closed when the listener is closed and no channel is left on which offers may come

	mu        sync.Mutex
	stopped   bool // by Close, Shutdown, or another process
	closedErr error
	channels  map[*taking]struct{} // on which offers may come
	reporting map[*taking]struct{} // that are open for reports alone
}

var _ net.Listener = (*Listener)(nil)

// Listen listens at an endpoint. Where another process does it fails with an error that is
// syscall.EADDRINUSE, unless Replace is set.
func (lc *ListenConfig) Listen(endpoint string) (*Listener, error) {
	l, err := lc.listen(endpoint)
	return l, opError("listen", addr(endpoint), err)
}

func (lc *ListenConfig) listen(endpoint string) (*Listener, error) {
	l := lc.newListener()
	ilc := &ipc.ListenConfig{
		Mode: lc.Mode, SecurityDescriptor: lc.SecurityDescriptor, Policy: orSameUser(lc.Policy), Refused: lc.Refused,
		Limits: channelLimits, Replace: lc.Replace,
	}
	var err error
	if lc.Replace {
		l.l, err = replace(ilc, endpoint)
	} else {
		l.l, err = ilc.Listen(endpoint)
	}
	if err != nil {
		return nil, err
	}
	l.addr = l.l.Addr()
	go l.acceptChannels()
	return l, nil
}

func (lc *ListenConfig) newListener() *Listener {
	l := &Listener{config: *lc, closed: make(chan struct{}), idle: make(chan struct{}), channels: make(map[*taking]struct{}), reporting: make(map[*taking]struct{})}
	if l.config.Backlog <= 0 {
		l.config.Backlog = DefaultBacklog
	}
	l.queue = make(chan *arrival, l.config.Backlog)
	l.window = min(l.config.Backlog, MaxOpen)
	l.flags = flagReports | flagPatient | flagReturns
	return l
}

// ListenOn receives on one channel, which it takes over, also if it fails, as it does for a peer that Policy does not admit.
// Accept returns an error that is [net.ErrClosed] when no more offers will come on the channel and those that have come were
// accepted, though their giver may be gone. Replace, Mode and SecurityDescriptor are about endpoints, and must
// not be set.
func (lc *ListenConfig) ListenOn(c *ipc.Conn) (*Listener, error) {
	err := admit(c, lc.Policy)
	if lc.Replace || lc.Mode != 0 || lc.SecurityDescriptor != "" {
		err = errors.New("one of Replace, Mode and SecurityDescriptor is set, which are for endpoints")
	}
	if err != nil {
		c.Close()
		return nil, opError("listen", c.LocalAddr(), err)
	}
	l := lc.newListener()
	l.listenOn(c)
	return l, nil
}

// listenOn is ListenOn for a peer that was admitted.
func (l *Listener) listenOn(c *ipc.Conn) {
	l.addr = c.LocalAddr()
	l.serve(c)
}

// admit asks the policy about the process at the other end of c.
func admit(c *ipc.Conn, policy ipc.Policy) error {
	peer, err := c.Peer()
	if err != nil {
		return fmt.Errorf("%w: cannot learn who it is: %w", ipc.ErrDenied, err)
	}
	if policy == nil {
		policy = ipc.SameUser
	}
	if err := policy(peer); err != nil {
		return fmt.Errorf("%w: %w", ipc.ErrDenied, err)
	}
	return nil
}

// replaceTimeout is for connecting to the process that listens and for telling it. One whose queue of
// channels is full for so long, as that of a stopped process may be, is not told.
const replaceTimeout = 5 * time.Second

// announce tells whoever listens that this process is about to listen in its place, and returns the channel to that.
func announce(ctx context.Context, policy ipc.Policy, endpoint string) (*ipc.Conn, error) {
	d := ipc.Dialer{Policy: policy, Limits: channelLimits}
	old, err := d.Dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	old.SetDeadline(deadline)
	if err := old.Send(appendReplace(nil)); err != nil {
		old.Close()
		return nil, err
	}
	return old, nil
}

// orSameUser admits also who may replace a listener, whatever policy says of givers: where that names another user
// alone, the next process of this one could not say that it takes over, and this one would listen on for those that
// are connected. See taking.greet.
func orSameUser(policy ipc.Policy) ipc.Policy {
	if policy == nil {
		return nil
	}
	return func(p ipc.Peer) error {
		if ipc.SameUser(p) == nil {
			return nil
		}
		return policy(p)
	}
}

// admitsGiver says why a process that orSameUser has admitted may not give, if so.
func (l *Listener) admitsGiver(p ipc.Peer) error {
	if l.config.Policy == nil || ipc.SameUser(p) != nil { // then the policy has been asked
		return nil
	}
	if err := l.config.Policy(p); err != nil {
		return fmt.Errorf("%w: %w", ipc.ErrDenied, err)
	}
	return nil
}

// errReplaced is what Accept returns then.
var errReplaced = fmt.Errorf("%w: %w", ErrReplaced, net.ErrClosed)

// acceptPause is between two tries to accept a channel when that fails, as it does for a process out of
// descriptors.
const acceptPause = 10 * time.Millisecond

func (l *Listener) acceptChannels() {
	for {
		c, err := l.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-l.closed:
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		if !l.serve(c) {
			return
		}
	}
}

// serve takes over a channel, and serves it in a goroutine of its own. It returns false if the listener is closed.
func (l *Listener) serve(c *ipc.Conn) bool {
	t := &taking{l: l, c: c, kick: make(chan struct{}, 1), ended: make(chan struct{})}
	if !l.add(t) {
		c.Close()
		return false
	}
	go func() {
		defer l.remove(t)
		t.serve()
	}()
	return true
}

func (l *Listener) add(t *taking) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closedErr != nil {
		return false
	}
	l.channels[t] = struct{}{}
	return true
}

func (l *Listener) remove(t *taking) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.channels, t)
	delete(l.reporting, t)
	l.checkOver()
	l.checkIdle()
}

// retire is for a channel on which no more offers come.
func (l *Listener) retire(t *taking) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.channels, t)
	l.reporting[t] = struct{}{}
	l.checkOver()
	l.checkIdle()
}

// checkOver makes Accept end where there is but one channel, and that brings nothing more. l.mu is held.
func (l *Listener) checkOver() {
	if l.l == nil && l.closedErr == nil {
		l.closedErr = fmt.Errorf("the channel brings no more offers: %w", net.ErrClosed)
		close(l.closed)
	}
}

// checkIdle is called with l.mu held.
func (l *Listener) checkIdle() {
	if l.closedErr == nil || len(l.channels) > 0 {
		return
	}
	select {
	case <-l.idle:
	default:
		close(l.idle)
	}
}

// enqueue puts an offer into the queue, or says why it is to be declined.
func (l *Listener) enqueue(a *arrival) reason {
	l.mu.Lock() // so that none comes after the queue was emptied for good
	defer l.mu.Unlock()
	if l.closedErr != nil {
		return l.leavingReason()
	}
	select {
	case l.queue <- a:
		return 0
	default:
		return reasonFull
	}
}

// leavingReason is called with l.mu held.
func (l *Listener) leavingReason() reason {
	if errors.Is(l.closedErr, ErrReplaced) {
		return reasonReplaced
	}
	return reasonShutdown
}

// Accept waits for the next offer, claims it, and returns the connection, a [*Conn]. It is the caller's
// to close. What the giver has withdrawn meanwhile is passed over.
//
// After Close or Shutdown the error is [net.ErrClosed], when another process has replaced this one also
// [ErrReplaced].
func (l *Listener) Accept() (net.Conn, error) {
	for {
		a, err := l.next()
		if err != nil {
			return nil, opError("accept", l.addr, err)
		}
		c, err := a.take()
		if err != nil {
			l.refused(opError("take", l.addr, fmt.Errorf("from process %d: %w", a.from.giver.PID, err)))
		}
		if c != nil {
			return c, nil
		}
	}
}

func (l *Listener) next() (*arrival, error) {
	select {
	case a := <-l.queue:
		return a, nil
	case <-l.closed:
	}
	select {
	case a := <-l.queue: // what a giver that is gone has left: see ListenOn
		return a, nil
	default:
		l.mu.Lock()
		defer l.mu.Unlock()
		return nil, l.closedErr
	}
}

// Close stops listening and ends all channels. What was not claimed is the givers' at once; what was
// claimed lives on. Accept returns an error that is [net.ErrClosed], as does a second Close.
//
// The channel of a giver that wants the ends of connections reported ([Dialer.Ended]) stays open for that until the last
// connection that came over it has ended, or the giver has; not so on Windows, where it would keep the name in use.
func (l *Listener) Close() error {
	err := l.stop(fmt.Errorf("the listener is closed: %w", net.ErrClosed), 0)
	l.closeChannels(func(t *taking) bool { return channelsOutliveListeners && t.greeted.Load() && t.reports })
	return opError("close", l.addr, err)
}

// Shutdown stops listening, gives back what was not claimed, and waits until all givers have heard what
// was. It also waits until the ends of connections that were closed before are on their way to givers that want them
// reported; not for connections that live on. If ctx ends before that, it ends the channels of the givers that have not
// heard, which loses nothing but reports, and returns ctx's error. Of a listener that is closed or was replaced already it
// returns [net.ErrClosed] when it has waited: so a program that is about to end calls it when its last connection
// is closed, as after [net/http.Server.Shutdown].
//
// That function closes, without an answer, a connection whose first request it reads while it runs. A server that
// would lose none calls Shutdown of the listener first, waits until Serve has returned and the first request of each
// connection has reached its handler, and then shuts the server down: package usherhttp does.
func (l *Listener) Shutdown(ctx context.Context) error {
	err := l.stop(fmt.Errorf("the listener is shut down: %w", net.ErrClosed), 0)
	select {
	case <-l.idle:
	case <-ctx.Done():
		l.closeChannels(func(*taking) bool { return false })
		return opError("shutdown", l.addr, contextError(ctx, "givers have not heard yet"))
	}
	for _, t := range l.stillReporting() {
		if !t.awaitQuiet(ctx) {
			return opError("shutdown", l.addr, contextError(ctx, "givers have not read all reports yet"))
		}
	}
	return opError("shutdown", l.addr, err)
}

func (l *Listener) stillReporting() []*taking {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.reporting))
}

// Addr returns the endpoint's path; for ListenOn that of the channel.
func (l *Listener) Addr() net.Addr { return l.addr }

// stop makes the givers take back what they can, waits for them to go for as long as linger says, and makes
// Accept return why. It returns net.ErrClosed if the listener is stopped already.
func (l *Listener) stop(why error, linger time.Duration) error {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return net.ErrClosed
	}
	l.stopped = true
	over := l.closedErr != nil // see checkOver
	if !over {
		l.closedErr = why
	}
	r := l.leavingReason()
	channels := slices.Collect(maps.Keys(l.channels))
	l.checkIdle()
	l.mu.Unlock()

	var err error
	if l.l != nil {
		err = l.l.Close()
	}
	l.emptyQueue(r)
	for _, t := range channels {
		if t.greeted.Load() {
			t.leave(r, "")
		} else {
			t.c.Close() // it has made no offer, and may never say what it came for
		}
	}
	if linger > 0 {
		select {
		case <-l.idle:
		case <-time.After(linger):
		}
	}
	if !over {
		close(l.closed)
	}
	return err
}

// emptyQueue declines what waits. Nothing is added any more.
func (l *Listener) emptyQueue(r reason) {
	for {
		select {
		case a := <-l.queue:
			a.decline(r)
			a.page.release()
		default:
			return
		}
	}
}

// closeChannels closes those on which offers may come, but for some.
func (l *Listener) closeChannels(butFor func(*taking) bool) {
	l.mu.Lock()
	channels := slices.Collect(maps.Keys(l.channels))
	l.mu.Unlock()
	for _, t := range channels {
		if !butFor(t) {
			t.c.Close()
		}
	}
}

func (l *Listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closedErr != nil
}

func (l *Listener) refused(err error) {
	if l.config.Refused != nil {
		l.config.Refused(err)
	}
}
