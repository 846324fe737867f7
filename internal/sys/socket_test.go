//go:build darwin || freebsd || linux || netbsd || openbsd

package sys_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/unix"
)

// acceptor is a listener of package net, from whose descriptor connections are accepted.
type acceptor struct {
	*net.TCPListener
}

func listen(t testing.TB, network, address string) acceptor {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("no %s on %s here: %v", network, address, err)
	}
	t.Cleanup(func() { l.Close() })
	return acceptor{l.(*net.TCPListener)}
}

// accept waits for a connection.
func (l acceptor) accept(local netip.AddrPort) (s *sys.Socket, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	l.SetDeadline(time.Now().Add(timeout))
	// A RawConn of package net does not read from a listener, so this asks again and again.
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		controlErr := raw.Control(func(fd uintptr) { s, err = sys.Accept(int(fd), local) })
		if controlErr != nil {
			return nil, controlErr
		}
		if err != unix.EAGAIN {
			return s, err
		}
	}
	return nil, errors.New("no connection came")
}

// connect returns both ends of a connection.
func connect(t testing.TB) (*net.TCPConn, *sys.Socket) {
	t.Helper()
	l := listen(t, "tcp", "127.0.0.1:0")
	client := must(net.Dial("tcp", l.Addr().String()))(t)
	s := must(l.accept(netip.AddrPort{}))(t)
	t.Cleanup(func() { client.Close(); s.Close() })
	return client.(*net.TCPConn), s
}

func TestAcceptTellsTheAddresses(t *testing.T) {
	faults.NoLeak(t)
	for _, test := range []struct {
		name, network, listen, dial string
	}{
		{"IPv4", "tcp4", "127.0.0.1", "127.0.0.1"},
		{"IPv6", "tcp6", "::1", "::1"},
		{"IPv4 at a wildcard", "tcp4", "0.0.0.0", "127.0.0.1"},
		{"IPv6 at a wildcard", "tcp", "::", "::1"},
		{"IPv4 at a wildcard of both", "tcp", "", "127.0.0.1"},
		{"a zone", "tcp6", linkLocal(), linkLocal()},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "a zone" && test.listen == "" {
				t.Skip("no interface has a link-local address here")
			}
			l := listen(t, test.network, net.JoinHostPort(test.listen, "0"))
			_, port, _ := net.SplitHostPort(l.Addr().String())
			c, err := net.Dial("tcp", net.JoinHostPort(test.dial, port))
			if err != nil {
				t.Skip(err)
			}
			defer c.Close()
			s := must(l.accept(netip.AddrPort{}))(t)
			defer s.Close()
			checkAddresses(t, s, c)
		})
	}
}

// checkAddresses checks that s says of the connection the same as its client does, in other words and in those of package
// netip.
func checkAddresses(t *testing.T, s *sys.Socket, client net.Conn) {
	t.Helper()
	if got, want := s.RemoteAddr().String(), client.LocalAddr().String(); got != want {
		t.Errorf("the remote address is %s, want %s", got, want)
	}
	if got, want := s.LocalAddr().String(), client.RemoteAddr().String(); got != want {
		t.Errorf("the local address is %s, want %s", got, want)
	}
	local, remote := s.AddrPorts()
	if local.String() != s.LocalAddr().String() || remote.String() != s.RemoteAddr().String() {
		t.Errorf("AddrPorts says %s and %s, LocalAddr and RemoteAddr %s and %s", local, remote, s.LocalAddr(), s.RemoteAddr())
	}
}

// linkLocal returns an address with a zone, "" if there is none.
func linkLocal() string {
	interfaces, _ := net.Interfaces()
	for _, ifi := range interfaces {
		addrs, _ := ifi.Addrs()
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() == nil && ip.IP.IsLinkLocalUnicast() {
				return ip.IP.String() + "%" + ifi.Name
			}
		}
	}
	return ""
}

func TestAcceptBelievesTheLocalAddressItIsTold(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	defer must(net.Dial("tcp", l.Addr().String()))(t).Close()
	told := netip.MustParseAddrPort("192.0.2.1:80")
	s := must(l.accept(told))(t)
	defer s.Close()
	if local, _ := s.AddrPorts(); local != told {
		t.Errorf("the local address is %s, want %s", local, told)
	}
}

func TestAcceptDoesNotWait(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	raw := must(l.SyscallConn())(t)
	raw.Control(func(fd uintptr) {
		if s, err := sys.Accept(int(fd), netip.AddrPort{}); err != unix.EAGAIN {
			t.Errorf("accepted %v, %v; want EAGAIN", s, err)
		}
	})
	if s, err := sys.Accept(-1, netip.AddrPort{}); !errors.Is(err, unix.EBADF) {
		t.Errorf("from no descriptor: %v, %v", s, err)
	}
}

