package sniff

import (
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// ErrNotHTTP2 means that the bytes cannot begin a connection of HTTP/2 with prior knowledge. Any other error of [HTTP2] but [ErrShort]
// means that they begin one which nobody should serve.
var ErrNotHTTP2 = errors.New("sniff: not HTTP/2")

const (
	errFrameSize   malformed = "frame longer than 16 KiB"
	errSettings    malformed = "no SETTINGS frame after the connection preface"
	errFrameOrder  malformed = "frame that cannot come before the first request"
	errStream      malformed = "HEADERS frame on a stream that is not a client's"
	errPadding     malformed = "HEADERS frame shorter than its padding"
	errHeaderOrder malformed = "header block that is not continued"
	errHeaderSize  malformed = "headers longer than 64 KiB"
	errHPACK       malformed = "bad header compression"
	errField       malformed = "bad header field"
	errPseudo      malformed = "bad set of pseudo-header fields"
	errMethod      malformed = "bad method"
)

const (
	// preface opens every connection of HTTP/2. It was chosen so that no server of HTTP/1.x takes it for a request.
	preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHeader = 9
	// maxFrame and hpackTable are the limits that hold until the server says others, which it has not: it has yet to be chosen.
	maxFrame   = 1 << 14
	hpackTable = 1 << 12
	// maxHeaders bounds the header block both as sent and unpacked, where each field counts 32 bytes more (RFC 9113, section 6.5.2).
	maxHeaders = 1 << 16
)

// Frame types and flags (RFC 9113, section 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameResetStream  = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	frameContinuation = 0x9

	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// HTTP2 reads the first request of an HTTP/2 connection with prior knowledge (RFC 9113, section 3.3) from the first bytes of a
// connection: preface, SETTINGS, and what else comes before the first HEADERS, then that and its CONTINUATIONs.
//
// It says nothing to the client, so one that waits for the server's SETTINGS before it sends a request, as gRPC for Go does, stays
// [ErrShort] for ever.
//
// It is strict where that protects the choice of a backend: pseudo-header fields that are there twice, a second Host, and a Host other
// than the :authority are all errors. The frames before the request are passed over, not read.
func HTTP2(b []byte) (Request, error) {
	r, _, err := firstRequest(b)
	return r, err
}

// firstRequest also returns the stream of the request, as soon as it is known.
func firstRequest(b []byte) (r Request, stream uint32, err error) {
	if !agrees(b, preface) {
		return Request{}, 0, ErrNotHTTP2
	}
	if len(b) < len(preface) {
		return Request{}, 0, ErrShort
	}
	headers, rest, err := firstHeaders(b[len(preface):])
	if err != nil {
		return Request{}, 0, err
	}
	block, err := joinBlock(headers, rest)
	if err != nil {
		return Request{}, headers.stream, err
	}
	h, err := decodeHead(block)
	if err != nil {
		return Request{}, headers.stream, err
	}
	r, err = h.request()
	return r, headers.stream, err
}

// agrees tells whether b and the signature are the same as far as both go.
func agrees(b []byte, signature string) bool {
	n := min(len(b), len(signature))
	return string(b[:n]) == signature[:n]
}

// firstHeaders returns the first HEADERS frame, which need not be whole, and what follows it.
func firstHeaders(b []byte) (headers frame, rest []byte, err error) {
	f, b, err := scanFrame(b)
	if err != nil {
		return frame{}, nil, err
	}
	if f.kind != frameSettings || f.flags&flagAck != 0 || f.stream != 0 || f.length%6 != 0 {
		return frame{}, nil, errSettings
	}
	for f.whole {
		if f, b, err = scanFrame(b); err != nil {
			return frame{}, nil, err
		}
		switch f.kind {
		case frameHeaders:
			if f.stream%2 == 0 { // also 0, which is the connection
				return frame{}, nil, errStream
			}
			return f, b, nil
		case frameData, frameResetStream, framePushPromise, frameContinuation:
			return frame{}, nil, errFrameOrder
		}
	}
	return frame{}, nil, ErrShort
}

// frame is the header of a frame and, if whole, its payload, which aliases the caller's bytes.
type frame struct {
	length      int
	kind, flags byte
	stream      uint32
	payload     []byte
	whole       bool
}

// scanFrame returns the frame at the start of b, as soon as its header is there, and what follows it.
func scanFrame(b []byte) (f frame, rest []byte, err error) {
	if len(b) < frameHeader {
		return frame{}, nil, ErrShort
	}
	f.length = int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if f.length > maxFrame {
		return frame{}, nil, errFrameSize
	}
	f.kind, f.flags = b[3], b[4]
	f.stream = binary.BigEndian.Uint32(b[5:]) &^ (1 << 31)
	if b = b[frameHeader:]; len(b) < f.length {
		return f, nil, nil
	}
	f.payload, f.whole = b[:f.length], true
	return f, b[f.length:], nil
}

// joinBlock returns the compressed headers that begin in a HEADERS frame and go on in the CONTINUATION frames that rest begins with. They
// alias the caller's bytes if they are in one frame.
func joinBlock(headers frame, rest []byte) ([]byte, error) {
	if !headers.whole {
		return nil, ErrShort
	}
	block, err := fragment(headers)
	if err != nil {
		return nil, err
	}
	block = block[:len(block):len(block)] // so that to append copies, and leaves the caller's bytes alone
	for last := headers.flags&flagEndHeaders != 0; !last; {
		var f frame
		if f, rest, err = scanFrame(rest); err != nil {
			return nil, err
		}
		switch {
		case f.kind != frameContinuation || f.stream != headers.stream:
			return nil, errHeaderOrder
		case len(block)+f.length > maxHeaders:
			return nil, errHeaderSize
		case !f.whole:
			return nil, ErrShort
		}
		block = append(block, f.payload...)
		last = f.flags&flagEndHeaders != 0
	}
	return block, nil
}

// fragment takes padding and priority off a HEADERS frame (RFC 9113, section 6.2).
func fragment(headers frame) ([]byte, error) {
	b, padding := headers.payload, 0
	if headers.flags&flagPadded != 0 {
		if len(b) < 1 {
			return nil, errPadding
		}
		b, padding = b[1:], int(b[0])
	}
	if headers.flags&flagPriority != 0 {
		if len(b) < 5 {
			return nil, errPadding
		}
		b = b[5:]
	}
	if len(b) < padding {
		return nil, errPadding
	}
	return b[:len(b)-padding], nil
}

// head is what the headers of a request say about where it should go. What is not there is nil.
type head struct {
	method, scheme, authority, path, host *string

	regular bool // a field that is no pseudo-header field was seen: no more of these may follow
	size    int
	err     error
}

// decodeHead unpacks a header block. Its strings are bounded one by one by the decoder, and all together by the head, which a small block
// could make refer to a large one many times.
func decodeHead(block []byte) (*head, error) {
	var h head
	d := hpack.NewDecoder(hpackTable, nil)
	d.SetMaxStringLength(maxHeaders)
	d.SetEmitFunc(func(f hpack.HeaderField) {
		if h.err = h.add(f); h.err != nil {
			d.SetEmitEnabled(false)
		}
	})
	_, err := d.Write(block)
	if err == nil {
		err = d.Close()
	}
	if h.err != nil {
		return nil, h.err
	}
	if err != nil {
		return nil, errHPACK
	}
	return &h, nil
}

// add checks a field (RFC 9113, section 8.2.1) and keeps it if it matters.
func (h *head) add(f hpack.HeaderField) error {
	h.size += int(f.Size())
	if h.size > maxHeaders {
		return errHeaderSize
	}
	if !isFieldValue(f.Value) {
		return errField
	}
	if f.IsPseudo() {
		return h.addPseudo(f)
	}
	h.regular = true
	if !isFieldName(f.Name) {
		return errField
	}
	if f.Name != "host" {
		return nil
	}
	if h.host != nil {
		return errManyHosts
	}
	value := f.Value // a copy, so that the fields that do not matter stay off the heap
	h.host = &value
	return nil
}

// addPseudo knows no :protocol (RFC 8441): a client may send that only to a server that has asked for it.
func (h *head) addPseudo(f hpack.HeaderField) error {
	var to **string
	switch f.Name {
	case ":method":
		to = &h.method
	case ":scheme":
		to = &h.scheme
	case ":authority":
		to = &h.authority
	case ":path":
		to = &h.path
	default:
		return errPseudo
	}
	if h.regular || *to != nil {
		return errPseudo
	}
	value := f.Value
	*to = &value
	return nil
}

// isFieldName tells whether name may be that of a header in HTTP/2, where it is in lower case.
func isFieldName(name string) bool {
	for i := range len(name) {
		if !isToken(name[i]) || ('A' <= name[i] && name[i] <= 'Z') {
			return false
		}
	}
	return name != ""
}

// request checks the whole of the head (RFC 9113, section 8.3.1; for CONNECT, 8.5).
func (h *head) request() (Request, error) {
	if h.method == nil {
		return Request{}, errPseudo
	}
	if !isMethod(*h.method) {
		return Request{}, errMethod
	}
	connect := *h.method == "CONNECT"
	if (h.path == nil) != connect || (h.scheme == nil) != connect || (connect && h.authority == nil) {
		return Request{}, errPseudo
	}
	r := Request{Method: *h.method}
	var err error
	if r.Host, err = h.hostName(); err != nil {
		return Request{}, err
	}
	if connect {
		return r, nil
	}
	if r.Path, err = pathOf(*h.path); err != nil {
		return Request{}, err
	}
	return r, nil
}

func isMethod(s string) bool {
	for i := range len(s) {
		if !isToken(s[i]) {
			return false
		}
	}
	return 0 < len(s) && len(s) <= maxMethod
}

// hostName wants :authority and Host, where both are there, to name the same: servers differ on which of them they go by.
func (h *head) hostName() (string, error) {
	if h.authority == nil && h.host == nil {
		return "", errNoHost
	}
	if h.authority == nil {
		return hostName([]byte(*h.host))
	}
	host, err := hostName([]byte(*h.authority))
	if err != nil || h.host == nil {
		return host, err
	}
	other, err := hostName([]byte(*h.host))
	if err != nil {
		return "", err
	}
	if other != host {
		return "", errOtherTarget
	}
	return host, nil
}

// pathOf cuts the query off, and takes what HTTP/1.x would let stand in a request line.
func pathOf(target string) (string, error) {
	if target == "*" {
		return target, nil
	}
	if !strings.HasPrefix(target, "/") || strings.Contains(target, "#") {
		return "", errTarget
	}
	for i := range len(target) {
		if target[i] <= ' ' || target[i] == 0x7f {
			return "", errTarget
		}
	}
	path, _, _ := strings.Cut(target, "?")
	return path, nil
}
