//go:build unix

package door

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

// control is the path of the house's control endpoint.
func (h *house) control() string {
	return must(ControlPath(h.name("door"), h.dir))(h.t)
}

// openUpgradable opens a door that can be taken over from.
func (h *house) openUpgradable(yaml string) {
	h.t.Helper()
	h.start(Options{Config: h.config(yaml), Control: h.name("door"), Version: "old"})
}

// next is the house with another door in it, which has a log of its own.
func (h *house) next() *house { return &house{t: h.t, dir: h.dir} }

// takeOver opens a door in the place of the one that answers at the control endpoint.
func (h *house) takeOver(yaml string) error {
	h.t.Helper()
	return h.takeOverWith(Options{Config: h.config(yaml)})
}

func (h *house) takeOverWith(o Options) (err error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if o.Predecessor, err = TakeOver(ctx, h.control(), "new"); err != nil {
		return err
	}
	o.Log = slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.Control, o.Version = h.name("door"), "new"
	if h.door, err = Start(o); err != nil {
		return err
	}
	h.t.Cleanup(func() {
		h.shut()
		if h.t.Failed() {
			h.t.Logf("the log of a door that took over:\n%s", h.log.short())
		}
	})
	return nil
}

const toShop = `routes: [{name: all, match: {}, handoff: "{shop}"}]` + "\n"

// expectAnswer makes one request to the door, on a connection of its own.
func expectAnswer(t testing.TB, addr, want string) {
	t.Helper()
	if _, body, err := get(httpClient(t, addr, freshConns), "http://x.test/"); err != nil || !strings.HasPrefix(body, want) {
		t.Errorf("%q, %v; want %s", body, err, want)
	}
}

func TestAnotherDoorServesInThePlaceOfTheOldOne(t *testing.T) {
	h := newHouse(t)
	faults.NoLeak(t)
	h.take("shop", whoami("shop"), nil)
	h.openUpgradable(toShop)
	addr := h.addr("web")
	expectAnswer(t, addr, "shop")
	var last *house
	for before := h; before.door != nil; before = last {
		last = h.next()
		if err := last.takeOver(toShop); err != nil {
			t.Fatal(err)
		}
		if got := last.addr("web"); got != addr {
			t.Errorf("the new door listens at %s, the old one did at %s", got, addr)
		}
		<-before.door.Replaced()
		if err := before.door.Reload(before.config(toShop)); !errors.Is(err, errShutDown) {
			t.Errorf("the old one reloads: %v", err)
		}
		expectAnswer(t, addr, "shop")
		last.expect("all", admin.HandedOver, 1)
		if err := before.door.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		expectAnswer(t, addr, "shop")
		if before != h { // twice will do
			return
		}
	}
}

// TestRequestsAtASteadyStreamDoNotNoticeTakeovers has clients make connections, and others use one, while doors take over.
func TestRequestsAtASteadyStreamDoNotNoticeTakeovers(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	backend := httptest.NewServer(whoami("backend"))
	defer backend.Close()
	yaml := `routes: [{match: {host: p.test}, proxy: "` + backend.Listener.Addr().String() + `"}, {name: all, match: {}, handoff: "{shop}"}]
admin: 127.0.0.1:0
`
	h.openUpgradable(yaml)
	addr, adminAddr := h.addr("web"), h.door.admin.l.Addr().String()

	var stop atomic.Bool
	var served atomic.Int64
	var clients sync.WaitGroup
	load := func(addr, url, want string, how func(*http.Transport)) {
		clients.Go(func() {
			for c := httpClient(t, addr, how); !stop.Load(); served.Add(1) {
				status, body, err := get(c, url)
				if err != nil || status != http.StatusOK || !strings.HasPrefix(body, want) {
					t.Errorf("%s: %d %q, %v", url, status, body, err)
					return
				}
			}
		})
	}
	for range 3 {
		load(addr, "http://x.test/", "shop", freshConns)
	}
	load(addr, "http://y.test/", "shop", nil)
	load(addr, "http://p.test/", "backend", freshConns)
	load(addr, "http://p.test/2", "backend", nil) // one connection, which the first door copies until the end
	load(adminAddr, "http://localhost/healthz", "", freshConns)

	takeovers := 0
	for began := time.Now(); takeovers < 20 || served.Load() < int64(*loadConns); takeovers++ {
		if time.Since(began) > 10*timeout || t.Failed() {
			break
		}
		before := h
		h = h.next()
		if err := h.takeOver(yaml); err != nil {
			t.Fatal(err)
		}
		go before.shut()
	}
	stop.Store(true)
	clients.Wait()
	t.Logf("%d requests and %d takeovers", served.Load(), takeovers)
	expectAnswer(t, addr, "shop")
	eventually(t, "the last door has handed something over", func() bool { return h.count("all", admin.HandedOver) > 0 })
}

