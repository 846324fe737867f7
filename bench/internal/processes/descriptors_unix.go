//go:build unix

package processes

import "golang.org/x/sys/unix"

// Descriptors returns how many descriptors a process may have that this one starts.
func Descriptors() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<20))
}
