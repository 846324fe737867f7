//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usherhttp

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-usher/usher/internal/faults"
)

// startShopAndBlog serves two hosts behind a door, each with what is for the other misdirected. Change may change the shop's server, whose
// handler is the outermost.
func startShopAndBlog(t testing.TB, keep bool, change func(*Server)) *door {
	t.Helper()
	d := newDoor(t, keep)
	for _, host := range []string{"shop", "blog"} {
		endpoint := faults.Endpoint(t)
		d.route(host, endpoint)
		startBackend(t, endpoint, host, func(s *Server) {
			s.HTTP.Handler = Misdirected(s.HTTP.Handler, Hosts(host))
			if host == "shop" && change != nil {
				change(s)
			}
		})
	}
	return d
}

// visitShop makes a request that is the shop's.
func visitShop(t testing.TB, d *door) *client {
	t.Helper()
	c := dialDoor(t, d)
	c.send(t, request("shop", "/1"))
	c.wants(t, "shop: GET shop /1 ", false)
	return c
}

func TestMisdirectedRequestsGoWhereTheyBelong(t *testing.T) {
	d := startShopAndBlog(t, false, nil)
	long := strings.Repeat("0123456789abcdef", 1<<16)
	for _, tt := range []struct {
		name, request string
		want          []string
	}{
		{"a request", request("blog", "/2"), []string{"blog: GET blog /2 "}},
		{"one that the host has in the target", "GET http://blog/2 HTTP/1.1\r\nHost: blog\r\n\r\n", []string{"blog: GET blog http://blog/2 "}},
		{"one with a body", "POST /2 HTTP/1.1\r\nHost: blog\r\nContent-Length: 5\r\n\r\nhello", []string{"blog: POST blog /2 hello"}},
		{"one with a body in chunks", "POST /2 HTTP/1.1\r\nHost: blog\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", []string{"blog: POST blog /2 hello"}},
		{"one with a long body", fmt.Sprintf("POST /2 HTTP/1.1\r\nHost: blog\r\nContent-Length: %d\r\n\r\n%s", len(long), long), []string{"blog: POST blog /2 " + long}},
		{"an upgrade", "GET /2 HTTP/1.1\r\nHost: blog\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", []string{"blog: GET blog /2 "}},
		{"one behind another", request("shop", "/2") + request("blog", "/3"), []string{"shop: GET shop /2 ", "blog: GET blog /3 "}},
		{"one before others", request("blog", "/2") + request("blog", "/3") + request("shop", "/4") + request("blog", "/5"),
			[]string{"blog: GET blog /2 ", "blog: GET blog /3 ", "shop: GET shop /4 ", "blog: GET blog /5 "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := visitShop(t, d)
			c.send(t, tt.request)
			for _, want := range tt.want {
				c.wants(t, want, false)
			}
			c.send(t, request("shop", "/back"))
			c.wants(t, "shop: GET shop /back ", false)
		})
	}
	for name, head := range map[string]string{
		"one that is to be the last": "GET /2 HTTP/1.1\r\nHost: blog\r\nConnection: close\r\n\r\n",
		"one of HTTP/1.0":            "GET /2 HTTP/1.0\r\nHost: blog\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := visitShop(t, d)
			c.send(t, head)
			c.wants(t, "blog: GET blog /2 ", true)
			c.wantsEnd(t)
		})
	}
	t.Run("one that waits to be told to continue", func(t *testing.T) {
		c := visitShop(t, d)
		c.send(t, "POST /2 HTTP/1.1\r\nHost: blog\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		if line := must(c.r.ReadString('\n'))(t); line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("the answer is %q", line)
		}
		must(c.r.Discard(len("\r\n")))(t)
		c.send(t, "hello")
		c.wants(t, "blog: POST blog /2 hello", false)
	})
	t.Run("one whose body comes later", func(t *testing.T) {
		c := visitShop(t, d)
		before := d.tookBack()
		c.send(t, "POST /2 HTTP/1.1\r\nHost: blog\r\nContent-Length: 5\r\n\r\nhe")
		for d.tookBack() == before {
		}
		c.send(t, "llo")
		c.wants(t, "blog: POST blog /2 hello", false)
	})
}

// wantsMisdirected reads an answer that says so, after which the connection ends.
func (c *client) wantsMisdirected(t testing.TB) {
	t.Helper()
	r, _, err := c.answer()
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != http.StatusMisdirectedRequest || !r.Close || r.Header.Get("Date") == "" {
		t.Errorf("the answer is %s, with %v, and says that the connection closes: %t", r.Status, r.Header, r.Close)
	}
	c.wantsEnd(t)
}

