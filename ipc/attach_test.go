//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package ipc_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/net/nettest"
)

func TestTCPConnectionsArriveAsTheyWere(t *testing.T) {
	faults.NoLeak(t)
	for _, where := range []struct{ network, address string }{
		{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"tcp6", linkLocal()},
	} {
		t.Run(where.address, func(t *testing.T) {
			if where.address == "" {
				t.Skip("no interface here has a link-local IPv6 address")
			}
			client, server := tcpPair(t, where.network, where.address)
			local, remote := server.LocalAddr().String(), server.RemoteAddr().String()
			a, b := newPair(t)
			got := must(pass(t, a, b, server)[0].Conn())(t)
			defer got.Close()
			server.Close()
			if _, ok := got.(*net.TCPConn); !ok {
				t.Errorf("got a %T", got)
			}
			if got.LocalAddr().String() != local || got.RemoteAddr().String() != remote {
				t.Errorf("got %s to %s, want %s to %s", got.LocalAddr(), got.RemoteAddr(), local, remote)
			}
			converse(t, client, got)
			got.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			if _, err := got.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read at the deadline: %v", err)
			}
		})
	}
}

// linkLocal returns an address with a zone, or nothing.
func linkLocal() string {
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() == nil && ip.IP.IsLinkLocalUnicast() {
				return net.JoinHostPort(ip.IP.String()+"%"+i.Name, "0")
			}
		}
	}
	return ""
}

