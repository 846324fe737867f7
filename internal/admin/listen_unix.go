//go:build unix

package admin

import (
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

const socketMode = 0o600

// listenUnix makes the socket under a name of its own and moves it to path when it has its mode, so that there
// is no instant in which others could connect: the umask, which could do that too, is the whole process's. Of
// two processes that start in the same instant the second gets the path.
func listenUnix(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	temp := filepath.Join(filepath.Dir(path), ".u"+rand.Text()[:8])
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	info, err := moveSocket(temp, path)
	if err != nil {
		ul.Close() // removes temp
		return nil, err
	}
	ul.SetUnlinkOnClose(false)
	return &unixListener{UnixListener: ul, path: path, info: info}, nil
}

func moveSocket(from, to string) (os.FileInfo, error) {
	if err := os.Chmod(from, socketMode); err != nil {
		return nil, err
	}
	info, err := os.Lstat(from)
	if err != nil {
		return nil, err
	}
	return info, os.Rename(from, to)
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
