package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// XucredPID returns cr_pid of struct xucred, sys/ucred.h. It is in a union with a pointer, the
// struct's last member, which golang.org/x/sys does not name. FreeBSD 12 and older leave it 0.
func XucredPID(c *unix.Xucred) int {
	last := unsafe.Sizeof(*c) - unsafe.Sizeof(uintptr(0))
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(c), last)))
}
