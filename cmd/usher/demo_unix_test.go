//go:build unix

package main

import (
	"errors"
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
			silent := d.dial(t) // the door still waits for its first byte
			_ = silent

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
	faults.Stop(t, d.pids["blue"])
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	d.checkCleanEnd(t)
}

func TestABackendThatWasStoppedServesWhatItGot(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	faults.Stop(t, d.pids["blue"])
	c := d.dial(t)
	c.say(t, head("blue.localhost"))
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a stopped backend answers: %v", err)
	}
	if err := syscall.Kill(d.pids["blue"], syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	c.hearFrom(t, d, "blue")
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
