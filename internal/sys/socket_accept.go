//go:build darwin || netbsd || openbsd

package sys

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// accept holds ForkLock, so that no child that is started now inherits the descriptor: macOS has no accept4, and package unix none for
// the others.
func accept(listener int) (int, netip.AddrPort, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, sa, err := unix.Accept(listener)
	if err != nil {
		return -1, netip.AddrPort{}, err
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, netip.AddrPort{}, err
	}
	return fd, addrPort(sa), nil
}
