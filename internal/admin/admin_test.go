package admin_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-usher/usher/internal/admin"
)

// get makes a request whose header and method may be changed, and reads the whole answer.
func get(t *testing.T, c *http.Client, url string, change ...func(*http.Request)) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(r)
	}
	w, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w, string(body)
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func method(m string) func(*http.Request) { return func(r *http.Request) { r.Method = m } }

func host(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }

// pages are all that a door answers for, and what each begins with or has in it.
var pages = []struct{ path, contentType, has string }{
	{"/", "text/html; charset=utf-8", "<title>usher</title>"},
	{"/dashboard/app.js", "text/javascript; charset=utf-8", "status.json"},
	{"/dashboard/style.css", "text/css; charset=utf-8", "prefers-color-scheme"},
	{"/dashboard/icon.svg", "image/svg+xml", "<svg"},
	{"/status.json", "application/json", `"version":"v1.2.3"`},
	{"/metrics", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", "usher_ready 1"},
	{"/healthz", "text/plain; charset=utf-8", "ok\n"},
	{"/readyz", "text/plain; charset=utf-8", "ready\n"},
	{"/debug/pprof/", "text/html; charset=utf-8", "goroutine"},
	{"/debug/pprof/goroutine?debug=1", "text/plain; charset=utf-8", "goroutine profile: total"},
	{"/debug/pprof/cmdline", "text/plain; charset=utf-8", filepath.Base(os.Args[0])},
}

func TestEveryPageIsServed(t *testing.T) {
	addr, c := serve(t, handler(status())), client(t)
	for _, p := range pages {
		t.Run(p.path, func(t *testing.T) {
			w, body := get(t, c, "http://"+addr+p.path)
			if w.StatusCode != http.StatusOK {
				t.Errorf("status %s", w.Status)
			}
			if got := w.Header.Get("Content-Type"); got != p.contentType {
				t.Errorf("Content-Type %q; want %q", got, p.contentType)
			}
			if !strings.Contains(body, p.has) {
				t.Errorf("%q is not in the answer:\n%s", p.has, body)
			}
			w, body = get(t, c, "http://"+addr+p.path, method(http.MethodHead))
			if w.StatusCode != http.StatusOK || body != "" {
				t.Errorf("HEAD: status %s, body %q", w.Status, body)
			}
		})
	}
}

func TestEveryAnswerIsGuarded(t *testing.T) {
	addr, c := serve(t, handler(status())), client(t)
	check := func(t *testing.T, w *http.Response) {
		t.Helper()
		for name, want := range map[string]string{
			"Cache-Control":                "no-store",
			"X-Content-Type-Options":       "nosniff",
			"X-Frame-Options":              "DENY",
			"Referrer-Policy":              "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Cross-Origin-Opener-Policy":   "same-origin",
		} {
			if got := w.Header.Get(name); got != want {
				t.Errorf("%s: %q; want %q", name, got, want)
			}
		}
		policy := w.Header.Get("Content-Security-Policy")
		for _, directive := range []string{
			"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "base-uri 'none'",
			"form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
		} {
			if !strings.Contains(policy, directive) {
				t.Errorf("%q is not in the Content-Security-Policy %q", directive, policy)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("Content-Security-Policy %q", policy)
		}
		for name := range w.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: %s", name, w.Header.Get(name))
			}
		}
	}
	for _, p := range pages {
		t.Run(p.path, func(t *testing.T) {
			w, _ := get(t, c, "http://"+addr+p.path, header("Origin", "http://"+addr))
			check(t, w)
			for _, m := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"} {
				w, _ := get(t, c, "http://"+addr+p.path, method(m))
				if w.StatusCode != http.StatusMethodNotAllowed || w.Header.Get("Allow") != "GET, HEAD" {
					t.Errorf("%s: status %s, Allow: %q", m, w.Status, w.Header.Get("Allow"))
				}
				check(t, w)
			}
		})
	}
	for _, path := range []string{"/nowhere", "/dashboard/", "/dashboard/index.html", "/dashboard/../admin.go", "/status.json/x", "/debug/pprof/nothing"} {
		t.Run("what is not there, as "+path, func(t *testing.T) {
			w, _ := get(t, c, "http://"+addr+path)
			if w.StatusCode != http.StatusNotFound {
				t.Errorf("status %s", w.Status)
			}
			check(t, w)
		})
	}
}