func TestMoreSocketsThanAMessageHoldsArePassed(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	const n = 2*maxSockets + 3
	yaml := "listeners:\n"
	for i := range n {
		yaml += fmt.Sprintf("  - {name: l%d, address: \"127.0.0.1:0\"}\n", i)
	}
	yaml += toShop
	h.openUpgradable(yaml)
	next := h.next()
	if err := next.takeOver(yaml); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if name := fmt.Sprint("l", i); h.addr(name) != next.addr(name) {
			t.Errorf("%s listens at %s and then at %s", name, h.addr(name), next.addr(name))
		}
	}
	expectAnswer(t, next.addr("l0"), "shop")
	expectAnswer(t, next.addr(fmt.Sprint("l", n-1)), "shop")
}

func TestSocketsOfTheParentProcessArePassedOn(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	passed := map[string][]net.Listener{}
	for _, name := range []string{"web", "admin", "later", "never"} {
		passed[name] = []net.Listener{must(net.Listen("tcp", "127.0.0.1:0"))(t)}
	}
	addr, later := passed["web"][0].Addr().String(), passed["later"][0].Addr().String()
	yaml := `listeners: [{name: web, address: "systemd:web"}]` + "\nadmin: systemd:admin\n" + toShop
	withLater := strings.Replace(yaml, "}]", `}, {name: later, address: "systemd:later"}]`, 1)
	h.start(Options{Config: h.config(withLater), Passed: passed, Control: h.name("door")})
	for i, yaml := range []string{withLater, yaml, yaml} {
		next := h.next()
		if err := next.takeOver(yaml); err != nil {
			t.Fatal(err)
		}
		expectAnswer(t, addr, "shop")
		if i == 0 {
			expectAnswer(t, later, "shop")
		}
		h.shut()
		h = next
	}
	if c, err := net.Dial("tcp", later); err == nil {
		c.Close()
		t.Error("a socket is open still that no listener uses")
	}
}

func TestSocketsThatWereStoredAreUsed(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	other := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	addr := l.Addr().String()
	client := raw(t, addr) // before there is a door
	send(t, client, "GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n")
	h.start(Options{
		Config: h.config(`listeners: [{name: web, address: "` + addr + `"}]` + "\n" + toShop),
		Stored: map[string][]net.Listener{addr: {l}, other.Addr().String(): {other}},
	})
	if got := rest(t, client); !strings.Contains(got, "shop serves") {
		t.Errorf("who waited in the queue is told %q", got)
	}
	if c, err := net.Dial("tcp", other.Addr().String()); err == nil {
		c.Close()
		t.Error("a socket is open still that no listener uses")
	}
	if s := h.door.Sockets(); len(s) != 1 || len(s[addr]) != 1 {
		t.Errorf("to be stored: %v, want %s", s, addr)
	}
}

func TestAProxiedConnectionLivesToItsEnd(t *testing.T) {
	h := newHouse(t)
	backend := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer backend.Close()
	go func() {
		if c, err := backend.Accept(); err == nil {
			defer c.Close()
			io.Copy(c, c)
		}
	}()
	yaml := `listeners: [{name: web, address: "127.0.0.1:0", sniff: none}]
routes: [{match: {}, proxy: "` + backend.Addr().String() + `"}]
`
	h.openUpgradable(yaml)
	client := raw(t, h.addr("web"))
	echoed := bufio.NewReader(client)
	say := func(line string) {
		t.Helper()
		send(t, client, line+"\n")
		if got := must(echoed.ReadString('\n'))(t); got != line+"\n" {
			t.Errorf("echoed %q, want %q", got, line)
		}
	}
	say("before")
	if err := h.next().takeOver(yaml); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.door.Shutdown(context.Background()) }()
	for i := range 10 {
		say(fmt.Sprint("after ", i))
	}
	if s := h.door.Status(); s.Listeners[0].Open != 1 {
		t.Errorf("the old door has %d connections, want 1", s.Listeners[0].Open)
	}
	select {
	case err := <-ended:
		t.Fatalf("the old door has ended (%v) before its connection", err)
	default:
	}
	client.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestSixDoorsInARowOfWhichAllServe has each but the last proxy a connection for longer than the next one serves, and hand one over.
