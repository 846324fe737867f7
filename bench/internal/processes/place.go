// Package processes starts the processes of those that are measured, and sees to it that none of them outlives the
// program that measures: not when it fails, and not when it is killed.
package processes

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// Place is where a run has its files.
type Place struct {
	Dir  string
	Self string // this program, for its roles

	// CompiledUsher returns the path of usher's command, which it compiles once, when it is first needed.
	CompiledUsher func() (string, error)

	warden *warden
}

// NewPlace makes a place. Whoever called it closes it at the end.
func NewPlace() (*Place, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := tempDir()
	if err != nil {
		return nil, err
	}
	w, err := startWarden(self, dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Place{
		Dir: dir, Self: self, warden: w,
		CompiledUsher: sync.OnceValues(func() (string, error) { return compileUsher(dir) }),
	}, nil
}

// maxDir leaves room for the longest name of a socket, in the folder of a crew, in a socket's address, which has 104 bytes
// on macOS and the BSDs.
const maxDir = 104 - 1 - len("/routes-100000-4294967295/bench-4194304-999-http.sock")

// tempDir makes a private folder for a run.
func tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "usher-bench-")
	if err != nil || runtime.GOOS == "windows" || len(dir) <= maxDir {
		return dir, err
	}
	if err := os.Remove(dir); err != nil {
		return "", err
	}
	return os.MkdirTemp("/tmp", "usher-bench-") // $TMPDIR is too long for a socket, as macOS's own is
}

// Close has the warden remove all files, and end the processes that were not stopped.
func (p *Place) Close() { p.warden.close() }

// usherSource returns the folder of the module that is measured.
func usherSource() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/go-usher/usher").Output()
	if err != nil {
		return "", fmt.Errorf("where is the module of usher? Run this in its folder bench: go list: %w", err)
	}
	return firstLine(out), nil
}

// compileUsher compiles usher's command into dir, from the module beside this one, as `go build` does.
func compileUsher(dir string) (string, error) {
	source, err := usherSource()
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "usher")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	cmd := exec.Command("go", "build", "-o", program, "./cmd/usher")
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile usher: %w: %s", err, out)
	}
	return program, nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}
