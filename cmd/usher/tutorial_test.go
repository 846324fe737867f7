//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
)

const (
	tutorial       = repository + "/doc/tutorial.md"
	tutorialFolder = "/tmp/usher-tutorial" // that the tutorial makes

	// tutorialTimeout ends a tutorial that hangs.
	tutorialTimeout = time.Minute
)

// tutorialPorts are those that the tutorial uses.
var tutorialPorts = []string{"8080", "8443", "9901"}

// TestTutorial runs the tutorial as a reader would: all its sh blocks, one after the other, in one bash that is
// started in the repository. What a block prints must be what the text block behind it shows, or nothing where
// there is none. Folder and ports are other ones, since those of the tutorial may be in use. At the end nothing
// that the tutorial has started may run.
func TestTutorial(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl", "openssl", "go"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("skipped: %s is not here, and the tutorial needs it", program)
		}
	}
	folder := shortTempDir(t) + "/tutorial"
	replace := strings.NewReplacer(append(freePorts(t), tutorialFolder, folder)...)
	steps := readSteps(t)
	defer func() {
		if log, err := os.ReadFile(folder + "/door.log"); err == nil && t.Failed() {
			t.Logf("the door's log:\n%s", log)
		}
	}()
	sh := startShell(t)
	for _, s := range steps {
		got := sh.run(t, s.line, replace.Replace(s.commands))
		if err := compareShown(replace.Replace(s.shown), got); err != nil {
			t.Fatalf("doc/tutorial.md:%d: %v\n--- it printed\n%s--- the tutorial shows\n%s", s.line, err, got, s.shown)
		}
	}
	sh.end(t)
}

// step is some commands and what they print.
type step struct {
	line            int
	commands, shown string
}

func readSteps(t *testing.T) []step {
	t.Helper()
	d := readDocument(t, tutorial)
	blocks, _ := d.split()
	var steps []step
	for i, b := range blocks {
		switch b.language {
		case "sh":
			steps = append(steps, step{line: b.line, commands: b.text})
		case "text":
			if i == 0 || blocks[i-1].language != "sh" {
				t.Fatalf("doc/tutorial.md:%d: a text block shows what the sh block before it prints, and there is none", b.line)
			}
			steps[len(steps)-1].shown = b.text
		}
	}
	if len(steps) < 5 {
		t.Fatalf("the tutorial has only %d steps", len(steps))
	}
	return steps
}

// shortTempDir is t.TempDir with a path that leaves room for the name of a socket, which macOS wants to be below
// 104 bytes with its folder.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ut")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// freePorts returns for each port of the tutorial that port and a free one, which no client gets before the door does, or while
// it restarts.
func freePorts(t *testing.T) (pairs []string) {
	t.Helper()
	for _, port := range tutorialPorts {
		l := faults.Listen(t)
		defer l.Close() // when all are chosen, for they must differ
		_, free, _ := net.SplitHostPort(l.Addr().String())
		pairs = append(pairs, port, free)
	}
	return pairs
}

// shell is a bash that is told what to do on its standard input.
type shell struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader // of it and of all that it starts
}

func startShell(t *testing.T) *shell {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), tutorialTimeout)
	cmd := exec.CommandContext(ctx, "bash", "--noprofile", "--norc")
	cmd.Dir = repository
	// Neither the settings of who runs the test nor a proxy of the environment may come between.
	cmd.Env = append(os.Environ(), "CURL_HOME="+t.TempDir(), "no_proxy=*", "NO_PROXY=*", "LC_ALL=C", "BASH_ENV=", "ENV=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // all that it starts is in its group
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // also what has outlived the shell
		_ = cmd.Wait()
		r.Close()
	})
	return &shell{cmd, in, bufio.NewReader(r)}
}

// run returns what the commands print.
func (s *shell) run(t *testing.T, line int, commands string) string {
	t.Helper()
	end := fmt.Sprintf("--- end of the block at line %d ---", line)
	fmt.Fprintf(s.in, "%s\nprintf '\\n%%s\\n' '%s'\n", commands, end)
	var printed strings.Builder
	for {
		text, err := s.out.ReadString('\n')
		if text == end+"\n" {
			return strings.TrimSuffix(printed.String(), "\n")
		}
		printed.WriteString(text)
		if err != nil {
			t.Fatalf("doc/tutorial.md:%d: the shell has ended (%v) after it printed\n%s", line, err, printed.String())
		}
	}
}

