//go:build unix

package door

import "golang.org/x/sys/unix"

// maxDescriptors is how many this process may have open. (Package os has raised its limit as far as that goes.)
func maxDescriptors() (n uint64, known bool) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, false
	}
	return uint64(limit.Cur), true // which is signed on FreeBSD
}
