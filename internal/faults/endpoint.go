package faults

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
)

var endpoints atomic.Int32

// Endpoint returns a path that nothing else listens at, and removes what is left there at the end of the
// test.
func Endpoint(t testing.TB) string {
	t.Helper()
	n := strconv.Itoa(int(endpoints.Add(1)))
	if runtime.GOOS == "windows" {
		return `\\.\pipe\usher\test-` + strconv.Itoa(os.Getpid()) + "-" + n
	}
	dir, err := os.MkdirTemp("", "usher") // t.TempDir's paths are too long for sun_path on macOS
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, n)
}
