//go:build darwin || freebsd || linux || netbsd || openbsd

package usher_test

import (
	"syscall"
	"testing"

	"github.com/go-usher/usher/internal/faults"
)

func init() {
	stop = faults.Stop
	resume = func(t testing.TB, pid int) {
		t.Helper()
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}
