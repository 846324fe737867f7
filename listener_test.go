//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

func init() { roles["replaced"] = playReplaced }

func TestListenerClosed(t *testing.T) {
	faults.NoLeak(t)
	for _, end := range []struct {
		name string
		f    func(*usher.Listener) error
	}{
		{"by Close", (*usher.Listener).Close},
		{"by Shutdown", func(l *usher.Listener) error { return l.Shutdown(within(t, timeout)) }},
	} {
		t.Run(end.name, func(t *testing.T) {
			l := listen(t, usher.ListenConfig{})
			dial(t, l)
			got := make(chan error, 1)
			go func() { _, err := l.Accept(); got <- err }()
			time.Sleep(5 * time.Millisecond)
			if err := end.f(l); err != nil {
				t.Fatal(err)
			}
			err := <-got
			wantError(t, err, net.ErrClosed, l.Addr().String())
			if errors.Is(err, usher.ErrReplaced) {
				t.Errorf("nobody replaced it: %v", err)
			}
			_, err = l.Accept()
			wantError(t, err, net.ErrClosed, "")
			wantError(t, l.Close(), net.ErrClosed, "")
			if _, err := usher.Dial(within(t, timeout), l.Addr().String()); err == nil {
				t.Error("the endpoint can be dialed still")
			}
		})
	}
}

