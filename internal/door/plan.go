package door

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/route"
)

// plan is a configuration compiled. It does not change once it is in force.
type plan struct {
	door   *Door
	config *config.Config

	policies  *policies
	table     *route.Table
	routes    []*routePlan         // as in the configuration and the table
	auto      *routePlan           // nil if auto routes are off
	autos     map[string]*endpoint // by path, those that auto routes have used; door.mu guards it
	sweepAt   int                  // of autos
	listeners []*listener

	endpoints []*endpoint // that the plan holds; door.mu guards them
	backends  []*backends

	// By how many it is used, those that it has begun with, and by being in force. door.mu guards it. unused is
	// closed when nobody does any more, which is for good: only what is in force can be held anew.
	users  int
	unused chan struct{}

	named map[string]bool // paths of the endpoints that routes name
}

// routePlan says where the connections of a route go.
type routePlan struct {
	name    string
	match   string
	targets []*targetPlan // the route's own, then its fallback
	stats   *routeStats
}

// targetPlan is one way for a connection to go.
type targetPlan struct {
	endpoints []*endpoint
	timeout   time.Duration // for one of them to claim
	backends  *backends
	reject    bool
	auto      bool          // the endpoint has the name of the connection's host
	turn      atomic.Uint32 // of the endpoints, where they have as much to do
	words     string
}

// newPlan compiles c and opens what is new in it. If it fails it lets go of all that again.
func (d *Door) newPlan(c *config.Config) (_ *plan, err error) {
	p := &plan{door: d, config: c, users: 1, unused: make(chan struct{}), named: make(map[string]bool)}
	defer func() {
		if err != nil {
			p.abandon()
		}
	}()
	if p.policies, err = newPolicies(&c.Endpoints); err != nil {
		return nil, err
	}
	matches := make([]route.Match, len(c.Routes))
	for i := range c.Routes {
		r := &c.Routes[i]
		matches[i] = route.Match{Hosts: r.Match.Host, Path: r.Match.Path, ALPN: r.Match.ALPN, Listener: r.Match.Listener, From: r.Match.From}
		rp, err := p.newRoute(r)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
		rp.match = matches[i].String()
		p.routes = append(p.routes, rp)
	}
	if p.table, err = route.New(matches); err != nil {
		return nil, err
	}
	if c.AutoRoutes {
		p.auto = &routePlan{name: autoRoute, match: "any other host", stats: d.stats.route(autoRoute)}
		p.auto.targets = []*targetPlan{{auto: true, timeout: autoTimeout, words: "handoff to the endpoint of the host's name"}}
		p.autos = make(map[string]*endpoint)
		if path, err := p.policies.path("any"); err == nil {
			d.watch.folderOf(path)
		}
	}
	return p, p.listen()
}

// Names of the routes that are not in the configuration.
const (
	autoRoute   = "auto"
	noRoute     = "none"
	autoTimeout = 5 * time.Second // as the default of handoff_timeout
)

func (p *plan) newRoute(r *config.Route) (*routePlan, error) {
	rp := &routePlan{name: r.Name, stats: p.door.stats.route(r.Name)}
	own, err := p.newTarget(r.Name, &r.Target)
	if err != nil {
		return nil, err
	}
	rp.targets = []*targetPlan{own}
	if r.Fallback == nil {
		return rp, nil
	}
	fallback, err := p.newTarget(r.Name, r.Fallback)
	if err != nil {
		return nil, fmt.Errorf("fallback: %w", err)
	}
	rp.targets = append(rp.targets, fallback)
	return rp, nil
}

