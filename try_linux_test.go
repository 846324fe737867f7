package usher_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
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

func init() {
	roles["try-idle"] = playTryIdle
	roles["try-echo"] = playTryEcho
	roles["try-overdue"] = playTryOverdue
}

// playTryIdle listens at the endpoint args[0] and claims as many connections as args[1] says.
func playTryIdle(args []string) error {
	l, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("ready")
	n := 0
	fmt.Sscan(args[1], &n)
	for range n {
		if _, err := l.Accept(); err != nil {
			return err
		}
	}
	fmt.Println("claimed")
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// playTryEcho answers each connection that comes to the endpoint args[0] with what it says.
func playTryEcho(args []string) error {
	l, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	go echoAll(l)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// verdict is what TryHandoff's done is told, and when.
type verdict struct {
	decided time.Time
	err     error
	at      time.Time
}

// verdicts has room for one that should not come.
type verdicts chan verdict

func (v verdicts) done(decided time.Time, err error) { v <- verdict{decided, err, time.Now()} }

// await returns the only one.
func (v verdicts) await(t testing.TB) verdict {
	t.Helper()
	return await(t, v, "the offer")
}

func (v verdicts) wantNone(t testing.TB) {
	t.Helper()
	select {
	case extra := <-v:
		t.Errorf("it is told, and should not be: %+v", extra)
	default:
	}
}

// try makes an offer that must be possible to make at once.
func try(t testing.TB, target *usher.Target, o *usher.Offer, within time.Duration) verdicts {
	t.Helper()
	v := make(verdicts, 2)
	if !target.TryHandoff(o, within, v.done) {
		t.Fatal("the offer could not be made at once")
	}
	return v
}

// freshOffer makes an offer of a connection whose client says nothing.
func freshOffer(t testing.TB, prefix string) *usher.Offer {
	t.Helper()
	return newOffer(t, must1(tcpPair(t)), prefix, usher.Info{})
}

// TestOpenOffersAreThoseThatNobodyHasClaimed though the taker may not have told: else a quick taker would look like one
// that is stopped.
func TestOpenOffersAreThoseThatNobodyHasClaimed(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dialPatient(t, l.Addr().String())
	const offers = 3
	var told []verdicts
	for range offers {
		told = append(told, try(t, target, freshOffer(t, ""), timeout))
	}
	for i := range offers {
		if n := target.Open(); n != offers-i {
			t.Errorf("%d offers are open when %d of %d are claimed", n, i, offers)
		}
		must(l.Accept())(t).Close()
	}
	if n := target.Open(); n != 0 {
		t.Errorf("%d offers are open when all are claimed", n)
	}
	for _, v := range told {
		v.await(t)
	}
}

// TestTryHandoff has each outcome, with a giver that is patient and one that is not.
func TestTryHandoff(t *testing.T) {
	faults.NoLeak(t)
	for _, patient := range []bool{false, true} {
		dial := func(t testing.TB, path string) *usher.Target {
			d := usher.Dialer{Patient: patient}
			target := must(d.Dial(within(t, timeout), path))(t)
			t.Cleanup(func() { target.Close() })
			return target
		}
		name := func(s string) string { return fmt.Sprintf("%s/patient=%t", s, patient) }

		t.Run(name("claimed"), func(t *testing.T) {
			l := listen(t, usher.ListenConfig{})
			target := dial(t, l.Addr().String())
			client, server := tcpPair(t)
			o := newOffer(t, server, "pre", usher.Info{Host: "h"})
			began := time.Now()
			v := try(t, target, o, timeout)
			c := must(l.Accept())(t).(*usher.Conn)
			defer c.Close()
			got := v.await(t)
			if got.err != nil || got.decided.Before(began) || got.decided.After(got.at) {
				t.Errorf("told %+v of an offer made at %v", got, began)
			}
			b := make([]byte, 3)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != "pre" || c.Info().Host != "h" {
				t.Errorf("read %q, %v, with %+v", b, err, c.Info())
			}
			checkConversation(t, client, c)
			if target.TryHandoff(o, timeout, v.done) {
				t.Error("it can be offered once more")
			}
			wantError(t, target.Handoff(within(t, timeout), o), net.ErrClosed, "handed over or reclaimed before")
			_, err := o.Reclaim()
			wantError(t, err, net.ErrClosed, "handed over or reclaimed before")
			v.wantNone(t)
		})

		t.Run(name("declined, then handed over"), func(t *testing.T) {
			l := listen(t, usher.ListenConfig{Backlog: 1})
			targets := []*usher.Target{dial(t, l.Addr().String()), dial(t, l.Addr().String())}
			offers := []*usher.Offer{freshOffer(t, ""), freshOffer(t, "")}
			v := []verdicts{try(t, targets[0], offers[0], timeout), try(t, targets[1], offers[1], timeout)}
			no, yes := 0, 1 // which of them finds room is not certain
			var got verdict
			select {
			case got = <-v[0]:
			case got = <-v[1]:
				no, yes = 1, 0
			}
			wantError(t, got.err, usher.ErrDeclined, "its queue is full")
			must(l.Accept())(t).Close()
			if got := v[yes].await(t); got.err != nil {
				t.Error(got.err)
			}
			again := try(t, targets[yes], offers[no], timeout)
			must(l.Accept())(t).Close()
			if got := again.await(t); got.err != nil {
				t.Error(got.err)
			}
			v[no].wantNone(t)
		})

		t.Run(name("not claimed in time, then handed over"), func(t *testing.T) {
			l := listen(t, usher.ListenConfig{})
			target := dial(t, l.Addr().String())
			o := freshOffer(t, "x")
			for range 2 {
				began := time.Now()
				v := try(t, target, o, 10*time.Millisecond)
				got := v.await(t)
				wantError(t, got.err, os.ErrDeadlineExceeded, "has not claimed it")
				wantError(t, got.err, context.DeadlineExceeded, l.Addr().String())
				var timeoutErr net.Error
				if !errors.As(got.err, &timeoutErr) || !timeoutErr.Timeout() {
					t.Errorf("%v is no net.Error with Timeout", got.err)
				}
				if got.decided.Sub(began) < 10*time.Millisecond || got.decided.After(got.at) {
					t.Errorf("told %+v of an offer made at %v", got, began)
				}
			}
			c := take(t, target, l, o) // passes over what was withdrawn
			if got, err := c.Read(make([]byte, 9)); got != 1 || err != nil {
				t.Errorf("read %d bytes, %v", got, err)
			}
		})

		t.Run(name("not claimed in time, then taken back"), func(t *testing.T) {
			l := listen(t, usher.ListenConfig{})
			target := dial(t, l.Addr().String())
			client, server := tcpPair(t)
			o := newOffer(t, server, "pre", usher.Info{})
			try(t, target, o, 0).await(t)
			c := must(o.Reclaim())(t)
			defer c.Close()
			io.ReadFull(c, make([]byte, 3))
			checkConversation(t, client, c)
			if got := take(t, target, l, freshOffer(t, "other")); got.Buffered() != len("other") {
				t.Errorf("the taker has one with a prefix of %d bytes", got.Buffered())
			}
			checkConversation(t, client, c)
		})
	}
}

// TestWhenAnOfferIsOverdue depends on its own time, whatever others have.
func TestWhenAnOfferIsOverdue(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	long := try(t, target, freshOffer(t, ""), time.Hour)
	for _, d := range []time.Duration{20 * time.Millisecond, time.Millisecond, -time.Second} {
		v := try(t, target, freshOffer(t, ""), d)
		wantError(t, v.await(t).err, os.ErrDeadlineExceeded, "")
	}
	longest := try(t, target, freshOffer(t, ""), math.MaxInt64)
	wantError(t, try(t, target, freshOffer(t, ""), 5*time.Millisecond).await(t).err, os.ErrDeadlineExceeded, "")
	for _, v := range []verdicts{long, longest} {
		must(l.Accept())(t).Close()
		if got := v.await(t); got.err != nil {
			t.Error(got.err)
		}
	}
}

// TestTakersThatGo with offers open: each is told once, and the giver has what was not claimed.
func TestTakersThatGo(t *testing.T) {
	faults.NoLeak(t)
	const claims, offers = 3, 8
	check := func(t *testing.T, given []*usher.Offer, v []verdicts, claims int, want error, text string) {
		t.Helper()
		handed := 0
		for i, o := range given {
			got := v[i].await(t)
			if got.err == nil {
				handed++
				continue
			}
			wantError(t, got.err, want, text)
			must(o.Reclaim())(t).Close()
		}
		if handed != claims {
			t.Errorf("%d were handed over; want %d", handed, claims)
		}
		for i := range v {
			v[i].wantNone(t)
		}
	}
	offer := func(t *testing.T, target *usher.Target) (given []*usher.Offer, v []verdicts) {
		for range offers {
			o := freshOffer(t, "")
			given, v = append(given, o), append(v, try(t, target, o, timeout))
		}
		return given, v
	}
	t.Run("killed", func(t *testing.T) {
		path := endpoint(t)
		taker := faults.Start(t, "try-idle", path, fmt.Sprint(claims))
		taker.Await("ready")
		target := dialPatient(t, path)
		given, v := offer(t, target)
		taker.Await("claimed")
		taker.Kill() // before it has told of the claims, most of the time
		check(t, given, v, claims, nil, "the channel to the taker has ended")
		if target.TryHandoff(freshOffer(t, ""), timeout, func(time.Time, error) { t.Error("told") }) {
			t.Error("an offer to nobody could be made")
		}
	})
	for name, leave := range map[string]func(t *testing.T, l *usher.Listener){
		"closed":    func(_ *testing.T, l *usher.Listener) { l.Close() },
		"shut down": func(t *testing.T, l *usher.Listener) { l.Shutdown(within(t, timeout)) },
		"replaced": func(t *testing.T, l *usher.Listener) {
			lc := usher.ListenConfig{Replace: true}
			next := must(lc.Listen(l.Addr().String()))(t)
			t.Cleanup(func() { next.Close() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, usher.ListenConfig{})
			target := dialPatient(t, l.Addr().String())
			given, v := offer(t, target)
			for range claims {
				must(l.Accept())(t).Close()
			}
			leave(t, l)
			check(t, given, v, claims, nil, "the channel to the taker has ended")
		})
	}
	for name, end := range map[string]func(*testing.T, *usher.Target){
		"the target is closed":    func(_ *testing.T, target *usher.Target) { target.Close() },
		"the target is shut down": func(t *testing.T, target *usher.Target) { shutDownTarget(t, target) },
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, usher.ListenConfig{})
			target := dialPatient(t, l.Addr().String())
			given, v := offer(t, target)
			for range claims {
				must(l.Accept())(t).Close()
			}
			end(t, target)
			check(t, given, v, claims, net.ErrClosed, name)
			if target.TryHandoff(freshOffer(t, ""), timeout, func(time.Time, error) { t.Error("told") }) {
				t.Error("an offer could be made")
			}
		})
	}
}

