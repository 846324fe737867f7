package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/admin"
)

// serveAdmin serves a handler at an admin address until the test ends, and returns the address.
func serveAdmin(t *testing.T, address string, h http.Handler) string {
	t.Helper()
	l, err := admin.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- admin.Serve(ctx, l, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func statusHandler(s *admin.Status) http.Handler {
	return admin.Handler(admin.Options{Status: func() *admin.Status { return s }, Log: slog.New(slog.DiscardHandler)})
}

// runStatus runs "usher status" and returns what it prints.
func runStatus(args ...string) (string, error) {
	var out bytes.Buffer
	root := newRootCommand()
	root.SetOut(&out)
	root.SetErr(io.Discard)
	root.SetArgs(append([]string{"status"}, args...))
	err := root.Execute()
	return out.String(), err
}

func exampleStatus() *admin.Status {
	started := time.Date(2026, 3, 14, 8, 0, 0, 0, time.Local)
	var handover admin.Durations
	for range 100 {
		handover.Observe(60 * time.Microsecond)
	}
	return &admin.Status{
		Version: "v1.2.3", PID: 4711, Now: started.Add(26 * time.Hour), Started: started, Ready: true,
		Config:    admin.ConfigStatus{Path: "/etc/usher.yaml", Loaded: started.Add(time.Hour)},
		Listeners: []admin.ListenerStatus{{Name: "web", Address: "[::]:443", Sniff: "tls", Accepted: 120, AcceptErrors: 1, Peeking: 2, Open: 3}},
		Routes: []admin.RouteStatus{
			{Name: "shop", Match: "shop.example.com/api/", Target: "handoff shop, blog", Handover: handover.Histogram(),
				Connections: []admin.Count{{Listener: "web", Outcome: admin.HandedOver, N: 90}, {Listener: "ssh", Outcome: admin.HandedOver, N: 10},
					{Listener: "web", Outcome: admin.Proxied, N: 7}, {Listener: "web", Outcome: admin.Idle, N: 8}, {Listener: "web", Outcome: admin.Gone, N: 1}, {Listener: "web", Outcome: admin.Limited, N: 2}}},
			{Name: "none"},
		},
		Endpoints: []admin.EndpointStatus{
			{Name: "shop", State: "up", Claimed: 100, Declined: 5, Withdrawn: 6, Takers: []admin.TakerStatus{{PID: 21, User: "www", Open: 1}, {PID: 22, User: "www"}}},
			{Name: "blog", State: "refused", Error: "user mallory may not serve it"},
		},
		Upstreams: []admin.UpstreamStatus{
			{Route: "old", Address: "127.0.0.1:9000", Healthy: true, Open: 1, Connections: 7},
			{Route: "old", Address: "127.0.0.1:9001", Failures: 3, FailedCheck: 4, Error: "connection refused"},
		},
		Refusals: []admin.Refusal{{Time: started, Client: "192.0.2.1:1234", Listener: "web", Host: "x.example.com", Outcome: admin.NoRoute, Reason: "no route for x.example.com"}},
	}
}

const exampleTables = `usher v1.2.3, process 4711, up for 26h0m0s: ready
config /etc/usher.yaml, loaded 2026-03-14 09:00:00

LISTENER  ADDRESS   SNIFF  ACCEPTED  ERRORS  PEEKING  OPEN  STATE
web       [::]:443  tls    120       1       2        3     listens

ROUTE  MATCH                  TARGET              HANDED OVER  PROXIED  REFUSED  MEDIAN  P99
shop   shop.example.com/api/  handoff shop, blog  100          7        3        75µs    99.5µs
none   -                      -                   0            0        0        -       -

ENDPOINT  STATE                                   CLAIMED  DECLINED  WITHDRAWN  TAKERS
shop      up                                      100      5         6          21 (www, 1 open), 22 (www, 0 open)
blog      refused: user mallory may not serve it  0        0         0          -

UPSTREAM        ROUTE  HEALTH                     OPEN  CONNECTIONS  FAILURES  FAILED CHECKS
127.0.0.1:9000  old    healthy                    1     7            0         0
127.0.0.1:9001  old    unfit: connection refused  0     0            3         4

REFUSED              CLIENT          LISTENER  ROUTE  HOST           OUTCOME   REASON
2026-03-14 08:00:00  192.0.2.1:1234  web       -      x.example.com  no_route  no route for x.example.com
`

func TestStatusPrintsTables(t *testing.T) {
	addresses := []string{"127.0.0.1:0"}
	if runtime.GOOS != "windows" { // which has Unix sockets only since version 10
		addresses = append(addresses, "unix:"+filepath.Join(shortDir(t), "admin.sock"))
	}
	for _, address := range addresses {
		at := serveAdmin(t, address, statusHandler(exampleStatus()))
		if strings.HasPrefix(address, "unix:") {
			at = address
		}
		got, err := runStatus("--admin", at)
		if err != nil {
			t.Fatal(err)
		}
		if got != exampleTables {
			t.Errorf("at %s it prints:\n%s\nwant:\n%s", address, got, exampleTables)
		}
	}
}

func TestStatusTakesAPortAloneForThisMachine(t *testing.T) {
	_, port, err := net.SplitHostPort(serveAdmin(t, "localhost:0", statusHandler(exampleStatus())))
	if err != nil {
		t.Fatal(err)
	}
	got, err := runStatus("--admin", ":"+port)
	if got != exampleTables || err != nil {
		t.Errorf("it prints, with the error %v:\n%s", err, got)
	}
}

// shortDir is short: the path of a socket must be.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "adm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestStatusSaysWhatIsWrong(t *testing.T) {
	tests := []struct {
		name   string
		change func(*admin.Status)
		want   string
	}{
		{"a door that is not ready", func(s *admin.Status) { s.Ready, s.NotReady = false, "listener web does not listen" }, ": not ready: listener web does not listen\n"},
		{"a door that drains", func(s *admin.Status) { s.Ready, s.Draining = false, true }, ": draining\n"},
		{"a configuration that is in force no more", func(s *admin.Status) { s.Config.Error = "line 3: no such key" }, "; the last reload failed: line 3: no such key\n"},
		{"a door without a file", func(s *admin.Status) { s.Config.Path = "" }, "config without a file, loaded "},
		{"a listener that does not listen", func(s *admin.Status) { s.Listeners[0].Error = "address in use" }, "address in use\n"},
		{"a name that commands the terminal", func(s *admin.Status) { s.Refusals[0].Host = "\x1b[2Jevil\u202e\nweb\tup" }, "\ufffd[2Jevil\ufffd\ufffdweb\ufffdup "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := exampleStatus()
			tt.change(s)
			got, err := runStatus("--admin", serveAdmin(t, "127.0.0.1:0", statusHandler(s)))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(got, tt.want) {
				t.Errorf("it prints:\n%s\nwithout %q", got, tt.want)
			}
		})
	}
}

