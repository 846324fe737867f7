package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"
)

// patience is how long a client waits for an answer. Whoever does not give it by then will not.
const patience = 10 * time.Second

// portPatience is how long a client waits for a free port. Those of closed connections come back after a second on
// Linux (tcp_tw_reuse), elsewhere after TIME_WAIT: up to four minutes (RFC 9293, section 3.4.1), often one.
const portPatience = 2 * time.Minute

var errLate = fmt.Errorf("no answer within %v", patience)

// client is one that makes a request after the other, each on a connection of its own.
type client struct {
	address  netip.AddrPort
	requests [][]byte    // what it sends, in turn
	tls      *tls.Config // nil: it does not speak TLS
	next     int
	buf      []byte
}

func newClient(address string, requests [][]byte, tls *tls.Config) (*client, error) {
	a, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	return &client{address: a, requests: requests, tls: tls, buf: make([]byte, maxHeader)}, nil
}

// parseAddress takes what is IPv4, as all is here: IPv6 may be switched off.
func parseAddress(address string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(address)
	if err == nil && !a.Addr().Is4() {
		err = fmt.Errorf("not an IPv4 address: %s", address)
	}
	return a, err
}

// request is one connection's life: connect, request, read the answer, close. It returns how long that took.
func (c *client) request() (time.Duration, error) {
	conn, begin, err := dial(c.address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if c.tls != nil {
		if err := noDelay(conn); err != nil { // a handshake ends with a write, and the request is another one
			return 0, err
		}
		conn = tls.Client(conn, c.tls)
	}
	if err := c.requestOn(conn); err != nil {
		return 0, err
	}
	if err := conn.Close(); err != nil {
		return 0, err
	}
	return time.Since(begin), nil
}

// requestOn makes a request on a connection, and leaves it open.
func (c *client) requestOn(conn net.Conn) error {
	request := c.requests[c.next%len(c.requests)]
	c.next++
	if _, err := conn.Write(request); err != nil {
		return err
	}
	return readAnswer(conn, c.buf)
}

// whilePortsRunShort tries again for as long as all ports to a destination are used by connections that have
// ended. begin is when the last try began.
func whilePortsRunShort(try func() error) (begin time.Time, err error) {
	for first := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		begin = time.Now()
		err := try()
		if err == nil || !errors.Is(err, errNoPort) || begin.Sub(first) > portPatience {
			return begin, err
		}
	}
}

// onOneThread runs f on a thread of its own, so that what a client pays for waiting is the kernel's switch alone.
func onOneThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f()
}

// load is clients that make requests at once, each the next when it has the answer to the last.
type load struct {
	address  netip.AddrPort
	requests [][]byte // what they send, in turn
	clients  int
	keep     bool // each has one connection for all its requests, not one for each
}

// tally is what came of a load: how long each request took, in µs, and how long all did.
type tally struct {
	latencies []float64
	took      time.Duration
}

func (t *tally) add(other tally) {
	t.latencies = append(t.latencies, other.latencies...)
	t.took += other.took
}

// rate is in requests per second.
func (t *tally) rate() float64 { return float64(len(t.latencies)) / t.took.Seconds() }

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
