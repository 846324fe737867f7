package admin_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/faults"
)

func TestMain(m *testing.M) { faults.Main(m, nil) }

// status is one with something in every field.
func status() *admin.Status {
	start := time.Date(2026, 3, 14, 8, 0, 0, 500_000_000, time.UTC)
	var handover, peek admin.Durations
	handover.Observe(60 * time.Microsecond)
	handover.Observe(70 * time.Microsecond)
	handover.Observe(2 * time.Hour)
	peek.Observe(3 * time.Millisecond)
	return &admin.Status{
		Version: "v1.2.3", PID: 4711, Now: start.Add(time.Hour), Started: start, Ready: true,
		Config:    admin.ConfigStatus{Path: "/etc/usher.yaml", Loaded: start.Add(time.Minute), Reloads: 3, Failures: 1, Error: "line 3: no such key"},
		Listeners: []admin.ListenerStatus{{Name: "web", Address: "127.0.0.1:443", Sniff: "auto", Accepted: 10, AcceptErrors: 1, Peeking: 2, Open: 4, Peek: peek.Histogram()}},
		Routes: []admin.RouteStatus{
			{Name: "shop", Match: "shop.example.com/api/", Target: "handoff shop",
				Connections: []admin.Count{{Listener: "web", Outcome: admin.HandedOver, N: 3}, {Listener: "web", Outcome: admin.Unavailable, N: 2}},
				Handover:    handover.Histogram(), Ended: 2, Received: 100, Sent: 2000, Lifetime: peek.Histogram()},
			{Name: "none"},
		},
		Endpoints: []admin.EndpointStatus{{Name: "shop", Path: "/run/usher/shop.sock", State: "up",
			Takers: []admin.TakerStatus{{PID: 1, User: "www", Open: 2}, {PID: 2, User: "www", Open: 3}}, Claimed: 3, Declined: 4, Withdrawn: 5, Returned: 6}},
		Upstreams: []admin.UpstreamStatus{{Route: "old", Address: "127.0.0.1:9000", Healthy: true, Open: 1, Connections: 7, Failures: 2, Checks: 9, FailedCheck: 3}},
		Refusals: []admin.Refusal{{Time: start, Client: "192.0.2.1:1234", Listener: "web", Host: "x.example.com", Outcome: admin.NoRoute,
			Reason: "no route for x.example.com"}},
	}
}

// serve serves a handler at a free port until the test ends, and returns its address.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	l, err := admin.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveAt(t, l, h)
	return l.Addr().String()
}

func serveAt(t *testing.T, l net.Listener, h http.Handler) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- admin.Serve(ctx, l, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// handler serves a status.
func handler(s *admin.Status) http.Handler {
	return admin.Handler(admin.Options{Status: func() *admin.Status { return s }, Log: slog.New(slog.DiscardHandler)})
}

// client has connections of its own, which end with the test, and takes answers as they are.
func client(t *testing.T) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}
