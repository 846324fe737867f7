package ipc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

func keepAliveTimes(fd int) []int {
	var times []int
	for _, name := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT} {
		v, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, name)
		times = append(times, v)
	}
	return times
}

// TestWaitingHoldsNoThread has 1,000 connections received, with a read pending on each, and 100
// channels with a Receive pending.
func TestWaitingHoldsNoThread(t *testing.T) {
	faults.NoLeak(t)
	const n, channels = 1000, 100
	var waiting sync.WaitGroup
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	a, b := newPair(t)
	var idle []net.Conn
	var receiving []*ipc.Conn
	for range n {
		client := must(net.Dial("tcp", l.Addr().String()))(t)
		defer client.Close()
		server := must(l.Accept())(t)
		if err := a.Send(nil, server.(syscall.Conn)); err != nil {
			t.Fatal(err)
		}
		server.Close()
		conn := must(must(b.Receive())(t).Attachments()[0].Conn())(t)
		defer conn.Close()
		idle = append(idle, conn)
	}
	for _, c := range idle {
		waiting.Go(func() { c.Read(make([]byte, 1)) })
	}
	for range channels {
		c, _ := newPair(t)
		waiting.Go(func() { c.Receive() })
		receiving = append(receiving, c)
	}
	for deadline := time.Now().Add(timeout); parked() < n+channels; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines wait for I/O, want %d", parked(), n+channels)
		}
	}
	threads := threads(t)
	t.Logf("%d connections and %d channels wait on %d threads", n, channels, threads)
	if threads > 50 {
		t.Errorf("%d threads for %d waits", threads, n+channels)
	}
	for _, c := range idle {
		c.SetReadDeadline(time.Now())
	}
	for _, c := range receiving {
		c.Close()
	}
	waiting.Wait()
}

// TestDialWaitsForRoomInTheQueue dials a listener that does not accept until its queue is full.
func TestDialWaitsForRoomInTheQueue(t *testing.T) {
	faults.NoLeak(t)
	path := endpoint(t)
	fd := must(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))(t)
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	first := must(ipc.Dial(context.Background(), path))(t)
	defer first.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	c, err := ipc.Dial(ctx, path)
	if err == nil {
		c.Close()
	}
	var late net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("dialed a full queue: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		c, err := ipc.Dial(context.Background(), path)
		if err == nil {
			c.Close()
		}
		done <- err
	}()
	accepted, _, err := unix.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(accepted)
	if err := <-done; err != nil {
		t.Errorf("dialed when there was room again: %v", err)
	}
}

// parked counts goroutines that wait on the poller.
func parked() int {
	buf := make([]byte, 4<<20)
	return bytes.Count(buf[:runtime.Stack(buf, true)], []byte("[IO wait"))
}

func threads(t *testing.T) (n int) {
	t.Helper()
	status := must(os.ReadFile("/proc/self/status"))(t)
	_, after, _ := strings.Cut(string(status), "Threads:")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
