package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	idleConnections = 10_000
	openers         = 64 // at once

	// spareDescriptors are for all that a process has open beside connections.
	spareDescriptors = 1000
	// manyDescriptors is more than any process here needs: a proxy that splices has six for a connection.
	manyDescriptors = 8*idleConnections + spareDescriptors

	// settle is for processes to close what clients have closed, and to do what they have put off.
	settle = 500 * time.Millisecond
)

// measureIdle measures what a connection without requests costs the process in front.
func measureIdle(ctx context.Context, t *trial) error {
	t = t.only(func(s *subject) bool {
		_, ok := s.memory()
		return ok
	})
	return t.inTurn(ctx, 1, func(s *subject) error { return s.idle(t.choose(idleConnections, 500), t.descriptors) })
}

// memory returns the door's resident bytes. ok is false if there is no door, or the system does not tell.
func (s *subject) memory() (sum int64, ok bool) {
	for _, pid := range s.Door {
		n, ok := residentMemory(pid)
		if !ok {
			return 0, false
		}
		sum += n
	}
	return sum, len(s.Door) > 0
}

// idle measures the growth of the door's memory by n connections that are kept, or as many as the limit of
// descriptors allows. It has passed on as many before, and has the memory that it needs for that.
func (s *subject) idle(n, descriptors int) error {
	address, err := parseAddress(s.HTTP)
	if err != nil {
		return err
	}
	each, err := s.descriptorsForEach(address)
	if err != nil {
		return err
	}
	n = min(n, (descriptors-spareDescriptors)/max(each, 1)) // the client has one
	if n <= 0 {
		return fmt.Errorf("a process may have %d descriptors here, which is too few", descriptors)
	}
	if _, err := open(address, n, false); err != nil {
		return err
	}
	time.Sleep(settle)
	before, _ := s.memory()

	conns, err := open(address, n, true)
	defer closeAll(conns)
	if err != nil {
		return err
	}
	time.Sleep(settle)
	after, ok := s.memory()
	if !ok {
		return errors.New("its memory cannot be read any more")
	}
	growth := float64(after - before)
	s.record("memory", "B", "less", growth/float64(n))
	s.record("total", "MB", "less", growth/1e6)
	s.record("connections", "", "more", float64(n))
	return nil
}

// descriptorsForEach finds out how many descriptors the door has for a connection, rounded up.
func (s *subject) descriptorsForEach(address netip.AddrPort) (int, error) {
	const some = 100
	count := func() (n int) {
		for _, pid := range s.Door {
			n += descriptorsOf(pid)
		}
		return n
	}
	before := count()
	conns, err := open(address, some, true)
	defer closeAll(conns)
	if err != nil {
		return 0, err
	}
	time.Sleep(settle)
	return (count() - before + some - 1) / some, nil
}

// open opens n connections, many at once, each of which makes a request, and closes each after that unless they are
// to be kept. The caller closes what it returns, also when there is an error.
func open(address netip.AddrPort, n int, keep bool) ([]net.Conn, error) {
	var (
		conns   = make([]net.Conn, n)
		next    atomic.Int64
		once    sync.Once
		failure error
		workers sync.WaitGroup
	)
	for range openers {
		workers.Go(func() {
			c := &client{address: address, requests: [][]byte{get(Host, PathSmall)}, buf: make([]byte, maxHeader)}
			for i := int(next.Add(1) - 1); i < n; i = int(next.Add(1) - 1) {
				conn, _, err := dial(address)
				if err == nil {
					conns[i] = conn
					err = c.requestOn(conn)
				}
				if err != nil {
					once.Do(func() { failure = err })
					next.Store(int64(n)) // enough for all
					return
				}
				if !keep {
					conn.Close()
				}
			}
		})
	}
	workers.Wait()
	return conns, failure
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}
