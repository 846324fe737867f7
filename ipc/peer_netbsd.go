package ipc

import "golang.org/x/sys/unix"

// localPeerEID is LOCAL_PEEREID of sys/un.h.
const localPeerEID = 3

// peerOf uses LOCAL_PEEREID, unix(4), of level SOL_LOCAL, which is 0. It gives a struct unpcbid: pid,
// euid, egid. x/sys has no call for it; that for an ICMPv6 filter asks for 32 bytes as eight 32-bit
// words, and the kernel fills in the first three.
func peerOf(fd int) (Peer, error) {
	c, err := unix.GetsockoptICMPv6Filter(fd, 0, localPeerEID)
	if err != nil {
		return Peer{}, err
	}
	return Peer{PID: int(int32(c.Filt[0])), UID: int(c.Filt[1]), GID: int(c.Filt[2])}, nil
}