// TestShutdownGivesBack has unclaimed offers in the taker's queue when it shuts down: they go to the next
// taker, and what was claimed is not cut.
func TestShutdownGivesBack(t *testing.T) {
	faults.NoLeak(t)
	first, second := listen(t, usher.ListenConfig{}), listen(t, usher.ListenConfig{})
	toFirst, toSecond := dial(t, first), dial(t, second)
	claimed, kept := handOver(t, toFirst, first, "")

	const n = 20
	errs := make(chan error, n)
	for range n {
		client, server := tcpPair(t)
		o := newOffer(t, server, "x", usher.Info{})
		go func() {
			err := toFirst.Handoff(within(t, timeout), o)
			if err == nil {
				errs <- errors.New("a taker that never accepts has claimed")
				return
			}
			if err = toSecond.Handoff(within(t, timeout), o); err == nil {
				_, err = io.ReadFull(client, make([]byte, 1))
			}
			errs <- err
		}()
	}
	time.Sleep(20 * time.Millisecond) // for the offers to be in the queue, most of them
	go echoAll(second)
	begin := time.Now()
	if err := first.Shutdown(within(t, timeout)); err != nil {
		t.Error(err)
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if d := time.Since(begin); d > timeout/2 {
		t.Errorf("the offers came back after %v, not at once", d)
	}
	checkConversation(t, claimed, kept)
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	// A giver that does not go: it speaks the protocol, and ignores the farewell.
	c := rawGiver(t, l)
	defer c.Close()
	time.Sleep(5 * time.Millisecond)
	wantError(t, l.Shutdown(within(t, 30*time.Millisecond)), os.ErrDeadlineExceeded, "givers have not heard yet")
	if err := receiveToEnd(c); err != io.EOF {
		t.Errorf("the channel ended with %v", err)
	}
}

func TestAFullQueueDeclines(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{Backlog: 2})
	first, second := dial(t, l), dial(t, l)
	var wg sync.WaitGroup
	for range 2 {
		_, server := tcpPair(t)
		o := newOffer(t, server, "", usher.Info{})
		wg.Go(func() {
			if err := first.Handoff(within(t, timeout), o); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	_, server := tcpPair(t)
	o := newOffer(t, server, "", usher.Info{})
	wantError(t, second.Handoff(within(t, timeout), o), usher.ErrDeclined, "its queue is full")
	// The first channel has used its window: there it waits, and is not declined.
	wantError(t, first.Handoff(within(t, 30*time.Millisecond), o), os.ErrDeadlineExceeded, "its fill of offers")
	for range 2 {
		must(l.Accept())(t).Close()
	}
	wg.Wait()
	wg.Go(func() {
		if err := second.Handoff(within(t, timeout), o); err != nil {
			t.Error(err)
		}
	})
	must(l.Accept())(t).Close()
	wg.Wait()
}

// TestASlowTakerDelaysNoOther fills one taker and measures that the other goes on.
func TestASlowTakerDelaysNoOther(t *testing.T) {
	faults.NoLeak(t)
	slow, quick := listen(t, usher.ListenConfig{}), listen(t, usher.ListenConfig{})
	toSlow, toQuick := dial(t, slow), dial(t, quick)
	go echoAll(quick)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 2 * usher.MaxOpen {
		_, server := tcpPair(t)
		o := newOffer(t, server, strings.Repeat("x", 4096), usher.Info{})
		wg.Go(func() { toSlow.Handoff(ctx, o) })
	}
	for range 50 {
		_, server := tcpPair(t)
		if err := toQuick.Handoff(within(t, timeout), newOffer(t, server, "", usher.Info{})); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
}

func TestATakerThatIsGone(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	_, server := tcpPair(t)
	o := newOffer(t, server, "", usher.Info{})
	l.Close()
	err := target.Handoff(within(t, timeout), o)
	var op *net.OpError
	if err == nil || errors.Is(err, net.ErrClosed) || !errors.As(err, &op) {
		t.Errorf("handed to nobody: %v", err)
	}

	t.Run("and comes back", func(t *testing.T) {
		again := must(usher.Listen(l.Addr().String()))(t)
		defer again.Close()
		go echoAll(again)
		if err := target.Handoff(within(t, timeout), o); err != nil {
			t.Error(err)
		}
	})
}

func TestTargetClosed(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	_, server := tcpPair(t)
	o := newOffer(t, server, "", usher.Info{})
	got := make(chan error, 1)
	go func() { got <- target.Handoff(within(t, timeout), o) }()
	time.Sleep(10 * time.Millisecond)
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-got, net.ErrClosed, "the target is closed")
	wantError(t, target.Handoff(within(t, timeout), o), net.ErrClosed, "the target is closed")
	wantError(t, target.Close(), net.ErrClosed, "")
	must(o.Reclaim())(t).Close()
}

// TestCloseEndsConnecting closes a target whose Handoff connects anew, to a listener that does not greet.
func TestCloseEndsConnecting(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	path := l.Addr().String()
	l.Close()
	silent := must(ipc.Listen(path))(t)
	defer silent.Close()
	var got [2]chan error
	for i := range got {
		_, server := tcpPair(t)
		o := newOffer(t, server, "", usher.Info{})
		got[i] = make(chan error, 1)
		go func() { got[i] <- target.Handoff(context.Background(), o) }()
	}
	time.Sleep(20 * time.Millisecond)
	target.Close()
	for i := range got {
		wantError(t, <-got[i], net.ErrClosed, "the target is closed")
	}
}

func TestListenTwice(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	_, err := usher.Listen(l.Addr().String())
	inUse := error(syscall.EADDRINUSE)
	if isWindows {
		inUse = nil // WSAEADDRINUSE, which syscall does not name
	}
	wantError(t, err, inUse, "another process listens")
}

// TestReplace hands connections over all the time while processes replace each other at the endpoint.
func TestReplace(t *testing.T) {
	faults.NoLeak(t)
	path := endpoint(t)
	processes := []*process{startRole(t, "replaced", path)}
	processes[0].hear(t)
	target := must(usher.Dial(within(t, timeout), path))(t)
	defer target.Close()

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var served atomic.Int64
	var mu sync.Mutex
	byPID := make(map[string]int)
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				client, server := tcpPair(t)
				io.WriteString(client, "hello")
				client.CloseWrite()
				if err := target.Handoff(within(t, timeout), newOffer(t, server, "", usher.Info{})); err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(client)
				pid, ok := strings.CutSuffix(string(got), " hello")
				if err != nil || !ok {
					t.Errorf("read %q, %v", got, err)
					return
				}
				client.Close()
				served.Add(1)
				mu.Lock()
				byPID[pid]++
				mu.Unlock()
			}
		})
	}
	for range 5 {
		next := startRole(t, "replaced", path)
		next.hear(t)
		old := processes[len(processes)-1]
		if got := old.hear(t); got != "replaced" {
			t.Errorf("the one that was replaced says %q", got)
		}
		if err := old.cmd.Wait(); err != nil {
			t.Error(err)
		}
		processes = append(processes, next)
		for before := served.Load(); served.Load() < before+20 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	cancel()
	wg.Wait()
	if len(byPID) != len(processes) {
		t.Errorf("%d processes have served, of %d: %v", len(byPID), len(processes), byPID)
	}
	t.Logf("%d connections were served by %d processes", served.Load(), len(byPID))
}

