package door

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
)

func TestStateOfThePeekPhaseIsReadAsItWasWritten(t *testing.T) {
	for _, s := range []peekState{
		{}, {age: 1234 * time.Millisecond}, {header: true}, {returned: true}, {age: math.MaxUint32 * time.Millisecond, header: true, returned: true},
	} {
		if got, err := parsePeekState(s.encode()); err != nil || got != s {
			t.Errorf("%+v is read as %+v, %v", s, got, err)
		}
	}
	for of, want := range map[time.Duration]time.Duration{
		-time.Hour: 0, 1999 * time.Microsecond: time.Millisecond, math.MaxInt64: math.MaxUint32 * time.Millisecond,
	} {
		if got, err := parsePeekState(peekState{age: of}.encode()); err != nil || got.age != want {
			t.Errorf("an age of %v is read as %v, %v; want %v", of, got.age, err, want)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "another version": {2, 0, 0, 0, 0, 0}, "too little": {1, 0, 0, 0, 0}, "too much": {1, 0, 0, 0, 0, 0, 0}, "unknown flags": {1, 4, 0, 0, 0, 0},
	} {
		if s, err := parsePeekState(b); err == nil {
			t.Errorf("%s is read as %+v", name, s)
		}
	}
}

func FuzzPeekState(f *testing.F) {
	f.Add([]byte{})
	f.Add(peekState{}.encode())
	f.Add(peekState{age: time.Hour, header: true, returned: true}.encode())
	f.Add([]byte{1, 4, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parsePeekState(b)
		if err != nil {
			return
		}
		if got := s.encode(); string(got) != string(b) {
			t.Errorf("%x is read as %+v, which is written as %x", b, s, got)
		}
	})
}

// succession is a door and the one that takes its place, at the same listening socket. On Windows, where a process
// cannot have that twice, it is the same door again.
type succession struct {
	old, next *house
	addr      string
	routes    string
	openWith  func(routes string) // opens the next one
	way       *usher.Target
	arrivals  *usher.Listener
}

// newSuccession opens the old door. Its only listener has the options given.
func newSuccession(t *testing.T, options, routes string) *succession {
	t.Helper()
	s := &succession{old: newHouse(t), routes: routes}
	listeners := "listeners: [{name: web, address: %q, defer_accept: false" + options + "}]\n"
	if isWindows {
		s.next = s.old
		s.old.open(fmt.Sprintf(listeners, "127.0.0.1:0") + routes)
		s.openWith = func(string) { go s.next.door.receiveFrom(s.arrivals) }
	} else {
		l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
		f := must(l.(*net.TCPListener).File())(t)
		defer f.Close()
		same := must(net.FileListener(f))(t)
		t.Cleanup(func() { same.Close() })
		s.next = &house{t: t, dir: s.old.dir}
		listeners = fmt.Sprintf(listeners, "systemd:web")
		s.old.start(Options{Config: s.old.config(listeners + routes), Passed: map[string][]net.Listener{"web": {l}}})
		s.openWith = func(routes string) {
			t.Helper()
			s.next.start(Options{Config: s.next.config(listeners + routes), Passed: map[string][]net.Listener{"web": {same}}})
			go s.next.door.receiveFrom(s.arrivals)
		}
	}
	s.addr = s.old.addr("web")
	s.arrivals = must(usher.Listen(s.old.path("desk")))(t)
	s.way = must(usher.Dial(t.Context(), s.old.path("desk")))(t)
	t.Cleanup(func() {
		s.way.Close()
		s.arrivals.Close()
	})
	return s
}

// open opens the next door, which has the same configuration.
func (s *succession) open() {
	s.old.t.Helper()
	s.openWith(s.routes)
}

// peeking waits until so many connections are in the peek phase of a door.
func (h *house) peeking(n int) {
	h.t.Helper()
	eventually(h.t, fmt.Sprint(n, " connections are in the peek phase"), func() bool { return h.door.Status().Listeners[0].Peeking == n })
}

// surrender has the old door surrender what it can, until ctx ends.
func (s *succession) surrender(ctx context.Context) int {
	return s.old.door.surrender(ctx, s.way, s.old.door.plan.listeners)
}

func TestConnectionsOfThePeekPhaseGoToTheNextDoor(t *testing.T) {
	for _, c := range []struct{ name, options, before, after, want string }{
		{"that have said nothing", "", "", request11, "shop serves x.test/ for nobody"},
		{"that have said a part", "", request11[:20], request11[20:], "shop serves x.test/ for nobody"},
		{"of a proxy that has said nothing", proxies, "", proxyHeader + request11, "shop serves x.test/ for 203.0.113.5:12345"},
		{"of a proxy that has sent a part of its header", proxies, proxyHeader[:20], proxyHeader[20:] + request11, "shop serves x.test/ for 203.0.113.5:12345"},
		{"of a proxy that has sent its header", proxies, proxyHeader, request11, "shop serves x.test/ for 203.0.113.5:12345"},
		{"of a proxy that has sent its header and a part", proxies, proxyHeader + request11[:20], request11[20:], "shop serves x.test/ for 203.0.113.5:12345"},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 5
			s := newSuccession(t, ", limits: {peek_timeout: 1m}"+c.options, `routes: [{name: r, match: {}, handoff: "{shop}"}]`)
			s.old.take("shop", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				who := "nobody"
				if client := infoOf(r).Client; client.IsValid() {
					who = client.String()
				}
				fmt.Fprintf(w, "shop serves %s%s for %s", r.Host, r.URL.Path, who)
			}), nil)
			clients := make([]net.Conn, n)
			for i := range clients {
				clients[i] = raw(t, s.addr)
				send(t, clients[i], c.before)
			}
			s.old.peeking(n)
			if strings.HasPrefix(c.before, proxyHeader) {
				eventually(t, "the header is off the stream", func() bool { return s.old.door.headers() == 0 })
			}
			s.open()
			if moved := s.surrender(t.Context()); moved != n {
				t.Errorf("%d of %d were moved", moved, n)
			}
			s.next.peeking(n)
			if s.next != s.old {
				eventually(t, "the old door has none", func() bool { return s.old.door.stats.open.Load() == 0 })
			}
			for _, client := range clients {
				send(t, client, c.after)
				if got := answered(t, bufio.NewReader(client)); got != c.want {
					t.Errorf("a client is told %q, want %q", got, c.want)
				}
			}
			s.next.expect("r", admin.HandedOver, n)
			eventually(t, "the log says of each where it came from", func() bool { return strings.Count(s.next.log.String(), "passed.pid=") == n })
		})
	}
}

