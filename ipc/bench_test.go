//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package ipc_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/ipc"
)

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
