package sniff

import (
	"errors"
	"strings"
	"testing"
)

func TestHTTP1(t *testing.T) {
	long := strings.Repeat("a", maxHost)
	tests := []struct {
		name string
		in   string
		want Request
		err  error
	}{
		// What a door sees all day.
		{name: "a plain request", in: "GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", want: Request{"GET", "/", "shop.example.com"}},
		{name: "the Host need not come first", in: "GET /a/b HTTP/1.1\r\nAccept: */*\r\nHost: a.b\r\n\r\n", want: Request{"GET", "/a/b", "a.b"}},
		{name: "the query is not part of the path", in: "GET /a?b=/c HTTP/1.1\r\nHost: a.b\r\n\r\n", want: Request{"GET", "/a", "a.b"}},
		{name: "the path stays percent-encoded", in: "GET /%2e%2e/x HTTP/1.1\r\nHost: a.b\r\n\r\n", want: Request{"GET", "/%2e%2e/x", "a.b"}},
		{name: "a body does not matter", in: "POST /in HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\n\r\nhello", want: Request{"POST", "/in", "a.b"}},
		{name: "a pipelined request does not matter", in: "HEAD /1 HTTP/1.1\r\nHost: a.b\r\n\r\nGET /2 HTTP/1.1\r\nHost: c.d\r\n\r\n", want: Request{"HEAD", "/1", "a.b"}},
		{name: "an unusual method is kept", in: "UPDATEREDIRECTREF / HTTP/1.1\r\nHost: a.b\r\n\r\n", want: Request{"UPDATEREDIRECTREF", "/", "a.b"}},
		{name: "HTTP/1.0 with a Host", in: "PUT / HTTP/1.0\r\nHost: a.b\r\n\r\n", want: Request{"PUT", "/", "a.b"}},
		{name: "OPTIONS for the whole server", in: "OPTIONS * HTTP/1.1\r\nHost: a.b\r\n\r\n", want: Request{"OPTIONS", "*", "a.b"}},
		{name: "bare line feeds", in: "GET / HTTP/1.1\nHost: a.b\n\n", want: Request{"GET", "/", "a.b"}},
		{name: "one empty line before the request", in: "\r\nGET / HTTP/1.1\r\nHost: a.b\r\n\r\n", want: Request{"GET", "/", "a.b"}},
		{name: "an empty header value", in: "GET / HTTP/1.1\r\nX:\r\nHost: a.b\r\n\r\n", want: Request{"GET", "/", "a.b"}},
		{name: "bytes above ASCII in a header value", in: "GET / HTTP/1.1\r\nX: \xff\xc3\xa9\r\nHost: a.b\r\n\r\n", want: Request{"GET", "/", "a.b"}},

		// Hosts.
		{name: "the host is put in lower case", in: "GET / HTTP/1.1\r\nhOsT: Shop.EXAMPLE.com\r\n\r\n", want: Request{"GET", "/", "shop.example.com"}},
		{name: "the port is stripped", in: "GET / HTTP/1.1\r\nHost: a.b:8080\r\n\r\n", want: Request{"GET", "/", "a.b"}},
		{name: "an empty port is stripped", in: "GET / HTTP/1.1\r\nHost: a.b:\r\n\r\n", want: Request{"GET", "/", "a.b"}},
		{name: "the trailing dot is stripped", in: "GET / HTTP/1.1\r\nHost: a.b.:80\r\n\r\n", want: Request{"GET", "/", "a.b"}},
		{name: "white space around the host is stripped", in: "GET / HTTP/1.1\r\nHost:\t a.b \t\r\n\r\n", want: Request{"GET", "/", "a.b"}},
		{name: "a host without a dot and with an underscore", in: "GET / HTTP/1.1\r\nHost: my_shop-1\r\n\r\n", want: Request{"GET", "/", "my_shop-1"}},
		{name: "an IPv4 address", in: "GET / HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n", want: Request{"GET", "/", "127.0.0.1"}},
		{name: "an IPv6 literal loses brackets and port", in: "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", want: Request{"GET", "/", "::1"}},
		{name: "an IPv6 literal without port", in: "GET / HTTP/1.1\r\nHost: [2001:DB8::A]\r\n\r\n", want: Request{"GET", "/", "2001:db8::a"}},
		{name: "an IPv6 literal is put in its shortest form", in: "GET / HTTP/1.1\r\nHost: [0:0:0:0:0:0:0:1]\r\n\r\n", want: Request{"GET", "/", "::1"}},
		{name: "the longest host", in: "GET / HTTP/1.1\r\nHost: " + long + ".\r\n\r\n", want: Request{"GET", "/", long}},

		// The other forms of a target.
		{name: "an absolute target names the host", in: "GET http://A.b:80/p?q HTTP/1.1\r\n\r\n", want: Request{"GET", "/p", "a.b"}},
		{name: "an absolute target without a path", in: "GET http://a.b?q HTTP/1.1\r\nHost: a.b\r\n\r\n", want: Request{"GET", "/", "a.b"}},
		{name: "an absolute target agrees with a Host spelt otherwise", in: "GET HTTPS://a.b/ HTTP/1.1\r\nHost: A.B.:443\r\n\r\n", want: Request{"GET", "/", "a.b"}},
		{name: "an absolute target with an IPv6 literal", in: "GET http://[::1]:80/p HTTP/1.1\r\n\r\n", want: Request{"GET", "/p", "::1"}},
		{name: "an absolute target beside an empty Host", in: "GET http://a.b/ HTTP/1.1\r\nHost:\r\n\r\n", want: Request{"GET", "/", "a.b"}},
		{name: "CONNECT names a host and no path", in: "CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n", want: Request{"CONNECT", "", "a.b"}},

		// Not yet known.
		{name: "nothing at all", in: "", err: ErrShort},
		{name: "a method in the making", in: "GE", err: ErrShort},
		{name: "a method and its space", in: "GET ", err: ErrShort},
		{name: "a target in the making", in: "GET /a", err: ErrShort},
		{name: "a scheme in the making", in: "GET ht", err: ErrShort},
		{name: "a version in the making", in: "GET / HTTP", err: ErrShort},
		{name: "a request line without its line feed", in: "GET / HTTP/1.1\r", err: ErrShort},
		{name: "a Host whose head goes on", in: "GET / HTTP/1.1\r\nHost: a.b\r\n", err: ErrShort},
		{name: "a head without its last line feed", in: "GET / HTTP/1.1\r\nHost: a.b\r\n\r", err: ErrShort},
		{name: "a carriage return that may open an empty line", in: "\r", err: ErrShort},

		// Something else, and known by its first odd byte.
		{name: "TLS is known by its first byte", in: "\x16", err: ErrNotHTTP},
		{name: "an SSH banner", in: "SSH-2.0-OpenSSH_9.2\r", err: ErrNotHTTP},
		{name: "HTTP/2 with prior knowledge", in: "PRI * HTTP/2", err: ErrNotHTTP},
		{name: "HTTP/0.9 has no version", in: "GET /\r", err: ErrNotHTTP},
		{name: "a PROXY protocol header", in: "PROXY TCP4 ", err: ErrNotHTTP},
		{name: "a space first", in: " ", err: ErrNotHTTP},
		{name: "a word longer than any method", in: strings.Repeat("A", maxMethod+1), err: ErrNotHTTP},
		{name: "two spaces after the method", in: "GET  ", err: ErrNotHTTP},
		{name: "two spaces after the target", in: "GET /  ", err: ErrNotHTTP},
		{name: "a target of no known form", in: "GET ?", err: ErrNotHTTP},
		{name: "a relative target", in: "GET a/", err: ErrNotHTTP},
		{name: "a scheme without slashes", in: "GET a:b", err: ErrNotHTTP},
		{name: "a scheme with one slash", in: "GET a:/b", err: ErrNotHTTP},
		{name: "a scheme without anything after it", in: "GET http: ", err: ErrNotHTTP},
		{name: "something after the asterisk", in: "OPTIONS *a", err: ErrNotHTTP},
		{name: "a control byte in the target", in: "GET /\x00", err: ErrNotHTTP},
		{name: "a second word in the target", in: "GET /a b", err: ErrNotHTTP},
		{name: "a version that is no digit", in: "GET / HTTP/1.x", err: ErrNotHTTP},
		{name: "a version with two digits", in: "GET / HTTP/1.10", err: ErrNotHTTP},
		{name: "a carriage return without a line feed", in: "GET / HTTP/1.1\r\r", err: ErrNotHTTP},
		{name: "a carriage return first and no line feed", in: "\rG", err: ErrNotHTTP},
		{name: "two empty lines before the request", in: "\r\n\r\n", err: ErrNotHTTP},

		// HTTP that nobody should serve.
		{name: "no Host", in: "GET / HTTP/1.1\r\n\r\n", err: errNoHost},
		{name: "an empty Host", in: "GET / HTTP/1.1\r\nHost: \r\n\r\n", err: errNoHost},
		{name: "a header that only ends like Host", in: "GET / HTTP/1.1\r\nX-Host: a.b\r\n\r\n", err: errNoHost},
		{name: "two Hosts that differ", in: "GET / HTTP/1.1\r\nHost: a.b\r\nHost: c.d\r\n", err: errManyHosts},
		{name: "two Hosts that agree", in: "GET / HTTP/1.1\r\nHost: a.b\r\nX: y\r\nhost: a.b\r\n", err: errManyHosts},
		{name: "two Hosts, the first of them empty", in: "GET / HTTP/1.1\r\nHost:\r\nHost: a.b\r\n", err: errManyHosts},
		{name: "a Host that differs from the target", in: "GET http://a.b/ HTTP/1.1\r\nHost: c.d\r\n", err: errOtherTarget},
		{name: "a space before the colon", in: "GET / HTTP/1.1\r\nHost : a.b\r\n", err: errHeaderLine},
		{name: "a folded header", in: "GET / HTTP/1.1\r\nX: y\r\n z\r\n", err: errHeaderLine},
		{name: "a header without a colon", in: "GET / HTTP/1.1\r\nHost\r\n", err: errHeaderLine},
		{name: "a header without a name", in: "GET / HTTP/1.1\r\n: a.b\r\n", err: errHeaderLine},
		{name: "a zero byte in a header", in: "GET / HTTP/1.1\r\nX: a\x00b\r\n", err: errHeaderLine},
		{name: "a carriage return inside a header", in: "GET / HTTP/1.1\r\nX: a\rHost: a.b\r\n", err: errHeaderLine},
		{name: "a fragment in the target", in: "GET /a#b HTTP/1.1\r\n", err: errTarget},
		{name: "user information in the target", in: "GET http://me@a.b/ HTTP/1.1\r\n", err: errHost},
		{name: "an absolute target without a host", in: "GET http:///a HTTP/1.1\r\n", err: errHost},
		{name: "a path that leaves the folder", in: "GET / HTTP/1.1\r\nHost: ../a\r\n", err: errHost},
		{name: "a host of dots", in: "GET / HTTP/1.1\r\nHost: ..\r\n", err: errHost},
		{name: "a host that begins with a dot", in: "GET / HTTP/1.1\r\nHost: .a\r\n", err: errHost},
		{name: "a host with an empty label", in: "GET / HTTP/1.1\r\nHost: a..b\r\n", err: errHost},
		{name: "a host with two trailing dots", in: "GET / HTTP/1.1\r\nHost: a..\r\n", err: errHost},
		{name: "a host with a list in it", in: "GET / HTTP/1.1\r\nHost: a.b, c.d\r\n", err: errHost},
		{name: "a host that is too long", in: "GET / HTTP/1.1\r\nHost: " + long + "a\r\n", err: errHost},
		{name: "only a port", in: "GET / HTTP/1.1\r\nHost: :80\r\n", err: errHost},
		{name: "a port that is no number", in: "GET / HTTP/1.1\r\nHost: a.b:http\r\n", err: errHost},
		{name: "a port that is too large", in: "GET / HTTP/1.1\r\nHost: a.b:65536\r\n", err: errHost},
		{name: "an IPv6 address without brackets", in: "GET / HTTP/1.1\r\nHost: ::1\r\n", err: errHost},
		{name: "an IPv6 literal without its last bracket", in: "GET / HTTP/1.1\r\nHost: [::1\r\n", err: errHost},
		{name: "an IPv6 literal with something after it", in: "GET / HTTP/1.1\r\nHost: [::1]x\r\n", err: errHost},
		{name: "an IPv6 literal with a zone", in: "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n", err: errHost},
		{name: "an IPv4 address in brackets", in: "GET / HTTP/1.1\r\nHost: [127.0.0.1]\r\n", err: errHost},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := HTTP1([]byte(tt.in))
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("HTTP1(%q) = %+v, %v; want %+v, %v", tt.in, got, err, tt.want, tt.err)
			}
			checkSplits(t, []byte(tt.in))
		})
	}
}