// end ends the shell, and fails if something that it has started runs on: that would hold the pipe open.
func (s *shell) end(t *testing.T) {
	t.Helper()
	s.in.Close()
	rest, err := io.ReadAll(s.out)
	if err != nil || len(rest) > 0 {
		t.Errorf("after the end of the tutorial: %q, %v", rest, err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("something of the tutorial still ran, or its last command failed: %v", err)
	}
}

// compareShown compares what commands printed with what a document shows, line by line. In a line that is shown, …
// stands for anything, and one that is nothing but … for any number of lines. Runs of spaces count as one, since
// the columns of a table are as wide as their content, and spaces at the ends of lines and empty lines at the
// end do not count.
func compareShown(shown, got string) error {
	want, have := tidy(shown), tidy(got)
	w, h := 0, 0
	skipping := -1 // the line from which a lone … has last gone on
	lone := 0
	for h < len(have) || w < len(want) {
		switch {
		case w < len(want) && want[w] == ellipsis:
			w++
			lone, skipping = w, h
		case w < len(want) && h < len(have) && lineMatches(want[w], have[h]):
			w++
			h++
		case skipping >= 0 && skipping < len(have):
			skipping++
			w, h = lone, skipping
		case w == len(want):
			return fmt.Errorf("it printed more than is shown: %q", have[h])
		case h == len(have):
			return fmt.Errorf("it printed less than is shown: %q is missing", want[w])
		default:
			return fmt.Errorf("it printed %q where %q is shown", have[h], want[w])
		}
	}
	return nil
}

const ellipsis = "…"

var spaces = regexp.MustCompile(`[ \t]+`)

func tidy(text string) []string {
	lines := strings.Split(spaces.ReplaceAllString(text, " "), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \r")
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func lineMatches(shown, got string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(shown), ellipsis, ".*")
	return regexp.MustCompile("^" + pattern + "$").MatchString(got)
}

func TestCompareShown(t *testing.T) {
	tests := []struct {
		name, shown, got string
		ok               bool
	}{
		{"the same text", "a\nb\n", "a\nb\n", true},
		{"nothing, and nothing is shown", "", "", true},
		{"something, and nothing is shown", "", "a\n", false},
		{"nothing, and something is shown", "a\n", "", false},
		{"another line", "a\n", "b\n", false},
		{"a line too many", "a\n", "a\nb\n", false},
		{"a line too few", "a\nb\n", "a\n", false},
		{"wider columns", "a  b\n", "a      b\n", true},
		{"spaces at the end", "a \n\n", "a\n", true},
		{"a space where there is none", "ab\n", "a b\n", false},
		{"an ellipsis in a line", "pid=… up\n", "pid=17 up\n", true},
		{"an ellipsis for nothing", "pid=…\n", "pid=\n", true},
		{"an ellipsis does not cross lines", "a … b\n", "a\nb\n", false},
		{"what is special in a pattern", "a.b (c)\n", "axb (c)\n", false},
		{"some lines for a lone ellipsis", "a\n…\nd\n", "a\nb\nc\nd\n", true},
		{"no lines for a lone ellipsis", "a\n…\nd\n", "a\nd\n", true},
		{"a lone ellipsis at the end", "a\n…\n", "a\nb\nc\n", true},
		{"nothing for a lone ellipsis alone", "…\n", "", true},
		{"a line that must follow a lone ellipsis is missing", "…\nd\n", "a\nb\n", false},
		{"the line that must follow comes twice", "…\nd\ne\n", "d\nx\nd\ne\n", true},
		{"two lone ellipses", "…\nb\n…\nd\n", "a\nb\nc\nd\n", true},
		{"two lone ellipses in another order", "…\nd\n…\nb\n", "a\nb\nc\nd\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := compareShown(tt.shown, tt.got); (err == nil) != tt.ok {
				t.Errorf("compareShown(%q, %q) = %v; want ok: %v", tt.shown, tt.got, err, tt.ok)
			}
		})
	}
}

// The tutorial's ports and folder must be in it, or they would not be replaced.
func TestTutorialNamesItsPortsAndFolder(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash(tutorial))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range append([]string{tutorialFolder}, tutorialPorts...) {
		if !strings.Contains(string(text), word) {
			t.Errorf("%s is not in the tutorial", word)
		}
	}
}
