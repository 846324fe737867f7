//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package ipc_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

// TestAChannelArrivesAsAChannel sends an end of a pair; its new owner and the end that was kept converse, with
// deadlines and to a bare io.EOF.
func TestAChannelArrivesAsAChannel(t *testing.T) {
	faults.NoLeak(t)
	a, b := newPair(t)
	kept, sent := newPair(t)
	sent.SetDeadline(time.Time{})
	got := must(pass(t, a, b, sent)[0].Channel(ipc.Limits{Data: 10}))(t)
	defer got.Close()
	if err := sent.Close(); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]*ipc.Conn{"kept": kept, "received": got} {
		if p, err := c.Peer(); err != nil || p.PID != os.Getpid() {
			t.Errorf("the end that was %s has the peer %+v, %v", name, p, err)
		}
	}
	got.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := got.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("received at the deadline: %v", err)
	}
	got.SetReadDeadline(time.Now().Add(timeout))
	_, server := tcpPair(t, "tcp4", "127.0.0.1:0")
	pass(t, kept, got, server)
	pass(t, got, kept, server)
	if err := got.Send(make([]byte, 11)); !errors.Is(err, ipc.ErrTooLarge) {
		t.Errorf("sent more than the limit of the channel: %v", err)
	}
	kept.Close()
	if _, err := got.Receive(); err != io.EOF {
		t.Errorf("received at the end: %v", err)
	}
}

// TestChannelsThatCannotBeSent are refused by name, as other attachments are, and stay usable.
func TestChannelsThatCannotBeSent(t *testing.T) {
	faults.NoLeak(t)
	a, b := newPair(t)
	refused := func(t *testing.T, c *ipc.Conn, want string) {
		t.Helper()
		err := a.Send(nil, c)
		if !errors.Is(err, ipc.ErrAttachment) {
			t.Errorf("sent: %v, want ErrAttachment", err)
			return
		}
		contains(t, err, want)
	}
	t.Run("one with a message that was not received", func(t *testing.T) {
		other, c := newPair(t)
		for range 2 { // which come in one read
			if err := other.Send([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		must(c.Receive())(t)
		refused(t, c, "not received yet")
		must(c.Receive())(t)
	})
	t.Run("one on which a Receive waits", func(t *testing.T) {
		for err := error(nil); err == nil; { // again if it did not wait yet
			other, c := newPair(t)
			received := make(chan error)
			go func() {
				received <- nil
				_, err := c.Receive()
				received <- err
			}()
			<-received
			time.Sleep(time.Millisecond)
			if err = a.Send(nil, c); err != nil {
				contains(t, err, "a Receive is under way")
				other.Send(nil)
			} else {
				must(b.Receive())(t).Close()
				c.Close()
			}
			if receiveErr := <-received; err != nil && receiveErr != nil {
				t.Error(receiveErr)
			}
		}
	})
	t.Run("the one that it would be sent on", func(t *testing.T) { refused(t, a, "a Send is under way") })
	t.Run("one that is closed", func(t *testing.T) {
		_, c := newPair(t)
		c.Close()
		refused(t, c, net.ErrClosed.Error())
	})
	if err := a.Send([]byte("still good")); err != nil {
		t.Fatal(err)
	}
	if m := must(b.Receive())(t); string(m.Data) != "still good" {
		t.Errorf("received %q", m.Data)
	}
}

// TestWhatIsNoChannel is not taken for one, and left as it was.
func TestWhatIsNoChannel(t *testing.T) {
	faults.NoLeak(t)
	a, b := newPair(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	null := must(os.Open(os.DevNull))(t)
	defer null.Close()
	_, server := tcpPair(t, "tcp4", "127.0.0.1:0")
	attachments := pass(t, a, b, l.(*net.TCPListener), null, server)
	for i, want := range []string{"it is a listener", "it is a file", "it is a connection"} {
		_, err := attachments[i].Channel(ipc.Limits{})
		contains(t, err, want)
	}
	must(attachments[0].Listener())(t).Close()
	must(attachments[1].File())(t).Close()
	must(attachments[2].Conn())(t).Close()
}
