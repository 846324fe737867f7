package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/bench"
)

// benchCommand is a short usher bench whose processes have all a variable that nobody else has, and a temporary
// folder. By the end of the test nothing of either may be left.
func benchCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	tmp, err := os.MkdirTemp("", "ub") // t.TempDir is too long for a socket on some systems
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("usher", append([]string{"bench", "--short"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "TMP="+tmp, "TEMP="+tmp)
	cmd.WaitDelay = patience
	t.Cleanup(func() {
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("left in the temporary folder: %v, %v", left, err)
		}
		os.RemoveAll(tmp)
		if left := processesWith(t, "TMPDIR="+tmp); len(left) > 0 {
			t.Errorf("processes are left: %v", left)
		}
	})
	return cmd
}

// processesWith returns the processes that have this in their environment, where the system tells.
func processesWith(t *testing.T, variable string) (pids []string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return nil
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		environ, err := os.ReadFile("/proc/" + p.Name() + "/environ")
		if err == nil && slices.Contains(strings.Split(string(environ), "\x00"), variable) {
			pids = append(pids, p.Name())
		}
	}
	return pids
}

func TestBenchMeasuresEachContenderUnderEachWorkload(t *testing.T) {
	cmd := benchCommand(t, "--json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var results bench.Results
	if err := json.Unmarshal(stdout.Bytes(), &results); err != nil {
		t.Fatal(err)
	}
	if len(results.Skipped) > 0 || results.Versions["usher"] != buildVersion() || results.Command != "usher bench --short --json" {
		t.Errorf("skipped %v, versions %v, command %q", results.Skipped, results.Versions, results.Command)
	}
	var tables []string
	for _, table := range results.Tables {
		tables = append(tables, table.Workload)
		var rows []string
		for _, row := range table.Rows {
			rows = append(rows, row.Contender)
			for _, f := range row.Figures {
				if len(f.Rounds) != 1 || table.Workload != "idle" && f.Value <= 0 {
					t.Errorf("%s: %s: %+v", table.Workload, row.Contender, f)
				}
			}
		}
		want := []string{"direct", "usher", "usher-proxy"}
		if table.Workload == "idle" {
			want = want[1:] // there is no process in front
		}
		if !slices.Equal(rows, want) {
			t.Errorf("%s has %v; want %v", table.Workload, rows, want)
		}
	}
	want := workloadNames()
	if runtime.GOOS != "linux" {
		want = slices.DeleteFunc(want, func(name string) bool { return name == "idle" })
	}
	if !slices.Equal(tables, want) {
		t.Errorf("the workloads are %v; want %v", tables, want)
	}
	if !strings.Contains(stderr.String(), "connect: round 1 of 1\n") {
		t.Errorf("it does not say what it does: %q", &stderr)
	}
}

func TestBenchPrintsTables(t *testing.T) {
	out, err := benchCommand(t, "--only", "tls,connect", "--rounds", "2").Output()
	if err != nil {
		t.Fatal(err)
	}
	text := string(out)
	tls, connect := strings.Index(text, "\ntls: "), strings.Index(text, "\nconnect: ")
	if tls < 0 || connect < tls || strings.Contains(text, "\nbulk: ") || strings.Count(text, "\n  handed over  ") != 2 {
		t.Errorf("the tables are not tls and connect:\n%s", text)
	}
	if !strings.HasSuffix(text, whatItMeans) {
		t.Errorf("it does not say what they mean:\n%s", text)
	}
}

func TestBenchLeavesNothingWhenItIsInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be interrupted there")
	}
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		cmd := benchCommand(t, "--rounds", "1000")
		stdout, stderr := new(lockedBuffer), new(lockedBuffer)
		cmd.Stdout, cmd.Stderr = stdout, stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); !strings.Contains(stderr.String(), "round 2 of"); time.Sleep(time.Millisecond) {
			if time.Since(begin) > 6*patience {
				cmd.Process.Kill()
				cmd.Wait()
				t.Fatalf("it does not begin: %s", stderr)
			}
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || stdout.String() != "" {
			t.Errorf("%v: %v, stdout %q; want status 1 and nothing", signal, err, stdout)
		}
		if want := "usher: interrupted before all was measured\n"; !strings.HasSuffix(stderr.String(), want) {
			t.Errorf("%v: stderr is %q", signal, stderr)
		}
	}
}