func TestSixDoorsInARowOfWhichAllServe(t *testing.T) {
	h := newHouse(t)
	faults.NoLeak(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	backend := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer backend.Close()
	go func() {
		for {
			c, err := backend.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	yaml := `listeners: [{name: web, address: "127.0.0.1:0"}, {name: raw, address: "127.0.0.1:0", sniff: none}]
routes: [{match: {listener: raw}, proxy: "` + backend.Addr().String() + `"}, {name: all, match: {listener: web}, handoff: "{shop}"}]
`
	h.openUpgradable(yaml)
	var copied []*net.TCPConn
	var taken []*usher.Conn
	ended := make(chan error, 5)
	for range cap(ended) {
		copied = append(copied, raw(t, h.addr("raw")))
		echoes(t, copied[len(copied)-1])
		send(t, raw(t, h.addr("web")), "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n")
		taken = append(taken, must(shop.Accept())(t).(*usher.Conn))
		next := h.next()
		if err := next.takeOver(yaml); err != nil {
			t.Fatal(err)
		}
		old := h.door
		go func() { ended <- old.Shutdown(context.Background()) }()
		h = next
	}
	for _, c := range copied {
		echoes(t, c)
	}
	eventually(t, "the last door has all channels", func() bool { return len(h.door.partings.all()) == len(taken) })
	for _, c := range taken {
		id := c.Info().ID
		c.Close()
		eventually(t, "the last door hears of its end", func() bool { return strings.Contains(h.log.String(), "msg=ended id="+id) })
	}
	select {
	case err := <-ended:
		t.Errorf("a door has ended (%v) before its connection", err)
	default:
	}
	for _, c := range copied {
		c.Close()
	}
	for range copied {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// echoes has the other end of a connection repeat a word.
func echoes(t testing.TB, c net.Conn) {
	t.Helper()
	send(t, c, "hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("it reads %q, %v", b, err)
	}
}

func TestAConnectionInThePeekPhaseGoesToTheNewDoor(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.openUpgradable(toShop)
	client := raw(t, h.addr("web"))
	send(t, client, "GET / HTTP/1.1\r\nHost: x.te")
	eventually(t, "it is in the peek phase", func() bool { return h.door.Status().Listeners[0].Peeking == 1 })
	next := h.next()
	if err := next.takeOver(toShop); err != nil {
		t.Fatal(err)
	}
	if err := h.door.Shutdown(context.Background()); err != nil { // which waits until it is gone
		t.Error(err)
	}
	send(t, client, "st\r\nConnection: close\r\n\r\n")
	if got := rest(t, client); !strings.Contains(got, "shop serves x.test") {
		t.Errorf("the client is told %q", got)
	}
	next.expect("all", admin.HandedOver, 1)
}

// TestAConnectionInThePeekPhaseOfAListenerThatTheNewDoorDoesNotHaveStays has its client go on when the old door has handed on.
func TestAConnectionInThePeekPhaseOfAListenerThatTheNewDoorDoesNotHaveStays(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.openUpgradable(`listeners: [{name: web, address: "127.0.0.1:0"}, {name: old, address: "127.0.0.1:0"}]` + "\n" + toShop)
	client, other := raw(t, h.addr("old")), raw(t, h.addr("web"))
	for i, c := range []net.Conn{other, client} {
		send(t, c, "GET / HTTP/1.1\r\nHost: x.te")
		eventually(t, "it is in the peek phase", func() bool { return h.door.Status().Listeners[i].Peeking == 1 })
	}
	next := h.next()
	if err := next.takeOver(toShop); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new door has the other", func() bool { return next.door.Status().Listeners[0].Peeking == 1 })
	for _, c := range []net.Conn{client, other} {
		send(t, c, "st\r\nConnection: close\r\n\r\n")
		if got := rest(t, c); !strings.Contains(got, "shop serves x.test") {
			t.Errorf("a client is told %q", got)
		}
	}
	h.expect("all", admin.HandedOver, 1)
	next.expect("all", admin.HandedOver, 1)
}

// TestAListenerKeepsItsSocketWhateverOthersThereAre has others come and go at the port 0.
func TestAListenerKeepsItsSocketWhateverOthersThereAre(t *testing.T) {
	h := newHouse(t)
	h.openUpgradable(`listeners: [{name: web, address: "127.0.0.1:0"}, {name: more, address: "127.0.0.1:0"}]` + "\n" + toShop)
	web, more := h.addr("web"), h.addr("more")
	yaml := func(names ...string) string {
		return `listeners: [{address: "127.0.0.1:0", name: ` + strings.Join(names, `}, {address: "127.0.0.1:0", name: `) + "}]\n" + toShop
	}
	for _, names := range [][]string{{"first", "web", "more"}, {"more", "web"}, {"second", "more", "third", "web"}} {
		next := h.next()
		if err := next.takeOver(yaml(names...)); err != nil {
			t.Fatal(err)
		}
		h = next
		for i := range 2 {
			if gotWeb, gotMore := h.addr("web"), h.addr("more"); gotWeb != web || gotMore != more {
				t.Errorf("with %v they listen at %s and %s, want %s and %s", names, gotWeb, gotMore, web, more)
			}
			names = append([]string{fmt.Sprint("reloaded", i)}, names...)
			if err := h.door.Reload(h.config(yaml(names...))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.door.Reload(h.config(yaml("new", "more"))); err != nil {
		t.Fatal(err)
	}
	if got := h.addr("more"); got != more {
		t.Errorf("it listens at %s, want %s", got, more)
	}
}

func TestTheNewDoorHearsOfTheEndsOfTheOldOnesConnections(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	h.openUpgradable(toShop)
	client := raw(t, h.addr("web"))
	send(t, client, "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n")
	taken := must(shop.Accept())(t).(*usher.Conn)
	id := taken.Info().ID
	for range 3 { // from one to the next
		next := h.next()
		if err := next.takeOver(toShop); err != nil {
			t.Fatal(err)
		}
		if err := h.door.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		h = next
	}
	eventually(t, "the last door has the channel", func() bool { return len(h.door.partings.all()) == 1 })
	taken.Close()
	eventually(t, "the end is in its log", func() bool { return strings.Contains(h.log.String(), "msg=ended id="+id) })
}

// TestWhoWaitsForAListenerThatTheNewDoorDoesNotHaveIsServed has clients come while neither door accepts.
func TestWhoWaitsForAListenerThatTheNewDoorDoesNotHaveIsServed(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.openUpgradable(`listeners: [{name: web, address: "127.0.0.1:0"}, {name: old, address: "127.0.0.1:0"}]` + "\n" + toShop)
	addr := h.addr("old")
	f := h.fakeSuccessor()
	sockets := f.sockets()
	f.say(message{Say: sayReady, Kept: []int{0, 99, -1}})
	f.hears(sayYours)
	client := raw(t, addr)
	send(t, client, "GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n")
	for _, l := range sockets[1:] {
		l.Close()
	}
	f.say(message{Say: sayServing})
	if got := rest(t, client); !strings.Contains(got, "shop serves") {
		t.Errorf("the client is told %q", got)
	}
	f.hears(sayLeaving)
	f.say(message{Say: saySettled})
	if err := h.door.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("the old listener is open still")
	}
}

// fake speaks for a door.
type fake struct {
	t testing.TB
	talk
}

// fakeSuccessor begins a takeover from the door in the house.
func (h *house) fakeSuccessor() *fake {
	h.t.Helper()
	f := &fake{h.t, talk{must(dialControl(context.Background(), h.control()))(h.t)}}
	h.t.Cleanup(func() { f.c.Close() })
	f.say(message{Say: sayTakeover, Version: takeoverVersion, Build: "fake", PID: 1})
	return f
}

// say is talk.say for what the other door may not want to hear any more.
func (f *fake) say(m message, attachments ...syscall.Conn) { _ = f.talk.say(m, attachments...) }

// givesWay does what the old door does until the new one serves with its only socket.
func (f *fake) givesWay(addr string, l net.Listener) {
	f.hears(sayTakeover)
	f.say(message{Say: saySockets, Version: takeoverVersion, Sockets: []socketName{{Address: addr, Listener: "web"}}}, l.(syscall.Conn))
	f.hears(sayReady)
	f.say(message{Say: sayYours})
	f.hears(sayServing)
}

func (f *fake) hears(word string) message {
	f.t.Helper()
	m, got, err := f.hear(context.Background(), timeout, word)
	if err != nil {
		f.t.Fatalf("the other door was to say %q: %v", word, err)
	}
	got.Close()
	return m
}

// sockets receives the old door's.
func (f *fake) sockets() (all []net.Listener) {
	f.t.Helper()
	for more := true; more; {
		m, got, err := f.hear(context.Background(), timeout, saySockets)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, a := range got.Attachments() {
			l := must(a.Listener())(f.t)
			f.t.Cleanup(func() { l.Close() })
			all = append(all, l)
		}
		more = m.More
	}
	return all
}

func TestTheOldDoorServesOnIfTheNewOne(t *testing.T) {
	for _, c := range []struct {
		name string
		does func(f *fake)
		why  string
	}{
		{"ends at once", func(f *fake) { f.c.Close() }, "has ended before it was ready"},
		{"ends when it has the sockets", func(f *fake) { f.sockets(); f.c.Close() }, "has ended before it was ready"},
		{"says why it fails", func(f *fake) { f.sockets(); f.fail(errors.New("no such user")) }, "error=\"no such user\""},
		{"is silent before it is ready", func(f *fake) { f.sockets(); f.hears(sayFailed) }, "was too slow"},
		{"does not read", func(f *fake) { time.Sleep(time.Second) }, "was too slow"},
		{"says what is not its turn", func(f *fake) { f.sockets(); f.say(message{Say: sayServing}) }, `says \"serving\"`},
		{"says nothing that can be understood", func(f *fake) { f.sockets(); f.c.Send([]byte("{")) }, "is no message of a door"},
		{"ends when it is to serve", func(f *fake) {
			f.sockets()
			f.say(message{Say: sayReady})
			f.hears(sayYours)
			f.c.Close()
		}, "has ended before it served"},
		{"fails when it is to serve", func(f *fake) {
			f.sockets()
			f.say(message{Say: sayReady})
			f.hears(sayYours)
			f.fail(errors.New("cannot accept"))
		}, "error=\"cannot accept\""},
		{"is silent when it is to serve", func(f *fake) {
			f.sockets()
			f.say(message{Say: sayReady})
			f.hears(sayYours)
			f.hears(sayFailed)
		}, "was too slow: the other door has said nothing for 500ms before it served"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.take("shop", whoami("shop"), nil)
			yaml := toShop + "admin: 127.0.0.1:0\n"
			h.start(Options{
				Config: h.config(yaml), Control: h.name("door"), Version: "old",
				readyWithin: 500 * time.Millisecond, servingWithin: 500 * time.Millisecond,
			})
			addr, adminAddr := h.addr("web"), h.door.admin.l.Addr().String()
			f := h.fakeSuccessor()
			c.does(f)
			eventually(t, "it is over", func() bool { return strings.Contains(h.log.String(), "this one serves on") })
			f.c.Close()
			if !strings.Contains(h.log.String(), c.why) {
				t.Errorf("the log does not say %q", c.why)
			}
			expectAnswer(t, addr, "shop")
			if status, _, err := get(httpClient(t, adminAddr, freshConns), "http://localhost/readyz"); err != nil || status != http.StatusOK {
				t.Errorf("the admin address answers %d, %v", status, err)
			}
			if err := h.door.Reload(h.config(yaml)); err != nil {
				t.Errorf("a reload after it: %v", err)
			}
			if err := h.next().takeOver(yaml); err != nil { // another may do better
				t.Errorf("another takeover: %v", err)
			}
			expectAnswer(t, addr, "shop")
		})
	}
}

// fakeDoor listens where the door in the house would, and speaks for it.
func (h *house) fakeDoor(speaks func(f *fake)) {
	h.t.Helper()
	path := h.control()
	os.MkdirAll(filepath.Dir(path), 0o700)
	l := must(ipc.Listen(path))(h.t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		l.Close()
		if err != nil {
			return
		}
		defer c.Close()
		speaks(&fake{h.t, talk{c}})
	}()
	h.t.Cleanup(func() { l.Close(); <-done })
}

func TestTheNewDoorServesAloneIfTheOldOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		speaks func(f *fake, web message, l net.Listener)
	}{
		{"ends before it has said anything", func(*fake, message, net.Listener) {}},
		{"ends when it has passed some sockets", func(f *fake, web message, l net.Listener) {
			web.More = true
			f.say(web, l.(syscall.Conn))
		}},
		{"ends when the new one is ready", func(f *fake, web message, l net.Listener) {
			f.say(web, l.(syscall.Conn))
			f.hears(sayReady)
		}},
		{"ends when the new one is to serve", func(f *fake, web message, l net.Listener) {
			f.say(web, l.(syscall.Conn))
			f.hears(sayReady)
			f.say(message{Say: sayYours})
		}},
		{"ends when the new one serves", func(f *fake, web message, l net.Listener) {
			f.say(web, l.(syscall.Conn))
			f.hears(sayReady)
			f.say(message{Say: sayYours})
			f.hears(sayServing)
		}},
		{"is silent when the new one serves", func(f *fake, web message, l net.Listener) {
			f.say(web, l.(syscall.Conn))
			f.hears(sayReady)
			f.say(message{Say: sayYours})
			f.hears(sayServing)
			f.c.Receive() // until the new door ends
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.take("shop", whoami("shop"), nil)
			listeners, addr := fixed(t, "web")
			l := must(net.Listen("tcp", addr))(t)
			h.fakeDoor(func(f *fake) {
				defer l.Close()
				f.hears(sayTakeover)
				web := message{Say: saySockets, Version: takeoverVersion, Sockets: []socketName{{Address: addr, Listener: "web"}}}
				c.speaks(f, web, l)
			})
			var err error
			// A door that has ended has closed its sockets a moment later than its channel, here.
			eventually(t, "the new door serves", func() bool {
				err = h.takeOverWith(Options{Config: h.config(listeners + toShop), servingWithin: 500 * time.Millisecond})
				return !errors.Is(err, syscall.EADDRINUSE)
			})
			if err != nil && !errors.Is(err, ErrNoDoor) {
				t.Fatal(err)
			}
			if err != nil {
				h.start(Options{Config: h.config(listeners + toShop), Control: h.name("door")})
			}
			expectAnswer(t, addr, "shop")
			eventually(t, "it can be taken over from", func() bool { return h.next().takeOver(listeners+toShop) == nil })
			expectAnswer(t, addr, "shop")
		})
	}
}

// TestADoorThatIsToldToEndHearsFirstWhoServes has the other door say so a moment later.
func TestADoorThatIsToldToEndHearsFirstWhoServes(t *testing.T) {
	for _, c := range []struct {
		name string
		says func(f *fake)
		want string // in the error of Start, or in the log if there is none
	}{
		{"this one", func(f *fake) { f.say(message{Say: sayLeaving}); f.hears(saySettled) }, "took over"},
		{"the other one", func(f *fake) { f.fail(errors.New("it took too long")) }, "it took too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			listeners, addr := fixed(t, "web")
			l := must(net.Listen("tcp", addr))(t)
			defer l.Close()
			ctx, end := context.WithCancel(context.Background())
			defer end()
			h.fakeDoor(func(f *fake) {
				f.givesWay(addr, l)
				end()
				time.Sleep(50 * time.Millisecond)
				c.says(f)
			})
			before := must(TakeOver(ctx, h.control(), "new"))(t)
			o := Options{Config: h.config(listeners + toShop), Control: h.name("door"), Predecessor: before}
			o.Log = slog.New(slog.NewTextHandler(&h.log, nil))
			d, err := Start(o)
			said := h.log.String()
			if err == nil {
				d.Shutdown(context.Background())
			} else {
				said = err.Error()
			}
			if !strings.Contains(said, c.want) {
				t.Errorf("it says %q, want %q", said, c.want)
			}
		})
	}
}

// TestADoorThatWasSilentMayLeaveLate has it do so when the new one has been replaced, too.
func TestADoorThatWasSilentMayLeaveLate(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	listeners, addr := fixed(t, "web")
	l := must(net.Listen("tcp", addr))(t)
	defer l.Close()
	late, settled := make(chan struct{}), make(chan struct{})
	h.fakeDoor(func(f *fake) {
		f.givesWay(addr, l)
		<-late
		f.say(message{Say: sayLeaving})
		f.hears(saySettled)
		close(settled)
	})
	if err := h.takeOverWith(Options{Config: h.config(listeners + toShop), servingWithin: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	expectAnswer(t, addr, "shop")
	if err := h.next().takeOver(listeners + toShop); err != nil {
		t.Fatal(err)
	}
	expectAnswer(t, addr, "shop")
	close(late)
	<-settled
}

func TestTheNewDoorDoesNotServeIfTheOldOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		speaks func(f *fake, web message, l net.Listener)
		want   string
	}{
		{"refuses", func(f *fake, _ message, _ net.Listener) { f.fail(errShutDown) }, "says: the door is shutting down"},
		{"is of another version", func(f *fake, web message, l net.Listener) {
			web.Version, web.Build = 7, "older"
			f.say(web, l.(syscall.Conn))
			f.hears(sayFailed)
		}, "this door speaks version 1 of the takeover (build new), the other door version 7 (build older)"},
		{"passes no socket that listens", func(f *fake, web message, l net.Listener) {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				f.t.Error(err)
				return
			}
			defer c.Close()
			f.say(web, c.(syscall.Conn))
			f.hears(sayFailed)
		}, "it is a connection"},
		{"passes more names than sockets", func(f *fake, web message, l net.Listener) {
			web.Sockets = append(web.Sockets, web.Sockets[0])
			f.say(web, l.(syscall.Conn))
			f.hears(sayFailed)
		}, "1 attachments instead of 2"},
		{"does not let it", func(f *fake, web message, l net.Listener) {
			f.say(web, l.(syscall.Conn))
			f.hears(sayReady)
			f.fail(errors.New("too slow"))
		}, "says: too slow"},
		{"takes it back", func(f *fake, web message, l net.Listener) {
			f.say(web, l.(syscall.Conn))
			f.hears(sayReady)
			f.say(message{Say: sayYours})
			f.hears(sayServing)
			f.fail(errors.New("too late"))
		}, "says: too late"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			faults.NoLeak(t)
			listeners, addr := fixed(t, "web")
			l := must(net.Listen("tcp", addr))(t)
			defer l.Close()
			h.fakeDoor(func(f *fake) {
				f.hears(sayTakeover)
				c.speaks(f, message{Say: saySockets, Version: takeoverVersion, Sockets: []socketName{{Address: addr, Listener: "web"}}}, l)
			})
			err := h.takeOver(listeners + toShop)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the takeover ends with %v, want %s", err, c.want)
			}
			// Who comes now is the old door's.
			client := raw(t, addr)
			send(t, client, "hello")
			b := make([]byte, 5)
			nc := must(l.Accept())(t)
			for nc.RemoteAddr().String() != client.LocalAddr().String() { // the case's own
				nc.Close()
				nc = must(l.Accept())(t)
			}
			defer nc.Close()
			if _, err := io.ReadFull(nc, b); err != nil || string(b) != "hello" {
				t.Errorf("the old door reads %q, %v", b, err)
			}
		})
	}
}

