package door

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

// accepter is a listening socket.
type accepter struct {
	l    *net.TCPListener
	addr net.Addr
}

func newAccepter(l *net.TCPListener) (*accepter, error) { return &accepter{l: l, addr: l.Addr()}, nil }

// accept waits for a connection.
func (a *accepter) accept() (incoming, error) {
	nc, err := a.l.AcceptTCP()
	return accepted{nc}, err
}

func (a *accepter) setDeadline(t time.Time) { a.l.SetDeadline(t) }
func (a *accepter) close()                  { a.l.Close() }

// share returns the socket to be sent to another process. It stays this door's.
func (a *accepter) share() syscall.Conn { return a.l }

// accepted is a connection of package net.
type accepted struct{ *net.TCPConn }

func (a accepted) AddrPorts() (local, remote netip.AddrPort) {
	return addrPort(a.LocalAddr()), addrPort(a.RemoteAddr())
}

func (a accepted) TCP() (*net.TCPConn, error) { return a.TCPConn, nil }

// deferAccept is for systems that can keep connections back until their clients have sent something.
func (a *accepter) deferAccept(bool) {}

func isInUse(err error) bool { return errors.Is(err, windows.WSAEADDRINUSE) }
