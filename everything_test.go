//go:build darwin || freebsd || linux || netbsd || openbsd

package usher_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

var everythingFor = flag.Duration("everything.for", 2*time.Second, "TestEverythingAtOnce: how long clients come (with -short a quarter of that)")

const (
	everythingHouses  = 3
	everythingClients = 24 // at a time
	everythingHops    = 8  // of a connection, at most
)

// TestEverythingAtOnce has what TestChaos does not: all that a process can do by itself, in many goroutines. Each house takes and gives.
// A connection goes from house to house, and back, by every call that there is, and is closed twice at once in the end; meanwhile
// targets are shut down, closed and detached, and listeners replaced, shut down and closed, also by two calls at the same time.
// Each connection must have one owner at a time, all of its bytes in order and one end, and of each handover the report
// that the giver wants must come once, and be right. Which choices meet is for the scheduler to say: there is no seed.
func TestEverythingAtOnce(t *testing.T) {
	faults.NoLeak(t)
	goroutines := runtime.NumGoroutine()
	e := newEverything(t)
	lasts := *everythingFor
	if testing.Short() {
		lasts /= 4
	}
	e.run(lasts)
	e.end()
	e.judge()
	for deadline := time.Now().Add(timeout); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines are left, there were %d:\n%s", runtime.NumGoroutine(), goroutines, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// everything is a run of the test.
type everything struct {
	t      *testing.T
	houses []*house
	work   sync.WaitGroup // what goes on in the background, and ends by itself when no client and no target is left

	mu       sync.Mutex
	journeys []*journey
	missed   int
	counts   map[string]int // of what has happened
}

// house is what a process would be.
type house struct {
	e    *everything
	path string

	mu        sync.Mutex
	targets   map[string]*way // to the other houses, by path
	listeners []*usher.Listener
}

// way is a target.
type way struct {
	*usher.Target
	lossy *atomic.Bool // it was closed, and so reports may have been lost; a successor has the same
}

// guest is a connection as its client sees it, and who has it.
type guest struct {
	id     int
	client net.Conn
	token  []byte

	owned, ended atomic.Bool

	// Of the owner.
	answered int // bytes
	hops     int
}

// journey is a handover of a guest, or the attempt.
type journey struct {
	guest *guest
	id    string

	// Of the giver.
	went bool
	by   *way // nil for what was handed back, which is not reported

	// Of the taker.
	arrived        atomic.Int32
	before         int   // how many bytes were answered by others
	received, sent int64 // while the taker had it
	handedOn       bool

	mu      sync.Mutex
	reports []usher.Report
}

func newEverything(t *testing.T) *everything {
	e := &everything{t: t, counts: make(map[string]int)}
	for range everythingHouses {
		e.houses = append(e.houses, &house{e: e, path: endpoint(t), targets: make(map[string]*way)})
	}
	for _, h := range e.houses {
		h.listen()
	}
	for _, h := range e.houses {
		for _, other := range e.houses {
			if other != h {
				h.dial(other.path)
			}
		}
	}
	return e
}

func (e *everything) count(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.counts[what]++
}

func sometimes(n int) bool { return rand.IntN(n) == 0 }

func upTo(d time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(d))) }

// run has clients come, and houses changed, for as long as that.
func (e *everything) run(lasts time.Duration) {
	over := time.Now().Add(lasts)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(e.t)
	defer l.Close()
	var accepting sync.Mutex
	var ids atomic.Int64
	var wg sync.WaitGroup
	for range everythingClients {
		wg.Go(func() {
			for time.Now().Before(over) && !e.t.Failed() {
				accepting.Lock() // so that the two ends belong together
				client, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					accepting.Unlock()
					e.t.Error(err)
					return
				}
				server, err := l.Accept()
				accepting.Unlock()
				if err != nil {
					e.t.Error(err)
					return
				}
				g := &guest{id: int(ids.Add(1)), client: client, token: chance(1 + rand.IntN(3000))}
				e.work.Go(func() { e.houses[rand.IntN(everythingHouses)].serve(server, g, nil) })
				e.visit(g)
			}
		})
	}
	for _, h := range e.houses {
		wg.Go(func() {
			for time.Now().Before(over) && !e.t.Failed() {
				time.Sleep(upTo(10 * time.Millisecond))
				if sometimes(2) {
					h.changeTarget()
				} else {
					h.changeListener()
				}
			}
		})
	}
	wg.Wait()
}

