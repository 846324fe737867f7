//go:build darwin || freebsd || linux || netbsd || openbsd

package ipc

import (
	"fmt"
	"os"
)

func sameUser(p Peer) error {
	if p.UID == os.Geteuid() || p.UID == 0 {
		return nil
	}
	return fmt.Errorf("process %d belongs to user %d, neither root nor %d", p.PID, p.UID, os.Geteuid())
}