// TestOffersThatWouldHaveToWait are not made, and Handoff makes them then.
func TestOffersThatWouldHaveToWait(t *testing.T) {
	faults.NoLeak(t)
	wantFalse := func(t *testing.T, target *usher.Target, o *usher.Offer) {
		t.Helper()
		open := target.Open()
		if target.TryHandoff(o, timeout, func(time.Time, error) { t.Error("told of an offer that was not made") }) {
			t.Error("it could be made")
		}
		if n := target.Open(); n != open {
			t.Errorf("%d offers are open; there were %d", n, open)
		}
	}
	t.Run("no free slot", func(t *testing.T) {
		l := listen(t, usher.ListenConfig{Backlog: 2})
		target := dial(t, l)
		v := []verdicts{try(t, target, freshOffer(t, ""), timeout), try(t, target, freshOffer(t, ""), timeout)}
		o := freshOffer(t, "third")
		wantFalse(t, target, o)
		go func() { // which makes room
			for range v {
				if c, err := l.Accept(); err == nil {
					c.Close()
				}
			}
		}()
		for _, v := range v {
			if got := v.await(t); got.err != nil {
				t.Error(got.err)
			}
		}
		if c := take(t, target, l, o); c.Buffered() != len("third") {
			t.Error("it is another")
		}
	})
	t.Run("much to be sent", func(t *testing.T) {
		l := listen(t, usher.ListenConfig{})
		target := dial(t, l)
		o := freshOffer(t, strings.Repeat("x", 3<<10))
		wantFalse(t, target, o)
		take(t, target, l, o)
	})
	t.Run("an offer that is under way, or spent", func(t *testing.T) {
		l := listen(t, usher.ListenConfig{})
		target := dial(t, l)
		o := freshOffer(t, "")
		v := try(t, target, o, timeout)
		wantFalse(t, target, o)
		wantError(t, target.Handoff(within(t, timeout), o), nil, "being handed over already")
		_, err := o.Reclaim()
		wantError(t, err, nil, "being handed over")
		must(l.Accept())(t).Close()
		if got := v.await(t); got.err != nil {
			t.Error(got.err)
		}
		wantFalse(t, target, o)
	})
	t.Run("a taker that has gone, until Handoff has found the next", func(t *testing.T) {
		l := listen(t, usher.ListenConfig{})
		target := dial(t, l)
		l.Close()
		for _, ok := target.Taker(); ok; _, ok = target.Taker() {
			time.Sleep(time.Millisecond)
		}
		next := must(usher.Listen(l.Addr().String()))(t)
		defer next.Close()
		o := freshOffer(t, "")
		wantFalse(t, target, o)
		take(t, target, next, o)
		v := try(t, target, freshOffer(t, ""), timeout)
		must(next.Accept())(t).Close()
		if got := v.await(t); got.err != nil {
			t.Error(got.err)
		}
	})
	t.Run("nobody to tell", func(t *testing.T) {
		target := dial(t, listen(t, usher.ListenConfig{}))
		o := freshOffer(t, "")
		defer func() {
			if recover() == nil {
				t.Error("there was no panic")
			}
			must(o.Reclaim())(t).Close()
		}()
		target.TryHandoff(o, timeout, nil)
	})
	t.Run("a full channel", func(t *testing.T) {
		path := endpoint(t)
		taker := faults.Start(t, "try-echo", path)
		taker.Await("ready")
		target := dialPatient(t, path)
		faults.Stop(t, taker.PID())
		v, o := fillChannel(t, target)
		wantFalse(t, target, o)
		wantError(t, target.Handoff(within(t, 10*time.Millisecond), o), os.ErrDeadlineExceeded, "")
		syscall.Kill(taker.PID(), syscall.SIGCONT)
		if err := target.Handoff(within(t, timeout), o); err != nil {
			t.Error(err)
		}
		for _, v := range v {
			if got := v.await(t); got.err != nil {
				t.Error(got.err)
			}
			v.wantNone(t)
		}
		taker.End()
	})
}

