package route

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Table finds the route of a connection. It does not change, so any number of goroutines may use it at
// once. Its zero value has no routes.
type Table struct {
	exact    map[string]*host // by name
	wildcard map[string]*host // by the name after "*."
	any      host
}

// host has the routes of one host, wildcard, or of all hosts.
type host struct {
	paths *node // nil if no route has a path
	any   rules
}

// MatchError is what is wrong with one match.
type MatchError struct {
	Index int    // of the match
	Field string // "host", "path", "alpn" or "from"
	Err   error  // says what, and quotes the offending value
}

func (e *MatchError) Error() string { return fmt.Sprintf("match %d: %v", e.Index, e.Err) }
func (e *MatchError) Unwrap() error { return e.Err }

// DuplicateError says that two matches are equal, or that two of the hosts and networks in their lists are
// with all the rest equal, so that the connections of both would have two routes.
type DuplicateError struct {
	Index   int    // of the later match
	Earlier int    // of the earlier one
	What    string // matches both, in the form of Match.String
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("match %d and match %d both are for %s", e.Earlier, e.Index, e.What)
}

// New makes a table. The index of a match is what [Table.Lookup] returns for it. New keeps nothing of
// matches.
//
// Its error joins all that is wrong, in the order of the matches: each error that its Unwrap method, which
// returns a slice, has is a [*MatchError] or a [*DuplicateError].
func New(matches []Match) (*Table, error) {
	t := &Table{exact: make(map[string]*host), wildcard: make(map[string]*host)}
	var errs []error
	for i, m := range matches {
		p, wrong := parse(i, m)
		if len(wrong) == 0 {
			wrong = t.add(i, p)
		}
		errs = append(errs, wrong...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return t, nil
}

// parsed is a match in normal form. Lists have one zero value where the match has none.
type parsed struct {
	match    Match
	hosts    []string
	hasPath  bool
	segments []string
	slash    bool
	from     []netip.Prefix
}

func parse(i int, m Match) (p parsed, errs []error) {
	fail := func(field string, err error) {
		errs = append(errs, &MatchError{Index: i, Field: field, Err: err})
	}
	p.match = m
	for _, s := range m.Hosts {
		h, err := NormalizePattern(s)
		if err != nil {
			fail("host", err)
		}
		p.hosts = append(p.hosts, h)
	}
	if p.hasPath = m.Path != ""; p.hasPath {
		var err error
		if p.segments, p.slash, err = parsePath(m.Path); err != nil {
			fail("path", err)
		}
	}
	if len(m.ALPN) > 255 {
		fail("alpn", fmt.Errorf("alpn %.40q… has %d bytes, and its length in one byte (RFC 7301)", m.ALPN, len(m.ALPN)))
	}
	for _, f := range m.From {
		if !f.IsValid() {
			fail("from", fmt.Errorf("network %v is not valid", f))
		}
		p.from = append(p.from, normalizeNetwork(f))
	}
	if p.hosts == nil {
		p.hosts = []string{""}
	}
	if p.from == nil {
		p.from = []netip.Prefix{{}}
	}
	return p, errs
}

// normalizeNetwork clears the host bits, and makes an IPv4 network of one that is written as IPv4-mapped
// IPv6.
func normalizeNetwork(f netip.Prefix) netip.Prefix {
	const mapped = 96 // bits before the IPv4 address
	if f.Addr().Is4In6() && f.Bits() >= mapped {
		f = netip.PrefixFrom(f.Addr().Unmap(), f.Bits()-mapped)
	}
	return f.Masked()
}

// add adds a match, and returns an error for each earlier one that it equals somewhere.
func (t *Table) add(i int, p parsed) (errs []error) {
	reported := make(map[index]bool)
	for _, name := range p.hosts {
		n := t.grow(name).grow(p).grow(p.match.ALPN, p.match.Listener)
		for _, network := range p.from {
			earlier := n.add(network, index(i+1))
			if earlier == index(i+1) || reported[earlier] {
				continue
			}
			reported[earlier] = true
			errs = append(errs, &DuplicateError{Index: i, Earlier: int(earlier - 1), What: p.one(name, network).String()})
		}
	}
	return errs
}

// one is the part of the match that is about one host and one network.
func (p parsed) one(name string, network netip.Prefix) Match {
	m := p.match
	m.Hosts, m.From = nil, nil
	if name != "" {
		m.Hosts = []string{name}
	}
	if network.IsValid() {
		m.From = []netip.Prefix{network}
	}
	return m
}

// grow returns a host by its name in normal form, which it makes if need be.
func (t *Table) grow(name string) *host {
	if name == "" {
		return &t.any
	}
	hosts := t.exact
	if domain, isWildcard := strings.CutPrefix(name, "*."); isWildcard {
		hosts, name = t.wildcard, domain
	}
	if hosts[name] == nil {
		hosts[name] = new(host)
	}
	return hosts[name]
}

// grow returns the rules for the path of p, which it makes if need be.
func (h *host) grow(p parsed) *rules {
	if !p.hasPath {
		return &h.any
	}
	if h.paths == nil {
		h.paths = new(node)
	}
	n := h.paths.grow(p.segments)
	if p.slash {
		return &n.below
	}
	return &n.here
}

// What Lookup returns when there is no route.
const (
	// None means that nothing matches.
	None = -1
	// Ambiguous means that the path can be read in several ways that lead to different routes, or to a route
	// and to none. The connection must not get a route by any other rule either.
	Ambiguous = -2
)

// Lookup returns the index of the most specific match. If there is none, ok is false, and i is [None] or
// [Ambiguous]. It does not allocate and keeps nothing of q. The time that it takes hardly depends on the
// number of routes; it grows with the length of what the client has sent.
func (t *Table) Lookup(q *Query) (i int, ok bool) {
	found := t.lookup(q)
	return int(found) - 1, found > 0
}

// HasHost says whether a match names the host, or a wildcard that it is of, whatever else that match wants.
func (t *Table) HasHost(name string) bool {
	if t.exact[name] != nil {
		return true
	}
	for _, domain, more := strings.Cut(name, "."); more; _, domain, more = strings.Cut(domain, ".") {
		if t.wildcard[domain] != nil {
			return true
		}
	}
	return false
}

func (t *Table) lookup(q *Query) index {
	readable := isReadable(q.Path)
	if found := t.exact[q.Host].route(q, readable); found != 0 {
		return found
	}
	if len(t.wildcard) > 0 {
		for _, domain, more := strings.Cut(q.Host, "."); more; _, domain, more = strings.Cut(domain, ".") {
			if found := t.wildcard[domain].route(q, readable); found != 0 {
				return found
			}
		}
	}
	return t.any.route(q, readable)
}

// route finds the host's most specific route, or 0 for the next host to be tried.
func (h *host) route(q *Query, readable bool) index {
	if h == nil {
		return 0
	}
	if found := h.routeByPath(q, readable); found != 0 {
		return found
	}
	return h.any.route(q)
}

func (h *host) routeByPath(q *Query, readable bool) index {
	if h.paths == nil || !strings.HasPrefix(q.Path, "/") {
		return 0
	}
	if !readable {
		return h.paths.routeAny(q)
	}
	return h.paths.route(q)
}
