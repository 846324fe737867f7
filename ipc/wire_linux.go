package ipc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/unix"
)

// wire is a Unix-domain stream socket. It is not on the runtime's poller itself: that asks for writability as well, and
// then the kernel wakes the sender's process each time that the receiver has taken a message (unix_write_space), in
// the middle of the receiver's system call. So a poll set of its own, which is for readability alone, is on the poller in
// the socket's place (epoll(7): a set can be in another), and one for writability only where a call has to wait for that.
//
// No call waits in the kernel, whether the socket is non-blocking or not: that flag is shared with whoever has a copy.
type wire struct {
	fd      int // open while a call of readable or writable is under way
	cleanup runtime.Cleanup

	readable *pollSet

	mu            sync.Mutex
	writable      *pollSet // nil until needed
	writeDeadline time.Time
	closed        atomic.Bool

	in, out transfer
}

// transfer is a system call to make, and what it returned. One goroutine at a time reads and one writes, and their
// memory is used again.
type transfer struct {
	fd   int
	b    []byte
	oob  []byte // received
	fds  []int  // to send
	n    int
	oobn int

	flags int
	err   error

	// The functions below as values.
	send    func(uintptr)
	receive func(uintptr) bool
}

func (x *transfer) doSend(uintptr) { x.n, x.err = sys.TrySendRights(x.fd, x.b, x.fds) }

func (x *transfer) doReceive(uintptr) bool {
	x.n, x.oobn, x.flags, x.err = sys.RecvRights(x.fd, x.b, x.oob)
	return x.err != unix.EAGAIN
}

// sendsWhole says whether the system sends a small message whole or not at all, so that it can be tried.
const sendsWhole = true

// newWire takes over uc, unless it fails.
func newWire(uc *net.UnixConn) (*wire, error) {
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(s uintptr) { fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 3) })
	if err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, os.NewSyscallError("fcntl", dupErr)
	}
	readable, err := newPollSet(fd, unix.EPOLLIN|unix.EPOLLRDHUP)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	w := &wire{fd: fd, readable: readable}
	w.in.fd, w.out.fd = fd, fd
	w.in.receive, w.out.send = w.in.doReceive, w.out.doSend
	// A channel that is forgotten ends, as a connection of package net does.
	w.cleanup = runtime.AddCleanup(w, func(fd int) { unix.Close(fd) }, fd)
	uc.Close()
	return w, nil
}

func (w *wire) receive(p, oob []byte) (n, oobn, flags int, err error) {
	x := &w.in
	x.b, x.oob = p, oob
	err = w.readable.raw.Read(x.receive)
	x.b, x.oob = nil, nil
	if err != nil {
		return 0, 0, 0, w.opError("recvmsg", err)
	}
	return x.n, x.oobn, x.flags, w.opError("recvmsg", x.err)
}

// send waits until some of b is sent, with the descriptors. One goroutine at a time may call it.
func (w *wire) send(b []byte, fds []int) (n int, err error) {
	n, err = w.sendNow(b, fds)
	if !errors.Is(err, unix.EAGAIN) {
		return n, err
	}
	writable, err := w.forWriting()
	if err != nil {
		return w.sendPatiently(b, fds)
	}
	if err := writable.watch(w.fd, unix.EPOLLOUT); err != nil {
		return 0, w.opError("epoll_ctl", err)
	}
	defer writable.watch(w.fd, 0)
	var sendErr error
	err = writable.raw.Read(func(uintptr) bool {
		n, sendErr = sys.TrySendRights(w.fd, b, fds)
		return sendErr != unix.EAGAIN
	})
	if err == nil {
		err = sendErr
	}
	return n, w.opError("sendmsg", err)
}

// sendPatiently is send for a process that has no descriptor to spare to wait on, or a wire that is being closed.
func (w *wire) sendPatiently(b []byte, fds []int) (int, error) {
	for {
		n, err := w.sendNow(b, fds)
		if !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
		time.Sleep(time.Millisecond)
	}
}

