package door

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
)

// accept claims the next connection that is offered at l.
func accept(t testing.TB, l net.Listener) *usher.Conn {
	t.Helper()
	c := must(l.Accept())(t).(*usher.Conn)
	c.SetDeadline(time.Now().Add(timeout))
	t.Cleanup(func() { c.Close() })
	return c
}

// serveOne reads a request without a body and answers it. What it has read of the next is lost: there is none yet.
func serveOne(t testing.TB, c net.Conn, answer string) {
	t.Helper()
	must(http.ReadRequest(bufio.NewReader(c)))(t)
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
}

// answered reads an answer and returns its body.
func answered(t testing.TB, r *bufio.Reader) string {
	t.Helper()
	response := must(http.ReadResponse(r, nil))(t)
	return string(must(io.ReadAll(response.Body))(t))
}

func answeredStatus(t testing.TB, c net.Conn) int {
	t.Helper()
	response := must(http.ReadResponse(bufio.NewReader(c), nil))(t)
	response.Body.Close()
	return response.StatusCode
}

// giveBack has a taker give c back, with what it has read and not used, and with what it says of it.
func giveBack(t testing.TB, c *usher.Conn, prefix string, info usher.Info) {
	t.Helper()
	if err := tryGiveBack(c, prefix, info); err != nil {
		t.Fatal(err)
	}
}

func tryGiveBack(c *usher.Conn, prefix string, info usher.Info) error {
	o, err := usher.NewOffer(c, []byte(prefix), info)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return o.HandBack(ctx)
}

// served brings a client's first request, for host, to the taker that listens at l, which answers it.
func served(t testing.TB, l net.Listener, addr, host string) (client *net.TCPConn, c *usher.Conn) {
	t.Helper()
	client = raw(t, addr)
	send(t, client, "GET /first HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	c = accept(t, l)
	serveOne(t, c, "first")
	if got := answered(t, bufio.NewReader(client)); got != "first" {
		t.Fatalf("the client is told %q", got)
	}
	return client, c
}

// echo answers with what it was asked, to the last byte of the body.
func echo(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s has %s %s%s with %d bytes of %.1q", name, r.Method, r.Host, r.URL.Path, len(body), body)
	})
}

const twoHosts = `routes: [{name: a, match: {host: a.test}, handoff: "{shop}"}, {name: b, match: {host: b.test}, handoff: "{blog}"}]`

func TestAConnectionThatATakerGivesBackIsRoutedAnew(t *testing.T) {
	get := "GET /second HTTP/1.1\r\nHost: b.test\r\n\r\n"
	post := "POST /second HTTP/1.1\r\nHost: b.test\r\nContent-Length: 70000\r\n\r\n" + strings.Repeat("x", 70000)
	for _, c := range []struct {
		name, request string
		read, later   int // bytes that the taker has read, and that the client sends when it was given back
		want          string
	}{
		{"with the whole request", get, len(get), 0, "blog has GET b.test/second with 0 bytes of \"\""},
		{"with a part, the rest in the kernel", get, 10, 0, "blog has GET b.test/second with 0 bytes of \"\""},
		{"with a part, the rest yet to come", get, 10, len(get) - 10, "blog has GET b.test/second with 0 bytes of \"\""},
		{"with nothing, all in the kernel", get, 0, 0, "blog has GET b.test/second with 0 bytes of \"\""},
		{"with nothing, all yet to come", get, 0, len(get), "blog has GET b.test/second with 0 bytes of \"\""},
		{"with 64 KiB", post, 64 << 10, 0, "blog has POST b.test/second with 70000 bytes of \"x\""},
		{"with 64 KiB, the rest yet to come", post, 64 << 10, len(post) - 64<<10, "blog has POST b.test/second with 70000 bytes of \"x\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			shop := must(usher.Listen(h.path("shop")))(t)
			defer shop.Close()
			h.take("blog", echo("blog"), nil)
			h.open(twoHosts)
			client, conn := served(t, shop, h.addr("web"), "a.test")
			info := conn.Info()
			sent := make(chan error, 1)
			go func() {
				_, err := io.WriteString(client, c.request[:len(c.request)-c.later])
				sent <- err
			}()
			prefix := make([]byte, c.read)
			must(io.ReadFull(conn, prefix))(t)
			giveBack(t, conn, string(prefix), info)
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			send(t, client, c.request[len(c.request)-c.later:])
			if got := answered(t, bufio.NewReader(client)); got != c.want {
				t.Errorf("the client is told %q, want %q", got, c.want)
			}
			h.expect("b", admin.HandedOver, 1)
			for _, e := range h.door.Status().Endpoints {
				if e.Name == h.name("shop") && e.Returned != 1 {
					t.Errorf("the endpoint counts %+v, want 1 returned", e)
				}
			}
			eventually(t, "the log says where it came from", func() bool {
				return strings.Contains(h.log.String(), "returned.endpoint="+h.name("shop")+" returned.pid="+fmt.Sprint(conn.Giver().PID)+" returned.id="+info.ID)
			})
		})
	}
}

