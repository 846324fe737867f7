package ipc_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/Microsoft/go-winio"
	"github.com/go-usher/usher/internal/sys"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/windows"
)

// TestHandlesDoNotLeak passes connections and files many times, taken and not taken.
func TestHandlesDoNotLeak(t *testing.T) {
	f := must(os.Open(os.Args[0]))(t)
	defer f.Close()
	round := func() {
		client, server := tcpPair(t, "tcp4", "127.0.0.1:0")
		a, b, err := ipc.Pair()
		if err != nil {
			t.Fatal(err)
		}
		got := pass(t, a, b, server, f)
		server.Close()
		conn := must(got[0].Conn())(t)
		converse(t, client, conn)
		for _, c := range []io.Closer{conn, client, a, b} {
			c.Close()
		}
	}
	run := func(n int) int {
		t.Run("", func(t *testing.T) { // whose end closes the messages
			for range n {
				round()
			}
		})
		return must(sys.HandleCount())(t)
	}
	before := run(20)
	const rounds = 200
	if after := run(rounds); after > before+rounds/4 {
		t.Errorf("%d handles after %d rounds, %d before", after, rounds, before)
	}
}

// TestHostilePeersLoseTheirChannel sends what no honest peer does.
func TestHostilePeersLoseTheirChannel(t *testing.T) {
	frame := func(count int, table, data []byte) []byte {
		b := []byte{'U', 'S', 'H', 1}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(table)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
		b = binary.LittleEndian.AppendUint16(b, uint16(count))
		b = append(b, 0, 0)
		return append(append(b, table...), data...)
	}
	entry := func(kind byte, body []byte) []byte {
		b := []byte{kind, 0}
		b = binary.LittleEndian.AppendUint16(b, uint16(len(body)))
		return append(append(b, 0, 0, 0, 0), body...)
	}
	huge := frame(0, nil, nil)
	binary.LittleEndian.PutUint32(huge[8:], 1<<32-1)
	for name, test := range map[string]struct {
		bytes []byte
		want  string
	}{
		"not usher at all":          {[]byte("GET / HTTP/1.1\r\n\r\n"), `frame starts with "GET"`},
		"4 GiB announced":           {huge, "message of 4294967295 bytes"},
		"entry of an unknown kind":  {frame(1, entry(9, nil), nil), "unknown kind 9"},
		"a socket without its info": {frame(1, entry(1, nil), nil), "a socket with a body of 0 bytes, want 628"},
		"a file without its handle": {frame(1, entry(2, []byte{1}), nil), "a file with a body of 1 bytes, want 8"},
		"a handle that is none":     {frame(1, entry(2, []byte{0xf1, 0xff, 0, 0, 0, 0, 0, 0}), nil), "is no handle of a file"},
		"cut short":                 {frame(0, nil, []byte("data"))[:18], io.ErrUnexpectedEOF.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			c, raw := rawPair(t)
			if _, err := raw.Write(test.bytes); err != nil {
				t.Fatal(err)
			}
			if test.want == io.ErrUnexpectedEOF.Error() {
				raw.Close()
			}
			m, err := c.Receive()
			if err == nil {
				m.Close()
				t.Fatalf("received %q", m.Data)
			}
			contains(t, err, test.want)
			if err := c.Send(nil); err == nil || errors.Is(err, net.ErrClosed) {
				t.Errorf("sent on a broken channel: %v", err)
			}
		})
	}
}

// rawPair returns a channel and the naked pipe at its other end, opened as SPEC.md says that a dialer
// must.
func rawPair(t *testing.T) (*ipc.Conn, net.Conn) {
	t.Helper()
	l := must(ipc.Listen(endpoint(t)))(t)
	defer l.Close()
	accepted := make(chan *ipc.Conn, 1)
	go func() { c, _ := l.Accept(); accepted <- c }()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	raw := must(winio.DialPipeAccessImpLevel(ctx, l.Addr().String(), windows.GENERIC_READ|windows.GENERIC_WRITE,
		winio.PipeImpLevelIdentification))(t)
	t.Cleanup(func() { raw.Close() })
	c := <-accepted
	if c == nil {
		t.Fatal("not accepted")
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	return c, raw
}

// TestASocketThatCannotBeImportedIsLost sends a WSAPROTOCOL_INFO that stands for nothing: that costs the
// attachment, as a receiver without handles left would find, not the channel.
func TestASocketThatCannotBeImportedIsLost(t *testing.T) {
	c, raw := rawPair(t)
	table := append([]byte{1, 0, 628 & 255, 628 >> 8, 0, 0, 0, 0}, make([]byte, 628)...)
	b := []byte{'U', 'S', 'H', 1, 636 & 255, 636 >> 8, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}
	if _, err := raw.Write(append(b, table...)); err != nil {
		t.Fatal(err)
	}
	m := must(c.Receive())(t)
	defer m.Close()
	if _, err := m.Attachments()[0].Conn(); err == nil {
		t.Error("a socket was made of nothing")
	} else {
		contains(t, err, "did not arrive")
	}
}

func TestPoliciesByName(t *testing.T) {
	me := must(windows.GetCurrentProcessToken().GetTokenUser())(t).User.Sid
	account, domain, _, err := me.LookupAccount("")
	if err != nil {
		t.Fatal(err)
	}
	const system = "S-1-5-18"
	for name, users := range map[string][]string{"by SID": {system, me.String()}, "by name": {domain + `\` + account}} {
		t.Run(name, func(t *testing.T) {
			policy := must(ipc.Users(users...))(t)
			newChannel(t, ipc.Dialer{Policy: policy}, ipc.ListenConfig{Policy: policy})
			contains(t, policy(ipc.Peer{PID: 7, SID: "S-1-5-21-1-2-3-4"}), "process 7 runs as S-1-5-21-1-2-3-4, who is not among")
		})
	}
	t.Run("not this user, who is not named", func(t *testing.T) {
		contains(t, must(ipc.Users("S-1-5-21-1-2-3-4"))(t)(ipc.Peer{SID: me.String()}), "is not among")
	})
	t.Run("a user that nobody knows", func(t *testing.T) {
		_, err := ipc.Users("no-such-user")
		contains(t, err, "no-such-user")
	})
	t.Run("an abbreviation of SDDL, which is no name", func(t *testing.T) {
		_, err := ipc.Users("SY")
		contains(t, err, "SY")
	})
	t.Run("groups", func(t *testing.T) {
		if _, err := ipc.Groups("Users"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a policy for groups: %v", err)
		}
	})
}

func TestPath(t *testing.T) {
	if path := must(ipc.Path("shop"))(t); path != `\\.\pipe\usher\shop` {
		t.Errorf("the path is %s", path)
	}
	if path, err := ipc.Path(`C:\shop`); err == nil {
		t.Errorf("a file is the pipe %s", path)
	}
}