const (
	request11   = "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n"
	proxyHeader = "PROXY TCP4 203.0.113.5 127.0.0.1 12345 80\r\n"
	proxies     = ", accept_proxy: [127.0.0.1]"
)

// headers is how many connections in the peek phase have to send a header of a proxy.
func (d *Door) headers() (n int) {
	for _, l := range d.plan.listeners {
		l.clients.mu.Lock()
		named := 0
		for a, c := range l.clients.counts {
			if a.String() == "203.0.113.5" {
				named += c.open
			}
		}
		l.clients.mu.Unlock()
		n += l.waiting.len() - named
	}
	return n
}

func TestWhatTheNextDoorDoesNotTakeGoesOnHere(t *testing.T) {
	const n = 5
	for _, c := range []struct {
		name string
		way  func(t *testing.T, s *succession) (context.Context, context.CancelFunc)
	}{
		{"since it accepts nothing", func(t *testing.T, s *succession) (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 100*time.Millisecond)
		}},
		{"since it declines", func(t *testing.T, s *succession) (context.Context, context.CancelFunc) {
			s.arrivals.Close()
			return context.WithCancel(t.Context())
		}},
		{"since there was no time", func(t *testing.T, s *succession) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx, cancel
		}},
		{"since the way to it is closed", func(t *testing.T, s *succession) (context.Context, context.CancelFunc) {
			s.way.Close()
			return context.WithCancel(t.Context())
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSuccession(t, ", limits: {peek_timeout: 1m}", `routes: [{name: r, match: {}, handoff: "{shop}"}]`)
			s.old.take("shop", whoami("shop"), nil)
			clients := make([]net.Conn, n)
			for i := range clients {
				clients[i] = raw(t, s.addr)
				send(t, clients[i], request11[:6*i])
			}
			s.old.peeking(n)
			ctx, cancel := c.way(t, s)
			defer cancel()
			if moved := s.surrender(ctx); moved != 0 {
				t.Errorf("%d were moved", moved)
			}
			s.old.peeking(n)
			for i, client := range clients {
				send(t, client, request11[6*i:])
				if got := answered(t, bufio.NewReader(client)); !strings.HasPrefix(got, "shop serves x.test/") {
					t.Errorf("a client is told %q", got)
				}
			}
			s.old.expect("r", admin.HandedOver, n)
		})
	}
}

