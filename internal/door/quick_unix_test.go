//go:build unix

package door

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

func init() { roles["short"] = playShort }

// request is one that is answered and then is the connection's last.
const request = "GET /x HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n"

// speak makes a connection whose client says at once all that it has to say.
func speak(t testing.TB, addr, what string) *net.TCPConn {
	t.Helper()
	c := raw(t, addr)
	send(t, c, what)
	return c
}

// nothingLeft waits until the door has no connection, and looks whether each was let go in every book, and once.
func (h *house) nothingLeft() {
	h.t.Helper()
	eventually(h.t, "the door has no connection", func() bool {
		open := h.door.stats.open.Load()
		for _, l := range h.door.Status().Listeners {
			open += int64(l.Open)
		}
		return open == 0
	})
	h.door.mu.RLock()
	p := h.door.plan
	users := p.users
	h.door.mu.RUnlock()
	if users != 1 {
		h.t.Errorf("the plan has %d users, and only that it is in force is left", users)
	}
	for _, l := range p.listeners {
		l.clients.mu.Lock()
		for a, c := range l.clients.counts {
			if c.open != 0 {
				h.t.Errorf("%v has %d connections in the books", a, c.open)
			}
		}
		l.clients.mu.Unlock()
	}
}

// endpoint is how one is.
func (h *house) endpoint(name string) admin.EndpointStatus {
	for _, e := range h.door.Status().Endpoints {
		if e.Name == h.name(name) {
			return e
		}
	}
	return admin.EndpointStatus{}
}

