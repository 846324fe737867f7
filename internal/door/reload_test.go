package door

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/faults"
)

// fixed is a listener whose port is chosen beforehand, so that a reload can name the same address.
func fixed(t testing.TB, name string) (listeners, addr string) {
	t.Helper()
	l := faults.Listen(t)
	defer l.Close()
	addr = l.Addr().String()
	return `listeners: [{name: ` + name + `, address: "` + addr + `"}]` + "\n", addr
}

func TestAReloadPutsAnotherConfigurationInForce(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.take("blog", whoami("blog"), nil)
	listeners, addr := fixed(t, "web")
	h.open(listeners + `routes: [{name: all, match: {}, handoff: "{shop}"}]`)
	c := httpClient(t, addr, freshConns)
	ask := func(want string) {
		t.Helper()
		if _, body, err := get(c, "http://x.test/"); err != nil || !strings.HasPrefix(body, want) {
			t.Errorf("%q, %v; want %s", body, err, want)
		}
	}
	ask("shop")
	if err := h.door.Reload(h.config(listeners + `routes: [{name: all, match: {}, handoff: "{blog}"}]`)); err != nil {
		t.Fatal(err)
	}
	ask("blog")
	h.expect("all", admin.HandedOver, 2)
	if s := h.door.Status(); s.Config.Reloads != 1 || len(s.Endpoints) != 1 {
		t.Errorf("after a reload: %+v, %d endpoints", s.Config, len(s.Endpoints))
	}
}

func TestAReloadThatFailsChangesNothing(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	listeners, addr := fixed(t, "web")
	h.open(listeners + `routes: [{match: {}, handoff: "{shop}"}]`)
	taken := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer taken.Close()
	free, freeAddr := fixed(t, "other")
	wrong := strings.Replace(free, "}]", `}, {name: web, address: "`+taken.Addr().String()+`"}]`, 1)
	if err := h.door.Reload(h.config(wrong + `routes: [{match: {}, reject: true}]`)); err == nil || !strings.Contains(err.Error(), "listener web") {
		t.Errorf("a reload with an address that is taken: %v", err)
	}
	if c, err := net.Dial("tcp", freeAddr); err == nil {
		c.Close()
		t.Error("what the reload had opened is open still")
	}
	if _, body, err := get(httpClient(t, addr, nil), "http://x.test/"); err != nil || !strings.HasPrefix(body, "shop") {
		t.Errorf("%q, %v; want shop as before", body, err)
	}
	if s := h.door.Status(); s.Config.Reloads != 1 || s.Config.Failures != 1 || s.Config.Error == "" || !s.Ready {
		t.Errorf("after a reload that failed: %+v, ready %v", s.Config, s.Ready)
	}
}

func TestAReloadOpensAndClosesListeners(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	first, firstAddr := fixed(t, "first")
	second, secondAddr := fixed(t, "second")
	routes := `routes: [{match: {}, handoff: "{shop}"}]`
	h.open(first + routes)
	waiting := raw(t, firstAddr) // in the peek phase while its listener goes
	send(t, waiting, "GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n")
	eventually(t, "it is there", func() bool { return h.door.Status().Listeners[0].Peeking == 1 })
	old := h.door.plan.listeners[0]
	if err := h.door.Reload(h.config(second + routes)); err != nil {
		t.Fatal(err)
	}
	if _, body, err := get(httpClient(t, secondAddr, nil), "http://x.test/"); err != nil || !strings.HasPrefix(body, "shop") {
		t.Errorf("at the new address: %q, %v", body, err)
	}
	<-old.ended
	if c, err := net.Dial("tcp", firstAddr); err == nil {
		c.Close()
		t.Error("the old address is open still")
	}
	send(t, waiting, "\r\n")
	if got := rest(t, waiting); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("who was in the peek phase is told %q", got)
	}
}

