package route

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// This is the package once more, slow and plain: every host and network of every match is a rule, a lookup
// looks at all of them for all readings of the path, and the most specific one that matches wins.

type rule struct {
	index    int
	host     string // in normal form, as a pattern
	hasPath  bool
	path     []string // decoded; the last is empty if the path ends in a slash
	alpn     string
	listener string
	from     netip.Prefix
}

func ruleSet(matches []Match) (set []rule) {
	for i, m := range matches {
		names, networks := m.Hosts, m.From
		if len(names) == 0 {
			names = []string{""}
		}
		if len(networks) == 0 {
			networks = []netip.Prefix{{}}
		}
		for _, name := range names {
			for _, network := range networks {
				r := rule{index: i, hasPath: m.Path != "", alpn: m.ALPN, listener: m.Listener, from: network.Masked()}
				if name != "" {
					r.host, _ = NormalizePattern(name)
				}
				if r.hasPath {
					r.path = decodeAll(strings.Split(m.Path[1:], "/"))
				}
				set = append(set, r)
			}
		}
	}
	return set
}

func (r rule) equal(other rule) bool {
	return r.host == other.host && r.hasPath == other.hasPath && slices.Equal(r.path, other.path) &&
		r.alpn == other.alpn && r.listener == other.listener && r.from == other.from
}

func (r rule) matches(q *Query, path []string) bool {
	return r.matchesHost(q.Host) && r.matchesPath(path) &&
		(r.alpn == "" || slices.Contains(q.ALPN, r.alpn)) &&
		(r.listener == "" || r.listener == q.Listener) &&
		(!r.from.IsValid() || r.from.Contains(q.Client.Unmap().WithZone("")))
}

func (r rule) matchesHost(host string) bool {
	if domain, isWildcard := strings.CutPrefix(r.host, "*"); isWildcard {
		return strings.HasSuffix(host, domain)
	}
	return r.host == "" || r.host == host
}

// matchesPath takes a reading of the path, nil if there is none.
func (r rule) matchesPath(path []string) bool {
	if !r.hasPath {
		return true
	}
	prefix, isBelow := r.path, r.path[len(r.path)-1] == ""
	if isBelow {
		prefix = prefix[:len(prefix)-1]
	}
	return path != nil && len(path) >= len(r.path) && slices.Equal(path[:len(prefix)], prefix)
}

// specificity is what to compare, in this order.
func (r rule) specificity(q *Query) []int {
	host, path, alpn, listener, from := 1000, -1, -len(q.ALPN), 0, -1
	if domain, isWildcard := strings.CutPrefix(r.host, "*"); isWildcard {
		host = len(domain)
	}
	if r.host == "" {
		host = 0
	}
	if r.hasPath {
		path = len(strings.Join(r.path, "/"))
	}
	if r.alpn != "" {
		alpn = -slices.Index(q.ALPN, r.alpn)
	}
	if r.listener != "" {
		listener = 1
	}
	if r.from.IsValid() {
		from = r.from.Bits()
	}
	return []int{host, path, alpn, listener, from}
}

func best(set []rule, q *Query, path []string) int {
	found := None
	var highest []int
	for _, r := range set {
		if r.matches(q, path) && (found == None || slices.Compare(r.specificity(q), highest) > 0) {
			found, highest = r.index, r.specificity(q)
		}
	}
	return found
}

// lookup is what Lookup should return.
func lookup(set []rule, q *Query) int {
	if !strings.HasPrefix(q.Path, "/") {
		return best(set, q, nil)
	}
	if climbs(q.Path) {
		return lookupClimbing(set, q)
	}
	return agreement(set, q)
}

// agreement is the route on which all readings of the path agree.
func agreement(set []rule, q *Query) int {
	all := readings(q.Path)
	found := best(set, q, all[0])
	for _, path := range all[1:] {
		if best(set, q, path) != found {
			return Ambiguous
		}
	}
	return found
}

// lookupClimbing tries one host after the other.
func lookupClimbing(set []rule, q *Query) int {
	var names []string
	for _, r := range set {
		if r.matchesHost(q.Host) && !slices.Contains(names, r.host) {
			names = append(names, r.host)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return slices.Compare(rule{host: b}.specificity(q), rule{host: a}.specificity(q))
	})
	for _, name := range names {
		ofHost := slices.DeleteFunc(slices.Clone(set), func(r rule) bool { return r.host != name })
		if slices.ContainsFunc(ofHost, func(r rule) bool { return r.hasPath && !slices.Equal(r.path, []string{""}) }) {
			return Ambiguous
		}
		if found := best(ofHost, q, []string{""}); found != None {
			return found
		}
	}
	return None
}

