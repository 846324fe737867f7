//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package ipc_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

// roles are what the test binary can play in a process of its own.
var roles = map[string]func([]string) error{
	"answer":  playAnswer,
	"inherit": playInherit,
	"nap":     playNap,
}

func TestMain(m *testing.M) { faults.Main(m, roles) }

const isWindows = runtime.GOOS == "windows"

// timeout ends a test that hangs, not one that is slow.
const timeout = 30 * time.Second

// endpoint returns a path that nothing else listens at.
func endpoint(t testing.TB) string {
	t.Helper()
	return faults.Endpoint(t)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newPair(t testing.TB) (*ipc.Conn, *ipc.Conn) {
	t.Helper()
	a, b, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*ipc.Conn{a, b} {
		c.SetDeadline(time.Now().Add(timeout))
		t.Cleanup(func() { c.Close() })
	}
	return a, b
}

// newChannel connects over an endpoint, as two processes would.
func newChannel(t testing.TB, d ipc.Dialer, lc ipc.ListenConfig) (dialed, accepted *ipc.Conn) {
	t.Helper()
	l := must(lc.Listen(endpoint(t)))(t)
	defer l.Close()
	got := make(chan *ipc.Conn, 1)
	var acceptErr error
	go func() {
		var c *ipc.Conn
		c, acceptErr = l.Accept()
		got <- c
	}()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	dialed = must(d.Dial(ctx, l.Addr().String()))(t)
	accepted = <-got
	if acceptErr != nil {
		t.Fatal(acceptErr)
	}
	for _, c := range []*ipc.Conn{dialed, accepted} {
		c.SetDeadline(time.Now().Add(timeout))
		t.Cleanup(func() { c.Close() })
	}
	return dialed, accepted
}

// pass sends attachments over the channel and returns what arrives.
func pass(t testing.TB, from, to *ipc.Conn, attachments ...syscall.Conn) []*ipc.Attachment {
	t.Helper()
	if err := from.Send([]byte("here"), attachments...); err != nil {
		t.Fatal(err)
	}
	m := must(to.Receive())(t)
	t.Cleanup(func() { m.Close() })
	if string(m.Data) != "here" {
		t.Errorf("data is %q", m.Data)
	}
	if len(m.Attachments()) != len(attachments) {
		t.Fatalf("%d attachments came, sent were %d", len(m.Attachments()), len(attachments))
	}
	return m.Attachments()
}

// within returns a context that ends a test that hangs.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// tcpPair returns both ends of a TCP connection over loopback.
func tcpPair(t testing.TB, network, address string) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("no %s on %s here: %v", network, address, err)
	}
	defer l.Close()
	// The listener's own address may lack the zone.
	host, _, _ := net.SplitHostPort(address)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	c := must(net.Dial(network, net.JoinHostPort(host, port)))(t)
	s := must(l.Accept())(t)
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// converse checks that what one end writes the other reads, both ways.
func converse(t testing.TB, a, b net.Conn) {
	t.Helper()
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(timeout))
	}
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		if _, err := io.WriteString(way[0], "hello"); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(way[1], buf); err != nil {
			t.Fatal(err)
		}
		if string(buf) != "hello" {
			t.Fatalf("read %q", buf)
		}
	}
}

func contains(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want one that says %q", err, want)
	}
}
