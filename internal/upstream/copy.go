package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is a connection whose two directions end apart: a *net.TCPConn, a *net.UnixConn, an *ipc.PrefixConn or
// an *usher.Conn. Of these the kernel copies; a wrapper around them needs ReadFrom and WriteTo for that.
type Conn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

var (
	_ Conn = (*net.TCPConn)(nil)
	_ Conn = (*net.UnixConn)(nil)
)

// Stats are the bytes that were copied.
type Stats struct {
	Received int64 // from the client to the backend, the prefix included
	Sent     int64 // from the backend to the client
}

// Copy copies between a client and a backend until both directions have ended, and closes both connections,
// which it takes over. What the client has of a prefix goes first. Deadlines that were set are removed.
//
// Each side sees of the other what it would see without a proxy between them. If one ends its stream the
// other reads to that end, and may go on sending. If one is reset, so is the other, for an end that is merely
// closed would make half an answer look like a whole one; what a side had sent before it was reset is passed
// on first, as far as the other side takes it. (A Unix socket has no reset: its peer sees the end.)
//
// When ctx ends both are reset.
//
// The error is nil if both sides have ended their streams, the cause of ctx if that has ended, else what
// broke the connection.
//
// Silence is no reason to end: a proxied connection may be a chat, or lie in a pool, and only those who talk
// on it know how long is too long. A peer that is gone without a word is found by TCP keep-alive, which
// package net switches on for connections that are accepted or dialed.
//
// Where the kernel copies, each direction holds a pipe: there are up to six descriptors for a connection,
// and one more if the client was on offer.
func Copy(ctx context.Context, client, backend Conn) (Stats, error) {
	c, b := newSide(client), newSide(backend)
	stop := context.AfterFunc(ctx, func() {
		c.reset()
		b.reset()
	})
	defer stop()

	var stats Stats
	var received, sent error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stats.Received, received = pump(b, c)
	}()
	stats.Sent, sent = pump(c, b)
	<-ended

	if received == nil && sent == nil {
		c.Close()
		b.Close()
		return stats, nil
	}
	c.reset()
	b.reset()
	if ctx.Err() != nil {
		return stats, context.Cause(ctx)
	}
	if received == nil || errors.Is(received, net.ErrClosed) { // which is the consequence of the other
		return stats, fmt.Errorf("from backend to client: %w", sent)
	}
	return stats, fmt.Errorf("from client to backend: %w", received)
}

// pump copies one direction to its end, and passes that on.
func pump(dst, src *side) (int64, error) {
	n, err := io.Copy(dst.Conn, src.Conn)
	if err == nil && src.wasReset() {
		err = syscall.ECONNRESET
	}
	if err == nil {
		dst.closeWrite()
		return n, nil
	}
	// If it is dst that broke, there may be an answer that was sent before (as 413, by a server that reads
	// no further), and the other direction must pass it on: that one ends by itself then. If it is src, the
	// other direction would wait for ever on a dst that has nothing to say.
	if !dst.isCause(err, src) {
		dst.reset()
	}
	return n, err
}

// side is one of the two connections.
type side struct {
	Conn
	isTCP bool
	ended atomic.Bool // set before the stream to it is ended
}

func newSide(c Conn) *side {
	_ = c.SetDeadline(time.Time{})
	_, isUnix := c.RemoteAddr().(*net.UnixAddr)
	return &side{Conn: c, isTCP: !isUnix}
}

func (s *side) closeWrite() {
	s.ended.Store(true)
	_ = s.CloseWrite() // it fails if the connection is gone already, which the other direction finds as well
}

// wasReset tells whether the end of the stream from s, just read, is none. The kernel tells of a reset only
// once: if the write of the other direction was told, the read of this one sees a stream that has ended. But
// a connection that has ended in both directions, though nobody has ended the stream to it, was reset.
//
// A Unix socket looks the same when its peer has just closed it.
func (s *side) wasReset() bool { return s.isTCP && !s.ended.Load() && s.hungUp() }

// isCause tells whether a copy from src to s has failed with err because of s. Which of the two it was, an
// error of splice does not say.
func (s *side) isCause(err error, src *side) bool {
	return errors.Is(err, syscall.EPIPE) || s.hungUp() && !src.hungUp()
}

func (s *side) hungUp() (yes bool) {
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	if err := raw.Control(func(fd uintptr) { yes = hungUp(fd) }); err != nil {
		return true // closed, by us
	}
	return yes
}

// reset closes the connection, and has the peer see a reset. Pending reads and writes return. It may be
// called more than once.
func (s *side) reset() {
	if raw, err := s.SyscallConn(); err == nil && s.isTCP {
		_ = raw.Control(abort)
	}
	s.Close()
}
