//go:build !linux

package systemd

import (
	"context"
	"testing"
)

func TestWithoutSystemdNothingIsDone(t *testing.T) {
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("NOTIFY_SOCKET", "nowhere")
	t.Setenv("WATCHDOG_USEC", "1000")
	if passed, err := Listeners(); len(passed) > 0 || err != nil {
		t.Errorf("Listeners() = %v, %v; want nothing", passed, err)
	}
	n := Notifier{Failed: func(err error) { t.Error(err) }}
	n.Ready("ready")
	n.Reloading()
	n.Stopping()
	n.Watch(context.Background(), func() error {
		t.Error("asked for the health of a service that is not watched")
		return nil
	})
}
