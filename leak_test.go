//go:build linux

package usher_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
)

var leakHandovers = flag.Int("leak.handovers", 3000, "TestNothingLeaks: number of connections to hand over")

func init() {
	roles["leak-giver"] = playLeakGiver
	roles["leak-taker"] = playLeakTaker
}

const (
	leakChannels = 4 // their windows together are more than the taker's backlog: it declines some
	leakBacklog  = 4
	leakWorkers  = 32
	leakRedial   = 256 // after so many a channel is closed, with what is on its way, and another made
)

// TestNothingLeaks hands many connections from one process to another. Some are withdrawn, some declined,
// some on their way when their channel is closed. In the end both processes have open what they had
// after the first few, no more and no less.
func TestNothingLeaks(t *testing.T) {
	faults.NoLeak(t)
	path := endpoint(t)
	taker := startLeakRole(t, "leak-taker", path)
	giver := startLeakRole(t, "leak-giver", path)
	hand := func(n int) {
		if err := giver.say("hand %d", n); err != nil {
			t.Fatal(err)
		}
		// It speaks after each tenth part, so that no wait is for all of them.
		for range leakParts {
			t.Log(must(giver.hear())(t))
		}
	}
	hand(leakParts * leakWorkers)
	before := [2]chaosUsage{settled(t, giver), settled(t, taker)}
	hand(*leakHandovers)
	for i, p := range []*chaosProcess{giver, taker} {
		after, err := p.settle(before[i])
		if err != nil {
			t.Error(err)
		} else if after != before[i] {
			t.Errorf("%s has %+v; want %+v", p.cmd.Args[1:], after, before[i])
		}
		t.Logf("%+v", after)
	}
	for _, p := range []*chaosProcess{giver, taker} {
		p.in.Close()
		if err := p.wait(); err != nil {
			t.Error(err)
		}
	}
}

const leakParts = 10

func startLeakRole(t *testing.T, role, path string) *chaosProcess {
	p := &chaosProcess{cmd: faults.Command(t, role, path)}
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !p.ended {
			p.killAndWait()
		}
	})
	if err := p.awaitReady(); err != nil {
		t.Fatal(err)
	}
	return p
}

// settled returns what a process has open when that has been the same for a while.
func settled(t *testing.T, p *chaosProcess) chaosUsage {
	t.Helper()
	var last chaosUsage
	for same := 0; same < 10; time.Sleep(5 * time.Millisecond) {
		u, _, err := p.usage()
		if err != nil {
			t.Fatal(err)
		}
		if same++; u != last {
			same = 0
		}
		last = u
	}
	return last
}

// playLeakTaker answers what comes to the endpoint args[0] with a byte.
func playLeakTaker(args []string) error {
	leaveGarbage()
	lc := usher.ListenConfig{Backlog: leakBacklog}
	l, err := lc.Listen(args[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := c.Write([]byte("x")); err != nil {
				panic(err)
			}
			c.Close()
			if n%64 == 0 { // so that its queue fills
				time.Sleep(time.Millisecond)
			}
		}
	}()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		tellUsage()
	}
	return l.Close()
}

// leakGiver makes connections to itself and hands the one end over.
type leakGiver struct {
	path    string
	targets [leakChannels]atomic.Pointer[usher.Target]
	made    atomic.Int64

	tried, handed, withdrawn, declined, closed, reports atomic.Int64
}

func playLeakGiver(args []string) error {
	leaveGarbage()
	g := &leakGiver{path: args[0]}
	for i := range g.targets {
		if err := g.redial(i); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, isHand := strings.CutPrefix(in.Text(), "hand ")
		if !isHand {
			tellUsage()
			continue
		}
		count, _ := strconv.Atoi(n)
		for part := range leakParts {
			if err := g.handOver(count*(part+1)/leakParts - count*part/leakParts); err != nil {
				return err
			}
			fmt.Printf("%d offered by TryHandoff, %d handed over, %d reported, %d withdrawn, %d declined, %d on their way when their channel was closed\n",
				g.tried.Load(), g.handed.Load(), g.reports.Load(), g.withdrawn.Load(), g.declined.Load(), g.closed.Load())
		}
	}
	for i := range g.targets {
		g.targets[i].Load().Close()
	}
	return nil
}

// redial puts a new channel in the place of one, if there is one yet.
func (g *leakGiver) redial(i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	d := usher.Dialer{Patient: i/2%2 == 1}
	if i%2 == 1 { // half of the channels have reports, some of which the taker owes when they are closed
		d.Ended = func(usher.Report) { g.reports.Add(1) }
	}
	t, err := d.Dial(ctx, g.path)
	if err != nil {
		return err
	}
	if old := g.targets[i].Swap(t); old != nil {
		return old.Close()
	}
	return nil
}

// handOver hands over n connections, beside those that stay.
func (g *leakGiver) handOver(n int) error {
	until := g.handed.Load() + int64(n)
	errs := make([]error, leakWorkers)
	var wg sync.WaitGroup
	for i := range leakWorkers {
		wg.Go(func() { errs[i] = g.work(until) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (g *leakGiver) work(until int64) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	for g.handed.Load() < until {
		if err := g.handOne(l, int(g.made.Add(1))); err != nil {
			return err
		}
	}
	return nil
}

func (g *leakGiver) handOne(l net.Listener, n int) error {
	if n%leakRedial == 0 {
		if err := g.redial(n / leakRedial % leakChannels); err != nil {
			return err
		}
	}
	// Another address for each, so that none waits for a port.
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: chaosSource(n % (1 << 22))}}
	client, err := dialer.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return err
	}
	o, err := usher.NewOffer(server, []byte("prefix"), usher.Info{Host: "host"})
	if err != nil {
		return err
	}
	want := "x"
	if err := g.handoff(o, n); err != nil {
		want = ""
		c, err := o.Reclaim()
		if err != nil {
			return err
		}
		c.Close()
	}
	client.SetDeadline(time.Now().Add(timeout))
	if got, err := io.ReadAll(client); err != nil || string(got) != want {
		return fmt.Errorf("client %d read %q, %v; want %q", n, got, err, want)
	}
	return nil
}

// handoff makes one try, and counts what comes of it.
func (g *leakGiver) handoff(o *usher.Offer, n int) error {
	patience := timeout
	if n%8 == 0 {
		patience = time.Duration(rand.Int64N(int64(300 * time.Microsecond)))
	}
	tried, err := chaosHandoff(g.targets[n%leakChannels].Load(), o, patience, n/leakChannels%2 == 0)
	if tried {
		g.tried.Add(1)
	}
	switch {
	case err == nil:
		g.handed.Add(1)
	case errors.Is(err, usher.ErrDeclined):
		g.declined.Add(1)
	case errors.Is(err, context.DeadlineExceeded) && patience != timeout:
		g.withdrawn.Add(1)
	case errors.Is(err, net.ErrClosed):
		g.closed.Add(1)
	default:
		panic(fmt.Sprint("handoff: ", err)) // nothing else happens here
	}
	return err
}
