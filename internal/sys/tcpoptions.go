//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package sys

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// option is a setting of a TCP connection that net.FileConn changes, and to what.
type option struct {
	level, name, fileConn int
}

// TCPOptions are the values that a connection had, in the order of tcpOptions; absent ones are -1.
type TCPOptions [5]int

// ReadTCPOptions reads, from a socket or file that may be no TCP connection at all, what net.FileConn
// would change.
func ReadTCPOptions(h uintptr) TCPOptions {
	var values TCPOptions
	for i := range values {
		values[i] = -1
		if i >= len(tcpOptions) {
			continue
		}
		if v, err := getOption(h, tcpOptions[i]); err == nil {
			values[i] = v
		}
	}
	return values
}

// Restore gives a connection fresh from net.FileConn the values that it had.
func (values TCPOptions) Restore(c *net.TCPConn) error {
	for i, o := range tcpOptions {
		if values[i] < 0 || same(values[i], o.fileConn) {
			continue
		}
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		var setErr error
		err = raw.Control(func(h uintptr) { setErr = setOption(h, o, values[i]) })
		if err != nil {
			return err
		}
		// The value is one that the kernel gave, so it is the connection that is not valid: macOS says
		// so of one that the peer has reset (setsockopt(2)), and FileConn could not change it either.
		if setErr != nil && !errors.Is(setErr, syscall.EINVAL) {
			return os.NewSyscallError("setsockopt", setErr)
		}
	}
	return nil
}

// SetTCPOptions gives a listening socket the options that package net gives each connection which it accepts. Those
// that are accepted have them from there (tcp(7)). What a socket does not know it goes without, as with package net:
// Multipath TCP, which net.Listen prefers on Linux, knew no times of keep-alive at first.
func SetTCPOptions(h uintptr) error {
	for _, o := range tcpOptions {
		if err := setOption(h, o, o.fileConn); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// same compares values of an option. A switch that is on reads as any value but 0: 8 for
// SO_KEEPALIVE on the BSDs.
func same(value, fileConn int) bool {
	return value == fileConn || fileConn == 1 && value != 0
}
