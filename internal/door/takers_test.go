package door

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/faults"
)

func TestTakersThatComeAndGoAreNoticed(t *testing.T) {
	h := newHouse(t)
	h.open(`routes: [{match: {}, handoff: "{shop}"}]`)
	c := httpClient(t, h.addr("web"), freshConns)
	state := func() admin.EndpointStatus { return h.door.Status().Endpoints[0] }
	for range 3 {
		if status, _, err := get(c, "http://x.test/"); err != nil || status != 503 {
			t.Fatalf("without a taker: %d, %v", status, err)
		}
		s := h.take("shop", whoami("shop"), nil)
		if !isWindows {
			eventually(t, "the door connects to it, though no client has come", func() bool { return state().State == "up" })
		}
		if _, body, err := get(c, "http://x.test/"); err != nil || !strings.HasPrefix(body, "shop") {
			t.Fatalf("with a taker: %q, %v", body, err)
		}
		if s := state(); len(s.Takers) != 1 || s.Takers[0].PID != os.Getpid() || s.Takers[0].User == "" {
			t.Errorf("the taker is %+v", s)
		}
		s.Close()
		if !isWindows {
			eventually(t, "the door notices that it is gone", func() bool { return state().State == "absent" })
		}
	}
	if s := state(); s.Claimed != 3 {
		t.Errorf("%+v, want 3 claimed", s)
	}
}

func TestATakerIsReplacedWithoutALoss(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("old"), nil)
	h.open(`routes: [{match: {}, handoff: "{shop}"}]`)
	c := httpClient(t, h.addr("web"), freshConns)
	if _, body, err := get(c, "http://x.test/"); err != nil || !strings.HasPrefix(body, "old") {
		t.Fatalf("%q, %v", body, err)
	}
	lc := usher.ListenConfig{Replace: true}
	l := must(lc.Listen(h.path("shop")))(t)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nnew")
			c.(*usher.Conn).CloseWrite()
			io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	// The old one may serve what comes before it has noticed, and nothing after that.
	for served := 0; served < 20; {
		_, body, err := get(c, "http://x.test/")
		if err != nil || body != "new" && (served > 0 || !strings.HasPrefix(body, "old")) {
			t.Fatalf("%d served by the new one, then: %q, %v", served, body, err)
		}
		if body == "new" {
			served++
		}
	}
}

// up waits until n endpoints have a taker that is connected.
func (h *house) up(n int) {
	h.t.Helper()
	eventually(h.t, "takers are connected", func() bool {
		up := 0
		for _, e := range h.door.Status().Endpoints {
			up += len(e.Takers)
		}
		return up == n
	})
}

// TestTheEndpointWithTheFewestOffersUnderWayIsFirst has two takers, of which one accepts nothing.
func TestTheEndpointWithTheFewestOffersUnderWayIsFirst(t *testing.T) {
	h := newHouse(t)
	stuck := must(usher.Listen(h.path("blog")))(t)
	defer stuck.Close()
	h.take("shop", whoami("shop"), nil)
	h.open(`routes: [{match: {}, handoff: ["{blog}", "{shop}"], handoff_timeout: 200ms}]`)
	addr := h.addr("web")
	if !isWindows { // where the first connection connects
		h.up(2)
	}
	open := func(name string) int {
		for _, e := range h.door.Status().Endpoints {
			if e.Name == h.name(name) && len(e.Takers) == 1 {
				return e.Takers[0].Open
			}
		}
		return 0
	}
	// One of two at least has its turn at the stuck one, once the door is connected to both.
	eventually(t, "one waits at the stuck taker", func() bool {
		send(t, raw(t, addr), "GET / HTTP/1.1\r\nHost: x.test\r\n\r\n")
		return open("blog") >= 1
	})
	// A withdrawn offer counts until it is answered, so the others go to the taker that answers, but for some that
	// come before it has told of the last, as long as the other is not known to be stuck. By turns it would be 25.
	for range 50 {
		if _, body, err := get(httpClient(t, addr, freshConns), "http://x.test/"); err != nil || !strings.HasPrefix(body, "shop") {
			t.Fatalf("%q, %v", body, err)
		}
	}
	if n := open("blog"); n > 12 {
		t.Errorf("%d of 50 offers wait at the stuck taker", n)
	}
}

func TestTheEndOfAHandedOverConnectionIsLogged(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.open(`routes: [{name: r, match: {}, handoff: "{shop}"}]`)
	conn := raw(t, h.addr("web"))
	const request = "GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n"
	send(t, conn, request)
	answer := rest(t, conn)
	conn.Close()
	eventually(t, "the door hears of the end", func() bool {
		for _, r := range h.door.Status().Routes {
			if r.Name == "r" && r.Ended == 1 {
				if r.Received != uint64(len(request)) || r.Sent != uint64(len(answer)) {
					t.Fatalf("%d bytes received and %d sent, want %d and %d", r.Received, r.Sent, len(request), len(answer))
				}
				return true
			}
		}
		return false
	})
	var line, end string
	for _, l := range strings.Split(h.log.String(), "\n") {
		if strings.Contains(l, "msg=connection ") {
			line = l
		}
		if strings.Contains(l, "msg=ended ") {
			end = l
		}
	}
	for _, want := range []string{"client=" + conn.LocalAddr().String(), "host=x.test", "route=r", "target=" + h.name("shop"), "outcome=handed_over", "peek=", "handover="} {
		if !strings.Contains(line, want) {
			t.Errorf("the line of the connection has no %s: %s", want, line)
		}
	}
	id := strings.Fields(line[strings.Index(line, " id=")+1:])[0]
	for _, want := range []string{id, "client=" + conn.LocalAddr().String(), "route=r", "received=", "sent=", "lasted="} {
		if !strings.Contains(end, want) {
			t.Errorf("the line of its end has no %s: %s", want, end)
		}
	}
}

// TestTheDoorLeavesNothingBehind counts descriptors when many connections have come and gone every way.
func TestTheDoorLeavesNothingBehind(t *testing.T) {
	faults.NoLeak(t)
	h := newHouse(t)
	s := h.take("shop", whoami("shop"), nil)
	h.open(`routes: [{match: {host: x.test}, handoff: "{shop}"}, {match: {host: y.test}, handoff: "{blog}"}]`)
	for i := range 60 {
		url := []string{"http://x.test/", "http://y.test/", "http://z.test/"}[i%3]
		get(httpClient(t, h.addr("web"), freshConns), url)
	}
	h.shut()
	s.Shutdown(context.Background())
}
