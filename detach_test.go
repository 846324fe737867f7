//go:build darwin || freebsd || linux || netbsd || openbsd

package usher_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

func init() { roles["predecessor"] = playPredecessor }

// detach detaches a target and returns what there was on its way, as it comes out at the other end.
func detach(t testing.TB, target *usher.Target) []*usher.Detached {
	t.Helper()
	sent := must(target.Detach(within(t, timeout)))(t)
	a, b, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	var received []*usher.Detached
	for _, d := range sent {
		if err := a.Send(d.State, d.Conn); err != nil {
			t.Fatal(err)
		}
		if err := d.Conn.Close(); err != nil {
			t.Error(err)
		}
		received = append(received, receiveDetached(t, b))
	}
	return received
}

func receiveDetached(t testing.TB, c *ipc.Conn) *usher.Detached {
	t.Helper()
	m := must(c.Receive())(t)
	ch := must(m.Attachments()[0].Channel(ipc.Limits{}))(t)
	t.Cleanup(func() { ch.Close() })
	return &usher.Detached{Conn: ch, State: m.Data}
}

// attach goes on with all of them.
func (h *home) attach(t testing.TB, l net.Listener, detached []*usher.Detached) (targets []*usher.Target) {
	t.Helper()
	for _, d := range detached {
		target := must(h.dialer().Attach(l.Addr().String(), d.Conn, d.State))(t)
		t.Cleanup(func() { target.Close() })
		targets = append(targets, target)
	}
	return targets
}

// TestAChannelGoesToTheSuccessor, and on to its successor, with the reports and the connections that come back, until nothing is owed.
func TestAChannelGoesToTheSuccessor(t *testing.T) {
	for name, patient := range map[string]bool{"at once": false, "patient": true} {
		t.Run(name, func(t *testing.T) {
			faults.NoLeak(t)
			l := listen(t, usher.ListenConfig{})
			first, second, third := newHome(), newHome(), newHome()
			d := first.dialer()
			d.Patient = patient
			target := must(d.Dial(within(t, timeout), l.Addr().String()))(t)
			var clients []*net.TCPConn
			var conns []*usher.Conn
			for range 5 {
				client, c := handOver(t, target, l, "")
				clients, conns = append(clients, client), append(conns, c)
			}
			handBack := func(h *home, i int) {
				t.Helper()
				if err := newOffer(t, conns[i], "", usher.Info{ID: fmt.Sprint(i)}).HandBack(within(t, timeout)); err != nil {
					t.Fatal(err)
				}
				c := h.back(t)
				if c.Info().ID != fmt.Sprint(i) {
					t.Errorf("connection %q came back, want %d", c.Info().ID, i)
				}
				checkConversation(t, clients[i], c)
				if r := await(t, h.reports, "its end at the taker"); !r.HandedOn {
					t.Errorf("the report is %+v", r)
				}
			}
			handBack(first, 0)
			detached := detach(t, target)
			wantError(t, target.Handoff(within(t, timeout), newOffer(t, must(net.Dial("tcp", tcpListener(t)))(t), "", usher.Info{})), net.ErrClosed, "")
			wantError(t, target.Close(), net.ErrClosed, "")
			if _, err := target.Detach(within(t, timeout)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("detached twice: %v", err)
			}
			targets := second.attach(t, l, detached)
			if len(targets) != 1 {
				t.Fatalf("%d channels were detached, want 1", len(targets))
			}
			handBack(second, 1)
			conns[2].Close()
			if r := await(t, second.reports, "an end"); r.HandedOn || r.Taker.PID != os.Getpid() {
				t.Errorf("the report is %+v", r)
			}
			targets = third.attach(t, l, detach(t, targets[0]))
			if len(targets) != 1 {
				t.Fatalf("%d channels were detached the second time, want 1", len(targets))
			}
			l.Close() // the taker leaves
			handBack(third, 3)
			conns[4].Close()
			await(t, third.reports, "the last end")
			wantError(t, targets[0].Shutdown(within(t, timeout)), net.ErrClosed, "") // it has waited
			if left := must(targets[0].Detach(within(t, timeout)))(t); len(left) != 0 {
				t.Errorf("%d channels are left", len(left))
			}
			for _, h := range []*home{first, second, third} {
				h.silence(t)
			}
		})
	}
}

