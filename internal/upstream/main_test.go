package upstream_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/internal/upstream"
	"github.com/go-usher/usher/ipc"
)

// roles are what the test binary can play in a process of its own.
var roles = map[string]func([]string) error{}

func TestMain(m *testing.M) { faults.Main(m, roles) }

// timeout ends a test that hangs, not one that is slow.
const timeout = 30 * time.Second

// What Copy is given in the door.
var (
	_ upstream.Conn = (*usher.Conn)(nil)
	_ upstream.Conn = (*ipc.PrefixConn)(nil)
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// within returns a context that ends a test that hangs.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(timeout); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain the test waits until ", what)
		}
	}
}

// listen returns a listener on loopback or, if network is unix, on a socket of its own.
func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = socketPath(t)
	}
	l := must(net.Listen(network, address))(t)
	t.Cleanup(func() { l.Close() })
	return l
}

// socketPath returns a path at which there is no socket. Those of t.TempDir are too long for one on macOS.
func socketPath(t testing.TB) string {
	t.Helper()
	dir := must(os.MkdirTemp("", "usher"))(t)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	if runtime.GOOS == "windows" { // not all have them, nor does Wine
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Skip("there are no Unix sockets here: ", err)
		}
		l.Close()
	}
	return path
}

// addressOf returns the address of a backend as the configuration has it.
func addressOf(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return l.Addr().String()
}

// nobody returns an address at which nobody listens.
func nobody(t testing.TB) string {
	t.Helper()
	return "unix:" + socketPath(t)
}

// accept returns the next connection, with a deadline for a test that hangs.
func accept(t testing.TB, l net.Listener) upstream.Conn {
	t.Helper()
	l.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(timeout))
	c := must(l.Accept())(t)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	return c.(upstream.Conn)
}

// pair returns both ends of a connection.
func pair(t testing.TB, network string) (dialed, accepted upstream.Conn) {
	t.Helper()
	l := listen(t, network)
	c := must(net.Dial(network, l.Addr().String()))(t)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	return c.(upstream.Conn), accept(t, l)
}

// serve accepts connections until the listener is closed, and keeps them open until their peers end them.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(io.Discard, c)
		}()
	}
}

var from = upstream.Addresses{
	Client: netip.MustParseAddrPort("192.0.2.1:1234"),
	Local:  netip.MustParseAddrPort("198.51.100.2:443"),
}
