package ipc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is one end of a channel: a connection between two processes that carries messages both ways.
// All its methods may be called from several goroutines at once. It can be sent on another channel: see [Conn.Send].
type Conn struct {
	addr   addr
	limits Limits
	t      transport

	closeOnce sync.Once
	closed    atomic.Bool // by Close, not for being broken

	wmu  sync.Mutex
	wbuf []byte // a frame, or its beginning, kept to be reused

	rmu sync.Mutex
	in  inbox

	bmu    sync.Mutex
	broken error // why nothing can be sent or received any more
}

// inbox is the state of Receive between two calls. A deadline may end a call within a frame; the
// next goes on where it stopped, so no byte is lost.
type inbox struct {
	buf   []byte // what was read from the channel and belongs to no message yet
	r, w  int    // buf[r:w]
	total uint64 // bytes read from the channel so far: the stream offset of buf[w]

	open  bool // a header was read, its frame is not complete
	head  header
	start uint64 // the stream offset of the frame's first byte
	body  []byte // the table and data of the frame, as far as they have come
}

const (
	inboxSize = 16 << 10 // most messages come whole in one read
	firstBody = 64 << 10 // taken for a frame on the peer's word; more only as it arrives
)

func newConn(t transport, a addr, l Limits) *Conn {
	return &Conn{t: t, addr: a, limits: l.withDefaults()}
}

var _ syscall.Conn = (*Conn)(nil)

// Dial connects to the listener at an endpoint and checks that the same user or root serves it.
// The context bounds the connecting, not the channel.
func Dial(ctx context.Context, endpoint string) (*Conn, error) {
	return new(Dialer).Dial(ctx, endpoint)
}

// Dialer has options for connecting to an endpoint. Its zero value is that of [Dial].
type Dialer struct {
	// Policy decides whether the process at the other end may be talked to. Nil means [SameUser].
	Policy Policy

	// Limits bound the messages of the channel.
	Limits Limits
}

// Dial connects to the listener at an endpoint. The context bounds the connecting, not the channel.
// An error of the policy is in the chain of the error returned.
func (d *Dialer) Dial(ctx context.Context, endpoint string) (*Conn, error) {
	path, err := resolve(endpoint)
	if err != nil {
		return nil, opError("dial", addr(endpoint), err)
	}
	t, err := dial(ctx, path)
	if errors.Is(err, context.DeadlineExceeded) {
		err = lateError{err}
	}
	if err != nil {
		return nil, opError("dial", addr(path), err)
	}
	if err := admit(t, d.Policy); err != nil {
		t.close()
		return nil, opError("dial", addr(path), err)
	}
	return newConn(t, addr(path), d.Limits), nil
}

// Send sends one message: data and attachments, either of which may be empty. When it returns nil
// the message is in the kernel's hands; it says nothing about its being received.
//
// An attachment is anything with a descriptor: *net.TCPConn, *net.TCPListener, *net.UDPConn,
// *os.File (on Windows also one that has the handle of a section) and, except on Windows, *net.UnixConn and
// *net.UnixListener. A *Conn is one, too: the receiver goes on with that channel ([Attachment.Channel]), if no message is half sent or
// half received on it, none waits for Receive in this process, and neither is called meanwhile; on Windows it must be the second end that
// [Pair] returned, as for [Conn.PassTo]. The sender then closes its own. A type of your own needs a File method like theirs on Windows, or a socket that is
// on no completion port. Send keeps nothing of data and of the attachments; the handles stay the
// caller's to close. Closing one while Send runs is safe.
//
// A message over the channel's [Limits] gives an error that is [ErrTooLarge] and a bad attachment
// one that is [ErrAttachment] and names it; nothing is sent then and the channel lives on. If a deadline or a failure comes
// when part of the message is sent, the channel breaks: all later calls fail, and the peer gets
// [io.ErrUnexpectedEOF], never half a message. On Windows any failed write breaks the channel,
// because there the system does not tell how much of it was read.
func (c *Conn) Send(data []byte, attachments ...syscall.Conn) error {
	return opError("send", c.addr, c.send(data, attachments))
}

