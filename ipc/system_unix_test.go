//go:build darwin || freebsd || linux || netbsd || openbsd

package ipc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

func init() { roles["starve"] = playStarve }

func TestUnixSocketsArrive(t *testing.T) {
	faults.NoLeak(t)
	path := endpoint(t)
	l := must(net.Listen("unix", path))(t)
	defer l.Close()
	client := must(net.Dial("unix", path))(t)
	defer client.Close()
	server := must(l.Accept())(t)
	a, b := newPair(t)
	got := pass(t, a, b, server.(*net.UnixConn), l.(*net.UnixListener))
	server.Close()
	conn := must(got[0].Conn())(t)
	defer conn.Close()
	if _, ok := conn.(*net.UnixConn); !ok {
		t.Errorf("got a %T", conn)
	}
	converse(t, client, conn)
	listener := must(got[1].Listener())(t)
	if listener.Addr().String() != path {
		t.Errorf("the listener is at %s, want %s", listener.Addr(), path)
	}
	listener.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("closing the listener received removed the socket: %v", err)
	}
}

func TestTCPOptionsArrive(t *testing.T) {
	for name, set := range map[string]func(*net.TCPConn) error{
		"as Go sets them": func(*net.TCPConn) error { return nil },
		"delay":           func(c *net.TCPConn) error { return c.SetNoDelay(false) },
		"no keep-alive":   func(c *net.TCPConn) error { return c.SetKeepAlive(false) },
		"other times": func(c *net.TCPConn) error {
			return c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 77 * time.Second, Interval: 33 * time.Second, Count: 4})
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, server := tcpPair(t, "tcp4", "127.0.0.1:0")
			if err := set(server); err != nil {
				t.Skip(err)
			}
			want := tcpOptions(t, server)
			a, b := newPair(t)
			conn := must(pass(t, a, b, server)[0].Conn())(t)
			defer conn.Close()
			if got := tcpOptions(t, conn.(*net.TCPConn)); got != want {
				t.Errorf("options are %s, want %s", got, want)
			}
			if got := tcpOptions(t, server); got != want {
				t.Errorf("the sender's options became %s, were %s", got, want)
			}
		})
	}
}

func tcpOptions(t *testing.T, c *net.TCPConn) (s string) {
	t.Helper()
	control(t, c, func(fd int) {
		noDelay, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY)
		keepAlive, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		s = fmt.Sprintf("nodelay %t keepalive %t times %v", noDelay != 0, keepAlive != 0, keepAliveTimes(fd))
	})
	return s
}

func control(t *testing.T, c syscall.Conn, f func(fd int)) {
	t.Helper()
	raw := must(c.SyscallConn())(t)
	if err := raw.Control(func(fd uintptr) { f(int(fd)) }); err != nil {
		t.Fatal(err)
	}
}

// rawPair returns a channel and the naked socket at its other end.
func rawPair(t testing.TB, limits ipc.Limits) (*ipc.Conn, *net.UnixConn) {
	t.Helper()
	l := must((&ipc.ListenConfig{Limits: limits}).Listen(endpoint(t)))(t)
	defer l.Close()
	got := make(chan *ipc.Conn, 1)
	go func() { c, _ := l.Accept(); got <- c }()
	raw := must(net.Dial("unix", l.Addr().String()))(t)
	c := <-got
	if c == nil {
		t.Fatal("not accepted")
	}
	c.SetDeadline(time.Now().Add(timeout))
	t.Cleanup(func() { c.Close(); raw.Close() })
	return c, raw.(*net.UnixConn)
}

// frame builds a frame from SPEC.md's words, not from the code under test.
func frame(count int, table, data []byte) []byte {
	b := []byte{'U', 'S', 'H', 1}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(table)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = binary.LittleEndian.AppendUint16(b, uint16(count))
	b = append(b, 0, 0)
	return append(append(b, table...), data...)
}

func entry(kind byte, name string) []byte {
	b := []byte{kind, 0, 0, 0, byte(len(name)), byte(len(name) >> 8), 0, 0}
	return append(b, name...)
}

// sendRaw sends bytes with n descriptors of /dev/null.
func sendRaw(t testing.TB, raw *net.UnixConn, b []byte, n int) {
	t.Helper()
	f := must(os.Open(os.DevNull))(t)
	defer f.Close()
	fds := make([]int, n)
	for i := range fds {
		fds[i] = int(f.Fd())
	}
	var oob []byte
	if n > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := raw.WriteMsgUnix(b, oob, nil); err != nil {
		t.Fatal(err)
	}
}

