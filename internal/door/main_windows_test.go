package door

import (
	"errors"

	"golang.org/x/sys/windows"
)

// wasReset says of an error that its connection was reset.
func wasReset(err error) bool {
	return errors.Is(err, windows.WSAECONNRESET) || errors.Is(err, windows.WSAECONNABORTED)
}
