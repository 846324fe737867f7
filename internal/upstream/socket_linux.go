package upstream

import (
	"github.com/go-usher/usher/internal/sys"
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

// abort resets a connection of TCP now. SO_LINGER alone, which resets when the connection is closed, would not do for
// one that was on offer: its Close ends the stream before that, and a taker that was stopped may still have a copy of
// the descriptor coming, which keeps the connection open.
func abort(fd uintptr) {
	_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = sys.Disconnect(fd) // it fails for one that has ended already
}