func TestTheTakerThatGaveAConnectionBackMayHaveItAgain(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	h.open(twoHosts)
	client, conn := served(t, shop, h.addr("web"), "a.test")
	for i := range 5 {
		giveBack(t, conn, "", conn.Info())
		send(t, client, "GET /again HTTP/1.1\r\nHost: a.test\r\n\r\n")
		conn = accept(t, shop)
		serveOne(t, conn, fmt.Sprint("again ", i))
		if got, want := answered(t, bufio.NewReader(client)), fmt.Sprint("again ", i); got != want {
			t.Fatalf("the client is told %q, want %q", got, want)
		}
	}
	h.expect("a", admin.HandedOver, 6)
}

func TestAConnectionThatWasGivenBackIdleIsClosedWithoutAnAnswer(t *testing.T) {
	for name, end := range map[string]func(client *net.TCPConn){
		"when its time is up":         func(*net.TCPConn) {},
		"when its client closes it":   func(client *net.TCPConn) { client.CloseWrite() },
		"but not with half a request": nil,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			shop := must(usher.Listen(h.path("shop")))(t)
			defer shop.Close()
			h.open(`listeners: [{name: web, address: "127.0.0.1:0", limits: {peek_timeout: 500ms}}]` + "\n" + twoHosts)
			client, conn := served(t, shop, h.addr("web"), "a.test")
			if end == nil {
				giveBack(t, conn, "GET / HT", conn.Info())
				if got := rest(t, client); !strings.HasPrefix(got, "HTTP/1.1 408 ") {
					t.Errorf("the client is told %q, want 408", got)
				}
				h.expect("none", admin.Timeout, 1)
				return
			}
			giveBack(t, conn, "", conn.Info())
			end(client)
			if got := rest(t, client); got != "" {
				t.Errorf("the client is told %q", got)
			}
			h.expect("none", admin.Idle, 1)
			if refused := h.door.Status().Refusals; len(refused) > 0 {
				t.Errorf("an idle connection counts as %+v", refused)
			}
		})
	}
}

// TestATakerIsBelievedNoMoreThanAClient has a taker lie of a connection that it gives back.
func TestATakerIsBelievedNoMoreThanAClient(t *testing.T) {
	proxied := netip.MustParseAddrPort("203.0.113.5:12345")
	for _, c := range []struct {
		name, proxies string
		lie           func(*usher.Info)
		want          string
	}{
		{"with what it was told", "", func(*usher.Info) {}, "outside serves nobody"},
		{"of its listener", "", func(i *usher.Info) { i.Listener = "inside" }, "outside serves nobody"},
		{"of a listener that there is not", "", func(i *usher.Info) { i.Listener = strings.Repeat("x", 30000) }, "outside serves nobody"},
		{"of its route", "", func(i *usher.Info) { i.Route, i.Host, i.Path = "inside", "c.test", "/y" }, "outside serves nobody"},
		{"of its client", "", func(i *usher.Info) { i.Client = proxied }, "outside serves nobody"},
		{"of its client, whom a trusted proxy has named", ", accept_proxy: [127.0.0.1]", func(*usher.Info) {}, "outside serves " + proxied.String()},
		{"of its state", "", func(i *usher.Info) { i.State = peekState{header: true, age: time.Hour}.encode() }, "outside serves nobody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			shop := must(usher.Listen(h.path("shop")))(t)
			defer shop.Close()
			serve := func(name string) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					who := "nobody"
					if client := infoOf(r).Client; client.IsValid() {
						who = client.String()
					}
					fmt.Fprint(w, name, " serves ", who)
				})
			}
			h.take("blog", serve("outside"), nil)
			h.take("chat", serve("inside"), nil)
			h.open(`
listeners: [{name: web, address: "127.0.0.1:0"` + c.proxies + `}, {name: inside, address: "127.0.0.1:0"}]
routes:
  - {name: a, match: {host: a.test}, handoff: "{shop}"}
  - {name: b, match: {host: b.test, listener: web}, handoff: "{blog}"}
  - {name: inside, match: {host: b.test, listener: inside}, handoff: "{chat}"}
`)
			client := raw(t, h.addr("web"))
			if c.proxies != "" {
				send(t, client, "PROXY TCP4 203.0.113.5 127.0.0.1 12345 80\r\n")
			}
			send(t, client, "GET /first HTTP/1.1\r\nHost: a.test\r\n\r\n")
			conn := accept(t, shop)
			serveOne(t, conn, "first")
			answered(t, bufio.NewReader(client))
			info := conn.Info()
			c.lie(&info)
			giveBack(t, conn, "", info)
			send(t, client, "GET /second HTTP/1.1\r\nHost: b.test\r\n\r\n")
			if got := answered(t, bufio.NewReader(client)); got != c.want {
				t.Errorf("the client is told %q, want %q", got, c.want)
			}
		})
	}
}

