//go:build darwin || freebsd || netbsd || openbsd

package sys

import (
	"golang.org/x/sys/unix"
)

// Peek is recv with MSG_PEEK: it leaves what it reads in the kernel. The error is EAGAIN when there is nothing.
func Peek(fd int, b []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
