//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-usher/usher/bench/internal/processes"
)

// contender is what is measured.
type contender struct {
	name, title  string
	start        func(context.Context, *running) error // what is particular to it; the caller stops the crew
	disturbances []disturbance
}

// disturbance is what is done to a contender under load.
type disturbance struct {
	name, title string
	times       int // in a whole run
	few         int // in a short one
	pause       time.Duration
	twoHosts    bool // a fifth kind of requests goes to two hosts in turn

	// start is in place of the contender's own, if there is one.
	start func(context.Context, *running) error
	// do does it once, the i-th time, and returns when it is done. An error says that it was not what it should be.
	do func(ctx context.Context, r *running, i int) error
}

// running is a contender whose processes run.
type running struct {
	*processes.Crew
	http, tls string // addresses

	front   *processes.Process // in front; not of nginx, which is nobody's child
	restart func() error       // starts it anew
	master  int                // the ID of the process that has workers, if one does
	program string             // the path of usher's, which may be replaced
	config  string             // the path of its configuration

	sockets []*os.File // its listening sockets, if it is passed them
	open    []*os.File // those and the backends'

	backends []*processes.Process          // all that ever were
	serving  map[string]*processes.Process // those of them that take new connections, by host
	replace  func(host string) error       // starts another, in place of the one that serves
}

// scale is how much is done.
type scale struct {
	rate      int           // requests a second of each kind
	kept      int           // connections of each kind that keeps them
	downloads int           // at once
	calm      time.Duration // before anything is done
	settling  time.Duration // before that, until there is all that is kept, and after the last time
	times     func(disturbance) int
}

var (
	whole = scale{rate: 400, kept: 50, downloads: 500, calm: 10 * time.Second, settling: time.Second,
		times: func(d disturbance) int { return d.times }}
	brief = scale{rate: 40, kept: 10, downloads: 50, calm: time.Second, settling: time.Second,
		times: func(d disturbance) int { return d.few }}
)

// tooBusy is the share of processor time above which what is measured waits for what measures.
const tooBusy = 0.6

// measure starts a contender, and returns what clients notice of a disturbance.
func (s scale) measure(ctx context.Context, p *processes.Place, c contender, d disturbance) (*Row, error) {
	crew, err := p.NewCrew(c.name)
	if err != nil {
		return nil, err
	}
	defer crew.Stop()
	r := &running{Crew: crew, serving: make(map[string]*processes.Process)}
	defer r.close()
	start := c.start
	if d.start != nil {
		start = d.start
	}
	if err := start(ctx, r); err != nil {
		return nil, err
	}
	if err := r.await(ctx); err != nil {
		return nil, err
	}
	downloads, err := startDownloads(ctx, r, s.downloads)
	if err != nil {
		return nil, err
	}
	row, err := s.underLoad(ctx, r, d)
	breakages := downloads.finish(r.backends)
	if err != nil {
		return nil, err
	}
	row.Contender, row.Title = c.name, c.title+": "+d.title
	row.Breakages = breakages
	for _, n := range breakages {
		row.Broken += n
	}
	return row, nil
}

// underLoad does it all while clients make requests.
func (s scale) underLoad(ctx context.Context, r *running, d disturbance) (*Row, error) {
	kinds := fourKinds
	if d.twoHosts {
		kinds = append(kinds[:len(kinds):len(kinds)], twoHosts)
	}
	start := startPhase()
	var streams []*stream
	for _, k := range kinds {
		streams = append(streams, k.start(r, s.rate, s.kept))
	}
	row := &Row{Disturbance: d.name, Times: s.times(d)}
	err := sleep(ctx, s.settling)
	calm := start.next()
	if err == nil {
		err = sleep(ctx, s.calm)
	}
	disturbed := calm.next()
	for i := 0; i < row.Times && err == nil; i++ {
		if err = d.do(ctx, r, i); err == nil {
			err = sleep(ctx, d.pause)
		}
	}
	if err == nil {
		err = sleep(ctx, s.settling)
	}
	stopAll(streams)
	disturbed.end()
	if err != nil {
		return nil, err
	}
	first := start.of(streams)
	if _, failed := first.requests(); failed > 0 {
		return nil, fmt.Errorf("the first requests failed: %s", counted(first.failures()))
	}
	row.Before, row.During = calm.of(streams), disturbed.of(streams)
	if row.Before.Busy > tooBusy {
		fmt.Fprintf(os.Stderr, "  the processors were busy for %.0f %% of the time before anything was done: the times say little\n", 100*row.Before.Busy)
	}
	return row, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// phase is when one begins and ends, and how much the processors of the machine had done until then.
type phase struct {
	from, to         time.Time
	busy, processors [2]float64
}

func startPhase() *phase {
	p := &phase{from: time.Now()}
	p.busy[0], p.processors[0] = processorTime()
	return p
}

func (p *phase) end() {
	p.to = time.Now()
	p.busy[1], p.processors[1] = processorTime()
}

// next ends the phase, and returns the one that begins at that instant: no request ends between the two.
func (p *phase) next() *phase {
	p.end()
	n := &phase{from: p.to}
	n.busy[0], n.processors[0] = p.busy[1], p.processors[1]
	return n
}

func (p *phase) of(streams []*stream) Phase {
	result := Phase{Seconds: p.to.Sub(p.from).Seconds()}
	if all := p.processors[1] - p.processors[0]; all > 0 {
		result.Busy = (p.busy[1] - p.busy[0]) / all
	}
	for _, s := range streams {
		result.Kinds = append(result.Kinds, s.figure(p.from, p.to))
	}
	return result
}

// processorTime returns how long the machine's processors have worked, and how long they have existed: proc_stat(5).
func processorTime() (busy, all float64) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	for i, field := range strings.Fields(line) {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil || i > 8 {
			continue // "cpu" itself, and what guests have used, which is in the others already
		}
		all += n
		if i != 4 && i != 5 { // idle, iowait
			busy += n
		}
	}
	return busy, all
}

// await returns when each backend answers as clients will ask it.
func (r *running) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, processes.StartTimeout)
	defer cancel()
	for host := range r.serving {
		for _, tls := range []bool{false, true} {
			c := kind{tls: tls, hosts: []string{host}}.newClients(r, 0)
			err := r.Await(ctx, func() error { return c.ask(ctx, host) })
			if err != nil {
				return fmt.Errorf("%s at %s: %w", host, c.url, err)
			}
		}
	}
	return nil
}

// replaceBackend is the disturbance that all contenders have.
func replaceBackend(_ context.Context, r *running, _ int) error { return r.replace(hosts[0]) }

func (r *running) close() {
	for _, f := range r.open {
		f.Close()
	}
}
