package admin

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

// unixListener has a socket file that its net.UnixListener may not know under the name that it has now.
type unixListener struct {
	*net.UnixListener
	path string
	info os.FileInfo // of the socket file
	keep bool        // on Close
}

// SetUnlinkOnClose says whether Close removes the socket file. A door that passes its listener to the next one
// leaves the file to it. It must not be called at the same time as Close.
func (l *unixListener) SetUnlinkOnClose(unlink bool) { l.keep = !unlink }

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	if !l.keep {
		l.unlink()
	}
	return l.UnixListener.Close()
}

// unlink removes the file unless another listener has put its own there.
func (l *unixListener) unlink() {
	info, err := os.Lstat(l.path)
	if err == nil && os.SameFile(info, l.info) {
		os.Remove(l.path)
	}
}

// removeStale makes path free, or says why it cannot be.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("it is there and is not a socket: %s", info.Mode())
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return syscall.EADDRINUSE
	}
	if !isRefused(err) {
		return fmt.Errorf("cannot tell whether a process listens: %w", err)
	}
	return os.Remove(path)
}

// Adopt is Listen for a socket that another process has opened at the address, and that serves in the place of that
// one. It takes l over. The socket file, if it has one, is the new owner's to remove.
func Adopt(address string, l net.Listener) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, UnixPrefix)
	ul, ok := l.(*net.UnixListener)
	if !isUnix || !ok {
		return l, nil
	}
	info, err := os.Lstat(path)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("the socket that was passed for %s has lost its file: %w", address, err)
	}
	ul.SetUnlinkOnClose(false) // unixListener does it
	return &unixListener{UnixListener: ul, path: path, info: info}, nil
}
