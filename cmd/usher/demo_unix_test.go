//go:build unix

package main

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
)

func TestDemoEndsWhenItIsInterrupted(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			d := startDemo(t)
			handed := d.dial(t)
			handed.say(t, head("red.localhost"))
			handed.hearFrom(t, d, "red")
			d.dial(t) // says nothing: the door still waits for its first byte

			if err := d.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			d.checkCleanEnd(t)
		})
	}
}

func TestDemoEndsThoughABackendIsStopped(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	stopProcess(t, d.pids["blue"])
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	d.checkCleanEnd(t)
}

func TestABackendThatWasStoppedServesWhatItGot(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	stopProcess(t, d.pids["blue"])
	c := d.dial(t)
	c.say(t, head("blue.localhost"))
	time.Sleep(50 * time.Millisecond) // for the door to hand it over
	if err := syscall.Kill(d.pids["blue"], syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.hearFrom(t, d, "blue")
}

// stopProcess stops a process until the end of the test, when it goes on, lest it be left behind.
func stopProcess(t *testing.T, pid int) {
	t.Helper()
	faults.Stop(t, pid)
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGCONT) })
}

// checkCleanEnd waits for a demo that was told to end.
func (d *demoProcess) checkCleanEnd(t *testing.T) {
	t.Helper()
	if err := d.wait(); err != nil {
		t.Errorf("the demo ended with %v; want exit status 0, and no process left that has its stderr", err)
	}
	for name, pid := range d.pids {
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("backend %s (pid %d) is still there: %v", name, pid, err)
		}
	}
	left, err := os.ReadDir(d.tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
	if s := d.stderr.String(); s != "" {
		t.Errorf("stderr has %q", s)
	}
}
