package door

import (
	"io"

	"github.com/go-usher/usher/internal/sniff"
)

// look reads the first bytes until in knows enough: a socket on a completion port cannot be peeked at without
// a thread that waits. They travel with the offer.
func (c *conn) look(in *inspection) error {
	b := make([]byte, 0, 2<<10) // enough for most
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, readErr := c.tcp.Read(b[len(b):min(cap(b), in.most())])
		b = b[:len(b)+n]
		if n > 0 {
			header, err := in.inspect(b)
			b = b[header:]
			c.prefix = b
			if err != sniff.ErrShort {
				return err
			}
		}
		if readErr == io.EOF && len(b) > 0 {
			return io.ErrUnexpectedEOF
		}
		if readErr != nil {
			return readErr
		}
	}
}
