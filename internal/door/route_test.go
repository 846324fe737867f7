package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
)

func TestEveryProtocolFindsItsTaker(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.take("blog", whoami("blog"), nil)
	h.take("chat", whoami("chat"), certificate())
	h.open(`
routes:
  - {match: {host: shop.example.com}, handoff: "{shop}"}
  - {match: {host: shop.example.com, path: /blog/}, handoff: "{blog}"}
  - {match: {host: "*.example.com"}, handoff: "{blog}"}
  - {match: {host: chat.example.com}, handoff: "{chat}"}
  - {match: {host: "::1"}, handoff: "{shop}"}
`)
	for _, c := range []struct {
		name, url string
		how       func(*http.Transport)
		want      string
	}{
		{"by the host of HTTP/1.1", "http://shop.example.com/x", nil, "shop serves shop.example.com/x over HTTP/1.1 for shop.example.com"},
		{"whatever its case, port and trailing dot", "http://SHOP.example.com.:81/", nil, "shop serves SHOP.example.com.:81/ over HTTP/1.1 for shop.example.com"},
		{"by the longest path", "http://shop.example.com/blog/1", nil, "blog serves shop.example.com/blog/1 over HTTP/1.1 for shop.example.com/blog/"},
		{"by a wildcard", "http://a.b.example.com/", nil, "blog serves a.b.example.com/ over HTTP/1.1 for *.example.com"},
		{"by an IPv6 address", "http://[0:0::1]/", nil, "shop serves [0:0::1]/ over HTTP/1.1 for ::1"},
		{"by the authority of HTTP/2", "http://shop.example.com/x", http2Only, "shop serves shop.example.com/x over HTTP/2.0 for shop.example.com"},
		{"by the path of HTTP/2", "http://shop.example.com/blog/x", http2Only, "blog serves shop.example.com/blog/x over HTTP/2.0 for shop.example.com/blog/"},
		{"by the server name of TLS", "https://chat.example.com/x", nil, "chat serves chat.example.com/x over HTTP/1.1 for chat.example.com"},
		{"by the server name of TLS with HTTP/2", "https://chat.example.com/x", http2Only, "chat serves chat.example.com/x over HTTP/2.0 for chat.example.com"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, err := get(httpClient(t, h.addr("web"), c.how), c.url)
			if err != nil || status != 200 || body != c.want {
				t.Errorf("%d %q, %v; want %q", status, body, err, c.want)
			}
		})
	}
	h.expect("", admin.HandedOver, 9)
}

func TestATakerIsToldWhatTheDoorLearnt(t *testing.T) {
	h := newHouse(t)
	var info usher.Info
	h.take("chat", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { info = infoOf(r) }), certificate())
	h.open(`routes: [{name: talk, match: {host: chat.example.com}, handoff: "{chat}"}]`)
	if _, _, err := get(httpClient(t, h.addr("web"), func(tr *http.Transport) { http2Only(tr) }), "https://chat.example.com/"); err != nil {
		t.Fatal(err)
	}
	if info.ID == "" || info.Route != "talk" || info.ServerName != "chat.example.com" || fmt.Sprint(info.ALPN) != "[h2]" || info.Host != "" || info.Client.IsValid() {
		t.Errorf("told %+v", info)
	}
}

func TestAServerThatSpeaksFirst(t *testing.T) {
	h := newHouse(t)
	l := must(usher.Listen(h.path("shop")))(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "220 welcome\r\n")
			c.Close()
		}
	}()
	defer l.Close()
	h.open(`
listeners: [{name: smtp, address: "127.0.0.1:0", sniff: none}]
routes: [{match: {listener: smtp}, handoff: "{shop}"}]
`)
	if got := rest(t, raw(t, h.addr("smtp"))); got != "220 welcome\r\n" {
		t.Errorf("%q", got)
	}
}

func TestRoutesByListenerAndClient(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.take("blog", whoami("blog"), nil)
	h.open(`
listeners: [{name: inner, address: "127.0.0.1:0"}, {name: outer, address: "127.0.0.1:0"}]
routes:
  - {match: {host: x.test, listener: inner}, handoff: "{shop}"}
  - {name: theirs, match: {host: x.test}, handoff: "{blog}"}
  - {name: ours, match: {host: y.test, from: [127.0.0.0/8]}, handoff: "{shop}"}
  - {match: {host: y.test, from: [10.0.0.0/8]}, handoff: "{blog}"}
`)
	for url, want := range map[string]string{"inner http://x.test/": "shop", "outer http://x.test/": "blog", "outer http://y.test/": "shop"} {
		listener, url, _ := strings.Cut(url, " ")
		_, body, err := get(httpClient(t, h.addr(listener), nil), url)
		if err != nil || !strings.HasPrefix(body, want) {
			t.Errorf("%s at %s: %q, %v; want %s", url, listener, body, err, want)
		}
	}
}

