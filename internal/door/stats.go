package door

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-usher/usher/internal/admin"
)

// stats are what the door counts, by the names that operators know. They outlive reloads. Its zero value is
// ready.
type stats struct {
	open atomic.Int64 // connections that are the door's

	listeners named[listenerStats]
	routes    named[routeStats]
	endpoints named[endpointStats]
}

func (s *stats) listener(name string) *listenerStats { return s.listeners.get(name) }
func (s *stats) route(name string) *routeStats       { return s.routes.get(name) }
func (s *stats) endpoint(name string) *endpointStats { return s.endpoints.get(name) }

// named are things by name, made when they are first asked for.
type named[T any] struct {
	mu sync.RWMutex
	m  map[string]*T
}

func (n *named[T]) get(name string) *T {
	if t := n.find(name); t != nil {
		return t
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.m[name]
	if t != nil {
		return t
	}
	if n.m == nil {
		n.m = make(map[string]*T)
	}
	t = new(T)
	n.m[name] = t
	return t
}

// find returns nil for what nobody has asked for yet.
func (n *named[T]) find(name string) *T {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.m[name]
}

type listenerStats struct {
	accepted, acceptErrors atomic.Uint64
	open                   atomic.Int64
	peek                   admin.Durations
}

type routeStats struct {
	handover, lifetime    admin.Durations
	ended, received, sent atomic.Uint64

	mu          sync.Mutex
	connections []admin.Count // few: as many as there are listeners and outcomes that occur
}

func (s *routeStats) count(listener string, outcome admin.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.connections {
		if c := &s.connections[i]; c.Listener == listener && c.Outcome == outcome {
			c.N++
			return
		}
	}
	s.connections = append(s.connections, admin.Count{Listener: listener, Outcome: outcome, N: 1})
}

// hasEnded counts a connection whose end the door has heard of. A number of bytes below zero is unknown.
func (s *routeStats) hasEnded(received, sent int64, lasted time.Duration) {
	s.ended.Add(1)
	s.received.Add(uint64(max(received, 0)))
	s.sent.Add(uint64(max(sent, 0)))
	s.lifetime.Observe(lasted)
}

func (s *routeStats) status() admin.RouteStatus {
	s.mu.Lock()
	connections := append([]admin.Count{}, s.connections...)
	s.mu.Unlock()
	return admin.RouteStatus{
		Connections: connections, Handover: s.handover.Histogram(), Lifetime: s.lifetime.Histogram(),
		Ended: s.ended.Load(), Received: s.received.Load(), Sent: s.sent.Load(),
	}
}

// refusals are the most recent ones.
type refusals struct {
	mu   sync.Mutex
	ring [maxRefusals]admin.Refusal
	n    int // ever
}

const maxRefusals = 100

func (r *refusals) add(refusal admin.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring[r.n%maxRefusals] = refusal
	r.n++
}

// newest returns them, the newest first.
func (r *refusals) newest() []admin.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]admin.Refusal, 0, min(r.n, maxRefusals))
	for i := range cap(all) {
		all = append(all, r.ring[(r.n-1-i)%maxRefusals])
	}
	return all
}
