package admin_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/go-usher/usher/internal/admin"
)

// ownHost is what a host may be at most: no name that somebody could make point here. With two colons it is none.
var ownHost = regexp.MustCompile(`^\[?(?is:localhost|127\.\d+\.\d+\.\d+|[0-9a-f]*:[0-9a-f]*:[0-9a-f:.]*(%.*)?)?]?(:\d*)?$`)

// FuzzGuard lets a client say anything in the headers that decide whether it is answered, and how.
func FuzzGuard(f *testing.F) {
	for _, host := range []string{
		"localhost", "127.0.0.1:9901", "[::1]:80", "[::ffff:127.0.0.1]", "[::1%lo]", "evil.example", "127.0.0.1.evil.example:9901", ":", "[", "]",
	} {
		f.Add(host, "", "none", "gzip;q=0.1, *")
		f.Add(host, "http://"+host, "same-origin", "")
		f.Add(host, "https://evil.example", "same-site", ";,;q=")
	}
	f.Add("::1:", "", "", "")
	f.Add("[127.0.0.1]", "", "", "")
	f.Add("", "0", "", "")
	h := handler(&admin.Status{})
	f.Fuzz(func(t *testing.T, host, origin, site, accept string) {
		r, err := http.NewRequest(http.MethodGet, "/status.json", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header = http.Header{"Origin": {origin}, "Sec-Fetch-Site": {site}, "Accept-Encoding": {accept}}
		w := counter{header: http.Header{}}
		h.ServeHTTP(&w, r)
		if w.code != 0 { // refused
			return
		}
		if !ownHost.MatchString(host) {
			t.Errorf("host %q is accepted", host)
		}
		if origin != "" && !strings.HasSuffix(strings.ToLower(origin), "://"+strings.ToLower(host)) {
			t.Errorf("origin %q is accepted at host %q", origin, host)
		}
		if site != "" && site != "none" && site != "same-origin" {
			t.Errorf("site %q is accepted", site)
		}
	})
}
