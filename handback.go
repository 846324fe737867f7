package usher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/go-usher/usher/ipc"
)

// The way back. A taker that wants to hand a connection back makes a pair of channels and sends one of the two to the giver
// (msgBack). There the roles are reversed, and all is as on any channel: so what holds for a handover holds for one back. The
// taker's side is a Target that lives as long as its taking, and makes a new channel when the last has ended; the giver's is a
// Listener that lives as long as its giving.

var (
	errNotReturnable = fmt.Errorf("it came from no giver that takes connections back: %w", errors.ErrUnsupported)
	errGiverGone     = fmt.Errorf("the channel that it came on has ended: %w", net.ErrClosed)
)

// takesBack says whether the giver can be handed a connection back, as far as this side knows.
func (t *taking) takesBack() bool {
	if !t.greeted.Load() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.returns && !t.ends.silent
}

// takerBack returns the channel to the giver that takes back a connection, nil if none does: that which it came on, or, of one that
// was accepted at a named listener, another of the listener home that it came to. A front door names its listeners: a connection that
// outlives it, or goes from a taker to its successor, can be handed back to the next one.
func takerBack(y *tally, home *Listener, info *Info) *taking {
	if y != nil && y.from.takesBack() {
		return y.from
	}
	if home == nil || info.Listener == "" {
		return nil
	}
	for _, t := range home.givers() {
		if t.takesBack() {
			return t
		}
	}
	return nil
}

// givers returns the channels on which givers may take connections back.
func (l *Listener) givers() []*taking {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.AppendSeq(slices.Collect(maps.Keys(l.channels)), maps.Keys(l.reporting))
}

// target returns that which hands back to the giver.
func (t *taking) target() (*Target, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.returns {
		return nil, errNotReturnable
	}
	if t.ends.silent {
		return nil, errGiverGone
	}
	if t.back == nil {
		t.back = new(Dialer).newTarget(addr(t.c.LocalAddr().String()))
		t.back.reach = t.reachGiver
	}
	return t.back, nil
}

// reachGiver makes a channel to the giver and greets it there. There is one call at a time.
func (t *taking) reachGiver(ctx context.Context) (*giving, error) {
	ours, theirs, err := ipc.Pair()
	if err != nil {
		return nil, err
	}
	d := &departure{c: theirs, done: make(chan error, 1)}
	if err := t.sendAway(ctx, d); err != nil {
		ours.Close()
		return nil, err
	}
	if keepsSent {
		defer theirs.Close()
	}
	return newGiving(ctx, ours, hooks{addr: t.back.addr})
}

// departure is the end of a channel on its way to the giver. It is sent by the goroutine that sends everything else: only that
// can wait for a giver that does not read.
type departure struct {
	c    *ipc.Conn
	done chan error // told once; has room for that
}

// sendAway has d sent, and waits for that: on Windows the end that stays here does not know before who has the other.
func (t *taking) sendAway(ctx context.Context, d *departure) error {
	t.mu.Lock()
	if t.ends.silent {
		t.mu.Unlock()
		d.c.Close()
		return errGiverGone
	}
	t.wayBack = d
	t.mu.Unlock()
	t.wake()
	select {
	case err := <-d.done:
		return err
	case <-ctx.Done():
	}
	t.mu.Lock()
	waits := t.wayBack == d
	if waits {
		t.wayBack = nil
	}
	t.mu.Unlock()
	if waits {
		d.c.Close()
	} else if keepsSent { // nobody else closes it
		go func() {
			<-d.done
			d.c.Close()
		}()
	}
	return contextError(ctx, "the giver reads nothing")
}

// keepsSent says whether a descriptor that is on its way may be lost with the sender's copy, as package ipc tells of macOS. Elsewhere
// that is closed at once, so that a giver which drops what it was sent ends the channel by that.
const keepsSent = runtime.GOOS == "darwin"

