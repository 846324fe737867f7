//go:build unix && !linux

package bench

import "syscall"

// noPort are what connect says when ports have run short.
var noPort = []error{syscall.EADDRNOTAVAIL, syscall.EADDRINUSE}
