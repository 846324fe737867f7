//go:build unix

package processes

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
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

func TestAPlaceHasRoomForTheNamesOfSockets(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), strings.Repeat("x", 60)))
	if err := os.Mkdir(os.TempDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := NewPlace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if len(p.Dir) > maxDir {
		t.Errorf("the folder %s has %d bytes; want no more than %d", p.Dir, len(p.Dir), maxDir)
	}
	left, err := os.ReadDir(os.TempDir())
	if err != nil || len(left) > 0 {
		t.Errorf("left in $TMPDIR: %v, %v", left, err)
	}
}

// TestNginxWithTheStreamInTheProgram asks programs that say what nginx does, of which some need no file.
func TestNginxWithTheStreamInTheProgram(t *testing.T) {
	for arguments, want := range map[string]bool{
		"--with-stream --with-stream_ssl_module":         true,
		"--with-stream_ssl_module --with-stream":         true,
		"--with-stream=dynamic --with-stream_ssl_module": false,
		"--with-stream_ssl_module":                       false,
		"--without-http":                                 false,
	} {
		program := filepath.Join(t.TempDir(), "nginx")
		script := "#!/bin/sh\necho 'configure arguments: --prefix=/etc/nginx " + arguments + "' >&2\n"
		if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		file, err := NginxStreamModule(program)
		if got := file == "" && err == nil; got != want {
			t.Errorf("of %q: %q, %v", arguments, file, err)
		}
	}
}
