package sys

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mostAtOnce is how much a call here copies. The scheduler does not know of it and cannot stop its goroutine meanwhile, nor
// can the garbage collector: and with a peer that keeps up, the kernel goes on to the end of what it was given. To copy so
// much takes some tens of microseconds; more at once is not faster.
const mostAtOnce = 256 << 10

// TrySendRights sends b, or some of it, with descriptors over a Unix-domain stream socket if that needs no waiting. The
// error is EAGAIN if it does. Like all calls that never wait it is made without telling the scheduler; see accept.
func TrySendRights(fd int, b []byte, fds []int) (int, error) {
	if len(b) == 0 {
		return 0, unix.EINVAL // descriptors go with a byte at least: unix(7)
	}
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(min(len(b), mostAtOnce))
	var msg unix.Msghdr
	msg.Iov = &iov
	msg.SetIovlen(1)
	var one rightsOfOne
	if len(fds) == 1 { // nearly always: no memory is taken for it
		one.header.Level, one.header.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		one.header.SetLen(unix.CmsgLen(int(unsafe.Sizeof(one.fd))))
		one.fd = int32(fds[0])
		msg.Control = (*byte)(unsafe.Pointer(&one))
		msg.SetControllen(unix.CmsgSpace(int(unsafe.Sizeof(one.fd))))
	} else if len(fds) > 1 {
		rights := unix.UnixRights(fds...)
		msg.Control = &rights[0]
		msg.SetControllen(len(rights))
	}
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		runtime.KeepAlive(&msg)
		runtime.KeepAlive(&one)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// rightsOfOne is unix.UnixRights of one descriptor.
type rightsOfOne struct {
	header unix.Cmsghdr
	fd     int32
	_      int32 // up to CMSG_SPACE, where words have 64 bits
}

// RecvRights is recvmsg that never waits, for a Unix-domain socket; descriptors come close-on-exec. The error is EAGAIN
// when there is nothing.
func RecvRights(fd int, b, oob []byte) (n, oobn, flags int, err error) {
	if len(b) == 0 || len(oob) == 0 {
		return 0, 0, 0, unix.EINVAL
	}
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(min(len(b), mostAtOnce))
	msg := unix.Msghdr{Iov: &iov, Control: &oob[0]}
	msg.SetIovlen(1)
	for {
		msg.SetControllen(len(oob))
		r, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		runtime.KeepAlive(&msg)
		if errno == 0 {
			return int(r), int(msg.Controllen), int(msg.Flags), nil
		}
		if errno != unix.EINTR {
			return 0, 0, 0, errno
		}
	}
}
