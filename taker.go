package usher

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-usher/usher/ipc"
)

// taking is the taker's end of a channel. One goroutine reads offers into the listener's queue, one
// writes answers and reports, many in a message if they come fast: so claiming waits for no system call.
type taking struct {
	l       *Listener
	c       *ipc.Conn
	giver   ipc.Peer
	page    *page
	reports bool // the giver wants to hear of the ends of connections
	patient bool // the giver can wait for answers
	returns bool // the giver takes connections back

	kick  chan struct{} // there is something to be told
	later *time.Timer   // kicks
	due   *time.Timer   // makes the reports due

	mu         sync.Mutex
	unanswered uint64    // a bit for each slot
	pending    []decided // answers to be told
	leaving    []byte    // the farewell, once there is one
	ends       ends
	wayBack    *departure // a channel for hand-backs that is to be sent to the giver
	back       *Target    // which hands back; nil until needed
	done       bool       // the giver has said that it makes no more offers
	spent      bool       // the channel was closed because nothing more will be said on it

	greeted atomic.Bool
	ended   chan struct{} // closed when nothing more is read
}

// arrival is an offer that waits to be claimed.
type arrival struct {
	from *taking
	page *page // held on to, though the channel may have ended
	ticket
	m             *ipc.Message
	info          Info
	encoded       []byte // info, as it came
	prefix        []byte
	local, remote netip.AddrPort
}

// ends are the connections of a channel that have ended, and how many have not.
type ends struct {
	open   int    // offers that wait, and connections that were claimed and have not ended, if those report
	told   []byte // reports of those that have
	missed uint32 // reports for which there was no room
	due    bool   // they are to be sent now
	silent bool   // nothing is sent any more

	quiet chan struct{} // closed when all of these were sent; nil if there are none
}

const (
	// maxWaiting is how many bytes of reports wait for a giver that does not read: some 7,000 of usual size.
	// As many may be on their way.
	maxWaiting = 1 << 20

	// endedSize is when a message of reports is full. Reports wait for others no longer than endedDelay: each
	// is for a log, and to send and to receive a message costs more than to close a connection.
	endedSize  = 32 << 10
	endedDelay = 10 * time.Millisecond
)

// serve reads from a channel to its end. It takes over c.
func (t *taking) serve() {
	defer t.c.Close()
	defer close(t.ended)
	err := t.greet()
	if err == nil {
		defer t.page.release()
		defer t.later.Stop()
		defer t.due.Stop()
		go t.tell()
		err = t.readAll()
	}
	if !errors.Is(err, io.EOF) && !t.l.isClosed() {
		t.l.refused(opError("take", t.l.Addr(), fmt.Errorf("from process %d: %w", t.giver.PID, err)))
	}
}

// greet says hello, expects the giver's and maps its page. A giver that cannot be understood is told
// why.
func (t *taking) greet() (err error) {
	if t.giver, err = t.c.Peer(); err != nil {
		return err
	}
	t.later = time.AfterFunc(time.Hour, t.wake)
	t.later.Stop()
	t.due = time.AfterFunc(time.Hour, t.makeDue)
	t.due.Stop()
	denied := t.l.admitsGiver(t.giver)
	if denied == nil {
		// A peer that has gone may have said what it came for.
		if err := t.c.Send(appendHello(nil, t.l.window, t.l.flags)); err != nil && ended(err) != io.EOF {
			return err
		}
	}
	t.c.SetReadDeadline(time.Now().Add(greetTimeout))
	m, err := t.c.Receive()
	if err != nil {
		return ended(err)
	}
	t.c.SetReadDeadline(time.Time{})
	defer m.Close()
	msg, err := parseMessage(m.Data)
	if err == nil && msg.typ == msgReplace && t.l.l != nil {
		return t.l.beReplaced(t)
	}
	if denied != nil {
		return denied
	}
	if err == nil && (msg.typ != msgHello || msg.window != 0 || len(m.Attachments()) != 1) {
		err = fmt.Errorf("%w: it began with a message of type %d, window %d and %d attachments, want a hello, 0 and its page",
			ipc.ErrProtocol, msg.typ, msg.window, len(m.Attachments()))
	}
	if err != nil {
		t.farewell(reasonProtocol, err.Error())
		return err
	}
	if t.page, err = receivePage(m.Attachments()[0]); err != nil {
		if errors.Is(err, ipc.ErrProtocol) {
			t.farewell(reasonProtocol, err.Error())
		} else {
			t.farewell(reasonDescriptors, "")
		}
		return err
	}
	flags := t.l.flags & msg.flags
	t.reports, t.patient = flags&flagReports != 0, flags&flagPatient != 0
	t.returns = t.reports && flags&flagReturns != 0
	t.greeted.Store(true)
	return nil
}

// greetTimeout is for a peer to say hello once it has connected.
const greetTimeout = 10 * time.Second