// chance returns n bytes.
func chance(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// visit is what the client does: it sends the token in two pieces, and wants it back, and the end.
func (e *everything) visit(g *guest) {
	defer g.client.Close()
	g.client.SetDeadline(time.Now().Add(timeout))
	e.work.Go(func() {
		half := rand.IntN(len(g.token))
		_, err := g.client.Write(g.token[:half])
		time.Sleep(upTo(2 * time.Millisecond))
		if err == nil {
			_, err = g.client.Write(g.token[half:])
		}
		if err != nil {
			e.t.Errorf("client %d: %v", g.id, err)
		}
	})
	if got, err := io.ReadAll(g.client); err != nil || !bytes.Equal(got, g.token) {
		e.t.Errorf("client %d got %d bytes and %v; want the %d that it has sent, in order", g.id, len(got), err, len(g.token))
	}
}

// take is for who has the guest's connection now, and let for who has it no more.
func (e *everything) take(g *guest) {
	if !g.owned.CompareAndSwap(false, true) {
		e.t.Errorf("the connection of client %d has two owners", g.id)
	}
}

func (e *everything) let(g *guest) {
	if !g.owned.CompareAndSwap(true, false) {
		e.t.Errorf("the connection of client %d has no owner", g.id)
	}
}

// depart notes that an attempt to hand g over begins.
func (e *everything) depart(g *guest) *journey {
	e.mu.Lock()
	defer e.mu.Unlock()
	j := &journey{guest: g, id: fmt.Sprint(len(e.journeys))}
	e.journeys = append(e.journeys, j)
	return j
}

func (e *everything) journey(id string) *journey {
	var n int
	fmt.Sscan(id, &n)
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.journeys[n]
}

// welcome serves a connection that was handed over, or back.
func (h *house) welcome(c *usher.Conn) {
	j := h.e.journey(c.Info().ID)
	j.arrived.Add(1)
	j.before = j.guest.answered
	if c.RemoteAddr().String() != j.guest.client.LocalAddr().String() {
		h.e.t.Errorf("client %d is %v, and comes from %v", j.guest.id, j.guest.client.LocalAddr(), c.RemoteAddr())
	}
	h.serve(c, j.guest, j)
}

// serve answers what it reads, or some of it, and hands the connection on. came is how it came here, nil from the client.
func (h *house) serve(c net.Conn, g *guest, came *journey) {
	h.e.take(g)
	var unanswered []byte
	for g.answered < len(g.token) {
		if g.hops < everythingHops && sometimes(2) {
			g.hops++
			if c = h.send(c, unanswered, g, came); c == nil {
				return
			}
			unanswered = nil
			continue
		}
		buf := make([]byte, 1+rand.IntN(1000))
		n, err := c.Read(buf)
		if err != nil {
			h.e.t.Errorf("client %d, %d of %d bytes answered: %v", g.id, g.answered, len(g.token), err)
			break
		}
		unanswered = append(unanswered, buf[:n]...)
		n = len(unanswered)
		if g.answered+n < len(g.token) {
			n = rand.IntN(n + 1)
		}
		if _, err := c.Write(unanswered[:n]); err != nil {
			h.e.t.Errorf("client %d, %d of %d bytes answered: %v", g.id, g.answered, len(g.token), err)
			break
		}
		g.answered += n
		unanswered = unanswered[n:]
	}
	came.ends(c, unanswered, false)
	if !g.ended.CompareAndSwap(false, true) {
		h.e.t.Errorf("the connection of client %d ends twice", g.id)
	}
	h.close(c, g)
}

// ends notes what is to be reported. c's owner calls it.
func (j *journey) ends(c net.Conn, unanswered []byte, handedOn bool) {
	if j == nil {
		return
	}
	unread := 0
	if c, ok := c.(*usher.Conn); ok {
		unread = c.Buffered()
	}
	j.sent = int64(j.guest.answered - j.before)
	j.received = j.sent + int64(len(unanswered)+unread)
	j.handedOn = handedOn
}

// close ends the connection by as many calls as there may be. One must succeed, and the others find it closed.
func (h *house) close(c net.Conn, g *guest) {
	var closed atomic.Int32
	var wg sync.WaitGroup
	for range 1 + rand.IntN(2) {
		wg.Go(func() {
			if err := c.Close(); err == nil {
				closed.Add(1)
			} else if !errors.Is(err, net.ErrClosed) {
				h.e.t.Errorf("client %d: %v", g.id, err)
			}
		})
	}
	if sometimes(4) {
		wg.Go(func() {
			o, err := usher.NewOffer(c, nil, usher.Info{})
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				h.e.t.Errorf("client %d: %v", g.id, err)
				return
			}
			h.e.count("offers of what is being closed")
			c, err := o.Reclaim()
			if err == nil {
				err = c.Close()
			}
			if err != nil {
				h.e.t.Errorf("client %d: %v", g.id, err)
			}
			closed.Add(1)
		})
	}
	wg.Wait()
	if n := closed.Load(); n != 1 {
		h.e.t.Errorf("%d calls have had the connection of client %d to close", n, g.id)
	}
}

