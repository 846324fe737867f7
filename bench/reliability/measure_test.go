//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

// TestDisturbances does to each contender that is here all that can be done to it, once, with a few clients.
func TestDisturbances(t *testing.T) {
	p, err := processes.NewPlace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	s := scale{rate: 20, kept: 3, downloads: 4, calm: 300 * time.Millisecond, settling: 300 * time.Millisecond,
		times: func(disturbance) int { return 1 }}
	for _, c := range contenders {
		for _, d := range c.disturbances {
			d.pause = 0
			t.Run(c.name+"/"+d.name, func(t *testing.T) {
				row, err := s.measure(t.Context(), p, c, d)
				if errors.Is(err, bench.ErrAbsent) {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				wantMeasured(t, row, s, d)
				if !strings.HasPrefix(c.name, "usher") { // what others lose is theirs, but for the downloads whose process was killed
					if killed := d.name == "kill"; killed != (row.Broken == s.downloads) {
						t.Errorf("%d downloads broke: %v", row.Broken, row.Breakages)
					}
					return
				}
				r := Results{Rows: []Row{*row}}
				if err := r.check(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wantNoFolders(t, p.Dir)
}

// wantMeasured wants requests of each kind in each phase.
func wantMeasured(t *testing.T, row *Row, s scale, d disturbance) {
	t.Helper()
	kinds := len(fourKinds)
	if d.twoHosts {
		kinds++
	}
	for _, phase := range []Phase{row.Before, row.During} {
		if len(phase.Kinds) != kinds {
			t.Errorf("%d kinds of requests; want %d", len(phase.Kinds), kinds)
		}
		for _, f := range phase.Kinds {
			if f.Requests == 0 {
				t.Errorf("no requests: %s", f.Title)
			}
			if !f.Kept && f.Connected == 0 {
				t.Errorf("no connections: %s", f.Title)
			}
		}
		if phase.Busy <= 0 || phase.Busy > 1 {
			t.Errorf("the processors were busy for %v of the time", phase.Busy)
		}
	}
}

// wantNoFolders wants those of the contenders to be gone.
func wantNoFolders(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			t.Errorf("%s is still there", e.Name())
		}
	}
}

func TestChosen(t *testing.T) {
	for _, test := range []struct {
		name  string
		m     measurement
		want  string // the contenders, each with as many disturbances
		wrong bool
	}{
		{name: "all", want: "usher usher-proxy/upgrade haproxy nginx"},
		{name: "short is of usher alone", m: measurement{short: true}, want: "usher usher-proxy/upgrade"},
		{name: "unless others are wanted", m: measurement{short: true, only: "nginx"}, want: "nginx"},
		{name: "a contender", m: measurement{only: "haproxy"}, want: "haproxy"},
		{name: "what some have", m: measurement{only: "reload"}, want: "usher/reload haproxy/reload nginx/reload"},
		{name: "their order stays", m: measurement{only: "nginx/kill,usher/reload"}, want: "usher/reload nginx/kill"},
		{name: "one that is not there", m: measurement{only: "usher,apache"}, wrong: true},
		{name: "what is not done to it", m: measurement{only: "haproxy/hand-back"}, wrong: true},
		{name: "an empty name", m: measurement{only: "usher,"}, wrong: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			chosen, err := test.m.chosen()
			if (err != nil) != test.wrong {
				t.Fatalf("the error is %v", err)
			}
			var got []string
			for _, c := range chosen {
				name := c.name
				if len(c.disturbances) == 1 {
					name += "/" + c.disturbances[0].name
				}
				got = append(got, name)
			}
			if err == nil && strings.Join(got, " ") != test.want {
				t.Errorf("chose %q; want %q", got, test.want)
			}
		})
	}
}

func TestTheCommandMakesSuchARunAgain(t *testing.T) {
	m := measurement{only: "usher/kill", short: true, json: "results.json"}
	if got, want := m.String(), "go run ./reliability -only usher/kill -short"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestWhatCannotRunIsSkipped(t *testing.T) {
	t.Setenv("PATH", "/nonexistent")
	p, err := processes.NewPlace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	r, err := new(measurement).measure(t.Context(), p, []contender{haproxy, nginx})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 0 || len(r.Skipped) != 2 {
		t.Errorf("rows %v, skipped %v; want no rows, and two contenders skipped", r.Rows, r.Skipped)
	}
}

// A request that ends between two phases would be in neither, and a failure be missed.
func TestPhasesHaveNoGapBetweenThem(t *testing.T) {
	first := startPhase()
	second := first.next()
	if !first.to.Equal(second.from) || first.busy[1] != second.busy[0] || first.processors[1] != second.processors[0] {
		t.Errorf("one ends with %+v, the next begins with %+v", first, second)
	}
}

// A stream that waits for an answer is no reason for the others to go on.
func TestAllStreamsStopAtOnce(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.Host) }))
	t.Cleanup(answers.Close)
	waiting := fourKinds[0].start(&running{http: silent.Addr().String()}, 20, 0)
	others := fourKinds[0].start(&running{http: answers.Listener.Addr().String()}, 20, 0)
	held, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		stopAll([]*stream{waiting, others})
	}()
	<-others.ended // and not only when there is an end of the first
	select {
	case <-waiting.ended:
		t.Error("the first has ended before the other")
	default:
	}
	silent.Close()
	held.Close()
	<-done
}

// A door that does not load its configuration anew is none that was measured while it did so.
func TestAReloadThatDoesNotHappenIsAnError(t *testing.T) {
	p, err := processes.NewPlace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	c, err := p.NewCrew("reload")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	r := &running{Crew: c}
	if r.front, err = c.Start("sh", "-c", `trap 'echo failed >&2; exit 1' HUP; echo ready >&2; read end`); err != nil {
		t.Fatal(err)
	}
	if err := c.Await(t.Context(), func() error {
		if r.front.Said() != "ready\n" {
			return errors.New("it is not ready")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := reload(t.Context(), r, 0); err == nil {
		t.Error("the reload succeeded")
	}
}
