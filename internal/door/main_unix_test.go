//go:build unix

package door

import (
	"errors"
	"syscall"
)

// wasReset says of an error that its connection was reset. A write that comes later finds a broken pipe.
func wasReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
