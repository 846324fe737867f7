package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disconnect ends a TCP connection at once, for whoever has a copy of its descriptor: the peer sees a reset. It is
// connect(2) with AF_UNSPEC, for which x/sys has no address.
func Disconnect(fd uintptr) error {
	var unspec unix.RawSockaddr // AF_UNSPEC is 0
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec))
	if errno != 0 {
		return errno
	}
	return nil
}