func TestStatusPrintsNoMoreThanTheLastRefusals(t *testing.T) {
	s := &admin.Status{}
	for range 3 * shownRefusals {
		s.Refusals = append(s.Refusals, admin.Refusal{Reason: "because"})
	}
	got, err := runStatus("--admin", serveAdmin(t, "127.0.0.1:0", statusHandler(s)))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(got, "because"); n != shownRefusals {
		t.Errorf("it prints %d refusals", n)
	}
	if strings.Contains(got, "HANDED OVER") {
		t.Errorf("it prints a table without rows:\n%s", got)
	}
}

func TestStatusPassesJSONOn(t *testing.T) {
	want := exampleStatus()
	out, err := runStatus("--json", "--admin", serveAdmin(t, "127.0.0.1:0", statusHandler(want)))
	if err != nil {
		t.Fatal(err)
	}
	var got admin.Status
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if !got.Now.Equal(want.Now) || !reflect.DeepEqual(got.Routes, want.Routes) {
		t.Errorf("got %+v; want %+v", got, want)
	}
	if !strings.Contains(out, `"histogram_bounds":[`) {
		t.Error("the bounds of histograms are missing")
	}
}

func TestStatusOfWhatIsNotADoor(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"a server without such a page", http.NotFound, "says: 404 Not Found: 404 page not found"},
		{"a server that has another idea of status", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, "its /status.json is not JSON"},
		{"a server that has JSON of another kind", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"pid":"one"}`) }, "is not a door: json: cannot unmarshal"},
		{"an answer that commands the terminal", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			io.WriteString(w, "\x1b]0;evil\a")
		}, "500 Internal Server Error: \ufffd]0;evil\ufffd"},
		{"an answer that breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
		}, "broke off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			out, err := runStatus("--admin", server.Listener.Addr().String())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v; want one with %q", err, tt.want)
			}
			if out != "" {
				t.Errorf("it prints %q", out)
			}
		})
	}
}
