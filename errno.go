//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher

import (
	"errors"
	"syscall"
)

var (
	// peerGone is what reading and writing return, beside io.EOF, when the peer has closed the channel.
	peerGone = []error{syscall.EPIPE, syscall.ECONNRESET}

	// errTooManyOnTheirWay is sendmsg's when the user has too many descriptors in flight (unix(7)).
	errTooManyOnTheirWay error = syscall.ETOOMANYREFS
)

// isSystems says whether it is the system that has failed, and not what it was asked to work on.
func isSystems(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno)
}