func TestReadiness(t *testing.T) {
	tests := []struct {
		name   string
		status admin.Status
		code   int
		body   string
	}{
		{"a door that is ready", admin.Status{Ready: true}, 200, "ready\n"},
		{"a door that says why it is not", admin.Status{NotReady: "listener web does not listen"}, 503, "listener web does not listen\n"},
		{"a door that does not say why", admin.Status{}, 503, "not ready\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr, c := serve(t, handler(&tt.status)), client(t)
			w, body := get(t, c, "http://"+addr+"/readyz")
			if w.StatusCode != tt.code || body != tt.body {
				t.Errorf("%s, %q; want %d, %q", w.Status, body, tt.code, tt.body)
			}
			w, body = get(t, c, "http://"+addr+"/healthz")
			if w.StatusCode != 200 || body != "ok\n" {
				t.Errorf("healthz: %s, %q", w.Status, body)
			}
		})
	}
}

func TestStatusIsWhole(t *testing.T) {
	want := status()
	addr, c := serve(t, handler(want)), client(t)
	tests := []struct {
		name     string
		accept   string
		encoding string
	}{
		{"without Accept-Encoding", "", ""},
		{"for a client that accepts gzip", "deflate, gzip;q=0.5", "gzip"},
		{"for a client that accepts anything", "*", "gzip"},
		{"for a client that refuses gzip", "gzip;q=0, *", ""},
		{"for a client that refuses anything", "br, *;q=0.0", ""},
		{"for a client that accepts something else", "br, gzippy", ""},
		{"for a client in capitals", "GZIP; Q=1", "gzip"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, body := get(t, c, "http://"+addr+"/status.json", header("Accept-Encoding", tt.accept))
			if got := w.Header.Get("Content-Encoding"); got != tt.encoding {
				t.Fatalf("Content-Encoding %q; want %q", got, tt.encoding)
			}
			if got := w.Header.Get("Vary"); got != "Accept-Encoding" {
				t.Errorf("Vary: %q", got)
			}
			var r io.Reader = strings.NewReader(body)
			if tt.encoding == "gzip" {
				z, err := gzip.NewReader(r)
				if err != nil {
					t.Fatal(err)
				}
				r = z
			}
			var got struct {
				admin.Status
				Bounds []float64 `json:"histogram_bounds"`
			}
			if err := json.NewDecoder(r).Decode(&got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(&got.Status, want) {
				t.Errorf("got %+v; want %+v", &got.Status, want)
			}
			if !slices.Equal(got.Bounds, admin.Bounds[:]) {
				t.Errorf("bounds %v", got.Bounds)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	tests := []struct {
		name, host string
		isRefused  bool
	}{
		{"the address and port", "", false},
		{"localhost", "localhost", false},
		{"localhost with a forwarded port, in capitals", "LocalHost:8000", false},
		{"another loopback address", "127.8.9.1:9901", false},
		{"IPv6 loopback", "[::1]", false},
		{"IPv6 loopback with a port", "[::1]:9901", false},
		{"IPv4 loopback in IPv6", "[::ffff:127.0.0.1]:1", false},
		{"a name that may point anywhere", "rebind.example.com", true},
		{"such a name with the port", "rebind.example.com:9901", true},
		{"a name that begins like an address", "127.0.0.1.example.com", true},
		{"a name that begins like localhost", "localhost.example.com", true},
		{"a name that ends like localhost", "evil-localhost", true},
		{"an address that is not ours", "192.0.2.1:9901", true},
		{"an address that is not one", "[::1", true},
		{"a number that browsers take for an address", "2130706433", true},
		{"the unspecified address", "0.0.0.0:9901", true},
	}
	var log bytes.Buffer
	strict := serve(t, admin.Handler(admin.Options{Status: status, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}))
	lax := serve(t, admin.Handler(admin.Options{Status: status, AllowRemote: true}))
	c := client(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{"/", "/status.json", "/metrics", "/healthz"} {
				log.Reset()
				w, body := get(t, c, "http://"+strict+path, host(tt.host))
				if got := w.StatusCode == http.StatusMisdirectedRequest; got != tt.isRefused {
					t.Errorf("%s: status %s, %q", path, w.Status, body)
				}
				if got := strings.Contains(log.String(), "admin request refused"); got != tt.isRefused {
					t.Errorf("%s: log %q", path, log.String())
				}
				if w, _ := get(t, c, "http://"+lax+path, host(tt.host)); w.StatusCode != http.StatusOK {
					t.Errorf("%s with AllowRemote: status %s", path, w.Status)
				}
			}
		})
	}
}

func TestOtherSites(t *testing.T) {
	addr, c := serve(t, handler(status())), client(t)
	tests := []struct {
		name      string
		headers   map[string]string
		isRefused bool
	}{
		{"a client that is no browser", nil, false},
		{"an address typed in", map[string]string{"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, false},
		{"the dashboard itself", map[string]string{"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Origin": "http://" + addr}, false},
		{"a link at another port", map[string]string{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, false},
		{"a script at another port", map[string]string{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, true},
		{"a script of another site", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, true},
		{"a link of another site", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, true},
		{"a kind of site that is not known yet", map[string]string{"Sec-Fetch-Site": "nearby"}, true},
		{"an old browser's script of another origin", map[string]string{"Origin": "http://evil.example"}, true},
		{"a script of a page without an origin", map[string]string{"Origin": "null"}, true},
		{"an origin that is none", map[string]string{"Origin": "http://%zz"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := func(r *http.Request) {
				for name, value := range tt.headers {
					r.Header.Set(name, value)
				}
			}
			for _, p := range pages {
				refuses := tt.isRefused && p.path != "/healthz" && p.path != "/readyz"
				w, _ := get(t, c, "http://"+addr+p.path, set)
				if got := w.StatusCode == http.StatusForbidden; got != refuses {
					t.Errorf("%s: status %s", p.path, w.Status)
				}
			}
		})
	}
}

// Every name that a status has may come from the network, as that of an auto route's endpoint does.
func TestStatusJSONCannotBecomeMarkup(t *testing.T) {
	s := status()
	s.Refusals[0].Host = "</script><script>alert(1)</script>"
	addr, c := serve(t, handler(s)), client(t)
	if _, body := get(t, c, "http://"+addr+"/status.json"); strings.Contains(body, "<") {
		t.Errorf("a < stands in %s", body)
	}
}

func BenchmarkStatusOf10000Routes(b *testing.B) {
	s := status()
	for i := range 10_000 {
		r := s.Routes[0]
		r.Name = fmt.Sprintf("tenant-%d.example.com", i)
		s.Routes = append(s.Routes, r)
	}
	h := handler(s)
	for _, encoding := range []string{"identity", "gzip"} {
		b.Run(encoding, func(b *testing.B) {
			r, _ := http.NewRequest(http.MethodGet, "/status.json", nil)
			r.Header.Set("Accept-Encoding", encoding)
			var w counter
			r.Host = "localhost"
			for b.Loop() {
				w = counter{header: http.Header{}}
				h.ServeHTTP(&w, r)
			}
			b.ReportMetric(float64(w.n), "body-bytes")
		})
	}
}

// counter is an answer of which only the size is kept.
type counter struct {
	header http.Header
	code   int // 0 is 200
	n      int
}

func (c *counter) Header() http.Header         { return c.header }
func (c *counter) WriteHeader(code int)        { c.code = code }
func (c *counter) Write(b []byte) (int, error) { c.n += len(b); return len(b), nil }
