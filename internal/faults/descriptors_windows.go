package faults

import "net"

// warmUp makes the system's libraries open what they keep for good.
func warmUp() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return
	}
	defer l.Close()
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
	}
}

// Descriptors returns 0: on Windows the runtime and the system open handles of threads and events as
// they see fit, so that the count says nothing about a few. Package ipc compares sys.HandleCount over
// many rounds.
func Descriptors() int { return 0 }

func listDescriptors() []string { return nil }
