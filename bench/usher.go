package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

// doors counts the endpoints, whose names are the whole system's on Windows.
var doors atomic.Uint32

func (c *crew) endpoint() string { return fmt.Sprintf("bench-%d-%d", os.Getpid(), doors.Add(1)) }

// startUsher has `usher serve` hand connections over.
func startUsher(_ context.Context, c *crew) (*bench.Running, error) {
	endpoint := c.endpoint()
	backend, _, _, err := c.backend("-endpoint", endpoint)
	if err != nil {
		return nil, err
	}
	door := door{HTTPTarget: "handoff: " + endpoint + "-http", TLSTarget: "handoff: " + endpoint + "-tls"}
	return c.usher(door, backend)
}

// startUsherProxy has `usher serve` connect to the backend and copy.
func startUsherProxy(_ context.Context, c *crew) (*bench.Running, error) {
	backend, http, tls, err := c.backend()
	if err != nil {
		return nil, err
	}
	return c.usher(door{HTTPTarget: `proxy: "` + http + `"`, TLSTarget: `proxy: "` + tls + `"`}, backend)
}

// door is what goes into rivals/usher.yaml.
type door struct {
	HTTP, TLS             string // addresses
	Host                  string
	HTTPTarget, TLSTarget string
}

func (c *crew) usher(d door, backend *processes.Process) (*bench.Running, error) {
	var err error
	if d.HTTP, d.TLS, err = processes.FreeAddresses(); err != nil {
		return nil, err
	}
	d.Host = bench.Host
	config, err := c.write("usher.yaml", d)
	if err != nil {
		return nil, err
	}
	p, err := c.serve(config)
	if err != nil {
		return nil, err
	}
	return &bench.Running{HTTP: d.HTTP, TLS: d.TLS, Door: []int{p.Pid}, Backend: []int{backend.Pid}}, nil
}

func (c *crew) serve(config string) (*processes.Process, error) {
	program, err := c.CompiledUsher()
	if err != nil {
		return nil, err
	}
	return c.Start(program, "serve", "--config", filepath.Base(config))
}
