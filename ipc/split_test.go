package ipc

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// pieces is a transport whose reads end where the test says.
type pieces struct {
	transport
	stream []byte
	next   func() int
}

func (p *pieces) read(into []byte, _ uint64) (int, error) {
	if len(p.stream) == 0 {
		return 0, io.EOF
	}
	n := copy(into[:min(len(into), max(1, p.next()))], p.stream)
	p.stream = p.stream[n:]
	return n, nil
}

func (p *pieces) claim([]entry, int, uint64, uint64) ([]*Attachment, error) { return nil, nil }
func (p *pieces) checkWithin(uint64, uint64) error                          { return nil }
func (p *pieces) drop()                                                     {}
func (p *pieces) close() error                                              { return nil }

// TestMessagesStayWholeHoweverTheStreamIsSplit reads frames of sizes around the buffers' through
// reads of every kind of length.
func TestMessagesStayWholeHoweverTheStreamIsSplit(t *testing.T) {
	sizes := []int{80 << 10, 30_000, 0, firstBody, firstBody + 1, inboxSize, 2*firstBody - 1, 1, 300_000}
	var stream []byte
	for i, size := range sizes {
		stream = append(beginFrameTo(stream, size), bytes.Repeat([]byte{byte(i)}, size)...)
	}
	fixed := []int{16 << 10, 36 << 10}
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		first := fixed
		next := func() int {
			if seed == 0 && len(first) > 0 {
				n := first[0]
				first = first[1:]
				return n
			}
			return 1 << r.IntN(18)
		}
		c := newConn(&pieces{stream: stream, next: next}, "split", Limits{})
		for i, size := range sizes {
			m, err := c.Receive()
			if err != nil {
				t.Fatalf("seed %d, message %d: %v", seed, i, err)
			}
			if !bytes.Equal(m.Data, bytes.Repeat([]byte{byte(i)}, size)) {
				t.Fatalf("seed %d: message %d of %d bytes came as %d bytes or with others' in it", seed, i, size, len(m.Data))
			}
		}
		if _, err := c.Receive(); err != io.EOF {
			t.Fatalf("seed %d: at the end %v", seed, err)
		}
	}
	c := newConn(&pieces{stream: stream[:len(stream)-1], next: func() int { return 1 << 20 }}, "split", Limits{})
	for range len(sizes) - 1 {
		if _, err := c.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Receive(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut within the last message: %v", err)
	}
}

func beginFrameTo(b []byte, size int) []byte {
	return append(b, beginFrame(nil, size, nil, nil)...)
}
