package admin

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/windows"
)

func listenUnix(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		ul.Close()
		return nil, err
	}
	ul.SetUnlinkOnClose(false) // unixListener does it
	return &unixListener{UnixListener: ul, path: path, info: info}, nil
}

func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }
