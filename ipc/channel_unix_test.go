//go:build darwin || freebsd || linux || netbsd || openbsd

package ipc_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

// TestADialedChannelGoesOnElsewhere at either end, with what its peer had sent meanwhile, and the peer that the kernel knows.
func TestADialedChannelGoesOnElsewhere(t *testing.T) {
	faults.NoLeak(t)
	a, b := newPair(t)
	dialed, accepted := newChannel(t, ipc.Dialer{}, ipc.ListenConfig{})
	if err := accepted.Send([]byte("before")); err != nil {
		t.Fatal(err)
	}
	attachments := pass(t, a, b, dialed, accepted)
	dialed.Close()
	accepted.Close()
	var ends [2]*ipc.Conn
	for i, attachment := range attachments {
		ends[i] = must(attachment.Channel(ipc.Limits{}))(t)
		defer ends[i].Close()
		ends[i].SetDeadline(time.Now().Add(timeout))
		if p := must(ends[i].Peer())(t); p.UID != os.Geteuid() {
			t.Errorf("the peer is %+v", p)
		}
	}
	if m := must(ends[0].Receive())(t); string(m.Data) != "before" {
		t.Errorf("received %q", m.Data)
	}
	pass(t, ends[0], ends[1])
}

// TestAChannelInTheMiddleOfAMessage cannot be sent before the rest has come.
func TestAChannelInTheMiddleOfAMessage(t *testing.T) {
	faults.NoLeak(t)
	a, b := newPair(t)
	c, raw := rawPair(t, ipc.Limits{})
	whole := frame(0, nil, []byte("hello"))
	for _, cut := range []int{3, 18} { // within the header, and within the data
		sendRaw(t, raw, whole[:cut], 0)
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		err := a.Send(nil, c)
		if !errors.Is(err, ipc.ErrAttachment) {
			t.Fatalf("sent: %v", err)
		}
		contains(t, err, "not received yet")
		sendRaw(t, raw, whole[cut:], 0)
		c.SetReadDeadline(time.Now().Add(timeout))
		must(c.Receive())(t)
	}
	sendRaw(t, raw, whole, 0)
	got := must(pass(t, a, b, c)[0].Channel(ipc.Limits{}))(t)
	defer got.Close()
	if m := must(got.Receive())(t); string(m.Data) != "hello" {
		t.Errorf("received %q", m.Data)
	}
}

// TestASocketWithoutAPeerIsNoChannel though it is one of the Unix domain.
func TestASocketWithoutAPeerIsNoChannel(t *testing.T) {
	faults.NoLeak(t)
	a, b := newPair(t)
	fd := must(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0))(t)
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	l := must(net.Listen("unix", endpoint(t)))(t)
	defer l.Close()
	attachments := pass(t, a, b, f, l.(*net.UnixListener))
	for _, attachment := range attachments {
		if _, err := attachment.Channel(ipc.Limits{}); err == nil {
			t.Error("it was taken as a channel")
		}
	}
}

// TestBothEndsOfAPairAreSent, to different processes; until they are closed here each has the other's for its peer.
func TestBothEndsOfAPairAreSent(t *testing.T) {
	faults.NoLeak(t)
	a, b := newPair(t)
	child, cmd := startInheriting(t, "inherit", false)
	one, two := newPair(t)
	if err := child.Send([]byte("channel"), one); err != nil {
		t.Fatal(err)
	}
	must(pass(t, a, b, two)[0].Channel(ipc.Limits{}))(t).Close()
	if p := must(two.Peer())(t); p.PID != cmd.Process.Pid {
		t.Errorf("the peer of one end is process %d, want %d", p.PID, cmd.Process.Pid)
	}
	if p := must(one.Peer())(t); p.PID != os.Getpid() {
		t.Errorf("the peer of the other is process %d, want %d", p.PID, os.Getpid())
	}
}
