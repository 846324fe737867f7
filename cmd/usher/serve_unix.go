//go:build unix

package main

import (
	"os"
	"syscall"
)

// reloadSignals make the door load its configuration anew.
var reloadSignals = []os.Signal{syscall.SIGHUP}

func isReload(s os.Signal) bool { return s == syscall.SIGHUP }
