package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSystemdHearsWhichDoorServes has a door and its successor talk to a socket as systemd's, which believes the main process
// alone: what the successor says has to come after the old door has named it.
func TestSystemdHearsWhichDoorServes(t *testing.T) {
	dir := t.TempDir()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	notify.SetReadDeadline(time.Now().Add(scriptPatience))
	if err := enablePassCred(notify); err != nil {
		t.Fatal(err)
	}
	door := exec.Command("usher", "serve", "--listen", "127.0.0.1:0")
	door.Env = append(os.Environ(), "USHER_DIR="+dir, "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=")
	door.Stderr = os.Stderr
	ownGroup(door)
	if err := door.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		killGroup(door)
		door.Wait() // again, if nothing has failed
	}()
	hear := func(what string) (pid int, text string) {
		t.Helper()
		for {
			pid, text = receiveNews(t, notify)
			if strings.HasPrefix(text, what) {
				return pid, text
			}
			if !strings.HasPrefix(text, "FDSTORE") {
				t.Fatalf("process %d says %q, which was to be %s", pid, text, what)
			}
		}
	}
	if pid, _ := hear("READY=1"); pid != door.Process.Pid {
		t.Errorf("process %d is ready, want %d", pid, door.Process.Pid)
	}
	main := door.Process.Pid
	for range 3 {
		upgrade := exec.Command("usher", "upgrade")
		upgrade.Env = door.Env
		out, err := upgrade.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		next := 0
		if _, err := fmt.Sscanf(string(out), "process %d serves now", &next); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		if pid, text := hear("MAINPID="); pid != main || text != fmt.Sprintf("MAINPID=%d", next) {
			t.Errorf("process %d says %q, want process %d to say it of %d", pid, text, main, next)
		}
		if pid, _ := hear("READY=1"); pid != next {
			t.Errorf("process %d is ready, want %d", pid, next)
		}
		main = next
	}
	syscall.Kill(main, syscall.SIGTERM)
	if pid, _ := hear("STOPPING=1"); pid != main {
		t.Errorf("process %d is stopping, want %d", pid, main)
	}
	if err := door.Wait(); err != nil {
		t.Errorf("the first door: %v", err)
	}
}

func enablePassCred(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1) })
	if err != nil {
		return err
	}
	return inner
}

// receiveNews returns a datagram, and who has sent it by the kernel's word.
func receiveNews(t *testing.T, c *net.UnixConn) (pid int, text string) {
	t.Helper()
	b, oob := make([]byte, 4096), make([]byte, 1024)
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if cred, err := syscall.ParseUnixCredentials(&m); err == nil {
			pid = int(cred.Pid)
		}
		if fds, err := syscall.ParseUnixRights(&m); err == nil {
			for _, fd := range fds {
				syscall.Close(fd)
			}
		}
	}
	return pid, string(b[:n])
}

// TestTheProgramIsFoundByTheLinkThatItWasStartedBy has a link lead elsewhere afterwards, as package managers do with versions.
func TestTheProgramIsFoundByTheLinkThatItWasStartedBy(t *testing.T) {
	dir := t.TempDir()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "current")
	if err := os.Symlink(own, link); err != nil {
		t.Fatal(err)
	}
	args := os.Args
	defer func() { os.Args = args }()
	for name, want := range map[string]string{link: link, "no-such-program": own, "/bin/sh": own} {
		os.Args = []string{name}
		if got, err := program(); err != nil || got != want {
			t.Errorf("started as %s it is %s, %v; want %s", name, got, err, want)
		}
	}
}
