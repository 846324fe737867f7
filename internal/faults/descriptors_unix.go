//go:build unix

package faults

import (
	"net"
	"os"
	"path/filepath"
)

// warmUp makes the runtime open what it keeps for good: the poller.
func warmUp() {
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
	}
}

// Descriptors returns how many descriptors this process has open.
func Descriptors() int { return len(listDescriptors()) }

func listDescriptors() []string {
	dir := "/proc/self/fd"
	if _, err := os.Stat(dir); err != nil {
		dir = "/dev/fd"
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		panic(err)
	}
	var open []string
	for _, e := range entries {
		// The folder's own descriptor, open while it was read, is closed by now.
		if _, err := os.Lstat(filepath.Join(dir, e.Name())); err != nil {
			continue
		}
		what, _ := os.Readlink(filepath.Join(dir, e.Name()))
		open = append(open, e.Name()+" "+what)
	}
	return open
}
