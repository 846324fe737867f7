package sniff

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// ErrNotProxy means that the bytes do not begin with a PROXY protocol header. Any other error of [Proxy] but [ErrShort] means that they
// begin with one which breaks the rules.
var ErrNotProxy = errors.New("sniff: no PROXY protocol header")

// Header is what a proxy says about the connection that it forwards. Addresses that it does not say are not valid: the connection's own
// are then those to go by. An IPv4 address mapped into IPv6 is given as IPv4.
type Header struct {
	// Source is the client, Destination what the client has connected to.
	Source, Destination netip.AddrPort
	// Local means that the proxy speaks for itself, as in a health check. There are no addresses then.
	Local bool
}

// MaxProxyHeader is the length in bytes of the longest header that [Proxy] takes.
const MaxProxyHeader = proxyHeaderV2 + proxyMaxV2

const (
	proxyV1 = "PROXY "
	// proxyMaxV1 is the longest line there is, with its CRLF.
	proxyMaxV1 = 107

	proxyV2       = "\r\n\r\n\x00\r\nQUIT\n"
	proxyHeaderV2 = 16
	// proxyMaxV2 bounds what follows those 16 bytes: addresses, and extensions, of which a client's certificate is the largest.
	proxyMaxV2 = 4 << 10
)

// Proxy reads a PROXY protocol header, of version 1 or 2 (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt), from the first
// bytes of a connection. It returns the header's length: what the client sent begins there. Extensions (TLVs) are passed over unread.
//
// Believe it only from a proxy: any client can send one.
func Proxy(b []byte) (Header, int, error) {
	n, err := proxyLength(b)
	if err != nil {
		return Header{}, 0, err
	}
	h, err := parseProxy(b[:n])
	if err != nil {
		return Header{}, 0, fmt.Errorf("sniff: malformed PROXY protocol header: %w", err)
	}
	return h, n, nil
}

// malformedProxy is the verdict on a header whose length is wrong; the others come from its parser.
type malformedProxy string

func (e malformedProxy) Error() string { return "sniff: malformed PROXY protocol header: " + string(e) }

const (
	errProxyLine    malformedProxy = "line longer than 107 bytes"
	errProxyVersion malformedProxy = "neither version 1 nor 2"
	errProxyLength  malformedProxy = "longer than 4 KiB"
)

// proxyLength returns the length of the header when all of it is there.
func proxyLength(b []byte) (int, error) {
	switch {
	case len(b) == 0:
		return 0, ErrShort
	case agrees(b, proxyV1):
		return proxyLengthV1(b)
	case agrees(b, proxyV2):
		return proxyLengthV2(b)
	}
	return 0, ErrNotProxy
}

func proxyLengthV1(b []byte) (int, error) {
	if end := bytes.IndexByte(b[:min(len(b), proxyMaxV1)], '\n'); end >= 0 {
		return end + 1, nil
	}
	if len(b) >= proxyMaxV1 {
		return 0, errProxyLine
	}
	return 0, ErrShort
}

func proxyLengthV2(b []byte) (int, error) {
	if len(b) > len(proxyV2) && b[len(proxyV2)]>>4 != 2 {
		return 0, errProxyVersion
	}
	if len(b) < proxyHeaderV2 {
		return 0, ErrShort
	}
	length := int(binary.BigEndian.Uint16(b[14:]))
	if length > proxyMaxV2 {
		return 0, errProxyLength
	}
	if len(b) < proxyHeaderV2+length {
		return 0, ErrShort
	}
	return proxyHeaderV2 + length, nil
}

// parseProxy parses a header of which b is exactly the whole.
func parseProxy(b []byte) (Header, error) {
	if isUnspecified(b) {
		return Header{}, nil
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b), len(b)))
	if err != nil {
		return Header{}, err
	}
	if h.Command.IsLocal() {
		return Header{Local: h.Version == 2}, nil // in version 1 it is UNKNOWN: a client whose address the proxy cannot tell
	}
	return Header{Source: addrPort(h.SourceAddr), Destination: addrPort(h.DestinationAddr)}, nil
}

// isUnspecified tells version 2's word for UNKNOWN, which the parser refuses: the specification lets receivers choose, and to refuse would
// turn clients away because of what their proxy does not know.
func isUnspecified(b []byte) bool {
	return agrees(b, proxyV2) && b[12] == byte(proxyproto.PROXY) && b[13] == byte(proxyproto.UNSPEC)
}

// addrPort returns an address that is not valid for a Unix socket.
func addrPort(a net.Addr) netip.AddrPort {
	ip, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	ap := ip.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
