package faults

import (
	"bufio"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Actor is a process that plays a role, is told what to do by lines, and says what it does by lines.
// Its methods belong to the goroutine of the test.
type Actor struct {
	t     testing.TB
	role  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // what it says; closed at the end of that
	heard []string
	gone  bool
}

// patience ends a test that hangs, not one that is slow.
const patience = 30 * time.Second

// Start starts a process in a role. It is killed when the test ends, if it lives then.
func Start(t testing.TB, role string, args ...string) *Actor {
	t.Helper()
	cmd := Command(t, role, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &Actor{t: t, role: role, cmd: cmd, in: in, lines: make(chan string)}
	go func() {
		defer close(a.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			a.lines <- scanner.Text()
		}
	}()
	t.Cleanup(a.Kill)
	return a
}

// PID returns the process's number.
func (a *Actor) PID() int { return a.cmd.Process.Pid }

// Tell writes a line to the process.
func (a *Actor) Tell(line string) {
	a.t.Helper()
	if _, err := io.WriteString(a.in, line+"\n"); err != nil {
		a.t.Fatalf("cannot tell the %s %q: %v", a.role, line, err)
	}
}

// Await waits until the process has said a line that starts with prefix, if it has not yet, and returns
// the rest of the first such line.
func (a *Actor) Await(prefix string) string {
	a.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		if said := a.Heard(prefix); len(said) > 0 {
			return said[0]
		}
		select {
		case line, ok := <-a.lines:
			if !ok {
				a.t.Fatalf("the %s has ended and did not say %q, but %q", a.role, prefix, a.heard)
			}
			a.heard = append(a.heard, line)
		case <-late.C:
			a.t.Fatalf("the %s does not say %q, but %q", a.role, prefix, a.heard)
		}
	}
}

// Heard returns the rests of the lines that start with prefix, of those that were awaited or came
// before one that was; of all, once the process has ended.
func (a *Actor) Heard(prefix string) []string {
	var rests []string
	for _, line := range a.heard {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			rests = append(rests, rest)
		}
	}
	return rests
}

// Kill kills the process, if it lives, and returns when it is gone.
func (a *Actor) Kill() {
	if a.gone {
		return
	}
	a.cmd.Process.Kill()
	a.wait()
}

// End closes the process's standard input, upon which its role is to end without an error, and returns
// when it is gone.
func (a *Actor) End() {
	a.t.Helper()
	a.in.Close()
	late := time.AfterFunc(patience, func() { a.cmd.Process.Kill() })
	defer late.Stop()
	if err := a.wait(); err != nil {
		a.t.Errorf("the %s: %v; it said %q", a.role, err, a.heard)
	}
}

func (a *Actor) wait() error {
	a.gone = true
	for line := range a.lines {
		a.heard = append(a.heard, line)
	}
	return a.cmd.Wait()
}
