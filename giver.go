package usher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-usher/usher/ipc"
)

// giving is the giver's end of a channel. One goroutine sends what may have to wait for room in the
// channel and one reads answers, so that no call of handoff ever waits for the taker in a system call:
// each waits for its outcome or for its context, and the ticket decides.
type giving struct {
	c       *ipc.Conn
	page    *page
	taker   ipc.Peer
	window  int
	reports bool // the taker reports the ends of connections
	patient bool // its answers may be late
	returns bool // it may hand connections back
	hooks   hooks

	free chan uint8 // the slots that no offer has; holding one is leave to make an offer
	out  chan *slot // offers to be sent, at most one a slot

	ended chan struct{} // closed when no more offers can be made
	err   error         // why; read it after ended, or isEnded
	stays bool          // the channel stays for reports, some of which are owed; read it after ended
	wrote chan struct{} // closed when nothing more is written
	gone  chan struct{} // closed when nothing more is read, nor comes back

	// Of the goroutine that writes; read it after wrote.
	saidDone bool

	// Of the goroutine that reads; read them after gone.
	parted bool // the taker has said that it leaves
	paused bool // the channel is whole, and left to another process

	sendMu sync.Mutex // held while an offer is sent
	buf    []byte     // for it

	isEnded atomic.Bool // set while mu is held, when err is

	mu      sync.Mutex
	back    *Listener // for what the taker hands back; nil until it wants to
	dropped bool      // it may not any more: the target is closed
	slots   [MaxOpen]slot
	awaited int             // offers without an outcome
	closing bool            // no more are made
	settled chan struct{}   // closed when awaited is 0; nil if nobody waits for that
	pause   context.Context // reading ends as soon as it can, before this does; nil until then
	owed    int64           // connections that the taker has claimed and not reported
	decided []decision      // to be told
	spare   []decision      // memory for the next
	late    *time.Timer     // withdraws what TryHandoff has offered and nobody has claimed in time; nil until needed
	due     time.Time       // when it goes off; zero if it is not set
}

// decision is an outcome of which a function is to be told. That is done when giving.mu is not held any more.
type decision struct {
	o    *Offer
	done func(time.Time, error)
	at   time.Time
	err  error
}

// hooks are what a Target wants to be told, any of which may be nil, and how.
type hooks struct {
	addr     addr // of the target
	patient  bool
	ended    func(Report)
	returned func(*Conn)                     // called in a goroutine of its own
	calls    *calls                          // of it, and who makes them
	lost     func(taker ipc.Peer, why error) // so is this
}

// slot is what the giver knows of a slot. giving.mu guards it.
//
//	free ──► queued ──► open ──────────────► free     claimed, or declined
//	            │         │
//	            │         └──► withdrawn ────► free     and then answered
//	            └──► unsent ─────────────────► free     withdrawn before it was sent: nobody may answer
//
// A slot whose offer was withdrawn stays taken until the taker has answered for it: so a stopped taker
// has no more than its window of offers, and their descriptors, on their way to it.
type slot struct {
	ticket
	state slotState
	offer *Offer // while it is queued or open

	// When TryHandoff has offered it, and when it is to be withdrawn.
	since, until time.Time
}

type slotState uint8

const (
	slotFree slotState = iota
	slotQueued
	slotOpen
	slotWithdrawn
	slotUnsent
)

// errChannelEnded is in the chain of errors for which another channel to the same endpoint may do
// better: the taker is gone, or leaves.
var errChannelEnded = errors.New("the channel to the taker has ended")

// errTakerLeft is in the chain, beside errChannelEnded, when the taker has said that it leaves. It may have
// connections whose ends it reports yet.
var errTakerLeft = fmt.Errorf("%w: the taker leaves", errChannelEnded)