// receivePage maps the page that a giver has sent.
func receivePage(a *ipc.Attachment) (*page, error) {
	if err := a.Err(); err != nil { // no descriptor was free for it
		return nil, err
	}
	f, err := a.File()
	if err != nil {
		return nil, fmt.Errorf("%w: its page of tickets is none: %w", ipc.ErrProtocol, err)
	}
	defer f.Close()
	return openPage(f)
}

// ended makes a peer that is gone the end of the channel, and no fault.
func ended(err error) error {
	if errors.Is(err, io.EOF) || slices.ContainsFunc(peerGone, func(gone error) bool { return errors.Is(err, gone) }) {
		return io.EOF
	}
	return err
}

// farewell sends a last message before the channel is closed. It is a courtesy: a giver that does not
// read is not waited for.
func (t *taking) farewell(r reason, text string) {
	t.c.SetWriteDeadline(time.Now().Add(farewellTimeout))
	_ = t.c.Send(appendLeaving(nil, r, text))
}

const farewellTimeout = time.Second

func (t *taking) readAll() error {
	for {
		m, err := t.c.Receive()
		if err != nil && t.isSpent() {
			return io.EOF
		}
		if err != nil {
			return ended(err)
		}
		at(stepReceive, before)
		err = t.receive(m)
		at(stepReceive, after)
		if err != nil {
			m.Close()
			t.farewell(reasonProtocol, err.Error())
			return err
		}
	}
}

// receive takes over m unless it fails, and queues the offer in it, if there is one.
func (t *taking) receive(m *ipc.Message) error {
	msg, err := parseMessage(m.Data)
	if err != nil {
		return err
	}
	if msg.typ == msgDone && t.reports && !t.done && len(m.Attachments()) == 0 {
		m.Close()
		t.beDone()
		return nil
	}
	if msg.typ != msgOffer || t.done || len(m.Attachments()) != 1 {
		return fmt.Errorf("%w: a giver sent a message of type %d with %d attachments", ipc.ErrProtocol, msg.typ, len(m.Attachments()))
	}
	a := &arrival{from: t, page: t.page, ticket: msg.offer, m: m, encoded: msg.info, prefix: msg.prefix}
	if a.info, a.local, a.remote, err = decodeInfo(msg.info); err != nil {
		return fmt.Errorf("%w: %w", ipc.ErrProtocol, err)
	}
	if err := t.register(msg.offer); err != nil {
		return err
	}
	if m.Attachments()[0].Err() != nil {
		a.decline(reasonDescriptors)
		return nil
	}
	t.page.retain()
	if r := t.l.enqueue(a); r != 0 {
		a.decline(r)
		a.page.release()
		return nil
	}
	// The goroutine in Accept goes first. To read on finds nothing, most of the time, and kept it waiting
	// for 5 µs of the 12 that the promise then added to a handover (BenchmarkLatency, two cores).
	runtime.Gosched()
	return nil
}

