//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package ipc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

func TestMessagesOfEverySizeArriveWhole(t *testing.T) {
	faults.NoLeak(t)
	const limit = 1 << 20
	limits := ipc.Limits{Data: limit}
	from, to := newChannel(t, ipc.Dialer{Limits: limits}, ipc.ListenConfig{Limits: limits})
	sizes := []int{0, 1, 15, 16, 17, 16383, 16384, 16385, 32767, 32768, 32769, 65535, 65536, 65537, 200_000, limit - 1, limit, 0}
	go func() {
		for i, size := range sizes {
			if err := from.Send(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
				t.Error(err)
			}
		}
		from.Close()
	}()
	for i, size := range sizes {
		m := must(to.Receive())(t)
		if !bytes.Equal(m.Data, bytes.Repeat([]byte{byte(i)}, size)) {
			t.Errorf("message %d of %d bytes came as %d bytes", i, size, len(m.Data))
		}
	}
	if _, err := to.Receive(); err != io.EOF {
		t.Errorf("at the end: %v, want a bare io.EOF", err)
	}
	if _, err := to.Receive(); err != io.EOF {
		t.Errorf("after the end: %v, want a bare io.EOF", err)
	}
}

func TestMessagesOverTheLimitsAreRefused(t *testing.T) {
	limits := ipc.Limits{Data: 100, Attachments: 1}
	from, to := newChannel(t, ipc.Dialer{Limits: limits}, ipc.ListenConfig{Limits: limits})
	f := must(os.Open(os.DevNull))(t)
	defer f.Close()
	if err := from.Send(make([]byte, 101)); !errors.Is(err, ipc.ErrTooLarge) {
		t.Errorf("too much data: %v", err)
	}
	if err := from.Send(nil, f, f); !errors.Is(err, ipc.ErrTooLarge) {
		t.Errorf("too many attachments: %v", err)
	}
	if err := from.Send([]byte("fits")); err != nil {
		t.Fatal(err)
	}
	if m := must(to.Receive())(t); string(m.Data) != "fits" {
		t.Errorf("received %q", m.Data)
	}
}

func TestAnnouncedSizeOverTheReceiversLimitBreaksTheChannel(t *testing.T) {
	from, to := newChannel(t, ipc.Dialer{}, ipc.ListenConfig{Limits: ipc.Limits{Data: 100}})
	if err := from.Send(make([]byte, 101)); err != nil {
		t.Fatal(err)
	}
	_, err := to.Receive()
	if !errors.Is(err, ipc.ErrProtocol) {
		t.Errorf("received %v", err)
	}
	contains(t, err, "message of 101 bytes, limit 100")
	if _, err := to.Receive(); !errors.Is(err, ipc.ErrProtocol) {
		t.Errorf("received again: %v", err)
	}
	contains(t, to.Send(nil), "channel is broken")
}

// TestManySendersAndReceivers checks that messages stay whole and in order by sender and keep their
// own attachments: each carries a file that holds what the data says.
func TestManySendersAndReceivers(t *testing.T) {
	faults.NoLeak(t)
	const senders, messages = 4, 150
	dir := t.TempDir()
	from, to := newChannel(t, ipc.Dialer{}, ipc.ListenConfig{})
	var sending sync.WaitGroup
	for s := range senders {
		sending.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(s)))
			for i := range messages {
				if err := sendMarked(from, dir, s, i, r); err != nil {
					t.Errorf("sender %d, message %d: %v", s, i, err)
					return
				}
			}
		})
	}
	go func() { sending.Wait(); from.Close() }()
	var mu sync.Mutex
	seen := make(map[[2]uint32]bool)
	var receiving sync.WaitGroup
	for range 3 {
		receiving.Go(func() {
			last := map[uint32]int{}
			for {
				m, err := to.Receive()
				if err == io.EOF {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				s, i, err := checkMarked(m)
				m.Close()
				if err != nil {
					t.Error(err)
					return
				}
				if before, ok := last[s]; ok && int(i) <= before {
					t.Errorf("sender %d: message %d came after %d", s, i, before)
				}
				last[s] = int(i)
				mu.Lock()
				if seen[[2]uint32{s, i}] {
					t.Errorf("sender %d: message %d came twice", s, i)
				}
				seen[[2]uint32{s, i}] = true
				mu.Unlock()
			}
		})
	}
	receiving.Wait()
	if len(seen) != senders*messages {
		t.Errorf("%d messages came, sent were %d", len(seen), senders*messages)
	}
}