// tcpListener returns the address of a listener that nobody accepts from.
func tcpListener(t testing.TB) string {
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestNothingIsDetached where no taker owes anything.
func TestNothingIsDetached(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	for name, target := range map[string]*usher.Target{
		"a taker that has had nothing": newHome().dial(t, l.Addr().String()),
		"one that reports nothing":     dial(t, l),
	} {
		if name == "one that reports nothing" {
			handOver(t, target, l, "")
		}
		if d, err := target.Detach(within(t, timeout)); err != nil || len(d) != 0 {
			t.Errorf("%s: %d channels, %v", name, len(d), err)
		}
	}
	h := newHome()
	target := h.dial(t, l.Addr().String())
	_, c := handOver(t, target, l, "")
	c.Close()
	await(t, h.reports, "the only end")
	if d, err := target.Detach(within(t, timeout)); err != nil || len(d) != 0 {
		t.Errorf("a taker that has reported all: %d channels, %v", len(d), err)
	}
	closed := dial(t, l)
	closed.Close()
	_, err := closed.Detach(within(t, timeout))
	wantError(t, err, net.ErrClosed, "detach usher "+l.Addr().String())
}

// TestDetachOfWhatIsNoMore has a target closed, after a Shutdown that has not succeeded, or detached by another call at the same time.
func TestDetachOfWhatIsNoMore(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	h := newHome()
	target := h.dial(t, l.Addr().String())
	handOver(t, target, l, "")
	wantError(t, target.Shutdown(within(t, time.Millisecond)), os.ErrDeadlineExceeded, "")
	_, err := target.Detach(within(t, timeout))
	wantError(t, err, net.ErrClosed, "detach")
	for range 100 {
		target := h.dial(t, l.Addr().String())
		handOver(t, target, l, "")
		var results [2]error
		var channels atomic.Int64
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() {
				var detached []*usher.Detached
				detached, results[i] = target.Detach(within(t, timeout))
				for _, d := range detached {
					d.Conn.Close()
					channels.Add(1)
				}
			})
		}
		wg.Wait()
		if n := channels.Load(); n != 1 || errors.Is(results[0], net.ErrClosed) == errors.Is(results[1], net.ErrClosed) {
			t.Fatalf("%d channels were detached, and the errors are %v and %v; want one, and one error", n, results[0], results[1])
		}
	}
}

