//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/bench"
	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// kind is one sort of requests.
type kind struct {
	name, title string
	tls         bool
	kept        bool     // connections are kept, and each serves in turn
	hosts       []string // that are asked for in turn, on each connection
}

var (
	fourKinds = []kind{
		{name: "http-new", title: "HTTP, new connections", hosts: hosts[:1]},
		{name: "http-kept", title: "HTTP, kept connections", kept: true, hosts: hosts[:1]},
		{name: "tls-new", title: "TLS, new connections", tls: true, hosts: hosts[:1]},
		{name: "tls-kept", title: "TLS, kept connections", tls: true, kept: true, hosts: hosts[:1]},
	}
	twoHosts = kind{name: "http-two-hosts", title: "HTTP, kept connections, two hosts in turn", kept: true, hosts: hosts}
)

// hosts are what clients ask for. Each has a backend of its own, which answers with its name.
var hosts = []string{"a.example.com", "b.example.com"}

// patience is how long a client waits for an answer.
const patience = 30 * time.Second

// stream is the requests of one kind, one after the other at a fixed rate, whatever becomes of them.
type stream struct {
	kind     kind
	clients  *clients
	attacker *vegeta.Attacker
	ended    chan struct{}
	answers  []answer // to be read after ended
}

// answer is what came of a request.
type answer struct {
	ended   time.Time
	lasted  time.Duration
	failure string
}

func (k kind) start(r *running, rate, kept int) *stream {
	s := &stream{kind: k, clients: k.newClients(r, kept), ended: make(chan struct{})}
	s.attacker = vegeta.NewAttacker(vegeta.Client(&http.Client{Transport: s.clients}))
	var turn atomic.Uint32
	target := func(t *vegeta.Target) error {
		host := k.host(int(turn.Add(1)), len(s.clients.transports))
		// All hosts have one address, so that their requests share connections.
		*t = vegeta.Target{Method: "GET", URL: s.clients.url, Header: http.Header{"Host": {host}}}
		return nil
	}
	results := s.attacker.Attack(target, vegeta.ConstantPacer{Freq: rate, Per: time.Second}, 0, "")
	go func() {
		defer close(s.ended)
		for r := range results {
			s.answers = append(s.answers, answer{r.End(), r.Latency, failure(r.Error)})
		}
	}()
	return s
}

// host returns what the n-th request asks for, on the connection whose turn it is then: on the next one another host, and
// on the same one another host the next time. By n alone, half of an even number of connections would ask for one host
// only, and the other half for the other.
func (k kind) host(n, connections int) string {
	return k.hosts[(n%connections+n/connections)%len(k.hosts)]
}

// stopAll has no stream make any more requests, and waits for the answers to those that are under way: first the one and
// then the other, since an answer may take as long as clients have patience.
func stopAll(streams []*stream) {
	for _, s := range streams {
		s.attacker.Stop()
	}
	for _, s := range streams {
		<-s.ended
		for _, t := range s.clients.transports {
			t.CloseIdleConnections()
		}
	}
}

// failure takes from an error what http.Client has put before it.
func failure(text string) string {
	if rest, ok := strings.CutPrefix(text, "Get "); ok {
		_, text, _ = strings.Cut(rest, `": `)
	}
	return text
}

// figure is of the requests that ended between from and to: what is under way when something is done may fail of it.
func (s *stream) figure(from, to time.Time) Figure {
	f := Figure{Kind: s.kind.name, Title: s.kind.title, Kept: s.kind.kept}
	var times []float64
	for _, a := range s.answers {
		if a.ended.Before(from) || !a.ended.Before(to) {
			continue
		}
		times = append(times, float64(a.lasted.Microseconds())/1000)
		if a.failure == "" {
			continue
		}
		f.Failed++
		if f.Failures == nil {
			f.Failures = make(map[string]int)
		}
		f.Failures[a.failure]++
	}
	f.Requests = len(times)
	f.Connected = s.clients.connected(from, to)
	if len(times) > 0 {
		f.Median, f.P99, f.Longest = bench.Percentile(times, 50), bench.Percentile(times, 99), slices.Max(times)
	}
	return f
}

// clients make requests, and want the right answer to each, at the first try.
type clients struct {
	url        string
	transports []*http.Transport // each has one connection, if connections are kept
	turn       atomic.Uint32

	mu    sync.Mutex
	dials []time.Time
}

func (k kind) newClients(r *running, kept int) *clients {
	c := &clients{url: "http://" + r.http + "/"}
	if k.tls {
		c.url = "https://" + r.tls + "/"
	}
	n := 1
	if k.kept {
		n = kept
	}
	for range n {
		t := &http.Transport{
			DialContext:       c.dial,
			DisableKeepAlives: !k.kept,
			TLSClientConfig:   &tls.Config{ServerName: k.hosts[0], InsecureSkipVerify: true},
		}
		if k.kept {
			t.MaxConnsPerHost = 1
		}
		c.transports = append(c.transports, t)
	}
	return c
}

func (c *clients) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.mu.Lock()
	c.dials = append(c.dials, time.Now())
	c.mu.Unlock()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &countedConn{Conn: conn}, nil
}

func (c *clients) connected(from, to time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, at := range c.dials {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// countedConn counts what its client has sent.
type countedConn struct {
	net.Conn
	sent atomic.Int64
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

// ask makes one request.
func (c *clients) ask(ctx context.Context, host string) error {
	req, err := http.NewRequestWithContext(ctx, "GET", c.url, nil)
	if err != nil {
		return err
	}
	req.Host = host
	_, err = c.RoundTrip(req)
	return err
}

var errTwice = errors.New("the connection was closed on a request that had been sent")

// RoundTrip makes a request and reads all of the answer. http.Transport makes a GET again, on another connection, if a
// kept one is closed before an answer has come. A program that cannot do so (with a POST it may not) has failed then, so
// here that is a failure. It is none if not a byte of the request had been sent.
func (c *clients) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), patience)
	defer cancel()
	var tries []try
	trace := httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { tries = append(tries, newTry(got.Conn)) }}
	req = req.WithContext(httptrace.WithClientTrace(ctx, &trace))
	t := c.transports[int(c.turn.Add(1))%len(c.transports)]
	res, err := t.RoundTrip(req)
	if err != nil {
		return nil, plain(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		return nil, plain(err)
	}
	for _, t := range tries[:len(tries)-1] {
		if t.sent() {
			return nil, errTwice
		}
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer was %s", res.Status)
	}
	if string(body) != req.Host+"\n" {
		return nil, fmt.Errorf("the answer was not that of %s: %.40q", req.Host, body)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

// try is a connection that a request was to be made on, and how much had been sent on it before.
type try struct {
	conn   *countedConn
	before int64
}

func newTry(c net.Conn) try {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	counted := c.(*countedConn)
	return try{counted, counted.sent.Load()}
}

// sent says whether anything of the request was. The alert with which TLS closes a connection is no request: it has
// 24 bytes (RFC 8446, section 5.2), and a request here more than twice as many.
func (t try) sent() bool { return t.conn.sent.Load()-t.before > 48 }

// plain says what happened in the same words each time: errors of connections have addresses in them.
func plain(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v", patience)
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errors.New("connection reset")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("connection closed without an answer")
	}
	return err
}