func TestALimitThatItWasAdmittedUnderIsNotAskedAgain(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	h.open(`listeners: [{name: web, address: "127.0.0.1:0", limits: {per_ip: 1, per_ip_rate: 4, peek_timeout: 1m}}]` + "\n" + twoHosts)
	clients, conns := make([]*net.TCPConn, 4), make([]*usher.Conn, 4)
	for i := range clients {
		clients[i], conns[i] = served(t, shop, h.addr("web"), "a.test")
		h.expect("a", admin.HandedOver, i+1) // so that the next may come
	}
	for _, c := range conns {
		giveBack(t, c, "", c.Info())
	}
	eventually(t, "all are in the peek phase", func() bool { return h.door.Status().Listeners[0].Peeking == len(clients) })
	for _, c := range clients {
		send(t, c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		serveOne(t, accept(t, shop), "more")
		if got := answered(t, bufio.NewReader(c)); got != "more" {
			t.Errorf("a client is told %q", got)
		}
	}
	h.expect("none", admin.Limited, 0)
}

// TestAReload has a taker keep connections over a reload, and give them back then.
func TestAReload(t *testing.T) {
	for _, c := range []struct{ name, config, want string }{
		{"gives their listener another name", `listeners: [{name: new, address: "ADDR"}]` + "\n" + twoHosts, "blog"},
		{"takes their listener away", `listeners: [{name: web, address: "127.0.0.1:0"}]` + "\n" + twoHosts, "reset"},
		{"takes their endpoint away", `listeners: [{name: web, address: "ADDR"}]` + "\n" + `routes: [{name: b, match: {}, handoff: "{blog}"}]`, "blog"},
		{"takes their route away", `listeners: [{name: web, address: "ADDR"}]` + "\n" + `routes: [{name: a, match: {host: a.test}, handoff: "{shop}"}]`, "404"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			shop := must(usher.Listen(h.path("shop")))(t)
			defer shop.Close()
			h.take("blog", echo("blog"), nil)
			listeners, addr := fixed(t, "web")
			h.open(listeners + twoHosts)
			client, conn := served(t, shop, addr, "a.test")
			if err := h.door.Reload(h.config(strings.ReplaceAll(c.config, "ADDR", addr))); err != nil {
				t.Fatal(err)
			}
			giveBack(t, conn, "GET / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n", conn.Info())
			got, err := io.ReadAll(client)
			if c.want == "reset" {
				if !wasReset(err) && !(isWindows && err == nil && len(got) == 0) { // where an end comes before the reset
					t.Errorf("the client is told %q, %v; want a reset", got, err)
				}
				return
			}
			if !strings.Contains(string(got), c.want) {
				t.Errorf("the client is told %q, %v; want %s", got, err, c.want)
			}
		})
	}
}

