//go:build darwin || freebsd || linux || netbsd || openbsd

package ipc

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/unix"
)

func closeHandle(fd handle, _ kind) error { return os.NewSyscallError("close", unix.Close(fd)) }

// describe says what the kernel knows fd to be, in the words of the errors below.
func describe(fd int) (what string, isSocket, listens, stream bool) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "a file", false, false, false
	}
	if typ != unix.SOCK_STREAM {
		return "a packet socket", true, false, false
	}
	// Where a system cannot tell, a socket that has no peer listens.
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		_, err = unix.Getpeername(fd)
		accepts = 0
		if errors.Is(err, unix.ENOTCONN) {
			accepts = 1
		}
	}
	if accepts != 0 {
		return "a listener", true, true, true
	}
	return "a connection", true, false, true
}

// file returns the attachment's descriptor as an *os.File, which owns it from then on; the attachment
// keeps the file, for another try or for Message.Close.
func (a *Attachment) file() *os.File {
	if a.f == nil {
		a.f = os.NewFile(uintptr(a.h), a.name)
	}
	return a.f
}

// viaFile makes a T of the attachment by one of net's File functions, which duplicate the
// descriptor, then closes the original.
func viaFile[T any](a *Attachment, make func(*os.File) (T, error)) (T, error) {
	v, err := make(a.file())
	if err == nil {
		a.f.Close()
	}
	return v, err
}

func toConn(a *Attachment) (net.Conn, error) {
	what, isSocket, listens, stream := describe(a.h)
	if !isSocket || listens {
		return nil, fmt.Errorf("it is %s", what)
	}
	if !stream {
		if _, err := unix.Getpeername(a.h); err != nil {
			return nil, fmt.Errorf("it is %s without a peer", what)
		}
	}
	options := sys.ReadTCPOptions(uintptr(a.h))
	c, err := viaFile(a, net.FileConn)
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		if err := options.Restore(tcp); err != nil {
			c.Close()
			a.open, a.err = false, err
			return nil, err
		}
	}
	return c, nil
}

func toListener(a *Attachment) (net.Listener, error) {
	if what, _, listens, _ := describe(a.h); !listens {
		return nil, fmt.Errorf("it is %s", what)
	}
	return viaFile(a, net.FileListener)
}

func toPacketConn(a *Attachment) (net.PacketConn, error) {
	if what, isSocket, _, stream := describe(a.h); !isSocket || stream {
		return nil, fmt.Errorf("it is %s", what)
	}
	return viaFile(a, net.FilePacketConn)
}

func toFile(a *Attachment) (*os.File, error) {
	if what, isSocket, _, _ := describe(a.h); isSocket {
		return nil, fmt.Errorf("it is %s", what)
	}
	return a.file(), nil
}

// channelKind is what a channel is on the wire.
const channelKind = kindSocket

// toChannel makes sure that it is a Unix-domain socket first: net.FileConn sets options of others, which the sender's copy shares.
func toChannel(a *Attachment, l Limits) (*Conn, error) {
	what, isSocket, listens, stream := describe(a.h)
	if !isSocket || listens || !stream {
		return nil, fmt.Errorf("it is %s", what)
	}
	if sa, err := unix.Getsockname(a.h); err == nil {
		if _, ok := sa.(*unix.SockaddrUnix); !ok {
			return nil, errors.New("it is a connection that is not in the Unix domain")
		}
	}
	return viaFile(a, func(f *os.File) (*Conn, error) { return channelOf(f, a.from, l) })
}

// channelOf makes a channel of a duplicate of f, which came from the process at the other end of from.
func channelOf(f *os.File, from transport, l Limits) (*Conn, error) {
	sender, err := from.peer()
	if err != nil {
		return nil, err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("it is a %T", c)
	}
	if uc.RemoteAddr() == nil {
		uc.Close()
		return nil, errors.New("it is not connected")
	}
	name := addr(cmp.Or(nameOf(uc.LocalAddr()), nameOf(uc.RemoteAddr())))
	t, err := takeOver(uc)
	if err != nil {
		return nil, err
	}
	if name == "" { // neither end has one: it is of a pair, of which the kernel knows only who made it
		t.pair, t.end, name = elsewhere(sender, 0), 1, "pair"
	}
	return newConn(t, name, l), nil
}

// nameOf returns an end's name, which package net writes as @ on Linux where there is none.
func nameOf(a net.Addr) string {
	if a.String() == "@" {
		return ""
	}
	return a.String()
}

func toSocket(a *Attachment) (*os.File, error) {
	if typ, err := unix.GetsockoptInt(a.h, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || typ != unix.SOCK_STREAM {
		return nil, errors.New("it is no stream socket")
	}
	if a.h <= 2 {
		// Package os takes these for standard streams: to write to one whose reader is gone would end
		// the process (SIGPIPE).
		fd, err := unix.FcntlInt(uintptr(a.h), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		unix.Close(a.h)
		a.h = fd
	}
	f := a.file()
	if err := f.SetDeadline(time.Time{}); err != nil { // not on the poller
		return nil, fmt.Errorf("it is blocking: %w", err)
	}
	return f, nil
}
