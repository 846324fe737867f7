package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// prefixes parses networks that a test is sure of.
func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// unixPaths is for tests whose endpoints are named by the paths of sockets.
func unixPaths(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an endpoint's path is that of a pipe there")
	}
}

func TestTheFullExampleIsReadWhole(t *testing.T) {
	unixPaths(t)
	got, err := Load("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	limits := Limits{PeekTimeout: 3 * time.Second, PeekBytes: 32 << 10, Peeking: 5000, PerIP: 100, PerIPRate: 50}
	secure := limits
	secure.PerIP = 1000
	usual := Limits{PeekTimeout: 5 * time.Second, PeekBytes: 16 << 10, Peeking: 10000, PerIP: 200}
	target := Target{HandoffTimeout: 5 * time.Second, ConnectTimeout: 5 * time.Second}
	with := func(change func(*Target)) Target { t := target; change(&t); return t }
	fallback := with(func(t *Target) { t.Proxy, t.ConnectTimeout = Strings{"127.0.0.1:9100"}, time.Second })
	want := &Config{
		Listeners: []Listener{
			{Name: "web", Address: ":8080", Sniff: SniffAuto, DeferAccept: true, AcceptProxy: prefixes("10.0.0.0/8", "fd00::/8", "192.0.2.7/32"), Limits: limits},
			{Name: "secure", Address: "[::1]:8443", Sniff: SniffTLS, Limits: secure},
			{Name: "plain", Address: "127.0.0.1:8081", Sniff: SniffHTTP, DeferAccept: true, Limits: usual},
			{Name: "mail", Address: "systemd:smtp", Sniff: SniffNone, DeferAccept: true, Limits: usual},
			{Name: "localhost:8082", Address: "localhost:8082", Sniff: SniffAuto, DeferAccept: true, Limits: usual},
		},
		Routes: []Route{
			{
				Name: "api",
				Match: Match{
					Host: Strings{"shop.example.com", "www.shop.example.com"}, Path: "/api/", Listener: "web",
					From: prefixes("10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"),
				},
				Target: with(func(t *Target) {
					t.Handoff, t.HandoffTimeout = Strings{"shop-1", "shop-2", "/run/other/shop.sock"}, 1500*time.Millisecond
				}),
				Fallback: &fallback,
			},
			{
				Name:   "shop.example.com",
				Match:  Match{Host: Strings{"shop.example.com"}, ALPN: "h2"},
				Target: with(func(t *Target) { t.Handoff = Strings{"shop-h2"} }),
			},
			{
				Name:  "old",
				Match: Match{Host: Strings{"*.example.com"}},
				Target: with(func(t *Target) {
					t.Proxy = Strings{"127.0.0.1:9000", "[::1]:9000", "backend.example.com:9000", "unix:/run/old.sock"}
					t.SendProxy = "v2"
					t.Health = &Health{
						Interval: 10 * time.Second, Timeout: time.Second, Path: "/healthz", Host: "old.example.com",
						Rise: 2, Fall: 3, Cooldown: 30 * time.Second,
					}
				}),
			},
			{
				Name:  "xn--bcher-kva.example",
				Match: Match{Host: Strings{"xn--bcher-kva.example"}},
				Target: with(func(t *Target) {
					t.Proxy = Strings{"127.0.0.1:9001", "127.0.0.1:9002"}
					t.Health = &Health{Timeout: time.Second, Rise: 2, Fall: 3, Cooldown: 10 * time.Second}
				}),
			},
			{Name: "mail", Match: Match{Listener: "mail"}, Target: with(func(t *Target) { t.Handoff = Strings{"mail"} })},
			{Name: "default", Target: with(func(t *Target) { t.Reject = true })},
		},
		AutoRoutes: true,
		Endpoints: Endpoints{
			Dir: "/run/usher", Users: []string{"www-data", "1001"}, Groups: []string{"usher"},
			Pin: map[string]string{"shop-1": "shop", "shop-2": "shop", "shop.example.com": "1002"},
		},
		Admin:           &Admin{Address: "127.0.0.1:9901"},
		Control:         "edge",
		Log:             Log{Level: "info", Format: "text", Access: false},
		ShutdownTimeout: 90 * time.Second,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// shortest is a file that says no more than it must.
const shortest = "listeners: [{address: ':8080'}]\n"

func TestWhatTheFileDoesNotSayIsAtItsDefault(t *testing.T) {
	got, err := Parse("usher.yaml", []byte(shortest))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Listeners: []Listener{{
			Name: ":8080", Address: ":8080", Sniff: SniffAuto, DeferAccept: true,
			Limits: Limits{PeekTimeout: 5 * time.Second, PeekBytes: 16 << 10, Peeking: 10000, PerIP: 200},
		}},
		Control:         "door",
		Log:             Log{Level: "info", Format: "text", Access: true},
		ShutdownTimeout: 30 * time.Second,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	want.AutoRoutes = true
	if got := Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("Default() is %+v, want %+v", got, want)
	}
}

func TestDefaultListensWhereItIsTold(t *testing.T) {
	c := Default("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1")
	if len(c.Listeners) != 2 || c.Listeners[0].Name != "127.0.0.1:1" || c.Listeners[1].Address != "127.0.0.1:2" {
		t.Errorf("listeners are %+v", c.Listeners)
	}
	c.Listeners[0].Limits.PerIP = 1
	if again := Default(); again.Listeners[0].Limits.PerIP != 200 {
		t.Error("two configurations share their defaults")
	}
}

func TestWhatCanBeWrittenInMoreThanOneWay(t *testing.T) {
	tests := []struct {
		name, yaml string
		get        func(*Config) any
		want       any
	}{
		{"the admin as a string", "admin: 'unix:/run/usher/admin.sock'", func(c *Config) any { return *c.Admin }, Admin{Address: "unix:/run/usher/admin.sock"}},
		{"the admin at a socket of systemd", "admin: systemd:admin", func(c *Config) any { return c.Admin.Address }, "systemd:admin"},
		{"the admin for all", "admin: {address: ':9901', allow_remote: true}", func(c *Config) any { return *c.Admin }, Admin{":9901", true}},
		{"the admin at localhost", "admin: localhost:9901", func(c *Config) any { return c.Admin.Address }, "localhost:9901"},
		{"a size in KiB", "listeners: [{address: ':1', limits: {peek_bytes: 64KiB}}]", peekBytes, Size(65536)},
		{"a size in kB", "listeners: [{address: ':1', limits: {peek_bytes: 64kB}}]", peekBytes, Size(64000)},
		{"a size without a unit", "listeners: [{address: ':1', limits: {peek_bytes: 4096}}]", peekBytes, Size(4096)},
		{"a size in quotes", "listeners: [{address: ':1', limits: {peek_bytes: '4096'}}]", peekBytes, Size(4096)},
		{"a number for a string", "endpoints: {users: [1000]}", func(c *Config) any { return c.Endpoints.Users }, []string{"1000"}},
		{"a quoted number for a string", "endpoints: {users: ['0010']}", func(c *Config) any { return c.Endpoints.Users }, []string{"0010"}},
		{"a block scalar", "endpoints:\n  dir: >-\n    /run/usher", func(c *Config) any { return c.Endpoints.Dir }, "/run/usher"},
		{"a key with a question mark", "? auto_routes\n: true", func(c *Config) any { return c.AutoRoutes }, true},
		{"a duration of 0", "routes: [{proxy: 'a:1', health: {interval: 0}}]", func(c *Config) any { return c.Routes[0].Health.Interval }, time.Duration(0)},
		{"colons in a list in braces", "routes: [{proxy: [a:1, b.example:2, unix:/c, unix:d], match: {from: [::1, fd00::/8, 2001:db8::1]}}]",
			func(c *Config) any { return []any{c.Routes[0].Proxy, c.Routes[0].Match.From} },
			[]any{Strings{"a:1", "b.example:2", "unix:/c", "unix:d"}, prefixes("::1/128", "fd00::/8", "2001:db8::1/128")}},
		{"a route that names no match", "routes: [{handoff: shop}]", func(c *Config) any { return c.Routes[0].Name }, "default"},
		{"reject: false beside a target", "routes: [{handoff: shop, reject: false}]", func(c *Config) any { return c.Routes[0].Reject }, false},
		{"a name made of a path", "routes: [{match: {path: /x}, handoff: shop}]", func(c *Config) any { return c.Routes[0].Name }, "/x"},
		{"a name made of host and path", "routes: [{match: {path: /x, host: [B, a]}, handoff: shop}]", func(c *Config) any { return c.Routes[0].Name }, "b/x"},
		{"hosts in normal form", "routes: [{match: {host: ['Shop.Example.com.', '*.BÜCHER.example', '[2001:DB8::0]']}, handoff: shop}]",
			func(c *Config) any { return c.Routes[0].Match.Host }, Strings{"shop.example.com", "*.xn--bcher-kva.example", "2001:db8::"}},
		{"two merged mappings, of which the first wins", "log: {<<: [{level: debug}, {level: error, format: json}], access: false}",
			func(c *Config) any { return c.Log }, Log{"debug", "json", false}},
		{"an alias for a list", "routes: [{match: {host: a, from: &lan [10.0.0.0/8]}, handoff: a}, {match: {host: b, from: *lan}, handoff: b}]",
			func(c *Config) any { return c.Routes[1].Match.From }, prefixes("10.0.0.0/8")},
		{"Windows lines", "auto_routes: true\r\nlog:\r\n  level: debug\r\n", func(c *Config) any { return c.Log.Level }, "debug"},
		{"one document with its marks", "---\nauto_routes: true\n...\n", func(c *Config) any { return c.AutoRoutes }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(tt.yaml, "listeners:") {
				tt.yaml = strings.TrimSuffix(tt.yaml, "...\n") + "\n" + shortest
			}
			c, err := Parse("usher.yaml", []byte(tt.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.get(c); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func peekBytes(c *Config) any { return c.Listeners[0].Limits.PeekBytes }

func TestAFileWithAByteOrderMarkAndJSONIsAFileToo(t *testing.T) {
	c, err := Parse("usher.json", []byte("\ufeff"+`{"listeners":[{"address":":8080"}],"routes":[{"match":{"host":"a"},"proxy":["b:1"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Routes[0].Proxy[0]; got != "b:1" {
		t.Errorf("the backend is %q", got)
	}
}

// No file can have a size in megabytes, as long as 64 KiB are the most of the only one that there is.
func TestSizesInMegabytes(t *testing.T) {
	for text, want := range map[string]Size{"1MiB": 1 << 20, "3MiB": 3 << 20, "1MB": 1e6, "20MB": 20e6} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("%s is %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestPeekBytesIsNoMoreThanAnOfferCanCarry(t *testing.T) {
	st := model().structs[reflect.TypeFor[Limits]()]
	if got := st.fields[st.byName["peek_bytes"]].max.n; got > usher.MaxPrefix {
		t.Errorf("the most is %d, an offer carries %d", got, usher.MaxPrefix)
	}
}

func TestWhatCannotBeReadIsNotAFaultOfTheFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "usher.yaml"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if errors.As(err, new(Errors)) {
		t.Errorf("%v is an Errors", err)
	}
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || errors.As(err, new(Errors)) || strings.Count(err.Error(), dir) != 1 {
		t.Errorf("a folder: %v", err)
	}
}

func TestAFileMayHaveSoManyBytesAndNotOneMore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "usher.yaml")
	data := append([]byte(shortest), bytes.Repeat([]byte("#"), MaxFile-len(shortest))...)
	for _, more := range []string{"", "#"} {
		if err := os.WriteFile(file, append(data, more...), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file)
		if more == "" && err != nil {
			t.Error(err)
		}
		if want := file + ":1:1: the file has more than 16777216 bytes"; more != "" && (err == nil || err.Error() != want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestAliasesThatUnfoldToTooMuchAreRefused(t *testing.T) {
	list := "[" + strings.Repeat("a,", 3000) + "a]"
	tests := []struct{ name, yaml string }{
		{"a list of aliases of a list", shortest + "routes: [&r {handoff: " + list + "}" + strings.Repeat(", *r", 3000) + "]\n"},
		{"merges that double", shortest + "log: {<<: " + doubling(40) + "}\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("usher.yaml", []byte(tt.yaml))
			if err == nil || !strings.Contains(err.Error(), "the file has more than 4194304 values, with its aliases unfolded") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// doubling is a list of n mappings, of which each merges the one before it twice.
func doubling(n int) string {
	mappings := []string{"&m0 {level: info}"}
	for i := range n {
		mappings = append(mappings, fmt.Sprintf("&m%d {<<: [*m%d, *m%d]}", i+1, i, i))
	}
	return "[" + strings.Join(mappings, ", ") + "]"
}

func TestErrorsCanBeTakenApart(t *testing.T) {
	_, err := Parse("usher.yaml", []byte("listeners: 5\nroutes: 6\n"))
	var all Errors
	if !errors.As(err, &all) || len(all) != 2 {
		t.Fatalf("got %v", err)
	}
	var first *Error
	if !errors.As(err, &first) || first.Path != "listeners" || first.Line != 1 || first.Column != 12 {
		t.Errorf("the first is %+v", first)
	}
	want := "usher.yaml:1:12: listeners: expected a list, not a number\nusher.yaml:2:9: routes: expected a list, not a number"
	if err.Error() != want {
		t.Errorf("got  %v\nwant %v", err, want)
	}
}

func TestExcerptsPointAtTheColumn(t *testing.T) {
	tests := []struct {
		name   string
		line   string
		column int
		want   string
	}{
		{"a line", "log: {level: x}", 14, "log: {level: x}\n             ^\n"},
		{"an empty line", "", 1, "\n^\n"},
		{"behind the end", "abc", 9, "abc\n   ^\n"},
		{"tabs are as wide above as below", "a\tb", 3, "a\tb\n \t^\n"},
		{"letters of more than one byte", "Bücher: x", 9, "Bücher: x\n        ^\n"},
		{"what a terminal would obey", "a\x1b[31mb", 7, "a?[31mb\n      ^\n"},
		{"the start of a long line", strings.Repeat("a", 500), 1, strings.Repeat("a", 120) + "\n^\n"},
		{"the middle of a long line", strings.Repeat("a", 250) + "b" + strings.Repeat("c", 250), 251,
			strings.Repeat("a", 60) + "b" + strings.Repeat("c", 59) + "\n" + strings.Repeat(" ", 60) + "^\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &Error{Line: 1, Column: tt.column, line: tt.line}
			if got := e.Excerpt(); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	full, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(shortest))
	for _, tt := range badFiles {
		f.Add([]byte(tt.yaml))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("usher.yaml", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("configuration %v and error %v", c, err)
		}
		if err == nil {
			checkSound(t, c)
			return
		}
		var errs Errors
		if !errors.As(err, &errs) || len(errs) == 0 {
			t.Fatalf("%v is no list of errors", err)
		}
		for i, e := range errs {
			if e.Line < 1 || e.Column < 1 || e.Msg == "" || !strings.Contains(e.Excerpt(), "^") {
				t.Errorf("%+v", e)
			}
			if i > 0 && errs[i-1].Line > e.Line {
				t.Errorf("%v comes before %v", errs[i-1], e)
			}
		}
	})
}

// checkSound checks what the door relies on.
func checkSound(t *testing.T, c *Config) {
	names := make(map[string]bool)
	for _, l := range c.Listeners {
		if l.Name == "" || l.Address == "" || l.Sniff == "" || names[l.Name] || l.Limits.PeekTimeout <= 0 || l.Limits.PeekBytes < 1 {
			t.Errorf("listener %+v", l)
		}
		names[l.Name] = true
	}
	if len(c.Listeners) == 0 || c.ShutdownTimeout <= 0 {
		t.Errorf("%+v", c)
	}
	routes := make(map[string]bool)
	for _, r := range c.Routes {
		targets := 0
		for _, is := range []bool{r.Handoff != nil, r.Proxy != nil, r.Reject} {
			if is {
				targets++
			}
		}
		if r.Name == "" || routes[r.Name] || targets != 1 || r.HandoffTimeout <= 0 || r.ConnectTimeout <= 0 {
			t.Errorf("route %+v", r)
		}
		if r.Match.Listener != "" && !names[r.Match.Listener] {
			t.Errorf("route %s is for the listener %q", r.Name, r.Match.Listener)
		}
		routes[r.Name] = true
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{100, 1000, 10000, 100000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			data := manyRoutes(n)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse("usher.yaml", data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func manyRoutes(n int) []byte {
	var b bytes.Buffer
	b.WriteString(shortest + "routes:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - match: {host: h%d.example.com, path: /api/}\n    handoff: shop-%d\n", i, i)
	}
	return b.Bytes()
}

// TestTheControlEndpointIsFoundInAFileThatIsWrong is about a file that was right when a door was started with it.
func TestTheControlEndpointIsFoundInAFileThatIsWrong(t *testing.T) {
	unixPaths(t)
	file := filepath.Join(t.TempDir(), "usher.yaml")
	for _, c := range []struct {
		name, text, control, dir string
		wrong                    bool
	}{
		{"a good one", shortest + "control: edge\nendpoints: {dir: /run/edge}\n", "edge", "/run/edge", false},
		{"one that does not say", shortest, "door", "", false},
		{"an unknown key", shortest + "control: edge\nendpoints: {dir: /run/edge}\nnonsense: 1\n", "edge", "/run/edge", true},
		{"no listeners", "control: edge\n", "edge", "", true},
		{"a name that cannot be", shortest + "control: -x\nendpoints: {dir: /run/edge}\n", "door", "/run/edge", true},
		{"a folder that cannot be", shortest + "control: edge\nendpoints: {dir: [x]}\n", "edge", "", true},
		{"no YAML", shortest + "control: edge\n}", "door", "", true},
		{"nothing", "", "door", "", true},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		control, dir, err := Control(file)
		if control != c.control || dir != c.dir || (err != nil) != c.wrong {
			t.Errorf("%s: %q in %q, %v; want %q in %q", c.name, control, dir, err, c.control, c.dir)
		}
	}
	if control, dir, err := Control(file + ".none"); control != "door" || dir != "" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no file: %q in %q, %v", control, dir, err)
	}
}