func TestFramesByTheBookAreReceived(t *testing.T) {
	faults.NoLeak(t)
	c, raw := rawPair(t, ipc.Limits{})
	// Three frames in one write, then one in single bytes.
	all := slices.Concat(frame(0, nil, []byte("one")), frame(0, nil, nil), frame(0, nil, []byte("three")))
	sendRaw(t, raw, all, 0)
	go func() {
		b := frame(1, entry(2, "nil"), []byte("four"))
		f, _ := os.Open(os.DevNull)
		defer f.Close()
		raw.WriteMsgUnix(b[:1], unix.UnixRights(int(f.Fd())), nil)
		for i := range b[1:] {
			raw.Write(b[1+i : 2+i])
		}
	}()
	for _, want := range []string{"one", "", "three", "four"} {
		m := must(c.Receive())(t)
		defer m.Close()
		if string(m.Data) != want {
			t.Errorf("received %q, want %q", m.Data, want)
		}
		if want == "four" {
			f := must(m.Attachments()[0].File())(t)
			defer f.Close()
			if f.Name() != "nil" {
				t.Errorf("the file is %q", f.Name())
			}
		}
	}
}

func TestReceiveGoesOnAfterADeadlineWithinAMessage(t *testing.T) {
	c, raw := rawPair(t, ipc.Limits{})
	b := frame(1, entry(2, "nil"), bytes.Repeat([]byte("x"), 100_000))
	sendRaw(t, raw, b[:5], 1)
	for _, upTo := range []int{5, 16, 20, 50_000} {
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := c.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("after %d bytes: %v", upTo, err)
		}
		switch upTo {
		case 5:
			sendRaw(t, raw, b[5:16], 0)
		case 16:
			sendRaw(t, raw, b[16:20], 0)
		case 20:
			sendRaw(t, raw, b[20:50_000], 0)
		}
	}
	go raw.Write(b[50_000:])
	c.SetReadDeadline(time.Now().Add(timeout))
	m := must(c.Receive())(t)
	defer m.Close()
	if len(m.Data) != 100_000 || len(m.Attachments()) != 1 {
		t.Errorf("received %d bytes, %d attachments", len(m.Data), len(m.Attachments()))
	}
}

// TestHostilePeersLoseTheirChannel sends what no honest peer does. The descriptors that came with it
// must be closed, and the error must say what was wrong.
func TestHostilePeersLoseTheirChannel(t *testing.T) {
	le := binary.LittleEndian
	header := func(change func([]byte)) []byte { b := frame(0, nil, []byte("data")); change(b); return b }
	type part struct {
		bytes []byte
		fds   int
	}
	for name, test := range map[string]struct {
		parts []part
		want  string
	}{
		"not usher at all":              {[]part{{[]byte("GET / HTTP/1.1\r\n\r\n"), 0}}, `frame starts with "GET"`},
		"another version":               {[]part{{header(func(b []byte) { b[3] = 2 }), 0}}, "peer speaks version 2"},
		"reserved header field":         {[]part{{header(func(b []byte) { b[15] = 1 }), 0}}, "reserved field"},
		"4 GiB announced":               {[]part{{header(func(b []byte) { le.PutUint32(b[8:], 1<<32-1) }), 0}}, "message of 4294967295 bytes, limit 1048576"},
		"table of 4 GiB announced":      {[]part{{header(func(b []byte) { le.PutUint32(b[4:], 1<<32-1) }), 0}}, "table of 4294967295 bytes for 0 attachments"},
		"65535 attachments announced":   {[]part{{header(func(b []byte) { le.PutUint16(b[12:], 65535) }), 0}}, "65535 attachments, limit 8"},
		"attachments without a table":   {[]part{{header(func(b []byte) { le.PutUint16(b[12:], 1) }), 1}}, "table of 0 bytes for 1 attachments"},
		"announced and not sent":        {[]part{{frame(1, entry(2, ""), nil), 0}}, "1 attachments announced, none came"},
		"fewer sent than announced":     {[]part{{frame(3, bytes.Repeat(entry(2, ""), 3), nil), 2}}, "3 attachments announced, 2 came"},
		"more sent than announced":      {[]part{{frame(1, entry(2, ""), nil), 5}}, "1 attachments announced, 5 came"},
		"sent and not announced":        {[]part{{frame(0, nil, []byte("x")), 3}}, "3 descriptors came that no message announced"},
		"253 not announced":             {[]part{{frame(0, nil, []byte("x")), 253}}, "253 descriptors came that no message announced"},
		"sent within a message":         {[]part{{frame(0, nil, make([]byte, 30_000))[:20_000], 0}, {make([]byte, 100), 2}}, "2 descriptors came within a message"},
		"table that lies about a name":  {[]part{{frame(1, []byte{2, 0, 0, 0, 255, 0, 0, 0}, nil), 1}}, "table ends in entry 0 of 1"},
		"table with a rest":             {[]part{{frame(1, append(entry(2, ""), 'x'), nil), 1}}, "1 bytes after the last of 1 entries"},
		"entry of an unknown kind":      {[]part{{frame(1, entry(9, ""), nil), 1}}, "unknown kind 9"},
		"entry with reserved bytes set": {[]part{{frame(1, []byte{2, 1, 0, 0, 0, 0, 0, 0}, nil), 1}}, "reserved bytes of entry 0"},
		"entry with a body":             {[]part{{frame(1, []byte{2, 0, 1, 0, 0, 0, 0, 0, 'b'}, nil), 1}}, "has a body"},
		"name with a zero byte":         {[]part{{frame(1, entry(2, "a\x00b"), nil), 1}}, "zero byte"},
	} {
		t.Run(name, func(t *testing.T) {
			faults.NoLeak(t)
			c, raw := rawPair(t, ipc.Limits{Data: 1 << 20, Attachments: 8})
			for _, p := range test.parts {
				sendRaw(t, raw, p.bytes, p.fds)
				time.Sleep(time.Millisecond) // so that the parts come by separate reads
			}
			m, err := c.Receive()
			if err == nil {
				m.Close()
				t.Fatalf("received %q with %d attachments", m.Data, len(m.Attachments()))
			}
			if !errors.Is(err, ipc.ErrProtocol) {
				t.Errorf("the error is not ErrProtocol: %v", err)
			}
			contains(t, err, test.want)
			if _, err := c.Receive(); err == nil {
				t.Error("the channel lives on")
			}
			raw.SetReadDeadline(time.Now().Add(timeout))
			if _, err := raw.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the hostile peer's end is not closed: %v", err)
			}
		})
	}
}

