//go:build darwin || freebsd || linux || netbsd || openbsd

package usher

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/sys"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

// prepare readies a connection that is not claimed yet. Whatever may fail fails here, where the offer can
// still be declined, and nothing here touches the socket, which may yet be the giver's: hence no
// net.FileConn, which needs another descriptor and sets options. The caller owns the file.
func prepare(a *ipc.Attachment) (*os.File, error) { return a.Socket() }

// finish makes a connection of one that was prepared and claimed. It takes over f. The addresses are
// asked of the kernel where the giver did not tell them.
func finish(_ *ipc.Attachment, f *os.File, local, remote net.Addr) (net.Conn, error) {
	if local == nil || remote == nil {
		if raw, err := f.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { local, remote = ask(int(fd), local, remote) })
		}
	}
	return &fileConn{f: f, local: orNowhere(local), remote: orNowhere(remote)}, nil
}

// ask asks the kernel for the addresses that are not known.
func ask(fd int, local, remote net.Addr) (net.Addr, net.Addr) {
	if sa, err := unix.Getsockname(fd); err == nil && local == nil {
		local = netAddr(sa)
	}
	if sa, err := unix.Getpeername(fd); err == nil && remote == nil {
		remote = netAddr(sa)
	}
	return local, remote
}

func netAddr(sa unix.Sockaddr) net.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
	case *unix.SockaddrInet6:
		a := &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
		if sa.ZoneId != 0 {
			a.Zone = strconv.Itoa(int(sa.ZoneId))
		}
		return a
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: sa.Name, Net: "unix"}
	}
	return nil
}

// fileConn is a connection on the descriptor that arrived. It becomes a *net.TCPConn, on a duplicate,
// when somebody asks for what only that can do.
type fileConn struct {
	f             *os.File
	local, remote net.Addr
	closed        atomic.Bool
	late          atomic.Pointer[net.OpError] // of a read whose deadline has passed

	mu            sync.Mutex
	nc            net.Conn // on the duplicate, once there is one
	readDeadline  time.Time
	writeDeadline time.Time
}

var (
	_ net.Conn      = (*fileConn)(nil)
	_ io.ReaderFrom = (*fileConn)(nil)
	_ io.WriterTo   = (*fileConn)(nil)
	_ syscall.Conn  = (*fileConn)(nil)
)

func (c *fileConn) Read(b []byte) (int, error) {
	n, err := c.f.Read(b)
	if err != nil {
		err = c.readError(err)
	}
	return n, err
}

// readError makes one error for all reads that end by their deadline: net/http ends one so with each request.
func (c *fileConn) readError(err error) error {
	path, ok := err.(*os.PathError)
	if !ok || path.Err != os.ErrDeadlineExceeded || c.closed.Load() {
		return c.opError("read", err)
	}
	if late := c.late.Load(); late != nil {
		return late
	}
	late, _ := c.opError("read", err).(*net.OpError)
	c.late.Store(late)
	return late
}

func (c *fileConn) Write(b []byte) (int, error) {
	n, err := c.f.Write(b)
	return n, c.opError("write", err)
}

// opError makes errors of package os those that package net has.
func (c *fileConn) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if path, ok := err.(*os.PathError); ok {
		err = path.Err
	}
	if c.closed.Load() { // package os has more than one error for that
		err = net.ErrClosed
	}
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: c.remote.Network(), Source: c.local, Addr: c.remote, Err: err}
}

func (c *fileConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Swap(true) {
		return c.opError("close", os.ErrClosed)
	}
	if c.nc != nil {
		c.nc.Close()
	}
	return c.f.Close()
}

func (c *fileConn) LocalAddr() net.Addr  { return c.local }
func (c *fileConn) RemoteAddr() net.Addr { return c.remote }

func (c *fileConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *fileConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readDeadline = t
	if c.nc != nil {
		c.nc.SetReadDeadline(t)
	}
	return c.opError("set", c.f.SetReadDeadline(t))
}

func (c *fileConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeDeadline = t
	if c.nc != nil {
		c.nc.SetWriteDeadline(t)
	}
	return c.opError("set", c.f.SetWriteDeadline(t))
}

func (c *fileConn) SyscallConn() (syscall.RawConn, error) {
	if c.closed.Load() { // the raw connection would say so in words of package os
		return nil, c.opError("raw", os.ErrClosed)
	}
	raw, err := c.f.SyscallConn()
	return raw, c.opError("raw", err)
}

func (c *fileConn) CloseRead() error  { return c.shutdown(unix.SHUT_RD) }
func (c *fileConn) CloseWrite() error { return c.shutdown(unix.SHUT_WR) }

func (c *fileConn) shutdown(how int) error {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return c.opError("close", err)
	}
	var shutdownErr error
	err = raw.Control(func(fd uintptr) { shutdownErr = unix.Shutdown(int(fd), how) })
	if err == nil {
		err = os.NewSyscallError("shutdown", shutdownErr)
	}
	return c.opError("close", err)
}

// ReadFrom lets the kernel copy, as package net does for its own connections.
func (c *fileConn) ReadFrom(r io.Reader) (int64, error) {
	nc, err := c.netConn()
	if err != nil {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	return io.Copy(nc, r)
}

func (c *fileConn) WriteTo(w io.Writer) (int64, error) {
	nc, err := c.netConn()
	if err != nil {
		return io.Copy(w, struct{ io.Reader }{c})
	}
	return io.Copy(w, nc)
}

// netConn returns the connection as one of package net, on a duplicate of the descriptor, with the
// deadlines that this one has.
func (c *fileConn) netConn() (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nc != nil {
		return c.nc, nil
	}
	if c.closed.Load() {
		return nil, net.ErrClosed
	}
	raw, err := c.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var options sys.TCPOptions
	if err := raw.Control(func(fd uintptr) { options = sys.ReadTCPOptions(fd) }); err != nil {
		return nil, err
	}
	nc, err := net.FileConn(c.f)
	if err != nil {
		return nil, err
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		err = options.Restore(tcp)
	}
	if err == nil {
		err = errors.Join(nc.SetReadDeadline(c.readDeadline), nc.SetWriteDeadline(c.writeDeadline))
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	c.nc = nc
	return nc, nil
}

// netConn is what Conn.NetConn returns for the connection that it has.
func netConn(c net.Conn) net.Conn {
	fc, ok := c.(*fileConn)
	if !ok {
		return c
	}
	nc, err := fc.netConn()
	if err != nil {
		return nil
	}
	return nc
}
