package config

import (
	"errors"
	"slices"

	"github.com/go-usher/usher/internal/route"
)

// validator checks what one value alone cannot tell, and brings values into the form that the door reads.
type validator struct {
	*document
	c         *Config
	listeners map[string]*Listener
}

func (d *document) validate(c *Config) {
	v := &validator{document: d, c: c, listeners: make(map[string]*Listener)}
	v.checkListeners()
	v.checkRoutes()
	v.checkEndpoints()
	v.checkAdmin()
	v.checkControl()
}

var (
	listenersPath = (*path)(nil).key("listeners")
	routesPath    = (*path)(nil).key("routes")
	endpointsPath = (*path)(nil).key("endpoints")
	adminPath     = (*path)(nil).key("admin")
	controlPath   = (*path)(nil).key("control")
)

func (v *validator) checkListeners() {
	names := newRegister(v.document)
	places := newRegister(v.document)
	for i := range v.c.Listeners {
		l := &v.c.Listeners[i]
		p := listenersPath.item(i)
		if !v.sound(p.key("address")) || l.Address == "" {
			continue
		}
		at, _, err := listens(l.Address, false)
		if err != nil {
			v.failValue(p.key("address"), "%v", err)
			continue
		}
		if at != "" {
			places.add(string(at), p.key("address"), "%q is where %s listens (line %d)", l.Address)
		}
		v.nameListener(l, p, names)
		v.listeners[l.Name] = l
	}
	if v.c.Admin != nil {
		if at, _, err := listens(v.c.Admin.Address, true); err == nil && at != "" {
			places.add(string(at), adminPath.key("address"), "%q is where %s listens (line %d)", v.c.Admin.Address)
		}
	}
}

func (v *validator) nameListener(l *Listener, p *path, names *register) {
	if l.Name != "" {
		names.add(l.Name, p.key("name"), "%q is also the name of %s (line %d)", l.Name)
		return
	}
	l.Name = l.Address
	names.add(l.Name, p, "without a name it is called %q, as %s is (line %d): name it", l.Name)
}

// register finds what must be there once but is there twice.
type register struct {
	d     *document
	taken map[string]*path
}

func newRegister(d *document) *register { return &register{d, make(map[string]*path)} }

// add tells of an error at p where the text is taken. Its format gets what is shown, the path of the other,
// and the other's line.
func (r *register) add(text string, p *path, format, shown string) {
	other := r.taken[text]
	if other == nil {
		r.taken[text] = p
		return
	}
	owner := other
	if owner.name == "name" || owner.name == "address" {
		owner = owner.parent
	}
	r.d.failValue(p, format, shown, owner, r.d.line(other))
}

func (v *validator) checkRoutes() {
	for i := range v.c.Routes {
		r := &v.c.Routes[i]
		p := routesPath.item(i)
		v.checkMatch(p.key("match"), &r.Match)
		v.checkTarget(p, &r.Target)
		if fallback := p.key("fallback"); r.Fallback != nil {
			if r.Reject {
				v.failKey(fallback, "a route that rejects has no use for it")
			}
			v.checkTarget(fallback, r.Fallback)
		}
	}
	v.checkTable()
	names := newRegister(v.document)
	for i := range v.c.Routes { // last, for two that match the same have one name as well
		v.nameRoute(&v.c.Routes[i], routesPath.item(i), names)
	}
}

// reserved are the names of the routes that are always there, in the status and in metrics.
var reserved = []string{"auto", "none"}

func (v *validator) nameRoute(r *Route, p *path, names *register) {
	if !v.sound(p.key("match")) && r.Name == "" {
		return
	}
	if r.Name != "" {
		if slices.Contains(reserved, r.Name) {
			v.failValue(p.key("name"), "%q is the name of a route that is always there", r.Name)
			return
		}
		names.add(r.Name, p.key("name"), "%q is also the name of %s (line %d)", r.Name)
		return
	}
	r.Name = r.Match.name()
	if slices.Contains(reserved, r.Name) {
		v.failValue(p, "without a name it is called %q, as a route that is always there: name it", r.Name)
		return
	}
	names.add(r.Name, p, "without a name it is called %q, as %s is (line %d): name it", r.Name)
}

// name is that of a route without one.
func (m *Match) name() string {
	if len(m.Host) == 0 && m.Path == "" {
		return "default"
	}
	if len(m.Host) == 0 {
		return m.Path
	}
	return m.Host[0] + m.Path
}

func (v *validator) checkMatch(p *path, m *Match) {
	v.eachOnce(p.key("host"), m.Host, func(host string) (string, error) { return route.NormalizePattern(host) })
	if m.Listener == "" {
		return
	}
	l := v.listeners[m.Listener]
	if l == nil {
		v.noListener(p.key("listener"), m.Listener)
		return
	}
	v.needs(p.key("host"), l, SniffAuto, SniffTLS, SniffHTTP)
	v.needs(p.key("path"), l, SniffAuto, SniffHTTP)
	v.needs(p.key("alpn"), l, SniffAuto, SniffTLS)
}

// noListener is silent where a listener that has an error may be the one.
func (v *validator) noListener(p *path, name string) {
	if !v.sound(listenersPath) {
		return
	}
	var names []string
	for i := range v.c.Listeners {
		names = append(names, v.c.Listeners[i].Name)
	}
	v.failValue(p, "there is no listener %q%s", name, didYouMean(name, names))
}