// TestDetachWaitsForOffers that are open, and makes no new ones.
func TestDetachWaitsForOffers(t *testing.T) {
	for name, inTime := range map[string]bool{"which are claimed": true, "which are not": false} {
		t.Run(name, func(t *testing.T) {
			faults.NoLeak(t)
			l := listen(t, usher.ListenConfig{})
			target := newHome().dial(t, l.Addr().String())
			_, owed := handOver(t, target, l, "")
			client, server := tcpPair(t)
			o := newOffer(t, server, "", usher.Info{})
			handed := make(chan error, 1)
			go func() { handed <- target.Handoff(within(t, timeout), o) }()
			for target.Open() == 0 {
				time.Sleep(time.Millisecond)
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			type result struct {
				detached []*usher.Detached
				err      error
			}
			done := make(chan result, 1)
			go func() {
				d, err := target.Detach(ctx)
				done <- result{d, err}
			}()
			for !errors.Is(target.Connect(ctx), net.ErrClosed) {
				time.Sleep(time.Millisecond)
			}
			select {
			case err := <-handed:
				t.Fatalf("the offer was not waited for: %v", err)
			case <-done:
				t.Fatal("Detach has not waited")
			case <-time.After(20 * time.Millisecond):
			}
			if inTime {
				c := must(l.Accept())(t)
				defer c.Close()
				if err := <-handed; err != nil {
					t.Error(err)
				}
				checkConversation(t, client, c)
			} else {
				cancel()
				wantError(t, <-handed, net.ErrClosed, "the target is shut down")
				c := must(o.Reclaim())(t)
				defer c.Close()
				checkConversation(t, client, c)
			}
			r := <-done
			if r.err != nil || len(r.detached) != 1 {
				t.Fatalf("%d channels were detached, %v", len(r.detached), r.err)
			}
			r.detached[0].Conn.Close()
			owed.Close()
		})
	}
}

// nakedTaker is a taker on a socket, which can stop in the middle of a message and reads nothing more. It has claimed two
// connections of a giver that wants reports and takes connections back.
type nakedTaker struct {
	*net.UnixConn
	path   string
	target *usher.Target
	home   *home
}

func newNakedTaker(t *testing.T) *nakedTaker {
	t.Helper()
	l := must(net.Listen("unix", endpoint(t)))(t)
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Write(frame(head(1, 1, 4, 5))) // its hello
		}
		accepted <- c
	}()
	k := &nakedTaker{path: l.Addr().String(), home: newHome()}
	k.target = k.home.dial(t, k.path)
	k.UnixConn = await(t, accepted, "the giver").(*net.UnixConn)
	t.Cleanup(func() { k.Close() })
	k.SetDeadline(time.Now().Add(timeout))
	page := k.readAttached(t)
	defer page.Close()
	words, unmap, err := usher.MapPage(page)
	if err != nil {
		t.Fatal(err)
	}
	defer unmap()
	for slot := range byte(2) {
		_, server := tcpPair(t)
		handed := make(chan error, 1)
		go func() { handed <- k.target.Handoff(within(t, timeout), newOffer(t, server, "", usher.Info{})) }()
		k.readAttached(t).Close()
		if !claim(words, slot, 1) {
			t.Fatal("the ticket is not there")
		}
		must(k.Write(frame(answerMessage(1, slot, 0, 1))))(t)
		if err := <-handed; err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// readAttached reads a message and returns the file or connection that came with it.
func (k *nakedTaker) readAttached(t *testing.T) *os.File {
	t.Helper()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := k.ReadMsgUnix(make([]byte, 4096), oob)
	if err != nil {
		t.Fatal(err)
	}
	messages := must(unix.ParseSocketControlMessage(oob[:n]))(t)
	if len(messages) != 1 {
		t.Fatalf("%d control messages came", len(messages))
	}
	return os.NewFile(uintptr(must(unix.ParseUnixRights(&messages[0]))(t)[0]), "attached")
}

// frame is a message without attachments on the wire.
func frame(data []byte) []byte {
	h := append([]byte("USH\x01\x00\x00\x00\x00"), head(byte(len(data)), 0, 0, 0)...)
	return append(h, data...)
}

// TestATakerInTheMiddleOfAMessage is waited for. If it stays there, its channel cannot be passed on.
func TestATakerInTheMiddleOfAMessage(t *testing.T) {
	report, leaving := frame(reportMessage(0, 1, 2, 3, "")), frame(head(4, 3, 0, 0))
	for name, tt := range map[string]struct {
		first, then []byte
		passed      bool
	}{
		"and stays there":                 {leaving[:20], nil, false},
		"and says the rest":               {leaving[:9], leaving[9:], true},
		"and has nothing to say any more": {report[:20], report[20:], false},
	} {
		t.Run(name, func(t *testing.T) {
			faults.NoLeak(t)
			k := newNakedTaker(t)
			must(k.Write(append(slices.Clone(report), tt.first...)))(t)
			await(t, k.home.reports, "an end") // the giver has read what is behind it, too
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan []*usher.Detached, 1)
			go func() {
				d, err := k.target.Detach(ctx)
				if err != nil {
					t.Error(err)
				}
				done <- d
			}()
			select {
			case <-done:
				t.Fatal("Detach has not waited")
			case <-time.After(50 * time.Millisecond):
			}
			if tt.then == nil {
				cancel()
			} else {
				must(k.Write(tt.then))(t)
			}
			d := await(t, done, "Detach")
			if tt.passed != (len(d) == 1) {
				t.Fatalf("%d channels were passed on; want one: %t", len(d), tt.passed)
			}
			if !tt.passed {
				k.awaitEnd(t)
				return
			}
			target := must(k.home.dialer().Attach(k.path, d[0].Conn, d[0].State))(t)
			must(k.Write(report))(t)
			await(t, k.home.reports, "the other end")
			wantError(t, target.Shutdown(within(t, timeout)), net.ErrClosed, "")
		})
	}
}

