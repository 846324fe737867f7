package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher"
)

// handed returns a connection as it comes to the program, and the client's end of it.
func handed(t testing.TB, in string, info usher.Info) (*usher.Conn, *net.TCPConn) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	client := must(net.Dial("tcp", l.Addr().String())).(*net.TCPConn)
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(timeout))
	client.SetReadBuffer(64 << 10)
	server := must(l.Accept()).(*net.TCPConn)
	server.SetWriteBuffer(4 << 10)
	return again(t, server, []byte(in), info), client
}

// again hands a connection over to this process.
func again(t testing.TB, c net.Conn, in []byte, info usher.Info) *usher.Conn {
	t.Helper()
	conn := must(must(usher.NewOffer(c, in, info)).Reclaim())
	t.Cleanup(func() { conn.Close() })
	return conn
}

// successor is a room that has all of a stopped one.
func successor(t testing.TB, r *room) *room {
	t.Helper()
	to := new(room)
	if err := json.Unmarshal(must(json.Marshal(r)), to); err != nil {
		t.Fatal(err)
	}
	if err := to.check(); err != nil {
		t.Fatal(err)
	}
	for c := range r.clients {
		if err := to.welcomeBack(again(t, c.conn, c.in, c.state())); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestWhatASlowClientHasNotReadGoesAlongToTheByte(t *testing.T) {
	r := newRoom()
	conn, client := handed(t, "", usher.Info{})
	r.welcome(conn)
	const messages = 2000
	text := strings.Repeat("ü", 250)
	for range messages {
		r.mu.Lock()
		r.post(text)
		r.mu.Unlock()
	}
	var got bytes.Buffer
	read := func(n int64) {
		t.Helper()
		if _, err := io.CopyN(&got, client, n); err != nil {
			t.Fatal(err)
		}
	}
	read(200) // more than the welcome: the writer is among the messages
	halves := 0
	for range 10 {
		time.Sleep(10 * time.Millisecond) // for the writer to find that there is no room
		r.stop()
		for c := range r.clients {
			if len(c.Rest) > 0 && !bytes.HasPrefix(c.Rest, fmt.Append(nil, c.Next-1-int64(len(c.Rest)/len(text)))) {
				halves++
			}
			if c.Next > r.Last {
				t.Fatal("the client is not slow")
			}
		}
		r = successor(t, r)
		r.resume()
		read(10_007) // no multiple of a message, nor of a character
	}
	if halves == 0 {
		t.Error("the writer was never stopped within a message")
	}
	var want bytes.Buffer
	fmt.Fprintf(&want, "* This is chat %s. You are guest, \"/name NAME\" changes that. The next message is number 1.\n", version)
	for i := range messages {
		fmt.Fprintf(&want, "%d %s\n", i+1, text)
	}
	read(int64(want.Len() - got.Len()))
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Error("the client has not read what was written")
	}
	r.close()
	if b, err := io.ReadAll(client); err != nil || len(b) > 0 {
		t.Errorf("after the last message there is %q, %v", b, err)
	}
}

func TestARoomThatClosesWritesWhatIsDue(t *testing.T) {
	r := newRoom()
	conn, client := handed(t, "", usher.Info{})
	r.welcome(conn)
	const messages = 500 // more than the kernel holds for a client that does not read yet
	for range messages {
		r.mu.Lock()
		r.post(strings.Repeat("x", maxLine))
		r.mu.Unlock()
	}
	closed := make(chan struct{})
	go func() {
		r.close()
		close(closed)
	}()
	b, err := io.ReadAll(client)
	if n := bytes.Count(b, []byte("\n")); err != nil || n != 1+messages {
		t.Errorf("the client has read %d lines, %v", n, err)
	}
	<-closed
}

func TestALineThatIsNotCompleteGoesAlong(t *testing.T) {
	r := newRoom()
	conn, client := handed(t, "/name an", usher.Info{ID: "7"})
	r.welcome(conn)
	for _, part := range []string{"", "n", "\r", "\nhe", "llo\n\n", "and on\nand"} {
		if _, err := io.WriteString(client, part); err != nil {
			t.Fatal(err)
		}
		r.stop()
		r = successor(t, r)
		r.resume()
	}
	var got []byte
	for want := "1 * guest is ann now\n2 ann: hello\n3 ann: and on\n"; !strings.HasSuffix(string(got), want); {
		b := make([]byte, 100)
		n, err := client.Read(b)
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got = append(got, b[:n]...)
	}
	r.stop()
	for c := range r.clients {
		if string(c.in) != "and" && len(c.in) > 0 || c.Name != "ann" || c.info.ID != "7" {
			t.Errorf("the client is %q, connection %q, and has sent %q", c.Name, c.info.ID, c.in)
		}
	}
	r.close()
}

func TestAClientThatIsFurtherBehindThanTheHistoryIsSentAway(t *testing.T) {
	r := newRoom()
	conn, client := handed(t, "", usher.Info{})
	r.welcome(conn)
	for range 2 * maxHistory {
		r.mu.Lock()
		r.post(strings.Repeat("x", maxLine))
		r.mu.Unlock()
	}
	b, err := io.ReadAll(client)
	if bytes.Contains(b, fmt.Appendf(nil, "\n%d ", 2*maxHistory)) {
		t.Error("it has got the last message")
	}
	_ = err // a connection with something to read may be reset
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.clients) != 0 || len(r.History) != maxHistory {
		t.Errorf("%d clients are in the room, and %d messages", len(r.clients), len(r.History))
	}
}

func TestLinesEndAtTheirEndOrWhereTheyAreTooLong(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for in, want := range map[string][]string{
		"":                          nil,
		"no end":                    nil,
		"one\ntwo\r\n":              {"one", "two"},
		"\n\r\n\r\r\n":              {"", "", "\r"},
		long:                        {long},
		long + "\n":                 {long, ""},
		long[1:] + "\nrest":         {long[1:]},
		long + long + "y\nz":        {long, long, "y"},
		long[1:] + "\r\nz\n":        {long[1:] + "\r", "", "z"},
		"\x00\xff\n\xc3\xbc is ü\n": {"\x00\xff", "ü is ü"},
	} {
		if got := lines([]byte(in), len(in)); !slices.Equal(got, want) {
			t.Errorf("%.20q has the lines %.20q, want %.20q", in, got, want)
		}
	}
}

// lines returns those of b, which comes in parts of n bytes.
func lines(b []byte, n int) (all []string) {
	var in []byte
	for len(b) > 0 {
		n = min(n, len(b))
		in = append(in, b[:n]...)
		b = b[n:]
		for line, rest, ok := cutLine(in); ok; line, rest, ok = cutLine(in) {
			all = append(all, string(line))
			in = rest
		}
	}
	return all
}

func FuzzLinesAreTheSameHoweverTheyCome(f *testing.F) {
	f.Add([]byte("one\r\ntwo\n\nthree"), uint8(1))
	f.Add([]byte(strings.Repeat("x", maxLine)+"\r\n"), uint8(5))
	f.Add([]byte(strings.Repeat("xyz\n", maxLine)), uint8(250))
	f.Fuzz(func(t *testing.T, b []byte, n uint8) {
		whole := lines(b, len(b))
		if parts := lines(b, int(n)+1); !slices.Equal(parts, whole) {
			t.Errorf("%q in parts of %d bytes has the lines %q, and at once %q", b, int(n)+1, parts, whole)
		}
		for _, line := range whole {
			if len(line) > maxLine || strings.Contains(line, "\n") {
				t.Errorf("a line is %q", line)
			}
		}
	})
}
