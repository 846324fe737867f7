package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/go-usher/usher/internal/bench"
)

// rivals are the programs and configurations of those that usher is measured beside, each with the reasons for its
// settings.
//
//go:embed rivals
var rivals embed.FS

// place is where a run has its files.
type place struct {
	dir  string
	self string // this program, for its roles

	warden *warden

	compiledUsher, compiledGiver func() (string, error) // each is compiled once, when it is first needed
}

// newPlace makes a place. Whoever called it closes it at the end.
func newPlace() (*place, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "usher-bench-")
	if err != nil {
		return nil, err
	}
	w, err := startWarden(self, dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &place{
		dir: dir, self: self, warden: w,
		compiledUsher: sync.OnceValues(func() (string, error) { return compileUsher(dir) }),
		compiledGiver: sync.OnceValues(func() (string, error) { return compileGiver(dir) }),
	}, nil
}

// close has the warden remove all files, and end the contenders that were not stopped.
func (p *place) close() { p.warden.close() }

// contenders returns all, in the order in which they are shown.
func (p *place) contenders() []bench.Contender {
	return []bench.Contender{
		p.contender("direct", "direct", "", startDirect),
		p.contender("usher", "usher", "direct", startUsher),
		p.contender("usher-proxy", "usher, proxying", "direct", startUsherProxy),
		p.contender("c-giver", "C giver (floor)", "direct", startGiver),
		p.contender("haproxy-tcp", "HAProxy TCP", "direct", startHAProxyTCP),
		p.contender("haproxy-http", "HAProxy HTTP", "direct", startHAProxyHTTP),
		p.contender("nginx-stream", "nginx stream", "direct", startNginxStream),
		p.contender("nginx-http", "nginx HTTP", "direct", startNginxHTTP),
		p.contender("tcpproxy", "tcpproxy (Go)", "direct", startTCPProxy),
		p.contender("node", "Node alone", "", startNode),
		p.contender("node-cluster", "Node cluster", "node", startNodeCluster),
	}
}

// start is what is particular to a contender. It need not wait until the processes serve, sets no Stop, and leaves it
// to the caller to end what it has started.
type start func(context.Context, *crew) (*bench.Running, error)

func (p *place) contender(name, title, baseline string, s start) bench.Contender {
	return bench.Contender{Name: name, Title: title, Baseline: baseline,
		Start: func(ctx context.Context) (*bench.Running, error) { return p.run(ctx, name, startTimeout, s) },
	}
}

// run starts a contender, and returns when it answers.
func (p *place) run(ctx context.Context, name string, patience time.Duration, s start) (*bench.Running, error) {
	dir, err := os.MkdirTemp(p.dir, name+"-")
	if err != nil {
		return nil, err
	}
	c := &crew{place: p, dir: dir}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := s(ctx, c)
	if err == nil {
		err = c.await(ctx, r)
	}
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	r.Stop = c.stop
	return r, nil
}

func startDirect(_ context.Context, c *crew) (*bench.Running, error) {
	backend, http, tls, err := c.backend()
	if err != nil {
		return nil, err
	}
	return &bench.Running{HTTP: http, TLS: tls, Backend: []int{backend.pid()}}, nil
}

// installed returns the path of a program, or why it cannot take part.
func installed(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%w: %w", bench.ErrAbsent, err)
	}
	return path, nil
}

// versions says what is measured, for those contenders that are here.
func versions() map[string]string {
	v := map[string]string{"go": runtime.Version(), "usher": "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/inetaf/tcpproxy" {
				v["tcpproxy"] = m.Version
			}
		}
	}
	if dir, err := usherSource(); err == nil {
		if out, err := exec.Command("git", "-C", dir, "describe", "--tags", "--always", "--dirty").Output(); err == nil {
			v["usher"] = firstLine(out)
		}
	}
	for name, ask := range map[string]struct {
		command []string
		pattern string
	}{
		"cc":      {[]string{"cc", "--version"}, `(\d+(?:\.\d+)+)`},
		"haproxy": {[]string{"haproxy", "-v"}, `version (\S+)`},
		"nginx":   {[]string{"nginx", "-v"}, `nginx/(\S+)`},
		"node":    {[]string{"node", "--version"}, `v(\S+)`},
	} {
		out, _ := exec.Command(ask.command[0], ask.command[1:]...).CombinedOutput()
		if found := regexp.MustCompile(ask.pattern).FindSubmatch(out); found != nil {
			v[name] = string(found[1])
		}
	}
	return v
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}

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