// sendMarked sends message i of sender s, of random size, with 0 to 2 files that name it.
func sendMarked(c *ipc.Conn, dir string, s, i int, r *rand.Rand) error {
	size := 12 + r.IntN(100)
	if r.IntN(4) == 0 {
		size += r.IntN(200_000)
	}
	files := r.IntN(3)
	data := make([]byte, size)
	binary.LittleEndian.PutUint32(data, uint32(s))
	binary.LittleEndian.PutUint32(data[4:], uint32(i))
	binary.LittleEndian.PutUint32(data[8:], uint32(files))
	for j := 12; j < size; j++ {
		data[j] = byte(s*31 + i)
	}
	opened := make([]*os.File, files)
	for j := range opened {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d-%d-%d", s, i, j)))
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := fmt.Fprintf(f, "%d %d %d", s, i, j); err != nil {
			return err
		}
		opened[j] = f
	}
	switch files {
	case 1:
		return c.Send(data, opened[0])
	case 2:
		return c.Send(data, opened[0], opened[1])
	}
	return c.Send(data)
}

func checkMarked(m *ipc.Message) (s, i uint32, err error) {
	s, i = binary.LittleEndian.Uint32(m.Data), binary.LittleEndian.Uint32(m.Data[4:])
	files := binary.LittleEndian.Uint32(m.Data[8:])
	for _, b := range m.Data[12:] {
		if b != byte(s*31+i) {
			return s, i, fmt.Errorf("sender %d, message %d: mixed with another", s, i)
		}
	}
	if len(m.Attachments()) != int(files) {
		return s, i, fmt.Errorf("sender %d, message %d: %d files, want %d", s, i, len(m.Attachments()), files)
	}
	for j, a := range m.Attachments() {
		f, err := a.File()
		if err != nil {
			return s, i, err
		}
		buf := make([]byte, 100)
		n, err := f.ReadAt(buf, 0)
		f.Close()
		if want := fmt.Sprintf("%d %d %d", s, i, j); string(buf[:n]) != want {
			return s, i, fmt.Errorf("file holds %q, want %q (%v)", buf[:n], want, err)
		}
	}
	return s, i, nil
}

func TestReceiveEndsAtItsDeadline(t *testing.T) {
	a, b := newChannel(t, ipc.Dialer{}, ipc.ListenConfig{})
	a.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err := a.Receive()
	var timeoutErr net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeoutErr) || !timeoutErr.Timeout() {
		t.Errorf("at the deadline: %v", err)
	}
	a.SetReadDeadline(time.Now().Add(timeout))
	if err := b.Send([]byte("later")); err != nil {
		t.Fatal(err)
	}
	if m := must(a.Receive())(t); string(m.Data) != "later" {
		t.Errorf("received %q", m.Data)
	}
}

func TestSendCutShortBreaksTheChannel(t *testing.T) {
	from, to := newChannel(t, ipc.Dialer{}, ipc.ListenConfig{})
	from.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	err := from.Send(make([]byte, 8<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("sending what nobody reads: %v", err)
	}
	from.SetWriteDeadline(time.Time{})
	contains(t, from.Send([]byte("x")), "channel is broken")
	if _, err := from.Receive(); err == nil {
		t.Error("a broken channel receives")
	}
	if m, err := to.Receive(); err == nil {
		t.Errorf("half a message came as one of %d bytes", len(m.Data))
	} else if !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
		t.Errorf("received %v", err)
	}
}

func TestSendPastItsDeadlineSendsNothing(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there any failed write breaks the channel")
	}
	from, to := newChannel(t, ipc.Dialer{}, ipc.ListenConfig{})
	from.SetWriteDeadline(time.Now().Add(-time.Second))
	if err := from.Send([]byte("late")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("sent late: %v", err)
	}
	from.SetWriteDeadline(time.Now().Add(timeout))
	if err := from.Send([]byte("in time")); err != nil {
		t.Fatal(err)
	}
	if m := must(to.Receive())(t); string(m.Data) != "in time" {
		t.Errorf("received %q", m.Data)
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	faults.NoLeak(t)
	a, b := newChannel(t, ipc.Dialer{}, ipc.ListenConfig{})
	a.SetDeadline(time.Time{})
	errs := make(chan error, 2)
	go func() { _, err := a.Receive(); errs <- err }()
	go func() {
		for {
			if err := a.Send(make([]byte, 1<<20)); err != nil {
				errs <- err
				return
			}
		}
	}()
	time.Sleep(50 * time.Millisecond) // let them wait; the outcome is the same if they do not yet
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Errorf("what waited returned %v", err)
		}
	}
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if _, err := a.Receive(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive after Close: %v", err)
	}
	if err := a.Send(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after Close: %v", err)
	}
	b.Close()
}