func (c *Conn) send(data []byte, attachments []syscall.Conn) error {
	if err := c.check(data, attachments); err != nil {
		return err
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	partial, err := c.t.send(&c.wbuf, data, attachments)
	if err == nil {
		c.noteChannels(attachments)
	}
	if cap(c.wbuf) > firstBody {
		c.wbuf = nil // the odd huge table is not kept for ever
	}
	if partial && err != nil {
		c.breakChannel(fmt.Errorf("a message was cut short: %w", err))
	}
	return err
}

// TrySend is Send if that needs no waiting, neither for room in the channel nor for another Send. If it
// returns false and no error, nothing was sent, and Send would wait or cannot tell: so it is always for
// messages of more than some thousand bytes, and on systems other than Linux.
func (c *Conn) TrySend(data []byte, attachments ...syscall.Conn) (sent bool, err error) {
	sent, err = c.trySend(data, attachments)
	return sent, opError("send", c.addr, err)
}

func (c *Conn) trySend(data []byte, attachments []syscall.Conn) (bool, error) {
	if err := c.check(data, attachments); err != nil {
		return false, err
	}
	if !c.wmu.TryLock() {
		return false, nil
	}
	defer c.wmu.Unlock()
	if err := c.usable(); err != nil {
		return false, err
	}
	sent, err := c.t.trySend(&c.wbuf, data, attachments)
	if sent && err == nil {
		c.noteChannels(attachments)
	}
	if sent && err != nil {
		c.breakChannel(fmt.Errorf("a message was cut short: %w", err))
	}
	return sent && err == nil, err
}

// noteChannels tells the end of a pair that this process keeps who has the other now.
func (c *Conn) noteChannels(attachments []syscall.Conn) {
	for _, a := range attachments {
		if sent, ok := a.(*Conn); ok {
			sent.t.sentTo(c.t)
		}
	}
}

// check holds a message to the limits.
func (c *Conn) check(data []byte, attachments []syscall.Conn) error {
	if len(data) > c.limits.Data {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, len(data), c.limits.Data)
	}
	if len(attachments) > c.limits.Attachments {
		return fmt.Errorf("%w: %d attachments, limit %d", ErrTooLarge, len(attachments), c.limits.Attachments)
	}
	for i, a := range attachments {
		if err := checkAttachment(a); err != nil {
			return attachmentError(i, err)
		}
	}
	return nil
}

// usable says why the channel cannot be used any more, if so.
func (c *Conn) usable() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.whyBroken()
}

func attachmentError(i int, err error) error {
	return fmt.Errorf("%w: attachment %d: %w", ErrAttachment, i, err)
}

func checkAttachment(a syscall.Conn) error {
	if v := reflect.ValueOf(a); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return errors.New("is nil")
	}
	if p, ok := a.(*PrefixConn); ok && p.Buffered() > 0 {
		return fmt.Errorf("%d bytes of its prefix are not read yet and would be lost: send them as data, with the connection that NetConn returns",
			p.Buffered())
	}
	if f, ok := a.(*os.File); ok && len(f.Name()) > maxName {
		return fmt.Errorf("its name has %d bytes, limit %d", len(f.Name()), maxName)
	}
	return nil
}

// entryFor is what the frame says of an attachment, but for the body.
func entryFor(a syscall.Conn) entry {
	switch a := a.(type) {
	case *os.File:
		return entry{kind: kindFile, name: a.Name()}
	case *Conn:
		return entry{kind: channelKind}
	}
	return entry{kind: kindSocket}
}

