package usher

import (
	"context"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-usher/usher/ipc"
)

// Report is what a taker says of a connection that it had been handed, when that has ended. All of it is
// the taker's word; checked is only that there are no more reports than connections which it has claimed.
type Report struct {
	// Taker is the process that says so.
	Taker ipc.Peer

	// Info is that of the offer, without its State, and Local and Remote are the connection's addresses as [NewOffer] found
	// them; not valid for a Unix-domain socket. The taker sends back what the offer said: the giver
	// keeps nothing of a connection that it has handed over.
	Info          Info
	Local, Remote netip.AddrPort

	// Received and Sent are bytes from the client and to it, the offer's prefix included. -1 is for what
	// the taker does not know: see [Conn.NetConn].
	Received, Sent int64

	// Duration is from the claim to the end.
	Duration time.Duration

	// HandedOn is for a connection that lives on: the taker has handed it to another process, and the
	// bytes and the time are those until then.
	HandedOn bool

	// Missed is how many reports, other than this one, the taker did not keep since its last message,
	// because this side did not read them; see [Dialer.Ended].
	Missed int
}

// tally counts what is done with a connection, for the report of its end. It is passed on with the
// connection: from a Conn to the Offer that NewOffer makes of it, and back by Reclaim. Who has it when
// the connection ends tells the taking, once. A nil tally counts nothing, and tells nobody.
type tally struct {
	from    *taking
	info    []byte // as the report will carry it
	claimed time.Time

	received, sent atomic.Int64

	// passing is more than zero when bytes may have passed, or pass now, that are not counted: writes and copies
	// under way, and whatever is done through NetConn or SyscallConn.
	passing atomic.Int32
}

// newTally is for a connection that was claimed. from counts it as open already.
func newTally(from *taking, info []byte) *tally {
	y := &tally{from: from, info: reportedInfo(info), claimed: time.Now()}
	// A connection that is forgotten ends without a report. The channel must not wait for it.
	runtime.SetFinalizer(y, (*tally).forget)
	return y
}

func (y *tally) read(n int64) {
	if y != nil {
		y.received.Add(n)
	}
}

func (y *tally) wrote(n int64) {
	if y != nil {
		y.sent.Add(n)
	}
}

func (y *tally) pass(n int32) {
	if y != nil {
		y.passing.Add(n)
	}
}

// total returns the bytes that were read and written, while raw is open still. unread is how much of the prefix
// nobody has read: it has come from the client all the same.
func (y *tally) total(raw syscall.RawConn, unread int) (received, sent int64) {
	if y == nil {
		return unknown, unknown
	}
	if y.passing.Load() == 0 {
		return max(0, y.received.Load()+int64(unread)), y.sent.Load()
	}
	received, sent = unknown, unknown
	if raw != nil {
		_ = raw.Control(func(fd uintptr) { received, sent = kernelBytes(fd) })
	}
	return received, sent
}

// end reports the end.
func (y *tally) end(received, sent int64, handedOn bool) {
	runtime.SetFinalizer(y, nil)
	y.from.report(wireReport{
		handedOn: handedOn, info: y.info,
		received: received, sent: sent, duration: int64(max(0, time.Since(y.claimed))),
	})
}

func (y *tally) forget() { y.from.forget() }

// report has the end of a connection told.
func (t *taking) report(r wireReport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &t.ends
	e.open--
	if e.silent {
		return
	}
	if len(e.told)+reportHeadLen+len(r.info) > maxWaiting {
		e.missed++
		return
	}
	if e.quiet == nil {
		e.quiet = make(chan struct{})
	}
	first := len(e.told) == 0
	e.told = appendReport(e.told, r)
	if t.hurries() || len(e.told) >= endedSize {
		e.due = true
		t.wake()
	} else if first {
		t.due.Reset(endedDelay)
	}
}

// hurries says whether reports are to be sent at once: this process may end soon. t.mu is held.
func (t *taking) hurries() bool { return t.leaving != nil || t.done }

func (t *taking) makeDue() {
	t.mu.Lock()
	t.ends.due = true
	t.mu.Unlock()
	t.wake()
}

// forget is for a connection that was claimed, and of whose end nothing will be told.
func (t *taking) forget() {
	t.mu.Lock()
	t.ends.open--
	t.mu.Unlock()
	t.wake() // it may have been the last
}

// take moves the reports to n, whose buffer takes their place.
func (e *ends) take(n *news) {
	empty := n.taken[:0]
	if cap(empty) > keptBuffer {
		empty = nil
	}
	n.taken, n.ends, n.missed = e.told, e.told, e.missed
	e.told, e.missed, e.due = empty, 0, false
}

// allTold notes that all reports were sent which had been taken, and says whether the channel has served its time.
func (t *taking) allTold() (spent bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ends.told) > 0 {
		return false
	}
	t.ends.beQuiet()
	t.spent = t.done && t.ends.open == 0
	return t.spent
}

// endSpent ends the channel. On Windows the giver does that when it hears the farewell: a pipe that is closed can take
// with it what was not read.
func (t *taking) endSpent() {
	if channelsOutliveListeners {
		t.c.Close()
		return
	}
	_ = t.c.Send(appendLeaving(nil, reasonShutdown, ""))
}

func (e *ends) beQuiet() {
	if e.quiet != nil {
		close(e.quiet)
		e.quiet = nil
	}
}

// fallSilent is for when nothing is sent any more.
func (t *taking) fallSilent() {
	t.mu.Lock()
	t.ends.silent, t.ends.told = true, nil
	t.ends.beQuiet()
	back, way := t.back, t.wayBack
	t.wayBack = nil
	t.mu.Unlock()
	if way != nil {
		way.cancel(errGiverGone)
	}
	if back != nil {
		back.close(errGiverGone)
	}
}

// awaitQuiet waits until the reports that there are have been sent, and says whether they were before ctx has ended.
func (t *taking) awaitQuiet(ctx context.Context) bool {
	t.mu.Lock()
	quiet := t.ends.quiet
	t.mu.Unlock()
	if quiet == nil {
		return true
	}
	select {
	case <-quiet:
		return true
	case <-ctx.Done():
		return false
	}
}

// beDone is for when the giver has said that it makes no more offers. A listener that no channel of its endpoint may outlive
// still waits for the giver to end it.
func (t *taking) beDone() {
	t.mu.Lock()
	t.done = true
	t.mu.Unlock()
	if channelsOutliveListeners || t.l.l == nil {
		t.l.retire(t)
	}
	t.wake()
}

func (t *taking) isSpent() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.spent
}