// climbs tells whether a path has two dots between anything like a slash, or cannot be decoded.
func climbs(path string) bool {
	text, err := url.PathUnescape(path)
	if err != nil || strings.Contains(text, "\x00") {
		return true
	}
	for s := range strings.SplitSeq(strings.ReplaceAll(text, `\`, "/"), "/") {
		if name, _, _ := strings.Cut(s, ";"); name == ".." {
			return true
		}
	}
	return false
}

// server is how some server reads a path.
type server struct {
	encodedSlashes bool // takes %2F and %5C for a slash and a backslash
	backslashes    bool // takes a backslash for a slash
	parameters     bool // drops what follows a semicolon in a segment
	empties        bool // drops empty segments
	dots           bool // drops "." and resolves ".."
	trims          bool // and leaves no slash at the end where it dropped something there
}

// readings are the segments that servers of all kinds see, the first one's as sent.
func readings(path string) (all [][]string) {
	for i := range 1 << 6 {
		is := func(bit int) bool { return i>>bit&1 == 1 }
		all = append(all, server{is(0), is(1), is(2), is(3), is(4), is(5)}.read(path))
	}
	return all
}

var slashes = strings.NewReplacer("%2f", "/", "%2F", "/", "%5c", `\`, "%5C", `\`)

func (s server) read(path string) []string {
	if s.encodedSlashes {
		path = slashes.Replace(path)
	}
	if s.backslashes {
		path = strings.ReplaceAll(path, `\`, "/")
	}
	segments := decodeAll(strings.Split(path[1:], "/"))
	if s.parameters {
		for i := range segments {
			segments[i], _, _ = strings.Cut(segments[i], ";")
		}
	}
	dropped := false // from the end
	var kept []string
	for i, name := range segments {
		isLast := i == len(segments)-1
		switch {
		case s.dots && name == "..":
			kept = kept[:max(len(kept)-1, 0)]
			dropped = true
		case s.dots && name == ".", s.empties && name == "" && !isLast:
			dropped = true
		case isLast && name == "":
			dropped = dropped || strings.HasSuffix(path, ";") || !strings.HasSuffix(path, "/")
			if !dropped || !s.trims {
				return append(kept, "")
			}
		default:
			dropped = false
			kept = append(kept, name)
			continue
		}
	}
	if len(kept) == 0 || dropped && !s.trims {
		kept = append(kept, "")
	}
	return kept
}

// decodeAll leaves segments alone that cannot be decoded.
func decodeAll(segments []string) []string {
	for i, s := range segments {
		if text, err := url.PathUnescape(s); err == nil {
			segments[i] = text
		}
	}
	return segments
}

func TestTheReferenceReadsPathsAsServersDo(t *testing.T) {
	for _, test := range []struct {
		name   string
		server server
		path   string
		want   []string
	}{
		{"a plain path", server{}, "/a/b", []string{"a", "b"}},
		{"a plain path with a slash", server{true, true, true, true, true, true}, "/a/b/", []string{"a", "b", ""}},
		{"the root", server{true, true, true, true, true, true}, "/", []string{""}},
		{"anything as sent", server{}, `//a\b%2Fc;d/./..`, []string{"", `a\b/c;d`, ".", ".."}},
		{"Go's ServeMux", server{empties: true, dots: true}, "//a/./b/../c%2Fd//", []string{"a", "c/d", ""}},
		{"nginx", server{encodedSlashes: true, empties: true, dots: true}, "/a%2f..%2Fb", []string{"b"}},
		{"Tomcat", server{parameters: true, empties: true, dots: true}, "/a;x/..;y/b;z=1", []string{"b"}},
		{"IIS", server{encodedSlashes: true, backslashes: true, empties: true, dots: true}, `/a%5Cb\c`, []string{"a", "b", "c"}},
		{"path.Clean", server{empties: true, dots: true, trims: true}, "/a/b/.", []string{"a", "b"}},
		{"path.Clean of slashes", server{empties: true, dots: true, trims: true}, "/a//", []string{"a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.server.read(test.path); !slices.Equal(got, test.want) {
				t.Errorf("read(%q) = %q; want %q", test.path, got, test.want)
			}
		})
	}
}

// choices makes tables and queries of bytes, random ones or a fuzzer's. When they run out, all choices are 0.
type choices []byte

func (c *choices) number(n int) int {
	if len(*c) == 0 {
		return 0
	}
	b := (*c)[0]
	*c = (*c)[1:]
	return int(b) % n
}

func pick[T any](c *choices, from ...T) T { return from[c.number(len(from))] }