func TestMisdirectedRequestsThatCannotGoAreRefused(t *testing.T) {
	t.Run("for the door takes nothing back", func(t *testing.T) {
		d := startShopAndBlog(t, true, nil)
		c := visitShop(t, d)
		c.send(t, request("blog", "/2"))
		c.wantsMisdirected(t)
	})
	t.Run("for the door has sent it here", func(t *testing.T) {
		d := startShopAndBlog(t, false, nil)
		d.route("blog", d.endpoint("shop"))
		c := dialDoor(t, d)
		c.send(t, request("blog", "/1"))
		c.wantsMisdirected(t)
		c = visitShop(t, d)
		c.send(t, request("blog", "/2")) // which goes back once
		c.wantsMisdirected(t)
		if n := d.tookBack(); n != 1 {
			t.Errorf("the door has taken back %d connections; want 1", n)
		}
	})
	t.Run("for its body was read", func(t *testing.T) {
		d := startShopAndBlog(t, false, func(s *Server) {
			inner := s.HTTP.Handler
			s.HTTP.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Body.Read(make([]byte, 1))
				inner.ServeHTTP(w, r)
			})
		})
		c := visitShop(t, d)
		c.send(t, "POST /2 HTTP/1.1\r\nHost: blog\r\nContent-Length: 5\r\n\r\nhello")
		c.wantsMisdirected(t)
		c = visitShop(t, d)
		c.send(t, request("blog", "/2")) // which has none
		c.wants(t, "blog: GET blog /2 ", false)
	})
	t.Run("for it is not certain where requests begin", func(t *testing.T) {
		d := startShopAndBlog(t, false, nil)
		c := visitShop(t, d)
		c.send(t, "POST /2 HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n0;a=b\r\n\r\n")
		c.wants(t, "shop: POST shop /2 ", false)
		c.send(t, request("blog", "/3"))
		c.wantsMisdirected(t)
	})
	t.Run("for nothing can be hijacked", func(t *testing.T) {
		d := startShopAndBlog(t, false, func(s *Server) {
			inner := s.HTTP.Handler
			s.HTTP.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				inner.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
			})
		})
		c := visitShop(t, d)
		c.send(t, request("blog", "/2"))
		c.wantsMisdirected(t)
	})
	t.Run("for the door has gone in the last moment", func(t *testing.T) {
		var d *door
		d = startShopAndBlog(t, false, func(s *Server) {
			inner := s.HTTP.Handler
			s.HTTP.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				inner.ServeHTTP(hijacker{w, func() { d.endChannel("shop") }}, r)
			})
		})
		c := visitShop(t, d)
		// More than a connection holds: the client is still sending when it is refused.
		go fmt.Fprintf(c, "POST /2 HTTP/1.1\r\nHost: blog\r\nContent-Length: %d\r\n\r\n%s", 8<<20, strings.Repeat("x", 8<<20))
		c.wantsMisdirected(t)
	})
}

// hijacker does something before the connection is hijacked.
type hijacker struct {
	http.ResponseWriter
	first func()
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h.first()
	return http.NewResponseController(h.ResponseWriter).Hijack()
}

func TestMisdirectedRequestsInTLSAreRefused(t *testing.T) {
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS()
	defer certs.Close()
	for _, tt := range []struct {
		name   string
		protos []string
		close  bool
	}{
		{"HTTP/1.1", []string{"http/1.1"}, true},
		{"HTTP/2.0", []string{"h2"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, endpoint := newDoor(t, false), faults.Endpoint(t)
			d.beBlind()
			d.route("shop", endpoint)
			b := startBackend(t, endpoint, "shop", func(s *Server) {
				s.HTTP.TLSConfig = &tls.Config{Certificates: certs.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
				s.HTTP.Handler = Misdirected(s.HTTP.Handler, Hosts("shop"))
			})
			transport := &http.Transport{
				TLSClientConfig:   certs.Client().Transport.(*http.Transport).TLSClientConfig,
				ForceAttemptHTTP2: tt.name == "HTTP/2.0",
			}
			defer transport.CloseIdleConnections()
			get := func(host string) (*http.Response, string) {
				r := must(http.NewRequest("GET", "https://"+d.l.Addr().String()+"/1", nil))(t)
				r.Host = host
				answer := must(transport.RoundTrip(r))(t)
				defer answer.Body.Close()
				return answer, string(must(io.ReadAll(answer.Body))(t))
			}
			if r, body := get("shop"); body != "shop: GET shop /1 " || r.Proto != tt.name {
				t.Errorf("the answer is %q in %s", body, r.Proto)
			}
			if r, _ := get("blog"); r.StatusCode != http.StatusMisdirectedRequest || r.Close != tt.close {
				t.Errorf("the answer is %s, and says that the connection closes: %t; want %t", r.Status, r.Close, tt.close)
			}
			b.stop()
			if err := b.ended(t); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	match := Hosts("shop.example.com", "*.Example.org", "[2001:DB8::0:1]", "10.0.0.1")
	for host, want := range map[string]bool{
		"shop.example.com":      true,
		"SHOP.example.com.:80":  true,
		"shop.example.com:":     true,
		"a.shop.example.com":    false,
		"example.com":           false,
		"a.example.org":         true,
		"b.a.example.org:8080":  true,
		"example.org":           false,
		".example.org":          true, // a host that is no host is refused by the door and by net/http
		"aexample.org":          false,
		"[2001:db8::1]:443":     true,
		"[2001:db8::1]":         true,
		"[2001:db8::2]":         false,
		"[2001:db8::1":          false,
		"[2001:db8::1]x":        false,
		"10.0.0.1:80":           true,
		"shop.example.com:http": false,
		"":                      false,
	} {
		if got := match(&http.Request{Host: host}); got != want {
			t.Errorf("%q matches: %t; want %t", host, got, want)
		}
	}
	for _, wrong := range []string{"", "*", "*.", "a.*.b", "**.a", "shop:80", "[::1", "[::1]:80", "::1"} {
		t.Run("panics for "+wrong, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it does not")
				}
			}()
			Hosts(wrong)
		})
	}
}
