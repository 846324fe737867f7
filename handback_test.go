//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

// home is a giver that takes connections back.
type home struct {
	*ear
	returned chan *usher.Conn
}

func newHome() *home { return &home{newEar(), make(chan *usher.Conn, 1000)} }

func (h *home) dialer() *usher.Dialer {
	d := h.ear.dialer()
	d.Returned = func(c *usher.Conn) { h.returned <- c }
	return d
}

func (h *home) dial(t testing.TB, path string) *usher.Target {
	t.Helper()
	target := must(h.dialer().Dial(within(t, timeout), path))(t)
	t.Cleanup(func() { target.Close() })
	return target
}

// back returns the next connection that came back.
func (h *home) back(t testing.TB) *usher.Conn {
	t.Helper()
	c := await(t, h.returned, "a connection that comes back")
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	return c
}

// TestAConnectionGoesBack to its giver, with what the taker has read and not used, and out again.
func TestAConnectionGoesBack(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	h := newHome()
	target := h.dial(t, l.Addr().String())
	client, server := tcpPair(t)
	io.WriteString(client, "more")
	info := usher.Info{ID: "7", Route: "shop", Listener: "web", Host: "shop.example.com", State: []byte("state")}
	var conn net.Conn = server
	for round := range 3 { // the second and third on the same way back
		c := take(t, target, l, newOffer(t, conn, "first ", info))
		if !c.Returnable() {
			t.Fatal("it is not returnable")
		}
		read := make([]byte, 3)
		must(io.ReadFull(c, read))(t)
		o := newOffer(t, c, string(read), c.Info())
		if c.Returnable() {
			t.Error("it is returnable while it is on offer")
		}
		if err := o.HandBack(within(t, timeout)); err != nil {
			t.Fatal(err)
		}
		wantError(t, o.HandBack(within(t, timeout)), net.ErrClosed, "the offer was handed over or reclaimed before")
		got := h.back(t)
		if !reflect.DeepEqual(got.Info(), info) {
			t.Errorf("the info is %+v, want %+v", got.Info(), info)
		}
		if got.Giver().PID != os.Getpid() || got.Returnable() {
			t.Errorf("it came from %+v; returnable: %t", got.Giver(), got.Returnable())
		}
		r := await(t, h.reports, "the end at the taker")
		if !r.HandedOn || r.Info.ID != "7" || r.Info.State != nil {
			t.Errorf("the report is %+v", r)
		}
		if round == 2 {
			want := "first more"
			all := make([]byte, len(want))
			if _, err := io.ReadFull(got, all); err != nil || string(all) != want {
				t.Errorf("the giver reads %q, %v; want %q", all, err, want)
			}
			checkConversation(t, client, got)
			got.Close()
			break
		}
		must(io.ReadFull(got, make([]byte, 6)))(t)
		conn = got
	}
	shutDownTarget(t, target)
	h.silence(t)
}

// TestAnotherGiverStandsIn takes back what came from one that is gone, or from the taker before this one, if it was accepted at a
// listener with a name; no other, and not from a taker whose giver is there.
func TestAnotherGiverStandsIn(t *testing.T) {
	faults.NoLeak(t)
	for _, tt := range []struct {
		name     string
		first    func(t *testing.T, path string) *usher.Target
		listener string
		want     bool
	}{
		{"its giver is gone", func(t *testing.T, path string) *usher.Target { return newHome().dial(t, path) }, "web", true},
		{"it came from a taker", func(t *testing.T, path string) *usher.Target { return must(usher.Dial(within(t, timeout), path))(t) }, "web", true},
		{"it has no listener", func(t *testing.T, path string) *usher.Target { return newHome().dial(t, path) }, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := listen(t, usher.ListenConfig{})
			path := l.Addr().String()
			first := tt.first(t, path)
			client, server := tcpPair(t)
			c := take(t, first, l, newOffer(t, server, "", usher.Info{Listener: tt.listener}))
			first.Close()
			for c.Returnable() { // until its end is heard of
				time.Sleep(time.Millisecond)
			}

			second := newHome()
			target := second.dial(t, path)
			_, its := tcpPair(t)
			take(t, target, l, newOffer(t, its, "", usher.Info{})).Close() // so that it is connected for certain
			if c.Returnable() != tt.want {
				t.Fatalf("returnable: %t", c.Returnable())
			}
			o := newOffer(t, c, "", c.Info())
			err := o.HandBack(within(t, timeout))
			if !tt.want {
				if err == nil {
					t.Fatal("it went back")
				}
				must(o.Reclaim())(t).Close()
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := second.back(t)
			checkConversation(t, client, got)
			got.Close()
		})
	}
}

