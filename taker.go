package usher

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-usher/usher/ipc"
)

// taking is the taker's end of a channel. One goroutine reads offers into the listener's queue, one
// writes answers, many in a message if they come fast: so claiming waits for no system call.
type taking struct {
	l     *Listener
	c     *ipc.Conn
	giver ipc.Peer
	page  *page

	kick  chan struct{} // there is something to be told
	later *time.Timer   // kicks

	mu         sync.Mutex
	unanswered uint64 // a bit for each slot
	pending    []byte // answers to be told
	leaving    []byte // the last message, once there is one

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
	prefix        []byte
	local, remote netip.AddrPort
}

// serve reads from a channel to its end. It takes over c.
func (t *taking) serve() {
	defer t.c.Close()
	defer close(t.ended)
	err := t.greet()
	if err == nil {
		defer t.page.release()
		defer t.later.Stop()
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
	// A peer that has gone may have said what it came for.
	if err := t.c.Send(appendHello(nil, t.l.window)); err != nil && ended(err) != io.EOF {
		return err
	}
	t.c.SetReadDeadline(time.Now().Add(greetTimeout))
	m, err := t.c.Receive()
	if err != nil {
		return ended(err)
	}
	t.c.SetReadDeadline(time.Time{})
	defer m.Close()
	msg, err := parseMessage(m.Data)
	if err == nil && msg.typ == msgReplace {
		return t.l.beReplaced(t)
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

// receive takes over m unless it fails, and queues the offer in it.
func (t *taking) receive(m *ipc.Message) error {
	msg, err := parseMessage(m.Data)
	if err != nil {
		return err
	}
	if msg.typ != msgOffer || len(m.Attachments()) != 1 {
		return fmt.Errorf("%w: a giver sent a message of type %d with %d attachments", ipc.ErrProtocol, msg.typ, len(m.Attachments()))
	}
	a := &arrival{from: t, page: t.page, ticket: msg.offer, m: m, prefix: msg.prefix}
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
		return nil, err
	}
	c := newConn(nc, a.prefix, a.info, local, remote)
	c.giver = a.from.giver
	return c, nil
}

// decline closes the connection unread. It does not need the page: nobody here will claim.
func (a *arrival) decline(r reason) {
	a.m.Close()
	a.from.answer(answer{ticket: a.ticket, verb: verbDeclined, reason: r})
}

// Answers are told together while more offers wait to be claimed, batchSize of them at most, and none
// waits longer than batchDelay for others: it costs either side more to send and to receive a message
// than to claim.
const (
	batchSize  = 16
	batchDelay = 500 * time.Microsecond
)

func (t *taking) answer(a answer) {
	more := len(t.l.queue) > 0
	t.mu.Lock()
	t.pending = appendAnswer(t.pending, a)
	n := len(t.pending) / answerLen
	t.mu.Unlock()
	if !more || n >= batchSize {
		t.wake()
	} else if n == 1 {
		t.later.Reset(batchDelay)
	}
}

// leave makes a farewell the last that the giver is told.
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

// tell sends what is to be told. The giver may be slow to read it, or be gone: all that matters is on
// the page.
func (t *taking) tell() {
	var buf []byte
	for {
		select {
		case <-t.kick:
		case <-t.ended:
			return
		}
		t.mu.Lock()
		buf = append(appendAnswersHead(buf[:0]), t.pending...)
		for b := t.pending; len(b) > 0; b = b[answerLen:] {
			t.unanswered &^= 1 << b[1] // not before: a giver that does not read cannot have more to be told
		}
		t.pending = t.pending[:0]
		leaving := t.leaving
		t.mu.Unlock()
		at(stepTell, before)
		var err error
		if len(buf) > messageHeadLen {
			err = t.c.Send(buf)
		}
		if err == nil && leaving != nil {
			err = t.c.Send(leaving)
		}
		at(stepTell, after)
		if err != nil || leaving != nil {
			return
		}
	}
}
