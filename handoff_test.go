//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

func TestHandoff(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	client, server := tcpPair(t)
	local, remote := server.LocalAddr().String(), server.RemoteAddr().String()
	io.WriteString(client, "hello world")
	prefix := make([]byte, 6)
	if _, err := io.ReadFull(server, prefix); err != nil {
		t.Fatal(err)
	}
	info := usher.Info{
		Route: "r", Listener: "l", State: []byte("state"), ServerName: "s.example", ALPN: []string{"h2", "http/1.1"}, Host: "h.example", Path: "/p",
		Client: netip.MustParseAddrPort("[2001:db8::1]:443"),
	}
	o := newOffer(t, server, string(prefix), info)
	c := take(t, target, l, o)
	if got := c.Info(); !reflect.DeepEqual(got, info) {
		t.Errorf("the info is %+v; want %+v", got, info)
	}
	if c.Giver().PID != os.Getpid() {
		t.Errorf("the giver is process %d; want %d", c.Giver().PID, os.Getpid())
	}
	if c.LocalAddr().String() != local || c.RemoteAddr().String() != remote {
		t.Errorf("the addresses are %v and %v; want %v and %v", c.LocalAddr(), c.RemoteAddr(), local, remote)
	}
	if c.Buffered() != 6 {
		t.Errorf("%d bytes of the prefix are left; want 6", c.Buffered())
	}
	got := make([]byte, 11)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello world" {
		t.Errorf("read %q, %v", got, err)
	}
	checkConversation(t, client, c)
	if _, ok := c.NetConn().(*net.TCPConn); !ok {
		t.Errorf("NetConn is a %T", c.NetConn())
	}

	wantError(t, target.Handoff(within(t, timeout), o), net.ErrClosed, "handed over or reclaimed before")
	_, err := o.Reclaim()
	wantError(t, err, net.ErrClosed, "handed over or reclaimed before")
}

// TestATimeOutGivesBack has nobody accept, so that the context ends, then hands the same offer over.
func TestATimeOutGivesBack(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	client, server := tcpPair(t)
	o := newOffer(t, server, "pre", usher.Info{Host: "h"})

	err := target.Handoff(within(t, 30*time.Millisecond), o)
	wantError(t, err, os.ErrDeadlineExceeded, "has not claimed it")
	wantError(t, err, context.DeadlineExceeded, l.Addr().String())
	var timeoutErr net.Error
	if !errors.As(err, &timeoutErr) || !timeoutErr.Timeout() {
		t.Errorf("%v is no net.Error with Timeout", err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	go func() { time.Sleep(20 * time.Millisecond); cancel() }()
	wantError(t, target.Handoff(cancelled, o), context.Canceled, "")
	wantError(t, target.Handoff(cancelled, o), context.Canceled, "")

	c := take(t, target, l, o)
	got := make([]byte, 3)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "pre" {
		t.Errorf("read %q, %v", got, err)
	}
	checkConversation(t, client, c)
}

func TestReclaim(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	client, server := tcpPair(t)
	o := newOffer(t, server, "pre", usher.Info{Host: "h"})
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("what was offered can be read: %v", err)
	}
	wantError(t, server.Close(), net.ErrClosed, "") // and harms nobody
	if err := target.Handoff(within(t, 20*time.Millisecond), o); err == nil {
		t.Fatal("nobody accepts, yet it was handed over")
	}
	c := must(o.Reclaim())(t)
	defer c.Close()
	if c.Info().Host != "h" || c.Giver() != (ipc.Peer{}) {
		t.Errorf("info %+v, giver %+v", c.Info(), c.Giver())
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "pre" {
		t.Errorf("read %q, %v", got, err)
	}
	checkConversation(t, client, c)

	t.Run("deadlines work", func(t *testing.T) {
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := c.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		c.SetReadDeadline(time.Time{})
		checkConversation(t, client, c)
	})
	t.Run("and again", func(t *testing.T) { // a Conn can be offered, with what is left of its prefix
		o := newOffer(t, c, "", usher.Info{})
		c = must(o.Reclaim())(t)
		checkConversation(t, client, c)
	})
	wantError(t, target.Handoff(within(t, timeout), o), net.ErrClosed, "")
}

func TestAConnCanBeHandedOnWithItsPrefix(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	client, c := handOver(t, target, l, "abcdef")
	io.WriteString(client, "ghi")
	got := make([]byte, 2)
	io.ReadFull(c, got)
	// "ab" was read; say that "b" was read too much.
	again := take(t, target, l, newOffer(t, c, "b", usher.Info{}))
	got = make([]byte, 8)
	if _, err := io.ReadFull(again, got); err != nil || string(got) != "bcdefghi" {
		t.Errorf("read %q, %v", got, err)
	}
	checkConversation(t, client, again)
}

func TestOffersThatCannotBeMade(t *testing.T) {
	faults.NoLeak(t)
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	_, closed := tcpPair(t)
	closed.Close()
	client, good := tcpPair(t)
	l := listen(t, usher.ListenConfig{})
	_, closedConn := handOver(t, dial(t, l), l, "")
	closedConn.Close()
	tests := []struct {
		name   string
		c      net.Conn
		prefix []byte
		info   usher.Info
		want   error
		text   string
	}{
		{"no connection", nil, nil, usher.Info{}, nil, "is nil"},
		{"no socket", pipe, nil, usher.Info{}, nil, "a *net.pipe cannot be handed over"},
		{"a closed one that was handed over", closedConn, nil, usher.Info{}, net.ErrClosed, ""},
		{"a closed one", closed, nil, usher.Info{}, net.ErrClosed, ""},
		{"a long prefix", good, make([]byte, usher.MaxPrefix+1), usher.Info{}, nil, "prefix has 1048577 bytes, limit 1048576"},
		{"a long prefix of its own", ipc.NewPrefixConn(good, make([]byte, usher.MaxPrefix)), []byte("x"), usher.Info{}, nil, "limit 1048576"},
		{"long info", good, nil, usher.Info{Path: strings.Repeat("x", 1<<16)}, nil, "info has"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := usher.NewOffer(tt.c, tt.prefix, tt.info)
			if o != nil {
				t.Error("there is an offer beside the error")
			}
			wantError(t, err, tt.want, tt.text)
		})
	}
	checkConversation(t, client, good) // still the caller's
}

// TestTheStreamIsWhole hands over what clients do to their connections at awkward moments.
func TestTheStreamIsWhole(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	takeFrom := func(t *testing.T, server net.Conn, prefix string) net.Conn {
		return take(t, target, l, newOffer(t, server, prefix, usher.Info{}))
	}
	t.Run("a large prefix and more in the kernel", func(t *testing.T) {
		client, server := tcpPair(t)
		go func() { io.WriteString(client, "tail"); client.CloseWrite() }()
		prefix := strings.Repeat("0123456789abcdef", usher.MaxPrefix/16)
		got, err := io.ReadAll(takeFrom(t, server, prefix))
		if err != nil || string(got) != prefix+"tail" {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	})
	t.Run("a client that half-closed", func(t *testing.T) {
		client, server := tcpPair(t)
		io.WriteString(client, "all of it")
		client.CloseWrite()
		time.Sleep(5 * time.Millisecond)
		c := takeFrom(t, server, "")
		if got, err := io.ReadAll(c); err != nil || string(got) != "all of it" {
			t.Errorf("read %q, %v", got, err)
		}
		io.WriteString(c, "answer")
		c.Close()
		if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
			t.Errorf("the client read %q, %v", got, err)
		}
	})
	t.Run("a client that reset", func(t *testing.T) {
		client, server := tcpPair(t)
		want := server.RemoteAddr().String()
		client.SetLinger(0)
		client.Close()
		time.Sleep(20 * time.Millisecond) // for the reset to arrive: the kernel forgets the address then
		c := takeFrom(t, server, "before")
		if got := c.RemoteAddr().String(); got != want {
			t.Errorf("the remote address is %s; want %s", got, want)
		}
		got, err := io.ReadAll(c)
		if isWindows && err == nil {
			err = io.ErrUnexpectedEOF // Wine, now and then, ends a connection that was reset like any other
		}
		if string(got) != "before" || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %q, %v; want the prefix and the reset", got, err)
		}
	})
	t.Run("a client that says nothing", func(t *testing.T) {
		client, server := tcpPair(t)
		c := takeFrom(t, server, "")
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		c.SetReadDeadline(time.Time{})
		checkConversation(t, client, c)
	})
	t.Run("a client that left", func(t *testing.T) {
		client, server := tcpPair(t)
		client.Close()
		if got, err := io.ReadAll(takeFrom(t, server, "bye")); err != nil || string(got) != "bye" {
			t.Errorf("read %q, %v", got, err)
		}
	})
}

