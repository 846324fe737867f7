package sys

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

func accept(listener int) (int, netip.AddrPort, error) {
	fd, sa, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	return fd, addrPort(sa), err
}