// send hands the connection on, or back. It returns it if nobody has taken it.
func (h *house) send(c net.Conn, unanswered []byte, g *guest, came *journey) net.Conn {
	j := h.e.depart(g)
	came.ends(c, unanswered, true)
	o, err := usher.NewOffer(c, unanswered, usher.Info{ID: j.id, Listener: "front"})
	if err != nil {
		h.e.t.Errorf("client %d: %v", g.id, err)
		return c
	}
	h.e.let(g)
	for range 1 + rand.IntN(3) {
		err := h.handOver(o, j, came != nil && sometimes(3))
		if err == nil {
			j.went = true
			return nil
		}
		if !foreseen(err) {
			h.e.t.Errorf("client %d: %v", g.id, err)
		}
		h.e.count("offers that came to nothing")
	}
	reclaimed, err := o.Reclaim()
	h.e.take(g)
	if err != nil {
		h.e.t.Errorf("client %d: %v", g.id, err)
		return nil
	}
	return reclaimed
}

// foreseen says whether err is one that a handover may have while houses change.
func foreseen(err error) bool {
	return slices.ContainsFunc([]error{
		net.ErrClosed, context.DeadlineExceeded, usher.ErrDeclined, usher.ErrChannelEnded,
		errors.ErrUnsupported, fs.ErrNotExist, unix.ECONNREFUSED,
	}, func(e error) bool { return errors.Is(err, e) })
}

func (h *house) handOver(o *usher.Offer, j *journey, back bool) error {
	patience := timeout
	if sometimes(3) {
		patience = upTo(2 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if back {
		j.by = nil
		h.e.count("HandBack")
		return o.HandBack(ctx)
	}
	j.by = h.anyWay()
	if sometimes(2) {
		done := make(chan error, 1)
		if j.by.TryHandoff(o, patience, func(_ time.Time, err error) { done <- err }) {
			h.e.count("TryHandoff")
			return <-done
		}
	}
	h.e.count("Handoff")
	return j.by.Handoff(ctx, o)
}

func (h *house) anyWay() *way {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.targets { // in any order
		return w
	}
	return nil
}

func (h *house) dialer() *usher.Dialer {
	return &usher.Dialer{
		Patient: sometimes(2),
		Ended: func(r usher.Report) {
			h.e.mu.Lock()
			h.e.missed += r.Missed
			h.e.mu.Unlock()
			j := h.e.journey(r.Info.ID)
			j.mu.Lock()
			defer j.mu.Unlock()
			j.reports = append(j.reports, r)
		},
		Returned: func(c *usher.Conn) { h.e.work.Go(func() { h.welcome(c) }) },
	}
}

// dial makes a new target in the place of the last, and returns that. Nobody may listen at the moment, where a listener is closed.
func (h *house) dial(path string) (last *way) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	t, err := h.dialer().Dial(ctx, path)
	if err != nil {
		if !foreseen(err) {
			h.e.t.Error(err)
		}
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	last = h.targets[path]
	h.targets[path] = &way{t, new(atomic.Bool)}
	return last
}

func (h *house) changeTarget() {
	last := h.dial(h.anyWay().Addr().String())
	if last == nil {
		return
	}
	h.e.work.Go(func() { h.leave(last) })
}

// leave ends a target, for a successor or for good.
func (h *house) leave(w *way) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	if sometimes(4) {
		w.lossy.Store(true)
		wg.Go(func() {
			time.Sleep(upTo(time.Millisecond))
			h.e.count("Target.Close")
			w.Close()
		})
	}
	if sometimes(4) {
		wg.Go(func() { h.pass(ctx, w) })
	}
	if sometimes(2) {
		h.pass(ctx, w)
		return
	}
	h.e.count("Target.Shutdown")
	if err := w.Shutdown(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
		h.e.t.Error(err)
	}
}

// pass detaches a target and attaches what there is to others.
func (h *house) pass(ctx context.Context, w *way) {
	detached, err := w.Detach(ctx)
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			h.e.t.Error(err)
		}
		return
	}
	h.e.count("Detach")
	for _, d := range detached {
		t, err := attach(h.dialer(), w.Addr().String(), d)
		if err != nil {
			h.e.t.Error(err)
			continue
		}
		h.e.count("Attach")
		h.leave(&way{t, w.lossy})
	}
}

// attach has what was detached travel as it would to another process.
func attach(dialer *usher.Dialer, path string, d *usher.Detached) (*usher.Target, error) {
	a, b, err := ipc.Pair()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	defer b.Close()
	err = a.Send(d.State, d.Conn)
	if err != nil {
		d.Conn.Close()
		return nil, err
	}
	m, err := b.Receive()
	d.Conn.Close() // not before: see package ipc of macOS
	if err != nil {
		return nil, err
	}
	defer m.Close()
	c, err := m.Attachments()[0].Channel(ipc.Limits{})
	if err != nil {
		return nil, err
	}
	return dialer.Attach(path, c, m.Data)
}