// TestReplaceAtOnce has several processes that replace one another at the same time, with somebody at the endpoint before or not: all but
// one hear of it.
func TestReplaceAtOnce(t *testing.T) {
	if isWindows {
		t.Skip("a pipe's name can have one listener: the others find it in use")
	}
	faults.NoLeak(t)
	const many = 4
	for round := range 20 {
		path := endpoint(t)
		accepted := make(chan error, many+1)
		var listeners []*usher.Listener
		var mu sync.Mutex
		listenAt := func(lc usher.ListenConfig) {
			l, err := lc.Listen(path)
			if err != nil {
				t.Error(err)
				accepted <- err
				return
			}
			mu.Lock()
			defer mu.Unlock()
			listeners = append(listeners, l)
			go func() { _, err := l.Accept(); accepted <- err }()
		}
		others := many - 1
		if round%2 == 0 {
			listenAt(usher.ListenConfig{})
			others++
		}
		var wg sync.WaitGroup
		for range many {
			wg.Go(func() { listenAt(usher.ListenConfig{Replace: true}) })
		}
		wg.Wait()
		for range others {
			wantError(t, await(t, accepted, "a listener that was replaced"), usher.ErrReplaced, path)
		}
		dial(t, listeners[0]).Close() // one is there still
		for _, l := range listeners {
			l.Close()
		}
		wantError(t, await(t, accepted, "the end of the last"), net.ErrClosed, "the listener is closed")
	}
}

// TestReplacedUnderAPolicy has the next process of a user whose listener takes connections from another user alone.
func TestReplacedUnderAPolicy(t *testing.T) {
	faults.NoLeak(t)
	denied := errors.New("only others may give")
	refused := make(chan error, 10) // a dialer tries more than once
	lc := usher.ListenConfig{
		Policy:  func(ipc.Peer) error { return denied },
		Refused: func(err error) { refused <- err },
	}
	path := endpoint(t)
	old := must(lc.Listen(path))(t)
	defer old.Close()
	accepted := make(chan error, 1)
	go func() { _, err := old.Accept(); accepted <- err }()
	if target, err := usher.Dial(within(t, timeout), path); err == nil {
		target.Close()
		t.Error("this user may give")
	}
	err := await(t, refused, "the giver")
	wantError(t, err, ipc.ErrDenied, path)
	wantError(t, err, denied, "")
	lc.Replace = true
	defer must(lc.Listen(path))(t).Close()
	wantError(t, await(t, accepted, "its end"), usher.ErrReplaced, path)
}

// playReplaced serves at the endpoint args[0], in the place of who did before, until it is replaced.
func playReplaced(args []string) error {
	lc := usher.ListenConfig{Replace: true}
	l, err := lc.Listen(args[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var conns sync.WaitGroup
	for {
		c, err := l.Accept()
		if errors.Is(err, usher.ErrReplaced) && errors.Is(err, net.ErrClosed) {
			conns.Wait()
			fmt.Println("replaced")
			return nil
		}
		if err != nil {
			return err
		}
		conns.Go(func() {
			defer c.Close()
			said, err := io.ReadAll(c)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			fmt.Fprintf(c, "%d %s", os.Getpid(), said)
		})
	}
}

// rawGiver is a giver that the test speaks for, after its hello.
func rawGiver(t testing.TB, l net.Listener) *ipc.Conn {
	t.Helper()
	c := must(ipc.Dial(within(t, timeout), l.Addr().String()))(t)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	page := must(usher.CreatePage())(t)
	defer page.Close()
	if err := c.Send([]byte{1, 1, 0, 0, 0, 0, 0, 0}, page); err != nil {
		t.Fatal(err)
	}
	if m := must(c.Receive())(t); m.Data[0] != 1 {
		t.Fatalf("the taker began with % x", m.Data)
	}
	return c
}

func receiveToEnd(c *ipc.Conn) error {
	for {
		m, err := c.Receive()
		if err != nil {
			return err
		}
		m.Close()
	}
}