// sendNow is send if that needs no waiting; the error is EAGAIN if it does. One goroutine at a time may call it.
func (w *wire) sendNow(b []byte, fds []int) (int, error) {
	w.mu.Lock()
	late := !w.writeDeadline.IsZero() && time.Now().After(w.writeDeadline)
	w.mu.Unlock()
	if late {
		return 0, os.ErrDeadlineExceeded
	}
	x := &w.out
	x.b, x.fds = b, fds
	err := w.readable.raw.Control(x.send)
	x.b, x.fds = nil, nil
	if err != nil {
		return 0, w.opError("sendmsg", err)
	}
	return x.n, w.opError("sendmsg", x.err)
}

// forWriting returns the set for waiting to write, and makes it first.
func (w *wire) forWriting() (*pollSet, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed.Load() {
		return nil, net.ErrClosed
	}
	if w.writable == nil {
		s, err := newPollSet(w.fd, 0)
		if err != nil {
			return nil, err
		}
		s.f.SetReadDeadline(w.writeDeadline)
		w.writable = s
	}
	return w.writable, nil
}

// control calls f with the descriptor, which stays open meanwhile.
func (w *wire) control(f func(fd int)) error {
	return w.opError("control", w.readable.raw.Control(func(uintptr) { f(w.fd) }))
}

func (w *wire) setReadDeadline(d time.Time) error {
	return w.opError("set", w.readable.f.SetReadDeadline(d))
}

func (w *wire) setWriteDeadline(d time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed.Load() {
		return net.ErrClosed
	}
	w.writeDeadline = d
	if w.writable == nil {
		return nil
	}
	return w.writable.f.SetReadDeadline(d) // it is read from when one waits to write
}

// file returns a duplicate, for a child to inherit.
func (w *wire) file() (*os.File, error) {
	d := -1
	var err error
	if controlErr := w.control(func(fd int) { d, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3) }); controlErr != nil {
		return nil, controlErr
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(d), "channel"), nil
}

// close ends calls that wait, and closes the descriptor when none uses it any more.
func (w *wire) close() error {
	w.mu.Lock()
	if w.closed.Swap(true) {
		w.mu.Unlock()
		return net.ErrClosed
	}
	writable := w.writable
	w.mu.Unlock()
	w.readable.f.Close()
	if writable != nil {
		writable.f.Close()
	}
	w.cleanup.Stop()
	err := unix.Close(w.fd)
	runtime.KeepAlive(w) // until here, or it would be cleaned up as well
	return os.NewSyscallError("close", err)
}

// opError names the system call that failed, and makes what package os says of a closed file what package net says.
func (w *wire) opError(call string, err error) error {
	if err == nil || err == unix.EAGAIN {
		return err
	}
	if w.closed.Load() {
		return net.ErrClosed
	}
	if errno, ok := err.(syscall.Errno); ok {
		return os.NewSyscallError(call, errno)
	}
	return err
}

// pollSet is an epoll set with one descriptor, itself on the runtime's poller.
type pollSet struct {
	f   *os.File
	raw syscall.RawConn
}

func newPollSet(fd int, events uint32) (*pollSet, error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(set, true); err != nil { // for package os
		unix.Close(set)
		return nil, os.NewSyscallError("fcntl", err)
	}
	s := &pollSet{f: os.NewFile(uintptr(set), "poll set")}
	err = unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events})
	if err == nil {
		err = s.f.SetDeadline(time.Time{}) // fails where it is not on the poller
	}
	if err == nil {
		s.raw, err = s.f.SyscallConn()
	}
	if err != nil {
		s.f.Close()
		return nil, fmt.Errorf("a set for polling: %w", err)
	}
	return s, nil
}

// watch says what to wait for.
func (s *pollSet) watch(fd int, events uint32) error {
	var err error
	controlErr := s.raw.Control(func(set uintptr) {
		err = unix.EpollCtl(int(set), unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events})
	})
	return errors.Join(controlErr, os.NewSyscallError("epoll_ctl", err))
}