// lines are those of the log that have a text.
func (h *house) lines(text string) (found []string) {
	for line := range strings.Lines(h.log.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

func TestWhoSpeaksAtOnceIsHandedOverAndForgotten(t *testing.T) {
	h := newHouse(t)
	l := must(usher.Listen(h.path("shop")))(t)
	defer l.Close()
	h.open(`
listeners: [{name: web, address: "0.0.0.0:0"}]
routes: [{name: r, match: {}, handoff: "{shop}"}]
`)
	h.up(1)
	// Another address of this machine than the first: the listener's own says nothing.
	_, port, _ := net.SplitHostPort(h.addr("web"))
	to := net.JoinHostPort("127.0.0.1", port)
	if runtime.GOOS == "linux" {
		to = net.JoinHostPort("127.0.0.2", port)
	}
	client := speak(t, to, request)
	c := must(l.Accept())(t)
	defer c.Close()
	if c.LocalAddr().String() != to || c.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("the taker sees %v from %v, want %s from %v", c.LocalAddr(), c.RemoteAddr(), to, client.LocalAddr())
	}
	info := c.(*usher.Conn).Info()
	if info.ID == "" || info.Route != "r" || info.Host != "x.test" || info.Path != "/x" || info.Client != (netip.AddrPort{}) {
		t.Errorf("it is told %+v", info)
	}
	if r, err := http.ReadRequest(bufio.NewReader(c)); err != nil || r.Host != "x.test" {
		t.Errorf("it reads %v, %v", r, err)
	}
	h.expect("r", admin.HandedOver, 1)
	h.nothingLeft()
	if e := h.endpoint("shop"); e.Claimed != 1 || e.Declined+e.Withdrawn != 0 {
		t.Errorf("the endpoint counts %+v", e)
	}
	if s := h.door.Status().Listeners[0]; s.Accepted != 1 || s.Peek.Counts == nil {
		t.Errorf("the listener counts %+v", s)
	}
	line := strings.Join(h.lines("msg=connection "), "")
	for _, want := range []string{"id=" + info.ID, "listener=web", "client=" + client.LocalAddr().String(), "protocol=http1", "host=x.test", "route=r", "target=shop", "outcome=handed_over", "peek=", "handover="} {
		if !strings.Contains(line, want) {
			t.Errorf("its line has no %s: %s", want, line)
		}
	}
}

// TestEveryWayForAClientThatSpeaksAtOnce has takers that are all connected: shop serves, blog declines, chat accepts
// nothing, and nobody is at gone.
func TestEveryWayForAClientThatSpeaksAtOnce(t *testing.T) {
	backend := httptest.NewServer(whoami("backend"))
	defer backend.Close()
	proxy := backend.Listener.Addr().String()
	for _, c := range []struct {
		name, target, want    string
		outcome               admin.Outcome
		claimed, no, withdrew uint64 // by shop, blog and chat
	}{
		{"handed over", `handoff: shop`, "200", admin.HandedOver, 1, 0, 0},
		{"rejected", `reject: true`, "403", admin.Rejected, 0, 0, 0},
		{"proxied", `proxy: "` + proxy + `"`, "200", admin.Proxied, 0, 0, 0},
		{"nobody takes", `handoff: gone`, "503", admin.Unavailable, 0, 0, 0},
		{"nobody takes, and there is a fallback", `handoff: gone, fallback: {handoff: shop}`, "200", admin.HandedOver, 1, 0, 0},
		{"the taker declines", `handoff: blog`, "503", admin.Unavailable, 0, 1, 0},
		{"it declines, and there is a fallback", `handoff: blog, fallback: {handoff: shop}`, "200", admin.HandedOver, 1, 1, 0},
		{"it declines, and is asked again by the fallback", `handoff: blog, fallback: {handoff: blog}`, "503", admin.Unavailable, 0, 2, 0},
		{"it declines, and a backend can be reached", `handoff: blog, fallback: {proxy: "` + proxy + `"}`, "200", admin.Proxied, 0, 1, 0},
		{"it declines, and the route rejects then", `handoff: blog, fallback: {reject: true}`, "403", admin.Rejected, 0, 1, 0},
		{"the taker does not claim", `handoff: chat, handoff_timeout: 50ms`, "503", admin.Unavailable, 0, 0, 1},
		{"it does not claim, and there is a fallback", `handoff: chat, handoff_timeout: 50ms, fallback: {handoff: shop}`, "200", admin.HandedOver, 1, 0, 1},
		{"one does not claim, the next declines, the fallback serves", `handoff: [chat, blog], handoff_timeout: 50ms, fallback: {handoff: shop}`, "200", admin.HandedOver, 1, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			h.take("shop", whoami("shop"), nil)
			full(t, h.path("blog"))
			stuck := must(usher.Listen(h.path("chat")))(t)
			defer stuck.Close()
			// A second route has all of them connected from the start.
			h.open(`routes: [{name: r, match: {host: x.test}, ` + c.target + `}, {match: {}, handoff: [shop, blog, chat]}]`)
			h.up(3)
			client := speak(t, h.addr("web"), request)
			answer := rest(t, client)
			client.Close()
			if !strings.HasPrefix(answer, "HTTP/1.1 "+c.want) {
				t.Errorf("it is told %q, want %s", answer, c.want)
			}
			h.expect("r", c.outcome, 1)
			h.nothingLeft()
			shop, blog, chat := h.endpoint("shop"), h.endpoint("blog"), h.endpoint("chat")
			if shop.Claimed != c.claimed || blog.Declined != c.no || chat.Withdrawn != c.withdrew {
				t.Errorf("%d claimed, %d declined, %d withdrawn, want %d, %d, %d", shop.Claimed, blog.Declined, chat.Withdrawn, c.claimed, c.no, c.withdrew)
			}
			if lines := h.lines("msg=connection "); len(lines) != 1 {
				t.Errorf("it has %d lines in the log:\n%s", len(lines), strings.Join(lines, ""))
			}
		})
	}
	t.Run("no route", func(t *testing.T) {
		h := newHouse(t)
		h.open("routes: [{match: {host: other.test}, reject: true}]")
		client := speak(t, h.addr("web"), request)
		if got := rest(t, client); !strings.HasPrefix(got, "HTTP/1.1 404") {
			t.Errorf("it is told %q", got)
		}
		client.Close()
		h.expect("none", admin.NoRoute, 1)
		h.nothingLeft()
	})
}

