package usher

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-usher/usher/ipc"
)

// Conn is a connection that was handed over, or that its giver took back. It reads first what the
// giver had read of it, then what the kernel holds. Its methods may be called from several
// goroutines at once.
type Conn struct {
	p             *ipc.PrefixConn
	info          Info
	giver         ipc.Peer
	local, remote net.Addr
	closed        atomic.Bool
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ syscall.Conn  = (*Conn)(nil)
)

// newConn takes over c. The addresses given are for where the kernel does not tell: on a connection
// that the client has reset.
func newConn(c net.Conn, prefix []byte, info Info, local, remote net.Addr) *Conn {
	if a := c.LocalAddr(); a != nil {
		local = a
	}
	if a := c.RemoteAddr(); a != nil {
		remote = a
	}
	return &Conn{p: ipc.NewPrefixConn(c, prefix), info: info, local: orNowhere(local), remote: orNowhere(remote)}
}

// orNowhere spares callers of LocalAddr and RemoteAddr a nil.
func orNowhere(a net.Addr) net.Addr {
	if a == nil {
		return &net.TCPAddr{}
	}
	return a
}

func tcpAddr(a netip.AddrPort) net.Addr {
	if !a.IsValid() {
		return nil
	}
	return net.TCPAddrFromAddrPort(a)
}

// Info returns what the giver told of the connection.
func (c *Conn) Info() Info { return c.info }

// Giver returns the process that handed the connection over, as the kernel knew it when the channel
// was made. It is the zero Peer for a connection from [Offer.Reclaim].
func (c *Conn) Giver() ipc.Peer { return c.giver }

// Read reads what is left of the prefix, whatever the deadline, then from the connection.
func (c *Conn) Read(b []byte) (int, error) {
	if c.closed.Load() { // also for what is left of the prefix
		return 0, c.orClosed("read", io.EOF)
	}
	n, err := c.p.Read(b)
	return n, c.orClosed("read", err)
}

// Write writes to the connection.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.p.Write(b)
	return n, c.orClosed("write", err)
}

// orClosed makes what Close's shutdown has done to the connection the consequence of Close that it is:
// a read that waits ends with io.EOF then, a write with EPIPE.
func (c *Conn) orClosed(op string, err error) error {
	if err == nil || !c.closed.Load() || errors.Is(err, net.ErrClosed) {
		return err
	}
	return &net.OpError{Op: op, Net: c.remote.Network(), Source: c.local, Addr: c.remote, Err: net.ErrClosed}
}

// Close ends the connection, for whoever has a copy of its descriptor, and closes this one. The client
// learns of it at once, though the giver may not have dropped its copy yet. Reads and writes that wait
// return an error that is [net.ErrClosed], as does a second Close.
func (c *Conn) Close() error {
	at(stepClose, before)
	defer at(stepClose, after)
	if !c.closed.Swap(true) {
		// It fails for a connection that has ended by itself, which is as good.
		if raw, err := c.p.SyscallConn(); err == nil {
			_ = raw.Control(shutdown)
		}
	}
	return c.p.Close()
}

// LocalAddr returns the address that the client connected to.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the client, or of the proxy before it (see [Info]).
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets the read and the write deadline, as [net.Conn] says.
func (c *Conn) SetDeadline(t time.Time) error { return c.p.SetDeadline(t) }

// SetReadDeadline sets the read deadline. It does not hold for the prefix, which is here.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.p.SetReadDeadline(t) }

// SetWriteDeadline sets the write deadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.p.SetWriteDeadline(t) }

// CloseRead shuts down the reading side.
func (c *Conn) CloseRead() error { return c.p.CloseRead() }

// CloseWrite shuts down the writing side: the client reads to the end, and can go on writing.
func (c *Conn) CloseWrite() error { return c.p.CloseWrite() }

// ReadFrom copies from r to the connection, by sendfile or splice where *net.TCPConn does.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.p.ReadFrom(r)
	return n, c.orClosed("write", err)
}

// WriteTo copies what is left of the prefix, then the connection, to w, by splice where *net.TCPConn
// does.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	if c.closed.Load() {
		return 0, c.orClosed("read", io.EOF)
	}
	n, err := c.p.WriteTo(w)
	if err == nil && c.closed.Load() {
		err = io.EOF // which a copy does not return
	}
	return n, c.orClosed("read", err)
}

// Buffered returns how many bytes of the prefix are not read yet.
func (c *Conn) Buffered() int { return c.p.Buffered() }

// NetConn returns the connection as a *net.TCPConn or *net.UnixConn. It stays c's to close, and does not
// have what is left of the prefix: see Buffered. On Unix it is made when it is first asked for, as it is
// by ReadFrom and WriteTo, on a second descriptor for the same socket, and nil if the process is out of
// them.
func (c *Conn) NetConn() net.Conn { return netConn(c.p.NetConn()) }

// SyscallConn returns the raw connection, which passes by what is left of the prefix.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.p.SyscallConn() }
