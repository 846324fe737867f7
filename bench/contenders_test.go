//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

func testPlace(t *testing.T) *place {
	t.Helper()
	p, err := newPlace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// wantNone waits for a process to be gone, or for all of a group if pid is negative. Whoever collects those whose parent
// is dead may take some time.
func wantNone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("process %d is still there", pid)
			return
		}
	}
}

// wantGone wants processes to be gone, and the contenders' folders.
func wantGone(t *testing.T, p *place, pids []int) {
	t.Helper()
	for _, pid := range pids {
		wantNone(t, pid)
	}
	entries, err := os.ReadDir(p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			t.Errorf("%s is still there", e.Name())
		}
	}
}

// TestContenders starts each contender that is here, and asks it as the workloads do.
func TestContenders(t *testing.T) {
	p := testPlace(t)
	all := slices.Concat(p.contenders(), p.routeDoors()[:2], p.takerDoors()[:4])
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			r, err := c.Start(t.Context())
			if errors.Is(err, bench.ErrAbsent) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			pids := append(slices.Clone(r.Door), r.Backend...)
			defer wantGone(t, p, pids)
			defer r.Stop()

			if len(r.Backend) == 0 {
				t.Error("it says of no process that it is the backend")
			}
			if direct := c.Baseline == ""; direct && len(r.Door) > 0 && !strings.HasPrefix(c.Name, "routes-") {
				t.Errorf("a baseline has a door: %v", r.Door)
			}
			for _, pid := range pids {
				if err := syscall.Kill(pid, 0); err != nil {
					t.Errorf("process %d: %v", pid, err)
				}
			}
			hosts := r.Hosts
			if len(hosts) == 0 {
				hosts = []string{bench.Host}
			}
			for _, host := range hosts[:min(len(hosts), 10)] {
				wantAnswers(t, "http://"+r.HTTP, host)
				if r.TLS != "" {
					wantAnswers(t, "https://"+r.TLS, host)
				}
			}
		})
	}
}

// wantAnswers asks twice on one connection, then for much.
func wantAnswers(t *testing.T, url, host string) {
	t.Helper()
	client := clientFor(host)
	transport := client.Transport.(*http.Transport)
	transport.DisableKeepAlives = false
	dialed := 0
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed++
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	defer client.CloseIdleConnections()
	for range 2 {
		if err := get(t.Context(), client, url+bench.PathSmall, host, bench.SmallBody); err != nil {
			t.Error(err)
		}
	}
	const many = 3_000_001
	req, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprint(url, bench.PathBulk, many), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || n != many || res.ContentLength != many || res.StatusCode != http.StatusOK {
		t.Errorf("%s: %s with %d bytes of %d, %v; want %d", req.URL, res.Status, n, res.ContentLength, err, many)
	}
	if dialed != 1 {
		t.Errorf("%s: %d connections for three requests; want one", url, dialed)
	}
}

// TestHostsThatAreNotTheirs asks for a host that none of those that choose by host has a route for.
func TestHostsThatAreNotTheirs(t *testing.T) {
	p := testPlace(t)
	for _, c := range p.contenders() {
		switch c.Name {
		case "direct", "node", "node-cluster": // they do not choose
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			r, err := c.Start(t.Context())
			if errors.Is(err, bench.ErrAbsent) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer r.Stop()
			urls := map[string]string{"http": "http://" + r.HTTP + bench.PathSmall}
			if c.Name == "nginx-stream" {
				delete(urls, "http") // it cannot see the host of HTTP
			}
			if r.TLS != "" {
				urls["tls"] = "https://" + r.TLS + bench.PathSmall
			}
			for _, url := range urls {
				const other = "other.example.com"
				if err := get(t.Context(), clientFor(other), url, other, bench.SmallBody); err == nil {
					t.Errorf("%s was answered by the backend", url)
				}
			}
		})
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	p := testPlace(t)
	var pids []int
	for name, s := range map[string]start{
		"it says why": func(_ context.Context, c *crew) (*bench.Running, error) {
			backend, _, _, err := c.backend()
			if err != nil {
				return nil, err
			}
			pids = append(pids, backend.Pid)
			return nil, errors.New("not today")
		},
		"it does not serve": func(_ context.Context, c *crew) (*bench.Running, error) {
			backend, _, _, err := c.backend()
			if err != nil {
				return nil, err
			}
			pids = append(pids, backend.Pid)
			address, err := processes.FreeAddress()
			return &bench.Running{HTTP: address, Backend: []int{backend.Pid}}, err
		},
		"a process ends": func(_ context.Context, c *crew) (*bench.Running, error) {
			_, _, err := c.Play("nobody", nil)
			return nil, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := p.run(t.Context(), "wrong", 200*time.Millisecond, s); err == nil {
				t.Error("no error")
			}
			wantGone(t, p, pids)
		})
	}
}

// TestRolesEndWithTheBench takes from a role what it lives by, as the kernel does when the bench is killed.
func TestRolesEndWithTheBench(t *testing.T) {
	p := testPlace(t)
	started, err := p.NewCrew("roles")
	if err != nil {
		t.Fatal(err)
	}
	c := &crew{started, p}
	defer c.Stop()
	backend, _, _, err := c.backend()
	if err != nil {
		t.Fatal(err)
	}
	backend.Stdin.Close()
	select {
	case <-backend.Ended:
	case <-time.After(processes.StartTimeout):
		t.Error("it is still there")
	}
}

func TestMeasurement(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	m := measurement{only: "connect,routes", contenders: "direct,usher", short: true, json: path}
	if err := m.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := read(path)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"connect": {"direct", "usher"}, "routes": {"routes-10", "routes-1000", "routes-100000"}}
	got := make(map[string][]string)
	for _, table := range r.Tables {
		for i := range table.Rows {
			row := &table.Rows[i]
			got[table.Workload] = append(got[table.Workload], row.Contender)
			if f := figureOf(row, "median"); f == nil || f.Value <= 0 || row.Baseline != "" && f.Ratio <= 0 {
				t.Errorf("%s, %s: the median is %+v", table.Workload, row.Contender, f)
			}
		}
	}
	if a, b := fmt.Sprint(got), fmt.Sprint(want); a != b {
		t.Errorf("measured %s; want %s", a, b)
	}
	if r.Command != "go run . -only connect,routes -contenders direct,usher -short" || r.Versions["go"] == "" || r.Versions["usher"] == "" {
		t.Errorf("command %q, versions %v", r.Command, r.Versions)
	}
}