// listen listens in the place of whoever does.
func (h *house) listen() {
	lc := usher.ListenConfig{Replace: true}
	if sometimes(2) {
		lc.Backlog = 1 + rand.IntN(4)
	}
	lc.Refused = func(err error) { h.e.t.Errorf("refused: %v", err) }
	l, err := lc.Listen(h.path)
	if err != nil {
		h.e.t.Error(err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners = append(h.listeners, l)
	h.e.work.Go(func() { h.accept(l) })
}

func (h *house) accept(l *usher.Listener) {
	for {
		if sometimes(8) {
			time.Sleep(upTo(2 * time.Millisecond))
		}
		c, err := l.Accept()
		if errors.Is(err, usher.ErrReplaced) {
			h.e.count("replaced")
			h.stop(l)
			return
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				h.e.t.Error(err)
			}
			return
		}
		h.e.work.Go(func() { h.welcome(c.(*usher.Conn)) })
	}
}

// changeListener lets one or two listeners come, and one go before that, or by that.
func (h *house) changeListener() {
	if sometimes(4) {
		h.mu.Lock()
		i := rand.IntN(len(h.listeners) + 1)
		var l *usher.Listener
		if i < len(h.listeners) {
			l = h.listeners[i]
		}
		h.mu.Unlock()
		if l != nil {
			h.stop(l)
		}
	}
	var wg sync.WaitGroup
	for range 1 + rand.IntN(2) {
		wg.Go(h.listen)
	}
	wg.Wait()
}

// stop ends a listener that may have ended, or been replaced.
func (h *house) stop(l *usher.Listener) {
	h.mu.Lock()
	h.listeners = slices.DeleteFunc(h.listeners, func(other *usher.Listener) bool { return other == l })
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var wg sync.WaitGroup
	for range 1 + rand.IntN(2) {
		end, name := l.Close, "Listener.Close"
		if sometimes(2) {
			end, name = func() error { return l.Shutdown(ctx) }, "Listener.Shutdown"
		}
		wg.Go(func() {
			h.e.count(name)
			if err := end(); err != nil && !errors.Is(err, net.ErrClosed) {
				h.e.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// end is for when no more clients come. Of the listeners that there are at an endpoint all but one must have heard that they are replaced.
func (e *everything) end() {
	for _, h := range e.houses {
		h.settle()
	}
	for _, h := range e.houses {
		for _, w := range h.targets {
			if err := w.Shutdown(within(e.t, timeout)); err != nil {
				e.t.Error(err)
			}
		}
	}
	for _, h := range e.houses {
		h.mu.Lock()
		left := slices.Clone(h.listeners)
		h.mu.Unlock()
		for _, l := range left {
			if err := l.Shutdown(within(e.t, timeout)); err != nil {
				e.t.Error(err)
			}
		}
	}
	e.work.Wait()
}

func (h *house) settle() {
	for deadline := time.Now().Add(timeout); ; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		n := len(h.listeners)
		h.mu.Unlock()
		if n == 1 {
			return
		}
		if time.Now().After(deadline) {
			h.e.t.Errorf("%d listeners are at one endpoint, want 1", n)
			return
		}
	}
}

// judge looks at what became of each handover.
func (e *everything) judge() {
	handovers, lost := 0, 0
	for _, j := range e.journeys {
		if arrived := j.arrived.Load(); arrived > 1 || (arrived == 1) != j.went {
			e.t.Errorf("client %d: handed over: %t, and has arrived %d times", j.guest.id, j.went, arrived)
		}
		if j.went {
			handovers++
		}
		n := len(j.reports)
		wanted := j.went && j.by != nil
		if n > 1 || n == 1 && !wanted {
			e.t.Errorf("client %d: %d reports of one handover, for which %t says whether one is due", j.guest.id, n, wanted)
		}
		if n == 0 && wanted && !j.by.lossy.Load() {
			lost++
		}
		for _, r := range j.reports {
			if r.Received != j.received || r.Sent != j.sent || r.HandedOn != j.handedOn {
				e.t.Errorf("client %d: reported are %d bytes received and %d sent, handed on: %t; want %d, %d and %t",
					j.guest.id, r.Received, r.Sent, r.HandedOn, j.received, j.sent, j.handedOn)
			}
		}
	}
	if lost != e.missed {
		e.t.Errorf("%d reports are lost, and %d were counted as missed", lost, e.missed)
	}
	e.t.Logf("%d handovers of %d attempts: %v", handovers, len(e.journeys), e.counts)
}
