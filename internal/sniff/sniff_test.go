package sniff

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const plain = "GET /a HTTP/1.1\r\nHost: a.b\r\n\r\n"

func TestSniff(t *testing.T) {
	secure := hello(sni("a.b"), alpn("h2"), extension(extSupportedVersions, 2, 3, 4), extension(extECH, 0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 9))
	seen := Result{Protocol: ProtocolTLS, Host: "a.b", ALPN: []string{"h2"}, Versions: []uint16{0x0304}, ECH: true}
	one := Result{Protocol: ProtocolHTTP1, Host: "a.b", Path: "/a", Method: "GET"}
	two := Result{Protocol: ProtocolHTTP2, Host: "a.b", Path: "/", Method: "GET", Stream: 1}
	fine := h2(get(":authority", "a.b"))
	tests := []struct {
		name string
		mode Mode
		in   string
		want Result
		err  error
	}{
		{name: "TLS", in: secure, want: seen},
		{name: "TLS where TLS is expected", mode: OnlyTLS, in: secure, want: seen},
		{name: "TLS where HTTP is expected", mode: OnlyHTTP, in: "\x16", err: ErrUnknown},
		{name: "HTTP/1.1", in: plain, want: one},
		{name: "HTTP/1.1 where HTTP is expected", mode: OnlyHTTP, in: plain, want: one},
		{name: "HTTP/1.1 where TLS is expected", mode: OnlyTLS, in: "G", err: ErrUnknown},
		{name: "HTTP/1.1 after an empty line", in: "\r\n" + plain, want: one},
		{name: "HTTP/2", in: fine, want: two},
		{name: "HTTP/2 on a later stream, with the reserved bit set", in: opening + rawFrame(frameHeaders, whole, 1<<31|13, get(":authority", "a.b")),
			want: Result{Protocol: ProtocolHTTP2, Host: "a.b", Path: "/", Method: "GET", Stream: 13}},
		{name: "HTTP/2 where HTTP is expected", mode: OnlyHTTP, in: fine, want: two},
		{name: "HTTP/2 where TLS is expected", mode: OnlyTLS, in: "P", err: ErrUnknown},
		{name: "a method that begins like the preface of HTTP/2", in: "PRINT /a HTTP/1.1\r\nHost: a.b\r\n\r\n", want: Result{Protocol: ProtocolHTTP1, Host: "a.b", Path: "/a", Method: "PRINT"}},
		{name: "a request that begins like the preface of HTTP/2", in: "PRI * HTTP/1.1\r\nHost: a.b\r\n\r\n", want: Result{Protocol: ProtocolHTTP1, Host: "a.b", Path: "*", Method: "PRI"}},

		{name: "nothing at all", in: "", err: ErrShort},
		{name: "nothing at all where TLS is expected", mode: OnlyTLS, in: "", err: ErrShort},
		{name: "the beginning of TLS", in: "\x16", want: Result{Protocol: ProtocolTLS}, err: ErrShort},
		{name: "a word", in: "GET", err: ErrShort},
		{name: "an empty line", in: "\r\n", err: ErrShort},
		{name: "the beginning of HTTP/1.1", in: "GET ", want: Result{Protocol: ProtocolHTTP1}, err: ErrShort},
		{name: "half a head of HTTP/1.1", in: plain[:len(plain)-2], want: Result{Protocol: ProtocolHTTP1}, err: ErrShort},
		{name: "what may be HTTP/1.1 or HTTP/2", in: "PRI * HTTP/", err: ErrShort},
		{name: "what can only be HTTP/2", in: "PRI * HTTP/2", want: Result{Protocol: ProtocolHTTP2}, err: ErrShort},
		{name: "what can only be HTTP/1.1", in: "PRI * HTTP/1", want: Result{Protocol: ProtocolHTTP1}, err: ErrShort},
		{name: "HTTP/2 without a request", in: opening, want: Result{Protocol: ProtocolHTTP2}, err: ErrShort},
		{name: "HTTP/2 with half a request", in: fine[:len(fine)-1], want: Result{Protocol: ProtocolHTTP2, Stream: 1}, err: ErrShort},

		{name: "malformed TLS", in: hello(sni("a b")), want: Result{Protocol: ProtocolTLS}, err: errServerName},
		{name: "malformed HTTP/1.1", in: "GET / HTTP/1.1\r\n\r\n", want: Result{Protocol: ProtocolHTTP1}, err: errNoHost},
		{name: "malformed HTTP/2", in: h2(get()), want: Result{Protocol: ProtocolHTTP2, Stream: 1}, err: errNoHost},
		{name: "malformed HTTP/2 without a request", in: opening + rawFrame(frameData, 0, 1, ""), want: Result{Protocol: ProtocolHTTP2}, err: errFrameOrder},

		{name: "a handshake of no known version", in: "\x16\x05", err: ErrUnknown},
		{name: "a TLS alert", in: "\x15", err: ErrUnknown},
		{name: "SSH", in: "SSH-2.0-OpenSSH_9.2\r", err: ErrUnknown},
		{name: "mail", in: "EHLO a.b\r", err: ErrUnknown},
		{name: "a PROXY header that nobody expects", in: proxyV2[:4], err: ErrUnknown},
		{name: "a line of the PROXY protocol that nobody expects", in: "PROXY TCP4 ", err: ErrUnknown},
		{name: "a preface with another end", in: preface[:16] + "\r\nX", err: ErrUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Sniff([]byte(tt.in), tt.mode)
			if !reflect.DeepEqual(got, tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("%+v, %v; want %+v, %v", got, err, tt.want, tt.err)
			}
			checkModes(t, []byte(tt.in))
		})
	}
}