// newGiving takes over c. It says hello, waits for the taker's, and starts.
func newGiving(ctx context.Context, c *ipc.Conn, h hooks) (_ *giving, err error) {
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	page, f, err := newPage()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			page.release()
		}
	}()
	defer f.Close()
	taker, err := c.Peer()
	if err != nil {
		return nil, err
	}
	hello, err := greetTaker(ctx, c, appendHello(nil, 0, h.flags()), f)
	if err != nil {
		return nil, inContext(ctx, err)
	}
	g := &giving{
		c: c, page: page, taker: taker, window: hello.window, hooks: h,
		free: make(chan uint8, MaxOpen), out: make(chan *slot, MaxOpen),
		ended: make(chan struct{}), wrote: make(chan struct{}), gone: make(chan struct{}),
	}
	flags := h.flags() & hello.flags
	g.reports, g.patient = flags&flagReports != 0, flags&flagPatient != 0
	g.returns = g.reports && flags&flagReturns != 0
	for i := range hello.window {
		g.slots[i] = slot{ticket: ticket{slot: uint8(i)}}
		g.free <- uint8(i)
	}
	go g.write()
	go g.read()
	return g, nil
}

// flags are those of the hello.
func (h *hooks) flags() uint32 {
	flags := uint32(0)
	if h.ended != nil {
		flags |= flagReports
	}
	if h.returned != nil {
		flags |= flagReports | flagReturns // the channel has to live for as long as a connection could come back
	}
	if h.patient {
		flags |= flagPatient
	}
	return flags
}

// boundBy makes ctx bound what a deadline is for, until the function that it returns is called.
func boundBy(ctx context.Context, setDeadline func(time.Time) error) (release func()) {
	var mu sync.Mutex
	released := false
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !released {
			setDeadline(time.Unix(1, 0))
		}
	})
	return func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		released = true
		setDeadline(time.Time{})
	}
}

// inContext says that ctx has ended where that is the cause of err.
func inContext(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return contextError(ctx, "the listener has not greeted")
	}
	return err
}

// greetTaker says hello and returns the taker's. When it has returned, ctx does not bound the channel any more: nobody may read there
// before, who would find it at its end with ctx.
func greetTaker(ctx context.Context, c *ipc.Conn, hello []byte, page *os.File) (message, error) {
	defer boundBy(ctx, c.SetDeadline)()
	if err := c.Send(hello, page); err != nil {
		return message{}, endedBy(err)
	}
	return receiveHello(c)
}

// receiveHello returns the taker's.
func receiveHello(c *ipc.Conn) (hello message, err error) {
	m, err := c.Receive()
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the listener has closed it without a hello: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return hello, endedBy(err)
	}
	defer m.Close()
	hello, err = parseMessage(m.Data)
	if err != nil {
		return hello, err
	}
	if hello.typ == msgLeaving {
		return hello, leavingError(hello)
	}
	if hello.typ != msgHello || hello.window < 1 || hello.window > MaxOpen {
		return hello, fmt.Errorf("%w: it began with a message of type %d and window %d, want a hello and 1 to %d",
			ipc.ErrProtocol, hello.typ, hello.window, MaxOpen)
	}
	return hello, nil
}

// handoff makes one offer and returns its outcome: nil if and only if the taker has claimed.
func (g *giving) handoff(ctx context.Context, o *Offer) error {
	s, err := g.open(ctx, o)
	if err != nil {
		return err
	}
	if !g.sendAtOnce(s, o) {
		g.out <- s
	}
	select {
	case err = <-o.outcome:
		return err
	case <-ctx.Done():
		return g.withdrawLate(ctx, s, o)
	}
}

// open waits for a slot and writes the ticket there.
func (g *giving) open(ctx context.Context, o *Offer) (*slot, error) {
	var i uint8
	select {
	case i = <-g.free:
	case <-g.ended:
		return nil, g.err
	case <-ctx.Done():
		return nil, contextError(ctx, "the taker has its fill of offers that it has not answered")
	}
	g.mu.Lock()
	defer g.unlock()
	if g.isEnded.Load() {
		return nil, g.err
	}
	if g.closing {
		return nil, errTargetShutDown
	}
	s := &g.slots[i]
	if err := g.offerLocked(s, o); err != nil {
		return nil, err
	}
	return s, nil
}

// offerLocked puts o into a free slot and writes its ticket. g.mu is held.
func (g *giving) offerLocked(s *slot, o *Offer) error {
	s.generation = (s.generation + 1) & maxGeneration
	at(stepOffer, before)
	if err := g.page.offer(s.ticket); err != nil {
		g.endLocked(err)
		return err
	}
	at(stepOffer, after)
	s.state, s.offer = slotQueued, o
	g.awaited++
	return nil
}

