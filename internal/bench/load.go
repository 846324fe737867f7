package bench

import (
	"context"
	"fmt"
	"time"
)

const (
	keptConnections = 16
	manyClients     = 64
)

// measureKeepAlive measures clients that make one request after another, each on one connection.
func measureKeepAlive(ctx context.Context, t *trial) error {
	return t.underLoad(ctx, func(s *subject) load {
		return load{requests: [][]byte{get(Host, PathSmall)}, clients: keptConnections, keep: true}
	})
}

// measureSaturation measures many clients that make one connection after another.
func measureSaturation(ctx context.Context, t *trial) error {
	return t.underLoad(ctx, func(s *subject) load {
		return load{requests: s.requests(), clients: manyClients}
	})
}

// underLoad measures each subject under its load, a slice of time after the other. It records how many requests were
// answered in a second and the 99th percentile of how long one took.
func (t *trial) underLoad(ctx context.Context, of func(*subject) load) error {
	slice, slices := 300*time.Millisecond, 2
	if t.short {
		slice, slices = 50*time.Millisecond, 1
	}
	loads := make(map[*subject]load)
	tallies := make(map[*subject]tally)
	for _, s := range t.subjects {
		address, err := parseAddress(s.HTTP)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		l := of(s)
		l.address = address
		loads[s] = l
	}
	run := func(d time.Duration) func(*subject) error {
		return func(s *subject) error {
			l := loads[s]
			got, err := l.run(d)
			sum := tallies[s]
			sum.add(got)
			tallies[s] = sum
			return err
		}
	}
	if err := t.inTurn(ctx, 1, run(slice/5)); err != nil {
		return err
	}
	clear(tallies) // those were to warm up
	if err := t.inTurn(ctx, slices, run(slice)); err != nil {
		return err
	}
	for _, s := range t.subjects {
		sum := tallies[s]
		s.record("rate", "1/s", "more", sum.rate())
		s.record("p99", "µs", "less", Percentile(sum.latencies, 99))
	}
	return nil
}
