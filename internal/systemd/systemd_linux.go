package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

func listeners() (map[string][]net.Listener, error) {
	files := activation.Files(true)
	passed := make(map[string][]net.Listener)
	var errs []error
	for i, f := range files {
		l, err := listener(f)
		f.Close() // l has a descriptor of its own
		if err != nil {
			errs = append(errs, fmt.Errorf("systemd passed descriptor %d (%s): %w", firstDescriptor+i, f.Name(), err))
			continue
		}
		passed[f.Name()] = append(passed[f.Name()], l)
	}
	if len(errs) > 0 {
		closeAll(passed)
		return nil, errors.Join(errs...)
	}
	return passed, nil
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
		return errors.New("it is not a stream socket; the socket unit needs ListenStream=")
	case accepts == 0:
		return errors.New("it does not listen; the socket unit needs Accept=no")
	}
	return nil
}

func closeAll(passed map[string][]net.Listener) {
	for _, ls := range passed {
		for _, l := range ls {
			l.Close()
		}
	}
}

func notify(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}

// reloadingState has the time at which the reload began, by which Type=notify-reload knows the READY=1 that ends it from
// an earlier one.
func reloadingState() string {
	return daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec()
}

func watchdogPeriod() (time.Duration, error) { return daemon.SdWatchdogEnabled(false) }
