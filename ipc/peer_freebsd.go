package ipc

import (
	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/unix"
)

// peerOf uses LOCAL_PEERCRED, unix(4), of level SOL_LOCAL, which is 0.
func peerOf(fd int) (Peer, error) {
	c, err := unix.GetsockoptXucred(fd, 0, unix.LOCAL_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	return Peer{PID: sys.XucredPID(c), UID: int(c.Uid), GID: int(c.Groups[0])}, nil
}