func TestANewDoorOfAnotherVersionIsRefusedInWords(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.openUpgradable(toShop)
	for _, word := range []string{sayTakeover, sayUpgrade} {
		f := &fake{t, talk{must(dialControl(context.Background(), h.control()))(t)}}
		f.say(message{Say: word, Version: 2, Build: "newer"})
		want := "this door speaks version 1 of the takeover (build old), the other door version 2 (build newer)"
		if m := f.hears(sayFailed); m.Text != want {
			t.Errorf("it is told %q, want %q", m.Text, want)
		}
		f.c.Close()
	}
	expectAnswer(t, h.addr("web"), "shop")
}

func TestThereIsOneTakeoverAtATime(t *testing.T) {
	h := newHouse(t)
	h.openUpgradable(toShop)
	f := h.fakeSuccessor()
	f.sockets()
	if err := h.next().takeOver(toShop); err == nil || !strings.Contains(err.Error(), "another door is about to take over already") {
		t.Errorf("a second takeover: %v", err)
	}
	if _, _, err := Upgrade(context.Background(), h.control(), "x"); err == nil || !strings.Contains(err.Error(), "another door is about to take over already") {
		t.Errorf("an upgrade: %v", err)
	}
	f.c.Close()
	eventually(t, "the next may", func() bool { return h.next().takeOver(toShop) == nil })
}