// fillChannel makes offers to a taker that does not read until there is no room, and returns one that finds none.
func fillChannel(t *testing.T, target *usher.Target) (made []verdicts, o *usher.Offer) {
	t.Helper()
	prefix := strings.Repeat("x", 3000)
	for target.Open() < usher.MaxOpen {
		o, v := freshOffer(t, prefix), make(verdicts, 2)
		if !target.TryHandoff(o, timeout, v.done) {
			return made, o
		}
		made = append(made, v)
	}
	t.Fatal("a channel that is not read has room for all offers")
	panic("not reached")
}

// deafTaker is a taker that says hello and reads no offer.
func deafTaker(t *testing.T, flags uint32) (path string, words <-chan []uint32) {
	t.Helper()
	l := must(ipc.Listen(endpoint(t)))(t)
	t.Cleanup(func() { l.Close() })
	mapped := make(chan []uint32, 1)
	over := make(chan bool)
	t.Cleanup(func() { close(over) })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if err := c.Send(head(1, 1, usher.MaxOpen, flags)); err != nil {
			t.Error(err)
			return
		}
		m, err := c.Receive()
		if err != nil {
			t.Error(err)
			return
		}
		defer m.Close()
		f, err := m.Attachments()[0].File()
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		words, unmap, err := usher.MapPage(f)
		if err != nil {
			t.Error(err)
			return
		}
		defer unmap()
		mapped <- words
		<-over
	}()
	return l.Addr().String(), mapped
}

