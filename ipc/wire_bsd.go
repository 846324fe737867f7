//go:build darwin || freebsd || netbsd || openbsd

package ipc

import (
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// wire is a Unix-domain stream socket.
type wire struct {
	uc  *net.UnixConn
	raw syscall.RawConn
}

// sendsWhole says whether the system sends a small message whole or not at all, so that it can be tried.
const sendsWhole = false

// newWire takes over uc, unless it fails.
func newWire(uc *net.UnixConn) (*wire, error) {
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &wire{uc, raw}, nil
}

func (w *wire) receive(p, oob []byte) (n, oobn, flags int, err error) {
	n, oobn, flags, _, err = w.uc.ReadMsgUnix(p, oob)
	return max(n, 0), oobn, flags, err // n is -1 with some errors
}

// send waits until some of b is sent, with the descriptors.
func (w *wire) send(b []byte, fds []int) (int, error) {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := w.uc.WriteMsgUnix(b, oob, nil)
	return n, err
}

func (w *wire) sendNow([]byte, []int) (int, error) { return 0, unix.EAGAIN }

func (w *wire) control(f func(fd int)) error {
	return w.raw.Control(func(fd uintptr) { f(int(fd)) })
}

func (w *wire) setReadDeadline(d time.Time) error  { return w.uc.SetReadDeadline(d) }
func (w *wire) setWriteDeadline(d time.Time) error { return w.uc.SetWriteDeadline(d) }
func (w *wire) file() (*os.File, error)            { return w.uc.File() }
func (w *wire) close() error                       { return w.uc.Close() }