// withdrawLate is for an offer whose context has ended.
func (g *giving) withdrawLate(ctx context.Context, s *slot, o *Offer) error {
	g.mu.Lock()
	if s.offer == o { // else it has its outcome, and the slot may be another's by now
		g.settle(s, contextError(ctx, "the taker has not claimed it"))
	}
	g.unlock()
	return <-o.outcome
}

// tryHandoff makes an offer if nothing has to be waited for: neither for a slot, nor for another call that sends, nor for
// room in the channel. It returns false otherwise, and o is as it was. If it returns true, o.done is told the outcome.
func (g *giving) tryHandoff(o *Offer, within time.Duration) bool {
	if !sendsAtOnce || len(o.encoded)+len(o.prefix) > atOnceLimit || !g.sendMu.TryLock() {
		return false
	}
	defer g.sendMu.Unlock()
	var i uint8
	select {
	case i = <-g.free:
	default:
		return false
	}
	g.mu.Lock()
	s := &g.slots[i]
	if g.isEnded.Load() || g.closing || g.offerLocked(s, o) != nil {
		g.unlock()
		return false
	}
	s.since = time.Now()
	s.until = s.since.Add(within)
	g.wakeLocked(s.until)
	g.mu.Unlock()
	return g.send(s, g.trySend)
}

// takeBack is for an offer of TryHandoff that could not be sent at once. Nobody has seen it. g.mu is held.
func (g *giving) takeBack(s *slot) {
	claimed, spoilt := g.page.withdraw(s.ticket)
	s.offer = nil
	g.awaited--
	g.checkSettled()
	g.freeLocked(s)
	if claimed { // it has torn the ticket, and cannot have the connection
		spoilt = fmt.Errorf("%w: it claimed an offer that was never sent", ipc.ErrProtocol)
	}
	if spoilt != nil {
		g.endLocked(spoilt)
	}
}

// wakeLocked has overdue called at t, or before. g.mu is held.
func (g *giving) wakeLocked(t time.Time) {
	if !g.due.IsZero() && !t.Before(g.due) {
		return
	}
	g.due = t
	if g.late == nil {
		g.late = time.AfterFunc(time.Until(t), g.overdue)
	} else {
		g.late.Reset(time.Until(t))
	}
}

// overdue withdraws the offers whose time is up. One timer does for all: to set one for each would cost more than it
// takes to make an offer, and hardly any is ever late.
func (g *giving) overdue() {
	g.mu.Lock()
	defer g.unlock()
	g.due = time.Time{}
	now := time.Now()
	for i := range g.slots {
		s := &g.slots[i]
		if s.offer == nil || s.offer.done == nil {
			continue
		}
		if s.until.After(now) {
			g.wakeLocked(s.until)
			continue
		}
		g.settle(s, lateError{fmt.Errorf("the taker has not claimed it: %w", context.DeadlineExceeded)})
	}
}

// unlock tells the outcomes that were decided under g.mu, when that is not held any more.
func (g *giving) unlock() {
	decided := g.decided
	if len(decided) == 0 {
		g.mu.Unlock()
		return
	}
	g.decided, g.spare = g.spare, nil
	g.mu.Unlock()
	for _, d := range decided {
		d.o.end(d.err == nil)
		d.done(d.at, opError("handoff", g.hooks.addr, d.err))
	}
	clear(decided)
	g.mu.Lock()
	g.spare = decided[:0]
	g.mu.Unlock()
}

// decideLocked gives the offer in s its outcome, which was decided some time ago: so a taker says, who cannot have
// claimed what was not offered yet. g.mu is held, and left by unlock.
func (g *giving) decideLocked(s *slot, ago time.Duration, err error) {
	o := s.offer
	s.offer = nil
	g.awaited--
	g.checkSettled()
	if o.done == nil {
		o.outcome <- err
		return
	}
	at := time.Now().Add(-ago)
	if at.Before(s.since) {
		at = s.since
	}
	g.decided = append(g.decided, decision{o, o.done, at, err})
	o.done = nil
}

