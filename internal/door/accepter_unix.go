//go:build unix

package door

import (
	"errors"
	"net"
	"net/netip"
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
	own  netip.AddrPort // what connections have as their own address; not valid if that is not the same for all

	closed atomic.Bool

	try func(fd uintptr) bool // is accepts
	s   *sys.Socket           // that it has accepted
	err error
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
	a.try = a.accepts
	if own := addrPort(a.addr); !own.Addr().IsUnspecified() {
		a.own = own
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

// accept waits for a connection. One goroutine may call it.
func (a *accepter) accept() (incoming, error) {
	a.s = nil
	err := a.raw.Read(a.try)
	if err != nil && a.closed.Load() { // package os has another error for that
		err = net.ErrClosed
	}
	if err == nil {
		err = a.err
	}
	return a.s, err
}

func (a *accepter) accepts(fd uintptr) bool {
	a.s, a.err = sys.Accept(int(fd), a.own)
	return a.err != unix.EAGAIN
}

func (a *accepter) setDeadline(t time.Time) { a.f.SetReadDeadline(t) }

// share returns the socket to be sent to another process. It stays this door's.
func (a *accepter) share() syscall.Conn { return a.f }

func (a *accepter) close() {
	a.closed.Store(true)
	a.f.Close()
}

// deferAccept has the kernel keep connections back until their clients have sent something, as far as it can: so that
// one look is enough.
func (a *accepter) deferAccept(on bool) {
	_ = a.raw.Control(func(fd uintptr) { sys.DeferAccept(fd, on) })
}

func isInUse(err error) bool { return errors.Is(err, unix.EADDRINUSE) }