// TestOffersThatAreOverdueBeforeTheyAreSent runs playTryOverdue in a process of its own: the breakpoint is the process's.
func TestOffersThatAreOverdueBeforeTheyAreSent(t *testing.T) {
	path, _ := deafTaker(t, 2)
	if err := startRole(t, "try-overdue", path).cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// playTryOverdue fills the channel to the endpoint args[0]. Then it makes offers whose time is up when they are about to be
// sent, for which there is no room. Each is told once, and no slot is lost or freed twice.
func playTryOverdue(args []string) error {
	var overdue atomic.Pointer[chan bool] // what is waited for before an offer is sent
	usher.SetBreakpoint(func(step, moment string) {
		if c := overdue.Load(); c != nil && step == "send" && moment == "before" {
			<-*c
		}
	})
	d := usher.Dialer{Patient: true}
	target, err := d.Dial(context.Background(), args[0])
	if err != nil {
		return err
	}
	defer target.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	prefix := make([]byte, 3000)
	var o *usher.Offer
	told := make(verdicts, usher.MaxOpen)
	made := 0
	for ; o == nil || target.TryHandoff(o, timeout, told.done); made++ {
		client, server, err := connect(l)
		if err != nil {
			return err
		}
		defer client.Close()
		if o, err = usher.NewOffer(server, prefix, usher.Info{}); err != nil {
			return err
		}
	}
	open := target.Open()
	for range 2 * usher.MaxOpen {
		v, up := make(verdicts, 2), make(chan bool)
		overdue.Store(&up)
		if !target.TryHandoff(o, time.Millisecond, func(decided time.Time, err error) { v.done(decided, err); up <- true }) {
			return errors.New("its time was not up")
		}
		if got := <-v; !errors.Is(got.err, os.ErrDeadlineExceeded) || len(v) > 0 || target.Open() != open {
			return fmt.Errorf("told %v and %d times more; %d offers are open, there were %d", got.err, len(v), target.Open(), open)
		}
	}
	overdue.Store(nil)
	for range 10_000 { // and at a time of chance's own
		v := make(verdicts, 2)
		if target.TryHandoff(o, time.Duration(rand.Int64N(int64(4*time.Microsecond))), v.done) {
			<-v
		}
		if len(v) > 0 || target.Open() != open {
			return fmt.Errorf("told %d times more; %d offers are open, there were %d", len(v), target.Open(), open)
		}
	}
	target.Close()
	for range made - 1 {
		if got := <-told; !errors.Is(got.err, net.ErrClosed) {
			return fmt.Errorf("told %v when the target was closed", got.err)
		}
	}
	return nil
}

// TestATakerThatClaimsWhatWasNotSent loses its channel, and the giver keeps the connection.
func TestATakerThatClaimsWhatWasNotSent(t *testing.T) {
	faults.NoLeak(t)
	path, mapped := deafTaker(t, 0)
	e := newEar()
	target := e.dial(t, path)
	words := <-mapped
	made, o := fillChannel(t, target)
	over, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		for slot := len(made); ; slot++ {
			select {
			case <-over:
				return
			default:
			}
			if slot >= usher.MaxOpen {
				slot = len(made)
			}
			claim(words, byte(slot), atomic.LoadUint32(&words[slot*16])>>2)
		}
	}()
	began := time.Now()
	for _, connected := target.Taker(); connected && time.Since(began) < timeout; _, connected = target.Taker() {
		target.TryHandoff(o, timeout, func(time.Time, error) { t.Error("told of an offer that was not made") })
	}
	close(over)
	<-ended
	wantError(t, await(t, e.lost, "the taker"), ipc.ErrProtocol, "it claimed an offer that was never sent")
	for _, v := range made {
		wantError(t, v.await(t).err, ipc.ErrProtocol, "never sent")
	}
	must(o.Reclaim())(t).Close()
}

