//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package ipc_test

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

func TestSocket(t *testing.T) {
	faults.NoLeak(t)
	a, b := newPair(t)
	client, server := tcpPair(t, "tcp4", "127.0.0.1:0")
	server.SetNoDelay(false)
	attachment := pass(t, a, b, server)[0]
	f, err := attachment.Socket()
	if isWindows {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("the error is %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	f.SetReadDeadline(time.Now().Add(timeout))
	io.WriteString(client, "hello")
	buf := make([]byte, 5)
	if _, err := io.ReadFull(f, buf); err != nil || string(buf) != "hello" {
		t.Errorf("read %q, %v", buf, err)
	}

	t.Run("what is none is left as it was", func(t *testing.T) {
		null := must(os.Open(os.DevNull))(t)
		defer null.Close()
		attachment := pass(t, a, b, null)[0]
		_, err := attachment.Socket()
		contains(t, err, "no stream socket")
		must(attachment.File())(t).Close()
	})
}

func TestAttachmentErr(t *testing.T) {
	a, b := newPair(t)
	null := must(os.Open(os.DevNull))(t)
	defer null.Close()
	if err := a.Send(nil, null, null); err != nil {
		t.Fatal(err)
	}
	m := must(b.Receive())(t)
	taken, left := m.Attachments()[0], m.Attachments()[1]
	if err := taken.Err(); err != nil {
		t.Errorf("it can be taken: %v", err)
	}
	must(taken.File())(t).Close()
	contains(t, taken.Err(), "was taken already")
	m.Close()
	contains(t, left.Err(), "message is closed")
}

func TestErrAttachment(t *testing.T) {
	a, b := newPair(t)
	_, server := tcpPair(t, "tcp4", "127.0.0.1:0")
	server.Close()
	null := must(os.Open(os.DevNull))(t)
	defer null.Close()
	err := a.Send(nil, null, server)
	if !errors.Is(err, ipc.ErrAttachment) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("the error is %v; want one that is ErrAttachment and net.ErrClosed", err)
	}
	contains(t, err, "attachment 1")
	pass(t, a, b, null) // the channel lives on
}

// TestTrySend fills a channel that nobody reads, then reads it.
func TestTrySend(t *testing.T) {
	faults.NoLeak(t)
	a, b := newPair(t)
	null := must(os.Open(os.DevNull))(t)
	defer null.Close()
	sent := 0
	for ; sent < 100_000; sent++ {
		ok, err := a.TrySend([]byte("0123456789"), null)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
	}
	if linux := runtime.GOOS == "linux"; linux && sent == 0 || !linux && sent > 0 {
		t.Errorf("%d messages were sent", sent)
	}
	if ok, err := a.TrySend(make([]byte, 1<<16)); ok || err != nil {
		t.Errorf("a large message: %v, %v", ok, err)
	}
	for range sent {
		m := must(b.Receive())(t)
		if string(m.Data) != "0123456789" || len(m.Attachments()) != 1 {
			t.Fatalf("received %q with %d attachments", m.Data, len(m.Attachments()))
		}
		m.Close()
	}
	pass(t, a, b, null)
	a.Close()
	if ok, err := a.TrySend(nil); ok || !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v, %v", ok, err)
	}
}

// TestReplacing has each listener told that is replaced, also one that comes while another is told.
func TestReplacing(t *testing.T) {
	if isWindows {
		t.Skip("a pipe's name can have one listener")
	}
	faults.NoLeak(t)
	path := endpoint(t)
	told := 0
	lc := ipc.ListenConfig{Replace: true, Replacing: func() error { told++; return nil }}
	first := must(lc.Listen(path))(t)
	defer first.Close()
	if told != 0 {
		t.Errorf("told %d times, where nobody has listened", told)
	}
	var second *ipc.Listener
	lc.Replacing = func() error {
		told++
		if second == nil {
			second = must((&ipc.ListenConfig{Replace: true}).Listen(path))(t)
		}
		must(ipc.Dial(within(t), path))(t).Close()
		return nil
	}
	third := must(lc.Listen(path))(t)
	defer third.Close()
	defer second.Close()
	if told != 2 {
		t.Errorf("told %d times, want the first and the second", told)
	}
	if !first.Replaced() || !second.Replaced() {
		t.Errorf("the first is replaced: %v, the second: %v", first.Replaced(), second.Replaced())
	}
	cannot := errors.New("it cannot be told")
	lc.Replacing = func() error { return cannot }
	if _, err := lc.Listen(path); !errors.Is(err, cannot) || third.Replaced() {
		t.Errorf("the error is %v, the third is replaced: %v", err, third.Replaced())
	}
}

// TestReplace listens where another does already.
func TestReplace(t *testing.T) {
	if isWindows {
		t.Skip("a pipe's name can have one listener")
	}
	faults.NoLeak(t)
	first := must(ipc.Listen(endpoint(t)))(t)
	defer first.Close()
	path := first.Addr().String()
	lc := ipc.ListenConfig{Replace: true}
	second := must(lc.Listen(path))(t)
	defer second.Close()
	if !first.Replaced() || second.Replaced() {
		t.Errorf("the first is replaced: %v, the second: %v", first.Replaced(), second.Replaced())
	}
	got := make(chan *ipc.Conn, 1)
	go func() { c, _ := second.Accept(); got <- c }()
	must(ipc.Dial(within(t), path))(t).Close()
	(<-got).Close()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the first has taken the second's socket file with it: %v", err)
	}
	if _, err := ipc.Listen(path); err == nil {
		t.Error("another one may listen without being told to replace")
	}
}