func TestSniffOfRealClients(t *testing.T) {
	for name, b := range samples(t) {
		t.Run(name, func(t *testing.T) {
			if _, n, err := Proxy(b); err == nil {
				b = b[n:]
			}
			if _, err := Sniff(b, Auto); err != nil {
				t.Error(err)
			}
			checkModes(t, b)
		})
	}
}

// checkModes holds in every mode that verdicts are final, and what the documentation says about the Result beside an error.
func checkModes(t *testing.T, b []byte) {
	t.Helper()
	for _, mode := range []Mode{Auto, OnlyTLS, OnlyHTTP} {
		at := checkFinal(t, b, func(b []byte) (Result, error) { return Sniff(b, mode) })
		checkGuesses(t, b, mode, at)
		r, err := Sniff(b, mode)
		checkResult(t, b, r, err)
		if r.Protocol == ProtocolTLS && mode == OnlyHTTP || (r.Protocol == ProtocolHTTP1 || r.Protocol == ProtocolHTTP2) && mode == OnlyTLS {
			t.Fatalf("Sniff(%q, %d) has the protocol %v", b, mode, r.Protocol)
		}
	}
}

// checkGuesses holds that the protocol beside ErrShort, once said, changes to Unknown at most. at is where the verdict is.
func checkGuesses(t *testing.T, b []byte, mode Mode, at int) {
	t.Helper()
	if at < 0 {
		at = len(b)
	}
	guess := Unknown
	for n := range prefixes(b[:at]) {
		r, err := Sniff(b[:n], mode)
		if guess != Unknown && r.Protocol != guess && err != ErrUnknown {
			t.Fatalf("Sniff(%q, %d) has the protocol %v; but a shorter prefix had %v", b[:n], mode, r.Protocol, guess)
		}
		guess = r.Protocol
	}
}

func checkResult(t *testing.T, b []byte, r Result, err error) {
	t.Helper()
	if err != nil {
		if want := (Result{Protocol: r.Protocol, Stream: r.Stream}); !reflect.DeepEqual(r, want) {
			t.Fatalf("Sniff(%q) has both a result and an error: %+v, %v", b, r, err)
		}
		if err == ErrUnknown && r.Protocol != Unknown {
			t.Fatalf("Sniff(%q) = %+v, %v", b, r, err)
		}
		return
	}
	if r.Protocol == Unknown || (r.Stream != 0) != (r.Protocol == ProtocolHTTP2) {
		t.Fatalf("Sniff(%q) = %+v", b, r)
	}
	if r.Protocol == ProtocolTLS {
		if r.Host != "" {
			checkHost(t, r.Host)
		}
		return
	}
	checkHost(t, r.Host)
	checkPath(t, Request{Method: r.Method, Path: r.Path})
}

// checkHost holds what the documentation of Request promises.
func checkHost(t *testing.T, host string) {
	t.Helper()
	if strings.Contains(host, ":") {
		if a, err := netip.ParseAddr(host); err != nil || a.String() != host || a.Zone() != "" {
			t.Fatalf("%q is not the shortest form of an IPv6 address: %v", host, err)
		}
		return
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			t.Fatalf("%q is not the normal form of a host", host)
		}
	}
	if len(host) > maxHost {
		t.Fatalf("%q is too long", host)
	}
}