// TestWhatDoneMayDo has done ask the target, and make the next offer, whoever calls it.
func TestWhatDoneMayDo(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{Backlog: 2})
	go echoAll(l)
	target := dialPatient(t, l.Addr().String())
	const n = 50
	offers := make(chan *usher.Offer, n)
	for range n {
		offers <- freshOffer(t, "")
	}
	told := make(chan error, n)
	var next func(time.Time, error)
	next = func(_ time.Time, err error) {
		told <- err
		target.Taker()
		if target.Open() < 0 {
			t.Error("less than none is open")
		}
		select {
		case o := <-offers:
			if !target.TryHandoff(o, timeout, next) { // the call that has sent the last may not have returned
				go func() { next(time.Now(), target.Handoff(context.Background(), o)) }()
			}
		default:
		}
	}
	first := <-offers
	if !target.TryHandoff(first, timeout, next) {
		t.Fatal("the first could not be made")
	}
	for range n {
		if err := await(t, told, "an offer"); err != nil {
			t.Error(err)
		}
	}

	t.Run("also of one that is declined, or overdue, or when the target is closed", func(t *testing.T) {
		idle := listen(t, usher.ListenConfig{})
		target := dialPatient(t, idle.Addr().String())
		again := make(verdicts, 2)
		o := freshOffer(t, "")
		target.TryHandoff(o, time.Millisecond, func(time.Time, error) {
			if !target.TryHandoff(o, timeout, again.done) {
				t.Error("the same offer cannot be made again")
			}
			go target.Close()
		})
		wantError(t, again.await(t).err, net.ErrClosed, "")
		for target.Close() == nil {
			time.Sleep(time.Millisecond)
		}
	})
}

