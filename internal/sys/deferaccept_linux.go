package sys

import "golang.org/x/sys/unix"

// DeferAccept has connections of a listening socket wait in the kernel until their clients have sent something, or for
// a second (TCP_DEFER_ACCEPT in tcp(7)).
func DeferAccept(fd uintptr, on bool) error {
	seconds := 0
	if on {
		seconds = 1
	}
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds)
}