// TestAFailedWayBack leaves the connection with the taker, which can try again, until it works.
func TestAFailedWayBack(t *testing.T) {
	faults.NoLeak(t)
	giver, c, client := giveRaw(t, 5)
	o := newOffer(t, c, "", usher.Info{})

	// The giver reads nothing, as one that is stopped.
	for d, sent := 50*time.Millisecond, false; !sent; d *= 2 { // if that was too short to send the channel
		err := o.HandBack(within(t, d))
		wantError(t, err, os.ErrDeadlineExceeded, "")
		sent = strings.Contains(fmt.Sprint(err), "the listener has not greeted")
	}
	c = must(o.Reclaim())(t)
	defer c.Close()
	if !c.Returnable() {
		t.Error("it is not returnable any more")
	}
	backs := receiveBacks(giver)
	await(t, backs, "a channel for handing back").Close() // whose other end is closed

	// The giver has no use for the channel.
	o = newOffer(t, c, "", usher.Info{})
	outcome := make(chan error, 1)
	handBack := func() { outcome <- o.HandBack(within(t, timeout)) }
	go handBack()
	tries := 0
	for err := error(nil); err == nil; {
		select {
		case ch := <-backs:
			ch.Close()
			tries++
		case err = <-outcome:
			wantError(t, err, nil, "the channel to the taker has ended")
		}
	}
	if tries < 2 {
		t.Errorf("it tried %d times", tries)
	}

	// The giver leaves that channel, and takes the next.
	go handBack()
	l := must(new(usher.ListenConfig).ListenOn(await(t, backs, "a channel for handing back")))(t)
	l.Close()
	l = must(new(usher.ListenConfig).ListenOn(await(t, backs, "another channel")))(t)
	defer l.Close()
	got := must(l.Accept())(t)
	defer got.Close()
	if err := <-outcome; err != nil {
		t.Error(err)
	}
	checkConversation(t, client, got)
}

// TestAGiverThatReadsNothing has soon been sent all channels that there is room for. The others are closed in time, and do not
// come late.
func TestAGiverThatReadsNothing(t *testing.T) {
	t.Run("and then does", func(t *testing.T) {
		faults.NoLeak(t)
		giver, c, client := giveRaw(t, 5)
		o := newOffer(t, c, "", usher.Info{})
		fillWithBacks(t, o)
		backs := receiveBacks(giver)
		outcome := startHandBack(t, o)
		for {
			l := must(new(usher.ListenConfig).ListenOn(await(t, backs, "a channel for handing back")))(t)
			defer l.Close()
			got, err := l.Accept()
			if err != nil { // it is one of the first
				continue
			}
			defer got.Close()
			if err := <-outcome; err != nil {
				t.Error(err)
			}
			checkConversation(t, client, got)
			return
		}
	})
	t.Run("and goes", func(t *testing.T) {
		faults.NoLeak(t)
		giver, c, _ := giveRaw(t, 5)
		o := newOffer(t, c, "", usher.Info{})
		fillWithBacks(t, o)
		outcome := startHandBack(t, o)
		time.Sleep(time.Millisecond) // until it waits
		giver.Close()
		wantError(t, await(t, outcome, "HandBack"), net.ErrClosed, "the channel that it came on has ended")
	})
}

// fillWithBacks tries to hand o back until there is no room for a further channel to be sent.
func fillWithBacks(t *testing.T, o *usher.Offer) {
	t.Helper()
	for full := 0; full < 2; {
		err := o.HandBack(within(t, 10*time.Millisecond))
		wantError(t, err, os.ErrDeadlineExceeded, "")
		if strings.Contains(fmt.Sprint(err), "the giver reads nothing") {
			full++
		}
	}
}