// send sends it. If the channel to the giver has ended, that is seen by who sends or reads next.
func (d *departure) send(c *ipc.Conn) {
	err := c.Send(appendBack(nil), d.c)
	if err != nil && (ended(err) == io.EOF || errors.Is(err, net.ErrClosed)) {
		err = fmt.Errorf("%w: %w", errGiverGone, err)
	}
	if err != nil || !keepsSent {
		d.c.Close()
	}
	d.done <- err
}

// cancel closes what will not be sent, and says why.
func (d *departure) cancel(why error) {
	d.c.Close()
	d.done <- why
}

// beGivenBack listens on the channel that came with m, in place of the last one: so a taker has one at most. It has ended
// the last itself, though this side may not have seen that yet.
func (g *giving) beGivenBack(m *ipc.Message) error {
	if len(m.Attachments()) != 1 {
		return fmt.Errorf("%w: it hands back on %d channels, want one", ipc.ErrProtocol, len(m.Attachments()))
	}
	a := m.Attachments()[0]
	if g.hooks.returned == nil || a.Err() != nil { // the taker finds the channel closed
		return nil
	}
	c, err := a.Channel(channelLimits)
	if isSystems(err) { // out of descriptors, as with those that did not arrive
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: it hands back on what is no channel: %w", ipc.ErrProtocol, err)
	}
	if from, err := c.Peer(); err != nil || from != g.taker { // the policy was asked about that one, not about this
		c.Close()
		return fmt.Errorf("%w: it hands back on a channel to process %d, which is another", ipc.ErrProtocol, from.PID)
	}
	l := new(ListenConfig).newListener()
	l.flags &^= flagReports | flagReturns // or it could keep the channel when another has come
	l.listenOn(c)
	g.mu.Lock()
	last, dropped := g.back, g.dropped
	g.back = l
	g.mu.Unlock()
	if last != nil {
		last.Close()
	}
	if dropped || !g.hooks.calls.begin(func() { g.acceptReturned(l) }) {
		l.Close()
	}
	return nil
}

// drop ends the channel and the way back.
func (g *giving) drop(why error) {
	g.end(why)
	g.dropBack()
}

// dropBack ends the way back at once, and for good.
func (g *giving) dropBack() {
	g.mu.Lock()
	g.dropped = true
	back := g.back
	g.mu.Unlock()
	if back != nil {
		back.Close()
	}
}

// backLinger is for a taker that lives, and ends its channel but not the way back.
const backLinger = 2 * time.Second

// endBack waits for the way back to end when the channel has ended. What a taker has sent before it died is accepted, as from any
// giver, whether it owes reports or not: it may have come from another giver. The end of the way back comes behind it.
func (g *giving) endBack() {
	g.mu.Lock()
	back := g.back
	g.mu.Unlock()
	if back == nil {
		return
	}
	select {
	case <-back.closed:
	case <-time.After(backLinger):
		back.Close()
	}
}

func (g *giving) acceptReturned(l *Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		g.hooks.calls.begin(func() { g.hooks.returned(c.(*Conn)) })
	}
}

// calls counts what runs of a target's Returned, and who makes the calls: as a WaitGroup, but for two things. Whoever waits may give up, and
// when nobody has to be waited for any more no call begins: a channel that another call of Detach, or of Handoff, still has in hand
// may bring a connection yet, which stays with its taker then.
type calls struct {
	mu   sync.Mutex
	n    int
	over bool
	none chan struct{} // closed when it is over; nil if nobody waits for that
}

// begin runs f in a goroutine of its own. It returns false if it is over, which it is not while another call runs.
func (c *calls) begin(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	c.n++
	go func() {
		defer c.end()
		f()
	}()
	return true
}

func (c *calls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n--
	c.checkOver()
}

// checkOver is called with c.mu held.
func (c *calls) checkOver() {
	if c.n == 0 && c.none != nil && !c.over {
		c.over = true
		close(c.none)
	}
}

// await waits until no call runs, nor will, and says whether that was before ctx has ended.
func (c *calls) await(ctx context.Context) bool {
	c.mu.Lock()
	if c.none == nil {
		c.none = make(chan struct{})
	}
	c.checkOver()
	c.mu.Unlock()
	select {
	case <-c.none:
		return true
	case <-ctx.Done():
		return false
	}
}