func TestPeerGoneWithinAFrame(t *testing.T) {
	whole := frame(1, entry(2, "f"), []byte("data"))
	for _, n := range []int{1, 15, 16, 20, len(whole) - 1} {
		t.Run(fmt.Sprintf("after %d bytes", n), func(t *testing.T) {
			faults.NoLeak(t)
			c, raw := rawPair(t, ipc.Limits{})
			sendRaw(t, raw, whole[:n], 1)
			raw.Close()
			if _, err := c.Receive(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("received %v", err)
			}
		})
	}
}

func TestDescriptorsNobodyReceivedAreClosed(t *testing.T) {
	faults.NoLeak(t)
	a, b := newPair(t)
	f := must(os.Open(os.DevNull))(t)
	defer f.Close()
	for range 5 {
		if err := a.Send([]byte("x"), f, f); err != nil {
			t.Fatal(err)
		}
	}
	m := must(b.Receive())(t)
	defer m.Close()
	b.Close()
}

// TestMemoryIsTakenAsBytesCome announces the largest message 100 times and sends none of it.
func TestMemoryIsTakenAsBytesCome(t *testing.T) {
	var held []*ipc.Conn
	for range 100 {
		c, raw := rawPair(t, ipc.Limits{Data: 1 << 30})
		head := frame(0, nil, nil)
		binary.LittleEndian.PutUint32(head[8:], 1<<30)
		sendRaw(t, raw, head, 0)
		c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		if _, err := c.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	if mb := heapMB(); mb > 50 {
		t.Errorf("%d MB are held for %d announcements", mb, len(held))
	}
}

func heapMB() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc >> 20
}

// playStarve receives at its limit of open files, then with room again, and reports both.
func playStarve([]string) error {
	c, err := ipc.Inherited()
	if err != nil {
		return err
	}
	defer c.Close()
	warm, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer warm.Close()
	room, err := faults.LimitDescriptors()
	if err != nil {
		return err
	}
	open := faults.Descriptors()
	for _, extra := range []int{2, 0, 100} {
		if err := room(extra); err != nil {
			return err
		}
		m, err := c.Receive()
		if err != nil {
			return err
		}
		report := string(m.Data)
		for _, a := range m.Attachments() {
			f, err := a.File()
			switch {
			case err == nil:
				f.Close()
				report += " ok"
			case errors.Is(err, unix.EMFILE) && strings.Contains(err.Error(), "limit of open files"):
				report += " lost"
			default:
				report += " " + err.Error()
			}
		}
		m.Close()
		if err := room(100); err != nil {
			return err
		}
		if now := faults.Descriptors(); now > open {
			report += fmt.Sprintf(" leaked %d", now-open)
		}
		if err := c.Send([]byte(report)); err != nil {
			return err
		}
	}
	return nil
}