func TestAServerThatSpeaksFirstIsOfferedItsClientAtOnce(t *testing.T) {
	h := newHouse(t)
	l := must(usher.Listen(h.path("shop")))(t)
	defer l.Close()
	h.open(`
listeners: [{name: smtp, address: "127.0.0.1:0", sniff: none}]
routes: [{name: r, match: {}, handoff: "{shop}"}]
`)
	h.up(1)
	client := raw(t, h.addr("smtp"))
	c := must(l.Accept())(t)
	io.WriteString(c, "220 welcome\r\n")
	c.Close()
	if got := rest(t, client); got != "220 welcome\r\n" {
		t.Errorf("the client reads %q", got)
	}
	h.expect("r", admin.HandedOver, 1)
	h.nothingLeft()
}

// TestAHeaderThatComesWithTheRequest is about a trusted proxy that sends all in one piece.
func TestAHeaderThatComesWithTheRequest(t *testing.T) {
	h := newHouse(t)
	h.take("shop", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, infoOf(r).Client) }), nil)
	h.open(`
listeners: [{name: web, address: "127.0.0.1:0", accept_proxy: [127.0.0.1], limits: {per_ip: 2}}]
routes: [{name: r, match: {from: [203.0.113.0/24]}, handoff: "{shop}"}]
`)
	h.up(1)
	for i := range 5 {
		got := rest(t, speak(t, h.addr("web"), "PROXY TCP4 203.0.113.5 127.0.0.1 12345 80\r\n"+request))
		if !strings.HasSuffix(got, "203.0.113.5:12345") {
			t.Fatalf("the taker of connection %d is told %q", i, got)
		}
		h.expect("r", admin.HandedOver, i+1)
		h.nothingLeft()
	}
}

func TestAClientThatHasEndedItsSide(t *testing.T) {
	h := newHouse(t)
	l := must(usher.Listen(h.path("shop")))(t)
	defer l.Close()
	h.open(`
listeners: [{name: web, address: "127.0.0.1:0", limits: {peek_timeout: 1s}}]
routes: [{name: r, match: {}, handoff: "{shop}"}]
`)
	h.up(1)
	whole := speak(t, h.addr("web"), request)
	whole.CloseWrite()
	c := must(l.Accept())(t)
	if got := rest(t, c); got != request {
		t.Errorf("the taker reads %q, then the end; want the request", got)
	}
	io.WriteString(c, "answer")
	c.Close()
	if got := rest(t, whole); got != "answer" {
		t.Errorf("the client reads %q", got)
	}
	for _, part := range []string{"", "GET / HT"} {
		half := speak(t, h.addr("web"), part)
		half.CloseWrite()
		io.Copy(io.Discard, half)
		half.Close()
	}
	// Where the end of a part cannot be seen, its time is waited for.
	eventually(t, "those that said less are noticed", func() bool { return h.count("none", admin.Gone)+h.count("none", admin.Timeout) == 2 })
	h.expect("r", admin.HandedOver, 1)
	h.nothingLeft()
}

// TestClientsThatHaveResetBeforeTheyAreAccepted has connections wait in the kernel until a door has their listener.
func TestClientsThatHaveResetBeforeTheyAreAccepted(t *testing.T) {
	const n = 20
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	for i := range n {
		c := raw(t, l.Addr().String())
		if i%2 == 0 {
			send(t, c, request)
		}
		c.SetLinger(0)
		c.Close()
	}
	good := speak(t, l.Addr().String(), request)
	c := h.config(`{listeners: [{name: web, address: "systemd:web"}], routes: [{name: r, match: {}, handoff: "{shop}"}]` + h.endpoints() + `}`)
	h.start(Options{Config: c, Passed: map[string][]net.Listener{"web": {l}}})
	if got := rest(t, good); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("a good client is told %q", got)
	}
	h.nothingLeft()
	accepted := int(h.door.Status().Listeners[0].Accepted)
	ends := h.count("", admin.Gone) + h.count("", admin.HandedOver) + h.count("", admin.Failed)
	if accepted > n+1 || ends != accepted {
		t.Errorf("%d were accepted, and %d have an end", accepted, ends)
	}
}

