package bench

import (
	"context"
	"crypto/tls"
	"fmt"
)

// blockOf is how many requests one contender gets before it is the next one's turn: enough that what the one before
// left in the caches does not count, few enough that what disturbs the machine disturbs all.
const blockOf = 40

// measureConnect measures one client that makes one connection at a time.
func measureConnect(ctx context.Context, t *trial) error {
	return t.oneByOne(ctx, t.choose(50, 5), func(s *subject) (*client, error) {
		return newClient(s.HTTP, s.requests(), nil)
	})
}

// measureTLS does so with a TLS handshake, always a whole one: without a cache of sessions the client resumes none.
func measureTLS(ctx context.Context, t *trial) error {
	t = t.only(func(s *subject) bool { return s.TLS != "" })
	config := &tls.Config{ServerName: Host, MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} // each has a certificate of its own
	return t.oneByOne(ctx, t.choose(10, 2), func(s *subject) (*client, error) {
		return newClient(s.TLS, [][]byte{get(Host, PathSmall)}, config)
	})
}

// oneByOne measures, for so many blocks of requests, one client for each subject. It records the median and the 99th
// percentile of how long a connection took.
func (t *trial) oneByOne(ctx context.Context, blocks int, newClient func(*subject) (*client, error)) error {
	clients := make(map[*subject]*client)
	samples := make(map[*subject][]float64)
	for _, s := range t.subjects {
		c, err := newClient(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		clients[s] = c
	}
	block := func(s *subject) error {
		for range blockOf {
			took, err := clients[s].request()
			if err != nil {
				return err
			}
			samples[s] = append(samples[s], micros(took))
		}
		return nil
	}
	err := onOneThread(func() error {
		if err := t.inTurn(ctx, (blocks+9)/10, block); err != nil {
			return err
		}
		clear(samples) // those were to warm up
		return t.inTurn(ctx, blocks, block)
	})
	if err != nil {
		return err
	}
	for _, s := range t.subjects {
		s.record("median", "µs", "less", Median(samples[s]))
		s.record("p99", "µs", "less", Percentile(samples[s], 99))
	}
	return nil
}
