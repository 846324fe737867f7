//go:build unix

package main

import (
	"context"
	"net"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenShared listens at an address that others may listen at as well. On Linux the kernel spreads connections over
// them (SO_REUSEPORT, socket(7)).
func listenShared(address string) (net.Listener, error) {
	if strings.HasSuffix(address, ":0") {
		return net.Listen("tcp", address)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		if err != nil {
			return err
		}
		return failed
	}}
	return lc.Listen(context.Background(), "tcp", address)
}
