package door

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
)

func TestTheOldestIsEvictedWhenTooManyAreInThePeekPhase(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.open(`
listeners: [{name: web, address: "127.0.0.1:0", defer_accept: false, limits: {peeking: 3, peek_timeout: 1m}}]
routes: [{match: {}, handoff: "{shop}"}]
`)
	oldest := raw(t, h.addr("web"))
	for i := range 3 {
		eventually(t, "they are in the peek phase", func() bool { return h.door.Status().Listeners[0].Peeking == i+1 })
		raw(t, h.addr("web"))
	}
	if _, err := io.ReadAll(oldest); !wasReset(err) {
		t.Errorf("the oldest sees %v, want a reset", err)
	}
	h.expect("none", admin.Evicted, 1)
	if _, body, err := get(httpClient(t, h.addr("web"), nil), "http://any.test/"); err != nil || !strings.HasPrefix(body, "shop") {
		t.Errorf("a good client is told %q, %v", body, err)
	}
}

func TestOneAddressMayHaveSoManyConnectionsAtTheDoor(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.open(`
listeners: [{name: web, address: "127.0.0.1:0", defer_accept: false, limits: {per_ip: 2, peek_timeout: 1m}}]
routes: [{match: {}, handoff: "{shop}"}]
`)
	first := raw(t, h.addr("web"))
	raw(t, h.addr("web"))
	if err := reaction(h.addr("web"), "GET /"); !wasReset(err) {
		t.Errorf("the third sees %v, want a reset", err)
	}
	h.expect("none", admin.Limited, 1)

	// What was handed over does not count any more.
	send(t, first, "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n")
	first.Read(make([]byte, 1))
	h.expect("default", admin.HandedOver, 1)
	eventually(t, "there is room again", func() bool { return h.door.Status().Listeners[0].Open == 1 })
	fourth := raw(t, h.addr("web"))
	send(t, fourth, "GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n")
	if got := rest(t, fourth); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("the fourth is told %q", got)
	}
}

func TestOneAddressMayMakeSoManyConnectionsASecond(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.open(`
listeners: [{name: web, address: "127.0.0.1:0", limits: {per_ip_rate: 3}}]
routes: [{match: {}, handoff: "{shop}"}]
`)
	good, bad := 0, 0
	for range 50 {
		if _, _, err := get(httpClient(t, h.addr("web"), freshConns), "http://x.test/"); err == nil {
			good++
		} else {
			bad++
		}
	}
	if good < 3 || bad == 0 {
		t.Errorf("of 50 connections %d were served and %d refused, want 3 at least and some", good, bad)
	}
}

func TestClientsAreForgotten(t *testing.T) {
	var cs clients
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range 10 * minSweep {
		cs.add(addr(i), 1, 1_000_000)
		cs.remove(addr(i))
	}
	if len(cs.counts) > 9*minSweep {
		t.Errorf("%d addresses are remembered, none of which has a connection", len(cs.counts))
	}
	eventually(t, "none is remembered when all could make a burst again", func() bool {
		cs.sweep()
		return len(cs.counts) == 0
	})
	if refused := cs.add(netip.MustParseAddr("2001:db8::1"), 1, 0); refused != "" {
		t.Error(refused)
	}
	if refused := cs.add(netip.MustParseAddr("2001:db8::ffff:2"), 1, 0); refused == "" {
		t.Error("two addresses of one /64 count as two clients")
	}
	if refused := cs.add(netip.MustParseAddr("2001:db8:0:1::1"), 1, 0); refused != "" {
		t.Errorf("another /64: %s", refused)
	}
}

func TestAHeaderOfTheProxyProtocol(t *testing.T) {
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x05\x7f\x00\x00\x01\x30\x39\x00\x50"
	local := "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	for _, c := range []struct{ name, header, from, want string }{
		{"version 1 is believed from a trusted proxy", "PROXY TCP4 203.0.113.5 127.0.0.1 12345 80\r\n", "127.0.0.0/8", "shop for 203.0.113.5:12345"},
		{"version 2, too", v2, "127.0.0.1/32", "shop for 203.0.113.5:12345"},
		{"LOCAL speaks for the proxy itself", local, "127.0.0.1/32", "shop for invalid AddrPort"},
		{"from anybody else it is no header", "PROXY TCP4 203.0.113.5 127.0.0.1 12345 80\r\n", "10.0.0.0/8", "reset"},
		{"a trusted proxy has to send one", "", "127.0.0.0/8", "reset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			h.take("shop", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "shop for %v", infoOf(r).Client)
			}), nil)
			h.open(`
listeners: [{name: web, address: "127.0.0.1:0", accept_proxy: ["` + c.from + `"]}]
routes: [{match: {}, handoff: "{shop}"}]
`)
			conn := raw(t, h.addr("web"))
			first := c.header + "GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n"
			err := drip(conn, first)
			var b []byte
			if err == nil {
				b, err = io.ReadAll(conn)
			}
			got := string(b)
			if err != nil {
				got = "reset"
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// drip writes byte by byte: first bytes may come in any pieces.
func drip(w io.Writer, b string) error {
	for i := range len(b) {
		if _, err := io.WriteString(w, b[i:i+1]); err != nil {
			return err // reset in the midst
		}
		if i%16 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

func TestAHeaderBeforeAProtocolThatTheDoorDoesNotKnow(t *testing.T) {
	h := newHouse(t)
	l := must(usher.Listen(h.path("shop")))(t)
	defer l.Close()
	h.open(`
listeners: [{name: any, address: "127.0.0.1:0", sniff: none, accept_proxy: [127.0.0.1/32]}]
routes: [{match: {from: [203.0.113.0/24]}, handoff: "{shop}"}]
`)
	conn := raw(t, h.addr("any"))
	send(t, conn, "PROXY TCP4 203.0.113.5 127.0.0.1 12345 80\r\nhello")
	conn.CloseWrite()
	c := must(l.Accept())(t)
	defer c.Close()
	if got := rest(t, c); got != "hello" {
		t.Errorf("the taker reads %q, want what follows the header", got)
	}
	if got := c.(*usher.Conn).Info().Client.String(); got != "203.0.113.5:12345" {
		t.Errorf("the client is %s", got)
	}
}

// TestABackendIsToldWhereTheClientOfATrustedProxyHasConnectedTo, which is not where that proxy has.
func TestABackendIsToldWhereTheClientOfATrustedProxyHasConnectedTo(t *testing.T) {
	h := newHouse(t)
	backend := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer backend.Close()
	h.open(`
listeners: [{name: any, address: "127.0.0.1:0", sniff: none, accept_proxy: [127.0.0.1]}]
routes: [{match: {}, proxy: "` + backend.Addr().String() + `", send_proxy: v1}]
`)
	for _, header := range []string{
		"PROXY TCP4 203.0.113.5 198.51.100.7 12345 443\r\n",
		"PROXY TCP6 2001:db8::5 2001:db8::7 12345 443\r\n",
	} {
		conn := raw(t, h.addr("any"))
		send(t, conn, header+"hello")
		conn.CloseWrite()
		c := must(backend.Accept())(t)
		if got := rest(t, c); got != header+"hello" {
			t.Errorf("the backend reads %q, want %q", got, header+"hello")
		}
		c.Close()
	}
}