func TestAnAutoRouteLeadsToTheEndpointOfTheHostsName(t *testing.T) {
	h := newHouse(t)
	h.take("shop.example.com", whoami("shop"), nil)
	h.open(`auto_routes: true`)
	host := h.name("shop.example.com")
	_, body, err := get(httpClient(t, h.addr("web"), nil), "http://"+host+"/")
	if err != nil || body != "shop serves "+host+"/ over HTTP/1.1 for auto" {
		t.Errorf("%q, %v", body, err)
	}
	for _, url := range []string{"http://other.example.com/", "http://[::1]/"} {
		if status, _, err := get(httpClient(t, h.addr("web"), nil), url); err != nil || status != 404 {
			t.Errorf("%s: %d, %v; want 404", url, status, err)
		}
	}
	h.expect("auto", admin.HandedOver, 1)
	h.expect("none", admin.NoRoute, 2)
	if n := len(h.door.Status().Endpoints); n != 1 {
		t.Errorf("the door remembers %d endpoints, and there is 1", n)
	}
}

func TestWhatCannotTakeIsProxied(t *testing.T) {
	h := newHouse(t)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s%s had %d bytes", r.Host, r.URL.Path, n)
	}))
	defer backend.Close()
	h.open(`routes: [{name: old, match: {}, proxy: "` + backend.Listener.Addr().String() + `"}]`)
	c := httpClient(t, h.addr("web"), nil)
	r, err := c.Post("http://old.test/x", "", strings.NewReader(strings.Repeat("a", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	body := string(must(io.ReadAll(r.Body))(t))
	r.Body.Close()
	if body != "old.test/x had 1048576 bytes" {
		t.Errorf("%q", body)
	}
	h.expect("old", admin.Proxied, 1)
	c.CloseIdleConnections()
	eventually(t, "the end is counted, with its bytes", func() bool {
		for _, r := range h.door.Status().Routes {
			if r.Name == "old" {
				return r.Ended == 1 && r.Received > 1<<20 && r.Sent > uint64(len(body))
			}
		}
		return false
	})
}

func TestTheNextTargetServesWhenOneCannot(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "proxied "+r.URL.Path) }))
	defer backend.Close()
	proxy := backend.Listener.Addr().String()
	for _, c := range []struct{ name, target, want string }{
		{"the second endpoint when nobody listens at the first", `handoff: ["{chat}", "{shop}"]`, "shop"},
		{"the second endpoint when the first declines", `handoff: ["{blog}", "{shop}"]`, "shop"},
		{"the fallback when nobody listens", `handoff: "{chat}", fallback: {handoff: "{shop}"}`, "shop"},
		{"a backend that is proxied when the taker declines", `handoff: "{blog}", fallback: {proxy: "` + proxy + `"}`, "proxied /x"},
		{"a taker when no backend can be reached", `proxy: "127.0.0.1:1", fallback: {handoff: "{shop}"}`, "shop"},
		{"the second backend", `proxy: ["127.0.0.1:1", "` + proxy + `"]`, "proxied /x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			h.take("shop", whoami("shop"), nil)
			full(t, h.path("blog"))
			h.open(`routes: [{match: {}, ` + c.target + `}]`)
			for range 4 { // the first endpoint is not the same every time
				_, body, err := get(httpClient(t, h.addr("web"), freshConns), "http://any.test/x")
				if err != nil || !strings.HasPrefix(body, c.want) {
					t.Errorf("%q, %v; want %s", body, err, c.want)
				}
			}
		})
	}
}

// full listens at an endpoint and declines every offer: its queue has room for one, and has it.
func full(t testing.TB, path string) {
	t.Helper()
	lc := usher.ListenConfig{Backlog: 1}
	l := must(lc.Listen(path))(t)
	t.Cleanup(func() { l.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	var pending sync.WaitGroup
	t.Cleanup(func() { cancel(); pending.Wait() })
	declined := make(chan struct{}, 8)
	for range 2 { // each on a channel of its own, for the window is 1, too; whichever comes first has the room
		o := offerOf(t)
		target := must(usher.Dial(t.Context(), path))(t)
		t.Cleanup(func() { target.Close() })
		pending.Go(func() {
			if errors.Is(target.Handoff(ctx, o), usher.ErrDeclined) {
				declined <- struct{}{}
			}
			if c, err := o.Reclaim(); err == nil {
				c.Close()
			}
		})
	}
	select {
	case <-declined:
	case <-time.After(timeout):
		t.Fatal("a queue with room for one has room for two")
	}
}

// offerOf makes an offer of a connection whose client stays silent.
func offerOf(t testing.TB) *usher.Offer {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	raw(t, l.Addr().String())
	return must(usher.NewOffer(must(l.Accept())(t), nil, usher.Info{}))(t)
}