// needs tells of an error where the file has a condition that a listener never learns enough for.
func (v *validator) needs(p *path, l *Listener, modes ...Sniff) {
	if !slices.Contains(modes, l.Sniff) && v.has(p) && v.sound(listenersPath) {
		v.failKey(p, "makes no sense with the listener %s, whose sniff is %s", l.Name, l.Sniff)
	}
}

// eachOnce brings the items of a list into normal form, and finds those that are there twice.
func (v *validator) eachOnce(p *path, list []string, normalize func(string) (string, error)) {
	seen := make(map[string]bool, len(list))
	for i, text := range list {
		item := p.item(i)
		if !v.sound(item) {
			continue
		}
		normal, err := normalize(text)
		if err != nil {
			v.failValue(item, "%v", err)
			continue
		}
		if seen[normal] {
			v.failValue(item, "%q is in the list twice", text)
		}
		seen[normal] = true
		list[i] = normal
	}
}

// kinds are the targets that exclude each other, and the options of each.
var kinds = []struct {
	name    string
	options []string
}{
	{"handoff", []string{"handoff_timeout"}},
	{"proxy", []string{"connect_timeout", "send_proxy", "health"}},
	{"reject", nil},
}

func (v *validator) checkTarget(p *path, t *Target) {
	v.eachOnce(p.key("handoff"), t.Handoff, func(s string) (string, error) { return s, checkEndpoint(s) })
	v.eachOnce(p.key("proxy"), t.Proxy, func(s string) (string, error) { return s, checkBackend(s) })
	kind := v.kind(p, t)
	for _, k := range kinds {
		for _, option := range k.options {
			if kind != "" && k.name != kind && v.has(p.key(option)) {
				v.failKey(p.key(option), "is an option of %s, and the target is %s", k.name, kind)
			}
		}
	}
	if t.Health != nil {
		v.checkHealth(p.key("health"), t.Health)
	}
}

// kind tells which target the file has, empty if that is unclear, which it tells of.
func (v *validator) kind(p *path, t *Target) string {
	var found []string
	for _, k := range kinds {
		at := p.key(k.name)
		if v.has(at) && (k.name != "reject" || t.Reject || !v.sound(at)) {
			found = append(found, k.name)
		}
	}
	switch {
	case len(found) == 1:
		return found[0]
	case len(found) > 1:
		v.failKey(p.key(found[1]), "a target is either %s or %s", found[0], found[1])
	case !v.broken[p.String()]:
		_, n, _ := v.find(p)
		v.fail(p, n, "no target: it needs one of handoff, proxy and reject: true")
	}
	return ""
}

func (v *validator) checkHealth(p *path, h *Health) {
	if h.Path != "" {
		if err := checkCheckPath(h.Path); err != nil {
			v.failValue(p.key("path"), "%v", err)
		}
	}
	if h.Host == "" {
		return
	}
	if !v.has(p.key("path")) {
		v.failKey(p.key("host"), "is an option of path: without one the check sends no request")
	}
	if err := checkCheckHost(h.Host); err != nil {
		v.failValue(p.key("host"), "%v", err)
	}
}

// checkTable leaves to package route what only it knows: which paths can be, and which matches are the same.
func (v *validator) checkTable() {
	matches := make([]route.Match, 0, len(v.c.Routes))
	indexes := make([]int, 0, len(v.c.Routes)) // of the routes that they are of
	for i := range v.c.Routes {
		if m := &v.c.Routes[i].Match; v.sound(routesPath.item(i).key("match")) {
			matches = append(matches, route.Match{Hosts: m.Host, Path: m.Path, ALPN: m.ALPN, Listener: m.Listener, From: m.From})
			indexes = append(indexes, i)
		}
	}
	_, err := route.New(matches)
	if err == nil {
		return
	}
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		if one := (*route.MatchError)(nil); errors.As(err, &one) {
			v.failValue(routesPath.item(indexes[one.Index]).key("match").key(one.Field), "%v", one.Err)
		}
		if two := (*route.DuplicateError)(nil); errors.As(err, &two) {
			other := routesPath.item(indexes[two.Earlier])
			p := routesPath.item(indexes[two.Index]).key("match")
			_, n, _ := v.find(p)
			v.fail(p, n, "%s (line %d) matches the same: %s", other, v.line(other.key("match")), two.What)
		}
	}
}

func (v *validator) checkEndpoints() {
	for name := range v.c.Endpoints.Pin {
		p := endpointsPath.key("pin").key(name)
		if err := checkEndpoint(name); err != nil && v.sound(p) {
			v.failKey(p, "%v", err)
		}
	}
}

func (v *validator) checkAdmin() {
	p := adminPath.key("address")
	if v.c.Admin == nil || !v.sound(p) {
		return
	}
	_, addr, err := listens(v.c.Admin.Address, true)
	if err != nil {
		v.failValue(p, "%v", err)
		return
	}
	if addr != (hostPort{}) && !addr.isLoopback() && !v.c.Admin.AllowRemote {
		v.failValue(p, "%q is not a loopback address: whoever can connect can see everything; allow_remote: true allows that", v.c.Admin.Address)
	}
}

func (v *validator) checkControl() {
	if err := checkEndpoint(v.c.Control); err != nil && v.sound(controlPath) {
		v.failValue(controlPath, "%v", err)
	}
}
