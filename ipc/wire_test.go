//go:build darwin || freebsd || linux || netbsd || openbsd

package ipc_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

func init() {
	roles["echo"] = playEcho
	roles["starve-accept"] = playStarveAccept
	roles["starve-send"] = playStarveSend
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// large is a message that a channel has no room for: to send it is to wait.
var large = bytes.Repeat([]byte("0123456789abcdef"), 8<<16)

// beginSend sends large in the background and returns when a part of it is out.
func beginSend(t *testing.T, c *ipc.Conn, raw *net.UnixConn) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- c.Send(large) }()
	raw.SetReadDeadline(time.Now().Add(timeout))
	if _, err := io.ReadFull(raw, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return done
}

// readSent reads what is left of a message whose Send began.
func readSent(t *testing.T, raw *net.UnixConn) {
	t.Helper()
	const header = 16
	if _, err := io.CopyN(io.Discard, raw, header-1); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(large))
	if _, err := io.ReadFull(raw, got); err != nil || !bytes.Equal(got, large) {
		t.Fatalf("what came is not what was sent (%v)", err)
	}
}

// TestDeadlinesOfASendThatWaits changes deadlines before a Send and while it waits.
func TestDeadlinesOfASendThatWaits(t *testing.T) {
	never := time.Time{}
	far := func() time.Time { return time.Now().Add(time.Hour) }
	for _, test := range []struct {
		name          string
		before, under func(*ipc.Conn)
		late          bool
	}{
		{"none", nil, nil, false},
		{"one that comes while it waits", nil, func(c *ipc.Conn) { c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)) }, true},
		{"one that is over when it is set", nil, func(c *ipc.Conn) { c.SetWriteDeadline(past) }, true},
		{"one for both ways", nil, func(c *ipc.Conn) { c.SetDeadline(past) }, true},
		{"one set before", func(c *ipc.Conn) { c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) }, nil, true},
		{"one set before that is far", func(c *ipc.Conn) { c.SetWriteDeadline(far()) }, nil, false},
		{"one that was over, taken back", func(c *ipc.Conn) { c.SetWriteDeadline(past); c.SetWriteDeadline(never) }, nil, false},
		{"one taken back while it waits", func(c *ipc.Conn) { c.SetWriteDeadline(far()) }, func(c *ipc.Conn) { c.SetWriteDeadline(never) }, false},
		{"one brought nearer while it waits", func(c *ipc.Conn) { c.SetWriteDeadline(far()) }, func(c *ipc.Conn) { c.SetWriteDeadline(past) }, true},
		{"one for Receive", func(c *ipc.Conn) { c.SetReadDeadline(past) }, func(c *ipc.Conn) { c.SetReadDeadline(past) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults.NoLeak(t)
			c, raw := rawPair(t, ipc.Limits{})
			c.SetDeadline(never)
			// The first wait makes what the second finds made.
			for range 2 {
				if test.before != nil {
					test.before(c)
				}
				done := beginSend(t, c, raw)
				if test.under != nil {
					test.under(c)
				}
				if test.late {
					checkCutShort(t, c, <-done)
					return
				}
				readSent(t, raw)
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				c.SetDeadline(never)
			}
		})
	}
}

func checkCutShort(t *testing.T, c *ipc.Conn, err error) {
	t.Helper()
	var late net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("sent: %v", err)
	}
	c.SetDeadline(time.Time{})
	contains(t, c.Send(nil), "channel is broken")
}

// TestDeadlineOfASecondWait: the deadline holds also for a Send that finds the channel full when another has waited before.
func TestDeadlineOfASecondWait(t *testing.T) {
	c, raw := rawPair(t, ipc.Limits{})
	c.SetWriteDeadline(time.Time{})
	done := beginSend(t, c, raw)
	readSent(t, raw)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	var err error
	for err == nil {
		err = c.Send([]byte("small"))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("filled it until %v", err)
	}
	c.SetWriteDeadline(past)
	if sent, err := c.TrySend([]byte("small")); sent || runtime.GOOS == "linux" && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("TrySend when it is late: %v, %v", sent, err)
	}
}