// TestAcceptOfAClientThatIsGone: what reset before it was accepted is either passed over or accepted, and the next one comes.
func TestAcceptOfAClientThatIsGone(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, "tcp", "127.0.0.1:0")
	gone := must(net.Dial("tcp", l.Addr().String()))(t)
	gone.(*net.TCPConn).SetLinger(0)
	gone.Close()
	stays := must(net.Dial("tcp", l.Addr().String()))(t)
	defer stays.Close()
	for {
		s := must(l.accept(netip.AddrPort{}))(t)
		defer s.Close()
		if s.RemoteAddr().String() == stays.LocalAddr().String() {
			return
		}
		if n, err := sys.Peek(s.Descriptor(), make([]byte, 1)); n > 0 || err == unix.EAGAIN {
			t.Errorf("a connection that was reset has %d bytes, %v", n, err)
		}
	}
}

func TestWhatIsAcceptedIsReadyToGive(t *testing.T) {
	_, s := connect(t)
	flags := must(unix.FcntlInt(uintptr(s.Descriptor()), unix.F_GETFL, 0))(t)
	if flags&unix.O_NONBLOCK == 0 {
		t.Error("it is blocking")
	}
	flags = must(unix.FcntlInt(uintptr(s.Descriptor()), unix.F_GETFD, 0))(t)
	if flags&unix.FD_CLOEXEC == 0 {
		t.Error("children would inherit it")
	}
}

// TestOptionsOfAListenerGoOver: what is accepted has the options that package net gives its connections.
func TestOptionsOfAListenerGoOver(t *testing.T) {
	for _, multipath := range []bool{false, true} {
		t.Run(fmt.Sprintf("with Multipath TCP where there is that: %v", multipath), func(t *testing.T) {
			var lc net.ListenConfig
			lc.SetMultipathTCP(multipath)
			l := must(lc.Listen(context.Background(), "tcp", "127.0.0.1:0"))(t)
			defer l.Close()
			testOptionsGoOver(t, acceptor{l.(*net.TCPListener)})
		})
	}
}

func testOptionsGoOver(t *testing.T, l acceptor) {
	defer must(net.Dial("tcp", l.Addr().String()))(t).Close()
	nc := must(l.AcceptTCP())(t)
	defer nc.Close()
	var want sys.TCPOptions
	must(nc.SyscallConn())(t).Control(func(fd uintptr) { want = sys.ReadTCPOptions(fd) })

	raw := must(l.SyscallConn())(t)
	var err error
	raw.Control(func(fd uintptr) { err = sys.SetTCPOptions(fd) })
	if err != nil {
		t.Fatal(err)
	}
	defer must(net.Dial("tcp", l.Addr().String()))(t).Close()
	s := must(l.accept(netip.AddrPort{}))(t)
	defer s.Close()
	if got := sys.ReadTCPOptions(uintptr(s.Descriptor())); got != want {
		t.Errorf("it has the options %v, those of package net are %v", got, want)
	}
	if want[0] <= 0 || want[1] <= 0 {
		t.Errorf("TCP_NODELAY and SO_KEEPALIVE are %v: package net has changed, and with it what Restore undoes", want)
	}
}

// TestOptionsThatASocketDoesNotKnow: a Unix-domain socket has none of TCP's.
func TestOptionsThatASocketDoesNotKnow(t *testing.T) {
	fd := must(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0))(t)
	defer unix.Close(fd)
	err := sys.SetTCPOptions(uintptr(fd))
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) && !errors.Is(err, unix.EINVAL) { // the BSDs' words for it
		t.Error(err)
	}
	if err := sys.SetTCPOptions(^uintptr(0)); !errors.Is(err, unix.EBADF) {
		t.Errorf("no socket at all: %v", err)
	}
}

func TestPeekLeavesWhatItReads(t *testing.T) {
	client, s := connect(t)
	b := make([]byte, 8)
	if n, err := sys.Peek(s.Descriptor(), b); err != unix.EAGAIN {
		t.Errorf("of nothing: %d, %v; want EAGAIN", n, err)
	}
	io.WriteString(client, "hello")
	client.CloseWrite()
	var n int
	for range 2 {
		n = peek(t, s, b)
		if string(b[:n]) != "hello" {
			t.Errorf("peeked %q", b[:n])
		}
	}
	tcp := must(s.TCP())(t)
	defer tcp.Close()
	if all, err := io.ReadAll(tcp); err != nil || string(all) != "hello" {
		t.Errorf("read %q, %v", all, err)
	}
	raw := must(tcp.SyscallConn())(t)
	raw.Control(func(fd uintptr) {
		if n, err := sys.Peek(int(fd), b); n != 0 || err != nil {
			t.Errorf("at the end: %d, %v; want 0", n, err)
		}
	})
}

