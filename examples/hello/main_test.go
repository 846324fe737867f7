//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
)

func TestMain(m *testing.M) { faults.Main(m, map[string]func([]string) error{"hello": playHello}) }

// playHello is the program itself.
func playHello(args []string) error {
	os.Args = append([]string{"hello"}, args...)
	main()
	return nil
}

const (
	clients  = 8
	versions = 10
	timeout  = 30 * time.Second // ends a test that hangs
)

// No request fails, and no connection ends, while one version of the server after the other takes over.
func TestNewVersionsTakeOverUnderLoad(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	endpoint := faults.Endpoint(t)
	version := startHello(t, endpoint)
	target := dial(ctx, t, endpoint)
	defer target.Close()

	enough := make(chan struct{})
	var load sync.WaitGroup
	for range clients {
		c := connect(ctx, t, target)
		load.Go(func() {
			if err := keepAsking(c, enough); err != nil {
				t.Error(err)
			}
		})
	}
	for range versions {
		next := startHello(t, endpoint)
		if err := version.Wait(); err != nil {
			t.Error("a version that was replaced: ", err)
		}
		version = next
	}
	close(enough)
	load.Wait()
	if err := version.Process.Signal(syscall.SIGTERM); err != nil { // there is no such thing on Windows
		t.Log(err)
		return
	}
	if err := version.Wait(); err != nil {
		t.Error("a version that was to end: ", err)
	}
}

// The server waits for the first request of a connection that it has just claimed; who asks twice does not.
func TestASecondSignalEndsItAtOnce(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no such thing")
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	endpoint := faults.Endpoint(t)
	hello := startHello(t, endpoint)
	target := dial(ctx, t, endpoint)
	defer target.Close()
	connect(ctx, t, target)
	ended := make(chan error, 1)
	go func() { ended <- hello.Wait() }()
	for {
		if err := hello.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Error("it has ended as if it had been asked once")
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func startHello(t *testing.T, endpoint string) *exec.Cmd {
	t.Helper()
	cmd := faults.Command(t, "hello", endpoint)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return cmd
}

// dial waits until somebody listens.
func dial(ctx context.Context, t *testing.T, endpoint string) *usher.Target {
	t.Helper()
	for {
		target, err := usher.Dial(ctx, endpoint)
		if err == nil {
			return target
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// connect hands one end of a connection over, and returns the other.
func connect(ctx context.Context, t *testing.T, target *usher.Target) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	o, err := usher.NewOffer(server, nil, usher.Info{})
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Handoff(ctx, o); err != nil {
		t.Fatal(err)
	}
	return client
}

// keepAsking makes one request after the other on one connection, until there were enough.
func keepAsking(c net.Conn, enough <-chan struct{}) error {
	c.SetDeadline(time.Now().Add(timeout))
	answers := bufio.NewReader(c)
	for n := 0; ; n++ {
		select {
		case <-enough:
			return c.Close()
		default:
		}
		if _, err := fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: shop\r\n\r\n", n); err != nil {
			return fmt.Errorf("request %d: %w", n, err)
		}
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			return fmt.Errorf("request %d: %w", n, err)
		}
		body, err := io.ReadAll(r.Body)
		if want := fmt.Sprintf("and you asked for shop/%d.\n", n); err != nil || r.Close || !strings.HasSuffix(string(body), want) {
			return fmt.Errorf("request %d was answered with %q, %v, and the connection closes: %t", n, body, err, r.Close)
		}
	}
}
