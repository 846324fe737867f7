// Package faults has what tests of several packages share: processes to play the other side, and
// checks that a package's tests leave no goroutine and no descriptor behind.
package faults

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const roleEnv = "USHER_TEST_ROLE"

// Main is for a package's TestMain. In a process started by [Command] it plays the role named there;
// else it runs the tests, then fails if goroutines or descriptors are left that were not there
// before.
func Main(m *testing.M, roles map[string]func(args []string) error) {
	if name, ok := os.LookupEnv(roleEnv); ok {
		play(name, roles)
	}
	warmUp()
	before := Descriptors()
	code := m.Run()
	if code == 0 {
		code = checkLeaks(before)
	}
	os.Exit(code)
}

func play(name string, roles map[string]func([]string) error) {
	os.Unsetenv(roleEnv)
	role, ok := roles[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "no role %q\n", name)
		os.Exit(2)
	}
	if err := role(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "role %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Command returns a command that plays a role in a process of its own: the test binary again. What
// it writes to standard error goes to that of the test.
func Command(t testing.TB, role string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	// Under the race detector a process sleeps for a second when it ends, unless told otherwise.
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.Stderr = os.Stderr
	return cmd
}

func checkLeaks(before int) int {
	if err := settleGoroutines(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := SettleDescriptors(before); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// settleGoroutines waits longer than goleak does by itself: a channel may linger for two seconds when its taker has ended it, and a
// busy machine takes its time.
func settleGoroutines() (err error) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		// go-winio keeps one goroutine for its completion port as long as the process lives.
		err = goleak.Find(goleak.IgnoreAnyFunction("github.com/Microsoft/go-winio.ioCompletionProcessor"))
		if err == nil {
			return nil
		}
	}
	return err
}

// SettleDescriptors waits until this process has no more than want descriptors open, which takes a
// moment after the last Close of a busy one, and fails when that does not happen.
func SettleDescriptors(want int) error {
	var now int
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if now = Descriptors(); now <= want {
			return nil
		}
		runtime.GC() // package poll keeps the pipes that it splices through until they are collected
	}
	return fmt.Errorf("%d descriptors are open, there were %d: %v", now, want, listDescriptors())
}

// NoLeak fails the test if, when it ends, this process has more descriptors open than now.
func NoLeak(t testing.TB) {
	t.Helper()
	before := Descriptors()
	t.Cleanup(func() {
		if err := SettleDescriptors(before); err != nil {
			t.Error(err)
		}
	})
}