// TestATakerThatGivesEverythingBackIsHeldToAPace counts what such a taker makes the door do, which is less on a slower machine.
func TestATakerThatGivesEverythingBackIsHeldToAPace(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	h.take("blog", whoami("blog"), nil)
	h.open(twoHosts)
	var returned atomic.Int64
	go func() {
		for {
			c, err := shop.Accept()
			if err != nil {
				return
			}
			go func() {
				conn := c.(*usher.Conn)
				if tryGiveBack(conn, "", conn.Info()) == nil {
					returned.Add(1)
				}
			}()
		}
	}()
	began := time.Now()
	const clients = 16
	for range clients {
		send(t, raw(t, h.addr("web")), "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	}
	good := httpClient(t, h.addr("web"), freshConns)
	for time.Since(began) < 3*time.Second/2 {
		if _, body, err := get(good, "http://b.test/"); err != nil || !strings.HasPrefix(body, "blog") {
			t.Fatalf("another client is told %q, %v", body, err)
		}
	}
	n, took := returned.Load(), time.Since(began)
	if most := int64(returnsAtOnce + took.Seconds()*returnsPerSecond + 2*clients); n > most {
		t.Errorf("%d connections were given back in %v, want %d at most", n, took, most)
	}
	if n < 2*clients {
		t.Errorf("%d connections were given back in %v: none twice", n, took)
	}
	t.Logf("%d connections were given back in %v", n, took)
	shop.Close()
}

// TestWhatIsGivenBackWhenTooManyWaitIsRefused has the turns of the next half minute be others'.
func TestWhatIsGivenBackWhenTooManyWaitIsRefused(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	h.open(`routes: [{name: a, match: {}, handoff: "{shop}"}]`)
	client, conn := served(t, shop, h.addr("web"), "a.test")
	pace := h.door.plan.endpoints[0].pace
	for range returnsAtOnce + 2*int(returnPatience/time.Second)*returnsPerSecond {
		pace.Reserve()
	}
	giveBack(t, conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", conn.Info())
	if got := answeredStatus(t, client); got != http.StatusServiceUnavailable {
		t.Errorf("the client is told %d, want 503", got)
	}
	h.expect("none", admin.Unavailable, 1)
}

func TestWhatIsGivenBackToADoorThatEndsIsServed(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	h.take("blog", echo("blog"), nil)
	h.open(twoHosts)
	client, conn := served(t, shop, h.addr("web"), "a.test")
	waiting := raw(t, h.addr("web"))
	send(t, waiting, "GET / HTTP/1.1\r\nHo")
	eventually(t, "a client is in the peek phase", func() bool { return h.door.Status().Listeners[0].Peeking == 1 })
	ended := make(chan error, 1)
	go func() { ended <- h.door.Shutdown(context.Background()) }()
	eventually(t, "the door drains", func() bool { return h.door.Status().Draining })
	giveBack(t, conn, "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n", conn.Info())
	if got := answered(t, bufio.NewReader(client)); !strings.HasPrefix(got, "blog") {
		t.Errorf("the client is told %q", got)
	}
	send(t, waiting, "st: b.test\r\nConnection: close\r\n\r\n")
	if got := rest(t, waiting); !strings.Contains(got, "blog") {
		t.Errorf("who waited is told %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestNothingIsAddedToWorkThatIsOver(t *testing.T) {
	var w work
	for range 2 {
		if !w.add() {
			t.Fatal("nothing can be added, though nobody waits")
		}
		w.Done()
	}
	w.Add(1)
	over := make(chan struct{})
	go func() {
		w.Wait()
		close(over)
	}()
	eventually(t, "somebody waits", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.none != nil
	})
	if !w.add() {
		t.Error("nothing can be added while there is something")
	}
	w.Done()
	if isClosed(over) {
		t.Error("it is over though one is left")
	}
	w.Done()
	<-over
	if w.add() {
		t.Error("something was added to work that is over")
	}
	w.Wait() // which returns at once
}

func TestTheLastOfTheWorkSeesToTheRest(t *testing.T) {
	var w work
	w.Add(2)
	alone := make(chan struct{})
	go func() {
		for range 2 {
			w.waitAsLast()
			alone <- struct{}{}
		}
		w.Done()
	}()
	eventually(t, "it waits", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.last != nil
	})
	w.Done()
	w.mu.Lock()
	if w.last == nil {
		t.Error("it is told though nobody waits for the end")
	}
	w.mu.Unlock()
	over := make(chan struct{})
	go func() {
		w.Wait()
		close(over)
	}()
	<-alone
	<-alone // at once, for there is nothing else still
	<-over
}

func TestWhichListenerAConnectionIsOf(t *testing.T) {
	for _, c := range []struct {
		listens, local string
		want           int
	}{
		{"127.0.0.1:80", "127.0.0.1:80", 3},
		{"127.0.0.1:80", "127.0.0.1:81", 0},
		{"127.0.0.1:80", "127.0.0.2:80", 0},
		{"0.0.0.0:80", "127.0.0.1:80", 1},
		{"0.0.0.0:80", "127.0.0.1:81", 0},
		{"0.0.0.0:80", "[::1]:80", 0},
		{"[::]:80", "[::1]:80", 1},
		{"[::]:80", "127.0.0.1:80", 1},
		{"[::1]:80", "[::1]:80", 3},
		{"[::1]:80", "127.0.0.1:80", 0},
	} {
		if got := fits(netip.MustParseAddrPort(c.listens), netip.MustParseAddrPort(c.local)); got != c.want {
			t.Errorf("a connection to %s fits a listener at %s by %d, want %d", c.local, c.listens, got, c.want)
		}
	}
	if fits(netip.AddrPort{}, netip.AddrPort{}) != 0 {
		t.Error("a connection without an address fits")
	}
}
