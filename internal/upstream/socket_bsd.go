//go:build unix && !linux

package upstream

import "golang.org/x/sys/unix"

// hungUp tells whether a connection has ended in both directions: it has no peer any more.
func hungUp(fd uintptr) bool {
	_, err := unix.Getpeername(int(fd))
	return err != nil
}

// abort makes the close that follows a reset: SO_LINGER with no time, see setsockopt(2). The client of a
// connection that was on offer sees its stream end before that, for so the Close of one begins.
func abort(fd uintptr) {
	_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}
