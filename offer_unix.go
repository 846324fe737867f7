//go:build darwin || freebsd || linux || netbsd || openbsd

package usher

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// heldConn is the connection itself. A copy that is on its way is no hindrance to using it again: the
// ticket keeps the taker from doing so.
type heldConn struct {
	net.Conn
	raw syscall.RawConn
}

func hold(c net.Conn) (held, error) {
	var raw syscall.RawConn
	var err error
	switch c := c.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	case *fileConn:
		raw, err = c.SyscallConn()
	default:
		return nil, fmt.Errorf("a %T cannot be handed over; a *net.TCPConn or *net.UnixConn can", c)
	}
	if err != nil {
		return nil, err
	}
	// Somebody may have made it blocking, by File().Fd(): then the taker could not wait for it.
	var fcntlErr error
	err = raw.Control(func(fd uintptr) { fcntlErr = unblock(fd) })
	if err == nil {
		err = fcntlErr
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, err
	}
	return &heldConn{c, raw}, nil
}

func unblock(fd uintptr) error {
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	if err == nil && flags&unix.O_NONBLOCK == 0 {
		_, err = unix.FcntlInt(fd, unix.F_SETFL, flags|unix.O_NONBLOCK)
	}
	return os.NewSyscallError("fcntl", err)
}

func (h *heldConn) SyscallConn() (syscall.RawConn, error) { return h.raw, nil }
func (h *heldConn) drop()                                 { h.Conn.Close() }
func (h *heldConn) reclaim() (net.Conn, error)            { return h.Conn, nil }

func shutdown(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }
