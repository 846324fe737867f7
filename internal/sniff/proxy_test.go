package sniff

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

// addresses makes a Header of two addresses.
func addresses(source, destination string) Header {
	return Header{Source: netip.MustParseAddrPort(source), Destination: netip.MustParseAddrPort(destination)}
}

// v2 makes a header of version 2.
func v2(command, family byte, rest string) string {
	b := append([]byte(proxyV2), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(rest)))) + rest
}

// Bytes of version 2 (its sections 2.2 and 2.2.1).
const (
	cmdLocal = 0x20
	cmdProxy = 0x21

	ip4  = "\x0a\x00\x00\x01\x0a\x00\x00\x02\x30\x39\x01\xbb"
	ip6  = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" + "\x30\x39\x01\xbb"
	map6 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x01" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x02" + "\x30\x39\x01\xbb"
	noop = "\x04\x00\x02.." // a TLV that means nothing
)

func TestProxy(t *testing.T) {
	four := addresses("10.0.0.1:12345", "10.0.0.2:443")
	six := addresses("[2001:db8::1]:12345", "[2001:db8::2]:443")
	f39 := strings.TrimSuffix(strings.Repeat("ffff:", 8), ":")
	tests := []struct {
		name string
		in   string
		want Header
		err  error
		text string // of an error that comes from the parser
	}{
		{name: "version 1 over IPv4", in: "PROXY TCP4 10.0.0.1 10.0.0.2 12345 443\r\n", want: four},
		{name: "version 1 over IPv6", in: "PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n", want: six},
		{name: "version 1 with IPv4 mapped into IPv6", in: "PROXY TCP6 ::ffff:10.0.0.1 ::ffff:10.0.0.2 12345 443\r\n", want: four},
		{name: "version 1 of an unknown client", in: "PROXY UNKNOWN\r\n"},
		{name: "the longest line of version 1", in: "PROXY UNKNOWN " + f39 + " " + f39 + " 65535 65535\r\n"},
		{name: "version 2 over IPv4", in: v2(cmdProxy, 0x11, ip4), want: four},
		{name: "version 2 over IPv6", in: v2(cmdProxy, 0x21, ip6), want: six},
		{name: "version 2 with IPv4 mapped into IPv6", in: v2(cmdProxy, 0x21, map6), want: four},
		{name: "version 2 of a datagram", in: v2(cmdProxy, 0x12, ip4), want: four},
		{name: "version 2 with extensions", in: v2(cmdProxy, 0x11, ip4+noop+noop), want: four},
		{name: "version 2 over a Unix socket", in: v2(cmdProxy, 0x31, strings.Repeat("/", 216))},
		{name: "version 2 of an unknown client", in: v2(cmdProxy, 0x00, "")},
		{name: "version 2 of an unknown client, with extensions", in: v2(cmdProxy, 0x00, noop)},
		{name: "a health check", in: v2(cmdLocal, 0x00, ""), want: Header{Local: true}},
		{name: "a health check with addresses, which mean nothing", in: v2(cmdLocal, 0x11, ip4), want: Header{Local: true}},
		{name: "a health check with half an address", in: v2(cmdLocal, 0x11, ip4[:5]), want: Header{Local: true}},
		{name: "the longest header", in: v2(cmdProxy, 0x11, ip4+strings.Repeat(".", proxyMaxV2-len(ip4))), want: four},

		{name: "nothing at all", in: "", err: ErrShort},
		{name: "a line in the making", in: "PROX", err: ErrShort},
		{name: "a line without its end", in: "PROXY TCP4 10.0.0.1 10.0.0.2 12345 443\r", err: ErrShort},
		{name: "a signature in the making", in: proxyV2[:11], err: ErrShort},
		{name: "version 2 without its length", in: v2(cmdProxy, 0x11, ip4)[:15], err: ErrShort},
		{name: "version 2 without its last byte", in: v2(cmdProxy, 0x11, ip4)[:27], err: ErrShort},

		{name: "HTTP/1.1", in: "G", err: ErrNotProxy},
		{name: "HTTP/2", in: "PRI", err: ErrNotProxy},
		{name: "a method that begins like the header", in: "PROXYX", err: ErrNotProxy},
		{name: "an empty line before a request", in: "\r\nG", err: ErrNotProxy},
		{name: "TLS", in: "\x16", err: ErrNotProxy},

		{name: "a line that is too long", in: "PROXY UNKNOWN " + strings.Repeat("f", proxyMaxV1-14), err: errProxyLine},
		{name: "version 3", in: proxyV2 + "\x31", err: errProxyVersion},
		{name: "version 2 that is too long", in: proxyV2 + "\x21\x11\x10\x01", err: errProxyLength},
		{name: "a line that ends without carriage return", in: "PROXY UNKNOWN\n", text: "must end with"},
		{name: "a line without protocol", in: "PROXY \r\n", text: "address family or protocol"},
		{name: "a protocol that does not exist", in: "PROXY TCP5 10.0.0.1 10.0.0.2 1 2\r\n", text: "address family or protocol"},
		{name: "an address too few", in: "PROXY TCP4 10.0.0.1 12345 443\r\n", text: "address family or protocol"},
		{name: "a word too many", in: "PROXY TCP4 10.0.0.1 10.0.0.2 1 2 3\r\n", text: "address family or protocol"},
		{name: "two spaces", in: "PROXY TCP4  10.0.0.1 10.0.0.2 1\r\n", text: "invalid address"},
		{name: "an IPv6 address over IPv4", in: "PROXY TCP4 ::1 ::1 1 2\r\n", text: "invalid address"},
		{name: "a name for an address", in: "PROXY TCP4 a.b c.d 1 2\r\n", text: "invalid address"},
		{name: "a port that is too large", in: "PROXY TCP4 10.0.0.1 10.0.0.2 65536 2\r\n", text: "invalid port"},
		{name: "a port with a leading zero", in: "PROXY TCP4 10.0.0.1 10.0.0.2 080 2\r\n", text: "invalid port"},
		{name: "a command that does not exist", in: v2(0x22, 0x11, ip4), text: "version and command"},
		{name: "a family that does not exist", in: v2(cmdProxy, 0x41, ip4), text: "address family"},
		{name: "a transport that does not exist", in: v2(cmdProxy, 0x13, ip4), text: "address family"},
		{name: "half an address", in: v2(cmdProxy, 0x11, ip4[:11]), text: "invalid length"},
		{name: "IPv6 with addresses of IPv4", in: v2(cmdProxy, 0x21, ip4), text: "invalid length"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, n, err := Proxy([]byte(tt.in))
			if got != tt.want {
				t.Errorf("%+v; want %+v", got, tt.want)
			}
			switch {
			case tt.text != "":
				const prefix = "sniff: malformed PROXY protocol header: "
				if text := errorText(err); !strings.HasPrefix(text, prefix) || !strings.Contains(text, tt.text) {
					t.Errorf("error is %q; want %q in it", text, tt.text)
				}
			case !errors.Is(err, tt.err):
				t.Errorf("error is %v; want %v", err, tt.err)
			case err == nil && n != len(tt.in):
				t.Errorf("it says that it has %d bytes; want %d", n, len(tt.in))
			}
			if err == ErrShort {
				checkFinal(t, []byte(tt.in), proxyVerdict)
				return
			}
			checkVerdictAt(t, []byte(tt.in), proxyVerdict)
		})
	}
}

// verdict is what Proxy returns beside the error.
type verdict struct {
	header Header
	n      int
}

func proxyVerdict(b []byte) (verdict, error) {
	h, n, err := Proxy(b)
	return verdict{h, n}, err
}

func TestProxyOfRealClients(t *testing.T) {
	tests := []struct {
		sample string
		want   Header
		n      int
	}{
		{"curl-proxy-v1", addresses("127.0.0.1:34816", "127.0.0.1:41147"), 44},
		{"haproxy-proxy-v1", addresses("127.0.0.1:55140", "127.0.0.1:42059"), 44},
		{"haproxy-proxy-v2", addresses("127.0.0.1:54894", "127.0.0.1:41669"), 28},
		{"haproxy-proxy-v2-extensions", addresses("127.0.0.1:36152", "127.0.0.1:54669"), 51},
	}
	for _, tt := range tests {
		t.Run(tt.sample, func(t *testing.T) {
			b := sample(t, tt.sample)
			got, n, err := Proxy(b)
			if err != nil || got != tt.want || n != tt.n {
				t.Fatalf("%+v, %d, %v; want %+v, %d", got, n, err, tt.want, tt.n)
			}
			if r, err := Sniff(b[n:], Auto); err != nil || r.Host != "shop.example.com" {
				t.Errorf("behind it is %+v, %v", r, err)
			}
			checkFinal(t, b, proxyVerdict)
		})
	}
}

func TestMaxProxyHeaderIsTheLongest(t *testing.T) {
	in := v2(cmdProxy, 0x11, ip4+strings.Repeat(".", proxyMaxV2-len(ip4)))
	if _, n, err := Proxy([]byte(in)); n != MaxProxyHeader || err != nil {
		t.Errorf("%d, %v; want %d", n, err, MaxProxyHeader)
	}
}

func FuzzProxy(f *testing.F) {
	for name, b := range samples(f) {
		if strings.Contains(name, "proxy") {
			f.Add(b)
		}
	}
	for _, in := range []string{
		"PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n", "PROXY UNKNOWN x y\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
		v2(cmdProxy, 0x21, ip6+noop), v2(cmdLocal, 0x00, ""), v2(cmdProxy, 0x00, noop), v2(cmdProxy, 0x31, strings.Repeat("/", 216)),
	} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkFinal(t, b[:min(len(b), fuzzLength)], proxyVerdict)
		h, n, err := Proxy(b)
		if err != nil {
			if n != 0 || h != (Header{}) {
				t.Fatalf("Proxy(%q) has both a result and an error: %+v, %d, %v", b, h, n, err)
			}
			return
		}
		if h.Source.IsValid() != h.Destination.IsValid() || (h.Local && h.Source.IsValid()) || h.Source.Addr().Is4In6() {
			t.Fatalf("Proxy(%q) = %+v", b, h)
		}
		if n < 15 || n > MaxProxyHeader || n > len(b) {
			t.Fatalf("Proxy(%q) says that it has %d bytes", b, n)
		}
		checkAgainstWriter(t, h)
	})
}

// checkAgainstWriter holds that a header with the same addresses, as another program writes it, gives the same again.
func checkAgainstWriter(t *testing.T, h Header) {
	t.Helper()
	if !h.Source.IsValid() {
		return
	}
	source, destination := net.TCPAddrFromAddrPort(h.Source), net.TCPAddrFromAddrPort(h.Destination)
	for version := byte(1); version <= 2; version++ {
		var b bytes.Buffer
		if _, err := proxyproto.HeaderProxyFromAddrs(version, source, destination).WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		again, n, err := Proxy(b.Bytes())
		if err != nil || again != h || n != b.Len() {
			t.Fatalf("Proxy(%q) = %+v, %d, %v; want %+v", b.Bytes(), again, n, err, h)
		}
	}
}