// TestReloadsUnderLoadDropNothing reloads again and again, between two configurations of which each leads
// every connection somewhere, while clients make connections.
func TestReloadsUnderLoadDropNothing(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.take("blog", whoami("blog"), nil)
	backend := httptest.NewServer(whoami("backend"))
	defer backend.Close()
	listeners, addr := fixed(t, "web")
	configs := []string{
		listeners + `routes: [{name: all, match: {}, handoff: ["{shop}", "{chat}"], handoff_timeout: 10s}]`,
		listeners + `routes: [{match: {}, handoff: "{blog}"}, {match: {host: y.test}, proxy: "` + backend.Listener.Addr().String() + `"}]`,
		listeners + `routes: [{match: {host: x.test}, handoff: "{chat}", fallback: {handoff: "{blog}"}}, {match: {}, handoff: "{shop}"}]`,
	}
	taken := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer taken.Close()
	h.open(configs[0])
	var stop atomic.Bool
	var served, lost atomic.Int64
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			c := httpClient(t, addr, freshConns)
			url := []string{"http://x.test/", "http://y.test/"}[i%2]
			for !stop.Load() {
				status, body, err := get(c, url)
				if err != nil || status != http.StatusOK {
					t.Errorf("%d %q, %v", status, body, err)
					lost.Add(1)
					return
				}
				served.Add(1)
			}
		})
	}
	reloads := 0
	for began := time.Now(); reloads < 60 || served.Load() < int64(*loadConns); reloads++ {
		if time.Since(began) > 10*timeout || t.Failed() {
			t.Fatalf("%d reloads and %d connections in %v", reloads, served.Load(), time.Since(began))
		}
		if err := h.door.Reload(h.config(configs[reloads%len(configs)])); err != nil {
			t.Fatal(err)
		}
		wrong := strings.Replace(configs[0], "address:", `address: "`+taken.Addr().String()+`"}, {name: web2, address:`, 1)
		if err := h.door.Reload(h.config(wrong)); err == nil {
			t.Fatal("a reload with an address that is taken has succeeded")
		}
	}
	stop.Store(true)
	clients.Wait()
	t.Logf("%d connections during %d reloads: %d lost", served.Load(), reloads, lost.Load())
}

func TestShutdownWaitsForWhatIsStillTheDoors(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	release := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-release
		io.WriteString(w, "the end")
	}))
	defer backend.Close()
	h.open(`routes: [{match: {host: x.test}, handoff: "{shop}"}, {match: {}, proxy: "` + backend.Listener.Addr().String() + `"}]`)
	addr := h.addr("web")
	peeking := raw(t, addr)
	send(t, peeking, "GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n")
	proxied := raw(t, addr)
	send(t, proxied, "GET / HTTP/1.1\r\nHost: y.test\r\nConnection: close\r\n\r\n")
	proxied.Read(make([]byte, 1))
	eventually(t, "both are at the door", func() bool { return h.door.Status().Listeners[0].Open == 2 })

	done := make(chan error, 1)
	go func() { done <- h.door.Shutdown(t.Context()) }()
	eventually(t, "the door drains", func() bool { return h.door.Status().Draining })
	if s := h.door.Status(); s.Ready {
		t.Error("a door that drains says that it is ready")
	}
	send(t, peeking, "\r\n")
	if got := rest(t, peeking); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("who was in the peek phase is told %q", got)
	}
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v while a connection was proxied", err)
	default:
	}
	close(release)
	if got := rest(t, proxied); !strings.Contains(got, "the end") {
		t.Errorf("the proxied connection ends with %q", got)
	}
	proxied.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("a door that has shut down accepts")
	}
}

func TestShutdownIsBounded(t *testing.T) {
	h := newHouse(t)
	block := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-block }))
	defer backend.Close()
	defer close(block)
	h.open(`
listeners: [{name: web, address: "127.0.0.1:0", defer_accept: false, limits: {peek_timeout: 10m}}]
routes: [{match: {}, proxy: "` + backend.Listener.Addr().String() + `"}]
`)
	silent, proxied := raw(t, h.addr("web")), raw(t, h.addr("web"))
	send(t, proxied, "GET / HTTP/1.1\r\nHost: y.test\r\n\r\n")
	h.expect("default", admin.Proxied, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.door.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 connections") {
		t.Errorf("%v, want the deadline and how many were closed", err)
	}
	for _, c := range []net.Conn{silent, proxied} {
		if _, err := io.ReadAll(c); errors.Is(err, context.DeadlineExceeded) {
			t.Error("a connection is open still")
		}
	}
}