// settle ends an offer that is open: withdrawn with err as its outcome, unless the taker has claimed
// it. g.mu is held.
func (g *giving) settle(s *slot, err error) {
	at(stepWithdraw, before)
	claimed, spoilt := g.page.withdraw(s.ticket)
	at(stepWithdraw, after)
	if claimed {
		err = nil
		g.owed++
	} else if spoilt != nil {
		err = errors.Join(err, spoilt)
	}
	g.decideLocked(s, 0, err)
	if s.state == slotQueued {
		s.state = slotUnsent
	} else {
		s.state = slotWithdrawn
	}
	if spoilt != nil {
		g.stays = false // if it is ending already, in good order as it seemed
		g.endLocked(spoilt)
	}
}

// freeLocked makes a slot free that was answered for. g.mu is held.
func (g *giving) freeLocked(s *slot) {
	s.state = slotFree
	g.free <- s.slot
}

// write sends the offers that are queued, and in the end, if the channel stays, that no more will come.
func (g *giving) write() {
	defer close(g.wrote)
	for {
		select {
		case s := <-g.out:
			g.sendMu.Lock()
			g.send(s, func(b []byte, c syscall.Conn) (bool, error) { return true, g.c.Send(b, c) })
			g.sendMu.Unlock()
		case <-g.ended:
			if g.stays && !g.saidDone {
				g.sendMu.Lock() // after an offer that is being sent still
				g.saidDone = g.c.Send(appendDone(nil)) == nil
				g.sendMu.Unlock()
			}
			return
		}
	}
}

// sendAtOnce sends a small offer if that needs no waiting, which spares a switch to the goroutine that
// can wait.
func (g *giving) sendAtOnce(s *slot, o *Offer) bool {
	if !sendsAtOnce || len(o.encoded)+len(o.prefix) > atOnceLimit || !g.sendMu.TryLock() {
		return false
	}
	defer g.sendMu.Unlock()
	return g.send(s, g.trySend)
}

func (g *giving) trySend(b []byte, c syscall.Conn) (bool, error) { return g.c.TrySend(b, c) }

// send sends an offer that is queued. It returns false if it was not sent, and is queued still, or taken back.
// g.sendMu is held.
func (g *giving) send(s *slot, how func([]byte, syscall.Conn) (bool, error)) bool {
	g.mu.Lock()
	if s.state != slotQueued { // withdrawn before it was sent
		if !g.isEnded.Load() {
			g.freeLocked(s)
		}
		g.mu.Unlock()
		return true
	}
	o, t := s.offer, s.ticket
	s.state = slotOpen
	g.mu.Unlock()

	g.buf = appendOffer(g.buf[:0], t, o.encoded, o.prefix)
	at(stepSend, before)
	sent, err := how(g.buf, o.held)
	if cap(g.buf) > keptBuffer {
		g.buf = nil
	}
	if err == nil && !sent {
		return g.notSent(s, t, nil)
	}
	at(stepSend, after)
	return err == nil || g.notSent(s, t, err)
}

const (
	sendsAtOnce = runtime.GOOS == "linux" // as ipc.Conn.TrySend says

	atOnceLimit = 3 << 10  // of bytes: most heads of requests; ipc.Conn.TrySend takes little more
	keptBuffer  = 64 << 10 // of bytes
)

// notSent is for an offer that was not sent. With an error the channel is at its end, unless the fault is
// the offer's own, or the system's for the moment. It returns false for an offer that is queued again, or taken back
// because nobody waits for it.
func (g *giving) notSent(s *slot, t ticket, err error) bool {
	g.mu.Lock()
	defer g.unlock()
	if g.isEnded.Load() {
		return true
	}
	if err != nil && !unsent(err) {
		g.endLocked(endedBy(err))
		return true
	}
	if s.ticket != t || s.state != slotOpen && s.state != slotWithdrawn {
		g.endLocked(fmt.Errorf("%w: it answered for an offer that was never sent", ipc.ErrProtocol))
		return true
	}
	if err == nil && s.state == slotOpen && s.offer.done != nil {
		g.takeBack(s)
		return false
	}
	if err == nil && s.state == slotOpen {
		s.state = slotQueued
		return false
	}
	if s.state == slotOpen {
		g.settle(s, err)
	}
	if !g.isEnded.Load() { // no answer will come for what was not sent
		g.freeLocked(s)
	}
	return true
}

