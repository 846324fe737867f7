//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// TestAnswers asks servers that answer in several ways, on connections that are kept.
func TestAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\na.example.com\n"
	for _, test := range []struct {
		name    string
		answers []string // to one request after the other, in the order of the connections; "" closes
		asked   int
		want    string // what the last error says; none if empty
	}{
		{name: "the right one", answers: []string{ok}, asked: 1},
		{name: "two on one connection", answers: []string{ok + "|" + ok}, asked: 2},
		{name: "no answer at all", answers: []string{""}, asked: 1, want: "closed without an answer"},
		{name: "half an answer", answers: []string{ok[:len(ok)-3]}, asked: 1, want: "closed without an answer"},
		{name: "a kept connection is closed on a request, and the next try succeeds", answers: []string{ok + "|", ok}, asked: 2, want: errTwice.Error()},
		{name: "another status", answers: []string{"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"}, asked: 1, want: "the answer was 502 Bad Gateway"},
		{name: "another backend's answer", answers: []string{strings.Replace(ok, "\na", "\nb", 1)}, asked: 1, want: "not that of a.example.com"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := kind{kept: true, hosts: hosts}.newClients(&running{http: answering(t, test.answers)}, 1)
			var err error
			for range test.asked {
				if err != nil {
					t.Fatalf("before the last request: %v", err)
				}
				err = c.ask(t.Context(), hosts[0])
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("the error is %v; want %q", err, test.want)
			}
			if got := c.connected(time.Time{}, time.Now()); got != len(test.answers) {
				t.Errorf("%d connections; want %d", got, len(test.answers))
			}
		})
	}
}

// answering serves one connection after the other, each with its answers, which are separated by "|". It returns its
// address.
func answering(t *testing.T, answers []string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for _, all := range answers {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(c)
			for answer := range strings.SplitSeq(all, "|") {
				if _, err := http.ReadRequest(r); err != nil {
					break
				}
				io.WriteString(c, answer)
			}
			c.Close()
		}
	}()
	return l.Addr().String()
}

func TestAClosedKeptConnectionIsNoFailure(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 14\r\n\r\na.example.com\n"
	c := kind{kept: true, hosts: hosts}.newClients(&running{http: answering(t, []string{ok, ok})}, 1)
	for range 2 {
		if err := c.ask(t.Context(), hosts[0]); err != nil {
			t.Error(err)
		}
	}
	if got := c.connected(time.Time{}, time.Now()); got != 2 {
		t.Errorf("%d connections; want 2", got)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := kind{hosts: hosts}.newClients(&running{http: l.Addr().String()}, 0)
	if err := c.ask(t.Context(), hosts[0]); err == nil || err.Error() != "connection refused" {
		t.Errorf("the error is %v; want connection refused", err)
	}
}

func TestFailuresHaveNoAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		`Get "http://127.0.0.1:20000/": connection reset`: "connection reset",
		"connection reset": "connection reset",
	} {
		if got := failure(text); got != want {
			t.Errorf("of %q is left %q; want %q", text, got, want)
		}
	}
}

func TestFiguresAreOfTheirPhase(t *testing.T) {
	start := time.Now()
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	s := &stream{clients: &clients{dials: []time.Time{at(0), at(1), at(2)}}, answers: []answer{
		{ended: at(0), lasted: time.Second},
		{ended: at(1), lasted: 2 * time.Millisecond},
		{ended: at(2), lasted: 5 * time.Millisecond, failure: "connection reset"},
		{ended: at(3), lasted: time.Second, failure: "connection reset"},
	}}
	f := s.figure(at(1), at(3))
	if f.Requests != 2 || f.Failed != 1 || f.Failures["connection reset"] != 1 || f.Connected != 2 {
		t.Errorf("%+v; want two requests, of which one failed, and two connections", f)
	}
	if f.Median != 2 || f.Longest != 5 || f.P99 != 5 {
		t.Errorf("%+v; want 2, 5 and 5 ms", f)
	}
	if f := s.figure(at(4), at(5)); f.Requests != 0 || f.Longest != 0 {
		t.Errorf("of a phase without requests: %+v", f)
	}
}

func TestContent(t *testing.T) {
	data := bytes.Repeat([]byte("some content "), 100)
	sum := sha256.Sum256(data)
	whole := append(bytes.Clone(data), sum[:]...)
	changed := bytes.Clone(whole)
	changed[500] ^= 1
	for _, test := range []struct {
		name  string
		bytes []byte
		wrong bool
	}{
		{name: "whole", bytes: whole},
		{name: "no content and its sum", bytes: sha256.New().Sum(nil)},
		{name: "nothing at all", wrong: true},
		{name: "without the last byte", bytes: whole[:len(whole)-1], wrong: true},
		{name: "without the sum", bytes: data, wrong: true},
		{name: "a bit is wrong", bytes: changed, wrong: true},
		{name: "bytes are missing", bytes: append(bytes.Clone(whole[:500]), whole[501:]...), wrong: true},
	} {
		for size, r := range map[string]io.Reader{
			"in one piece": bytes.NewReader(test.bytes), "byte by byte": iotest.OneByteReader(bytes.NewReader(test.bytes)),
		} {
			t.Run(test.name+" "+size, func(t *testing.T) {
				var c content
				if _, err := io.Copy(&c, r); err != nil {
					t.Fatal(err)
				}
				if err := c.check(); (err != nil) != test.wrong {
					t.Errorf("the error is %v", err)
				}
			})
		}
	}
}

func TestErrorsOfTheSameKindReadTheSame(t *testing.T) {
	for _, err := range []error{io.EOF, io.ErrUnexpectedEOF, &net.OpError{Op: "read", Err: io.EOF}} {
		if got := plain(err).Error(); got != "connection closed without an answer" {
			t.Errorf("%v is %q", err, got)
		}
	}
	if got := plain(context.DeadlineExceeded).Error(); got != "no answer within 30s" {
		t.Errorf("a time-out is %q", got)
	}
	if err := errors.New("another"); plain(err) != err {
		t.Errorf("an error that is none of those is %v", plain(err))
	}
}

// TestKeptConnectionsAskForAllHosts has as many connections as measurements do, and one more: neither may be a number with
// which each connection asks for one host only.
func TestKeptConnectionsAskForAllHosts(t *testing.T) {
	for _, kept := range []int{brief.kept, brief.kept + 1} {
		var mu sync.Mutex
		asked := make(map[string]map[string]int) // by connection and host
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if asked[r.RemoteAddr] == nil {
				asked[r.RemoteAddr] = make(map[string]int)
			}
			asked[r.RemoteAddr][r.Host]++
			fmt.Fprintln(w, r.Host)
		}))
		t.Cleanup(s.Close)
		st := twoHosts.start(&running{http: s.Listener.Addr().String()}, 1000, kept)
		all := func() bool {
			mu.Lock()
			defer mu.Unlock()
			requests := 0
			for _, hosts := range asked {
				for _, n := range hosts {
					requests += n
				}
			}
			return requests >= 20*kept
		}
		for !all() {
			time.Sleep(time.Millisecond)
		}
		stopAll([]*stream{st})
		for connection, hosts := range asked {
			if len(hosts) != len(twoHosts.hosts) {
				t.Errorf("of %d connections, %s asked for %v", kept, connection, hosts)
			}
		}
	}
}