// startHandBack returns what will come of handing o back.
func startHandBack(t *testing.T, o *usher.Offer) <-chan error {
	ctx := within(t, timeout)
	outcome := make(chan error, 1)
	go func() { outcome <- o.HandBack(ctx) }()
	return outcome
}

// TestTheWayBackEndsWithTheChannel, though the giver keeps its end of it, and an offer on it is the taker's again.
func TestTheWayBackEndsWithTheChannel(t *testing.T) {
	faults.NoLeak(t)
	giver, c, client := giveRaw(t, 5)
	o := newOffer(t, c, "", usher.Info{})
	outcome := startHandBack(t, o)
	l := must(new(usher.ListenConfig).ListenOn(await(t, receiveBacks(giver), "a channel for handing back")))(t)
	defer l.Close()
	time.Sleep(time.Millisecond) // until the offer is made
	giver.Close()
	wantError(t, await(t, outcome, "HandBack"), net.ErrClosed, "the channel that it came on has ended")
	_, err := l.Accept()
	wantError(t, err, net.ErrClosed, "")
	checkConversation(t, client, must(o.Reclaim())(t))
}

// giveRaw has a giver that speaks the protocol itself hand a connection over. flags are those of its hello.
func giveRaw(t *testing.T, flags uint32) (giver *ipc.Conn, c *usher.Conn, client *net.TCPConn) {
	t.Helper()
	l := listen(t, usher.ListenConfig{})
	giver = must(ipc.Dial(within(t, timeout), l.Addr().String()))(t)
	t.Cleanup(func() { giver.Close() })
	giver.SetDeadline(time.Now().Add(timeout))
	client = offerRaw(t, giver, flags)
	c = must(l.Accept())(t).(*usher.Conn)
	t.Cleanup(func() { c.Close() })
	return giver, c, client
}

