package main

import (
	"fmt"
	"io"
	"os"
)

// roles are what this program is besides itself: processes that the bench needs. Each ends with its standard input, so
// that none is left over however the bench has ended.
var roles = map[string]func(args []string) error{
	"backend":  playBackend,
	"tcpproxy": playTCPProxy,
	"warden":   playWarden,
}

// play plays the role that the arguments of the program name. It returns only if they name none.
func play() {
	if len(os.Args) < 3 || os.Args[1] != "role" {
		return
	}
	role, ok := roles[os.Args[2]]
	if !ok {
		fatal(fmt.Errorf("there is no role %q", os.Args[2]))
	}
	if err := role(os.Args[3:]); err != nil {
		fatal(err)
	}
	os.Exit(0)
}

// endWithStdin is for roles that do not read it.
func endWithStdin() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}
