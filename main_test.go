//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
)

// roles are what the test binary can play in a process of its own.
var roles = map[string]func([]string) error{}

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

// within returns a context that ends a test that hangs.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func listen(t testing.TB, lc usher.ListenConfig) *usher.Listener {
	t.Helper()
	l := must(lc.Listen(endpoint(t)))(t)
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t testing.TB, l net.Listener) *usher.Target {
	t.Helper()
	target := must(usher.Dial(within(t, timeout), l.Addr().String()))(t)
	t.Cleanup(func() { target.Close() })
	return target
}

// tcpPair returns both ends of a TCP connection over loopback.
func tcpPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	c := must(net.Dial("tcp", l.Addr().String()))(t)
	s := must(l.Accept())(t)
	t.Cleanup(func() { c.Close(); s.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// connect makes a connection to l, in a process that has no test. Both ends are the caller's.
func connect(l net.Listener) (client, server net.Conn, err error) {
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if server, err = l.Accept(); err != nil {
		client.Close()
		return nil, nil, err
	}
	return client, server, nil
}

// newOffer makes an offer that is ended with the test, whatever became of it.
func newOffer(t testing.TB, c net.Conn, prefix string, info usher.Info) *usher.Offer {
	t.Helper()
	o := must(usher.NewOffer(c, []byte(prefix), info))(t)
	t.Cleanup(func() {
		if c, err := o.Reclaim(); err == nil {
			c.Close()
		}
	})
	return o
}

// handOver hands a connection with a prefix over and returns the client's end and the taker's.
func handOver(t testing.TB, target *usher.Target, l *usher.Listener, prefix string) (*net.TCPConn, *usher.Conn) {
	t.Helper()
	client, server := tcpPair(t)
	return client, take(t, target, l, newOffer(t, server, prefix, usher.Info{}))
}

// take hands o over and returns what the taker gets.
func take(t testing.TB, target *usher.Target, l *usher.Listener, o *usher.Offer) *usher.Conn {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		err := target.Handoff(within(t, timeout), o)
		if err != nil {
			l.Close() // or Accept would wait
		}
		done <- err
	}()
	c, acceptErr := l.Accept()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if acceptErr != nil {
		t.Fatal(acceptErr)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	return c.(*usher.Conn)
}

// checkConversation has both ends say something to each other.
func checkConversation(t testing.TB, a, b net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		if _, err := io.WriteString(way[0], "hello"); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(way[1], buf); err != nil || string(buf) != "hello" {
			t.Fatalf("read %q, %v", buf, err)
		}
	}
}

func wantError(t testing.TB, err, want error, text string) {
	t.Helper()
	if err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v; want one that is %v and says %q", err, want, text)
	}
}

// process is a role that says lines.
type process struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func startRole(t testing.TB, role string, args ...string) *process {
	t.Helper()
	return startCommand(t, faults.Command(t, role, args...))
}

func startCommand(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	out := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &process{cmd, bufio.NewReader(out)}
}

func (p *process) hear(t testing.TB) string {
	t.Helper()
	return strings.TrimSpace(must(p.out.ReadString('\n'))(t))
}

func median[T int64 | float64 | time.Duration](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}
