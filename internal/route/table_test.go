package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

func prefixes(s ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range s {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

func hosts(s ...string) []string { return s }

func newTable(t testing.TB, matches ...Match) *Table {
	t.Helper()
	table, err := New(matches)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// checkLookup looks up in the matches and, since their order must not matter, in the matches reversed.
func checkLookup(t *testing.T, matches []Match, q Query, want int) {
	t.Helper()
	if got, ok := newTable(t, matches...).Lookup(&q); got != want || ok != (want >= 0) {
		t.Errorf("Lookup = %d, %v; want %d", got, ok, want)
	}
	reversed := slices.Clone(matches)
	slices.Reverse(reversed)
	if want >= 0 {
		want = len(matches) - 1 - want
	}
	if got, ok := newTable(t, reversed...).Lookup(&q); got != want || ok != (want >= 0) {
		t.Errorf("with the matches reversed, Lookup = %d, %v; want %d", got, ok, want)
	}
}

func TestTheMostSpecificMatchWins(t *testing.T) {
	client := netip.MustParseAddr
	for _, test := range []struct {
		name    string
		matches []Match
		query   Query
		want    int
	}{
		{"an empty table matches nothing", nil, Query{Host: "example.com", Path: "/"}, None},
		{"the empty match matches the empty query", []Match{{}}, Query{}, 0},
		{"the empty match matches everything", []Match{{}}, Query{Host: "example.com", Path: "/x", ALPN: []string{"h2"}, Listener: "web", Client: client("10.0.0.1")}, 0},

		{"an exact host matches", []Match{{Hosts: hosts("example.com")}}, Query{Host: "example.com"}, 0},
		{"an exact host does not match a subdomain", []Match{{Hosts: hosts("example.com")}}, Query{Host: "www.example.com"}, None},
		{"an exact host does not match an unknown host", []Match{{Hosts: hosts("example.com")}}, Query{}, None},
		{"every host of a list matches", []Match{{Hosts: hosts("a.example", "b.example")}}, Query{Host: "b.example"}, 0},
		{"a host is brought into normal form", []Match{{Hosts: hosts("BÜCHER.example.")}}, Query{Host: "xn--bcher-kva.example"}, 0},
		{"an IPv4 address is a host", []Match{{Hosts: hosts("10.0.0.1")}}, Query{Host: "10.0.0.1"}, 0},
		{"an IPv6 address in brackets is a host", []Match{{Hosts: hosts("[2001:DB8:0::1]")}}, Query{Host: "2001:db8::1"}, 0},
		{"an IPv6 address without brackets is a host", []Match{{Hosts: hosts("2001:db8::1")}}, Query{Host: "2001:db8::1"}, 0},

		{"a wildcard matches a subdomain", []Match{{Hosts: hosts("*.example.com")}}, Query{Host: "www.example.com"}, 0},
		{"a wildcard matches any number of labels", []Match{{Hosts: hosts("*.example.com")}}, Query{Host: "a.b.c.example.com"}, 0},
		{"a wildcard does not match its own domain", []Match{{Hosts: hosts("*.example.com")}}, Query{Host: "example.com"}, None},
		{"a wildcard does not match within a label", []Match{{Hosts: hosts("*.example.com")}}, Query{Host: "www.myexample.com"}, None},
		{"a wildcard does not match an unknown host", []Match{{Hosts: hosts("*.example.com")}}, Query{}, None},
		{"a wildcard of a top-level domain matches", []Match{{Hosts: hosts("*.test")}}, Query{Host: "a.test"}, 0},

		{"an exact host comes before a wildcard", []Match{{Hosts: hosts("*.example.com")}, {Hosts: hosts("www.example.com")}}, Query{Host: "www.example.com"}, 1},
		{"a long wildcard comes before a short one", []Match{{Hosts: hosts("*.com")}, {Hosts: hosts("*.b.example.com")}, {Hosts: hosts("*.example.com")}}, Query{Host: "a.b.example.com"}, 1},
		{"a wildcard comes before no host", []Match{{}, {Hosts: hosts("*.com")}}, Query{Host: "example.com"}, 1},
		{"a host comes before a path", []Match{{Path: "/long/path"}, {Hosts: hosts("*.com")}}, Query{Host: "example.com", Path: "/long/path"}, 1},

		{"an exact host whose path does not match gives way to a wildcard", []Match{{Hosts: hosts("a.example"), Path: "/api"}, {Hosts: hosts("*.example")}}, Query{Host: "a.example", Path: "/"}, 1},
		{"an exact host whose ALPN does not match gives way to a wildcard", []Match{{Hosts: hosts("a.example"), ALPN: "h2"}, {Hosts: hosts("*.example")}}, Query{Host: "a.example", ALPN: []string{"http/1.1"}}, 1},
		{"an exact host whose listener does not match gives way to a wildcard", []Match{{Hosts: hosts("a.example"), Listener: "web"}, {Hosts: hosts("*.example")}}, Query{Host: "a.example", Listener: "tls"}, 1},
		{"an exact host whose network does not match gives way to a wildcard", []Match{{Hosts: hosts("a.example"), From: prefixes("10.0.0.0/8")}, {Hosts: hosts("*.example")}}, Query{Host: "a.example", Client: client("11.0.0.1")}, 1},
		{"a wildcard that does not match gives way to a shorter one", []Match{{Hosts: hosts("*.b.example"), ALPN: "h2"}, {Hosts: hosts("*.example")}}, Query{Host: "a.b.example"}, 1},
		{"hosts that do not match give way to the match-all", []Match{{Hosts: hosts("a.example"), ALPN: "h2"}, {Hosts: hosts("*.example"), Listener: "web"}, {}}, Query{Host: "a.example"}, 2},
		{"a long path whose ALPN does not match gives way to a short one", []Match{{Path: "/a/b", ALPN: "h2"}, {Path: "/a"}}, Query{Path: "/a/b"}, 1},
		{"a path whose listener does not match gives way to no path", []Match{{Path: "/a", Listener: "web"}, {}}, Query{Path: "/a"}, 1},
		{"an ALPN whose network does not match gives way to none", []Match{{ALPN: "h2", From: prefixes("10.0.0.0/8")}, {}}, Query{ALPN: []string{"h2"}, Client: client("11.0.0.1")}, 1},
		{"a listener whose network does not match gives way to none", []Match{{Listener: "web", From: prefixes("10.0.0.0/8")}, {}}, Query{Listener: "web", Client: client("11.0.0.1")}, 1},

		{"the longest path wins", []Match{{Path: "/"}, {Path: "/a/b"}, {Path: "/a"}}, Query{Path: "/a/b/c"}, 1},
		{"a path with a slash at its end is longer", []Match{{Path: "/a"}, {Path: "/a/"}}, Query{Path: "/a/"}, 1},
		{"the root path comes before no path", []Match{{}, {Path: "/"}}, Query{Path: "/x"}, 1},
		{"a path comes before an ALPN", []Match{{ALPN: "h2"}, {Path: "/"}}, Query{Path: "/", ALPN: []string{"h2"}}, 1},
		{"a path does not match where there is none", []Match{{Path: "/"}}, Query{Host: "example.com"}, None},
		{"a path does not match that of OPTIONS *", []Match{{Path: "/"}}, Query{Path: "*"}, None},
		{"no path matches that of OPTIONS *", []Match{{}}, Query{Path: "*"}, 0},

		{"an ALPN matches what is offered anywhere in the list", []Match{{ALPN: "h2"}}, Query{ALPN: []string{"h3", "h2"}}, 0},
		{"an ALPN does not match another one", []Match{{ALPN: "h2"}}, Query{ALPN: []string{"http/1.1"}}, None},
		{"an ALPN does not match no offer", []Match{{ALPN: "h2"}}, Query{}, None},
		{"an ALPN comes before none", []Match{{}, {ALPN: "h2"}}, Query{ALPN: []string{"http/1.1", "h2"}}, 1},
		{"an ALPN comes before a listener", []Match{{Listener: "web"}, {ALPN: "h2"}}, Query{ALPN: []string{"h2"}, Listener: "web"}, 1},
		{"of two ALPNs the client's first wins", []Match{{ALPN: "http/1.1"}, {ALPN: "h2"}}, Query{ALPN: []string{"h2", "http/1.1"}}, 1},
		{"of two ALPNs the client's first wins the other way round", []Match{{ALPN: "http/1.1"}, {ALPN: "h2"}}, Query{ALPN: []string{"http/1.1", "h2"}}, 0},
		{"the client's order comes before a listener", []Match{{ALPN: "http/1.1", Listener: "web"}, {ALPN: "h2"}}, Query{ALPN: []string{"h2", "http/1.1"}, Listener: "web"}, 1},

		{"a listener matches its own name only", []Match{{Listener: "web"}}, Query{Listener: "tls"}, None},
		{"a listener comes before none", []Match{{}, {Listener: "web"}}, Query{Listener: "web"}, 1},
		{"a listener comes before a network", []Match{{From: prefixes("10.0.0.1/32")}, {Listener: "web"}}, Query{Listener: "web", Client: client("10.0.0.1")}, 1},

		{"every network of a list matches", []Match{{From: prefixes("10.0.0.0/8", "192.168.0.0/16")}}, Query{Client: client("192.168.1.1")}, 0},
		{"the smallest network wins", []Match{{From: prefixes("10.0.0.0/8")}, {From: prefixes("10.1.1.0/24")}, {From: prefixes("10.1.0.0/16")}}, Query{Client: client("10.1.1.1")}, 1},
		{"the network of everyone comes before none", []Match{{}, {From: prefixes("0.0.0.0/0")}}, Query{Client: client("10.1.1.1")}, 1},
		{"host bits of a network are ignored", []Match{{From: prefixes("10.1.2.3/8")}}, Query{Client: client("10.9.9.9")}, 0},
		{"a client in IPv4-mapped IPv6 is in IPv4 networks", []Match{{From: prefixes("10.0.0.0/8")}}, Query{Client: client("::ffff:10.0.0.1")}, 0},
		{"a network in IPv4-mapped IPv6 has IPv4 clients", []Match{{From: prefixes("::ffff:10.0.0.0/104")}}, Query{Client: client("10.0.0.1")}, 0},
		{"the network of all IPv4-mapped addresses is that of all IPv4", []Match{{From: prefixes("::ffff:0.0.0.0/96")}}, Query{Client: client("10.0.0.1")}, 0},
		{"an IPv4 client is not in an IPv6 network", []Match{{From: prefixes("::/0")}}, Query{Client: client("::ffff:10.0.0.1")}, None},
		{"an IPv6 client is not in an IPv4 network", []Match{{From: prefixes("0.0.0.0/0")}}, Query{Client: client("2001:db8::1")}, None},
		{"an IPv6 client with a zone is in its network", []Match{{From: prefixes("fe80::/10")}}, Query{Client: client("fe80::1%eth0")}, 0},
		{"a client without an address is in no network", []Match{{From: prefixes("0.0.0.0/0", "::/0")}}, Query{}, None},
	} {
		t.Run(test.name, func(t *testing.T) { checkLookup(t, test.matches, test.query, test.want) })
	}
}

func TestNewRefuses(t *testing.T) {
	for _, test := range []struct {
		name, field, text string
		match             Match
	}{
		{"a host with a port", "host", `host "a.example:80" has a port`, Match{Hosts: hosts("a.example:80")}},
		{"an empty host", "host", `host is empty`, Match{Hosts: hosts("")}},
		{"a path without a slash", "path", `path "api" does not start with a slash`, Match{Path: "api"}},
		{"a path with a query", "path", `path "/a?b" has '?'`, Match{Path: "/a?b"}},
		{"a path with a fragment", "path", `path "/a#b" has '#'`, Match{Path: "/a#b"}},
		{"a path with a bad escape", "path", `a '%' without two hexadecimal digits`, Match{Path: "/%6"}},
		{"a path with a zero byte", "path", `a zero byte`, Match{Path: "/%00"}},
		{"a path with an empty segment", "path", `an empty segment`, Match{Path: "/a//b"}},
		{"a path that starts with two slashes", "path", `an empty segment`, Match{Path: "//a"}},
		{"a path that ends in two slashes", "path", `an empty segment`, Match{Path: "/a//"}},
		{"a path with a dot for a segment", "path", `the segment "."`, Match{Path: "/./a"}},
		{"a path with two dots for a segment", "path", `the segment ".."`, Match{Path: "/a/.."}},
		{"a path with encoded dots for a segment", "path", `the segment "%2E."`, Match{Path: "/%2E./a"}},
		{"a path with a backslash", "path", `a backslash`, Match{Path: `/a\b`}},
		{"a path with an encoded slash", "path", `an encoded slash`, Match{Path: "/a%2fb"}},
		{"a path with a semicolon", "path", `a semicolon`, Match{Path: "/a;b"}},
		{"a path with a very long segment", "path", `a segment of 256 bytes, limit 255`, Match{Path: "/" + strings.Repeat("a", 256)}},
		{"a very long ALPN", "alpn", `has 256 bytes`, Match{ALPN: strings.Repeat("a", 256)}},
		{"a network that is none", "from", `not valid`, Match{From: []netip.Prefix{{}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := New([]Match{{}, test.match})
			var e *MatchError
			if !errors.As(err, &e) {
				t.Fatalf("New: %v; want a MatchError", err)
			}
			if e.Index != 1 || e.Field != test.field || !strings.Contains(e.Error(), test.text) || !strings.HasPrefix(e.Error(), "match 1: ") {
				t.Errorf("New: index %d, field %q, %v; want 1, %q, %s", e.Index, e.Field, e, test.field, test.text)
			}
		})
	}
}

func TestNewRefusesMatchesThatAreEqual(t *testing.T) {
	for _, test := range []struct {
		name        string
		first, then Match
		what        string
	}{
		{"two empty ones", Match{}, Match{}, "everything"},
		{"hosts that differ in case", Match{Hosts: hosts("a.example")}, Match{Hosts: hosts("A.EXAMPLE.")}, "a.example"},
		{"hosts that differ in encoding", Match{Hosts: hosts("bücher.example")}, Match{Hosts: hosts("xn--bcher-kva.example")}, "xn--bcher-kva.example"},
		{"wildcards that differ in case", Match{Hosts: hosts("*.a.example")}, Match{Hosts: hosts("*.A.example")}, "*.a.example"},
		{"addresses that differ in spelling", Match{Hosts: hosts("[::1]")}, Match{Hosts: hosts("0:0::1")}, "::1"},
		{"one host of a list", Match{Hosts: hosts("a.example", "b.example")}, Match{Hosts: hosts("c.example", "b.example")}, "b.example"},
		{"paths that differ in encoding", Match{Path: "/%7Eme/%c3%a4"}, Match{Path: "/~me/ä"}, "/~me/ä"},
		{"one network of a list", Match{From: prefixes("10.0.0.0/8", "11.0.0.0/8")}, Match{From: prefixes("12.0.0.0/8", "11.0.0.0/8")}, "everything (from 11.0.0.0/8)"},
		{"networks that differ in host bits", Match{From: prefixes("10.0.0.0/8")}, Match{From: prefixes("10.1.0.0/8")}, "everything (from 10.0.0.0/8)"},
		{"networks that differ in family", Match{From: prefixes("10.0.0.0/8")}, Match{From: prefixes("::ffff:10.0.0.0/104")}, "everything (from 10.0.0.0/8)"},
		{
			"ones that name everything",
			Match{Hosts: hosts("a.example"), Path: "/a/", ALPN: "h2", Listener: "web", From: prefixes("10.0.0.0/8")},
			Match{Hosts: hosts("a.example"), Path: "/a/", ALPN: "h2", Listener: "web", From: prefixes("10.0.0.0/8")},
			"a.example/a/ (alpn h2, listener web, from 10.0.0.0/8)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := New([]Match{{Listener: "other"}, test.first, test.then})
			var e *DuplicateError
			if !errors.As(err, &e) {
				t.Fatalf("New: %v; want a DuplicateError", err)
			}
			if e.Earlier != 1 || e.Index != 2 || e.What != test.what {
				t.Errorf("New: %d and %d, %q; want 1 and 2, %q", e.Earlier, e.Index, e.What, test.what)
			}
			if want := "match 1 and match 2 both are for " + test.what; err.Error() != want {
				t.Errorf("the error is %q; want %q", err, want)
			}
		})
	}
}

func TestNewTakesMatchesThatDifferInOneThing(t *testing.T) {
	full := Match{Hosts: hosts("a.example"), Path: "/a", ALPN: "h2", Listener: "web", From: prefixes("10.0.0.0/8")}
	variants := []Match{full}
	vary := func(change func(*Match)) {
		m := full
		change(&m)
		variants = append(variants, m)
	}
	vary(func(m *Match) { m.Hosts = nil })
	vary(func(m *Match) { m.Hosts = hosts("*.example") })
	vary(func(m *Match) { m.Hosts = hosts("*.a.example") })
	vary(func(m *Match) { m.Path = "" })
	vary(func(m *Match) { m.Path = "/" })
	vary(func(m *Match) { m.Path = "/a/" })
	vary(func(m *Match) { m.Path = "/A" })
	vary(func(m *Match) { m.ALPN = "" })
	vary(func(m *Match) { m.ALPN = "H2" })
	vary(func(m *Match) { m.Listener = "" })
	vary(func(m *Match) { m.Listener = "Web" })
	vary(func(m *Match) { m.From = nil })
	vary(func(m *Match) { m.From = prefixes("10.0.0.0/9") })
	vary(func(m *Match) { m.From = prefixes("::/0") })
	if _, err := New(variants); err != nil {
		t.Error(err)
	}
}

func TestOneMatchMayNameAHostOrANetworkTwice(t *testing.T) {
	table := newTable(t, Match{Hosts: hosts("a.example", "A.example"), From: prefixes("10.0.0.0/8", "10.1.0.0/8")})
	if i, ok := table.Lookup(&Query{Host: "a.example", Client: netip.MustParseAddr("10.0.0.1")}); !ok || i != 0 {
		t.Errorf("Lookup = %d, %v; want 0", i, ok)
	}
}

func TestNewReportsAllThatIsWrong(t *testing.T) {
	_, err := New([]Match{
		{Hosts: hosts("a.example", "b.example", "c.example")},
		{Hosts: hosts("", "a:1"), Path: "x"},
		{Hosts: hosts("a.example")},
		{Hosts: hosts("b.example", "c.example", "a.example")},
	})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("New: %v, which joins no errors", err)
	}
	var got []string
	for _, err := range joined.Unwrap() {
		switch e := err.(type) {
		case *MatchError:
			got = append(got, fmt.Sprintf("%d %s", e.Index, e.Field))
		case *DuplicateError:
			got = append(got, fmt.Sprintf("%d like %d", e.Index, e.Earlier))
		default:
			t.Errorf("%T: %v", err, err)
		}
	}
	// Match 3 has three hosts of match 0, all of which stay with it, and this is said once.
	if want := []string{"1 host", "1 host", "1 path", "2 like 0", "3 like 0"}; !slices.Equal(got, want) {
		t.Errorf("New reports %q; want %q", got, want)
	}
}

func TestTheZeroTableHasNoRoutes(t *testing.T) {
	var table Table
	if i, ok := table.Lookup(&Query{Host: "a.example", Path: "/"}); ok {
		t.Errorf("Lookup = %d", i)
	}
}

func TestATableKeepsNothingOfItsMatches(t *testing.T) {
	matches := []Match{{Hosts: hosts("a.example"), From: prefixes("10.0.0.0/8")}}
	table := newTable(t, matches...)
	matches[0].Hosts[0] = "b.example"
	matches[0].From[0] = netip.MustParsePrefix("11.0.0.0/8")
	if _, ok := table.Lookup(&Query{Host: "a.example", Client: netip.MustParseAddr("10.0.0.1")}); !ok {
		t.Error("a later change of the matches has changed the table")
	}
}

func TestGoroutinesShareATable(t *testing.T) {
	table := newTable(t, Match{Hosts: hosts("a.example"), Path: "/%61"}, Match{Hosts: hosts("*.example"), From: prefixes("10.0.0.0/8")})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				i, ok := table.Lookup(&Query{Host: "a.example", Path: "/%61/b"})
				j, also := table.Lookup(&Query{Host: "b.example", Client: netip.MustParseAddr("10.0.0.1")})
				if i != 0 || j != 1 || !ok || !also {
					t.Errorf("Lookup = %d, %v and %d, %v; want 0 and 1", i, ok, j, also)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestLookupDoesNotAllocate(t *testing.T) {
	table := newTable(t,
		Match{Hosts: hosts("a.example"), Path: "/käse/x", ALPN: "h2", Listener: "web", From: prefixes("10.0.0.0/8", "::/0")},
		Match{Hosts: hosts("*.example"), Path: "/" + strings.Repeat("x", maxSegment)},
		Match{Hosts: hosts("*.b.example"), Listener: "web", From: prefixes("10.0.0.0/8")},
		Match{},
	)
	for _, test := range []struct {
		name  string
		query Query
		want  int
	}{
		{"an exact host", Query{Host: "a.example", Path: "/k%C3%A4se/%78/y", ALPN: []string{"h3", "h2"}, Listener: "web", Client: netip.MustParseAddr("10.0.0.1")}, 0},
		{"an IPv6 client with a zone", Query{Host: "a.example", Path: "/k%C3%A4se/%78", ALPN: []string{"h2"}, Listener: "web", Client: netip.MustParseAddr("fe80::1%lo")}, 0},
		{"a wildcard and a long encoded path", Query{Host: "a.example", Path: "/" + strings.Repeat("%78", maxSegment)}, 1},
		{"a path that is too long", Query{Host: "a.example", Path: "/" + strings.Repeat("%78", 20000)}, 3},
		{"a path that can be read in many ways", Query{Host: "x.b.example", Path: `/a;b//.\%2Fx`, Listener: "web", Client: netip.MustParseAddr("::ffff:10.0.0.1")}, 2},
		{"a path that climbs", Query{Host: "a.example", Path: "/a/%2e%2E/b"}, Ambiguous},
		{"an unknown host", Query{Host: "a.b.c.d.e.test"}, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got int
			if n := testing.AllocsPerRun(100, func() { got, _ = table.Lookup(&test.query) }); n != 0 {
				t.Errorf("Lookup allocates %v times", n)
			}
			if got != test.want {
				t.Errorf("Lookup = %d; want %d", got, test.want)
			}
		})
	}
}

func TestMatchSaysWhatItMatches(t *testing.T) {
	for _, test := range []struct {
		match Match
		want  string
	}{
		{Match{}, "everything"},
		{Match{Hosts: hosts("shop.example.com"), Path: "/api/"}, "shop.example.com/api/"},
		{Match{Hosts: hosts("*.example.com"), ALPN: "h2", Listener: "web"}, "*.example.com (alpn h2, listener web)"},
		{Match{Hosts: hosts("a.example", "b.example"), Path: "/api"}, "a.example/api, b.example/api"},
		{Match{Hosts: hosts("a", "b", "c", "d", "e")}, "a, b, c and 2 more"},
		{Match{Path: "/api"}, "/api"},
		{Match{Listener: "web"}, "everything (listener web)"},
		{Match{From: prefixes("10.0.0.0/8", "::1/128")}, "everything (from 10.0.0.0/8, ::1/128)"},
		{Match{Hosts: hosts("::1")}, "::1"},
		{Match{Hosts: hosts("::1", "[::2]"), Path: "/"}, "[::1]/, [::2]/"},
	} {
		t.Run(test.want, func(t *testing.T) {
			if got := test.match.String(); got != test.want {
				t.Errorf("String = %q; want %q", got, test.want)
			}
		})
	}
}

func TestATableKnowsWhichHostsItsMatchesName(t *testing.T) {
	table, err := New([]Match{
		{Hosts: []string{"shop.example.com"}, Listener: "web"}, {Hosts: []string{"*.wild.example"}}, {Path: "/x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"shop.example.com": true, "a.b.wild.example": true, "wild.example": false, "other.example.com": false, "": false,
	} {
		if got := table.HasHost(host); got != want {
			t.Errorf("HasHost(%q) is %v", host, got)
		}
	}
}
