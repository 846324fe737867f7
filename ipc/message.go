package ipc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
)

// Message is one message received.
type Message struct {
	// Data is the caller's to keep.
	Data []byte

	attachments []*Attachment
}

// Attachments returns what came with the message, in the order in which it was sent.
func (m *Message) Attachments() []*Attachment { return m.attachments }

// Close closes the attachments that were not taken. What was taken stays open. A second Close does
// nothing and returns nil.
func (m *Message) Close() error {
	var errs []error
	for _, a := range m.attachments {
		errs = append(errs, a.close())
	}
	return errors.Join(errs...)
}

// Attachment is a handle that came with a message. One of its methods takes it: what that returns
// is the caller's to use and to close, and the attachment is spent. A method that does
// not fit what the attachment is leaves it as it was, so that another may be tried.
type Attachment struct {
	mu   sync.Mutex
	h    handle
	f    *os.File // has taken h over, if not nil
	open bool
	kind kind
	name string
	from transport // which it came on
	err  error     // why it is not open
}

// newAttachment takes over h.
func newAttachment(h handle, k kind, name string) *Attachment {
	return &Attachment{h: h, open: true, kind: k, name: name}
}

// lostAttachment stands for one that was announced and did not arrive.
func lostAttachment(err error) *Attachment { return &Attachment{err: err} }

// Err returns nil while the attachment can be taken; else why it cannot: it did not arrive, was taken, or
// its message is closed.
func (a *Attachment) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return opError("take", nil, a.err)
}

// Conn takes the attachment as a connection: a *net.TCPConn, *net.UnixConn or (connected)
// *net.UDPConn, as was sent, on the runtime's poller. A TCP connection has the no-delay and
// keep-alive settings that it had at the sender.
func (a *Attachment) Conn() (net.Conn, error) { return take(a, "connection", toConn) }

// Listener takes the attachment as a listener: a *net.TCPListener or *net.UnixListener. Closing a
// *net.UnixListener that was received does not remove its socket file.
func (a *Attachment) Listener() (net.Listener, error) { return take(a, "listener", toListener) }

// PacketConn takes the attachment as a packet connection: a *net.UDPConn or *net.UnixConn.
func (a *Attachment) PacketConn() (net.PacketConn, error) {
	return take(a, "packet connection", toPacketConn)
}

// File takes the attachment as a file, by the name that the sender had for it. It has the same
// offset as the sender's, and moves it. A pipe has deadlines if it had them at the sender.
func (a *Attachment) File() (*os.File, error) { return take(a, "file", toFile) }

// Channel takes the attachment as a channel, whose messages l bounds: what the sender passed to Send was a *Conn. On
// Unix any connected Unix-domain stream socket will do. The channel is as it was: what the process at its other end has sent
// and nobody has received comes here.
//
// Its Peer is, for an end of a [Pair], the process that sent the attachment; else it is who the kernel says,
// which is who was there when the channel was made.
func (a *Attachment) Channel(l Limits) (*Conn, error) {
	return take(a, "channel", func(a *Attachment) (*Conn, error) { return toChannel(a, l) })
}

// Socket takes a stream socket as a file, and leaves it as it is: what Conn would do to it (net.FileConn
// sets options, which the sender's copy shares) is not done, and no further descriptor is needed. The
// socket must be non-blocking, as those of package net are: the file has deadlines and is on the
// runtime's poller. On Windows the error is [errors.ErrUnsupported].
func (a *Attachment) Socket() (*os.File, error) { return take(a, "socket", toSocket) }

// take turns the handle into a T. The function to owns the handle when it succeeds, and only then.
func take[T any](a *Attachment, what string, to func(*Attachment) (T, error)) (T, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var none T
	if !a.open {
		return none, opError("take", nil, a.err)
	}
	v, err := to(a)
	if err != nil {
		return none, opError("take", nil, fmt.Errorf("attachment as a %s: %w", what, err))
	}
	a.open = false
	a.err = fmt.Errorf("attachment was taken already: %w", net.ErrClosed)
	return v, nil
}

func (a *Attachment) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.open {
		return nil
	}
	a.open = false
	a.err = fmt.Errorf("message is closed: %w", net.ErrClosed)
	if a.f != nil {
		return a.f.Close()
	}
	return closeHandle(a.h, a.kind)
}
