package usher

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/windows"
)

// heldSocket is a socket on no completion port. The connection that it came from is gone: once File
// had been called on it, its deadlines did not work any more.
type heldSocket struct{ f *os.File }

func hold(c net.Conn) (held, error) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("a %T cannot be handed over; a *net.TCPConn can", c)
	}
	f, err := tcp.File() // fails while I/O is pending, and leaves the connection as it was
	if err != nil {
		return nil, err
	}
	f.Fd() // takes the duplicate off the completion port that File put it onto
	err = tcp.Close()
	if errors.Is(err, net.ErrClosed) { // somebody else has closed it meanwhile, or taken it over
		f.Close()
		return nil, err
	}
	return &heldSocket{f}, nil
}

func (h *heldSocket) SyscallConn() (syscall.RawConn, error) { return h.f.SyscallConn() }
func (h *heldSocket) drop()                                 { h.f.Close() }

// reclaim makes a fresh connection, whose deadlines work. An offer that was withdrawn may still be on its
// way out: that holds the handle open, not locked.
func (h *heldSocket) reclaim() (net.Conn, error) {
	raw, err := h.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var options sys.TCPOptions
	if err := raw.Control(func(s uintptr) { options = sys.ReadTCPOptions(s) }); err != nil {
		return nil, err
	}
	c, err := net.FileConn(h.f)
	if err != nil {
		return nil, err
	}
	if err := options.Restore(c.(*net.TCPConn)); err != nil {
		c.Close()
		return nil, err
	}
	h.f.Close()
	return c, nil
}

func shutdown(s uintptr) { _ = windows.Shutdown(windows.Handle(s), windows.SHUT_RDWR) }