// register notes that the offer is to be answered, once.
func (t *taking) register(o ticket) error {
	if int(o.slot) >= t.l.window {
		return fmt.Errorf("%w: an offer in slot %d, limit %d", ipc.ErrProtocol, o.slot, t.l.window)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	bit := uint64(1) << o.slot
	if t.unanswered&bit != 0 {
		return fmt.Errorf("%w: an offer in slot %d, whose last is not answered yet", ipc.ErrProtocol, o.slot)
	}
	t.unanswered |= bit
	t.ends.open++ // from now on, so that what is being claimed is not overlooked
	return nil
}

// take claims the connection. It returns neither a connection nor an error for one that was withdrawn.
func (a *arrival) take() (*Conn, error) {
	defer a.page.release()
	raw := a.m.Attachments()[0]
	f, err := prepare(raw)
	if err != nil {
		a.decline(reasonUnusable)
		return nil, err
	}
	at(stepClaim, before)
	claimed, err := a.page.claim(a.ticket)
	at(stepClaim, after)
	if err != nil {
		a.from.c.Close() // the page is gone: no offer of this channel can be claimed any more
	}
	if !claimed {
		if f != nil {
			f.Close()
		}
		a.m.Close()
		a.from.answer(answer{ticket: a.ticket, verb: verbDropped})
		return nil, err
	}
	a.from.answer(answer{ticket: a.ticket, verb: verbClaimed})
	local, remote := tcpAddr(a.local), tcpAddr(a.remote)
	nc, err := finish(raw, f, local, remote)
	if err != nil {
		a.m.Close()
		a.from.forget()
		return nil, err
	}
	c := newConn(nc, a.prefix, a.info, local, remote)
	c.giver = a.from.giver
	c.home.Store(a.from.l)
	if a.from.reports {
		c.tally.Store(newTally(a.from, a.encoded))
	}
	return c, nil
}

// decline closes the connection unread. It does not need the page: nobody here will claim.
func (a *arrival) decline(r reason) {
	a.m.Close()
	a.from.answer(answer{ticket: a.ticket, verb: verbDeclined, reason: r})
}

// Answers are told together while more offers wait to be claimed, batchSize of them at most, and none
// waits longer than batchDelay for others: it costs either side more to send and to receive a message
// than to claim. Where the giver is patient they wait for others in any case, for patientDelay, but for those that send
// a connection back. No more than half of the slots wait.
const (
	batchSize    = 16
	batchDelay   = 500 * time.Microsecond
	patientDelay = 5 * time.Millisecond
)

// decided is an answer, and when it was decided.
type decided struct {
	answer
	at time.Time // if the giver is told
}

func (t *taking) answer(a answer) {
	d := decided{answer: a}
	waits, delay := len(t.l.queue) > 0, batchDelay
	if t.patient {
		d.at = time.Now()
		waits, delay = a.verb == verbClaimed, patientDelay
	}
	t.mu.Lock()
	t.pending = append(t.pending, d)
	n := len(t.pending)
	if a.verb != verbClaimed {
		t.ends.open--
	}
	t.mu.Unlock()
	if !waits || n >= min(batchSize, (t.l.window+1)/2) {
		t.wake()
	} else if n == 1 {
		t.later.Reset(delay)
	}
}

// leave makes a farewell the last that the giver is told, but for reports.
func (t *taking) leave(r reason, text string) {
	t.mu.Lock()
	if t.leaving == nil {
		t.leaving = appendLeaving(nil, r, text)
	}
	t.mu.Unlock()
	t.wake()
}

func (t *taking) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// news is what tell has to send. Its buffers are used again.
type news struct {
	answers []byte // a message, or only its head
	taken   []byte // reports
	ends    []byte // those of them that were not sent yet
	missed  uint32
	leaving []byte // the farewell, which goes behind them
	left    bool   // it was sent
	wayBack *departure
	buf     []byte // for a message of reports
}

// tell sends what is to be told. The giver may be slow to read it, or be gone: all that matters is on
// the page.
func (t *taking) tell() {
	defer t.fallSilent()
	var n news
	for {
		if len(n.ends) == 0 {
			select {
			case <-t.kick:
			case <-t.ended:
				return
			}
		}
		t.collect(&n)
		at(stepTell, before)
		err := t.send(&n)
		at(stepTell, after)
		if err != nil || n.left && !(t.reports && channelsOutliveListeners) {
			return
		}
		if t.reports && len(n.ends) == 0 && t.allTold() {
			t.endSpent()
			return
		}
	}
}

// collect takes what is to be sent next. Reports that were taken before go first.
func (t *taking) collect(n *news) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.answers = t.appendAnswers(n.answers[:0])
	for _, d := range t.pending {
		t.unanswered &^= 1 << d.slot // not before: a giver that does not read cannot have more to be told
	}
	t.pending = t.pending[:0]
	n.wayBack, t.wayBack = t.wayBack, nil
	if len(n.ends) > 0 {
		return
	}
	n.leaving = t.leaving
	if t.ends.due || t.hurries() {
		t.ends.take(n)
	}
}

// appendAnswers appends a message of all answers, or only its head. t.mu is held.
func (t *taking) appendAnswers(b []byte) []byte {
	if !t.patient {
		b = appendAnswersHead(b)
		for _, d := range t.pending {
			b = appendAnswer(b, d.answer)
		}
		return b
	}
	b = appendLateHead(b)
	now := time.Now()
	for _, d := range t.pending {
		d.ago = uint32(min(now.Sub(d.at).Microseconds(), math.MaxUint32))
		b = appendLateAnswer(b, d.answer)
	}
	return b
}

// send sends the answers and a message of reports, so that no answer waits for many of those, and the farewell when
// all reports that came before it are sent. The giver wants no answers after that: it has seen to all its offers.
func (t *taking) send(n *news) error {
	if n.wayBack != nil { // first, so that it does not get lost if the rest fails
		n.wayBack.send(t.c)
		n.wayBack = nil
	}
	if len(n.answers) > messageHeadLen && !n.left {
		if err := t.c.Send(n.answers); err != nil {
			return err
		}
	}
	if len(n.ends) > 0 {
		size := 0
		for size < min(len(n.ends), endedSize) {
			size += reportLen(n.ends[size:])
		}
		n.buf = append(appendEndedHead(n.buf[:0], n.missed), n.ends[:size]...)
		if err := t.c.Send(n.buf); err != nil {
			return err
		}
		n.ends, n.missed = n.ends[size:], 0
	}
	if n.leaving == nil || n.left || len(n.ends) > 0 {
		return nil
	}
	n.left = true
	return t.c.Send(n.leaving)
}
