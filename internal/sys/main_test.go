//go:build darwin || freebsd || linux || netbsd || openbsd

package sys_test

import (
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
)

// roles are what the test binary can play in a process of its own.
var roles = map[string]func([]string) error{
	"starve": playStarve,
}

func TestMain(m *testing.M) { faults.Main(m, roles) }

// timeout ends a test that hangs, not one that is slow.
const timeout = 30 * time.Second

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
