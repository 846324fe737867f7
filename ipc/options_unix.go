//go:build darwin || freebsd || linux || netbsd || openbsd

package ipc

import "golang.org/x/sys/unix"

func getOption(fd handle, o option) (int, error) { return unix.GetsockoptInt(fd, o.level, o.name) }

func setOption(fd handle, o option, value int) error {
	return unix.SetsockoptInt(fd, o.level, o.name, value)
}
