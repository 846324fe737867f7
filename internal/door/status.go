package door

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-usher/usher/internal/admin"
)

// Status says how the door is.
func (d *Door) Status() *admin.Status {
	d.mu.RLock()
	p := d.plan // not held: what is asked of it here does not go with it
	s := &admin.Status{
		Version: d.options.Version, PID: os.Getpid(), Now: time.Now(), Started: d.started,
		Config: d.status, Draining: d.draining, Refusals: d.refusals.newest(),
		Endpoints: []admin.EndpointStatus{}, Upstreams: []admin.UpstreamStatus{},
	}
	endpoints := make([]*endpoint, 0, len(d.endpoints))
	for _, there := range d.endpoints {
		endpoints = append(endpoints, there...)
	}
	pools := make([]*backends, 0, len(d.backends))
	for _, b := range d.backends {
		pools = append(pools, b)
	}
	d.mu.RUnlock()

	for _, l := range p.listeners {
		s.Listeners = append(s.Listeners, l.status())
	}
	s.Routes = p.routeStatus()
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, e.status())
	}
	slices.SortFunc(s.Endpoints, func(a, b admin.EndpointStatus) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(pools, func(a, b *backends) int { return strings.Compare(a.key, b.key) })
	for _, b := range pools {
		for _, u := range b.pool.Status() {
			u.Route = b.route
			s.Upstreams = append(s.Upstreams, u)
		}
	}
	s.NotReady = notReady(s)
	s.Ready = s.NotReady == ""
	return s
}

// notReady says why the door should get no connections, or nothing.
func notReady(s *admin.Status) string {
	if s.Draining {
		return "the door is shutting down"
	}
	for _, l := range s.Listeners {
		if l.Error != "" {
			return fmt.Sprintf("listener %s cannot accept: %s", l.Name, l.Error)
		}
	}
	return ""
}
