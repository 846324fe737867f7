package door

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/unix"
)

// defers says whether the kernel keeps back clients of a listener that say nothing.
func (h *house) defers(name string) bool {
	h.t.Helper()
	for _, l := range h.door.plan.listeners {
		if l.settings.Load().Name != name {
			continue
		}
		var seconds int
		err := inControl(l.from.raw, func(fd uintptr) (err error) {
			seconds, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
			return err
		})
		if err != nil {
			h.t.Fatal(err)
		}
		return seconds > 0
	}
	h.t.Fatalf("no listener %s", name)
	return false
}

func TestSilentClientsAreKeptBackWhereTheConfigurationSaysSo(t *testing.T) {
	h := newHouse(t)
	first, _ := fixed(t, "a")
	listener := strings.TrimSuffix(first, "}]\n")
	const none = "routes: [{match: {}, reject: true}]"
	h.open(first + none)
	for _, c := range []struct {
		options string
		want    bool
	}{{"", true}, {", defer_accept: false", false}, {", defer_accept: true", true}, {", sniff: none", false}, {", sniff: tls", true}} {
		if err := h.door.Reload(h.config(listener + c.options + "}]\n" + none)); err != nil {
			t.Fatal(err)
		}
		if got := h.defers("a"); got != c.want {
			t.Errorf("with %q: %v, want %v", c.options, got, c.want)
		}
	}
	l := h.door.plan.listeners[0]
	l.stop()
	if h.defers("a") {
		t.Error("a listener that stops keeps clients back")
	}
	<-l.ended
}

func TestADoorThatServesOnHasItsSocketsAsTheyWere(t *testing.T) {
	h := newHouse(t)
	h.openUpgradable(toShop)
	f := h.fakeSuccessor()
	l := f.sockets()[0].(*net.TCPListener)
	f.say(message{Say: sayReady, Kept: []int{0}})
	f.hears(sayYours)
	raw := must(l.SyscallConn())(t)
	if err := inControl(raw, func(fd uintptr) error { return sys.DeferAccept(fd, false) }); err != nil {
		t.Fatal(err)
	}
	f.fail(errors.New("no"))
	eventually(t, "clients that say nothing are kept back", func() bool { return h.defers("web") })
}

func TestAClientThatSpeaksLateIsServed(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	h.open(`
listeners: [{name: web, address: "127.0.0.1:0", limits: {peek_timeout: 1m}}]
routes: [{name: r, match: {}, handoff: "{shop}"}]
`)
	late := raw(t, h.addr("web"))
	// The kernel lets go of it when it has asked it once more whether it is there.
	eventually(t, "it is in the peek phase", func() bool { return h.door.Status().Listeners[0].Peeking == 1 })
	send(t, late, request)
	if got := rest(t, late); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("it is told %q", got)
	}
	h.expect("r", admin.HandedOver, 1)
	h.nothingLeft()
}

func TestAClientThatNeverSpeaksIsTimedOut(t *testing.T) {
	h := newHouse(t)
	h.open(`
listeners: [{name: web, address: "127.0.0.1:0", limits: {peek_timeout: 50ms}}]
routes: [{match: {}, reject: true}]
`)
	if got := rest(t, raw(t, h.addr("web"))); got != "" {
		t.Errorf("it is told %q", got)
	}
	h.expect("none", admin.Timeout, 1)
	h.nothingLeft()
}

// TestSilentClientsGoWithTheirListener is what the documentation says of them. Those that have spoken do not.
func TestSilentClientsGoWithTheirListener(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	first, addr := fixed(t, "web")
	second, _ := fixed(t, "web")
	const routes = `routes: [{name: r, match: {}, handoff: "{shop}"}]`
	h.open(first + routes)
	h.up(1)
	silent := raw(t, addr)
	spoken := speak(t, addr, request)
	old := h.door.plan.listeners[0]
	if err := h.door.Reload(h.config(second + routes)); err != nil {
		t.Fatal(err)
	}
	if got := rest(t, spoken); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("who has spoken is told %q", got)
	}
	<-old.ended
	// On a slow machine the kernel may have let it go before: then the door has it, and serves it.
	io.WriteString(silent, request)
	got, err := io.ReadAll(silent)
	if !wasReset(err) && !strings.HasPrefix(string(got), "HTTP/1.1 200") || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("who has said nothing sees %q, %v", got, err)
	}
	h.nothingLeft()
}

// TestOffersUnderWayTakeNoGoroutine tells the quick way from the other.
func TestOffersUnderWayTakeNoGoroutine(t *testing.T) {
	const n = 50
	h := newHouse(t)
	l := must(usher.Listen(h.path("chat")))(t)
	h.open(`routes: [{name: r, match: {}, handoff: "{chat}", handoff_timeout: 10m}]`)
	h.up(1)
	before := runtime.NumGoroutine()
	for range n {
		speak(t, h.addr("web"), request)
	}
	eventually(t, "all are on offer", func() bool { return h.endpoint("chat").Takers[0].Open == n })
	if more := runtime.NumGoroutine() - before; more > n/2 {
		t.Errorf("%d offers take %d goroutines", n, more)
	}
	s := http.Server{Handler: whoami("chat")}
	go s.Serve(l)
	defer s.Close()
	h.expect("r", admin.HandedOver, n)
	h.nothingLeft()
}
