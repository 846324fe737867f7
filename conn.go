package usher

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-usher/usher/ipc"
)

// Conn is a connection that was handed over, or that its giver took back. It reads first what the
// giver had read of it, then what the kernel holds. Its methods may be called from several
// goroutines at once.
type Conn struct {
	p             *ipc.PrefixConn // of nc
	nc            net.Conn
	bare          bool // there never was a prefix
	info          Info
	giver         ipc.Peer
	local, remote net.Addr
	closed        atomic.Bool
	closing       sync.Mutex               // held by Close and NewOffer: the one that comes second finds it closed
	tally         atomic.Pointer[tally]    // for the report of the end; nil if nobody wants one, or it has gone
	home          atomic.Pointer[Listener] // that it came to; nil if it came to none, or has gone
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
	return &Conn{p: ipc.NewPrefixConn(c, prefix), nc: c, bare: len(prefix) == 0, info: info, local: orNowhere(local), remote: orNowhere(remote)}
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

// Returnable says whether there is a giver to take the connection back, as [Offer.HandBack] says, and whose channel lives. It is a hint:
// the giver may be gone the next moment. It is false for a connection that is closed, or on offer.
func (c *Conn) Returnable() bool {
	return !c.closed.Load() && takerBack(c.tally.Load(), c.home.Load(), &c.info) != nil
}

// Read reads what is left of the prefix, whatever the deadline, then from the connection.
func (c *Conn) Read(b []byte) (int, error) {
	if c.closed.Load() { // also for what is left of the prefix
		return 0, c.orClosed("read", io.EOF)
	}
	n, err := c.read(b)
	c.tally.Load().read(int64(n))
	return n, c.orClosed("read", err)
}

func (c *Conn) read(b []byte) (int, error) {
	if c.bare {
		return c.nc.Read(b)
	}
	return c.p.Read(b)
}

// Write writes to the connection.
func (c *Conn) Write(b []byte) (int, error) {
	y := c.tally.Load()
	y.pass(1) // Close may come when some of it was written
	n, err := c.nc.Write(b)
	y.wrote(int64(n))
	y.pass(-1)
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
//
// The first Close also has the end reported to the giver, if that asked for it ([Dialer.Ended]), and does not
// wait for that: see [Listener.Shutdown]. A connection that is never closed is never reported. A second Close waits
// until the first one has done all this.
func (c *Conn) Close() error {
	at(stepClose, before)
	defer at(stepClose, after)
	// Whoever closes second may end the process next, as http.Server.Shutdown does for a connection that its own goroutine is
	// about to close, and the report must be under way by then.
	c.closing.Lock()
	defer c.closing.Unlock()
	if c.closed.Swap(true) { // a second Close that came between would make the first one fail
		return c.orClosed("close", io.EOF)
	}
	raw, err := c.p.SyscallConn()
	y := c.tally.Swap(nil)
	var received, sent int64
	if y != nil {
		received, sent = y.total(raw, c.p.Buffered())
	}
	if err == nil {
		_ = raw.Control(shutdown) // fails for a connection that has ended by itself, which is as good
	}
	err = c.p.Close()
	if y != nil {
		y.end(received, sent, false)
	}
	return err
}

// LocalAddr returns the address that the client connected to.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the client, or of the proxy before it (see [Info]).
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets the read and the write deadline, as [net.Conn] says.
func (c *Conn) SetDeadline(t time.Time) error { return c.nc.SetDeadline(t) }

// SetReadDeadline sets the read deadline. It does not hold for the prefix, which is here.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }

// SetWriteDeadline sets the write deadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.nc.SetWriteDeadline(t) }

// CloseRead shuts down the reading side.
func (c *Conn) CloseRead() error { return c.p.CloseRead() }

// CloseWrite shuts down the writing side: the client reads to the end, and can go on writing.
func (c *Conn) CloseWrite() error { return c.p.CloseWrite() }

// ReadFrom copies from r to the connection, by sendfile or splice where *net.TCPConn does.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	y := c.tally.Load()
	y.pass(1) // Close may come before the bytes are counted
	n, err := c.p.ReadFrom(r)
	y.wrote(n)
	y.pass(-1)
	return n, c.orClosed("write", err)
}

// WriteTo copies what is left of the prefix, then the connection, to w, by splice where *net.TCPConn
// does.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	if c.closed.Load() {
		return 0, c.orClosed("read", io.EOF)
	}
	y := c.tally.Load()
	y.pass(1)
	n, err := c.p.WriteTo(w)
	y.read(n)
	y.pass(-1)
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
//
// What is read and written there is not counted here. Once NetConn or SyscallConn was called, the bytes that are
// reported to the giver are those which the kernel has counted, on Linux and for TCP alone; elsewhere they are
// unknown. The kernel counts from when the connection was made: what the giver has read is part of that, as the
// prefix is of what Read returns, and what it has written, too. So it is for a connection that is closed while a Write,
// ReadFrom or WriteTo runs. Of a connection that has ended both ways before
// it is closed it counts one byte too few if the client has reset it and sent no FIN.
func (c *Conn) NetConn() net.Conn {
	c.tally.Load().pass(1)
	return netConn(c.p.NetConn())
}

// SyscallConn returns the raw connection, which passes by what is left of the prefix, and by the counting of
// bytes, as NetConn does.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	c.tally.Load().pass(1)
	return c.p.SyscallConn()
}