func TestNotHTTPIsKnownAtItsFirstOddByte(t *testing.T) {
	for _, in := range []string{"\x16", "SSH-2.0-x\r", "PRI * HTTP/2", "GET /\r", "OPTIONS *a", "GET / HTTP/1.x", "GET http:/a"} {
		if _, err := HTTP1([]byte(in[:len(in)-1])); err != ErrShort {
			t.Errorf("before the last byte of %q: %v; want ErrShort", in, err)
		}
		if _, err := HTTP1([]byte(in)); err != ErrNotHTTP {
			t.Errorf("with the last byte of %q: %v; want ErrNotHTTP", in, err)
		}
	}
}

func TestErrorsNameTheirPackageAndReason(t *testing.T) {
	_, err := HTTP1([]byte("GET / HTTP/1.1\r\n\r\n"))
	if want := "sniff: malformed HTTP request: no Host"; err == nil || err.Error() != want {
		t.Errorf("error is %q; want %q", err, want)
	}
}

// checkSplits holds the promise that a verdict is final: once a prefix has one, every longer prefix has the same.
func checkSplits(t *testing.T, b []byte) {
	t.Helper()
	var first Request
	var verdict error = ErrShort
	for n := 0; n <= len(b); n++ {
		got, err := HTTP1(b[:n:n])
		if err != nil && got != (Request{}) {
			t.Fatalf("HTTP1(%q) has both a result and an error: %+v, %v", b[:n], got, err)
		}
		if verdict == ErrShort {
			first, verdict = got, err
			continue
		}
		if got != first || err != verdict {
			t.Fatalf("HTTP1(%q) = %+v, %v; but a shorter prefix gave %+v, %v", b[:n], got, err, first, verdict)
		}
	}
}