func (k *nakedTaker) awaitEnd(t *testing.T) {
	t.Helper()
	if _, err := io.Copy(io.Discard, k); err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the channel has not ended: %v", err)
	}
}

// TestAGiverInTheMiddleOfAMessage that its taker does not read cannot pass the channel on, but keeps the connection.
func TestAGiverInTheMiddleOfAMessage(t *testing.T) {
	faults.NoLeak(t)
	k := newNakedTaker(t)
	client, server := tcpPair(t)
	o := newOffer(t, server, strings.Repeat("x", usher.MaxPrefix), usher.Info{})
	handed := make(chan error, 1)
	go func() { handed <- k.target.Handoff(within(t, timeout), o) }()
	must(k.Read(make([]byte, 1)))(t) // of the offer
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if d, err := k.target.Detach(ctx); err != nil || len(d) != 0 {
		t.Errorf("%d channels were passed on, %v", len(d), err)
	}
	wantError(t, <-handed, net.ErrClosed, "the target is shut down")
	k.awaitEnd(t)
	c := must(o.Reclaim())(t)
	defer c.Close()
	must(io.ReadFull(c, make([]byte, usher.MaxPrefix)))(t)
	checkConversation(t, client, c)
}

// TestAttachRefuses what it cannot go on with, and closes it.
func TestAttachRefuses(t *testing.T) {
	faults.NoLeak(t)
	good := append(head(1, 15, 0, 0), 1, 0, 0, 0, 0, 0, 0, 0)
	nobody := func(ipc.Peer) error { return errors.New("nobody is good enough") }
	for name, tt := range map[string]struct {
		d     usher.Dialer
		state []byte
		want  string
	}{
		"another version":     {usher.Dialer{}, []byte{2}, "the channel's state is of version 2, this program knows 1"},
		"no state":            {usher.Dialer{}, nil, "has 0 bytes, want 16"},
		"too much":            {usher.Dialer{}, append(slices.Clone(good), 0), "has 17 bytes, want 16"},
		"nothing owed":        {usher.Dialer{}, append(head(1, 0, 0, 0), 0, 0, 0, 0, 0, 0, 0, 0), "the channel's state is 01 00"},
		"less than nothing":   {usher.Dialer{}, append(head(1, 0, 0, 0), 0, 0, 0, 0, 0, 0, 0, 128), "the channel's state is 01 00"},
		"an unknown flag":     {usher.Dialer{}, append(head(1, 16, 0, 0), 1, 0, 0, 0, 0, 0, 0, 0), "the channel's state is 01 10"},
		"a taker not allowed": {usher.Dialer{Policy: nobody}, good, "nobody is good enough"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, err := ipc.Pair()
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			_, err = tt.d.Attach("shop", b, tt.state)
			wantError(t, err, nil, tt.want)
			wantError(t, err, nil, "attach usher shop")
			if _, err := a.Receive(); err != io.EOF {
				t.Errorf("the channel is not closed: %v", err)
			}
		})
	}
}

