package ipc

import "golang.org/x/sys/unix"

// peerOf uses SO_PEERCRED, getsockopt(2), which gives a struct sockpeercred: uid, gid, pid. x/sys has
// no call for it; that for an ICMPv6 filter asks for 32 bytes as eight 32-bit words, and the kernel
// fills in the first three.
func peerOf(fd int) (Peer, error) {
	c, err := unix.GetsockoptICMPv6Filter(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	return Peer{PID: int(int32(c.Filt[2])), UID: int(c.Filt[0]), GID: int(c.Filt[1])}, nil
}
