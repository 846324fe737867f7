//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package ipc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

func init() {
	roles["bench-backend"] = playBenchBackend
	roles["bench-door"] = playBenchDoor
}

const (
	benchRequest = "GET / HTTP/1.1\r\nHost: bench.example.com\r\n\r\n"
	benchAnswer  = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
)

// playBenchBackend answers connections that it accepts and those that come to the endpoint args[0].
// It says its TCP address.
func playBenchBackend(args []string) error {
	direct, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	passed, err := ipc.Listen(args[0])
	if err != nil {
		return err
	}
	fmt.Println(direct.Addr())
	go func() {
		for {
			c, err := direct.Accept()
			if err != nil {
				return
			}
			go serveBench(c)
		}
	}()
	for {
		channel, err := passed.Accept()
		if err != nil {
			return err
		}
		go func() {
			for {
				m, err := channel.Receive()
				if err != nil {
					return
				}
				c, err := m.Attachments()[0].Conn()
				if err != nil {
					return
				}
				go serveBench(ipc.NewPrefixConn(c, m.Data))
			}
		}()
	}
}

// playBenchDoor accepts, reads the first bytes and passes the connection to the endpoint args[0]. It
// says its TCP address.
func playBenchDoor(args []string) error {
	channel, err := ipc.Dial(context.Background(), args[0])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			head := make([]byte, 4096)
			n, err := c.Read(head)
			if err != nil {
				return
			}
			channel.Send(head[:n], c.(syscall.Conn))
		}()
	}
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

// startBench starts the door and the backend and returns their addresses.
func startBench(b *testing.B) (direct, door string) {
	b.Helper()
	path := endpoint(b)
	direct = start(b, faults.Command(b, "bench-backend", path))()
	return direct, start(b, faults.Command(b, "bench-door", path))()
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

// BenchmarkConnectDirect is connect, GET, answer, close between two processes.
func BenchmarkConnectDirect(b *testing.B) {
	direct, _ := startBench(b)
	for b.Loop() {
		benchGet(b, direct)
	}
}

// BenchmarkConnectPassed is the same with a third process that accepts, reads the first bytes and
// passes the connection.
func BenchmarkConnectPassed(b *testing.B) {
	_, door := startBench(b)
	for b.Loop() {
		benchGet(b, door)
	}
}

// BenchmarkConnectRatio does both in turn, so that the machine's noise hits both alike, and reports
// the medians and their ratio; its ns/op is of the two together.
func BenchmarkConnectRatio(b *testing.B) {
	direct, door := startBench(b)
	var times [2][]time.Duration
	for b.Loop() {
		for i, address := range []string{direct, door} {
			from := time.Now()
			benchGet(b, address)
			times[i] = append(times[i], time.Since(from))
		}
	}
	for i := range times {
		slices.Sort(times[i])
	}
	directMedian, passedMedian := times[0][len(times[0])/2], times[1][len(times[1])/2]
	b.ReportMetric(float64(directMedian), "direct-ns")
	b.ReportMetric(float64(passedMedian), "passed-ns")
	b.ReportMetric(float64(passedMedian)/float64(directMedian), "passed/direct")
}

// BenchmarkMessages sends messages of 100 bytes to a receiver in the same process.
func BenchmarkMessages(b *testing.B) {
	_, server := tcpPair(b, "tcp4", "127.0.0.1:0")
	file := must(os.Open(os.DevNull))(b)
	defer file.Close()
	b.Run("plain", func(b *testing.B) { benchMessages(b, nil) })
	b.Run("file", func(b *testing.B) { benchMessages(b, file) })
	b.Run("connection taken", func(b *testing.B) {
		if isWindows {
			b.Skip("there a socket can only be sent once")
		}
		benchMessages(b, server)
	})
}

func benchMessages(b *testing.B, attachment syscall.Conn) {
	from, to := newChannel(b, ipc.Dialer{}, ipc.ListenConfig{})
	for _, c := range []*ipc.Conn{from, to} {
		c.SetDeadline(time.Time{})
	}
	done := make(chan error, 1)
	go func() { done <- drain(to) }()
	data := make([]byte, 100)
	var attachments []syscall.Conn
	if attachment != nil {
		attachments = []syscall.Conn{attachment}
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := from.Send(data, attachments...); err != nil {
			b.Fatal(err)
		}
	}
	from.Close()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// drain receives to the end and takes the connections.
func drain(c *ipc.Conn) error {
	for {
		m, err := c.Receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, a := range m.Attachments() {
			conn, err := a.Conn()
			if err == nil {
				conn.Close()
			} else if errors.Is(err, net.ErrClosed) {
				return err
			}
		}
		m.Close()
	}
}