// peek waits until there is something.
func peek(t *testing.T, s *sys.Socket, b []byte) int {
	t.Helper()
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if n, err := sys.Peek(s.Descriptor(), b); err != unix.EAGAIN {
			return must(n, err)(t)
		}
	}
	t.Fatal("nothing came")
	return 0
}

func TestTCPIsTheConnectionWithItsOptions(t *testing.T) {
	faults.NoLeak(t)
	client, s := connect(t)
	for _, o := range [][2]int{{unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE}} {
		if err := unix.SetsockoptInt(s.Descriptor(), o[0], o[1], 0); err != nil { // package net would set it
			t.Fatal(err)
		}
	}
	want := sys.ReadTCPOptions(uintptr(s.Descriptor()))
	tcp := must(s.TCP())(t)
	defer tcp.Close()
	must(tcp.SyscallConn())(t).Control(func(fd uintptr) {
		if got := sys.ReadTCPOptions(fd); got != want {
			t.Errorf("it has the options %v, had %v", got, want)
		}
	})
	converse(t, client, tcp)
	if s.Descriptor() >= 0 || s.Take() >= 0 {
		t.Error("the socket is not spent")
	}
	if _, err := s.TCP(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second time: %v", err)
	}
	if err := s.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	converse(t, client, tcp)
}

func converse(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		way[1].SetDeadline(time.Now().Add(timeout))
		io.WriteString(way[0], "hello")
		buf := make([]byte, 5)
		if _, err := io.ReadFull(way[1], buf); err != nil || string(buf) != "hello" {
			t.Fatalf("read %q, %v", buf, err)
		}
	}
}

func TestTakeLeavesTheDescriptorToTheCaller(t *testing.T) {
	client, s := connect(t)
	fd := s.Take()
	if s.Descriptor() >= 0 || s.Take() >= 0 {
		t.Error("there is another")
	}
	if err := s.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := s.TCP(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("made one of package net: %v", err)
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		t.Error(err)
	}
	if err := unix.Close(fd); err != nil {
		t.Error(err)
	}
	client.SetDeadline(time.Now().Add(timeout))
	if all, err := io.ReadAll(client); err != nil || string(all) != "x" {
		t.Errorf("the client read %q, %v", all, err)
	}
}

func TestSocketClosesOnce(t *testing.T) {
	client, s := connect(t)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close: %v", err)
	}
	client.SetDeadline(time.Now().Add(timeout))
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client read %v", err)
	}
}

func TestSocketNeitherReadsNorWrites(t *testing.T) {
	_, s := connect(t)
	_, readErr := s.Read(make([]byte, 1))
	_, writeErr := s.Write(make([]byte, 1))
	for what, err := range map[string]error{
		"Read": readErr, "Write": writeErr, "SetDeadline": s.SetDeadline(time.Time{}),
		"SetReadDeadline": s.SetReadDeadline(time.Time{}), "SetWriteDeadline": s.SetWriteDeadline(time.Time{}),
	} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// playStarve accepts and makes connections of package net at its limit of open files.
func playStarve([]string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	var clients, servers [2]net.Conn
	for i := range clients {
		if clients[i], err = net.Dial("tcp", l.Addr().String()); err != nil {
			return err
		}
		defer clients[i].Close()
	}
	from := acceptor{l.(*net.TCPListener)}
	room, err := faults.LimitDescriptors()
	if err != nil {
		return err
	}
	room(0)
	if s, err := from.accept(netip.AddrPort{}); !errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("accepted %v, %v; want EMFILE", s, err)
	}
	room(2)
	var sockets [2]*sys.Socket
	for i := range sockets {
		if sockets[i], err = from.accept(netip.AddrPort{}); err != nil {
			return fmt.Errorf("with room: %w", err)
		}
	}
	for _, s := range []*sys.Socket{sockets[0], sockets[0], sockets[1]} {
		if c, err := s.TCP(); !errors.Is(err, unix.EMFILE) {
			return fmt.Errorf("made %v, %v; want EMFILE", c, err)
		}
	}
	room(100)
	if servers[0], err = sockets[0].TCP(); err != nil {
		return fmt.Errorf("tried again, with room: %w", err)
	}
	if _, err := io.WriteString(servers[0], "made\n"); err != nil {
		return err
	}
	servers[0].Close()
	if err := sockets[1].Close(); err != nil {
		return fmt.Errorf("closing what could not be made: %w", err)
	}
	if err := sockets[1].Close(); !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("closing it again: %v", err)
	}
	for i, want := range []string{"made\n", ""} {
		clients[i].SetDeadline(time.Now().Add(timeout))
		if all, err := io.ReadAll(clients[i]); err != nil || string(all) != want {
			return fmt.Errorf("client %d read %q, %v; want %q", i, all, err, want)
		}
	}
	return nil
}

func TestSocketOfAProcessAtItsDescriptorLimit(t *testing.T) {
	cmd := faults.Command(t, "starve")
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %s", err, said.String())
	}
}
