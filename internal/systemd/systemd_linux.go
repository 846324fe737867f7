package systemd

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

func receive() []passed {
	var all []passed
	for i, f := range activation.Files(true) {
		p := passed{fd: firstDescriptor + i, name: f.Name()}
		p.listener, p.err = listener(f)
		if _, stored := addressOf(p.name); stored && p.err == nil {
			lengthenQueue(f)
		}
		f.Close() // the listener has a descriptor of its own
		all = append(all, p)
	}
	return all
}

// firstDescriptor is SD_LISTEN_FDS_START.
const firstDescriptor = 3

// listener makes a listener of a socket that is one. net.FileListener would take a datagram socket or a connection for
// one, and the first Accept would fail.
func listener(f *os.File) (net.Listener, error) {
	if err := checkListening(f); err != nil {
		return nil, err
	}
	return net.FileListener(f)
}

func checkListening(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var kind, accepts int
	control := raw.Control(func(fd uintptr) {
		if kind, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); err == nil {
			accepts, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		}
	})
	switch {
	case control != nil:
		return control
	case errors.Is(err, unix.ENOTSOCK):
		return errors.New("it is not a socket")
	case err != nil:
		return os.NewSyscallError("getsockopt", err)
	case kind != unix.SOCK_STREAM:
		return errNoStream
	case accepts == 0:
		return errNoListener
	}
	return nil
}

// lengthenQueue gives a socket the longest accept queue that the kernel allows now, as one that is opened now would
// have: it was opened when another limit may have been in force (net.core.somaxconn, which operators raise and then
// restart the service). To listen again changes nothing else.
func lengthenQueue(f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Listen(int(fd), math.MaxUint16) }) // else it stays as it is
	}
}

func makeSibling(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_PARENT
}

func waitFor(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil || cmd.SysProcAttr.Cloneflags&syscall.CLONE_PARENT == 0 {
		_ = cmd.Wait()
		return
	}
	pollEnd(cmd, -1) // it is no child
	_ = cmd.Process.Release()
}

func ended(cmd *exec.Cmd) bool { return pollEnd(cmd, 0) }

// pollEnd waits for the end of a process, for some milliseconds or, if that is negative, without end, and says whether it
// has ended. A process's descriptor polls as readable then, whoever is its parent; without one, as after Wait, there
// is no process.
func pollEnd(cmd *exec.Cmd, milliseconds int) (ended bool) {
	err := cmd.Process.WithHandle(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, milliseconds)
		for err == unix.EINTR {
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, milliseconds)
		}
		ended = n > 0
	})
	return ended || err != nil
}

func notify(state string) error { return notifyWith(state, nil) }

// notifyPatience is for systemd to make room in the queue of its socket. The door has other things to do than to wait for one
// that hangs: to take a signal, or to leave its place to the next door.
const notifyPatience = 5 * time.Second

// notifyWith sends systemd a datagram and, unless it is nil, a socket's descriptor, which go-systemd cannot.
func notifyWith(state string, socket syscall.Conn) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(notifyPatience))
	if socket == nil {
		_, err = c.Write([]byte(state))
		return err
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	control := raw.Control(func(fd uintptr) { err = sendDescriptor(c, []byte(state), int(fd)) })
	return errors.Join(control, err)
}

// sendDescriptor is for WriteMsgUnix, which refuses connected datagram sockets.
func sendDescriptor(c *net.UnixConn, data []byte, fd int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	write := raw.Write(func(to uintptr) bool {
		err = unix.Sendmsg(int(to), data, unix.UnixRights(fd), nil, 0)
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(write, os.NewSyscallError("sendmsg", err))
}

// barrierPatience is what sd_notify_barrier(3) is given by those who use it.
const barrierPatience = 5 * time.Second

// barrier returns when systemd has dealt with all that it was sent before: it closes the descriptor then, as
// sd_notify_barrier(3) describes.
func barrier() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = notifyWith("BARRIER=1", w)
	w.Close()
	if err != nil {
		return err
	}
	r.SetReadDeadline(time.Now().Add(barrierPatience))
	if _, err = r.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("it does not say that it has dealt with the news: %w", err)
	}
	return nil
}

// reloadingState has the time at which the reload began, by which Type=notify-reload knows the READY=1 that ends it from
// an earlier one.
func reloadingState() string {
	return daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec()
}

func watchdogPeriod() (time.Duration, error) { return daemon.SdWatchdogEnabled(false) }