// TestHandBacksDuringDetach arrive at the old giver or at its successor, each once, while the channel changes hands again and again.
func TestHandBacksDuringDetach(t *testing.T) {
	faults.NoLeak(t)
	const many, rounds = 200, 10
	l := listen(t, usher.ListenConfig{})
	h := newHome()
	target := h.dial(t, l.Addr().String())
	clients := make(map[string]*net.TCPConn)
	var conns []*usher.Conn
	for i := range many {
		client, server := tcpPair(t)
		id := fmt.Sprint(i)
		clients[id] = client
		conns = append(conns, take(t, target, l, newOffer(t, server, "", usher.Info{ID: id})))
	}
	var wg sync.WaitGroup
	for part := range slices.Chunk(conns, many/4) {
		wg.Go(func() {
			for _, c := range part {
				o := newOffer(t, c, "", c.Info())
				for err := o.HandBack(within(t, timeout)); err != nil; err = o.HandBack(within(t, timeout)) {
					if !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "has ended") {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for range rounds {
		targets := h.attach(t, l, detach(t, target))
		if len(targets) == 0 { // all are back
			break
		}
		target = targets[0]
		<-time.After(time.Millisecond)
	}
	wg.Wait()
	for range many {
		c := h.back(t)
		client := clients[c.Info().ID]
		if client == nil {
			t.Fatalf("connection %q came back twice", c.Info().ID)
		}
		checkConversation(t, client, c)
		delete(clients, c.Info().ID)
		c.Close()
		if r := await(t, h.reports, "an end"); !r.HandedOn {
			t.Errorf("the report is %+v", r)
		}
	}
	h.silence(t)
}

// TestDetachReturnsAllChannels, to the taker that was replaced as well, and they are the target's no more.
func TestDetachReturnsAllChannels(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	h := newHome()
	target := h.dial(t, l.Addr().String())
	_, before := handOver(t, target, l, "")
	next := must((&usher.ListenConfig{Replace: true}).Listen(l.Addr().String()))(t)
	defer next.Close()
	_, after := handOver(t, target, next, "")
	detached := must(target.Detach(within(t, timeout)))(t)
	target.Close()
	if len(detached) != 2 {
		t.Fatalf("%d channels were detached, want 2", len(detached))
	}
	a, b := pair(t)
	for _, d := range detached {
		if err := a.Send(d.State, d.Conn); err != nil {
			t.Fatal(err)
		}
		d.Conn.Close()
		h.attach(t, l, []*usher.Detached{receiveDetached(t, b)})
	}
	before.Close()
	after.Close()
	for range 2 {
		await(t, h.reports, "an end")
	}
}

// TestDetachWaitsForReturned, so that a connection which has come back is not overlooked by a process that ends.
func TestDetachWaitsForReturned(t *testing.T) {
	faults.NoLeak(t)
	target, returned, goOn := duringReturned(t)
	defer await(t, returned, "a connection that comes back").Close()
	done := make(chan []*usher.Detached, 1)
	go func() {
		d, err := target.Detach(within(t, timeout))
		if err != nil {
			t.Error(err)
		}
		done <- d
	}()
	select {
	case <-done:
		t.Error("Detach has not waited")
	case <-time.After(20 * time.Millisecond):
	}
	close(goOn)
	for _, d := range await(t, done, "Detach") {
		d.Conn.Close()
	}
}

// TestNothingComesBackOnceShutdownHasReturned, though another call detaches the target yet, and its taker hands back meanwhile.
func TestNothingComesBackOnceShutdownHasReturned(t *testing.T) {
	faults.NoLeak(t)
	claimed, goOn := make(chan *ipc.Conn, 1), make(chan struct{})
	taker := newRawTaker(t, 4, 5, func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error {
		if !claim(words, slot, generation) {
			return errors.New("the ticket is not there")
		}
		claimed <- c
		err := c.Send(answerMessage(1, slot, 0, generation))
		<-goOn // and reads nothing more
		return errors.Join(err, c.Close())
	})
	defer close(goOn)
	target := newHome().dial(t, taker.l.Addr().String())
	_, server := tcpPair(t)
	if err := target.Handoff(within(t, timeout), newOffer(t, server, "", usher.Info{})); err != nil {
		t.Fatal(err)
	}
	c := <-claimed
	for range 4 { // until the channel is full: Detach waits for the one that is being sent
		_, server := tcpPair(t)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		o := newOffer(t, server, strings.Repeat("x", usher.MaxPrefix), usher.Info{})
		wantError(t, target.Handoff(ctx, o), context.DeadlineExceeded, "")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	detached := make(chan []*usher.Detached, 1)
	go func() {
		d, _ := target.Detach(ctx)
		detached <- d
	}()
	for err := error(nil); err == nil || !strings.Contains(err.Error(), "the target is closed"); err = target.Connect(ctx) {
		time.Sleep(time.Millisecond) // until Detach has the channel
	}
	wantError(t, target.Shutdown(within(t, timeout)), net.ErrClosed, "")
	ours, theirs := pair(t)
	if err := c.Send(head(9, 0, 0, 0), theirs); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if back, err := new(usher.Dialer).DialOn(within(t, timeout), ours); err == nil {
		t.Error("a connection can come back")
		back.Close()
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	cancel()
	for _, d := range await(t, detached, "Detach") {
		d.Conn.Close()
	}
}

// TestASuccessorThatTakesNothingBack leaves the connection with the taker, and hears of its end.
func TestASuccessorThatTakesNothingBack(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := newHome().dial(t, l.Addr().String())
	client, c := handOver(t, target, l, "")
	d := detach(t, target)
	e := newEar()
	next := must(e.dialer().Attach(l.Addr().String(), d[0].Conn, d[0].State))(t)
	defer next.Close()
	o := newOffer(t, c, "", usher.Info{})
	wantError(t, o.HandBack(within(t, timeout)), nil, "the channel to the taker has ended")
	c = must(o.Reclaim())(t)
	checkConversation(t, client, c)
	c.Close()
	await(t, e.reports, "the end")
	wantError(t, next.Shutdown(within(t, timeout)), net.ErrClosed, "")
}

// playPredecessor hands one connection to the endpoint args[0], passes its channel to its parent, and is gone.
func playPredecessor(args []string) error {
	heir, err := ipc.Inherited()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	d := usher.Dialer{Ended: func(usher.Report) {}, Returned: func(c *usher.Conn) { c.Close() }}
	target, err := d.Dial(ctx, args[0])
	if err != nil {
		return err
	}
	m, err := heir.Receive()
	if err != nil {
		return err
	}
	c, err := m.Attachments()[0].Conn()
	if err != nil {
		return err
	}
	o, err := usher.NewOffer(c, nil, usher.Info{})
	if err != nil {
		return err
	}
	if err := target.Handoff(ctx, o); err != nil {
		return err
	}
	detached, err := target.Detach(ctx)
	if err != nil || len(detached) != 1 {
		return fmt.Errorf("%d channels were detached, %w", len(detached), err)
	}
	return heir.Send(detached[0].State, detached[0].Conn)
}

// TestAChannelOutlivesItsGiver, a process that has ended.
func TestAChannelOutlivesItsGiver(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	ours, theirs, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	ours.SetDeadline(time.Now().Add(timeout))
	cmd := faults.Command(t, "predecessor", l.Addr().String())
	if err := theirs.PassTo(cmd); err != nil {
		t.Fatal(err)
	}
	predecessor := startCommand(t, cmd)
	theirs.Close()
	client, server := tcpPair(t)
	if err := ours.Send(nil, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	c := must(l.Accept())(t).(*usher.Conn)
	defer c.Close()
	d := receiveDetached(t, ours)
	if err := predecessor.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	h := newHome()
	h.attach(t, l, []*usher.Detached{d})
	if err := newOffer(t, c, "", usher.Info{}).HandBack(within(t, timeout)); err != nil {
		t.Fatal(err)
	}
	back := h.back(t)
	checkConversation(t, client, back)
	if back.Giver().PID != os.Getpid() {
		t.Errorf("it came back from %+v", back.Giver())
	}
	if r := await(t, h.reports, "its end at the taker"); !r.HandedOn || r.Taker.PID != os.Getpid() {
		t.Errorf("the report is %+v", r)
	}
}