// offerRaw says hello on a channel, with flags, and offers a connection, whose client it returns.
func offerRaw(t *testing.T, giver *ipc.Conn, flags uint32) *net.TCPConn {
	t.Helper()
	page := must(usher.CreatePage())(t)
	defer page.Close()
	words, unmap, err := usher.MapPage(page)
	if err != nil {
		t.Fatal(err)
	}
	defer unmap()
	words[0] = 1<<2 | 1 // slot 0, generation 1, offered
	client, server := tcpPair(t)
	for _, err := range []error{giver.Send(head(1, 1, 0, flags), page), giver.Send(offerMessage(0, 1, ""), server)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	server.Close()
	return client
}

// receiveBacks reads what a taker says, and returns the channels for handing back.
func receiveBacks(giver *ipc.Conn) <-chan *ipc.Conn {
	backs := make(chan *ipc.Conn, 10)
	go func() {
		for {
			m, err := giver.Receive()
			if err != nil {
				return
			}
			if m.Data[0] == 9 {
				if c, err := m.Attachments()[0].Channel(ipc.Limits{}); err == nil {
					backs <- c
				}
			}
			m.Close()
		}
	}()
	return backs
}

// TestWhatCannotGoBack has no giver that wants it.
func TestWhatCannotGoBack(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	h := newHome()
	for name, target := range map[string]*usher.Target{
		"a giver that wants reports alone": newEar().dial(t, l.Addr().String()),
		"a giver that wants nothing":       dial(t, l),
	} {
		t.Run(name, func(t *testing.T) {
			_, c := handOver(t, target, l, "")
			if c.Returnable() {
				t.Error("it is returnable")
			}
			o := newOffer(t, c, "", usher.Info{})
			wantError(t, o.HandBack(within(t, timeout)), errors.ErrUnsupported, "handback usher")
		})
	}
	t.Run("a connection of this process's own", func(t *testing.T) {
		_, server := tcpPair(t)
		o := newOffer(t, server, "", usher.Info{})
		wantError(t, o.HandBack(within(t, timeout)), errors.ErrUnsupported, "it came from no giver")
	})
	t.Run("one that is closed", func(t *testing.T) {
		_, c := handOver(t, h.dial(t, l.Addr().String()), l, "")
		c.Close()
		if c.Returnable() {
			t.Error("it is returnable")
		}
	})
	t.Run("one whose giver has gone", func(t *testing.T) {
		target := h.dial(t, l.Addr().String())
		_, before := handOver(t, target, l, "")
		client, c := handOver(t, target, l, "")
		if err := newOffer(t, before, "", usher.Info{}).HandBack(within(t, timeout)); err != nil { // so that there is a way back
			t.Fatal(err)
		}
		h.back(t)
		target.Close()
		o := newOffer(t, c, "", usher.Info{})
		wantError(t, o.HandBack(within(t, timeout)), net.ErrClosed, "the channel that it came on has ended")
		c = must(o.Reclaim())(t)
		defer c.Close()
		for deadline := time.Now().Add(timeout); c.Returnable(); time.Sleep(time.Millisecond) { // until the end is read, too
			if time.Now().After(deadline) {
				t.Fatal("it is returnable")
			}
		}
		checkConversation(t, client, c)
	})
}

// TestTheWayBackOutlivesOffers on a channel of which either side has said that it brings no more.
func TestTheWayBackOutlivesOffers(t *testing.T) {
	for name, leave := range map[string]func(*testing.T, *usher.Target, *usher.Listener){
		"the taker has closed its listener": func(t *testing.T, _ *usher.Target, l *usher.Listener) {
			if runtime.GOOS == "windows" {
				t.Skip("there a channel ends with its listener")
			}
			l.Close()
		},
		"the giver has shut its target down": func(t *testing.T, target *usher.Target, _ *usher.Listener) {
			ctx, cancel := context.WithCancel(context.Background())
			go target.Shutdown(within(t, timeout))
			for !errors.Is(target.Connect(ctx), net.ErrClosed) {
			}
			cancel()
		},
	} {
		t.Run(name, func(t *testing.T) {
			faults.NoLeak(t)
			l := listen(t, usher.ListenConfig{})
			h := newHome()
			target := h.dial(t, l.Addr().String())
			var clients []*net.TCPConn
			var conns []*usher.Conn
			for range 3 {
				client, c := handOver(t, target, l, "")
				clients, conns = append(clients, client), append(conns, c)
			}
			leave(t, target, l)
			for i, c := range conns[:2] {
				if !c.Returnable() {
					t.Fatal("it is not returnable any more")
				}
				if err := newOffer(t, c, "", usher.Info{}).HandBack(within(t, timeout)); err != nil {
					t.Fatal(err)
				}
				checkConversation(t, clients[i], h.back(t))
			}
			conns[2].Close()
			if err := target.Shutdown(within(t, timeout)); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
			handedOn := 0
			for range conns {
				if await(t, h.reports, "an end").HandedOn {
					handedOn++
				}
			}
			if handedOn != 2 {
				t.Errorf("%d are reported as handed on, want 2", handedOn)
			}
			h.silence(t)
		})
	}
}

// duringReturned has a connection come back to a target, whose Returned says that on returned and then waits for goOn.
func duringReturned(t *testing.T) (target *usher.Target, returned chan *usher.Conn, goOn chan struct{}) {
	t.Helper()
	l := listen(t, usher.ListenConfig{})
	returned, goOn = make(chan *usher.Conn), make(chan struct{})
	d := usher.Dialer{Returned: func(c *usher.Conn) {
		returned <- c
		<-goOn
	}}
	target = must(d.Dial(within(t, timeout), l.Addr().String()))(t)
	_, c := handOver(t, target, l, "")
	if err := newOffer(t, c, "", usher.Info{}).HandBack(within(t, timeout)); err != nil {
		t.Fatal(err)
	}
	return target, returned, goOn
}

// TestShutdownWaitsForReturned, so that a giver that ends does not overlook what came back last.
func TestShutdownWaitsForReturned(t *testing.T) {
	faults.NoLeak(t)
	target, returned, goOn := duringReturned(t)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	wantError(t, target.Shutdown(ctx), os.ErrDeadlineExceeded, "") // before Returned is called, as it happens, or after
	defer await(t, returned, "a connection that comes back").Close()
	done := make(chan error, 1)
	go func() { done <- target.Shutdown(within(t, timeout)) }()
	select {
	case <-done:
		t.Error("Shutdown has not waited")
	case <-time.After(20 * time.Millisecond):
	}
	close(goOn)
	wantError(t, await(t, done, "Shutdown"), net.ErrClosed, "")
}

// TestManyGoBackAtOnce more than a channel has slots.
func TestManyGoBackAtOnce(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	h := newHome()
	target := h.dial(t, l.Addr().String())
	const many = 100
	clients := make(map[string]*net.TCPConn)
	var wg sync.WaitGroup
	for i := range many {
		id := fmt.Sprint(i)
		client, server := tcpPair(t)
		clients[id] = client
		c := take(t, target, l, newOffer(t, server, "", usher.Info{ID: id}))
		o := newOffer(t, c, "", c.Info())
		wg.Go(func() {
			if err := o.HandBack(within(t, timeout)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for range many {
		c := h.back(t)
		checkConversation(t, clients[c.Info().ID], c)
		delete(clients, c.Info().ID)
		c.Close()
	}
	shutDownTarget(t, target)
}

// TestTakersThatHandBackWrongly lose their channel, or the way back, and nobody loses a connection.
func TestTakersThatHandBackWrongly(t *testing.T) {
	faults.NoLeak(t)
	null := must(os.Open(os.DevNull))(t)
	defer null.Close()
	_, server := tcpPair(t)
	back := head(9, 0, 0, 0)
	for _, tt := range []struct {
		name string
		say  func(c *ipc.Conn) error
		want string // why the channel is lost
	}{
		{"on nothing", func(c *ipc.Conn) error { return c.Send(back) }, "it hands back on 0 channels, want one"},
		{"on a file", func(c *ipc.Conn) error { return c.Send(back, null) }, "it hands back on what is no channel"},
		{"on a connection", func(c *ipc.Conn) error { return c.Send(back, server) }, "it hands back on what is no channel"},
		{"with something behind it", func(c *ipc.Conn) error { return c.Send(append(back, 0)) }, "a reserved field"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			taker := newRawTaker(t, 4, 5, func(c *ipc.Conn, _ []uint32, _ byte, _ uint32) error { return tt.say(c) })
			h := newHome()
			target := h.dial(t, taker.l.Addr().String())
			client, server := tcpPair(t)
			o := newOffer(t, server, "", usher.Info{})
			wantError(t, target.Handoff(within(t, timeout), o), ipc.ErrProtocol, tt.want)
			checkConversation(t, client, must(o.Reclaim())(t))
		})
	}
	t.Run("and break the protocol there", func(t *testing.T) {
		said := make(chan string, 1)
		h, target := tellGiver(t, func(c *ipc.Conn) error {
			ours, theirs := pair(t)
			if err := c.Send(back, theirs); err != nil {
				return err
			}
			theirs.Close()
			if err := ours.Send(head(2, 0, 0, 0)); err != nil {
				return err
			}
			text, _, err := farewell(ours)
			said <- text
			return err
		})
		if text := await(t, said, "the giver's complaint"); !strings.Contains(text, "want a hello") {
			t.Errorf("the giver says %q", text)
		}
		checkOwes(t, target, h)
	})
	t.Run("on one channel after the other", func(t *testing.T) {
		ended := make(chan error, 1)
		h, target := tellGiver(t, func(c *ipc.Conn) error {
			first, theirs := pair(t)
			if err := c.Send(back, theirs); err != nil {
				return err
			}
			theirs.Close()
			second, theirs := pair(t)
			defer second.Close()
			if err := c.Send(back, theirs); err != nil {
				return err
			}
			theirs.Close()
			ended <- receiveToEnd(first)
			return nil
		})
		await(t, ended, "the end of the first") // there is one at a time
		checkOwes(t, target, h)
	})
	t.Run("on one that stays for reports when another comes", func(t *testing.T) {
		ended := make(chan error, 1)
		h, target := tellGiver(t, func(c *ipc.Conn) error {
			first, theirs := pair(t)
			client := offerRaw(t, first, 7) // patient as well
			defer client.Close()
			if err := c.Send(back, theirs); err != nil {
				return err
			}
			theirs.Close()
			if m, err := first.Receive(); err != nil || m.Data[4] != 2 {
				return fmt.Errorf("the giver greets with % x, %w; want the flag of patient alone", m.Data, err)
			}
			if err := receiveOne(first); err != nil { // its answer
				return err
			}
			second, theirs := pair(t)
			defer second.Close()
			if err := c.Send(back, theirs); err != nil {
				return err
			}
			theirs.Close()
			ended <- receiveToEnd(first)
			return nil
		})
		h.back(t)
		await(t, ended, "the end of the first")
		checkOwes(t, target, h)
	})
}

func receiveOne(c *ipc.Conn) error {
	m, err := c.Receive()
	if err != nil {
		return err
	}
	return m.Close()
}

// TestNothingComesBackAfterClose on a way back that its taker has not ended with the channel.
func TestNothingComesBackAfterClose(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *usher.Target){
		"Close":    func(t *testing.T, target *usher.Target) { target.Close() },
		"Shutdown": func(t *testing.T, target *usher.Target) { target.Shutdown(within(t, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			faults.NoLeak(t)
			ways := make(chan *ipc.Conn, 1)
			taker := newRawTaker(t, 4, 5, func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error {
				ours, theirs := pair(t)
				claim(words, slot, generation)
				if err := c.Send(answerMessage(1, slot, 0, generation)); err != nil {
					return err
				}
				if err := c.Send(head(9, 0, 0, 0), theirs); err != nil {
					return err
				}
				theirs.Close()
				if err := receiveOne(ours); err != nil { // its hello
					return err
				}
				ways <- ours
				return c.Close()
			})
			h := newHome()
			d := h.dialer()
			lost := make(chan error, 1)
			d.Lost = func(_ ipc.Peer, err error) { lost <- err }
			target := must(d.Dial(within(t, timeout), taker.l.Addr().String()))(t)
			_, server := tcpPair(t)
			if err := target.Handoff(within(t, timeout), newOffer(t, server, "", usher.Info{})); err != nil {
				t.Fatal(err)
			}
			ours := await(t, ways, "the way back")
			await(t, lost, "the end of the channel")
			time.Sleep(10 * time.Millisecond) // until all of it is seen to
			end(t, target)
			checkNothingGoes(t, ours, h)
		})
	}
}

// checkNothingGoes offers a connection on a way back that has ended, or will without claiming it.
func checkNothingGoes(t *testing.T, ours *ipc.Conn, h *home) {
	t.Helper()
	page := must(usher.CreatePage())(t)
	defer page.Close()
	words, unmap, err := usher.MapPage(page)
	if err != nil {
		t.Fatal(err)
	}
	defer unmap()
	words[0] = 1<<2 | 1
	_, server := tcpPair(t)
	if ours.Send(head(1, 1, 0, 0), page) == nil {
		ours.Send(offerMessage(0, 1, ""), server)
	}
	receiveToEnd(ours)
	if words[0] != 1<<2|1 || len(h.returned) > 0 {
		t.Errorf("the ticket is %#x; %d came back", words[0], len(h.returned))
	}
}

// tellGiver makes a taker that claims one connection of a giver that takes such back, and then says something.
func tellGiver(t *testing.T, say func(*ipc.Conn) error) (*home, *usher.Target) {
	t.Helper()
	taker := newRawTaker(t, 4, 5, func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error {
		if !claim(words, slot, generation) {
			return errors.New("the ticket is not there")
		}
		if err := c.Send(answerMessage(1, slot, 0, generation)); err != nil {
			return err
		}
		if err := say(c); err != nil {
			return err
		}
		return c.Send(reportMessage(0, 1, 2, 3, ""))
	})
	h := newHome()
	target := h.dial(t, taker.l.Addr().String())
	_, server := tcpPair(t)
	if err := target.Handoff(within(t, timeout), newOffer(t, server, "", usher.Info{})); err != nil {
		t.Fatal(err)
	}
	return h, target
}

// checkOwes makes sure that the channel has lived on.
func checkOwes(t *testing.T, target *usher.Target, h *home) {
	t.Helper()
	await(t, h.reports, "the end")
	shutDownTarget(t, target)
	if len(h.returned) > 0 {
		t.Error("a connection came back that was never sent")
	}
}
