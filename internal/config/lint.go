package config

import (
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// lint warns of what this machine does not have, and of what has no effect.
func (d *document) lint(c *Config) {
	d.lintRoutes(c)
	p := endpointsPath
	for i, name := range c.Endpoints.Users {
		d.lintUser(p.key("users").item(i), name)
	}
	for i, name := range c.Endpoints.Groups {
		d.lintGroup(p.key("groups").item(i), name)
	}
	for endpoint, name := range c.Endpoints.Pin {
		d.lintUser(p.key("pin").key(endpoint), name)
		if !c.AutoRoutes && !c.handsTo(endpoint) {
			d.warn(p.key("pin").key(endpoint), "no route hands over to this endpoint")
		}
	}
}

func (d *document) lintRoutes(c *Config) {
	if len(c.Routes) == 0 && !c.AutoRoutes {
		d.warn(nil, "there are no routes, and auto_routes is off: every connection will be refused")
	}
	for i := range c.Routes {
		if m := &c.Routes[i].Match; m.ALPN != "" && m.Path != "" {
			d.warn(routesPath.item(i).key("match"), "matches nothing: clients offer ALPN in TLS, in which no path can be seen")
		}
	}
}

func (c *Config) handsTo(endpoint string) bool {
	return slices.ContainsFunc(c.Routes, func(r Route) bool {
		return slices.Contains(r.Handoff, endpoint) || r.Fallback != nil && slices.Contains(r.Fallback.Handoff, endpoint)
	})
}

func (d *document) lintUser(p *path, name string) {
	if isID(name) {
		return
	}
	if _, err := user.Lookup(name); err != nil {
		d.warn(p, "this machine knows no user %q: a door here would not start", name)
	}
}

func (d *document) lintGroup(p *path, name string) {
	if isID(name) {
		return
	}
	if _, err := user.LookupGroup(name); err != nil {
		d.warn(p, "this machine knows no group %q: a door here would not start", name)
	}
}

// isID tells of a number or a SID, which need no name to exist.
func isID(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil || strings.HasPrefix(s, "S-1-")
}
