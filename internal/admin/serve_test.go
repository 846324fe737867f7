package admin_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/admin"
)

// socketDir is short: the path of a socket must be. It skips the test where there are no Unix sockets, as on
// Windows before 10 and under Wine.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "adm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "probe"))
	if err == nil {
		l.Close()
	} else if runtime.GOOS == "windows" {
		t.Skipf("skipped: there are no Unix sockets here: %v", err)
	}
	return dir
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := admin.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func unixClient(t *testing.T, path string) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestUnixSocketServesAnyHost(t *testing.T) {
	path := filepath.Join(socketDir(t), "admin.sock")
	l := listen(t, "unix:"+path)
	if got := l.Addr(); got.Network() != "unix" || got.String() != path {
		t.Errorf("the address is %s %s", got.Network(), got)
	}
	serveAt(t, l, handler(status()))
	w, body := get(t, unixClient(t, path), "http://door.internal/readyz")
	if w.StatusCode != 200 || body != "ready\n" {
		t.Errorf("%s, %q", w.Status, body)
	}
}

func TestUnixSocketIsTheOwnersOnly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("skipped: on Windows the folder's permissions decide")
	}
	path := filepath.Join(socketDir(t), "admin.sock")
	listen(t, "unix:"+path)
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the mode is %s", info.Mode())
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the socket there are %v, %v", entries, err)
	}
}

func TestCloseRemovesTheSocket(t *testing.T) {
	t.Run("if it is its own", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "admin.sock")
		l := listen(t, "unix:"+path)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is still there: %v", err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a second Close returns %v", err)
		}
	})
	t.Run("unless it is told not to", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "admin.sock")
		l := listen(t, "unix:"+path)
		l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
		l.Close()
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	})
	t.Run("unless another one is there by now", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "admin.sock")
		l := listen(t, "unix:"+path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		listen(t, "unix:"+path)
		l.Close()
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	})
}

func TestListenAtAPathThatIsTaken(t *testing.T) {
	t.Run("a listener that lives stays", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "admin.sock")
		first := listen(t, "unix:"+path)
		_, err := admin.Listen("unix:" + path)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), path) {
			t.Errorf("the error is %v", err)
		}
		serveAt(t, first, handler(status()))
		if w, _ := get(t, unixClient(t, path), "http://x/healthz"); w.StatusCode != 200 {
			t.Errorf("the first one answers %s", w.Status)
		}
	})
	t.Run("a listener that died is replaced", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "admin.sock")
		dead := listen(t, "unix:"+path)
		dead.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
		dead.Close()
		serveAt(t, listen(t, "unix:"+path), handler(status()))
		if w, _ := get(t, unixClient(t, path), "http://x/healthz"); w.StatusCode != 200 {
			t.Errorf("the new one answers %s", w.Status)
		}
	})
	t.Run("a file is not removed", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "admin.sock")
		if err := os.WriteFile(path, []byte("dear diary"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "is not a socket") {
			t.Errorf("the error is %v", err)
		}
		if b, err := os.ReadFile(path); string(b) != "dear diary" {
			t.Errorf("the file has %q, %v", b, err)
		}
	})
	t.Run("a folder that is not there is named", func(t *testing.T) {
		path := filepath.Join(socketDir(t), "nowhere", "admin.sock")
		_, err := admin.Listen("unix:" + path)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("a port", func(t *testing.T) {
		l := listen(t, "127.0.0.1:0")
		if _, err := admin.Listen(l.Addr().String()); err == nil {
			t.Error("two listen at the same port")
		}
	})
}

// An answer under way when the door ends is complete, and no new connection is taken.
func TestServeEndsGracefully(t *testing.T) {
	entered, proceed := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done() // the door ends
		<-proceed
		io.WriteString(w, "to the last word")
	})
	l := listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- admin.Serve(ctx, l, h) }()
	body := make(chan string, 1)
	c := client(t)
	go func() {
		_, b := get(t, c, "http://"+l.Addr().String())
		body <- b
	}()
	<-entered
	cancel()
	for { // the listener is closed before the answer is complete
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	close(proceed)
	if got := <-body; got != "to the last word" {
		t.Errorf("the answer is %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestServeEndsAProfileEarly(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- admin.Serve(ctx, l, handler(status())) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /debug/pprof/trace?seconds=1000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	answer := bufio.NewReader(conn)
	if _, err := answer.ReadString('\n'); err != nil { // the trace has begun
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, answer); err != nil {
		t.Error(err)
	}
}

func TestServeOfWhatHasEnded(t *testing.T) {
	t.Run("a context", func(t *testing.T) {
		l := listen(t, "127.0.0.1:0")
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := admin.Serve(ctx, l, handler(status())); err != nil {
			t.Error(err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the listener is not closed: %v", err)
		}
	})
	t.Run("a listener", func(t *testing.T) {
		l := listen(t, "127.0.0.1:0")
		l.Close()
		if err := admin.Serve(context.Background(), l, handler(status())); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the error is %v", err)
		}
	})
}

// A client cannot make the door keep an endless header.
func TestServeBoundsHeaders(t *testing.T) {
	addr := serve(t, handler(status()))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 24<<10)+"\r\n\r\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 431 ") {
		t.Errorf("the answer is %q, %v", line, err)
	}
}

// A health check of HTTP/1.0 sends no Host, which no browser leaves out.
func TestARequestWithoutHost(t *testing.T) {
	conn, err := net.Dial("tcp", serve(t, handler(status())))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /healthz HTTP/1.0\r\n\r\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.0 200 ") {
		t.Errorf("the answer is %q, %v", line, err)
	}
}