func (p *plan) newTarget(route string, t *config.Target) (*targetPlan, error) {
	switch {
	case t.Reject:
		return &targetPlan{reject: true, words: "reject"}, nil
	case len(t.Proxy) > 0:
		return &targetPlan{backends: p.holdBackends(route, t), words: "proxy " + join(t.Proxy)}, nil
	case len(t.Handoff) > 0:
		tp := &targetPlan{timeout: t.HandoffTimeout, words: "handoff " + join(t.Handoff)}
		for _, name := range t.Handoff {
			e, err := p.holdEndpoint(route, name)
			if err != nil {
				return nil, err
			}
			tp.endpoints = append(tp.endpoints, e)
		}
		return tp, nil
	}
	return nil, errors.New("it has no target") // package config sees to that
}

// listen finds or opens the listeners.
func (p *plan) listen() error {
	for i := range p.config.Listeners {
		lc := &p.config.Listeners[i]
		l, err := p.listenerFor(lc)
		if err != nil {
			return fmt.Errorf("listener %s: %w", lc.Name, err)
		}
		p.listeners = append(p.listeners, l)
	}
	return nil
}

// start begins to accept where the plan is the first to do so, and puts its settings in force elsewhere.
func (p *plan) start() {
	for i, l := range p.listeners {
		l.use(&p.config.Listeners[i])
	}
}

// connect connects to the takers that are there, in the background.
func (p *plan) connect() {
	p.door.mu.RLock()
	endpoints := slices.Clone(p.endpoints)
	p.door.mu.RUnlock()
	for _, e := range endpoints {
		if p.door.watch.has(e.path) {
			e.connectSoon()
		}
	}
}

// abandon is for a plan that never came into force.
func (p *plan) abandon() {
	for _, l := range p.listeners {
		l.closeUnstarted()
	}
	p.letGo()
}

// supersede is for a plan in whose place another one is in force.
func (p *plan) supersede(next *plan) {
	for _, l := range p.listeners {
		if !slices.Contains(next.listeners, l) {
			l.stop()
			p.door.stopped = append(p.door.stopped, l)
		}
	}
	p.release()
	p.door.background.Go(func() {
		<-p.unused
		p.letGo()
	})
}

func (p *plan) release() {
	p.door.mu.Lock()
	defer p.door.mu.Unlock()
	if p.users--; p.users == 0 {
		close(p.unused)
	}
}

// letGo gives back the endpoints and backends: those that no other plan holds are closed.
func (p *plan) letGo() {
	d := p.door
	d.mu.Lock()
	for _, e := range p.endpoints {
		e.letGo()
	}
	var last []*backends
	for _, b := range p.backends {
		if b.holders--; b.holders == 0 {
			delete(d.backends, b.key)
			last = append(last, b)
		}
	}
	p.endpoints, p.backends = nil, nil
	d.mu.Unlock()
	for _, b := range last {
		b.pool.Close() // not under the lock: it waits for checks under way
	}
}

// find returns the route of a connection, or nil.
func (p *plan) find(q *route.Query) *routePlan {
	i, ok := p.table.Lookup(q)
	if ok {
		return p.routes[i]
	}
	// The auto route is for hosts that no route names: else it would lead around a route that is for certain
	// clients, say. So it would where a path can be read in several ways.
	if i != route.Ambiguous && p.auto != nil && !p.table.HasHost(q.Host) && p.autoEndpoint(q.Host) != nil {
		return p.auto
	}
	return nil
}

func (p *plan) routeStatus() []admin.RouteStatus {
	all := make([]admin.RouteStatus, 0, len(p.routes)+2)
	for _, r := range p.routes {
		all = append(all, r.status())
	}
	if p.auto != nil {
		all = append(all, p.auto.status())
	}
	none := &routePlan{name: noRoute, targets: []*targetPlan{{words: "refuse"}}, stats: p.door.stats.route(noRoute)}
	return append(all, none.status())
}

func (r *routePlan) status() admin.RouteStatus {
	s := r.stats.status()
	s.Name, s.Match, s.Target = r.name, r.match, r.targets[0].words
	for _, fallback := range r.targets[1:] {
		s.Target += ", else " + fallback.words
	}
	return s
}
