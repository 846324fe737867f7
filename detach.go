package usher

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"github.com/go-usher/usher/ipc"
)

// Detached is a channel of a target that has ended, on its way to the process that goes on with it: a taker owes reports there,
// and may hand connections back. Conn is to be sent as an attachment ([ipc.Conn.Send]) and State as data; there
// [Dialer.Attach] takes both. Conn is the caller's to close, when it is sent (on macOS when it has arrived, see package ipc) or if it
// is not to be. Until it is attached nobody reads there, and what the taker says waits.
type Detached struct {
	Conn  *ipc.Conn
	State []byte // some bytes; what they say is between Detach and Attach
}

// Detach ends the target as Shutdown does, for a process that leaves and has a successor, and returns the channels that
// Shutdown would wait for. No more offers are made. Those that are open are waited for until ctx ends, and then withdrawn:
// Handoff returns an error that is [net.ErrClosed]. What takers hand back meanwhile is claimed and given to
// [Dialer.Returned], whose calls are waited for until ctx ends, or stays theirs and goes to the successor. They notice nothing.
//
// A channel on which a message is cut short when ctx ends, by a taker that is stopped perhaps, cannot be passed on; it is closed, and what
// the taker owed is lost. Once Detach has returned, neither Ended nor Returned is called any more; calls that were under way when
// ctx ended may still be.
//
// A target that was shut down before, or is from Attach, can be detached as well; of one that is closed, or detached, the error is
// [net.ErrClosed]. On Windows, where no such channel can change hands, nothing is done and the error is [errors.ErrUnsupported].
func (t *Target) Detach(ctx context.Context) ([]*Detached, error) {
	if !channelsOutliveListeners {
		return nil, opError("detach", t.addr, fmt.Errorf("channels stay with their process on this system: %w", errors.ErrUnsupported))
	}
	channels, err := t.settle(ctx)
	if err != nil {
		return nil, opError("detach", t.addr, err)
	}
	all := make([]*Detached, len(channels))
	var wg sync.WaitGroup
	for i, g := range channels { // at once, for a taker that is stopped takes up all the time
		wg.Go(func() { all[i] = g.detach(ctx) })
	}
	wg.Wait()
	t.calls.await(ctx)
	var detached []*Detached
	for _, d := range all {
		if d != nil {
			detached = append(detached, d)
		}
	}
	return detached, nil
}

// settle shuts the target down when its open offers have their outcomes, or ctx has ended, and returns the channels that
// were its own. They are not any more: Close has nothing to do with them.
func (t *Target) settle(ctx context.Context) ([]*giving, error) {
	t.mu.Lock()
	if t.closed != nil && t.closed != errTargetShutDown {
		t.mu.Unlock()
		return nil, net.ErrClosed
	}
	t.closed = errTargetShutDown
	t.end()
	g := t.g
	t.mu.Unlock()
	if g != nil {
		g.awaitOutcomes(ctx)
		g.end(errTargetShutDown)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed != errTargetShutDown { // closed, or detached by another call, meanwhile
		return nil, net.ErrClosed
	}
	channels := append(t.living(), t.old...)
	t.g, t.old, t.closed = nil, nil, errTargetClosed
	return channels, nil
}

// awaitOutcomes waits until no offer is open, and lets none be made, or until ctx ends.
func (g *giving) awaitOutcomes(ctx context.Context) {
	g.mu.Lock()
	g.closing = true
	if g.settled == nil {
		g.settled = make(chan struct{})
	}
	settled := g.settled
	g.checkSettled()
	g.mu.Unlock()
	select {
	case <-settled:
	case <-g.ended:
	case <-ctx.Done():
	}
}

// checkSettled is called with g.mu held.
func (g *giving) checkSettled() {
	if g.awaited == 0 && g.settled != nil {
		close(g.settled)
		g.settled = nil
	}
}

// pausePoll is how often the reading goroutine looks whether a channel can be left which is in the middle of a message.
const pausePoll = 10 * time.Millisecond

// detach takes the channel from both its goroutines, and makes what another process needs to go on with it. It returns nil for
// one that has ended, or cannot be passed on.
func (g *giving) detach(ctx context.Context) *Detached {
	defer context.AfterFunc(ctx, g.dropBack)() // lest one comes back to a process that has ended
	release := boundBy(ctx, g.c.SetWriteDeadline)
	<-g.wrote // what is being sent, and done
	release()
	g.mu.Lock()
	g.pause = ctx
	g.mu.Unlock()
	g.c.SetReadDeadline(time.Unix(1, 0))
	<-g.gone
	if !g.paused {
		return nil
	}
	g.c.SetReadDeadline(time.Time{})
	g.mu.Lock()
	back := g.back
	g.mu.Unlock()
	if back != nil {
		// As a taker that leaves: what was not claimed is handed back to the successor.
		_ = back.Shutdown(ctx)
	}
	return &Detached{Conn: g.c, State: g.state().append(nil)}
}

// pauses says whether the reading goroutine, whose last call has failed with err, is to leave the channel to another process.
// It may only between two messages. If err is nil after that it reads on.
func (g *giving) pauses(err error) (paused bool, _ error) {
	g.mu.Lock()
	ctx := g.pause
	g.mu.Unlock()
	if ctx == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, err
	}
	if isWhole(g.c) {
		return true, nil
	}
	if ctx.Err() != nil {
		return false, err
	}
	g.c.SetReadDeadline(time.Now().Add(pausePoll))
	return false, nil
}

