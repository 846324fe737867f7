//go:build unix

package door

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/faults"
)

func init() { roles["successor"] = playSuccessor }

// playSuccessor is a door, the first or one that is to serve in the place of another. Args: the configuration file, the
// control endpoint, and what it does as a successor, empty for the first. It says whether it serves, and where it listens then.
func playSuccessor(args []string) error {
	file, controlName, does := args[0], args[1], args[2]
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	o := Options{
		Config: c, Control: controlName, Version: "role", Log: slog.New(slog.DiscardHandler), readyWithin: rolePatience, servingWithin: rolePatience,
		Successor: func() *exec.Cmd {
			does, _ := os.ReadFile(file + ".successor") // which the test may change
			cmd := exec.Command(os.Args[0], file, controlName, string(does))
			cmd.Env = append(os.Environ(), roleEnvironment)
			return cmd
		},
	}
	if message, ok := strings.CutPrefix(does, stopAt); ok {
		o.Log = slog.New(stopper{o.Log.Handler(), message})
	}
	if does != "" {
		if err := succeedAs(&o, does); err != nil {
			return err
		}
	}
	d, err := Start(o)
	if err != nil {
		fmt.Println("outcome: fails:", err)
		return err
	}
	fmt.Println("outcome: serves")
	fmt.Println("serves at", d.Status().Listeners[0].Address)
	<-d.Replaced()
	return d.Shutdown(context.Background())
}

// stopAt begins what a door of the role does that stops when it logs something.
const stopAt = "stop at "

type stopper struct {
	slog.Handler
	at string
}

func (s stopper) Enabled(context.Context, slog.Level) bool { return true }

func (s stopper) Handle(_ context.Context, r slog.Record) error {
	if r.Message == s.at {
		fmt.Println("stops")
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		time.Sleep(100 * time.Millisecond) // as signalItself says
	}
	return nil
}

// rolePatience is that of a door of the role with its successor.
const rolePatience = 3 * time.Second

// roleEnvironment has package faults play the role.
const roleEnvironment = "USHER_TEST_ROLE=successor"

func succeedAs(o *Options, does string) (err error) {
	switch does {
	case "exit 3":
		os.Exit(3)
	case "kill itself":
		signalItself(syscall.SIGKILL)
	case "stop before it says anything":
		signalItself(syscall.SIGSTOP)
	}
	o.Predecessor, err = TakeOver(context.Background(), o.Control, o.Version)
	if errors.Is(err, ErrNoDoor) {
		o.AddressWait = deathTime
		return nil
	}
	if err != nil {
		return err
	}
	switch does {
	case "kill itself when it has the sockets":
		signalItself(syscall.SIGKILL)
	case "stop when it has the sockets":
		signalItself(syscall.SIGSTOP)
	case "fail":
		err := errors.New("no such user")
		o.Predecessor.Fail(err)
		return err
	}
	return nil
}

// signalItself does not return: kill(2) only asks, and this thread could go on for a moment.
func signalItself(s syscall.Signal) {
	syscall.Kill(os.Getpid(), s)
	time.Sleep(2 * timeout)
	os.Exit(1)
}

// doors are processes that serve one after the other.
type doors struct {
	t     testing.TB
	h     *house
	file  string
	first *faults.Actor
	addr  string
	pid   int // of the one that serves
}

func (h *house) configFile(yaml string) string {
	h.t.Helper()
	file := h.dir + "/usher.yaml"
	if err := os.WriteFile(file, []byte(yaml+"endpoints: {dir: "+h.dir+"}\n"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return file
}

func (h *house) doors(yaml string) *doors {
	h.t.Helper()
	file := h.configFile(yaml)
	d := &doors{t: h.t, h: h, file: file}
	d.nextDoes("serve")
	d.first = faults.Start(h.t, "successor", file, h.control(), "")
	d.addr = d.first.Await("serves at ")
	d.pid = d.first.PID()
	h.t.Cleanup(func() { syscall.Kill(d.pid, syscall.SIGKILL) })
	return d
}

func (d *doors) nextDoes(what string) {
	d.t.Helper()
	if err := os.WriteFile(d.file+".successor", []byte(what), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *doors) upgrade() error {
	d.t.Helper()
	pid, build, err := Upgrade(context.Background(), d.h.control(), "test")
	if err != nil {
		return err
	}
	if pid == d.pid || build != "role" {
		d.t.Errorf("process %d of build %s serves after process %d", pid, build, d.pid)
	}
	d.pid = pid
	return nil
}

const listenAnywhere = `listeners: [{name: web, address: "127.0.0.1:0"}]` + "\n"

// TestUpgradesInARow has processes start their successors, while clients make connections.
func TestUpgradesInARow(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	d := h.doors(listenAnywhere + `routes: [{match: {}, handoff: shop}]` + "\n")
	if err := d.upgrade(); err != nil {
		t.Fatal(err)
	}
	expectAnswer(t, d.addr, "shop")
	descriptors := descriptorsOf(t, d.pid)
	var stop atomic.Bool
	var served atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for c := httpClient(t, d.addr, freshConns); !stop.Load(); served.Add(1) {
				if status, body, err := get(c, "http://x.test/"); err != nil || status != http.StatusOK || !strings.HasPrefix(body, "shop") {
					t.Errorf("%d %q, %v", status, body, err)
					return
				}
			}
		})
	}
	defer clients.Wait()
	defer stop.Store(true)
	const upgrades = 20
	for range upgrades {
		if err := d.upgrade(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "there were enough requests", func() bool { return t.Failed() || served.Load() >= int64(*loadConns) })
	stop.Store(true)
	clients.Wait()
	t.Logf("%d requests and %d upgrades", served.Load(), upgrades)
	expectAnswer(t, d.addr, "shop")
	defer func() {
		if t.Failed() {
			t.Logf("the last door has %q, an earlier one had %q", descriptorsOf(t, d.pid), descriptors)
		}
	}()
	eventually(t, "the last door has no more descriptors than an earlier one", func() bool { return len(descriptorsOf(t, d.pid)) <= len(descriptors) })
	d.first.End() // it has ended by itself, in good order
}

// descriptorsOf returns what a process has open, nothing where the system does not tell.
func descriptorsOf(t testing.TB, pid int) (open []string) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		what, _ := os.Readlink(dir + "/" + e.Name())
		open = append(open, what)
	}
	return open
}

