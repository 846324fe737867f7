package upstream

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hungUp tells whether a connection has ended in both directions: POLLHUP in poll(2).
func hungUp(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	for {
		_, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return err == nil && fds[0].Revents&unix.POLLHUP != 0
		}
	}
}

// abort resets a connection of TCP now, by connect(2) with AF_UNSPEC. SO_LINGER alone, which resets when the
// connection is closed, would not do for one that was on offer: its Close ends the stream before that, and a
// taker that was stopped may still have a copy of the descriptor coming, which keeps the connection open. It
// is there for sandboxes that do not know the other way.
func abort(fd uintptr) {
	_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	var unspec unix.RawSockaddr // AF_UNSPEC is 0
	_, _, _ = unix.Syscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec))
}