// isWhole says whether c could be sent: this process has read no part of a message.
func isWhole(c *ipc.Conn) bool {
	raw, err := c.SyscallConn()
	return err == nil && raw.Control(func(uintptr) {}) == nil
}

// Attach goes on with a channel that another process has detached. The target is shut down: it makes no offers, and lives for Ended
// and Returned until its taker has no connections left, or is gone; [Target.Shutdown] waits for that. endpoint is what was dialed
// there, for Addr and errors, and state what Detach returned. d.Policy has to admit the taker again. Attach takes c over, also
// if it fails. Connections that come back to a Dialer without Returned stay with the taker.
//
// Of a channel that began as an [ipc.Pair] the kernel does not tell who the taker is: here it is the process that has sent the
// channel. That is what Policy is asked about, and what [Report.Taker] and [Conn.Giver] say.
func (d *Dialer) Attach(endpoint string, c *ipc.Conn, state []byte) (*Target, error) {
	t := d.newTarget(addr(endpoint))
	t.closed = errTargetShutDown
	t.end()
	var err error
	if t.g, err = t.resume(c, state); err != nil {
		c.Close()
		return nil, opError("attach", t.addr, err)
	}
	return t, nil
}

// resume makes the giver's end of a channel that another process has had. It has no offers, and no page for any.
func (t *Target) resume(c *ipc.Conn, state []byte) (*giving, error) {
	s, err := parseGivingState(state)
	if err != nil {
		return nil, err
	}
	if err := admit(c, t.dialer.Policy); err != nil {
		return nil, err
	}
	taker, err := c.Peer()
	if err != nil {
		return nil, err
	}
	g := &giving{
		c: c, taker: taker, hooks: t.hooks(), reports: true, patient: s.patient, returns: s.returns, parted: s.parted, saidDone: s.saidDone,
		err: errTargetShutDown, stays: true, owed: s.owed,
		ended: make(chan struct{}), wrote: make(chan struct{}), gone: make(chan struct{}),
	}
	g.isEnded.Store(true)
	close(g.ended)
	go g.write()
	go g.read()
	return g, nil
}

// givingState is what there is to know of a channel that stays for reports, beside the channel.
//
//	state = 1 flags:u8 0:u16 0:u32 owed:u64     little-endian
type givingState struct {
	patient, returns, parted, saidDone bool
	owed                               int64 // more than 0
}

const (
	givingStateVersion = 1
	givingStateLen     = 16
)

const (
	statePatient = 1 << iota
	stateReturns
	stateParted
	stateSaidDone
	stateFlags = 1<<iota - 1
)

// state is for when both goroutines have ended.
func (g *giving) state() givingState {
	g.mu.Lock()
	defer g.mu.Unlock()
	return givingState{patient: g.patient, returns: g.returns, parted: g.parted, saidDone: g.saidDone, owed: g.owed}
}

func (s givingState) append(b []byte) []byte {
	var flags byte
	set := func(flag byte, is bool) {
		if is {
			flags |= flag
		}
	}
	set(statePatient, s.patient)
	set(stateReturns, s.returns)
	set(stateParted, s.parted)
	set(stateSaidDone, s.saidDone)
	b = appendHead(b, givingStateVersion, flags, 0, 0)
	return binary.LittleEndian.AppendUint64(b, uint64(s.owed))
}

// parseGivingState reads what another process says, which may be of another version of this program.
func parseGivingState(b []byte) (givingState, error) {
	if len(b) > 0 && b[0] != givingStateVersion {
		return givingState{}, fmt.Errorf("the channel's state is of version %d, this program knows %d", b[0], givingStateVersion)
	}
	if len(b) != givingStateLen {
		return givingState{}, fmt.Errorf("the channel's state has %d bytes, want %d", len(b), givingStateLen)
	}
	flags, owed := b[1], binary.LittleEndian.Uint64(b[8:])
	if flags&^stateFlags != 0 || binary.LittleEndian.Uint16(b[2:]) != 0 || binary.LittleEndian.Uint32(b[4:]) != 0 || owed == 0 || owed > math.MaxInt64 {
		return givingState{}, fmt.Errorf("the channel's state is % x", b)
	}
	return givingState{
		patient: flags&statePatient != 0, returns: flags&stateReturns != 0, parted: flags&stateParted != 0, saidDone: flags&stateSaidDone != 0,
		owed: int64(owed),
	}, nil
}
