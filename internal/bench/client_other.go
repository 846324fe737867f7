//go:build !linux

package bench

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

var errNoPort = errors.New("all ports to the destination are used")

// conn waits for patience, not longer.
type conn struct{ *net.TCPConn }

// dial connects to address. The caller owns the connection.
func dial(address netip.AddrPort) (net.Conn, time.Time, error) {
	var c *net.TCPConn
	begin, err := whilePortsRunShort(func() (err error) {
		c, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(address))
		if isNoPort(err) {
			err = errors.Join(errNoPort, err)
		}
		return err
	})
	if err != nil {
		return nil, begin, err
	}
	c.SetReadDeadline(begin.Add(patience))
	// Close resets the connection. Otherwise its port would rest in TIME_WAIT, and ports would run short.
	c.SetLinger(0)
	return conn{c}, begin, nil
}

func isNoPort(err error) bool {
	for _, errno := range noPort {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (c conn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errLate
	}
	return n, err
}

// Close may be called again and then does nothing.
func (c conn) Close() error {
	err := c.TCPConn.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func noDelay(net.Conn) error { return nil } // package net has done so

// discard reads and forgets n bytes.
func discard(conn net.Conn, n int64, buf []byte) error {
	for n > 0 {
		got, err := conn.Read(buf[:min(n, int64(len(buf)))])
		n -= int64(got)
		if err != nil && n > 0 {
			return err
		}
	}
	return nil
}

// run lets the clients go on for so long.
func (l *load) run(d time.Duration) (tally, error) {
	conns := make([]net.Conn, l.clients)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	if l.keep { // the connections come before the clock starts
		for i := range conns {
			c, _, err := dial(l.address)
			if err != nil {
				return tally{}, err
			}
			conns[i] = c
		}
	}
	var (
		next    atomic.Int64 // request
		workers sync.WaitGroup
		all     = make([]tally, l.clients)
		errs    = make([]error, l.clients)
	)
	begin := time.Now()
	for i := range l.clients {
		workers.Go(func() { all[i], errs[i] = l.work(conns[i], &next, begin.Add(d)) })
	}
	workers.Wait()
	var sum tally
	for _, t := range all {
		sum.add(t)
	}
	sum.took = time.Since(begin)
	return sum, firstError(errs)
}

// work is what one client does: on c, or on a connection for each request if c is nil.
func (l *load) work(c net.Conn, next *atomic.Int64, deadline time.Time) (t tally, err error) {
	one := client{address: l.address, requests: l.requests, buf: make([]byte, maxHeader)}
	for begin := time.Now(); begin.Before(deadline); begin = time.Now() {
		one.next = int(next.Add(1) - 1)
		var took time.Duration
		if c == nil {
			took, err = one.request()
		} else {
			c.SetReadDeadline(begin.Add(patience))
			err = one.requestOn(c)
			took = time.Since(begin)
		}
		if err != nil {
			return t, err
		}
		t.latencies = append(t.latencies, micros(took))
	}
	return t, nil
}

// firstError is all that is said: others are most often the same.
func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