func TestListenersAcceptWhereTheyArrive(t *testing.T) {
	faults.NoLeak(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	a, b := newPair(t)
	attachment := pass(t, a, b, l.(*net.TCPListener))[0]
	if _, err := attachment.Conn(); err == nil {
		t.Error("a listener was taken as a connection")
	} else {
		contains(t, err, "it is a listener")
	}
	got := must(attachment.Listener())(t)
	defer got.Close()
	l.Close()
	if got.Addr().String() != l.Addr().String() {
		t.Errorf("got %s, want %s", got.Addr(), l.Addr())
	}
	client := must(net.Dial("tcp", got.Addr().String()))(t)
	defer client.Close()
	server := must(got.Accept())(t)
	defer server.Close()
	converse(t, client, server)
}

// errWineUDP is WSAEOPNOTSUPP.
const errWineUDP = syscall.Errno(10045)

func TestUDPSocketsArrive(t *testing.T) {
	faults.NoLeak(t)
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if errors.Is(err, errWineUDP) {
		t.Skip("Wine 10 lacks SIO_UDP_NETRESET, which net asks for on every UDP socket:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	a, b := newPair(t)
	attachment := pass(t, a, b, p.(*net.UDPConn))[0]
	if _, err := attachment.Listener(); err == nil {
		t.Error("a UDP socket was taken as a listener")
	}
	got := must(attachment.PacketConn())(t)
	defer got.Close()
	p.Close()
	client := must(net.Dial("udp", got.LocalAddr().String()))(t)
	defer client.Close()
	if _, err := io.WriteString(client, "ping"); err != nil {
		t.Fatal(err)
	}
	got.SetDeadline(time.Now().Add(timeout))
	buf := make([]byte, 10)
	n, from, err := got.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "ping" || from.String() != client.LocalAddr().String() {
		t.Errorf("read %q from %v, %v", buf[:n], from, err)
	}
}

func TestFilesKeepNameAndOffset(t *testing.T) {
	faults.NoLeak(t)
	name := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(name, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := must(os.Open(name))(t)
	defer f.Close()
	if _, err := io.ReadFull(f, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	a, b := newPair(t)
	got := must(pass(t, a, b, f)[0].File())(t)
	defer got.Close()
	if got.Name() != name {
		t.Errorf("name is %q, want %q", got.Name(), name)
	}
	buf := make([]byte, 3)
	if _, err := io.ReadFull(got, buf); err != nil || string(buf) != "456" {
		t.Errorf("read %q, %v", buf, err)
	}
	rest, err := io.ReadAll(f) // the sender's handle is still good, and shares the offset
	if err != nil || string(rest) != "789" {
		t.Errorf("the sender read %q, %v", rest, err)
	}
}

func TestDirectoriesCanBeRead(t *testing.T) {
	faults.NoLeak(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "inside"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := must(os.Open(dir))(t)
	defer f.Close()
	a, b := newPair(t)
	got := must(pass(t, a, b, f)[0].File())(t)
	defer got.Close()
	names, err := got.Readdirnames(-1)
	if err != nil || len(names) != 1 || names[0] != "inside" {
		t.Errorf("read %q, %v", names, err)
	}
}

func TestPipesArriveByBothEnds(t *testing.T) {
	faults.NoLeak(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	a, b := newPair(t)
	got := pass(t, a, b, r, w)
	r.Close()
	w.Close()
	r2 := must(got[0].File())(t)
	defer r2.Close()
	w2 := must(got[1].File())(t)
	defer w2.Close()
	if runtime.GOOS != "windows" { // os.Pipe's ends have no deadlines there
		if err := r2.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := r2.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read at the deadline: %v", err)
		}
		r2.SetReadDeadline(time.Time{})
	}
	if _, err := io.WriteString(w2, "through"); err != nil {
		t.Fatal(err)
	}
	w2.Close()
	if all, err := io.ReadAll(r2); err != nil || string(all) != "through" {
		t.Errorf("read %q, %v", all, err)
	}
}

func TestOneMessageCarriesManyKinds(t *testing.T) {
	faults.NoLeak(t)
	client, server := tcpPair(t, "tcp4", "127.0.0.1:0")
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	f := must(os.Create(filepath.Join(t.TempDir(), "f")))(t)
	defer f.Close()
	from, to := newChannel(t, ipc.Dialer{}, ipc.ListenConfig{})
	got := pass(t, from, to, f, server, l.(*net.TCPListener), f)
	first := must(got[0].File())(t)
	defer first.Close()
	conn := must(got[1].Conn())(t)
	defer conn.Close()
	listener := must(got[2].Listener())(t)
	defer listener.Close()
	last := must(got[3].File())(t)
	defer last.Close()
	converse(t, client, conn)
	if listener.Addr().String() != l.Addr().String() {
		t.Errorf("the listener is at %s, want %s", listener.Addr(), l.Addr())
	}
	if _, err := last.WriteString("x"); err != nil {
		t.Error(err)
	}
}

func TestAttachmentsAreTakenOnce(t *testing.T) {
	faults.NoLeak(t)
	_, server := tcpPair(t, "tcp4", "127.0.0.1:0")
	a, b := newPair(t)
	if err := a.Send(nil, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	m := must(b.Receive())(t)
	attachment := m.Attachments()[0]
	if _, err := attachment.File(); err == nil {
		t.Error("a connection was taken as a file")
	} else {
		contains(t, err, "it is a connection")
	}
	conn := must(attachment.Conn())(t)
	defer conn.Close()
	if _, err := attachment.Conn(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("taken again: %v", err)
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
	if err := conn.SetDeadline(time.Now()); err != nil {
		t.Errorf("Message.Close closed what was taken: %v", err)
	}
}

func TestCloseOfAMessageClosesWhatWasNotTaken(t *testing.T) {
	faults.NoLeak(t)
	client, server := tcpPair(t, "tcp4", "127.0.0.1:0")
	a, b := newPair(t)
	if err := a.Send(nil, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	m := must(b.Receive())(t)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Attachments()[0].Conn(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("taken from a closed message: %v", err)
	}
	client.SetReadDeadline(time.Now().Add(timeout))
	if n, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client read %d bytes, %v; its connection should have ended", n, err)
	}
}

func TestBadAttachmentsAreRefusedByName(t *testing.T) {
	_, server := tcpPair(t, "tcp4", "127.0.0.1:0")
	closed, _ := tcpPair(t, "tcp4", "127.0.0.1:0")
	closed.Close()
	a, b := newPair(t)
	for name, bad := range map[string]syscall.Conn{
		"nil interface":        nil,
		"nil pointer":          (*net.TCPConn)(nil),
		"nil file":             (*os.File)(nil),
		"closed":               closed,
		"with an unread start": ipc.NewPrefixConn(server, []byte("unread")),
	} {
		t.Run(name, func(t *testing.T) {
			contains(t, a.Send([]byte("x"), bad), "attachment 0")
		})
	}
	if err := a.Send([]byte("still good")); err != nil {
		t.Fatal(err)
	}
	if m := must(b.Receive())(t); string(m.Data) != "still good" {
		t.Errorf("received %q", m.Data)
	}
}

// TestPassedConnectionsAreConnections runs the suite for net.Conn over connections whose both ends
// were passed, one of them with a prefix that the suite's first bytes follow.
func TestPassedConnectionsAreConnections(t *testing.T) {
	faults.NoLeak(t)
	makePipe := func() (net.Conn, net.Conn, func(), error) {
		client, server := tcpPair(t, "tcp4", "127.0.0.1:0")
		a, b := newPair(t)
		got := pass(t, a, b, client, server)
		client.Close()
		server.Close()
		c1, err1 := got[0].Conn()
		c2, err2 := got[1].Conn()
		c := ipc.NewPrefixConn(c2, []byte("prefix"))
		buf := make([]byte, 6)
		_, err3 := io.ReadFull(c, buf)
		stop := func() { c1.Close(); c.Close(); a.Close(); b.Close() }
		return c1, c, stop, errors.Join(err1, err2, err3)
	}
	nettest.TestConn(t, makePipe)
}

func TestPrefixIsReadFirst(t *testing.T) {
	faults.NoLeak(t)
	client, server := tcpPair(t, "tcp4", "127.0.0.1:0")
	if _, err := io.WriteString(client, "GET / HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	prefix := make([]byte, 4)
	if _, err := io.ReadFull(server, prefix); err != nil {
		t.Fatal(err)
	}
	a, b := newPair(t)
	if err := a.Send(prefix, server); err != nil {
		t.Fatal(err)
	}
	server.Close()
	m := must(b.Receive())(t)
	c := ipc.NewPrefixConn(must(m.Attachments()[0].Conn())(t), m.Data)
	defer c.Close()
	client.CloseWrite()
	c.SetDeadline(time.Now().Add(timeout))
	if c.Buffered() != 4 {
		t.Errorf("%d bytes are buffered, want 4", c.Buffered())
	}
	var all bytes.Buffer
	n, err := io.CopyN(&all, c, 2) // partly by Read, the rest by WriteTo
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if _, err := c.WriteTo(&all); err != nil {
		t.Fatal(err)
	}
	if all.String() != "GET / HTTP/1.1\r\n" {
		t.Errorf("read %q", all.String())
	}
	if _, err := c.ReadFrom(bytes.NewReader([]byte("answer"))); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(client); err != nil || string(answer) != "answer" {
		t.Errorf("the client read %q, %v", answer, err)
	}
}

type failingWriter struct{ takes int }

func (w *failingWriter) Write(p []byte) (int, error) { return w.takes, io.ErrClosedPipe }

func TestPrefixSurvivesAFailedCopy(t *testing.T) {
	_, server := tcpPair(t, "tcp4", "127.0.0.1:0")
	c := ipc.NewPrefixConn(server, []byte("prefix"))
	if n, err := c.WriteTo(&failingWriter{takes: 2}); n != 2 || err != io.ErrClosedPipe {
		t.Errorf("copied %d, %v", n, err)
	}
	buf := make([]byte, 10)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "efix" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
}