func TestDeadlinesOfReceive(t *testing.T) {
	for _, test := range []struct {
		name string
		set  func(*ipc.Conn)
	}{
		{"its own", func(c *ipc.Conn) { c.SetReadDeadline(past) }},
		{"that of both", func(c *ipc.Conn) { c.SetDeadline(past) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := newPair(t)
			b.SetDeadline(time.Time{})
			done := make(chan error, 1)
			go func() { _, err := b.Receive(); done <- err }()
			time.Sleep(10 * time.Millisecond) // let it wait; the outcome is the same if it does not yet
			test.set(b)
			if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("received: %v", err)
			}
			b.SetDeadline(time.Time{})
			b.SetWriteDeadline(past) // which is not Receive's
			if err := a.Send([]byte("later")); err != nil {
				t.Fatal(err)
			}
			if m := must(b.Receive())(t); string(m.Data) != "later" {
				t.Errorf("received %q", m.Data)
			}
		})
	}
}

func TestDeadlinesOfAClosedChannel(t *testing.T) {
	a, _ := newPair(t)
	a.Close()
	for _, err := range []error{a.SetDeadline(past), a.SetReadDeadline(past), a.SetWriteDeadline(past)} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("set: %v", err)
		}
	}
}

// TestSendsThatWait has several that have to, one after another, and both ways at once.
func TestSendsThatWait(t *testing.T) {
	faults.NoLeak(t)
	a, b := newPair(t)
	const senders = 4
	var wg sync.WaitGroup
	for _, c := range []*ipc.Conn{a, b} {
		for range senders {
			wg.Go(func() {
				if err := c.Send(large[:1<<20]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			for range senders {
				m, err := c.Receive()
				if err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(m.Data, large[:1<<20]) {
					t.Error("what came is not what was sent")
				}
			}
		})
	}
	wg.Wait()
}

func TestPeerThatClosesEndsASendThatWaits(t *testing.T) {
	c, raw := rawPair(t, ipc.Limits{})
	done := beginSend(t, c, raw)
	raw.Close()
	if err := <-done; !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("sent: %v", err)
	}
	contains(t, c.Send(nil), "channel is broken")
}

// TestHalfClosedPeer ends what is received, not what is sent.
func TestHalfClosedPeer(t *testing.T) {
	c, raw := rawPair(t, ipc.Limits{})
	done := make(chan error, 1)
	go func() { _, err := c.Receive(); done <- err }()
	time.Sleep(10 * time.Millisecond) // let it wait; the outcome is the same if it does not yet
	raw.CloseWrite()
	if err := <-done; err != io.EOF {
		t.Errorf("received %v, want a bare io.EOF", err)
	}
	if err := c.Send([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	want := frame(0, nil, []byte("hi"))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(raw, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %q, %v", got, err)
	}
}

// playEcho sends back what it receives.
func playEcho([]string) error {
	c, err := ipc.Inherited()
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		m, err := c.Receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var with []syscall.Conn
		for _, a := range m.Attachments() {
			f, err := a.File()
			if err != nil {
				return err
			}
			defer f.Close()
			with = append(with, f)
		}
		if err := c.Send(m.Data, with...); err != nil {
			return err
		}
	}
}

// TestEveryMessageWakesWhoWaitsForIt: one that does not, none comes after which could.
func TestEveryMessageWakesWhoWaitsForIt(t *testing.T) {
	faults.NoLeak(t)
	c, _ := startInheriting(t, "echo", false)
	null := must(os.Open(os.DevNull))(t)
	defer null.Close()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		data := large[:r.IntN(100)]
		var with []syscall.Conn
		switch r.IntN(50) {
		case 0:
			data = large[:r.IntN(1<<20)]
		case 1:
			with = append(with, null)
		}
		burst := 1 + r.IntN(3)
		sent := make(chan error, 1)
		go func() {
			for range burst {
				if err := c.Send(data, with...); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		for range burst {
			m := must(c.Receive())(t)
			if !bytes.Equal(m.Data, data) || len(m.Attachments()) != len(with) {
				t.Fatalf("round %d: %d bytes came back of %d", i, len(m.Data), len(data))
			}
			m.Close()
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
}

// TestCloseAmongSends closes channels while others send on them, and opens sockets that get their descriptors' numbers:
// nothing that was for the channel may come there.
func TestCloseAmongSends(t *testing.T) {
	faults.NoLeak(t)
	for range 100 {
		a, b, err := ipc.Pair()
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		send := func(send func() error) {
			wg.Go(func() {
				var err error
				for err == nil {
					err = send()
				}
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("sent until %v", err)
				}
			})
		}
		send(func() error { _, err := a.TrySend([]byte("small")); return err })
		send(func() error { return a.Send([]byte("small")) })
		wg.Go(func() { // so that Send waits only now and then
			for {
				if _, err := b.Receive(); err != nil {
					return
				}
			}
		})
		wg.Go(func() {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
			checkNothingComes(t)
		})
		wg.Wait()
		b.Close()
	}
}

func checkNothingComes(t *testing.T) {
	for range 10 {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Error(err)
			return
		}
		runtime.Gosched()
		for _, fd := range fds {
			if n, _, err := unix.Recvfrom(fd, make([]byte, 100), unix.MSG_DONTWAIT); err != unix.EAGAIN {
				t.Errorf("%d bytes came to a socket that is no channel's (%v)", n, err)
			}
			defer unix.Close(fd)
		}
	}
}

// TestForgottenChannelEnds: its peer learns, and its descriptors come back.
func TestForgottenChannelEnds(t *testing.T) {
	faults.NoLeak(t)
	for _, waited := range []bool{false, true} {
		t.Run(fmt.Sprintf("one that has waited to send: %v", waited), func(t *testing.T) {
			faults.NoLeak(t)
			peer := forget(t, waited)
			defer peer.Close()
			done := make(chan error, 1)
			go func() { _, err := peer.Receive(); done <- err }()
			for deadline := time.Now().Add(timeout); ; time.Sleep(time.Millisecond) {
				runtime.GC()
				select {
				case err := <-done:
					if err != io.EOF {
						t.Errorf("received %v, want a bare io.EOF", err)
					}
					return
				default:
				}
				if time.Now().After(deadline) {
					t.Fatal("a channel that nobody has any more is still open")
				}
			}
		})
	}
}

// TestClosedChannelLeavesItsNumbersAlone: what gets the numbers of its descriptors stays open when it is collected.
func TestClosedChannelLeavesItsNumbersAlone(t *testing.T) {
	faults.NoLeak(t)
	a, b, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	collected := make(chan struct{})
	runtime.AddCleanup(a, func(c chan struct{}) { close(c) }, collected)
	a, b = nil, nil
	var fds []int
	for range 20 {
		fds = append(fds, must(unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0))(t))
	}
	deadline := time.After(timeout)
	for done := false; !done; time.Sleep(time.Millisecond) {
		runtime.GC()
		select {
		case <-collected:
			done = true
		case <-deadline:
			t.Fatal("it is never collected")
		default:
		}
	}
	runtime.GC()
	time.Sleep(10 * time.Millisecond) // for cleanups that are queued
	for _, fd := range fds {
		if err := unix.Close(fd); err != nil {
			t.Errorf("descriptor %d was closed by somebody else: %v", fd, err)
		}
	}
}

// forget returns one end of a pair and forgets the other.
func forget(t *testing.T, waited bool) *ipc.Conn {
	a, b, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	if waited {
		done := make(chan error, 1)
		go func() { done <- a.Send(large) }()
		must(b.Receive())(t)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// playStarveAccept accepts at the endpoint args[0] with room for a few descriptors, until that succeeds.
func playStarveAccept(args []string) error {
	l, err := ipc.Listen(args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	room, err := faults.LimitDescriptors()
	if err != nil {
		return err
	}
	open := faults.Descriptors()
	fmt.Println("ready")
	c, err := acceptWith(room, l)
	if err != nil {
		return err
	}
	defer c.Close()
	m, err := c.Receive()
	if err != nil || string(m.Data) != "first" {
		return fmt.Errorf("received %v, %v", m, err)
	}
	c.Close()
	if err := faults.SettleDescriptors(open); err != nil {
		return err
	}
	// One that is kept when the listener closes goes with it.
	if err := room(1); err != nil {
		return err
	}
	if c, err := l.Accept(); err == nil {
		c.Close() // where a channel takes no more
	} else if !errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("accepted: %w", err)
	}
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("accepted from a closed listener: %v", err)
	}
	room(100)
	return faults.SettleDescriptors(open - 1)
}

// acceptWith gives an Accept room for one descriptor more each time.
func acceptWith(room func(int) error, l *ipc.Listener) (*ipc.Conn, error) {
	for n := 0; ; n++ {
		if err := room(n); err != nil {
			return nil, err
		}
		c, err := l.Accept()
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, unix.EMFILE) || n > 10 {
			return nil, fmt.Errorf("accepted with room for %d: %w", n, err)
		}
	}
}

// TestAcceptAtTheDescriptorLimitLosesNobody: who connects meanwhile waits.
func TestAcceptAtTheDescriptorLimitLosesNobody(t *testing.T) {
	path := endpoint(t)
	cmd := faults.Command(t, "starve-accept", path)
	start(t, cmd)()
	first := must(ipc.Dial(within(t), path))(t)
	defer first.Close()
	if err := first.Send([]byte("first")); err != nil {
		t.Fatal(err)
	}
	first.SetReadDeadline(time.Now().Add(timeout))
	if _, err := first.Receive(); err != io.EOF {
		t.Errorf("received %v", err)
	}
	second := must(ipc.Dial(within(t), path))(t)
	defer second.Close()
	second.SetReadDeadline(time.Now().Add(timeout))
	if _, err := second.Receive(); err != io.EOF {
		t.Errorf("the second received %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// playStarveSend sends at its limit of open files on a channel that is full.
func playStarveSend([]string) error {
	c, err := ipc.Inherited()
	if err != nil {
		return err
	}
	defer c.Close()
	room, err := faults.LimitDescriptors()
	if err != nil {
		return err
	}
	if err := room(0); err != nil {
		return err
	}
	if err := fill(c); err != nil {
		return err
	}
	c.SetWriteDeadline(time.Time{})
	fmt.Println("ready")
	if err := c.Send([]byte("waited")); err != nil {
		return err
	}
	if err := fill(c); err != nil {
		return err
	}
	c.SetWriteDeadline(time.Time{})
	done := make(chan error, 1)
	go func() {
		for {
			if err := c.Send([]byte("never")); err != nil {
				done <- err
				return
			}
		}
	}()
	time.Sleep(20 * time.Millisecond) // let it wait; the outcome is the same if it does not yet
	if err := c.Close(); err != nil {
		return err
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("sent until %w", err)
	}
	return nil
}

// fill sends until a deadline ends a Send that waits, by which nothing is lost: a small message goes whole or not at all.
func fill(c *ipc.Conn) error {
	for {
		c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		err := c.Send([]byte("fill"))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("filling: %w", err)
		}
	}
}

func TestSendAtTheDescriptorLimit(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("to wait takes no descriptor there, and a small message may go in parts")
	}
	ours, theirs := newPair(t)
	cmd := faults.Command(t, "starve-send")
	if err := theirs.PassTo(cmd); err != nil {
		t.Fatal(err)
	}
	hear := start(t, cmd)
	theirs.Close()
	hear()
	time.Sleep(20 * time.Millisecond) // let it wait; the outcome is the same if it does not yet
	for {
		m, err := ours.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Data) == "waited" {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	for {
		if _, err := ours.Receive(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
