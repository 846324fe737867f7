//go:build darwin || freebsd || linux || netbsd || openbsd

package sys

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is a TCP connection that was accepted and is on nobody's poller: a descriptor and the address of its
// client. It is for a process that wants no more of it than a look at its first bytes before it gives it away,
// and spares that the system calls by which package net makes it one of its own.
//
// It is a net.Conn, so that it can be offered, but one that neither reads nor writes. One goroutine at a time may
// use it.
type Socket struct {
	fd            int // -1 once it is taken or closed
	local, remote netip.AddrPort

	file    *os.File // has the descriptor once TCP was called, until that succeeds
	options TCPOptions
}

var _ net.Conn = (*Socket)(nil)

// Accept returns a connection of a non-blocking listening socket, non-blocking and close-on-exec. The error is EAGAIN
// when none waits. local is its own address if the listener's says so already; if it is not valid the kernel is asked.
func Accept(listener int, local netip.AddrPort) (*Socket, error) {
	for {
		fd, remote, err := accept(listener)
		switch {
		case err == unix.EINTR || err == unix.ECONNABORTED: // the client has gone: accept(2)
			continue
		case err == unix.EAGAIN:
			return nil, err
		case err != nil:
			return nil, os.NewSyscallError("accept", err)
		}
		s := &Socket{fd: fd, local: local, remote: remote}
		if !local.IsValid() {
			s.local = ownAddress(fd)
		}
		return s, nil
	}
}

func ownAddress(fd int) netip.AddrPort {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(sa)
}

// Addresses returns a connection's own address and the other end's, as the kernel has them. Not valid are those that it has
// forgotten, and those of what is no TCP.
func Addresses(fd int) (local, remote netip.AddrPort) {
	if sa, err := unix.Getpeername(fd); err == nil {
		remote = addrPort(sa)
	}
	return ownAddress(fd), remote
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(withZone(netip.AddrFrom16(sa.Addr), sa.ZoneId), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// withZone returns an IPv6 address as package net has it: IPv4 as such, and a zone by its name.
func withZone(a netip.Addr, zone uint32) netip.Addr {
	a = a.Unmap()
	if zone == 0 || a.Is4() {
		return a
	}
	ifi, err := net.InterfaceByIndex(int(zone))
	if err != nil { // which can be for want of a descriptor; a number does as well
		return a.WithZone(strconv.Itoa(int(zone)))
	}
	return a.WithZone(ifi.Name)
}

// Descriptor returns the descriptor, which stays the socket's; -1 once Take, TCP or Close was called.
func (s *Socket) Descriptor() int { return s.fd }

// Take returns the descriptor, which is the caller's to close from then on; -1 as Descriptor does.
func (s *Socket) Take() int {
	fd := s.fd
	s.fd = -1
	return fd
}

// TCP makes the connection one of package net, with the options that it has, and spends s. If that fails, as it does
// for a process out of descriptors, it may be tried again.
func (s *Socket) TCP() (*net.TCPConn, error) {
	if s.file == nil && s.fd < 0 {
		return nil, net.ErrClosed
	}
	if s.file == nil {
		s.options = ReadTCPOptions(uintptr(s.fd))
		s.file = os.NewFile(uintptr(s.Take()), "")
	}
	c, err := net.FileConn(s.file)
	if err != nil {
		return nil, err
	}
	nc, ok := c.(*net.TCPConn)
	if !ok {
		err = errors.New("it is not TCP")
	} else {
		err = s.options.Restore(nc)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	s.file.Close()
	s.file = nil
	return nc, nil
}

// Close closes the descriptor. The error is net.ErrClosed if that was done before, or the socket is spent.
func (s *Socket) Close() error {
	if f := s.file; f != nil {
		s.file = nil
		return f.Close()
	}
	if s.fd < 0 {
		return net.ErrClosed
	}
	return os.NewSyscallError("close", unix.Close(s.Take()))
}

// LocalAddr returns the address that the client has connected to.
func (s *Socket) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(s.local) }

// RemoteAddr returns the client's address.
func (s *Socket) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.remote) }

// AddrPorts returns both, for less; not valid are those that the kernel has forgotten.
func (s *Socket) AddrPorts() (local, remote netip.AddrPort) { return s.local, s.remote }

func (s *Socket) Read([]byte) (int, error)         { return 0, errors.ErrUnsupported }
func (s *Socket) Write([]byte) (int, error)        { return 0, errors.ErrUnsupported }
func (s *Socket) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (s *Socket) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (s *Socket) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
