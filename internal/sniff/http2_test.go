package sniff

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestHTTP2OfRealClients(t *testing.T) {
	tests := []struct {
		sample string
		want   Request
	}{
		{"curl-http2", Request{"GET", "/a/b", "shop.example.com"}},
		{"h2load", Request{"GET", "/x", "shop.example.com"}},
		{"nghttp", Request{"GET", "/index.html", "shop.example.com"}},
		{"nghttp-padded", Request{"POST", "/in", "127.0.0.1"}},
		{"nghttp-continuation", Request{"GET", "/long", "127.0.0.1"}},
		{"node-http2", Request{"GET", "/n", "127.0.0.1"}},
	}
	for _, tt := range tests {
		t.Run(tt.sample, func(t *testing.T) {
			b := sample(t, tt.sample)
			got, err := HTTP2(b)
			if err != nil || got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
			checkAgainstFramer(t, b)
			checkFinal(t, b, HTTP2)
		})
	}
}

func TestHTTP2OfGo(t *testing.T) {
	b := firstBytes(t, HTTP2, func(conn net.Conn) {
		transport := &http.Transport{
			Protocols:   new(http.Protocols),
			DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		}
		transport.Protocols.SetUnencryptedHTTP2(true)
		if response, err := transport.RoundTrip(request(t, "http://Shop.Example.com:8080/a?b")); err == nil {
			response.Body.Close()
			t.Error("got a response; nobody answers")
		}
	})
	got, err := HTTP2(b)
	if want := (Request{"PATCH", "/a", "shop.example.com"}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	checkAgainstFramer(t, b)
	checkFinal(t, b, HTTP2)
}

func request(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest("PATCH", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rawFrame makes a frame on a stream.
func rawFrame(kind, flags byte, stream uint32, payload string) string {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return string(binary.BigEndian.AppendUint32(b, stream)) + payload
}

const (
	emptySettings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	opening       = preface + emptySettings
	whole         = flagEndHeaders
)

// block makes a header block of names and values in turn.
func block(pairs ...string) string {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.String()
}

// get makes a header block of a GET and more pairs.
func get(more ...string) string {
	return block(append([]string{":method", "GET", ":scheme", "http", ":path", "/"}, more...)...)
}

// h2 makes a connection whose first request has this header block.
func h2(block string) string { return opening + rawFrame(frameHeaders, whole, 1, block) }

func TestHTTP2(t *testing.T) {
	ab := Request{"GET", "/", "a.b"}
	fine := get(":authority", "a.b")
	big := strings.Repeat("v", 30000)
	tests := []struct {
		name string
		in   string
		want Request
		err  error
	}{
		// Frames.
		{name: "a plain request", in: h2(fine), want: ab},
		{name: "settings with values", in: preface + rawFrame(frameSettings, 0, 0, "\x00\x01\x00\x00\x00\x00\x00\x04\x00\x00\xff\xff") + rawFrame(frameHeaders, whole, 1, fine), want: ab},
		{name: "what a client may send first", in: opening + rawFrame(8, 0, 0, "\x00\x00\x00\x01") + rawFrame(2, 0, 3, "\x00\x00\x00\x00\x01") + rawFrame(6, 0, 0, "12345678") +
			emptySettings + rawFrame(7, 0, 0, "12345678") + rawFrame(frameHeaders, whole, 1, fine), want: ab},
		{name: "unknown frames", in: opening + rawFrame(0x10, 0xff, 0, "\x00\x00\x00\x01u=1") + rawFrame(0xfa, 0, 7, "") + rawFrame(frameHeaders, whole, 1, fine), want: ab},
		{name: "any stream of a client's", in: opening + rawFrame(frameHeaders, whole, 1<<31|13, fine), want: ab},
		{name: "padding", in: opening + rawFrame(frameHeaders, whole|flagPadded, 1, "\x05"+fine+"12345"), want: ab},
		{name: "padding of no length", in: opening + rawFrame(frameHeaders, whole|flagPadded, 1, "\x00"+fine), want: ab},
		{name: "priority", in: opening + rawFrame(frameHeaders, whole|flagPriority, 1, "\x00\x00\x00\x00\x0f"+fine), want: ab},
		{name: "padding and priority", in: opening + rawFrame(frameHeaders, whole|flagPadded|flagPriority, 1, "\x01\x00\x00\x00\x00\x0f"+fine+"1"), want: ab},
		{name: "continuations", in: opening + rawFrame(frameHeaders, 0, 1, fine[:1]) + rawFrame(frameContinuation, 0, 1, fine[1:3]) + rawFrame(frameContinuation, 0, 1, "") + rawFrame(frameContinuation, whole, 1, fine[3:]), want: ab},
		{name: "an empty HEADERS frame that is continued", in: opening + rawFrame(frameHeaders, 0, 1, "") + rawFrame(frameContinuation, whole, 1, fine), want: ab},

		// Heads.
		{name: "the query is not part of the path", in: h2(block(":method", "GET", ":scheme", "https", ":path", "/a?b=/c", ":authority", "a.b")), want: Request{"GET", "/a", "a.b"}},
		{name: "OPTIONS for the whole server", in: h2(block(":method", "OPTIONS", ":scheme", "http", ":path", "*", ":authority", "a.b")), want: Request{"OPTIONS", "*", "a.b"}},
		{name: "CONNECT names a host and no path", in: h2(block(":method", "CONNECT", ":authority", "a.b:443")), want: Request{"CONNECT", "", "a.b"}},
		{name: "a Host in the place of the authority", in: h2(get("accept", "*/*", "host", "A.b:80")), want: ab},
		{name: "a Host that agrees with the authority", in: h2(get(":authority", "a.b", "host", "A.B.:80")), want: ab},
		{name: "an IPv6 literal", in: h2(get(":authority", "[0:0::1]:80")), want: Request{"GET", "/", "::1"}},
		{name: "strings that are not compressed", in: h2("\x82\x86\x84\x01\x03a.b"), want: ab},
		{name: "a reference to the dynamic table", in: h2(get(":authority", "a.b", "x", "y") + "\xbe"), want: ab},
		{name: "a smaller dynamic table", in: h2("\x20" + fine), want: ab},

		// Not yet known.
		{name: "nothing at all", in: "", err: ErrShort},
		{name: "a preface in the making", in: preface[:23], err: ErrShort},
		{name: "no settings yet", in: preface, err: ErrShort},
		{name: "settings in the making", in: preface + "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03", err: ErrShort},
		{name: "a client that waits for the server's settings", in: opening + rawFrame(8, 0, 0, "\x00\x00\x00\x01"), err: ErrShort},
		{name: "a HEADERS frame in the making", in: h2(fine)[:len(h2(fine))-1], err: ErrShort},
		{name: "a HEADERS frame to be continued", in: opening + rawFrame(frameHeaders, 0, 1, fine), err: ErrShort},

		// Something else, and known by its first odd byte.
		{name: "HTTP/1.1", in: "G", err: ErrNotHTTP2},
		{name: "a method that begins like the preface", in: "PRO", err: ErrNotHTTP2},
		{name: "the preface as a request of HTTP/1.1", in: "PRI * HTTP/1", err: ErrNotHTTP2},
		{name: "a preface with another end", in: preface[:23] + "\r", err: ErrNotHTTP2},

		// HTTP/2 that nobody should serve.
		{name: "no settings", in: preface + rawFrame(frameHeaders, whole, 1, "")[:frameHeader], err: errSettings},
		{name: "settings that answer the server's", in: preface + rawFrame(frameSettings, flagAck, 0, ""), err: errSettings},
		{name: "settings of a stream", in: preface + rawFrame(frameSettings, 0, 1, ""), err: errSettings},
		{name: "half a setting", in: preface + rawFrame(frameSettings, 0, 0, "123")[:frameHeader], err: errSettings},
		{name: "a frame that is too long", in: opening + "\x00\x40\x01\x08\x00\x00\x00\x00\x00", err: errFrameSize},
		{name: "data before a request", in: opening + rawFrame(frameData, 0, 1, ""), err: errFrameOrder},
		{name: "a reset before a request", in: opening + rawFrame(frameResetStream, 0, 1, "1234")[:frameHeader], err: errFrameOrder},
		{name: "a push promise", in: opening + rawFrame(framePushPromise, 0, 1, "1234")[:frameHeader], err: errFrameOrder},
		{name: "a continuation of nothing", in: opening + rawFrame(frameContinuation, whole, 1, ""), err: errFrameOrder},
		{name: "a request on the connection itself", in: opening + rawFrame(frameHeaders, whole, 0, fine)[:frameHeader], err: errStream},
		{name: "a request on a stream of the server's", in: opening + rawFrame(frameHeaders, whole, 2, fine)[:frameHeader], err: errStream},
		{name: "padding without a length", in: opening + rawFrame(frameHeaders, whole|flagPadded, 1, ""), err: errPadding},
		{name: "more padding than frame", in: opening + rawFrame(frameHeaders, whole|flagPadded, 1, "\x02."), err: errPadding},
		{name: "half a priority", in: opening + rawFrame(frameHeaders, whole|flagPriority, 1, "\x00\x00\x00\x00"), err: errPadding},
		{name: "another frame before the continuation", in: opening + rawFrame(frameHeaders, 0, 1, fine) + rawFrame(6, 0, 0, "12345678")[:frameHeader], err: errHeaderOrder},
		{name: "a continuation on another stream", in: opening + rawFrame(frameHeaders, 0, 1, fine) + rawFrame(frameContinuation, whole, 3, ""), err: errHeaderOrder},
		{name: "a header that is cut", in: h2(fine[:len(fine)-1]), err: errHPACK},
		{name: "a reference to nothing", in: h2("\xff\x00"), err: errHPACK},
		{name: "a dynamic table that nobody allowed", in: h2("\x3f\xe2\x1f" + fine), err: errHPACK},
		{name: "a string that is not Huffman code", in: h2("\x82\x86\x84\x01\x81\x00"), err: errHPACK},
		{name: "headers that are too long together", in: h2(get(":authority", "a.b", "x", big[:3000]) + strings.Repeat("\xbe", 30)), err: errHeaderSize},
		{name: "no headers", in: h2(""), err: errPseudo},
		{name: "no method", in: h2(block(":scheme", "http", ":path", "/", ":authority", "a.b")), err: errPseudo},
		{name: "no path", in: h2(block(":method", "GET", ":scheme", "http", ":authority", "a.b")), err: errPseudo},
		{name: "no scheme", in: h2(block(":method", "GET", ":path", "/", ":authority", "a.b")), err: errPseudo},
		{name: "CONNECT with a path", in: h2(block(":method", "CONNECT", ":path", "/", ":authority", "a.b")), err: errPseudo},
		{name: "CONNECT with a scheme", in: h2(block(":method", "CONNECT", ":scheme", "http", ":authority", "a.b")), err: errPseudo},
		{name: "CONNECT without an authority", in: h2(block(":method", "CONNECT", "host", "a.b")), err: errPseudo},
		{name: "extended CONNECT, which no server has allowed", in: h2(block(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a.b")), err: errPseudo},
		{name: "two authorities", in: h2(get(":authority", "a.b", ":authority", "a.b")), err: errPseudo},
		{name: "two paths", in: h2(get(":path", "/", ":authority", "a.b")), err: errPseudo},
		{name: "an authority after a header", in: h2(get("accept", "*/*", ":authority", "a.b")), err: errPseudo},
		{name: "a pseudo-header of a response", in: h2(get(":authority", "a.b", ":status", "200")), err: errPseudo},
		{name: "an empty method", in: h2(block(":method", "", ":scheme", "http", ":path", "/", ":authority", "a.b")), err: errMethod},
		{name: "a method with a space", in: h2(block(":method", "GET /", ":scheme", "http", ":path", "/", ":authority", "a.b")), err: errMethod},
		{name: "a method longer than any", in: h2(block(":method", strings.Repeat("A", maxMethod+1), ":scheme", "http", ":path", "/", ":authority", "a.b")), err: errMethod},
		{name: "a header in upper case", in: h2(get(":authority", "a.b", "Host", "c.d")), err: errField},
		{name: "a header without a name", in: h2(get(":authority", "a.b", "", "c.d")), err: errField},
		{name: "a header with a space in its name", in: h2(get(":authority", "a.b", "host ", "c.d")), err: errField},
		{name: "a line feed in a header", in: h2(get(":authority", "a.b", "x", "y\nhost: c.d")), err: errField},
		{name: "a zero byte in the authority", in: h2(get(":authority", "a.b\x00")), err: errField},
		{name: "an empty path", in: h2(block(":method", "GET", ":scheme", "http", ":path", "", ":authority", "a.b")), err: errTarget},
		{name: "a relative path", in: h2(block(":method", "GET", ":scheme", "http", ":path", "a", ":authority", "a.b")), err: errTarget},
		{name: "an absolute target as path", in: h2(block(":method", "GET", ":scheme", "http", ":path", "http://c.d/", ":authority", "a.b")), err: errTarget},
		{name: "a fragment in the path", in: h2(block(":method", "GET", ":scheme", "http", ":path", "/a#b", ":authority", "a.b")), err: errTarget},
		{name: "a space in the path", in: h2(block(":method", "GET", ":scheme", "http", ":path", "/a b", ":authority", "a.b")), err: errTarget},
		{name: "neither authority nor Host", in: h2(get()), err: errNoHost},
		{name: "an empty authority", in: h2(get(":authority", "", "host", "a.b")), err: errHost},
		{name: "an empty Host", in: h2(get("host", "")), err: errHost},
		{name: "user information in the authority", in: h2(get(":authority", "me@a.b")), err: errHost},
		{name: "an empty Host beside an authority", in: h2(get(":authority", "a.b", "host", "")), err: errHost},
		{name: "a Host that differs from the authority", in: h2(get(":authority", "a.b", "host", "c.d")), err: errOtherTarget},
		{name: "two Hosts", in: h2(get("host", "a.b", "host", "a.b")), err: errManyHosts},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := HTTP2([]byte(tt.in))
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("HTTP2(%q) = %+v, %v; want %+v, %v", tt.in, got, err, tt.want, tt.err)
			}
			checkAgainstFramer(t, []byte(tt.in))
			if err == ErrShort {
				checkFinal(t, []byte(tt.in), HTTP2)
				return
			}
			checkVerdictAt(t, []byte(tt.in), HTTP2)
		})
	}
}

func TestHTTP2BoundsTheHeaderBlock(t *testing.T) {
	piece := strings.Repeat("\x82", maxFrame)
	in := opening + rawFrame(frameHeaders, 0, 1, piece)
	for range 3 {
		in += rawFrame(frameContinuation, 0, 1, piece)
	}
	if _, err := HTTP2([]byte(in)); err != ErrShort {
		t.Errorf("with 64 KiB: %v; want ErrShort", err)
	}
	in += rawFrame(frameContinuation, 0, 1, ".")[:frameHeader]
	if _, err := HTTP2([]byte(in)); err != errHeaderSize {
		t.Errorf("with the header of a frame more: %v; want %v", err, errHeaderSize)
	}
}

func TestHTTP2LeavesTheCallersBytesAlone(t *testing.T) {
	fine := get(":authority", "a.b")
	in := []byte(opening + rawFrame(frameHeaders, 0, 1, fine[:1]) + rawFrame(frameContinuation, whole, 1, fine[1:]))
	before := bytes.Clone(in)
	if _, err := HTTP2(in); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(in, before) {
		t.Errorf("the bytes were changed from %q to %q", before, in)
	}
}

// asFramerSees returns the first headers that the framer of x/net finds, or nil if it refuses something before.
func asFramerSees(b []byte) *http2.MetaHeadersFrame {
	rest, found := bytes.CutPrefix(b, []byte(preface))
	if !found {
		return nil
	}
	f := http2.NewFramer(nil, bytes.NewReader(rest))
	f.SetMaxReadFrameSize(maxFrame)
	f.ReadMetaHeaders = hpack.NewDecoder(hpackTable, nil)
	f.MaxHeaderListSize = maxHeaders
	for {
		got, err := f.ReadFrame()
		if err != nil {
			return nil
		}
		if headers, ok := got.(*http2.MetaHeadersFrame); ok {
			return headers
		}
	}
}

// checkAgainstFramer compares HTTP2 with the framer of x/net, which refuses broken frames of kinds that HTTP2 passes over, and takes heads
// that HTTP2 does not. What both take, they must understand alike, and they must need the same bytes.
func checkAgainstFramer(t *testing.T, b []byte) {
	t.Helper()
	ours, err := HTTP2(b)
	theirs := asFramerSees(b)
	if theirs == nil {
		return
	}
	if err == ErrShort || err == ErrNotHTTP2 {
		t.Fatalf("HTTP2(%q): %v; the framer has headers", b, err)
	}
	if err != nil {
		return
	}
	path, _, _ := strings.Cut(theirs.PseudoValue("path"), "?")
	if ours.Method != theirs.PseudoValue("method") || ours.Path != path {
		t.Fatalf("HTTP2(%q) = %+v; the framer has %q", b, ours, theirs.Fields)
	}
	host := theirs.PseudoValue("authority")
	for _, f := range theirs.RegularFields() {
		if host == "" && f.Name == "host" {
			host = f.Value
		}
	}
	if want, err := hostName([]byte(host)); err != nil || ours.Host != want {
		t.Fatalf("HTTP2(%q) = %+v; the framer has the host %q", b, ours, host)
	}
}

func FuzzHTTP2(f *testing.F) {
	for name, b := range samples(f) {
		if bytes.HasPrefix(b, []byte(preface)) && name != "nghttp-continuation" {
			f.Add(b[len(preface):])
		}
	}
	fine := get(":authority", "a.b", "x", "y")
	for _, in := range []string{
		h2(fine),
		h2(get("host", "A.b:80") + "\xbe"),
		h2("\x20" + block(":method", "CONNECT", ":authority", "[::1]:443")),
		opening + rawFrame(frameHeaders, flagPadded|flagPriority, 3, "\x01\x00\x00\x00\x00\x0f"+fine[:4]+"1") + rawFrame(frameContinuation, whole, 3, fine[4:]),
	} {
		f.Add([]byte(in[len(preface):]))
	}
	f.Fuzz(func(t *testing.T, frames []byte) {
		b := append([]byte(preface), frames...)
		checkAgainstFramer(t, b)
		if r, err := HTTP2(b); err == nil {
			checkHost(t, r.Host)
			checkPath(t, r)
		}
		checkFinal(t, b[:min(len(b), fuzzLength)], HTTP2)
	})
}

// checkPath holds what the documentation of Request promises.
func checkPath(t *testing.T, r Request) {
	t.Helper()
	if r.Method == "" || (r.Path == "") != (r.Method == "CONNECT") || strings.ContainsAny(r.Path, "?# \r\n\x00") {
		t.Fatalf("%+v breaks what Request promises", r)
	}
}
