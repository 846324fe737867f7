package browser_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-usher/usher/internal/admin"
)

// door is a make-believe door with believable traffic. Its clock is its own, so that minutes of it pass as
// fast as a test wants.
type door struct {
	mu     sync.Mutex
	random *rand.Rand
	status *admin.Status
	routes []*traffic // of status.Routes, in their order
	peek   admin.Durations
	drawn  float64 // seconds since it started
}

// traffic is what a second brings to a route on average.
type traffic struct {
	handed, proxied, refused float64
	handover, lifetime       admin.Durations
	latency                  time.Duration // median of handing over
}

var started = time.Date(2026, 3, 14, 8, 12, 41, 0, time.UTC)

const upFor = 52*time.Hour + 26*time.Minute

func newDoor() *door {
	now := started.Add(upFor)
	d := &door{random: rand.New(rand.NewPCG(1, 2))}
	d.status = &admin.Status{
		Version: "v0.9.0", PID: 2214, Now: now, Started: started, Ready: true,
		Config: admin.ConfigStatus{Path: "/etc/usher/usher.yaml", Loaded: now.Add(-31 * time.Minute), Reloads: 4},
		Listeners: []admin.ListenerStatus{
			{Name: "web", Address: "[::]:443", Sniff: "tls", Accepted: 1_482_301},
			{Name: "plain", Address: "[::]:80", Sniff: "http", Accepted: 96_155},
			{Name: "postgres", Address: "10.0.4.2:5432", Sniff: "none", Accepted: 20_418},
		},
		Endpoints: []admin.EndpointStatus{
			{Name: "shop", Path: "/run/usher/shop.sock", State: "up", Claimed: 921_004, Declined: 212, Withdrawn: 31,
				Takers: []admin.TakerStatus{{PID: 3120, User: "shop", Open: 2}, {PID: 3121, User: "shop", Open: 1}}},
			{Name: "api", Path: "/run/usher/api.sock", State: "up", Claimed: 430_877, Declined: 9, Withdrawn: 4,
				Takers: []admin.TakerStatus{{PID: 2870, User: "api", Open: 0}}},
			{Name: "blog.example.com", Path: "/run/usher/blog.example.com.sock", State: "idle", Claimed: 61_330, Withdrawn: 1},
			{Name: "wiki", Path: "/run/usher/wiki.sock", State: "absent", Claimed: 12_904, Withdrawn: 8,
				Error: "connect: no such file or directory"},
		},
		Upstreams: []admin.UpstreamStatus{
			{Route: "legacy", Address: "10.0.4.11:9000", Healthy: true, Open: 18, Connections: 88_412, Failures: 3, Checks: 94_201, FailedCheck: 12},
			{Route: "legacy", Address: "10.0.4.12:9000", Connections: 71_096, Failures: 41, Checks: 94_200, FailedCheck: 388,
				Error: "GET /healthz: 503 Service Unavailable"},
			{Route: "postgres", Address: "unix:/run/postgresql/.s.PGSQL.5432", Healthy: true, Open: 24, Connections: 20_418, Checks: 94_201},
		},
	}
	d.addRoute("shop", "shop.example.com", "handoff shop", &traffic{handed: 84, refused: 0.2, latency: 70 * time.Microsecond}, 921_004)
	d.addRoute("api", "api.example.com/v2/", "handoff api", &traffic{handed: 39, refused: 0.1, latency: 55 * time.Microsecond}, 430_877)
	d.addRoute("*.wiki.example.com", "*.wiki.example.com", "handoff wiki, fallback reject", &traffic{refused: 0.6}, 12_904)
	d.addRoute("legacy", "old.example.com", "proxy 10.0.4.11:9000, 10.0.4.12:9000", &traffic{proxied: 11}, 159_508)
	d.addRoute("postgres", "listener postgres", "proxy unix:/run/postgresql/.s.PGSQL.5432", &traffic{proxied: 1.5}, 20_418)
	d.addRoute("auto", "", "handoff to the endpoint of the host's name", &traffic{handed: 6, latency: 90 * time.Microsecond}, 61_330)
	d.addRoute("none", "", "", &traffic{refused: 1.4}, 9_240)
	d.addRefusals()
	return d
}

func (d *door) addRoute(name, match, target string, t *traffic, past uint64) {
	d.routes = append(d.routes, t)
	r := admin.RouteStatus{Name: name, Match: match, Target: target}
	outcome := admin.HandedOver
	switch {
	case t.proxied > 0:
		outcome = admin.Proxied
	case t.handed == 0:
		outcome = admin.Unavailable
	}
	if name == "none" {
		outcome = admin.Timeout
	}
	r.Connections = []admin.Count{{Listener: "web", Outcome: outcome, N: past}}
	if outcome == admin.HandedOver || outcome == admin.Proxied {
		r.Connections = append(r.Connections, admin.Count{Listener: "web", Outcome: admin.Unavailable, N: past / 900})
		r.Ended, r.Received, r.Sent = past, past*1_900, past*61_000
	}
	d.status.Routes = append(d.status.Routes, r)
}

