//go:build darwin || freebsd || linux || netbsd || openbsd

package usher_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/internal/sys"
)

// socketPair is tcpPair with a server's end that is on no poller.
func socketPair(t testing.TB) (client *net.TCPConn, server *sys.Socket) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	c := must(net.Dial("tcp", l.Addr().String()))(t)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	raw := must(l.(*net.TCPListener).SyscallConn())(t)
	err := error(syscall.EAGAIN)
	for errors.Is(err, syscall.EAGAIN) {
		if controlErr := raw.Control(func(fd uintptr) { server, err = sys.Accept(int(fd), netip.AddrPort{}) }); controlErr != nil {
			t.Fatal(controlErr)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return c.(*net.TCPConn), server
}

// TestOffersOfRawSockets are as those of connections that are on the poller.
func TestOffersOfRawSockets(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	t.Run("handed over", func(t *testing.T) {
		client, server := socketPair(t)
		io.WriteString(client, "in the kernel")
		c := take(t, target, l, newOffer(t, server, "read, and ", usher.Info{}))
		if c.LocalAddr().String() != client.RemoteAddr().String() || c.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("the addresses are %v and %v; the client has %v and %v", c.LocalAddr(), c.RemoteAddr(), client.LocalAddr(), client.RemoteAddr())
		}
		got := make([]byte, len("read, and in the kernel"))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "read, and in the kernel" {
			t.Errorf("read %q, %v", got, err)
		}
		checkConversation(t, client, c)
		wantError(t, server.Close(), net.ErrClosed, "")
	})
	t.Run("taken back", func(t *testing.T) {
		client, server := socketPair(t)
		o := newOffer(t, server, "", usher.Info{})
		wantError(t, target.Handoff(within(t, 5*time.Millisecond), o), os.ErrDeadlineExceeded, "")
		c := must(o.Reclaim())(t)
		defer c.Close()
		if c.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("the remote address is %v; want %v", c.RemoteAddr(), client.LocalAddr())
		}
		c.SetReadDeadline(time.Now())
		_, err := c.Read(make([]byte, 1))
		wantError(t, err, os.ErrDeadlineExceeded, "")
		c.SetReadDeadline(time.Time{})
		checkConversation(t, client, c)
	})
	t.Run("not offered, and still the caller's", func(t *testing.T) {
		client, server := socketPair(t)
		_, err := usher.NewOffer(server, nil, usher.Info{Path: strings.Repeat("x", 1<<16)})
		wantError(t, err, nil, "info has")
		checkConversation(t, client, take(t, target, l, newOffer(t, server, "", usher.Info{})))
		_, err = usher.NewOffer(server, nil, usher.Info{})
		wantError(t, err, net.ErrClosed, "")
	})
}