func TestResultsDoNotAliasTheBytes(t *testing.T) {
	for name, b := range samples(t) {
		if _, n, err := Proxy(b); err == nil {
			b = b[n:]
		}
		r, err := Sniff(b, Auto)
		before := fmt.Sprintf("%+v %v", r, err)
		clear(b)
		if after := fmt.Sprintf("%+v %v", r, err); after != before {
			t.Errorf("%s: the result was %s, and is %s", name, before, after)
		}
	}
}

func TestProtocolsHaveNames(t *testing.T) {
	want := []string{"unknown", "http1", "http2", "tls", "unknown"}
	var got []string
	for p := range Protocol(len(want)) {
		got = append(got, p.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}

// checkAgainstNetHTTP compares HTTP1 with net/http. What both take, they must understand alike, and they must need the same bytes.
func checkAgainstNetHTTP(t *testing.T, b []byte) {
	t.Helper()
	ours, err := HTTP1(b)
	theirs, theirErr := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
	if theirErr != nil {
		return
	}
	if err == ErrShort {
		t.Fatalf("HTTP1(%q): %v; net/http has a request", b, err)
	}
	if err != nil {
		return
	}
	if host, err := hostName([]byte(theirs.Host)); err != nil || ours.Host != host || ours.Method != theirs.Method {
		t.Fatalf("HTTP1(%q) = %+v; net/http has %s %q", b, ours, theirs.Method, theirs.Host)
	}
	if path, _, _ := strings.Cut(theirs.RequestURI, "?"); strings.HasPrefix(path, "/") && ours.Path != path {
		t.Fatalf("HTTP1(%q) = %+v; net/http has the path %q", b, ours, path)
	}
}

func TestHTTP1AgreesWithNetHTTP(t *testing.T) {
	for _, in := range []string{
		plain, curlHead, browserHead, string(sample(t, "curl-http1")), string(sample(t, "curl-upgrade")),
		"POST http://A.b:80/p?q HTTP/1.1\r\nHost: a.b\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
		"CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n", "GET / HTTP/1.0\nhost:a.b\n\n",
	} {
		if _, err := HTTP1([]byte(in)); err != nil {
			t.Errorf("HTTP1(%q): %v", in, err)
		}
		if _, err := http.ReadRequest(bufio.NewReader(strings.NewReader(in))); err != nil {
			t.Errorf("net/http on %q: %v", in, err)
		}
		checkAgainstNetHTTP(t, []byte(in))
	}
}

func FuzzSniff(f *testing.F) {
	for _, b := range samples(f) {
		f.Add(b)
	}
	for _, in := range []string{
		"", plain, "\r\n" + plain, "PRI * HTTP/1.1\r\nHost: a.b\r\n\r\n", "PRINT / HTTP/1.0\nHost:a\n\n", h2(get("host", "a.b")), hello(sni("a.b")),
		"GET http://a.b./p?q HTTP/1.1\r\nHost: A.B:80\r\n\r\n", "EHLO a.b\r\n", "\x16\x05",
	} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), fuzzLength)]
		before := bytes.Clone(b)
		checkModes(t, b)
		checkAgainstNetHTTP(t, b)
		if !bytes.Equal(b, before) {
			t.Fatalf("the bytes were changed from %q to %q", before, b)
		}
	})
}

func BenchmarkSniff(b *testing.B) {
	chromium := sample(b, "chromium-tls")
	for _, bm := range []struct {
		name string
		in   []byte
	}{
		{"tls_chromium", chromium},
		{"tls_curl", sample(b, "curl-tls")},
		{"tls_chromium_half", chromium[:1460]},
		{"tls_chromium_in_20_records", records(message(chromium), 100)},
		{"http1_curl", sample(b, "curl-http1")},
		{"http1_browser", []byte(browserHead)},
		{"http2_curl", sample(b, "curl-http2")},
		{"http2_nghttp", sample(b, "nghttp")},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.SetBytes(int64(len(bm.in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Sniff(bm.in, Auto); err != nil && err != ErrShort {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkProxy(b *testing.B) {
	for _, name := range []string{"haproxy-proxy-v1", "haproxy-proxy-v2"} {
		b.Run(name, func(b *testing.B) {
			in := sample(b, name)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Proxy(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
