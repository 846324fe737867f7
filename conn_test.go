//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"golang.org/x/net/nettest"
)

func TestConnIsANetConn(t *testing.T) {
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	for _, prefix := range []string{"", "pre"} {
		t.Run(fmt.Sprintf("with a prefix of %d bytes", len(prefix)), func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				client, c := handOver(t, target, l, prefix)
				if _, err := io.ReadFull(c, make([]byte, len(prefix))); err != nil {
					return nil, nil, nil, err
				}
				for _, c := range []net.Conn{client, c} {
					c.SetDeadline(time.Time{})
				}
				return c, client, func() { c.Close(); client.Close() }, nil
			})
		})
	}
}

// TestConnBeyondNettest is what nettest leaves out.
func TestConnBeyondNettest(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)

	t.Run("closed", func(t *testing.T) {
		_, c := handOver(t, target, l, "left of the prefix")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		_, readErr := c.Read(make([]byte, 1))
		_, writeErr := c.Write([]byte("x"))
		_, copyErr := c.WriteTo(io.Discard)
		for what, err := range map[string]error{
			"read": readErr, "write": writeErr, "close": c.Close(), "deadline": c.SetDeadline(time.Now()),
			"close the writing side": c.CloseWrite(), "close the reading side": c.CloseRead(), "copy": copyErr,
		} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s after Close: %v; want net.ErrClosed", what, err)
			}
		}
		var op *net.OpError
		if !errors.As(readErr, &op) || op.Op != "read" || op.Net != "tcp" {
			t.Errorf("the error of a read is %#v; want a net.OpError", readErr)
		}
	})
	t.Run("Close wakes who waits", func(t *testing.T) {
		_, c := handOver(t, target, l, "")
		got := make(chan error, 1)
		go func() { _, err := c.Read(make([]byte, 1)); got <- err }()
		time.Sleep(10 * time.Millisecond)
		c.Close()
		if err := <-got; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the read returned %v", err)
		}
	})
	t.Run("the prefix is there whatever the deadline", func(t *testing.T) {
		_, c := handOver(t, target, l, "pre")
		c.SetReadDeadline(time.Unix(1, 0))
		got := make([]byte, 10)
		if n, err := c.Read(got); err != nil || string(got[:n]) != "pre" {
			t.Errorf("read %q, %v", got[:n], err)
		}
		if _, err := c.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("then %v", err)
		}
	})
	t.Run("half-close", func(t *testing.T) {
		client, c := handOver(t, target, l, "")
		io.WriteString(c, "bye")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(client); err != nil || string(got) != "bye" {
			t.Errorf("the client read %q, %v", got, err)
		}
		io.WriteString(client, "answer")
		client.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "answer" {
			t.Errorf("read %q, %v", got, err)
		}
	})
	t.Run("the writing side reset", func(t *testing.T) {
		client, c := handOver(t, target, l, "")
		client.SetLinger(0)
		client.Close()
		var err error
		for begin := time.Now(); err == nil && time.Since(begin) < timeout; {
			_, err = c.Write(make([]byte, 1<<16))
		}
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "write" || op.Timeout() {
			t.Errorf("write: %v", err)
		}
	})
	t.Run("NetConn has the deadlines and the options", func(t *testing.T) {
		client, server := tcpPair(t)
		server.SetNoDelay(false)
		server.SetKeepAlive(false)
		c := take(t, target, l, newOffer(t, server, "", usher.Info{}))
		c.SetReadDeadline(time.Unix(1, 0))
		nc := c.NetConn().(*net.TCPConn)
		if nc != c.NetConn() {
			t.Error("it is another one each time")
		}
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		c.SetDeadline(time.Time{})
		checkConversation(t, client, nc)
		checkConversation(t, client, c)
		c.Close()
		if _, err := nc.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after Close of the other: %v", err)
		}
	})
	t.Run("the end arrives though a copy is left", func(t *testing.T) {
		client, server := tcpPair(t)
		copy := must(server.File())(t) // as one that is on its way elsewhere
		defer copy.Close()
		copy.Fd() // takes it off this process's completion port on Windows; makes the socket blocking elsewhere
		c := take(t, target, l, newOffer(t, server, "", usher.Info{}))
		io.WriteString(c, "all")
		c.Close()
		if got, err := io.ReadAll(client); err != nil || string(got) != "all" {
			t.Errorf("the client read %q, %v", got, err)
		}
	})
}

