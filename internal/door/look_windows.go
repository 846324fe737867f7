package door

import (
	"io"
	"net/netip"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/sniff"
)

// look reads the first bytes until in knows enough: a socket on a completion port cannot be peeked at without
// a thread that waits. They travel with the offer.
func (c *conn) look(in *inspection) error {
	if len(c.prefix) > 0 {
		if err := in.inspectPrefix(); err != sniff.ErrShort {
			return err
		}
	}
	b := append(make([]byte, 0, 2<<10), c.prefix...) // enough for most
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, readErr := c.nc.Read(b[len(b):min(cap(b), in.most())])
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

// addresses returns those of a connection that another process has passed on, as the system has them.
func addresses(nc *usher.Conn) (local, remote netip.AddrPort) {
	c := nc.NetConn()
	return addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
}
