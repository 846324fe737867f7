//go:build !linux

package systemd

import (
	"context"
	"syscall"
	"testing"
)

func TestWithoutSystemdNothingIsDone(t *testing.T) {
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("NOTIFY_SOCKET", "nowhere")
	t.Setenv("WATCHDOG_USEC", "1000")
	n := Notifier{Failed: func(err error) { t.Error(err) }}
	if units, stored, err := n.Passed([]string{":80"}); len(units)+len(stored) > 0 || err != nil {
		t.Errorf("Passed() = %v, %v, %v; want nothing", units, stored, err)
	}
	n.MainPID(4711)
	n.Keep(map[string][]syscall.Conn{":80": nil})
	n.Remove(":80")
	n.Ready("ready")
	n.Reloading()
	n.Stopping()
	n.Watch(context.Background(), func() error {
		t.Error("asked for the health of a service that is not watched")
		return nil
	})
}
