package sys

import "golang.org/x/sys/unix"

// OpenBSD has the times of keep-alive for the whole system only (tcp(4)).
var tcpOptions = []option{
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
}
