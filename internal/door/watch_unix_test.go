//go:build unix

package door

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"
)

func TestASocketThatIsTouchedAgainAndAgainCostsOneGoroutine(t *testing.T) {
	h := newHouse(t)
	hung := must(net.Listen("unix", h.path("shop")))(t)
	defer hung.Close()
	h.open(`routes: [{match: {}, handoff: "{shop}"}]`)
	before := runtime.NumGoroutine()
	for range 200 {
		if err := os.Chmod(h.path("shop"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if n := runtime.NumGoroutine() - before; n > 20 {
		t.Errorf("there are %d goroutines more", n)
	}
	hung.Close() // so that nobody waits for it until the test ends
}

func TestAutoRoutesKeepNothingOfWhatIsGone(t *testing.T) {
	h := newHouse(t)
	h.open("auto_routes: true")
	ask := func(name string) {
		if _, _, err := get(httpClient(t, h.addr("web"), freshConns), "http://"+name+"/"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(h.path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range minSweepAutos + 10 {
		name := fmt.Sprint("x", i)
		l := must(net.Listen("unix", h.path(name)))(t)
		eventually(t, "the socket is noticed", func() bool { return h.door.watch.has(h.path(name)) })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		ask(name)
		l.Close()
		eventually(t, "its end, too", func() bool { return !h.door.watch.has(h.path(name)) })
	}
	if h.door.watch.has(h.path("file")) {
		t.Error("a file was taken for a socket")
	}
	if n := len(h.door.Status().Endpoints); n > minSweepAutos {
		t.Errorf("the door has %d endpoints, of which none is there", n)
	}
}
