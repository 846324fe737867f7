//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

// newChannel returns a taker and a giver at the two ends of one channel.
func newChannel(t testing.TB, lc usher.ListenConfig, d usher.Dialer) (*usher.Listener, *usher.Target) {
	t.Helper()
	a, b := pair(t)
	l := must(lc.ListenOn(a))(t)
	t.Cleanup(func() { l.Close() })
	target := must(d.DialOn(within(t, timeout), b))(t)
	t.Cleanup(func() { target.Close() })
	return l, target
}

func pair(t testing.TB) (a, b *ipc.Conn) {
	t.Helper()
	a, b, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestOneChannel carries connections, and their reports, without an endpoint.
func TestOneChannel(t *testing.T) {
	faults.NoLeak(t)
	e := newEar()
	l, target := newChannel(t, usher.ListenConfig{}, *e.dialer())
	client, c := handOver(t, target, l, "prefix")
	if p := c.Giver(); p.PID != os.Getpid() {
		t.Errorf("the giver is %+v", p)
	}
	must(io.ReadFull(c, make([]byte, 6)))(t)
	checkConversation(t, client, c)
	c.Close()
	checkBytes(t, await(t, e.reports, "the end"), 11, 5)
	if l.Addr().String() != "pair" || target.Addr().String() != "pair" {
		t.Errorf("the addresses are %s and %s", l.Addr(), target.Addr())
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	wantError(t, l.Close(), net.ErrClosed, "close usher pair")
}

// TestAGiverThatLeavesItsOneChannel has made offers, which are accepted before Accept says that no more will come.
func TestAGiverThatLeavesItsOneChannel(t *testing.T) {
	for name, leave := range map[string]func(target *usher.Target) error{
		"by Close":    (*usher.Target).Close,
		"by Shutdown": func(target *usher.Target) error { go target.Shutdown(within(t, timeout)); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			faults.NoLeak(t)
			l, target := newChannel(t, usher.ListenConfig{}, *newEar().dialer())
			_, c := handOver(t, target, l, "")
			accepted := make(chan error, 1)
			go func() {
				_, err := l.Accept()
				accepted <- err
			}()
			if err := leave(target); err != nil {
				t.Error(err)
			}
			err := await(t, accepted, "the end")
			wantError(t, err, net.ErrClosed, "accept usher pair: the channel brings no more offers")
			_, err = l.Accept()
			wantError(t, err, net.ErrClosed, "the channel brings no more offers")
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			c.Close()
		})
	}
}

// TestOffersOutliveAGiverThatIsGone: they have reached the taker.
func TestOffersOutliveAGiverThatIsGone(t *testing.T) {
	for name, accepts := range map[string]bool{"and are accepted": true, "unless the taker closes": false} {
		t.Run(name, func(t *testing.T) {
			faults.NoLeak(t)
			a, giver := pair(t)
			l := must(new(usher.ListenConfig).ListenOn(a))(t)
			defer l.Close()
			client := offerRaw(t, giver, 0)
			giver.Close()
			if accepts {
				c := must(l.Accept())(t)
				defer c.Close()
				checkConversation(t, client, c)
			} else if isWindows {
				t.Skip("there a connection stays in the process if nobody has received it: see ipc.Conn.Close")
			} else if err := l.Close(); err != nil {
				t.Error(err)
			}
			_, err := l.Accept()
			wantError(t, err, net.ErrClosed, "")
			if accepts {
				return
			}
			if n, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the client read %d bytes, %v; its connection should have ended", n, err)
			}
		})
	}
}

// TestATargetOfOneChannel does not connect anew.
func TestATargetOfOneChannel(t *testing.T) {
	faults.NoLeak(t)
	lost := make(chan error, 1)
	l, target := newChannel(t, usher.ListenConfig{}, usher.Dialer{Lost: func(_ ipc.Peer, err error) { lost <- err }})
	client, server := tcpPair(t)
	o := newOffer(t, server, "", usher.Info{})
	handed := make(chan error, 1)
	go func() { handed <- target.Handoff(within(t, timeout), o) }()
	for target.Open() == 0 {
	}
	l.Close()
	wantError(t, <-handed, net.ErrClosed, "handoff usher pair: its channel has ended")
	await(t, lost, "the channel's end")
	wantError(t, target.Handoff(within(t, timeout), o), net.ErrClosed, "its channel has ended")
	wantError(t, target.Connect(within(t, timeout)), net.ErrClosed, "its channel has ended")
	c := must(o.Reclaim())(t)
	defer c.Close()
	checkConversation(t, client, c)
}

// TestChannelsThatAreNotTaken are closed.
func TestChannelsThatAreNotTaken(t *testing.T) {
	faults.NoLeak(t)
	nobody := func(ipc.Peer) error { return errors.New("nobody is good enough") }
	for name, tt := range map[string]struct {
		take func(c *ipc.Conn) error
		is   error
		want string
	}{
		"a giver that is denied": {func(c *ipc.Conn) error {
			_, err := (&usher.ListenConfig{Policy: nobody}).ListenOn(c)
			return err
		}, ipc.ErrDenied, "listen usher pair: peer denied: nobody is good enough"},
		"a taker that is denied": {func(c *ipc.Conn) error {
			_, err := (&usher.Dialer{Policy: nobody}).DialOn(within(t, timeout), c)
			return err
		}, ipc.ErrDenied, "dial usher pair: peer denied: nobody is good enough"},
		"one in the place of another": {func(c *ipc.Conn) error {
			_, err := (&usher.ListenConfig{Replace: true}).ListenOn(c)
			return err
		}, nil, "one of Replace, Mode and SecurityDescriptor is set"},
		"one with a mode": {func(c *ipc.Conn) error {
			_, err := (&usher.ListenConfig{Mode: 0o600}).ListenOn(c)
			return err
		}, nil, "one of Replace, Mode and SecurityDescriptor is set"},
		"one that is closed": {func(c *ipc.Conn) error {
			c.Close()
			_, err := new(usher.Dialer).DialOn(within(t, timeout), c)
			return err
		}, net.ErrClosed, "dial usher pair"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			err := tt.take(b)
			wantError(t, err, tt.is, tt.want)
			if _, err := a.Receive(); err != io.EOF {
				t.Errorf("the channel is not closed: %v", err)
			}
		})
	}
}

// TestNobodyIsReplacedOnAChannel, which is no endpoint.
func TestNobodyIsReplacedOnAChannel(t *testing.T) {
	faults.NoLeak(t)
	refused := make(chan error, 1)
	a, giver := pair(t)
	l := must((&usher.ListenConfig{Refused: func(err error) { refused <- err }}).ListenOn(a))(t)
	defer l.Close()
	if err := giver.Send(head(5, 0, 0, 0)); err != nil {
		t.Fatal(err)
	}
	_, err := l.Accept()
	wantError(t, err, net.ErrClosed, "the channel brings no more offers")
	wantError(t, <-refused, ipc.ErrProtocol, "it began with a message of type 5")
}