func TestReceiverAtItsDescriptorLimit(t *testing.T) {
	c, _ := startInheriting(t, "starve", false)
	f := must(os.Open(os.DevNull))(t)
	defer f.Close()
	for i, want := range []string{"0 ok ok lost lost", "1 lost lost lost lost", "2 ok ok ok ok"} {
		if err := c.Send(fmt.Append(nil, i), f, f, f, f); err != nil {
			t.Fatal(err)
		}
		if m := must(c.Receive())(t); string(m.Data) != want {
			t.Errorf("the receiver says %q, want %q", m.Data, want)
		}
	}
}

func TestSocketFiles(t *testing.T) {
	faults.NoLeak(t)
	t.Run("have the mode asked for", func(t *testing.T) {
		for _, mode := range []os.FileMode{0, 0o660} {
			l := must((&ipc.ListenConfig{Mode: mode}).Listen(endpoint(t)))(t)
			info := must(os.Lstat(l.Addr().String()))(t)
			want := mode
			if want == 0 {
				want = 0o600
			}
			if info.Mode().Perm() != want {
				t.Errorf("mode is %s, want %s", info.Mode(), want)
			}
			l.Close()
			if entries := must(os.ReadDir(filepath.Dir(l.Addr().String())))(t); len(entries) != 0 {
				t.Errorf("left behind: %v", entries)
			}
		}
	})
	t.Run("of the dead are replaced", func(t *testing.T) {
		path := endpoint(t)
		dead := must(net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}))(t)
		dead.SetUnlinkOnClose(false)
		dead.Close()
		l := must(ipc.Listen(path))(t)
		l.Close()
	})
	t.Run("of the living are not", func(t *testing.T) {
		path := endpoint(t)
		living := must(net.Listen("unix", path))(t)
		defer living.Close()
		if l, err := ipc.Listen(path); !errors.Is(err, unix.EADDRINUSE) {
			l.Close()
			t.Errorf("listened: %v", err)
		}
	})
	t.Run("that are no sockets are kept", func(t *testing.T) {
		path := endpoint(t)
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ipc.Listen(path); err == nil {
			t.Error("listened at a file")
		} else {
			contains(t, err, "is not a socket")
		}
		if _, err := ipc.Dial(context.Background(), path); err == nil {
			t.Error("dialed a file")
		} else {
			contains(t, err, "is not a socket")
		}
		if b, _ := os.ReadFile(path); string(b) != "precious" {
			t.Errorf("the file holds %q", b)
		}
	})
	t.Run("are not reached through symbolic links", func(t *testing.T) {
		l := must(ipc.Listen(endpoint(t)))(t)
		defer l.Close()
		link := endpoint(t)
		if err := os.Symlink(l.Addr().String(), link); err != nil {
			t.Fatal(err)
		}
		if _, err := ipc.Dial(context.Background(), link); err == nil {
			t.Error("dialed a symbolic link")
		}
		if _, err := ipc.Listen(link); err == nil {
			t.Error("listened at a symbolic link")
		}
	})
	t.Run("of a successor outlive Close", func(t *testing.T) {
		path := endpoint(t)
		old := must(ipc.Listen(path))(t)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		successor := must(ipc.Listen(path))(t)
		defer successor.Close()
		old.Close()
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the old listener removed the successor's socket: %v", err)
		}
	})
	t.Run("with paths too long", func(t *testing.T) {
		_, err := ipc.Listen("/tmp/" + strings.Repeat("x", 200))
		contains(t, err, "limit")
	})
}

func TestManyStartAtOnceAndOneWins(t *testing.T) {
	faults.NoLeak(t)
	path := endpoint(t)
	dead := must(net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}))(t)
	dead.SetUnlinkOnClose(false)
	dead.Close()
	const n = 20
	won := make(chan *ipc.Listener, n)
	for range n {
		go func() {
			l, err := ipc.Listen(path)
			if err != nil && !errors.Is(err, unix.EADDRINUSE) {
				t.Error(err)
			}
			won <- l
		}()
	}
	var winner *ipc.Listener
	for range n {
		l := <-won
		if l == nil {
			continue
		}
		if winner != nil {
			t.Error("two listeners won")
			l.Close()
			continue
		}
		winner = l
	}
	if winner == nil {
		t.Fatal("nobody won")
	}
	winner.Close()
}

func TestFoldersOthersCanWriteToAreRefused(t *testing.T) {
	dir := filepath.Dir(endpoint(t))
	t.Setenv("USHER_DIR", dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if l, err := ipc.Listen("shop"); err == nil {
		l.Close()
		t.Error("listened in a folder that anybody can write to")
	} else {
		contains(t, err, "others can write to it")
	}
	sub := filepath.Join(dir, "new")
	t.Setenv("USHER_DIR", sub)
	l := must(ipc.Listen("shop"))(t)
	defer l.Close()
	if info := must(os.Stat(sub))(t); info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %s", info.Mode())
	}
}