func TestAReloadWaitsForATakeover(t *testing.T) {
	h := newHouse(t)
	h.openUpgradable(toShop)
	f := h.fakeSuccessor()
	f.sockets()
	if err := h.door.Reload(h.config(toShop)); err != ErrUpgrading {
		t.Errorf("a reload while another door is about to take over: %v, want %v", err, ErrUpgrading)
	}
	select {
	case <-h.door.ReloadMissed():
		t.Error("it is due already")
	default:
	}
	f.fail(errors.New("no"))
	<-h.door.ReloadMissed()
	if err := h.door.Reload(h.config(toShop)); err != nil {
		t.Error(err)
	}
}

func TestWhoAsksForTheSocketsDoesNotWaitForTheNewDoor(t *testing.T) {
	h := newHouse(t)
	h.openUpgradable(toShop)
	f := h.fakeSuccessor()
	f.sockets()
	if n := len(h.door.Sockets()); n != 1 {
		t.Errorf("the door has %d sockets, want 1", n)
	}
	f.say(message{Say: sayReady, Kept: []int{0}})
	f.hears(sayYours) // else the door has lost its patience
}

func TestADoorThatIsToldToEndEndsTheTakeoverFirst(t *testing.T) {
	for _, step := range []string{saySockets, sayYours} {
		t.Run("when it has said "+step, func(t *testing.T) {
			h := newHouse(t)
			h.openUpgradable(toShop)
			f := h.fakeSuccessor()
			f.sockets()
			if step == sayYours {
				f.say(message{Say: sayReady, Kept: []int{0}})
				f.hears(sayYours)
			}
			if err := h.door.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			if m := f.hears(sayFailed); m.Text != errShutDown.Error() {
				t.Errorf("the new door is told %q", m.Text)
			}
		})
	}
}

