package upstream_test

import (
	"context"
	"io"
	"testing"

	"github.com/go-usher/usher/internal/upstream"
)

// userspace hides from package net what a connection is.
type userspace struct{ upstream.Conn }

// BenchmarkCopy measures one direction of Copy, with a sender and a reader in the same process, beside a copy
// that the kernel does not do.
func BenchmarkCopy(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		for name, wrap := range map[string]func(upstream.Conn) upstream.Conn{
			"kernel":    func(c upstream.Conn) upstream.Conn { return c },
			"userspace": func(c upstream.Conn) upstream.Conn { return userspace{c} },
		} {
			b.Run("from tcp to "+network+"/"+name, func(b *testing.B) {
				client, door := pair(b, "tcp")
				dialed, backend := pair(b, network)
				copied := make(chan error, 1)
				go func() {
					_, err := upstream.Copy(context.Background(), wrap(door), wrap(dialed))
					copied <- err
				}()
				const size = 1 << 20
				b.SetBytes(size)
				b.ResetTimer()
				go func() {
					chunk := make([]byte, size)
					for range b.N {
						client.Write(chunk)
					}
					client.CloseWrite()
				}()
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{backend}, make([]byte, 256<<10)); err != nil {
					b.Error(err)
				}
				backend.Close()
				if err := <-copied; err != nil {
					b.Error(err)
				}
			})
		}
	}
}

// BenchmarkDial measures a connection to a backend, from choosing it to Done.
func BenchmarkDial(b *testing.B) {
	l := listen(b, "unix")
	go serve(l)
	p := newPool(b, upstream.Options{Addresses: []string{addressOf(l)}, SendProxy: "v2"})
	for b.Loop() {
		c, backend, err := p.Dial(context.Background(), from)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
		backend.Done()
	}
}