// beginFrame puts a header and, with the bodies given, the table for attachments into b[:0].
func beginFrame(b []byte, dataLen int, attachments []syscall.Conn, bodies [][]byte) []byte {
	b = append(b[:0], make([]byte, headerLen)...)
	for i, a := range attachments {
		e := entryFor(a)
		if bodies != nil {
			e.body = bodies[i]
		}
		b = e.append(b)
	}
	h := header{table: uint32(len(b) - headerLen), data: uint32(dataLen), count: uint16(len(attachments))}
	h.put(b)
	return b
}

// Receive waits for the next message and returns it whole. The caller owns it, and closes it unless
// it has taken every attachment.
//
// At the end, when the peer has closed the channel or died, the error is a bare [io.EOF]; within a
// message it is [io.ErrUnexpectedEOF]. A deadline that passes within a message loses nothing: a
// later Receive goes on. A peer that breaks the protocol gives an error that is [ErrProtocol] and
// says how; the channel is closed then, with all that had arrived.
//
// When the process is at its limit of open files, the message arrives and the attachments that found
// no room return an error that is syscall.EMFILE.
func (c *Conn) Receive() (*Message, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	m, err := c.receive()
	if err == nil {
		return m, nil
	}
	if errors.Is(err, ErrProtocol) || errors.Is(err, io.ErrUnexpectedEOF) {
		c.breakChannel(err)
		c.t.drop()
	}
	return nil, opError("receive", c.addr, err)
}

func (c *Conn) receive() (*Message, error) {
	if err := c.usable(); err != nil {
		return nil, err
	}
	in := &c.in
	if !in.open {
		if err := c.readHeader(); err != nil {
			return nil, err
		}
	}
	if err := c.readBody(); err != nil {
		return nil, err
	}
	in.open = false
	head, body, start := in.head, in.body, in.start
	in.body = nil
	table, data := body[:head.table:head.table], body[head.table:]
	entries, err := parseTable(table, int(head.count))
	attachments, claimErr := c.t.claim(entries, int(head.count), start, start+headerLen+uint64(head.size()))
	for _, a := range attachments {
		a.from = c.t
	}
	m := &Message{Data: data, attachments: attachments}
	if err == nil {
		err = claimErr
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (c *Conn) readHeader() error {
	in := &c.in
	if in.buf == nil {
		in.buf = make([]byte, inboxSize)
	}
	if in.w-in.r < headerLen {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	for in.w-in.r < headerLen {
		n, err := c.t.read(in.buf[in.w:], in.total)
		in.w += n
		in.total += uint64(n)
		if err == io.EOF && in.w > in.r {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	head, err := parseHeader(in.buf[in.r:in.w], c.limits)
	if err != nil {
		return err
	}
	in.start = in.total - uint64(in.w-in.r)
	in.r += headerLen
	in.head, in.open = head, true
	in.body = make([]byte, 0, min(head.size(), firstBody))
	return nil
}

func (c *Conn) readBody() error {
	in := &c.in
	size := in.head.size()
	end := in.start + headerLen + uint64(size)
	for len(in.body) < size {
		// The capacity never goes past size, so that what is read to the end of it is the frame's.
		if len(in.body) == cap(in.body) {
			bigger := make([]byte, len(in.body), min(size, 2*cap(in.body)))
			copy(bigger, in.body)
			in.body = bigger
		}
		if in.r < in.w {
			n := copy(in.body[len(in.body):cap(in.body)], in.buf[in.r:in.w])
			in.body = in.body[:len(in.body)+n]
			in.r += n
			continue
		}
		// What is left goes straight to its place when it is long, and through the buffer, together
		// with the messages behind it, when it is short.
		into := in.body[len(in.body):cap(in.body)]
		direct := len(into) >= inboxSize
		if !direct {
			in.r, in.w = 0, 0
			into = in.buf
		}
		n, err := c.t.read(into, in.total)
		in.total += uint64(n)
		if direct {
			in.body = in.body[:len(in.body)+n]
		} else {
			in.w = n
		}
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if err := c.t.checkWithin(in.start, end); err != nil {
			return err
		}
	}
	return nil
}

// breakChannel makes all later calls fail with err and closes the channel, so that the peer learns.
func (c *Conn) breakChannel(err error) {
	c.bmu.Lock()
	if c.broken == nil {
		c.broken = fmt.Errorf("channel is broken: %w", err)
	}
	c.bmu.Unlock()
	c.closeTransport()
}

func (c *Conn) whyBroken() error {
	c.bmu.Lock()
	defer c.bmu.Unlock()
	return c.broken
}

// Peer says who is at the other end, as the kernel knew it when the channel was made. For the end of
// a [Pair] whose other end was given to a child with [Conn.PassTo] it is that child, once started; if that
// was sent to another process, as an attachment, it is that process.
func (c *Conn) Peer() (Peer, error) {
	p, err := c.t.peer()
	return p, opError("peer", c.addr, err)
}

// Close closes the channel. Calls that wait in Send and Receive return an error that is
// [net.ErrClosed], as does a second Close. What the peer has sent and nobody received is dropped,
// attachments included; on Windows handles that the peer had put into this process for messages that
// nobody received stay open until the process ends.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return opError("close", c.addr, net.ErrClosed)
	}
	err := c.closeTransport()
	c.dropUnread()
	return opError("close", c.addr, err)
}

func (c *Conn) closeTransport() (err error) {
	c.closeOnce.Do(func() { err = c.t.close() })
	return err
}

// dropUnread closes handles that arrived for messages that nobody will receive. Closing the
// transport has ended the Receive that might hold the lock.
func (c *Conn) dropUnread() {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	c.t.drop()
}

// SetDeadline sets the read and the write deadline. The zero time means none. As for a [net.Conn],
// a deadline holds for calls that wait already and for later ones.
func (c *Conn) SetDeadline(t time.Time) error {
	return opError("set", c.addr, errors.Join(c.t.setReadDeadline(t), c.t.setWriteDeadline(t)))
}

// SetReadDeadline sets the deadline of Receive.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return opError("set", c.addr, c.t.setReadDeadline(t))
}

// SetWriteDeadline sets the deadline of Send. It is the channel's: goroutines that want each their own
// have to take turns.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return opError("set", c.addr, c.t.setWriteDeadline(t))
}

// SyscallConn lets Send of another channel take this one as an attachment; see there. Control of what it returns
// fails where that cannot be: there is no use for it otherwise. Read and Write return [errors.ErrUnsupported].
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if err := c.usable(); err != nil {
		return nil, opError("raw", c.addr, err)
	}
	return rawChannel{c}, nil
}

