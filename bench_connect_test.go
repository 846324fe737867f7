//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/ipc"
)

func init() {
	roles["connect-backend"] = playConnectBackend
	roles["connect-door"] = playConnectDoor
}

const (
	benchRequest = "GET / HTTP/1.1\r\nHost: bench.example.com\r\n\r\n"
	benchAnswer  = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
)

// playConnectBackend answers connections that it accepts, those handed to the endpoint args[0], and those
// passed by package ipc alone to args[1]. It says its TCP address.
func playConnectBackend(args []string) error {
	direct, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	handed, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	passed, err := ipc.Listen(args[1])
	if err != nil {
		return err
	}
	fmt.Println(direct.Addr())
	for _, l := range []net.Listener{direct, handed} {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go serveBench(c)
			}
		}()
	}
	channel, err := passed.Accept()
	if err != nil {
		return err
	}
	for {
		m, err := channel.Receive()
		if err != nil {
			return nil
		}
		c, err := m.Attachments()[0].Conn()
		if err != nil {
			return err
		}
		go serveBench(ipc.NewPrefixConn(c, m.Data))
	}
}

// playConnectDoor accepts at two addresses, which it says, and reads the first bytes. It hands what comes
// to the first to the endpoint args[0], and passes what comes to the second by package ipc to args[1].
func playConnectDoor(args []string) error {
	ctx := context.Background()
	target, err := usher.Dial(ctx, args[0])
	if err != nil {
		return err
	}
	channel, err := ipc.Dial(ctx, args[1])
	if err != nil {
		return err
	}
	gives := []func(*net.TCPConn, []byte) error{
		func(c *net.TCPConn, head []byte) error {
			o, err := usher.NewOffer(c, head, usher.Info{})
			if err != nil {
				return err
			}
			return target.Handoff(ctx, o)
		},
		func(c *net.TCPConn, head []byte) error {
			defer c.Close()
			return channel.Send(head, c)
		},
	}
	failed := make(chan error)
	var addresses []any
	for _, give := range gives {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addresses = append(addresses, l.Addr())
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				go func() {
					head := make([]byte, 4096)
					n, err := c.Read(head)
					if err == nil {
						err = give(c.(*net.TCPConn), head[:n])
					}
					if err != nil {
						failed <- err
					}
				}()
			}
		}()
	}
	fmt.Println(addresses...)
	return <-failed
}

func serveBench(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 4096)
	for n := 0; !strings.HasSuffix(string(buf[:n]), "\r\n\r\n"); {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
	}
	io.WriteString(c, benchAnswer)
}

func benchGet(b *testing.B, address string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, benchRequest); err != nil {
		b.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || string(answer) != benchAnswer {
		b.Fatalf("read %q, %v", answer, err)
	}
}

// BenchmarkConnect is connect, GET, answer, close, with client, door and backend in three processes: to
// the backend directly, by Handoff, and by package ipc alone, in turn, so that the machine's noise hits
// all alike. It reports the medians and their ratios to direct; its ns/op is of the three together.
func BenchmarkConnect(b *testing.B) {
	paths := []string{endpoint(b), endpoint(b)}
	addresses := []string{startRole(b, "connect-backend", paths...).hear(b)}
	addresses = append(addresses, strings.Fields(startRole(b, "connect-door", paths...).hear(b))...)
	times := make([][]time.Duration, len(addresses))
	for b.Loop() {
		for i, address := range addresses {
			from := time.Now()
			benchGet(b, address)
			times[i] = append(times[i], time.Since(from))
		}
	}
	direct, handed, passed := float64(median(times[0])), float64(median(times[1])), float64(median(times[2]))
	b.ReportMetric(direct, "direct-ns")
	b.ReportMetric(handed, "handed-ns")
	b.ReportMetric(passed, "passed-ns")
	b.ReportMetric(handed/direct, "handed/direct")
	b.ReportMetric(passed/direct, "passed/direct")
}