func TestATakerThatIsKilledGivesBackWhatItWasOffered(t *testing.T) {
	const n = 10
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	taker := faults.Start(t, "taker", h.path("chat"), "stuck")
	taker.Await("ready")
	h.open(`routes: [{name: r, match: {}, handoff: "{chat}", handoff_timeout: 10m, fallback: {handoff: "{shop}"}}]`)
	h.up(2)
	var clients [n]net.Conn
	for i := range clients {
		clients[i] = speak(t, h.addr("web"), request)
	}
	eventually(t, "all are on offer", func() bool { s := h.endpoint("chat"); return len(s.Takers) == 1 && s.Takers[0].Open == n })
	taker.Kill()
	for _, c := range clients {
		if got := rest(t, c); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("a client is told %q", got)
		}
	}
	h.expect("r", admin.HandedOver, n)
	h.nothingLeft()
	if s := h.endpoint("chat"); s.Withdrawn != n {
		t.Errorf("%d offers were withdrawn, want %d", s.Withdrawn, n)
	}
}

func TestTheLogSaysWhoReplacesATaker(t *testing.T) {
	h := newHouse(t)
	old := faults.Start(t, "taker", h.path("shop"), "accept")
	old.Await("ready")
	h.open(`routes: [{name: r, match: {}, handoff: "{shop}"}]`)
	h.up(1)
	next := faults.Start(t, "taker", h.path("shop"), "accept")
	next.Await("ready")
	eventually(t, "the new one serves", func() bool {
		answer, err := exchange(h.addr("web"))
		return err == nil && strings.HasSuffix(answer, fmt.Sprint(next.PID()))
	})
	for _, want := range []string{`msg="a taker is connected" endpoint=shop pid=%d`, `msg="a taker is gone" endpoint=shop pid=%d`} {
		pid := old.PID()
		eventually(t, "the log has a line of the old one", func() bool { return len(h.lines(fmt.Sprintf(want, pid))) == 1 })
	}
	eventually(t, "the log has a line of the new one", func() bool {
		return len(h.lines(fmt.Sprintf(`msg="a taker is connected" endpoint=shop pid=%d`, next.PID()))) == 1
	})
	old.End()
	next.End()
}

// TestTheLogSaysWhoWasConnectedBeforeTheOldOneWasMissed has a Handoff go on to another taker before anybody hears of the
// end of the one before.
func TestTheLogSaysWhoWasConnectedBeforeTheOldOneWasMissed(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.open(`routes: [{match: {}, handoff: "{shop}"}]`)
	h.up(1)
	e := h.door.plan.endpoints[0]
	old := ipc.Peer{PID: os.Getpid() + 1}
	e.mu.Lock()
	e.taker = old.PID
	e.mu.Unlock()
	e.lost(old, io.EOF)
	lines := h.lines("a taker is ")
	last := lines[len(lines)-1]
	if !strings.Contains(last, "is connected") || !strings.Contains(last, fmt.Sprint("pid=", os.Getpid())) {
		t.Errorf("the log ends with %s", last)
	}
}

func TestAReloadLeavesOffersWhereTheyAre(t *testing.T) {
	const n = 5
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	l := must(usher.Listen(h.path("chat")))(t)
	defer l.Close()
	listeners, addr := fixed(t, "web")
	h.open(listeners + `routes: [{name: r, match: {}, handoff: "{chat}", handoff_timeout: 10m}]`)
	h.up(1)
	var clients [n]net.Conn
	for i := range clients {
		clients[i] = speak(t, addr, request)
	}
	eventually(t, "all are on offer", func() bool { return h.endpoint("chat").Takers[0].Open == n })
	if err := h.door.Reload(h.config(listeners + `routes: [{name: r, match: {}, handoff: "{shop}"}]`)); err != nil {
		t.Fatal(err)
	}
	if got := rest(t, speak(t, addr, request)); !strings.Contains(got, "shop serves") {
		t.Errorf("who comes after the reload is told %q", got)
	}
	for range n {
		c := must(l.Accept())(t)
		io.WriteString(c, "chat")
		c.(*usher.Conn).CloseWrite()
		defer c.Close()
	}
	for _, c := range clients {
		if got := rest(t, c); got != "chat" {
			t.Errorf("who was on offer is told %q", got)
		}
	}
	h.expect("r", admin.HandedOver, n+1)
	h.nothingLeft()
}

