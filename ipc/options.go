//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package ipc

import (
	"net"
	"os"
)

// option is a setting of a TCP connection that net.FileConn changes, and to what.
type option struct {
	level, name, fileConn int
}

// options are the values that a connection had, in the order of tcpOptions; absent ones are -1.
type options [5]int

// readOptions reads, from a handle that may be no TCP connection at all, what net.FileConn would
// change.
func readOptions(h handle) options {
	var values options
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

// restore gives a connection fresh from net.FileConn the values that it had.
func (values options) restore(c *net.TCPConn) error {
	for i, o := range tcpOptions {
		if values[i] < 0 || same(values[i], o.fileConn) {
			continue
		}
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		var setErr error
		err = raw.Control(func(fd uintptr) { setErr = setOption(handle(fd), o, values[i]) })
		if err == nil {
			err = os.NewSyscallError("setsockopt", setErr)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// same compares values of an option. A switch that is on reads as any value but 0: 8 for
// SO_KEEPALIVE on the BSDs.
func same(value, fileConn int) bool {
	return value == fileConn || fileConn == 1 && value != 0
}