func TestListenerCloses(t *testing.T) {
	faults.NoLeak(t)
	path := endpoint(t)
	l := must(ipc.Listen(path))(t)
	done := make(chan error, 1)
	go func() { _, err := l.Accept(); done <- err }()
	time.Sleep(20 * time.Millisecond)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept returned %v", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if _, err := ipc.Dial(ctx, path); err == nil {
		t.Error("dialed a closed listener")
	} else {
		contains(t, err, path)
	}
	if l, err := ipc.Listen(path); err != nil {
		t.Errorf("listening again: %v", err)
	} else {
		l.Close()
	}
}

func TestOneListenerAnEndpoint(t *testing.T) {
	path := endpoint(t)
	l := must(ipc.Listen(path))(t)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	second, err := ipc.Listen(path)
	if err == nil {
		second.Close()
		t.Fatal("two listeners at one endpoint")
	}
	contains(t, err, "another process listens at "+path)
}

func TestPeerIsTheProcess(t *testing.T) {
	a, b := newChannel(t, ipc.Dialer{}, ipc.ListenConfig{})
	for _, c := range []*ipc.Conn{a, b} {
		p := must(c.Peer())(t)
		if p.PID != os.Getpid() {
			t.Errorf("peer is process %d, want %d", p.PID, os.Getpid())
		}
		if p.UID != os.Geteuid() || p.GID != os.Getegid() {
			t.Errorf("peer is user %d, group %d", p.UID, p.GID)
		}
		if (p.SID != "") != (runtime.GOOS == "windows") {
			t.Errorf("peer's SID is %q", p.SID)
		}
	}
}

func TestPolicyDecides(t *testing.T) {
	faults.NoLeak(t)
	errNo := errors.New("not on a Tuesday")
	refused := make(chan error, 1)
	first := true
	l := must((&ipc.ListenConfig{
		Policy: func(ipc.Peer) error {
			if first {
				first = false
				return errNo
			}
			return nil
		},
		Refused: func(err error) { refused <- err },
	}).Listen(endpoint(t)))(t)
	defer l.Close()
	accepted := make(chan *ipc.Conn, 1)
	go func() { c, _ := l.Accept(); accepted <- c }()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c := must(ipc.Dial(ctx, l.Addr().String()))(t)
	defer c.Close()
	c.SetDeadline(time.Now().Add(timeout))
	if m, err := c.Receive(); err != io.EOF {
		t.Errorf("the refused one received %v, %v", m, err)
	}
	if err := <-refused; !errors.Is(err, ipc.ErrDenied) || !errors.Is(err, errNo) {
		t.Errorf("refused for %v", err)
	}
	_, err := (&ipc.Dialer{Policy: func(ipc.Peer) error { return errNo }}).Dial(ctx, l.Addr().String())
	if !errors.Is(err, ipc.ErrDenied) || !errors.Is(err, errNo) {
		t.Errorf("dialing whom the policy refuses: %v", err)
	}
	if c := <-accepted; c != nil {
		c.Close()
	}
}

func TestEndpointNamesAreChecked(t *testing.T) {
	for _, bad := range []string{"", ".", "..", ".hidden", "-flag", "two words", "zero\x00", "käse", "a:b"} {
		if l, err := ipc.Listen(bad); err == nil {
			l.Close()
			t.Errorf("listened at %q", bad)
		} else {
			contains(t, err, "endpoint")
		}
	}
}

func TestPlainNamesMeet(t *testing.T) {
	t.Setenv("USHER_DIR", filepath.Dir(endpoint(t)))
	name := fmt.Sprintf("shop-%d.example.com", os.Getpid())
	l := must(ipc.Listen(name))(t)
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Send([]byte("welcome"))
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c := must(ipc.Dial(ctx, name))(t)
	defer c.Close()
	if m := must(c.Receive())(t); string(m.Data) != "welcome" {
		t.Errorf("received %q", m.Data)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l := must(ipc.Listen(endpoint(t)))(t)
	defer l.Close()
	if c, err := ipc.Dial(ctx, l.Addr().String()); err == nil {
		c.Close()
		t.Error("dialed with a context that was done")
	}
}
