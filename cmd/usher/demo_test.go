package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const patience = 10 * time.Second

// demoProcess is a running usher demo.
type demoProcess struct {
	cmd    *exec.Cmd
	stderr *lockedBuffer
	tmp    string         // its temporary folder
	addr   string         // of the door
	pids   map[string]int // of the backends
	waited bool
}

var (
	doorLine    = regexp.MustCompile(`^front door +pid +\d+ +http://([^/]+)/$`)
	backendLine = regexp.MustCompile(`^backend (\w+) +pid +(\d+) `)
)

// startDemo runs a demo that the test's end kills, if the test has not ended it before.
func startDemo(t *testing.T) *demoProcess {
	t.Helper()
	tmp, err := os.MkdirTemp("", "ud") // t.TempDir is too long for a socket on some systems
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })

	d := &demoProcess{cmd: exec.Command("usher", "demo"), stderr: new(lockedBuffer), tmp: tmp, pids: make(map[string]int)}
	d.cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "TMP="+tmp, "TEMP="+tmp)
	d.cmd.Stderr = d.stderr
	d.cmd.WaitDelay = patience
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		d.wait()
	})
	d.readIntroduction(t, stdout)
	return d
}

// readIntroduction reads all that the demo prints when it starts.
func (d *demoProcess) readIntroduction(t *testing.T, stdout io.Reader) {
	t.Helper()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		line := lines.Text()
		if m := doorLine.FindStringSubmatch(line); m != nil {
			d.addr = m[1]
		}
		if m := backendLine.FindStringSubmatch(line); m != nil {
			d.pids[m[1]], _ = strconv.Atoi(m[2])
		}
		if strings.HasPrefix(line, "Press Ctrl-C") {
			break
		}
	}
	if d.addr == "" || d.pids["red"] == 0 || d.pids["blue"] == 0 {
		t.Fatalf("the demo did not introduce itself; stderr: %s", d.stderr)
	}
}

// wait waits for the demo and for every process that it started. They all have its stderr, a pipe here, and Wait waits until nobody has
// it any more: if somebody keeps it the error is exec.ErrWaitDelay.
func (d *demoProcess) wait() error {
	if d.waited {
		return nil
	}
	d.waited = true
	return d.cmd.Wait()
}

// lockedBuffer collects what a process writes while a test looks at it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// client is a raw connection to the door.
type client struct {
	*net.TCPConn
	r *bufio.Reader
}

func (d *demoProcess) dial(t *testing.T) client {
	t.Helper()
	conn, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return client{conn.(*net.TCPConn), bufio.NewReader(conn)}
}

func (c client) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// hear reads one response.
func (c client) hear(t *testing.T) (status int, body string) {
	t.Helper()
	response, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

// hearFrom reads one response and checks that the backend of that name gave it, on this very connection.
func (c client) hearFrom(t *testing.T, d *demoProcess, name string) {
	t.Helper()
	status, body := c.hear(t)
	want, err := json.Marshal(answer{Backend: name, PID: d.pids[name], DoorPID: d.cmd.Process.Pid, Client: c.LocalAddr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if status != http.StatusOK || body != string(want)+"\n" {
		t.Fatalf("the answer is %d %q; want 200 %q", status, body, want)
	}
}

func head(host string) string { return "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }

func TestDemoAnswers(t *testing.T) {
	t.Parallel()
	d := startDemo(t)

	for _, name := range demoNames {
		t.Run("the host of "+name+" is answered by "+name, func(t *testing.T) {
			c := d.dial(t)
			c.say(t, head(name+".localhost"))
			c.hearFrom(t, d, name)
		})
	}
	t.Run("a connection stays with its backend", func(t *testing.T) {
		c := d.dial(t)
		for range 3 {
			c.say(t, head("RED.localhost:80"))
			c.hearFrom(t, d, "red")
		}
	})
	t.Run("a request may come in small pieces", func(t *testing.T) {
		c := d.dial(t)
		for _, b := range []byte(head("blue.localhost")) {
			c.say(t, string(b))
			time.Sleep(time.Millisecond)
		}
		c.hearFrom(t, d, "blue")
	})
	t.Run("two requests may come at once", func(t *testing.T) {
		c := d.dial(t)
		c.say(t, head("red.localhost")+head("red.localhost"))
		c.hearFrom(t, d, "red")
		c.hearFrom(t, d, "red")
	})
	t.Run("a request may be cut behind the head of the one before", func(t *testing.T) {
		c := d.dial(t)
		c.say(t, head("red.localhost")+"GET / HT")
		c.hearFrom(t, d, "red")
		c.say(t, "TP/1.1\r\nHost: red.localhost\r\n\r\n")
		c.hearFrom(t, d, "red")
	})
	t.Run("a client that half-closes gets its answer", func(t *testing.T) {
		c := d.dial(t)
		c.say(t, head("blue.localhost"))
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.hearFrom(t, d, "blue")
	})

	large := "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 16<<10)
	refusals := []struct {
		name, request string
		status        int
		body          string
	}{
		{"an unknown host", head("green.localhost"), 404, "usher: 404 Not Found\n"},
		{"a request without a host", "GET / HTTP/1.1\r\n\r\n", 400, "usher: 400 Bad Request\n"},
		{"a head that is too large, with more behind it", large, 431, "usher: 431 Request Header Fields Too Large\n"},
	}
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			c := d.dial(t)
			c.say(t, tt.request)
			status, body := c.hear(t)
			if status != tt.status || body != tt.body {
				t.Errorf("the answer is %d %q; want %d %q", status, body, tt.status, tt.body)
			}
			if _, err := c.r.ReadByte(); err != io.EOF {
				t.Errorf("after the answer: %v; want EOF", err)
			}
		})
	}
	t.Run("a client that leaves without a word is let go", func(t *testing.T) {
		c := d.dial(t)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := c.r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the door says %q to nobody, %v", b, err)
		}
	})
	if s := d.stderr.String(); s != "" {
		t.Errorf("stderr has %q", s)
	}
}

