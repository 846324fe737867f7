package ipc

import "golang.org/x/sys/unix"

// peerOf uses LOCAL_PEERCRED and LOCAL_PEERPID, sys/un.h.
func peerOf(fd int) (Peer, error) {
	c, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	pid, err := unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	if err != nil {
		return Peer{}, err
	}
	return Peer{PID: pid, UID: int(c.Uid), GID: int(c.Groups[0])}, nil
}