func TestManyGiversAndManyTakers(t *testing.T) {
	faults.NoLeak(t)
	const takers, channels, each = 3, 2, 40
	var listeners []*usher.Listener
	for range takers {
		l := listen(t, usher.ListenConfig{})
		listeners = append(listeners, l)
		go echoAll(l)
	}
	var wg sync.WaitGroup
	for _, l := range listeners {
		for range channels {
			target := dial(t, l)
			for range 4 {
				wg.Go(func() {
					for range each / 4 {
						client, server := tcpPair(t)
						if err := target.Handoff(within(t, timeout), newOffer(t, server, "pre", usher.Info{})); err != nil {
							t.Error(err)
							return
						}
						io.WriteString(client, "fix")
						client.CloseWrite()
						if got, err := io.ReadAll(client); err != nil || string(got) != "prefix" {
							t.Errorf("read %q, %v", got, err)
						}
					}
				})
			}
		}
	}
	wg.Wait()
}

// echoAll answers each connection with what it says, until the listener is closed.
func echoAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(struct{ io.Writer }{c}, c)
		}()
	}
}

// TestMoreHandoffsThanSlots has slots change hands as fast as they can: each client must hear its own
// token.
func TestMoreHandoffsThanSlots(t *testing.T) {
	faults.NoLeak(t)
	for _, backlog := range []int{1, 3, usher.DefaultBacklog} {
		l := listen(t, usher.ListenConfig{Backlog: backlog})
		target := dial(t, l)
		for range 4 {
			go echoAll(l)
		}
		var wg sync.WaitGroup
		for i := range 4 * usher.MaxOpen {
			wg.Go(func() {
				for j := range 4 {
					token := fmt.Sprintf("%d-%d", i, j)
					client, server := tcpPair(t)
					if err := target.Handoff(within(t, timeout), newOffer(t, server, token, usher.Info{})); err != nil {
						t.Error(err)
						return
					}
					client.CloseWrite()
					if got, err := io.ReadAll(client); err != nil || string(got) != token {
						t.Errorf("client %s read %q, %v", token, got, err)
					}
					client.Close()
				}
			})
		}
		wg.Wait()
	}
}