func TestBackendsEndWhenTheDoorIsKilled(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	c := d.dial(t)
	c.say(t, head("red.localhost"))
	c.hearFrom(t, d, "red")

	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := d.wait(); !errors.As(err, &exit) {
		t.Fatalf("the demo was killed: %v; want its exit status, and no process left that has its stderr", err)
	}
	if n, err := c.r.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the backend's connection outlived it: %d bytes, %v", n, err)
	}
}

func TestDemoSaysThatABackendDied(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	// Once, so that the door has a channel to red which breaks.
	c := d.dial(t)
	c.say(t, head("red.localhost"))
	c.hearFrom(t, d, "red")

	red, err := os.FindProcess(d.pids["red"])
	if err != nil {
		t.Fatal(err)
	}
	if err := red.Kill(); err != nil {
		t.Fatal(err)
	}
	notice := fmt.Sprintf("usher: backend red (pid %d) has ended: ", red.Pid)
	for deadline := time.Now().Add(patience); !strings.Contains(d.stderr.String(), notice); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("stderr has no %q: %s", notice, d.stderr)
		}
	}

	c = d.dial(t)
	c.say(t, head("red.localhost"))
	if status, body := c.hear(t); status != http.StatusServiceUnavailable {
		t.Errorf("the dead backend's host: %d %q; want 503", status, body)
	}
	c = d.dial(t)
	c.say(t, head("blue.localhost"))
	c.hearFrom(t, d, "blue")
}

// TestLostRequestsAreCounted has a server in the place of the door, so none of its answers comes from a backend but those that say so.
func TestLostRequestsAreCounted(t *testing.T) {
	tests := []struct {
		name   string
		answer func(*answer) int // spoils an answer and returns the status
		want   string
	}{
		{"all is well", func(*answer) int { return 200 }, "4 requests, 4 handed over, 0 proxied, 0 lost\n"},
		{"another status", func(*answer) int { return 503 }, "4 requests, 0 handed over, 0 proxied, 4 lost\n"},
		{"another backend", func(a *answer) int { a.Backend = "blue"; return 200 }, "4 requests, 2 handed over, 0 proxied, 2 lost\n"},
		{"another process", func(a *answer) int { a.PID = os.Getpid(); return 200 }, "4 requests, 0 handed over, 0 proxied, 4 lost\n"},
		{"another door", func(a *answer) int { a.DoorPID++; return 200 }, "4 requests, 0 handed over, 0 proxied, 4 lost\n"},
		{"another client, as behind a proxy", func(a *answer) int { a.Client += "0"; return 200 }, "4 requests, 0 handed over, 0 proxied, 4 lost\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				name, _, _ := strings.Cut(r.Host, ".")
				a := answer{Backend: name, PID: -1, DoorPID: os.Getpid(), Client: r.RemoteAddr}
				w.WriteHeader(tt.answer(&a))
				json.NewEncoder(w).Encode(a)
			}))
			defer server.Close()
			d := &demo{addr: server.Listener.Addr().String()}
			for _, name := range demoNames {
				d.backends = append(d.backends, &backend{name: name, cmd: &exec.Cmd{Process: &os.Process{Pid: -1}}})
			}
			var out strings.Builder
			err := d.makeRequests(context.Background(), &out, 4)
			if !strings.HasSuffix(out.String(), "\n"+tt.want) {
				t.Errorf("the summary is %q; want it to end with %q", out.String(), tt.want)
			}
			if lost := !strings.Contains(tt.want, " 0 lost"); (err != nil) != lost {
				t.Errorf("the error is %v; were requests lost: %v", err, lost)
			}
		})
	}
}

func TestARequestThatWasTriedTwiceIsLost(t *testing.T) {
	var served atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) == 2 {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.Close() // net/http's client takes this for an idle connection that timed out, and tries again
			}
			return
		}
		json.NewEncoder(w).Encode(answer{Backend: "red", PID: -1, DoorPID: os.Getpid(), Client: r.RemoteAddr})
	}))
	defer server.Close()
	d := &demo{addr: server.Listener.Addr().String()}
	b := &backend{name: "red", cmd: &exec.Cmd{Process: &os.Process{Pid: -1}}}
	c := d.client(false)
	defer c.CloseIdleConnections()

	if conns, err := makeRequest(t.Context(), c, b); conns != 1 || err != nil {
		t.Fatalf("the first request: %d connections, %v", conns, err)
	}
	if conns, err := makeRequest(t.Context(), c, b); conns != 1 || err == nil {
		t.Fatalf("a request that was tried twice: %d new connections, %v; want 1 and an error", conns, err)
	}
}