// TestAnUpgradeOfADoorThatIsToldToEndIsNoFailureOfTheNewOne ends it while the successor, which a shell plays, does not start.
func TestAnUpgradeOfADoorThatIsToldToEndIsNoFailureOfTheNewOne(t *testing.T) {
	h := newHouse(t)
	started := make(chan struct{})
	h.start(Options{Config: h.config(toShop), Control: h.name("door"), Successor: func() *exec.Cmd {
		close(started)
		return exec.Command("sleep", "60")
	}})
	said := make(chan error, 1)
	go func() {
		_, _, err := Upgrade(context.Background(), h.control(), "x")
		said <- err
	}()
	<-started
	h.shut()
	if err := <-said; err == nil || err.Error() != errShutDown.Error() {
		t.Errorf("the upgrade ends with %v, want %v", err, errShutDown)
	}
	if strings.Contains(h.log.String(), "serves on") {
		t.Error("by its log it serves on")
	}
}

func TestANewDoorThatCannotStartIsToldOf(t *testing.T) {
	h := newHouse(t)
	faults.NoLeak(t)
	h.take("shop", whoami("shop"), nil)
	h.openUpgradable(toShop)
	taken := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer taken.Close()
	wrong := `listeners: [{name: web, address: "127.0.0.1:0"}, {name: more, address: "` + taken.Addr().String() + `"}]` + "\n" + toShop
	err := h.next().takeOver(wrong)
	if err == nil || !strings.Contains(err.Error(), "listener more") {
		t.Errorf("the new door starts: %v", err)
	}
	eventually(t, "the old door knows why", func() bool { return strings.Contains(h.log.String(), "error=\"listener more:") })
	expectAnswer(t, h.addr("web"), "shop")
}