func TestAnUpgradeThatFailsSaysWhyAndTheOldDoorServesOn(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	d := h.doors(listenAnywhere + `routes: [{match: {}, handoff: shop}]` + "\n")
	for _, c := range []struct{ does, want string }{
		{"exit 3", "exited with status 3 before it was ready"},
		{"kill itself", "ended (signal: killed) before it was ready"},
		{"kill itself when it has the sockets", "ended (signal: killed) before it was ready"},
		{"fail", "the new door has failed, and the old one serves on: no such user"},
		{"stop before it says anything", "was too slow"},
		{"stop when it has the sockets", "was too slow"},
	} {
		d.nextDoes(c.does)
		if err := d.upgrade(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("a successor that is to %s: %v, want %s", c.does, err, c.want)
		}
		expectAnswer(t, d.addr, "shop")
	}
	d.nextDoes("serve")
	if err := d.upgrade(); err != nil {
		t.Error(err)
	}
	expectAnswer(t, d.addr, "shop")
	d.first.End() // when it has killed those that stopped
}

// TestWhoeverIsKilledWheneverTheOtherServes kills one of two doors at any instant of a takeover. A door that is killed takes
// with it whom it has accepted, but for those it has handed over; whoever comes afterwards has to be served by the other.
func TestWhoeverIsKilledWheneverTheOtherServes(t *testing.T) {
	h := newHouse(t)
	h.take("shop", whoami("shop"), nil)
	listeners, addr := fixed(t, "web") // for a door that finds none to take over from
	d := h.doors(listeners + `routes: [{match: {}, handoff: shop}]` + "\n")
	begin := func() *faults.Actor { return faults.Start(t, "successor", d.file, h.control(), "serve") }
	began := time.Now()
	running := begin()
	running.Await("serves at ")
	whole := time.Since(began)

	rounds, alone := 30, 0
	if testing.Short() {
		rounds = 8
	}
	for i := range rounds {
		next := begin()
		time.Sleep(rand.N(whole + whole/4))
		if i%2 == 0 {
			running.Kill()
			next.Await("serves at ")
			running = next
		} else {
			next.Kill()
			served := func() bool {
				status, _, err := get(httpClient(t, addr, freshConns), "http://x.test/")
				return err == nil && status == 200
			}
			if !served() { // it served already, and the old one has left
				alone++
				running = begin()
				running.Await("serves at ")
			}
		}
		expectAnswer(t, addr, "shop")
	}
	t.Logf("of %d takeovers, the new door was killed %d times when it served already", rounds, alone)
}

// TestWhoeverIsStoppedForAWhileNobodyIsLost stops one of two doors at a step of a takeover, for longer than the other has
// patience, and lets it go on. Then one of them serves, and the other ends or fails in good order.
func TestWhoeverIsStoppedForAWhileNobodyIsLost(t *testing.T) {
	for _, c := range []struct {
		name, old, next string
		mayFail         bool // the new door
	}{
		{"the old one before it passes its sockets", stopAt + "another door is about to take over", "serve", false},
		{"the old one before it leaves", stopAt + "another door serves now; this one ends when its connections have", "serve", false},
		{"the new one before it accepts", "serve", stopAt + "listening", true},
		{"the new one when the old one leaves", "serve", stopAt + "took over", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.take("shop", whoami("shop"), nil)
			file := h.configFile(listenAnywhere + `routes: [{match: {}, handoff: shop}]` + "\n")
			old := faults.Start(t, "successor", file, h.control(), c.old)
			addr := old.Await("serves at ")
			var stop atomic.Bool
			var clients sync.WaitGroup
			defer clients.Wait()
			defer stop.Store(true)
			for range 2 {
				clients.Go(func() {
					for c := httpClient(t, addr, freshConns); !stop.Load(); {
						if status, body, err := get(c, "http://x.test/"); err != nil || status != http.StatusOK {
							t.Errorf("%d %q, %v", status, body, err)
							return
						}
					}
				})
			}
			next := faults.Start(t, "successor", file, h.control(), c.next)
			stopped := old
			if strings.HasPrefix(c.next, stopAt) {
				stopped = next
			}
			stopped.Await("stops")
			time.Sleep(rolePatience * 3 / 2)
			syscall.Kill(stopped.PID(), syscall.SIGCONT)

			outcome := next.Await("outcome: ")
			switch {
			case outcome == "serves":
				old.End()
			case !c.mayFail:
				t.Fatalf("the new door %s", outcome)
			}
			expectAnswer(t, addr, "shop")
		})
	}
}
