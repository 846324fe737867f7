//go:build unix

package processes

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Play(nil) // the warden is this program
	os.Exit(m.Run())
}

// TestWardenEndsWhatIsLeft ends a bench without stopping a process that knows nothing of it.
func TestWardenEndsWhatIsLeft(t *testing.T) {
	p, err := NewPlace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	c, err := p.NewCrew("left")
	if err != nil {
		t.Fatal(err)
	}
	left, err := c.Start("sh", "-c", "sleep 1000 & wait") // two processes: the group has to go
	if err != nil {
		t.Fatal(err)
	}
	stopped, err := c.Start("sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	stopped.Stop()
	p.warden.forget(stopped.Pid)

	p.Close()
	select {
	case <-left.Ended:
	case <-time.After(StartTimeout):
		t.Error("it is still there")
		left.Stop()
	}
	wantNone(t, -left.Pid)
	if _, err := os.Stat(p.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}

// wantNone waits for a group of processes to be gone. Whoever collects those whose parent is dead may take some time.
func wantNone(t *testing.T, group int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(group, 0) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("somebody of the group %d is still there", group)
			return
		}
	}
}