func TestAnAdminSocketWhoseFileWasRemovedHasOneAgainAtTheNewDoor(t *testing.T) {
	h := newHouse(t)
	yaml := toShop + "admin: unix:" + h.dir + "/admin.sock\n"
	h.openUpgradable(yaml)
	for _, remove := range []bool{true, false} {
		if remove {
			if err := os.Remove(h.dir + "/admin.sock"); err != nil {
				t.Fatal(err)
			}
		}
		next := h.next()
		if err := next.takeOver(yaml); err != nil {
			t.Fatal(err)
		}
		h.shut()
		c, err := net.Dial("unix", h.dir+"/admin.sock")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		h = next
	}
}

// TestADoorEndsThoughOthersBeforeItAreStopped has two say that they are leaving, and pass nothing on then.
func TestADoorEndsThoughOthersBeforeItAreStopped(t *testing.T) {
	h := newHouse(t)
	listeners, addr := fixed(t, "web")
	l := must(net.Listen("tcp", addr))(t)
	defer l.Close()
	stopped, end := make(chan struct{}), make(chan struct{})
	h.fakeDoor(func(f *fake) {
		f.givesWay(addr, l)
		for range 2 {
			ours, theirs, err := ipc.Pair()
			if err != nil {
				f.t.Error(err)
				return
			}
			f.say(message{Say: sayLeaving}, theirs)
			theirs.Close()
			f.hears(saySettled)
			target, err := new(usher.Dialer).DialOn(context.Background(), ours)
			if err != nil {
				f.t.Error(err)
				return
			}
			defer target.Close()
		}
		close(stopped)
		<-end
	})
	defer close(end)
	if err := h.takeOver(listeners + toShop); err != nil {
		t.Fatal(err)
	}
	<-stopped
	ended := make(chan struct{})
	go func() {
		h.shut()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(timeout):
		t.Error("it waits for them")
	}
}

