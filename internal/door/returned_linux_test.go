package door

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"golang.org/x/sys/unix"
)

// becomes has c's descriptor name another connection, as a taker could that lies.
func becomes(t testing.TB, c, other syscall.Conn) {
	t.Helper()
	to, from := must(c.SyscallConn())(t), must(other.SyscallConn())(t)
	var err error
	to.Control(func(fd uintptr) {
		from.Control(func(otherFD uintptr) { err = unix.Dup3(int(otherFD), int(fd), unix.O_CLOEXEC) })
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAConnectionThatNoListenerCanHaveAcceptedIsReset(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	h.open(twoHosts)
	_, conn := served(t, shop, h.addr("web"), "a.test")
	other := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer other.Close()
	stranger := raw(t, other.Addr().String())
	send(t, stranger, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	accepted := must(other.Accept())(t)
	becomes(t, conn, accepted.(syscall.Conn))
	accepted.Close()
	giveBack(t, conn, "", conn.Info())
	if got, err := io.ReadAll(stranger); !wasReset(err) {
		t.Errorf("the client is told %q, %v; want a reset", got, err)
	}
	eventually(t, "the log says so", func() bool {
		return len(h.lines("no listener can have accepted")) == 1 && strings.Contains(h.log.String(), "local="+other.Addr().String())
	})
	h.expect(noRoute, admin.NoRoute, 1)
	h.nothingLeft()
}

// TestWhatIsNoConnectionOfAClientIsRefused has a taker give back what nobody can have connected.
func TestWhatIsNoConnectionOfAClientIsRefused(t *testing.T) {
	h := newHouse(t)
	shop := must(usher.Listen(h.path("shop")))(t)
	defer shop.Close()
	h.open(twoHosts)
	_, conn := served(t, shop, h.addr("web"), "a.test")
	l := must(net.Listen("unix", h.path("chat")))(t)
	defer l.Close()
	client := must(net.Dial("unix", h.path("chat")))(t)
	defer client.Close()
	accepted := must(l.Accept())(t)
	becomes(t, conn, accepted.(syscall.Conn))
	accepted.Close()
	giveBack(t, conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", conn.Info())
	client.SetDeadline(time.Now().Add(timeout))
	if got, err := io.ReadAll(client); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it is told %q, %v; want the end", got, err)
	}
	h.nothingLeft()
}