func TestAConnectionThatIsTakenBackFromTheNextDoorKeepsItsTime(t *testing.T) {
	s := newSuccession(t, ", limits: {peek_timeout: 1s}", `routes: [{match: {}, reject: true}]`)
	client := raw(t, s.addr)
	s.old.peeking(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.surrender(ctx)
	if got := rest(t, client); got != "" {
		t.Errorf("the client is told %q", got)
	}
	s.old.expect("none", admin.Timeout, 1)
}

func TestTheTimeInThePeekPhaseGoesOnAtTheNextDoor(t *testing.T) {
	s := newSuccession(t, ", limits: {peek_timeout: 1m}", `routes: [{match: {}, reject: true}]`)
	client := raw(t, s.addr)
	s.old.peeking(1)
	oldest := func(h *house) time.Time {
		w := &h.door.plan.listeners[0].waiting
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.first.accepted
	}
	accepted := oldest(s.old)
	s.open()
	began := time.Now()
	s.surrender(t.Context())
	s.next.peeking(1)
	// On its way it does not age.
	if later := oldest(s.next).Sub(accepted); later < -time.Millisecond || later > time.Since(began)+time.Millisecond {
		t.Errorf("by the next door's books it was accepted %v later", later)
	}
	client.Close()
}

// TestOneThatComesLateToTheNextDoorIsLookedAtAllTheSame passes a connection on whose time is up, with its request.
func TestOneThatComesLateToTheNextDoorIsLookedAtAllTheSame(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	listeners, addr := fixed(t, "web")
	l := must(net.Listen("tcp", addr))(t)
	client := raw(t, addr)
	send(t, client, request11)
	accepted := must(l.Accept())(t)
	l.Close()
	h.open(listeners + `routes: [{name: r, match: {}, handoff: "{shop}"}]`)
	desk := must(usher.Listen(h.path("desk")))(t)
	defer desk.Close()
	go h.door.receiveFrom(desk)
	way := must(usher.Dial(t.Context(), h.path("desk")))(t)
	defer way.Close()
	state := peekState{age: time.Hour}
	o := must(usher.NewOffer(accepted, nil, usher.Info{Listener: "web", State: state.encode()}))(t)
	if err := way.Handoff(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := answered(t, bufio.NewReader(client)); !strings.HasPrefix(got, "shop serves x.test/") {
		t.Errorf("the client is told %q", got)
	}
}

func TestAnIdleConnectionStaysOneAtTheNextDoor(t *testing.T) {
	s := newSuccession(t, ", limits: {peek_timeout: 1s}", twoHosts)
	shop := must(usher.Listen(s.old.path("shop")))(t)
	defer shop.Close()
	client, conn := served(t, shop, s.addr, "a.test")
	id := conn.Info().ID
	giveBack(t, conn, "", conn.Info())
	s.old.peeking(1)
	s.open()
	if moved := s.surrender(t.Context()); moved != 1 {
		t.Fatalf("%d were moved", moved)
	}
	if got := rest(t, client); got != "" {
		t.Errorf("the client is told %q", got)
	}
	s.next.expect("none", admin.Idle, 1)
	eventually(t, "the log says what it was called", func() bool { return strings.Contains(s.next.log.String(), "passed.id="+id) })
}

// TestClientsThatSpeakWhileTheyAreMoved has each say what it wants at about the moment when the door surrenders it.
func TestClientsThatSpeakWhileTheyAreMoved(t *testing.T) {
	const n = 100
	s := newSuccession(t, ", limits: {peek_timeout: 1m}", `routes: [{name: r, match: {}, handoff: "{shop}", handoff_timeout: 20s}]`)
	s.old.take("shop", whoami("shop"), nil)
	clients := make([]*net.TCPConn, n)
	for i := range clients {
		clients[i] = raw(t, s.addr)
		send(t, clients[i], request11[:20])
	}
	s.old.peeking(n)
	s.open()
	moved := make(chan int, 1)
	go func() { moved <- s.surrender(t.Context()) }()
	for _, client := range clients {
		send(t, client, request11[20:])
	}
	for _, client := range clients {
		if got := answered(t, bufio.NewReader(client)); !strings.HasPrefix(got, "shop serves x.test/") {
			t.Errorf("a client is told %q", got)
		}
	}
	m := <-moved
	t.Logf("%d of %d were moved", m, n)
	if s.next == s.old {
		s.old.expect("r", admin.HandedOver, n)
		return
	}
	eventually(t, "both doors together have handed all over", func() bool {
		return s.old.count("r", admin.HandedOver)+s.next.count("r", admin.HandedOver) == n
	})
	if got := s.next.count("r", admin.HandedOver); got != m {
		t.Errorf("%d were moved, and the next door has handed over %d", m, got)
	}
}
