//go:build unix

package main

import (
	"os"
	"syscall"
)

// reloadSignals make the door load its configuration anew.
var reloadSignals = []os.Signal{syscall.SIGHUP}