func TestAnUpgradeThatTakesTooLongEndsWithItsContext(t *testing.T) {
	h := newHouse(t)
	h.fakeDoor(func(f *fake) {
		f.hears(sayUpgrade)
		f.c.Receive() // until it loses its patience
	})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := Upgrade(ctx, h.control(), ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Upgrade returns %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestADoorWhoseControlEndpointIsTakenServesAllTheSame(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.openUpgradable(toShop)
	second := h.next()
	second.openUpgradable(toShop)
	expectAnswer(t, second.addr("web"), "shop")
	if !strings.Contains(second.log.String(), "this door cannot be upgraded") {
		t.Error("it says nothing of that")
	}
	if err := h.next().takeOver(toShop); err != nil {
		t.Fatal(err)
	}
	<-h.door.Replaced()
	if isClosed(second.door.Replaced()) {
		t.Error("the second door was replaced")
	}
}

func TestTheControlEndpointFollowsTheConfiguration(t *testing.T) {
	h := newHouse(t)
	h.start(Options{Config: h.config(toShop + "control: " + h.name("one"))})
	if err := h.door.Reload(h.config(toShop + "control: " + h.name("two"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"one": false, "two": true} {
		c, err := dialControl(context.Background(), must(ControlPath(h.name(name), h.dir))(t))
		if err == nil {
			c.Close()
		}
		if err == nil != want {
			t.Errorf("at %s a door answers: %v", name, err)
		}
	}
}

func TestAReloadMakesTheControlEndpointAgainIfItWasRemoved(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.openUpgradable(toShop)
	if err := os.RemoveAll(filepath.Dir(h.control())); err != nil {
		t.Fatal(err)
	}
	if _, err := TakeOver(context.Background(), h.control(), ""); !errors.Is(err, ErrNoDoor) {
		t.Errorf("TakeOver returns %v, want %v", err, ErrNoDoor)
	}
	if err := h.door.Reload(h.config(toShop)); err != nil {
		t.Fatal(err)
	}
	next := h.next()
	if err := next.takeOver(toShop); err != nil {
		t.Fatal(err)
	}
	expectAnswer(t, next.addr("web"), "shop")
}

func TestWhereNoDoorRunsThereIsNoneToTakeOverFrom(t *testing.T) {
	h := newHouse(t)
	if _, err := TakeOver(context.Background(), h.control(), ""); !errors.Is(err, ErrNoDoor) {
		t.Errorf("TakeOver returns %v, want %v", err, ErrNoDoor)
	}
	if _, _, err := Upgrade(context.Background(), h.control(), ""); !errors.Is(err, ErrNoDoor) {
		t.Errorf("Upgrade returns %v, want %v", err, ErrNoDoor)
	}
}

func TestNonsenseAtTheControlEndpointIsRefused(t *testing.T) {
	h := newHouse(t)
	h.openUpgradable(toShop)
	for _, text := range []string{"", "{", "[]", `{"say":""}`, `{"say":"ready"}`, `{"say":"takeover"}`, `{"say":"takeover","version":"1"}`} {
		c := must(dialControl(context.Background(), h.control()))(t)
		if err := c.Send([]byte(text)); err != nil {
			t.Fatal(err)
		}
		m := must(c.Receive())(t)
		if !strings.Contains(string(m.Data), `"say":"failed"`) {
			t.Errorf("%q is answered with %s", text, m.Data)
		}
		c.Close()
	}
	// Who says nothing is not waited for when the door ends.
	c := must(dialControl(context.Background(), h.control()))(t)
	defer c.Close()
	h.shut()
}

func FuzzParseMessage(f *testing.F) {
	for _, m := range []message{
		{Say: sayTakeover, Version: 1, Build: "v1.2.3", PID: 7},
		{Say: saySockets, Version: 1, Sockets: []socketName{{Address: ":80", Listener: "web"}, {Address: "x", Passed: true}}, More: true},
		{Say: sayReady, Kept: []int{0, 1}},
		{Say: sayTarget, Target: &detached{Path: "/x", Name: "x", State: []byte{1, 2}}},
		{Say: sayLeaving},
		{Say: sayBefore},
		{Say: sayFailed, Text: strings.Repeat("x", 2*maxText)},
	} {
		b, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, len(m.Sockets))
		f.Add(b, 1)
	}
	f.Add([]byte("null"), 0)
	f.Fuzz(func(t *testing.T, b []byte, attachments int) {
		m, err := parseMessage(b, attachments)
		if err != nil {
			return
		}
		switch {
		case m.Say == "":
			t.Error("it has no word")
		case m.Say == saySockets && len(m.Sockets) != attachments:
			t.Errorf("%d sockets and %d attachments", len(m.Sockets), attachments)
		case m.Say == sayTarget && (m.Target == nil || attachments != 1):
			t.Errorf("a target %v, with %d attachments", m.Target, attachments)
		case m.Say == sayBefore && attachments != 1:
			t.Errorf("a door before, with %d attachments", attachments)
		case m.Say != saySockets && m.Say != sayTarget && m.Say != sayBefore && m.Say != sayLeaving && attachments != 0:
			t.Errorf("%q, with %d attachments", m.Say, attachments)
		case len(m.Text) > maxText:
			t.Errorf("a text of %d bytes", len(m.Text))
		}
	})
}
