//go:build darwin || freebsd || linux || netbsd || openbsd

package usher

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/unix"
)

// heldSocket is a descriptor of the connection that is on nobody's poller: what the client sends while it
// is on its way, and what the taker does with it, wakes no thread of the giver. It also leaves nothing in
// the caller's hands that could still read or write.
//
// An offer that was withdrawn may still be waiting to be sent, which uses the descriptor. It is closed when
// nobody uses it any more, lest its number be another file's by then.
type heldSocket struct {
	from net.Conn // for its addresses

	mu      sync.Mutex
	fd      int
	users   int
	dropped bool
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
	case *sys.Socket: // on no poller already, and its maker's to remember
		if c.Descriptor() < 0 {
			return nil, net.ErrClosed
		}
		return &heldSocket{fd: c.Take(), from: c}, nil
	default:
		return nil, fmt.Errorf("a %T cannot be handed over; a *net.TCPConn or *net.UnixConn can", c)
	}
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(s uintptr) { fd, dupErr = duplicate(int(s)) })
	if err != nil {
		return nil, err
	}
	if errors.Is(dupErr, unix.EMFILE) || errors.Is(dupErr, unix.ENFILE) {
		return holdAsIs(c, raw)
	}
	if dupErr != nil {
		return nil, dupErr
	}
	h := &heldSocket{fd: fd, from: c}
	// Close leaves the connection alone: there is another descriptor of it.
	if err := c.Close(); errors.Is(err, net.ErrClosed) { // somebody else has closed it meanwhile, or taken it over
		h.drop()
		return nil, err
	}
	// An offer that is forgotten ends like a connection of package net that is.
	runtime.SetFinalizer(h, (*heldSocket).drop)
	return h, nil
}

// heldConn is the connection itself, where there is no descriptor to spare: to give connections away is
// what such a process needs most.
type heldConn struct {
	net.Conn
	raw syscall.RawConn
}

func holdAsIs(c net.Conn, raw syscall.RawConn) (held, error) {
	var blockErr error
	err := raw.Control(func(fd uintptr) { blockErr = unix.SetNonblock(int(fd), true) })
	if err == nil {
		err = os.NewSyscallError("fcntl", blockErr)
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, err
	}
	return &heldConn{c, raw}, nil
}

func (h *heldConn) SyscallConn() (syscall.RawConn, error) { return h.raw, nil }
func (h *heldConn) drop()                                 { h.Conn.Close() }
func (h *heldConn) reclaim() (net.Conn, error)            { return h.Conn, nil }

// duplicate returns another descriptor of a socket, and makes that non-blocking, as the taker needs it:
// somebody may have made it blocking (File().Fd()).
func duplicate(fd int) (int, error) {
	// Not 0 to 2: package os takes those for standard streams, whose broken pipe ends the process.
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(d, true); err != nil {
		unix.Close(d)
		return -1, os.NewSyscallError("fcntl", err)
	}
	return d, nil
}

func (h *heldSocket) SyscallConn() (syscall.RawConn, error) { return h, nil }

// Control calls f with the descriptor, which stays open meanwhile.
func (h *heldSocket) Control(f func(fd uintptr)) error {
	h.mu.Lock()
	if h.dropped {
		h.mu.Unlock()
		return net.ErrClosed
	}
	h.users++
	h.mu.Unlock()
	f(uintptr(h.fd))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users--
	h.closeUnused()
	return nil
}

// Read and Write are what a RawConn has besides, and are not for a connection that is on offer.
func (h *heldSocket) Read(func(uintptr) bool) error  { return errors.ErrUnsupported }
func (h *heldSocket) Write(func(uintptr) bool) error { return errors.ErrUnsupported }

func (h *heldSocket) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped = true
	h.closeUnused()
}

// closeUnused is called with h.mu held.
func (h *heldSocket) closeUnused() {
	if h.dropped && h.users == 0 && h.fd >= 0 {
		unix.Close(h.fd)
		h.fd = -1
		runtime.SetFinalizer(h, nil)
	}
}

// reclaim makes a connection of a duplicate, or of the descriptor itself where there is none to spare.
func (h *heldSocket) reclaim() (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fd, err := duplicate(h.fd)
	if err != nil {
		if h.users > 0 {
			return nil, err
		}
		fd, h.fd = h.fd, -1
	}
	f := os.NewFile(uintptr(fd), "")
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		h.dropped = h.fd < 0 // neither a descriptor nor a place on the poller: it is lost
		return nil, fmt.Errorf("the connection cannot be put onto the poller: %w", err)
	}
	h.dropped = true
	h.closeUnused()
	return &fileConn{f: f, local: orNowhere(h.from.LocalAddr()), remote: orNowhere(h.from.RemoteAddr())}, nil
}

func shutdown(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }
