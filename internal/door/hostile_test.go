package door

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
)

// hammer calls f from several goroutines, again and again, until stop.
func hammer(n int, f func()) (stop func()) {
	var all sync.WaitGroup
	var end atomic.Bool
	for range n {
		all.Go(func() {
			for !end.Load() {
				f()
			}
		})
	}
	return func() { end.Store(true); all.Wait() }
}

func TestTheStatusCanBeAskedWhileListenersComeAndGo(t *testing.T) {
	h := newHouse(t)
	h.open("")
	stop := hammer(4, func() { h.door.Status() })
	defer stop()
	one := h.config("listeners: [{name: web, address: '127.0.0.1:0'}]")
	other := h.config("listeners: [{name: web, address: 'localhost:0'}]")
	for i := range 40 {
		if err := h.door.Reload([]*config.Config{one, other}[i%2]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheStatusCanBeAskedWhileTheDoorShutsDown(t *testing.T) {
	for range 20 {
		d := must(Start(Options{Config: config.Default("127.0.0.1:0")}))(t)
		stop := hammer(4, func() { d.Status() })
		if err := d.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		stop()
	}
}

func TestWhoTheKernelHasAcceptedIsServedByADoorThatEnds(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	conns := make([]net.Conn, 200)
	for i := range conns {
		conns[i] = raw(t, l.Addr().String())
		send(t, conns[i], "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
	}
	c := h.config(`{listeners: [{name: web, address: "systemd:web", limits: {per_ip: 1000}}], routes: [{match: {}, handoff: "{shop}", handoff_timeout: 20s}]` + h.endpoints() + `}`)
	d := must(Start(Options{Config: c, Passed: map[string][]net.Listener{"web": {l}}}))(t)
	if err := d.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	lost := 0
	for _, c := range conns {
		if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200") {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d were lost", lost, len(conns))
	}
}

// endpoints is what a configuration in one line needs.
func (h *house) endpoints() string {
	if isWindows {
		return ""
	}
	return `, endpoints: {dir: "` + h.dir + `"}`
}

func TestTheAutoRouteLeadsAroundNoOther(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.take("blog", whoami("blog"), nil)
	h.open(`
routes:
  - {match: {host: "{shop}", from: [192.0.2.0/24]}, handoff: "{shop}"}
  - {match: {host: inner.example.com, from: [192.0.2.0/24]}, handoff: "{blog}"}
auto_routes: true
`)
	for _, host := range []string{h.name("shop"), h.name("blog")} {
		if status, _, err := get(httpClient(t, h.addr("web"), nil), "http://"+host+"/"); err != nil || status != 404 {
			t.Errorf("%s, for which there is a route for others: %d, %v; want 404", host, status, err)
		}
	}
}

func TestAPinHoldsHoweverTheEndpointIsNamed(t *testing.T) {
	h := newHouse(t)
	c := &config.Endpoints{Dir: h.dir, Pin: map[string]string{h.name("shop"): "0"}}
	if isWindows {
		c.Dir, c.Pin[h.name("shop")] = "", "S-1-5-18"
	}
	p := must(newPolicies(c))(t)
	for _, name := range []string{h.name("shop"), h.path("shop")} {
		if got := p.of(must(p.path(name))(t)).words; !strings.HasPrefix(got, "pinned to ") {
			t.Errorf("%s has the policy %q", name, got)
		}
	}
	c.Pin[h.path("shop")] = c.Pin[h.name("shop")]
	if _, err := newPolicies(c); err == nil {
		t.Error("an endpoint was pinned twice")
	}
}

func TestAnEndpointIsNotTriedAgainAndAgainWhoseTakerDoesNotGreet(t *testing.T) {
	if isWindows {
		t.Skip("who listens without a greeting is made of a Unix socket")
	}
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	hung := must(net.Listen("unix", h.path("blog")))(t)
	defer hung.Close()
	h.open(`routes: [{match: {}, handoff: ["{blog}", "{shop}"], handoff_timeout: 100ms}]`)
	for range 40 {
		if status, _, err := get(httpClient(t, h.addr("web"), freshConns), "http://x.test/"); err != nil || status != 200 {
			t.Fatalf("%d, %v", status, err)
		}
	}
	waited := 0
	for _, r := range h.door.Status().Routes {
		for i, n := range r.Handover.Counts {
			if r.Name == "default" && i > 0 && admin.Bounds[i-1] >= 0.05 {
				waited += int(n)
			}
		}
	}
	if waited > 10 {
		t.Errorf("%d of 40 connections waited for a greeting", waited)
	}
}

func TestATakerThatIsSlowToGreetIsConnectedAllTheSame(t *testing.T) {
	if isWindows {
		t.Skip("who listens without a greeting is made of a Unix socket")
	}
	h := newHouse(t)
	slow := must(net.Listen("unix", h.path("shop")))(t)
	h.open(`routes: [{match: {}, handoff: "{shop}", handoff_timeout: 50ms}]`)
	c := httpClient(t, h.addr("web"), freshConns)
	for range 5 {
		if status, _, err := get(c, "http://x.test/"); err != nil || status != 503 {
			t.Fatalf("%d, %v", status, err)
		}
	}
	slow.Close() // which removes its socket
	h.take("shop", whoami("shop"), nil)
	eventually(t, "the one that greets serves", func() bool {
		_, body, err := get(c, "http://x.test/")
		return err == nil && strings.HasPrefix(body, "shop")
	})
}

func TestATakersReportsAreBelievedOfItsOwnRoutesOnly(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.open(`routes: [{name: shop, match: {host: a}, handoff: "{shop}"}, {name: bank, match: {host: b}, reject: true}]`)
	h.door.mu.RLock()
	e := h.door.plan.endpoints[0]
	h.door.mu.RUnlock()
	before := len(h.log.String())
	for _, route := range []string{"bank", strings.Repeat("x", 60000), "shop"} {
		e.ended(usher.Report{
			Info:     usher.Info{Route: route, ID: strings.Repeat("y", 60000), Host: strings.Repeat("z", 60000)},
			Received: math.MaxInt64, Sent: math.MaxInt64, Duration: math.MaxInt64,
		})
	}
	if n := len(h.log.String()) - before; n > 4096 {
		t.Errorf("three reports made %d bytes of log", n)
	}
	for _, r := range h.door.Status().Routes {
		if r.Name == "bank" && r.Ended > 0 {
			t.Error("a report of another's route was counted")
		}
		if r.Name == "shop" && (r.Ended != 1 || r.Received > maxReported || r.Lifetime.Sum > time.Since(h.door.started).Seconds()) {
			t.Errorf("of an absurd report was counted: %+v", r)
		}
	}
}

func TestAListenerMayComeBackAtOnce(t *testing.T) {
	h := newHouse(t)
	one, addr := fixed(t, "one")
	other, _ := fixed(t, "two")
	both := one[:len(one)-2] + ", " + strings.TrimPrefix(other, "listeners: [")
	h.open(one)
	for _, c := range []string{both, other, both, one, other, one} {
		if err := h.door.Reload(h.config(c)); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := net.Dial("tcp", addr); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

func TestTwoListenersMayHaveAnyPort(t *testing.T) {
	h := newHouse(t)
	const two = `listeners: [{name: a, address: "127.0.0.1:0"}, {name: b, address: "127.0.0.1:0"}]`
	h.open(two)
	a, b := h.addr("a"), h.addr("b")
	if err := h.door.Reload(h.config(two)); err != nil {
		t.Fatal(err)
	}
	if a != h.addr("a") || b != h.addr("b") {
		t.Errorf("a reload has moved %s and %s to %s and %s", a, b, h.addr("a"), h.addr("b"))
	}
}

func TestADoorThatMustEndAtOnceDoes(t *testing.T) {
	h := newHouse(t)
	h.open("routes: [{match: {host: a}, reject: true}]")
	peeking, told := raw(t, h.addr("web")), raw(t, h.addr("web"))
	send(t, peeking, "GET / HTTP/1.1\r\nHost: ")
	send(t, told, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") // and does not go when it is told
	h.expect("none", admin.NoRoute, 1)
	eventually(t, "the other is in the peek phase", func() bool { return h.door.Status().Listeners[0].Peeking == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	h.door.Shutdown(ctx)
	if took := time.Since(began); took > endTimeout/2 {
		t.Errorf("it took %v", took)
	}
}

func TestHEADGetsNoBody(t *testing.T) {
	h := newHouse(t)
	h.open("")
	for version, how := range map[string]func(*http.Transport){"HTTP/1.1": freshConns, "HTTP/2": http2Only} {
		r, err := httpClient(t, h.addr("web"), how).Head("http://nowhere.test/")
		if err != nil || r.StatusCode != 404 {
			t.Errorf("%s: %v, %v", version, r, err)
		}
	}
	c := raw(t, h.addr("web"))
	send(t, c, "HEAD / HTTP/1.1\r\nHost: nowhere.test\r\n\r\n")
	if got := rest(t, c); !strings.HasSuffix(got, "\r\n\r\n") {
		t.Errorf("%q", got)
	}
}

func TestAClientThatSendsMuchHearsThatItIsRefused(t *testing.T) {
	h := newHouse(t)
	h.open("")
	for range 5 {
		r, err := httpClient(t, h.addr("web"), nil).Post("http://nowhere.test/", "", io.LimitReader(zeros{}, 64<<20))
		if err != nil {
			t.Error(err)
			continue
		}
		r.Body.Close()
		if r.StatusCode != 404 {
			t.Errorf("%d, want 404", r.StatusCode)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestAPathThatIsTooLongIsNotTold(t *testing.T) {
	h := newHouse(t)
	h.take("shop", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "asked for %d bytes, told of %d", len(r.URL.Path), len(infoOf(r).Path))
	}), nil)
	h.open(`
listeners: [{name: web, address: "127.0.0.1:0", limits: {peek_bytes: 64KiB}}]
routes: [{match: {}, handoff: "{shop}"}]
`)
	for n, want := range map[int]string{1000: "asked for 1000 bytes, told of 1000", 60000: "asked for 60000 bytes, told of 0"} {
		_, body, err := get(httpClient(t, h.addr("web"), freshConns), "http://x.test/"+strings.Repeat("x", n-1))
		if err != nil || body != want {
			t.Errorf("%q, %v; want %q", body, err, want)
		}
	}
}
