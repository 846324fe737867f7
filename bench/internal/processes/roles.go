package processes

import (
	"fmt"
	"io"
	"os"
)

// Play plays the role that the arguments of the program name: of roles, which are what a program is besides itself, or
// the warden. It returns only if they name none. Each role ends with its standard input, so that none is left over
// however the program has ended that plays it.
func Play(roles map[string]func(args []string) error) {
	if len(os.Args) < 3 || os.Args[1] != "role" {
		return
	}
	role, ok := roles[os.Args[2]]
	if os.Args[2] == "warden" {
		role, ok = playWarden, true
	}
	if !ok {
		Fatal(fmt.Errorf("there is no role %q", os.Args[2]))
	}
	if err := role(os.Args[3:]); err != nil {
		Fatal(err)
	}
	os.Exit(0)
}

// EndWithStdin is for roles that do not read it.
func EndWithStdin() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// Fatal ends this process.
func Fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}
