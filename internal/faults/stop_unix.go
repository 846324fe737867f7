//go:build unix

package faults

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Stop stops a process and returns when none of its threads runs: kill(2) only asks, and a thread on
// another processor goes on for a moment. The caller lets it go on with SIGCONT.
func Stop(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !stopped(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

// stopped says whether all threads are in state T, proc_pid_stat(5). Where there is no /proc it gives
// them a while.
func stopped(pid int) bool {
	stats, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
	if len(stats) == 0 {
		time.Sleep(100 * time.Millisecond)
		return true
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // the thread is gone
		}
		// The name in parentheses may have any character; the state follows the last one.
		if i := bytes.LastIndexByte(stat, ')'); i < 0 || len(stat) < i+3 || stat[i+2] != 'T' {
			return false
		}
	}
	return true
}