// rawChannel gives the descriptor of a channel to who passes it on.
type rawChannel struct{ c *Conn }

func (r rawChannel) Control(f func(fd uintptr)) error {
	return r.c.whileWhole(func() error { return r.c.t.control(f) })
}

func (rawChannel) Read(func(uintptr) bool) error  { return errors.ErrUnsupported }
func (rawChannel) Write(func(uintptr) bool) error { return errors.ErrUnsupported }

// whileWhole calls f while nothing is sent or received here, unless some of the stream is in this process: who gets the channel
// would begin in the middle of a message.
func (c *Conn) whileWhole(f func() error) error {
	if !c.rmu.TryLock() {
		return errors.New("a Receive is under way on the channel")
	}
	defer c.rmu.Unlock()
	if !c.wmu.TryLock() {
		return errors.New("a Send is under way on the channel")
	}
	defer c.wmu.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	if in := &c.in; in.open || in.r < in.w {
		return errors.New("some of what came on the channel was not received yet, and would be lost")
	}
	return f()
}

// LocalAddr returns the endpoint's path; both ends have the same.
func (c *Conn) LocalAddr() net.Addr { return c.addr }

// RemoteAddr returns the endpoint's path; both ends have the same.
func (c *Conn) RemoteAddr() net.Addr { return c.addr }