// TestOffersEndWithADoorThatEndsAtOnce has a taker that accepts nothing, and more connections than it may be offered.
func TestOffersEndWithADoorThatEndsAtOnce(t *testing.T) {
	const n, window = 8, 3
	h := newHouse(t)
	lc := usher.ListenConfig{Backlog: window}
	l := must(lc.Listen(h.path("chat")))(t)
	defer l.Close()
	h.open(`routes: [{name: r, match: {}, handoff: "{chat}", handoff_timeout: 10m, fallback: {handoff: "{chat}", handoff_timeout: 10m}}]`)
	h.up(1)
	var clients [n]net.Conn
	for i := range clients {
		clients[i] = speak(t, h.addr("web"), request)
	}
	eventually(t, "all are at the door, and as many as may be on offer", func() bool {
		return h.door.Status().Listeners[0].Open == n && h.endpoint("chat").Takers[0].Open == window
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.door.Shutdown(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), fmt.Sprint(n, " connections")) {
		t.Errorf("%v, want that %d were closed", err, n)
	}
	for _, c := range clients { // which are told, or not, as there was time
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a connection is open still")
		}
	}
	if got := h.count("r", admin.ShutDown); got != n {
		t.Errorf("%d of %d have ended with the door", got, n)
	}
	if c, err := offered(l); err == nil {
		t.Errorf("the taker could still claim %v", c.RemoteAddr())
	}
}

// offered returns a connection that can be claimed now.
func offered(l *usher.Listener) (net.Conn, error) {
	time.AfterFunc(50*time.Millisecond, func() { l.Close() })
	return l.Accept()
}

// TestTiesGoRound has two takers that have as much to do as each other, for clients that are handed over at once and
// for such whose offers are too long for that.
func TestTiesGoRound(t *testing.T) {
	for name, path := range map[string]string{"at once": "/", "after a while": "/" + strings.Repeat("x", 4000)} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.take("shop", whoami("shop"), nil)
			h.take("blog", whoami("blog"), nil)
			h.open(`routes: [{match: {}, handoff: ["{shop}", "{blog}"]}]`)
			h.up(2)
			served := map[string]int{}
			for range 20 {
				_, body, err := get(httpClient(t, h.addr("web"), freshConns), "http://x.test"+path)
				if err != nil {
					t.Fatal(err)
				}
				served[body[:4]]++
				eventually(t, "neither has anything to do", func() bool {
					return h.endpoint("shop").Takers[0].Open+h.endpoint("blog").Takers[0].Open == 0
				})
			}
			if served["shop"] != 10 || served["blog"] != 10 {
				t.Errorf("of 20 each serves %v, want 10", served)
			}
		})
	}
}

