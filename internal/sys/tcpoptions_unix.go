//go:build darwin || freebsd || linux || netbsd || openbsd

package sys

import "golang.org/x/sys/unix"

func getOption(fd uintptr, o option) (int, error) {
	return unix.GetsockoptInt(int(fd), o.level, o.name)
}

func setOption(fd uintptr, o option, value int) error {
	return unix.SetsockoptInt(int(fd), o.level, o.name, value)
}