// read reads answers, and then, if the channel stays, reports, to the end of the channel.
func (g *giving) read() {
	defer close(g.gone)
	for {
		err := g.readOne()
		if err == nil {
			continue
		}
		if g.paused, err = g.pauses(err); g.paused {
			return
		}
		if err != nil && !g.end(err) {
			break
		}
	}
	g.c.Close()
	g.endBack()
}

func (g *giving) readOne() error {
	m, err := g.c.Receive()
	if err != nil {
		return endedBy(err)
	}
	defer m.Close()
	msg, err := parseMessage(m.Data)
	if err != nil {
		return err
	}
	switch {
	case msg.typ == msgEnded && g.reports:
		return g.takeReports(msg)
	case msg.typ == msgBack && g.returns:
		return g.beGivenBack(m)
	case (msg.typ == msgAnswers && !g.patient || msg.typ == msgLate && g.patient) && !g.parted:
		return g.take(msg.answers)
	case msg.typ == msgLeaving && !g.parted:
		g.parted = true
		return leavingError(msg)
	}
	return fmt.Errorf("%w: a taker sent a message of type %d", ipc.ErrProtocol, msg.typ)
}

// take passes over answers on a channel that stays for reports: the tickets of all offers were torn when it ended.
func (g *giving) take(answers []answer) error {
	g.mu.Lock()
	defer g.unlock()
	for _, a := range answers {
		if g.isEnded.Load() && g.stays {
			return nil
		}
		if g.isEnded.Load() {
			return g.err
		}
		if err := g.takeOne(a); err != nil {
			return err
		}
	}
	return nil
}

// takeOne believes the ticket, not the answer: a claim that is not on the page is none, and one that is
// there stands whatever the taker says. g.mu is held.
func (g *giving) takeOne(a answer) error {
	s := &g.slots[min(int(a.slot), MaxOpen-1)]
	if a.ticket != s.ticket || s.state != slotOpen && s.state != slotWithdrawn {
		return fmt.Errorf("%w: an answer for offer %d of slot %d, which is not open", ipc.ErrProtocol, a.generation, a.slot)
	}
	if s.state == slotOpen {
		at(stepTold, before)
		switch a.verb {
		case verbClaimed:
			claimed, err := g.page.isClaimed(s.ticket)
			if err != nil {
				return err
			}
			if !claimed {
				return fmt.Errorf("%w: it says that it has claimed an offer, and has not", ipc.ErrProtocol)
			}
			g.decideLocked(s, time.Duration(a.ago)*time.Microsecond, nil)
			g.owed++
			s.state = slotWithdrawn
		case verbDeclined:
			if a.reason == reasonShutdown || a.reason == reasonReplaced { // its farewell is on its way
				return leavingError(message{reason: a.reason})
			}
			g.settle(s, fmt.Errorf("%w: %v", ErrDeclined, a.reason))
		case verbDropped:
			return fmt.Errorf("%w: it dropped an offer that was not withdrawn", ipc.ErrProtocol)
		}
		at(stepTold, after)
	}
	if !g.isEnded.Load() {
		g.freeLocked(s)
	}
	return nil
}

// takeReports passes on what the taker reports. That of a connection follows the answer that it was claimed, or
// the giver has found it claimed when the channel ended.
func (g *giving) takeReports(m message) error {
	g.mu.Lock()
	g.owed -= int64(len(m.reports)) + int64(m.missed)
	owed, last := g.owed, g.owed == 0 && g.isEnded.Load()
	g.mu.Unlock()
	if owed < 0 {
		return fmt.Errorf("%w: it reports the ends of more connections than it has claimed", ipc.ErrProtocol)
	}
	for i, r := range m.reports {
		report := Report{
			Taker: g.taker, Received: r.received, Sent: r.sent, Duration: time.Duration(r.duration), HandedOn: r.handedOn,
		}
		var err error
		if report.Info, report.Local, report.Remote, err = decodeInfo(r.info); err != nil {
			return fmt.Errorf("%w: in a report: %w", ipc.ErrProtocol, err)
		}
		if i == 0 {
			report.Missed = int(m.missed)
		}
		if g.hooks.ended != nil {
			g.hooks.ended(report)
		}
	}
	if last {
		return errAllReported
	}
	return nil
}

