package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	requestWorkers  = 8 // requests under way at once
	keepAliveConns  = 4 // connections that a keep-alive client has to each backend
	requestTimeout  = 10 * time.Second
	maxReasonsShown = 5
)

// makeRequests makes n requests through the door, half of them over new connections and half over keep-alive ones, and checks each answer.
func (d *demo) makeRequests(ctx context.Context, out io.Writer, n int) error {
	begin := time.Now()
	fresh := d.makeSeries(ctx, d.client(true), n-n/2)
	kept := d.makeSeries(ctx, d.client(false), n/2)
	took := time.Since(begin)
	if ctx.Err() != nil {
		return errors.New("interrupted before all requests were made")
	}

	good := fresh.good + kept.good
	fmt.Fprintf(out, "new connections:  %v\n", fresh)
	fmt.Fprintf(out, "keep-alive:       %v\n", kept)
	fmt.Fprintf(out, "time:             %v\n", took.Round(time.Millisecond))
	fmt.Fprintf(out, "%d requests, %d handed over, 0 proxied, %d lost\n", n, good, n-good)
	if good == n {
		return nil
	}
	for _, reason := range append(fresh.reasons, kept.reasons...) {
		complain(reason)
	}
	return fmt.Errorf("%d of %d requests were lost", n-good, n)
}

// series is what came of a number of requests of one kind.
type series struct {
	requests int
	conns    int     // connections on which they were made
	good     int     // answered as they should be
	reasons  []error // why the first of the others were not
	took     time.Duration
}

func (s series) String() string {
	return fmt.Sprintf("%d requests on %d connections, %d as they should be, in %v", s.requests, s.conns, s.good, s.took.Round(time.Millisecond))
}

// makeSeries makes n requests, red and blue in turn, and closes what client has open.
func (d *demo) makeSeries(ctx context.Context, client *http.Client, n int) series {
	defer client.CloseIdleConnections()
	s := series{requests: n}
	begin := time.Now()
	var next atomic.Int64
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range min(requestWorkers, n) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && ctx.Err() == nil; i = next.Add(1) - 1 {
				b := d.backends[i%int64(len(d.backends))]
				made, err := makeRequest(ctx, client, b)
				mu.Lock()
				s.add(made, err)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	s.took = time.Since(begin)
	return s
}

func (s *series) add(conns int, err error) {
	s.conns += conns
	if err == nil {
		s.good++
		return
	}
	if len(s.reasons) < maxReasonsShown {
		s.reasons = append(s.reasons, err)
	}
}

// client makes a client that takes every host to the door. A host has connections of its own, as in a browser, and must: a connection
// that was handed over stays with its backend.
func (d *demo) client(alwaysNew bool) *http.Client {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, d.addr)
	}
	return &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			DialContext:         dial,
			DisableKeepAlives:   alwaysNew,
			MaxConnsPerHost:     keepAliveConns,
			MaxIdleConnsPerHost: keepAliveConns,
		},
	}
}

// makeRequest makes one request to b and checks the answer. conns is the number of connections that were opened for it.
func makeRequest(ctx context.Context, client *http.Client, b *backend) (conns int, err error) {
	var used []httptrace.GotConnInfo
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			used = append(used, info)
		},
	})
	got, err := fetch(ctx, client, b.name)
	for _, info := range used {
		if !info.Reused {
			conns++
		}
	}
	if err != nil {
		return conns, err
	}
	if len(used) != 1 {
		return conns, fmt.Errorf("%s: %d connections were used up for one request", b.name, len(used)) // net/http tries again in silence
	}
	want := answer{Backend: b.name, PID: b.pid(), DoorPID: os.Getpid(), Client: used[0].Conn.LocalAddr().String()}
	return conns, compare(got, want)
}

// fetch asks the backend with that name, by its host.
func fetch(ctx context.Context, client *http.Client, name string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+demoHost(name)+"/", nil)
	if err != nil {
		return answer{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16)) // to its end, or the connection cannot be kept alive
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", name, err)
	}
	if response.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("%s: status %d: %.200s", name, response.StatusCode, bytes.TrimSpace(body))
	}
	var got answer
	if err := json.Unmarshal(body, &got); err != nil {
		return answer{}, fmt.Errorf("%s: %w", name, err)
	}
	return got, nil
}

// compare says how an answer differs from what a connection that was truly handed over gives.
func compare(got, want answer) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("%s: the answer is %+v; want %+v", want.Backend, got, want)
}