// TestCopies sends and receives more than any buffer holds by what io.Copy finds.
func TestCopies(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	want := make([]byte, 4<<20)
	rand.Read(want)
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, want, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("from a file", func(t *testing.T) {
		client, c := handOver(t, target, l, "")
		f := must(os.Open(name))(t)
		defer f.Close()
		go func() { io.Copy(c, f); c.CloseWrite() }()
		if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	})
	t.Run("to another connection, prefix first", func(t *testing.T) {
		client, c := handOver(t, target, l, "prefix")
		far, near := tcpPair(t)
		go func() { client.Write(want); client.CloseWrite() }()
		go func() { io.Copy(near, c); near.CloseWrite() }()
		if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, append([]byte("prefix"), want...)) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	})
}

// TestServers has servers of the standard library serve what is handed over, as they serve a TCP
// listener.
func TestServers(t *testing.T) {
	faults.NoLeak(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.RemoteAddr, body)
	})
	t.Run("http", func(t *testing.T) {
		l := listen(t, usher.ListenConfig{})
		server := &http.Server{Handler: handler}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		target := dial(t, l)
		client := clientOf(t, target, nil)
		for range 3 {
			resp := must(client.Post("http://shop.example.com/", "text/plain", strings.NewReader("hello")))(t)
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !strings.HasSuffix(string(body), " hello") || !strings.HasPrefix(string(body), "POST 127.0.0.1:") {
				t.Errorf("the answer is %q, %v", body, err)
			}
		}
		client.CloseIdleConnections()
		if err := server.Shutdown(within(t, timeout)); err != nil {
			t.Error(err)
		}
		if err := <-served; err != http.ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
	})
	t.Run("a server that is shut down finishes what it was handed", func(t *testing.T) {
		l := listen(t, usher.ListenConfig{})
		begun, finish := make(chan bool), make(chan bool)
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-finish
			io.WriteString(w, "done")
		})}
		go server.Serve(l)
		client := clientOf(t, dial(t, l), nil)
		answer := make(chan string, 1)
		go func() {
			resp, err := client.Get("http://shop.example.com/")
			if err != nil {
				answer <- err.Error()
				return
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			answer <- string(body)
		}()
		<-begun
		down := make(chan error, 1)
		go func() { down <- server.Shutdown(within(t, timeout)) }()
		time.Sleep(20 * time.Millisecond)
		close(finish)
		if got := <-answer; got != "done" {
			t.Errorf("the answer is %q", got)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
		client.CloseIdleConnections()
	})
	t.Run("https with HTTP/2", func(t *testing.T) {
		certificate := selfSigned(t)
		l := listen(t, usher.ListenConfig{})
		server := &http.Server{Handler: handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}
		go server.ServeTLS(l, "", "")
		defer server.Close()
		client := clientOf(t, dial(t, l), &tls.Config{InsecureSkipVerify: true})
		defer client.CloseIdleConnections()
		resp := must(client.Get("https://shop.example.com/"))(t)
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasPrefix(string(body), "GET 127.0.0.1:") || resp.ProtoMajor != 2 {
			t.Errorf("the answer is %q by %s, %v", body, resp.Proto, err)
		}
	})
}

// clientOf returns a client all of whose connections are handed to the target, the first bytes read
// before.
func clientOf(t *testing.T, target *usher.Target, config *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   config,
		ForceAttemptHTTP2: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, server := tcpPair(t)
			client.SetDeadline(time.Time{})
			go func() {
				head := make([]byte, 4)
				n, _ := io.ReadFull(server, head)
				o, err := usher.NewOffer(server, head[:n], usher.Info{})
				if err == nil {
					err = target.Handoff(within(t, timeout), o)
				}
				if err != nil {
					t.Error(err)
				}
			}()
			return client, nil
		},
	}}
}

func selfSigned(t *testing.T) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shop.example.com"},
		NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"shop.example.com"},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestReadsThatAreLate say so each time, until the deadline is another, and say that the connection is closed when it is.
func TestReadsThatAreLate(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	for _, prefix := range []string{"", "pre"} {
		t.Run(fmt.Sprintf("prefix %q", prefix), func(t *testing.T) {
			client, c := handOver(t, target, l, prefix)
			io.ReadFull(c, make([]byte, len(prefix)))
			for range 2 {
				c.SetReadDeadline(time.Now())
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						n, err := c.Read(make([]byte, 1))
						var op *net.OpError
						if n != 0 || !errors.As(err, &op) || !op.Timeout() || op.Op != "read" || op.Addr.String() != client.LocalAddr().String() {
							t.Errorf("read %d bytes, %v", n, err)
						}
						wantError(t, err, os.ErrDeadlineExceeded, "")
					})
				}
				wg.Wait()
				c.SetReadDeadline(time.Now().Add(timeout))
				checkConversation(t, client, c)
			}
			c.SetReadDeadline(time.Now())
			c.Close()
			_, err := c.Read(make([]byte, 1))
			wantError(t, err, net.ErrClosed, "")
		})
	}
}
