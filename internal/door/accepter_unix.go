//go:build unix

package door

import (
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/unix"
)

// accepter is a listening socket. It does not make connections of package net: most of them the door looks at once and
// gives away, and those need neither a place on the poller nor any option set.
type accepter struct {
	f    *os.File
	raw  syscall.RawConn
	addr net.Addr
	own  net.Addr // what connections have as their own address, nil if that is not the same for all

	closed atomic.Bool
}

// newAccepter takes over l.
func newAccepter(l *net.TCPListener) (*accepter, error) {
	defer l.Close()
	f, err := l.File() // a duplicate, on the poller too: a listener of package net only accepts
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err == nil {
		err = inControl(raw, sys.SetTCPOptions)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	a := &accepter{f: f, raw: raw, addr: l.Addr()}
	if tcp, ok := a.addr.(*net.TCPAddr); ok && !tcp.IP.IsUnspecified() {
		a.own = tcp
	}
	return a, nil
}

func inControl(raw syscall.RawConn, f func(fd uintptr) error) error {
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(fd) }); err != nil {
		return err
	}
	return inner
}

// accept waits for a connection.
func (a *accepter) accept() (incoming, error) {
	var s *sys.Socket
	var inner error
	err := a.raw.Read(func(fd uintptr) bool {
		s, inner = sys.Accept(int(fd), a.own)
		return inner != unix.EAGAIN
	})
	if err != nil && a.closed.Load() { // package os has another error for that
		err = net.ErrClosed
	}
	if err == nil {
		err = inner
	}
	return s, err
}

func (a *accepter) setDeadline(t time.Time) { a.f.SetReadDeadline(t) }

func (a *accepter) close() {
	a.closed.Store(true)
	a.f.Close()
}

// deferAccept has the kernel keep connections back until their clients have sent something, as far as it can: so that
// one look is enough.
func (a *accepter) deferAccept(on bool) {
	_ = a.raw.Control(func(fd uintptr) { sys.DeferAccept(fd, on) })
}