func (d *door) addRefusals() {
	now := d.status.Now
	add := func(ago time.Duration, client, listener, host, route string, outcome admin.Outcome, reason string) {
		d.status.Refusals = append(d.status.Refusals, admin.Refusal{
			Time: now.Add(-ago), Client: client, Listener: listener, Host: host, Route: route, Outcome: outcome, Reason: reason,
		})
	}
	add(2*time.Second, "203.0.113.91:50122", "web", "team.wiki.example.com", "*.wiki.example.com", admin.Unavailable, "endpoint wiki: no process listens")
	add(7*time.Second, "198.51.100.4:40980", "web", "", "", admin.Timeout, "no whole TLS ClientHello within 5s")
	add(19*time.Second, "192.0.2.200:61002", "plain", "", "", admin.Malformed, "malformed HTTP request: more than one Host header")
	add(44*time.Second, "203.0.113.91:50098", "web", "team.wiki.example.com", "*.wiki.example.com", admin.Unavailable, "endpoint wiki: no process listens")
	add(71*time.Second, "2001:db8:31::7", "web", "old-shop.example.net", "none", admin.NoRoute, "no route for old-shop.example.net")
	add(96*time.Second, "198.51.100.77:33410", "web", "", "", admin.Limited, "198.51.100.77 has 200 connections at the door already")
}

// Status is the state now. What it returns is the caller's.
func (d *door) Status() *admin.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.copy()
}

// change lets a test break something, or mend it.
func (d *door) change(how func(*admin.Status)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	how(d.status)
}

// pass lets a time pass, with its traffic.
func (d *door) pass(t time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drawn += t.Seconds()
	s := d.status
	s.Now = s.Now.Add(t)
	tide := 1 + 0.3*math.Sin(d.drawn/38) + 0.08*math.Sin(d.drawn/7)
	if d.drawn > 130 && d.drawn < 280 {
		tide *= 1 + 1.2*math.Exp((130-d.drawn)/25) // somebody has sent a newsletter
	}
	for i, tr := range d.routes {
		d.passRoute(&s.Routes[i], tr, tide*t.Seconds())
	}
	for i := range s.Listeners {
		s.Listeners[i].Accepted += d.about(20 * t.Seconds())
		d.peek.Observe(d.spread(2 * time.Millisecond))
		s.Listeners[i].Peek = d.peek.Histogram()
		s.Listeners[i].Peeking = int(d.about(3 * tide))
		s.Listeners[i].Open = s.Listeners[i].Peeking + []int{8, 4, 24}[i%3] + int(d.about(4*tide))
	}
}

func (d *door) passRoute(r *admin.RouteStatus, t *traffic, seconds float64) {
	for range d.about(t.handed * seconds) {
		r.Connections[0].N++
		t.handover.Observe(d.spread(t.latency))
		d.end(r, t)
	}
	for range d.about(t.proxied * seconds) {
		r.Connections[0].N++
		d.end(r, t)
	}
	r.Connections[len(r.Connections)-1].N += d.about(t.refused * seconds)
	r.Handover, r.Lifetime = t.handover.Histogram(), t.lifetime.Histogram()
}

func (d *door) end(r *admin.RouteStatus, t *traffic) {
	r.Ended++
	r.Received += 1200 + d.random.Uint64N(1500)
	r.Sent += uint64(28_000 * d.random.ExpFloat64())
	t.lifetime.Observe(d.spread(800 * time.Millisecond))
}

// about is a whole number that is mean on average, more or less.
func (d *door) about(mean float64) uint64 {
	n := mean + math.Sqrt(mean)*d.random.NormFloat64()*0.6
	return uint64(max(0, math.Floor(n+d.random.Float64())))
}

// spread is a duration that is the median in half of all cases, and much longer in a few.
func (d *door) spread(median time.Duration) time.Duration {
	return time.Duration(float64(median) * math.Exp(0.7*d.random.NormFloat64()))
}

// copy is deep where pass and change write.
func (d *door) copy() *admin.Status {
	s := *d.status
	s.Listeners = append([]admin.ListenerStatus(nil), s.Listeners...)
	s.Endpoints = append([]admin.EndpointStatus(nil), s.Endpoints...)
	s.Upstreams = append([]admin.UpstreamStatus(nil), s.Upstreams...)
	s.Refusals = append([]admin.Refusal(nil), s.Refusals...)
	s.Routes = append([]admin.RouteStatus(nil), s.Routes...)
	for i := range s.Routes {
		s.Routes[i].Connections = append([]admin.Count(nil), s.Routes[i].Connections...)
	}
	return &s
}

// manyRoutes replaces the routes by n others.
func (d *door) manyRoutes(n int) {
	d.change(func(s *admin.Status) {
		s.Routes, d.routes = nil, nil
		for i := range n {
			host := fmt.Sprintf("tenant-%05d.example.com", i)
			d.addRoute(host, host, "handoff tenants", &traffic{handed: 0.001, latency: 60 * time.Microsecond}, uint64(i))
		}
	})
}
