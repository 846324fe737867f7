package upstream

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

func TestReadStatus(t *testing.T) {
	for _, test := range []struct {
		name, answer string
		status       int // 0 is an error
	}{
		{"an answer", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200},
		{"an answer whose body ends with the connection", "HTTP/1.0 503 No\r\n\r\nno", 503},
		{"an answer after early hints", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 404 No\r\n\r\n", 404},
		{"an answer whose body breaks off", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", 200},
		{"an answer with more body than is read", "HTTP/1.1 204 OK\r\n\r\n" + strings.Repeat("x", 2*maxAnswer), 204},
		{"early hints alone", "HTTP/1.1 103 Early Hints\r\n\r\n", 0},
		{"early hints without end", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxAnswer), 0},
		{"a header that is too long", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxAnswer) + "\r\n\r\n", 0},
		{"nothing", "", 0},
		{"another protocol", "SSH-2.0-OpenSSH_9.2\r\n", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, err := readStatus(strings.NewReader(test.answer))
			if status != test.status || (err == nil) != (test.status != 0) {
				t.Errorf("status %d, %v; want %d", status, err, test.status)
			}
		})
	}
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 404\n\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		r := &countingReader{r: bytes.NewReader(answer)}
		status, err := readStatus(r)
		if err == nil && (status < 200 || status > 999) || err != nil && status != 0 {
			t.Errorf("status %d, %v", status, err)
		}
		if r.n > maxAnswer {
			t.Errorf("%d bytes were read", r.n)
		}
	})
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

// FuzzHeader: what is written for any addresses is what a parser reads, and no byte more.
func FuzzHeader(f *testing.F) {
	v4, v6 := []byte{192, 0, 2, 1}, bytes.Repeat([]byte{0x20}, 16)
	f.Add(v4, uint16(1), v4, uint16(2))
	f.Add(v6, uint16(0), v6, uint16(65535))
	f.Add(v4, uint16(3), v6, uint16(4))
	f.Add([]byte{}, uint16(5), v6, uint16(6))
	f.Add(append(make([]byte, 10), 0xff, 0xff, 1, 2, 3, 4), uint16(7), v4, uint16(8))
	f.Fuzz(func(t *testing.T, client []byte, clientPort uint16, local []byte, localPort uint16) {
		clientIP, _ := netip.AddrFromSlice(client)
		localIP, _ := netip.AddrFromSlice(local)
		from := Addresses{netip.AddrPortFrom(clientIP, clientPort), netip.AddrPortFrom(localIP, localPort)}
		for _, version := range []string{"v1", "v2"} {
			r := bufio.NewReader(bytes.NewReader(proxyHeader(version, from)))
			h, err := proxyproto.Read(r)
			if err != nil || r.Buffered() > 0 {
				t.Fatalf("%s of %v: %v, %d bytes too many", version, from, err, r.Buffered())
			}
			if !clientIP.IsValid() || !localIP.IsValid() {
				if h.TransportProtocol != proxyproto.UNSPEC {
					t.Errorf("%s of %v is %+v", version, from, h)
				}
				continue
			}
			for i, want := range []netip.AddrPort{from.Client, from.Local} {
				got := []net.Addr{h.SourceAddr, h.DestinationAddr}[i].(*net.TCPAddr).AddrPort()
				if got.Addr().Unmap() != want.Addr().Unmap() || got.Port() != want.Port() {
					t.Errorf("%s of %v is read as %v", version, want, got)
				}
			}
		}
	})
}