func FuzzHTTP1(f *testing.F) {
	for _, seed := range []string{
		"",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n",
		"\r\nGET / HTTP/1.0\nHost:a\n\n",
		"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
		"CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n",
		"GET http://a.b./p?q HTTP/1.1\r\nX: y\r\nHost: A.B:80\r\n\r\nGET /2 HTTP/1.1\r\n",
		"GET / HTTP/1.1\r\nHost: a.b\r\nHost: c.d\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 2048 {
			b = b[:2048] // every prefix is tried: the square of more says nothing new
		}
		before := string(b)
		checkSplits(t, b)
		if string(b) != before {
			t.Fatalf("the bytes were changed from %q to %q", before, b)
		}
		checkRequest(t, b)
	})
}

// checkRequest holds what the documentation of Request promises.
func checkRequest(t *testing.T, b []byte) {
	r, err := HTTP1(b)
	if err != nil {
		return
	}
	if r.Method == "" || r.Host == "" || r.Host != strings.ToLower(r.Host) {
		t.Fatalf("HTTP1(%q) = %+v", b, r)
	}
	if strings.ContainsAny(r.Host, "/\\[]@% \x00") || strings.HasPrefix(r.Host, ".") || strings.HasSuffix(r.Host, ".") {
		t.Fatalf("HTTP1(%q) has the host %q", b, r.Host)
	}
	if r.Path == "" && r.Method != "CONNECT" {
		t.Fatalf("HTTP1(%q) = %+v without a path", b, r)
	}
}

// curlHead is what curl sends, browserHead about what a browser sends.
const (
	curlHead    = "GET /index.html HTTP/1.1\r\nHost: red.localhost\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"
	browserHead = "GET /index.html?lang=en HTTP/1.1\r\nHost: shop.example.com:8080\r\nConnection: keep-alive\r\n" +
		"Cache-Control: max-age=0\r\nUpgrade-Insecure-Requests: 1\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"
)

func BenchmarkHTTP1(b *testing.B) {
	for _, bm := range []struct{ name, head string }{{"curl", curlHead}, {"browser", browserHead}} {
		b.Run(bm.name, func(b *testing.B) {
			head := []byte(bm.head)
			b.SetBytes(int64(len(head)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := HTTP1(head); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
