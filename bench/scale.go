package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/go-usher/usher/bench/internal/page"
	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

// How usher's cost grows: the workload connect with other contenders, all of them usher.
var (
	routeCounts = []int{10, 1000, 100_000}
	takerCounts = []int{1, 8, 64}
)

// manyRoutesTimeout is for a door that has to read 100,000 routes.
const manyRoutesTimeout = 2 * time.Minute

// askedHosts is how many of a door's hosts clients ask for. More would fill the client's own caches.
const askedHosts = 2000

// manyDoor is what goes into rivals/usher-many.yaml.
type manyDoor struct {
	HTTP   string
	Routes []manyRoute
}

type manyRoute struct{ Host, Endpoint string }

// routeDoors returns doors with more and more routes to one taker.
func (p *place) routeDoors() []bench.Contender {
	var all []bench.Contender
	for _, n := range routeCounts {
		name, baseline := fmt.Sprintf("routes-%d", n), fmt.Sprintf("routes-%d", routeCounts[0])
		if name == baseline {
			baseline = ""
		}
		all = append(all, bench.Contender{Name: name, Title: "usher, " + count(n, "route"), Baseline: baseline,
			Start: func(ctx context.Context) (*bench.Running, error) {
				return p.run(ctx, name, manyRoutesTimeout, func(_ context.Context, c *crew) (*bench.Running, error) {
					return c.startRoutes(n)
				})
			},
		})
	}
	return all
}

func (c *crew) startRoutes(n int) (*bench.Running, error) {
	endpoint := c.endpoint()
	backend, _, _, err := c.backend("-endpoint", endpoint)
	if err != nil {
		return nil, err
	}
	var d manyDoor
	for i := range n {
		d.Routes = append(d.Routes, manyRoute{fmt.Sprintf("h%06d.example.com", i), endpoint + "-http"})
	}
	return c.many(d, []int{backend.Pid})
}

// takerDoors returns doors with more and more takers, each behind the same number of backends that clients connect to
// directly.
func (p *place) takerDoors() []bench.Contender {
	var all []bench.Contender
	for _, n := range takerCounts {
		direct := fmt.Sprintf("direct-%d", n)
		all = append(all,
			p.contender(direct, "direct to "+count(n, "backend"), "",
				func(_ context.Context, c *crew) (*bench.Running, error) { return c.startBackends(n) }),
			p.contender(fmt.Sprintf("takers-%d", n), "usher, "+count(n, "taker"), direct,
				func(_ context.Context, c *crew) (*bench.Running, error) { return c.startTakers(n) }),
		)
	}
	return all
}

// startBackends starts n backends at one address, over which the kernel spreads the connections.
func (c *crew) startBackends(n int) (*bench.Running, error) {
	if n > 1 && runtime.GOOS != "linux" {
		return nil, fmt.Errorf("%w: only Linux spreads connections over all who listen at an address", bench.ErrAbsent)
	}
	address, err := processes.FreeAddress()
	if err != nil {
		return nil, err
	}
	r := &bench.Running{HTTP: address}
	for range n {
		p, _, _, err := c.backend("-http", address)
		if err != nil {
			return nil, err
		}
		r.Backend = append(r.Backend, p.Pid)
	}
	return r, nil
}

func (c *crew) startTakers(n int) (*bench.Running, error) {
	var d manyDoor
	var pids []int
	for i := range n {
		endpoint := c.endpoint()
		p, _, _, err := c.backend("-endpoint", endpoint)
		if err != nil {
			return nil, err
		}
		pids = append(pids, p.Pid)
		d.Routes = append(d.Routes, manyRoute{fmt.Sprintf("t%d.example.com", i), endpoint + "-http"})
	}
	return c.many(d, pids)
}

func (c *crew) many(d manyDoor, backends []int) (*bench.Running, error) {
	var err error
	if d.HTTP, err = processes.FreeAddress(); err != nil {
		return nil, err
	}
	config, err := c.write("usher-many.yaml", d)
	if err != nil {
		return nil, err
	}
	p, err := c.serve(config)
	if err != nil {
		return nil, err
	}
	return &bench.Running{HTTP: d.HTTP, Hosts: spread(d.Routes), Door: []int{p.Pid}, Backend: backends}, nil
}

// spread returns hosts of all parts of routes, in an order of which no cache can make use. It is the same in each run.
func spread(routes []manyRoute) []string {
	n := min(len(routes), askedHosts)
	hosts := make([]string, n)
	for i := range hosts {
		hosts[i] = routes[i*len(routes)/n].Host
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	return hosts
}

func count(n int, what string) string {
	if n > 1 {
		what += "s"
	}
	return page.Thousands(float64(n)) + " " + what
}
