package sniff

import (
	"bytes"
	"errors"
)

// ErrUnknown means that the bytes cannot begin anything that the [Mode] expects.
var ErrUnknown = errors.New("sniff: no protocol that is expected here")

// Protocol is what a client speaks.
type Protocol uint8

// The protocols that are told apart.
const (
	Unknown       Protocol = iota
	ProtocolHTTP1          // HTTP/1.x without TLS
	ProtocolHTTP2          // HTTP/2 without TLS, with prior knowledge
	ProtocolTLS
)

func (p Protocol) String() string {
	switch p {
	case ProtocolHTTP1:
		return "http1"
	case ProtocolHTTP2:
		return "http2"
	case ProtocolTLS:
		return "tls"
	}
	return "unknown"
}

// Mode is what a door expects of its clients.
type Mode uint8

// The modes.
const (
	Auto     Mode = iota // TLS or HTTP
	OnlyTLS              // TLS
	OnlyHTTP             // HTTP/1.x, or HTTP/2 with prior knowledge
)

// Result is what the first bytes of a connection say about where it should go. It does not alias them.
type Result struct {
	Protocol Protocol

	// Host is the server name of TLS or the host of HTTP, in the form of [Request].Host. Only over TLS it can be empty.
	Host string
	// Path and Method are those of [Request]; empty over TLS, which hides them.
	Path, Method string
	// Stream is the HTTP/2 stream on which the first request came, and on which an answer to it has to go; otherwise 0.
	Stream uint32

	// ALPN, Versions and ECH are those of [Hello].
	ALPN     []string
	Versions []uint16
	ECH      bool
}

// Sniff reads what [TLS], [HTTP1] and [HTTP2] do, whichever of them it is.
//
// With an error, the Result has nothing but the protocol (and the stream, if it is known), so that a door that gives up can answer in the
// client's language. With [ErrUnknown] that is Unknown. With [ErrShort] it is what the bytes look like so far, and may still turn out to
// be Unknown; it never turns into another one. With any other error it is certain, and the error says what is wrong.
func Sniff(b []byte, mode Mode) (Result, error) {
	if len(b) == 0 {
		return Result{}, ErrShort
	}
	if b[0] == recordHandshake && mode != OnlyHTTP {
		return sniffTLS(b)
	}
	if mode == OnlyTLS {
		return Result{}, ErrUnknown
	}
	if agrees(b, preface) {
		return sniffHTTP2(b)
	}
	return sniffHTTP1(b)
}

func sniffTLS(b []byte) (Result, error) {
	h, err := TLS(b)
	if err == ErrNotTLS {
		return Result{}, ErrUnknown
	}
	return Result{Protocol: ProtocolTLS, Host: h.ServerName, ALPN: h.ALPN, Versions: h.Versions, ECH: h.ECH}, err
}

// sniffHTTP2 is asked about bytes that agree with the preface, though they may yet become HTTP/1.x: PRI could be a method there.
func sniffHTTP2(b []byte) (Result, error) {
	if len(b) <= len("PRI * HTTP/") {
		return Result{}, ErrShort
	}
	r, stream, err := firstRequest(b)
	return Result{Protocol: ProtocolHTTP2, Host: r.Host, Path: r.Path, Method: r.Method, Stream: stream}, err
}

func sniffHTTP1(b []byte) (Result, error) {
	r, err := HTTP1(b)
	switch {
	case err == ErrNotHTTP:
		return Result{}, ErrUnknown
	case err == ErrShort && bytes.IndexByte(b, ' ') < 0:
		return Result{}, ErrShort // a word alone can begin anything
	}
	return Result{Protocol: ProtocolHTTP1, Host: r.Host, Path: r.Path, Method: r.Method}, err
}
