package main

import (
	"context"
	"embed"
	"fmt"
	"sync"
	"time"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

// rivals are the programs and configurations of those that usher is measured beside, each with the reasons for its
// settings.
//
//go:embed rivals
var rivals embed.FS

// place is where a run has its files.
type place struct {
	*processes.Place
	compiledGiver func() (string, error) // it is compiled once, when it is first needed
}

// newPlace makes a place. Whoever called it closes it at the end.
func newPlace() (*place, error) {
	p, err := processes.NewPlace()
	if err != nil {
		return nil, err
	}
	return &place{p, sync.OnceValues(func() (string, error) { return compileGiver(p.Dir) })}, nil
}

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
		Start: func(ctx context.Context) (*bench.Running, error) { return p.run(ctx, name, processes.StartTimeout, s) },
	}
}

// run starts a contender, and returns when it answers.
func (p *place) run(ctx context.Context, name string, patience time.Duration, s start) (*bench.Running, error) {
	started, err := p.NewCrew(name)
	if err != nil {
		return nil, err
	}
	c := &crew{started, p}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := s(ctx, c)
	if err == nil {
		err = c.await(ctx, r)
	}
	if err != nil {
		c.Stop()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	r.Stop = c.Stop
	return r, nil
}

func startDirect(_ context.Context, c *crew) (*bench.Running, error) {
	backend, http, tls, err := c.backend()
	if err != nil {
		return nil, err
	}
	return &bench.Running{HTTP: http, TLS: tls, Backend: []int{backend.Pid}}, nil
}