// TestWhenAClaimWasMade is what a taker says, within reason: not before the offer, and not after it was told.
func TestWhenAClaimWasMade(t *testing.T) {
	faults.NoLeak(t)
	for _, tt := range []struct {
		name string
		ago  uint32
	}{{"now", 0}, {"some time ago", 20_000}, {"before there was an offer", math.MaxUint32}} {
		t.Run(tt.name, func(t *testing.T) {
			taker := newRawTaker(t, 4, 2, func(c *ipc.Conn, words []uint32, slot byte, generation uint32) error {
				claim(words, slot, generation)
				time.Sleep(20 * time.Millisecond)
				return c.Send(lateMessage(1, slot, 0, generation, tt.ago))
			})
			target := dialPatient(t, taker.l.Addr().String())
			before := time.Now()
			v := try(t, target, freshOffer(t, ""), timeout)
			after := time.Now()
			got := v.await(t)
			ago := time.Duration(tt.ago) * time.Microsecond
			if got.err != nil || got.decided.Before(before) || got.decided.After(got.at) {
				t.Errorf("told %+v of an offer made at %v", got, before)
			}
			if tt.ago == math.MaxUint32 {
				if got.decided.After(after) {
					t.Errorf("claimed at %v; the offer was made at %v", got.decided, after)
				}
			} else if got.decided.After(got.at.Add(-ago)) {
				t.Errorf("claimed at %v, %v before %v", got.decided, ago, got.at)
			}
		})
	}
}

// TestManyTryHandoffs from several goroutines at once, to takers of which some are full and all come and go: each offer
// has one outcome, which its client agrees with.
func TestManyTryHandoffs(t *testing.T) {
	faults.NoLeak(t)
	for _, backlog := range []int{1, 2, usher.DefaultBacklog} {
		for _, patient := range []bool{false, true} {
			t.Run(fmt.Sprintf("backlog %d, patient=%t", backlog, patient), func(t *testing.T) {
				lc := usher.ListenConfig{Backlog: backlog, Replace: true}
				path := endpoint(t)
				l := must(lc.Listen(path))(t)
				go echoAll(l)
				d := usher.Dialer{Patient: patient}
				target := must(d.Dial(within(t, timeout), path))(t)
				defer target.Close()
				var wg sync.WaitGroup
				for i := range 4 {
					wg.Go(func() {
						for j := range 50 {
							tryOne(t, target, fmt.Sprintf("%d-%d", i, j))
						}
					})
				}
				for range 5 {
					time.Sleep(3 * time.Millisecond)
					l = must(lc.Listen(path))(t)
					go echoAll(l)
				}
				wg.Wait()
				l.Close()
			})
		}
	}
}

// tryOne offers until a taker has claimed.
func tryOne(t *testing.T, target *usher.Target, token string) {
	client, server := tcpPair(t)
	defer client.Close()
	o := newOffer(t, server, token, usher.Info{})
	for deadline := time.Now().Add(timeout); ; {
		v := make(verdicts, 2)
		err := error(nil)
		if target.TryHandoff(o, time.Duration(rand.Int64N(int64(2*time.Millisecond))), v.done) {
			err = v.await(t).err
		} else {
			err = target.Handoff(within(t, timeout), o)
		}
		v.wantNone(t)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Error(err)
			return
		}
	}
	client.CloseWrite()
	if got, err := io.ReadAll(client); err != nil || string(got) != token {
		t.Errorf("client %s read %q, %v", token, got, err)
	}
}
