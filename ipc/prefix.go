package ipc

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// PrefixConn is a connection some of whose bytes were read before, by another process: they are
// read first, then what the connection still holds.
//
// It embeds the connection, whose other methods are unchanged. SyscallConn, and NetConn, pass the
// prefix by: use Buffered to see whether it has been read.
type PrefixConn struct {
	net.Conn

	mu     sync.Mutex
	prefix []byte
}

var (
	_ net.Conn      = (*PrefixConn)(nil)
	_ io.ReaderFrom = (*PrefixConn)(nil)
	_ io.WriterTo   = (*PrefixConn)(nil)
	_ syscall.Conn  = (*PrefixConn)(nil)
)

// NewPrefixConn makes reads from c return prefix first. It takes over c, and keeps prefix without
// copying it.
func NewPrefixConn(c net.Conn, prefix []byte) *PrefixConn {
	return &PrefixConn{Conn: c, prefix: prefix}
}

// Read returns bytes of the prefix while there are any, whatever the deadline, then reads from the
// connection.
func (c *PrefixConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	if len(c.prefix) > 0 {
		n := copy(p, c.prefix)
		c.prefix = c.prefix[n:]
		c.mu.Unlock()
		return n, nil
	}
	c.prefix = nil
	c.mu.Unlock()
	return c.Conn.Read(p)
}

// Buffered returns how many bytes of the prefix are not read yet.
func (c *PrefixConn) Buffered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.prefix)
}

// NetConn returns the connection below.
func (c *PrefixConn) NetConn() net.Conn { return c.Conn }

// ReadFrom copies from r to the connection, by sendfile or splice where the connection does.
func (c *PrefixConn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// WriteTo copies the prefix and then what the connection holds to w, by splice where it can.
func (c *PrefixConn) WriteTo(w io.Writer) (int64, error) {
	c.mu.Lock()
	prefix := c.prefix
	c.prefix = nil
	c.mu.Unlock()
	var written int64
	if len(prefix) > 0 {
		n, err := w.Write(prefix)
		written = int64(n)
		if err == nil && n < len(prefix) {
			err = io.ErrShortWrite
		}
		if err != nil {
			c.mu.Lock()
			c.prefix = prefix[n:] // what w did not take is not lost
			c.mu.Unlock()
			return written, err
		}
	}
	n, err := io.Copy(w, c.Conn)
	return written + n, err
}

// CloseRead shuts down the reading side, if the connection can.
func (c *PrefixConn) CloseRead() error {
	if half, ok := c.Conn.(interface{ CloseRead() error }); ok {
		return half.CloseRead()
	}
	return opError("close", c.LocalAddr(), errors.ErrUnsupported)
}

// CloseWrite shuts down the writing side, if the connection can.
func (c *PrefixConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return opError("close", c.LocalAddr(), errors.ErrUnsupported)
}

// SyscallConn returns the raw connection below, if there is one.
func (c *PrefixConn) SyscallConn() (syscall.RawConn, error) {
	if raw, ok := c.Conn.(syscall.Conn); ok {
		return raw.SyscallConn()
	}
	return nil, opError("syscallconn", c.LocalAddr(), errors.ErrUnsupported)
}