// errAllReported ends a channel that has stayed for reports. It is not left to the taker to do that.
var errAllReported = errors.New("all connections were reported")

// leavingError is what a taker's farewell means here.
func leavingError(m message) error {
	switch m.reason {
	case reasonProtocol:
		return fmt.Errorf("%w: the taker says so of this side: %.200q", ipc.ErrProtocol, m.text)
	case reasonDescriptors:
		return fmt.Errorf("%w: %v", ErrDeclined, m.reason)
	case reasonReplaced:
		return fmt.Errorf("%w: %w", errTakerLeft, ErrReplaced)
	}
	return fmt.Errorf("%w: %v", errTakerLeft, m.reason)
}

// endedBy says of an error of the channel that the channel has ended.
func endedBy(err error) error {
	if errors.Is(err, ipc.ErrProtocol) {
		return err
	}
	return fmt.Errorf("%w: %w", errChannelEnded, err)
}

// unsent says whether an error of Send leaves the channel as it was: the fault is the connection's, or
// the system's for the moment.
func unsent(err error) bool {
	return errors.Is(err, ipc.ErrAttachment) || errors.Is(err, errTooManyOnTheirWay)
}

// end withdraws all that is open and closes the channel, or says that it stays open for reports, as it does when
// the taker leaves, or the target is shut down, with connections that it has not reported, and nobody breaks the
// protocol. What the taker has claimed until now is its own; what it has not, it cannot any more.
func (g *giving) end(err error) (stays bool) {
	g.mu.Lock()
	defer g.unlock()
	g.endLocked(err)
	if g.stays && g.staysAfter(err) { // not so, if the end of what stayed has come
		return true
	}
	g.c.Close()
	return false
}

func (g *giving) endLocked(err error) {
	if g.isEnded.Load() {
		return
	}
	g.err = err
	g.isEnded.Store(true) // before Handoff hears of it, which would take this channel for the next one else
	g.stays = g.staysAfter(err)
	for i := range g.slots {
		if s := &g.slots[i]; s.state == slotQueued || s.state == slotOpen {
			g.settle(s, err)
		}
	}
	// A taker that owes nothing could make this side hold a channel for each time that it comes and goes.
	g.stays = g.stays && g.owed > 0
	close(g.ended)
	if g.late != nil {
		g.late.Stop()
	}
	if !g.stays {
		g.c.Close()
	}
	g.page.release()
	if g.hooks.lost != nil && err != errTargetClosed && err != errTargetShutDown {
		go g.hooks.lost(g.taker, err)
	}
}

// staysAfter says whether err is an end after which reports may come. Where a channel must end with its listener, those
// come before the farewell. (That is of the reading goroutine, as is g.parted.)
func (g *giving) staysAfter(err error) bool {
	if !g.reports {
		return false
	}
	return err == errTargetShutDown || errors.Is(err, errTakerLeft) && (channelsOutliveListeners || !g.parted)
}

// isGone says whether nothing more is read, nor comes back.
func (g *giving) isGone() bool {
	select {
	case <-g.gone:
		return true
	default:
		return false
	}
}

// unclaimed returns how many offers the taker has neither claimed, as the page says, whether it was told or not, nor
// answered otherwise.
func (g *giving) unclaimed() int {
	if len(g.free) == g.window {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for i := range g.window {
		s := &g.slots[i]
		if s.state == slotFree {
			continue
		}
		if s.state == slotOpen && !g.isEnded.Load() { // the page is there
			if claimed, _ := g.page.isClaimed(s.ticket); claimed {
				continue
			}
		}
		n++
	}
	return n
}

// hasEnded returns why the channel has ended, or nil.
func (g *giving) hasEnded() error {
	if g.isEnded.Load() {
		return g.err
	}
	return nil
}