// TestAStuckTakerIsAvoided has clients that all come at once, where a taker that serves has offers open as well.
func TestAStuckTakerIsAvoided(t *testing.T) {
	h := newHouse(t)
	stuck := must(usher.Listen(h.path("chat")))(t)
	defer stuck.Close()
	h.take("shop", whoami("shop"), nil)
	h.open(`routes: [{name: r, match: {}, handoff: ["{chat}", "{shop}"], handoff_timeout: 1m}]`)
	h.up(2)
	e := func(name string) *endpoint {
		h.door.mu.RLock()
		defer h.door.mu.RUnlock()
		return h.door.endpoints[h.path(name)][0]
	}
	for h.endpoint("chat").Takers[0].Open == 0 {
		speak(t, h.addr("web"), request)
	}
	eventually(t, "the door knows that one is stuck", e("chat").isStuck)
	before := h.endpoint("chat").Takers[0].Open
	clients := make([]net.Conn, 100)
	for i := range clients {
		clients[i] = speak(t, h.addr("web"), request)
	}
	for _, c := range clients {
		if got := rest(t, c); !strings.Contains(got, "shop serves") {
			t.Errorf("a client is told %q", got)
		}
	}
	if got := h.endpoint("chat").Takers[0].Open; got != before {
		t.Errorf("%d were offered to the one that is stuck", got-before)
	}
	// When it answers again it is as good as the other: what it was offered comes to it, and what is new.
	go func() {
		for {
			c, err := stuck.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nchat")
			c.(*usher.Conn).CloseWrite()
		}
	}()
	eventually(t, "it answers", func() bool { return !e("chat").isStuck() })
	eventually(t, "it is offered more", func() bool {
		answer, err := exchange(h.addr("web"))
		return err == nil && strings.HasSuffix(answer, "chat")
	})
}

func TestOutOfDescriptorsAClientThatHesitatesIsKept(t *testing.T) {
	for _, reserve := range []string{"some", "none"} {
		t.Run("with "+reserve+" in reserve", func(t *testing.T) { faults.Start(t, "short", newHouse(t).dir, reserve).End() })
	}
}

// playShort is a door that has a descriptor for a connection, but none for making it one of package net. Args: the folder
// of its endpoints, and whether it has "some" in reserve.
func playShort(args []string) error {
	c, err := config.Parse("test.yaml", []byte(`
listeners: [{name: web, address: "127.0.0.1:0"}]
routes: [{match: {}, reject: true}]
endpoints: {dir: `+args[0]+`}
log: {access: false}
`))
	if err != nil {
		return err
	}
	d, err := Start(Options{Config: c})
	if err != nil {
		return err
	}
	if err := hesitate(d, args[1] == "some"); err != nil {
		return err
	}
	return d.Shutdown(context.Background())
}

// hesitate has a client say half of what it wants when no descriptor is left but the one that it needs itself, and the
// other half later.
func hesitate(d *Door, spare bool) error {
	if _, err := exchange(d.Status().Listeners[0].Address); err == nil { // so that all that is opened once is
		return errors.New("what is to be rejected was served")
	}
	var clients [4]net.Conn
	for i := range clients {
		c, err := net.Dial("tcp", d.Status().Listeners[0].Address)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(timeout))
		clients[i] = c
	}
	if err := soon(func() bool { return d.stats.open.Load() == 0 }); err != nil {
		return err
	}
	room, err := faults.LimitDescriptors()
	if err != nil {
		return err
	}
	if err := room(len(clients)); err != nil {
		return err
	}
	if !spare {
		d.spare.mu.Lock()
		d.spare.closeLocked()
		d.spare.mu.Unlock()
	}
	peeking := func() int { return d.Status().Listeners[0].Peeking }
	for _, c := range clients {
		io.WriteString(c, request[:10])
	}
	if err := soon(func() bool { return int(d.stats.open.Load()) == len(clients) }); err != nil {
		return fmt.Errorf("%d clients are accepted: %w", d.stats.open.Load(), err)
	}
	if spare {
		err = soon(func() bool { return peeking() == len(clients) })
	}
	if err != nil {
		return fmt.Errorf("%d clients are in the peek phase: %w", peeking(), err)
	}
	if err := room(100); err != nil {
		return err
	}
	for _, c := range clients {
		io.WriteString(c, request[10:])
		b, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 403") {
			return fmt.Errorf("a client is told %q, %v", b, err)
		}
		c.Close()
	}
	return soon(func() bool { return d.stats.open.Load() == 0 && !d.spare.short.Load() })
}

// soon waits until a condition holds.
func soon(holds func() bool) error {
	for deadline := time.Now().Add(timeout); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return os.ErrDeadlineExceeded
		}
	}
	return nil
}
