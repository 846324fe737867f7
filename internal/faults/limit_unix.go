//go:build darwin || freebsd || linux || netbsd || openbsd

package faults

import "syscall"

// LimitDescriptors is for a process that is a test's: room(n) has it from then on open n files more than now, at most.
func LimitDescriptors() (room func(n int) error, err error) {
	// The limit is on numbers, not on the count: fill the gaps below the highest.
	for {
		fd, err := syscall.Dup(0)
		if err != nil {
			return nil, err
		}
		if fd >= Descriptors()-1 {
			syscall.Close(fd)
			break
		}
	}
	open := Descriptors()
	return func(n int) error {
		var limit syscall.Rlimit
		setTo(&limit.Cur, open+n)
		setTo(&limit.Max, 1000)
		return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}, nil
}

// setTo is for what is signed on FreeBSD and unsigned elsewhere.
func setTo[T int64 | uint64](p *T, n int) { *p = T(n) }