// Few words, so that much of it is equal, and in several spellings.
var (
	someHosts     = []string{"a", "A.", "b.a", "c.b.a", "bücher.a", "xn--bcher-kva.a", "*.a", "*.B.a", "*.b.a", "*.c.b.a", "10.0.0.1", "::1", "[::1]"}
	someAskedFor  = []string{"", "a", "b.a", "c.b.a", "d.c.b.a", "xn--bcher-kva.a", "10.0.0.1", "::1", "x"}
	someSegments  = []string{"a", "b", "%61", "ä", "%C3%A4", "..."}
	somePieces    = []string{"/", "/", "/", "a", "b", "a", "b", "/a", "/b", "%61", "%C3%A4", ".", "/.", "/..", "..", "%2e", "//", `\`, "%2F", "%5c", ";", "%3b", "%", "%00", "%25", "..."}
	someProtocols = []string{"h2", "http/1.1", "x"}
	someListeners = []string{"", "", "web", "tls"}
	someNetworks  = prefixes("0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "2001:db8::/32", "2001:db8::1/128")
	someClients   = []string{"", "10.0.0.1", "10.1.2.3", "::ffff:10.1.2.3", "11.0.0.1", "2001:db8::1", "fe80::1%eth0"}
)

func (c *choices) matches() (list []Match) {
	for range c.number(24) {
		list = append(list, c.match())
	}
	return list
}

func (c *choices) match() (m Match) {
	for range c.number(3) {
		m.Hosts = append(m.Hosts, pick(c, someHosts...))
	}
	for range c.number(4) {
		m.Path += "/" + pick(c, someSegments...)
	}
	m.Path += pick(c, "", "", "/")
	m.ALPN = pick(c, "", "", "h2", "http/1.1")
	m.Listener = pick(c, someListeners...)
	for range c.number(3) * c.number(2) {
		m.From = append(m.From, pick(c, someNetworks...))
	}
	return m
}

func (c *choices) query() *Query {
	q := &Query{Host: pick(c, someAskedFor...), Listener: pick(c, someListeners...)}
	if c.number(5) > 0 {
		q.Path = "/"
		for range c.number(7) {
			q.Path += pick(c, somePieces...)
		}
	}
	for range c.number(4) {
		q.ALPN = append(q.ALPN, pick(c, someProtocols...))
	}
	q.Client, _ = netip.ParseAddr(pick(c, someClients...))
	return q
}

// pair are the indexes of two matches that are equal somewhere, the earlier one first.
type pair [2]int

// distinct checks that New refuses what the reference finds equal, and nothing else, and returns the rest.
func distinct(t *testing.T, matches []Match) (rest []Match) {
	t.Helper()
	want := duplicates(ruleSet(matches))
	if got := refused(t, matches); !slices.Equal(got, want) {
		t.Fatalf("New of %v finds %v equal; want %v", matches, got, want)
	}
	for i, m := range matches {
		if !slices.ContainsFunc(want, func(p pair) bool { return p[1] == i }) {
			rest = append(rest, m)
		}
	}
	return rest
}

func duplicates(set []rule) (list []pair) {
	for i, r := range set {
		first := slices.IndexFunc(set[:i+1], r.equal)
		if p := (pair{set[first].index, r.index}); p[0] != p[1] {
			list = append(list, p)
		}
	}
	return sortedSet(list)
}

func refused(t *testing.T, matches []Match) (list []pair) {
	t.Helper()
	_, err := New(matches)
	if err == nil {
		return nil
	}
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		var e *DuplicateError
		if !errors.As(err, &e) {
			t.Fatalf("New of %v: %v", matches, err)
		}
		list = append(list, pair{e.Earlier, e.Index})
	}
	return sortedSet(list)
}

func sortedSet(list []pair) []pair {
	slices.SortFunc(list, func(a, b pair) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(list)
}

func compare(t *testing.T, table *Table, matches []Match, set []rule, q *Query) {
	t.Helper()
	got, ok := table.Lookup(q)
	if want := lookup(set, q); got != want || ok != (want >= 0) {
		t.Fatalf("Lookup(%+v) in %v = %d, %v; want %d", *q, matches, got, ok, want)
	}
	if !ok || !strings.HasPrefix(q.Path, "/") {
		return
	}
	if agreed := agreement(set, q); got != agreed { // also where it climbs
		t.Fatalf("Lookup(%+v) in %v = %d, but a server may read the path as that of another", *q, matches, got)
	}
}

func TestLookupAgreesWithTheReference(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	found := 0
	for range 1000 {
		c := make(choices, 4096)
		random.Read(c)
		matches := distinct(t, c.matches())
		table, set := newTable(t, matches...), ruleSet(matches)
		for range 20 {
			q := c.query()
			compare(t, table, matches, set, q)
			if _, ok := table.Lookup(q); ok {
				found++
			}
		}
	}
	if found < 2000 || found > 18000 {
		t.Errorf("%d of 20000 queries have a route: too one-sided to tell much", found)
	}
}

func FuzzLookup(f *testing.F) {
	random := rand.NewChaCha8([32]byte{2})
	for _, path := range []string{"", "/", "/a/b", "/%61//b", "/a;x/b", `/a\b%2Fa`, "/a/..;/b", "/a/.", "/a/./", "/a//", "/%", "*", "/a/;"} {
		c := make([]byte, 300)
		random.Read(c)
		f.Add(c, "c.b.a", path)
	}
	f.Fuzz(func(t *testing.T, data []byte, host, path string) {
		c := choices(data)
		q := c.query()
		matches := distinct(t, c.matches())
		table, set := newTable(t, matches...), ruleSet(matches)
		compare(t, table, matches, set, q)
		q.Host, q.Path = host, path
		compare(t, table, matches, set, q)
	})
}
