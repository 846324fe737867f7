package door

import (
	"fmt"
	"strings"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/upstream"
)

// backends are those that a route's connections are proxied to. Plans whose configuration of them is the
// same share them, and what is known of their health.
type backends struct {
	key   string
	route string
	pool  *upstream.Pool

	holders int // plans; door.mu guards it
}

// holdBackends finds or makes the backends of a target for p, which holds them from then on.
func (p *plan) holdBackends(route string, t *config.Target) *backends {
	d := p.door
	key := fmt.Sprintf("%s %q %v %s", route, t.Proxy, t.ConnectTimeout, t.SendProxy)
	if t.Health != nil {
		key += fmt.Sprintf(" %+v", *t.Health)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.backends[key]
	if b == nil {
		b = &backends{key: key, route: route, pool: upstream.New(upstream.Options{
			Addresses: t.Proxy, ConnectTimeout: t.ConnectTimeout, SendProxy: t.SendProxy, Health: t.Health,
			Log: d.log.With("route", route),
		})}
		d.backends[key] = b
	}
	b.holders++
	p.backends = append(p.backends, b)
	return b
}

func join(names []string) string { return strings.Join(names, ", ") }
