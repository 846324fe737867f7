package usherhttp

import (
	"bytes"
	"net/http"
	"strings"
)

// follower follows the requests that a server reads from a connection (RFC 9112), to know where each of them begins and
// ends. It agrees with package net/http on that, or gives up for good. Its zero value awaits the first byte of a connection.
//
//	           head          body            end, of body or head
//	inHead ────────> inBody, inChunk… ─────────> ended ──begin──> inHead
//	   └───────────────────┴───────────────────────┴── in doubt ──> lost
type follower struct {
	state followed

	// head is the head of the request, without its body, as far as it has been read; then, from mark on, what has been
	// read of the next request before begin was called.
	head []byte
	line int // where the line begins in head that is being read
	mark int

	length  int64 // of the body, as http.Request.ContentLength has it
	framed  bool  // there was a Content-Length or Transfer-Encoding
	http11  bool
	left    int64 // bytes of the body, or of the chunk
	digits  int   // of the chunk's size
	hasBody bool  // some of the body was read
	known   bool  // the handler has this request
}

type followed int

const (
	inHead       followed = iota
	inBody                // of Content-Length
	inSize                // of a chunk
	afterSize             // its LF is due
	inChunk               // left bytes of it
	afterChunk            // its CR is due
	afterChunkCR          // and its LF
	afterLast             // the CR of the empty line is due that ends the body
	afterLastCR           // and its LF
	ended                 // until begin
	lost                  // for good
)

const (
	maxHead  = 64 << 10
	keptHead = 4 << 10 // a larger buffer is not kept for the next request

	// net/http objects to chunks with more than 16 bytes beside twice their data (internal/chunked.go).
	maxSizeDigits   = 15
	maxLengthDigits = 18 // of what fits in an int64, whatever they are
)

// follow takes bytes that the server is about to get, up to the end of the head or body that they begin in, and returns how
// many that were: at least one. The server may have no more for now.
func (f *follower) follow(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	switch f.state {
	case lost:
		return len(b)
	case inHead:
		return f.followHead(b)
	case inBody:
		f.hasBody = true
		return f.skip(b, ended)
	case ended:
		return f.followAhead(b)
	}
	f.hasBody = true
	return f.followChunked(b)
}

// begin forgets a request that has been answered. It was read to its end, and the handler had it: otherwise the server
// knows something about it that the follower does not.
func (f *follower) begin() {
	if f.state != ended || !f.known {
		f.lose()
		return
	}
	ahead, kept := f.head[f.mark:], f.head[:0]
	if cap(kept) > keptHead {
		kept = nil
	}
	*f = follower{head: kept}
	f.follow(ahead) // whose place is at or after that of its copy
}

// lose gives up.
func (f *follower) lose() { *f = follower{state: lost} }

// meets says that a handler has got a request. It must be the one that was followed.
func (f *follower) meets(r *http.Request) {
	if f.state == lost {
		return
	}
	line, _, _ := bytes.Cut(f.head[:f.mark], []byte("\n"))
	if f.known || f.mark == 0 || r.ContentLength != f.length || !isLine(trimCR(line), r.Method, r.RequestURI, r.Proto) {
		f.lose()
		return
	}
	f.known = true
}

// isLine says whether words with a space between them are a line.
func isLine(line []byte, words ...string) bool {
	for i, word := range words {
		if i > 0 {
			if len(line) == 0 || line[0] != ' ' {
				return false
			}
			line = line[1:]
		}
		if len(line) < len(word) || string(line[:len(word)]) != word {
			return false
		}
		line = line[len(word):]
	}
	return len(line) == 0
}

// followHead reads lines as net/textproto does: they end with LF, before which one CR is no part of them.
func (f *follower) followHead(b []byte) int {
	at := len(f.head)
	f.head = append(f.head, b...)
	// A server that has read a POST passes over an empty line in front of the next request, and another objects.
	if c := f.head[0]; c == '\r' || c == '\n' {
		f.lose()
		return len(b)
	}
	for {
		n := bytes.IndexByte(f.head[at:], '\n')
		if n < 0 && len(f.head) <= maxHead {
			return len(b)
		}
		if n < 0 || at+n >= maxHead {
			break
		}
		isFirst, line := f.line == 0, trimCR(f.head[f.line:at+n])
		at += n + 1
		f.line = at
		if len(line) == 0 {
			return len(b) - f.endHead()
		}
		if isFirst && !f.requestLine(line) || !isFirst && !f.field(line) {
			break
		}
	}
	f.lose()
	return len(b)
}

func trimCR(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}

// requestLine takes the line apart as net/http does, and objects to CONNECT because what follows that is none of HTTP's.
func (f *follower) requestLine(line []byte) bool {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, proto, _ := bytes.Cut(rest, []byte(" "))
	f.http11 = string(proto) == "HTTP/1.1"
	return isToken(method) && len(target) > 0 && string(method) != http.MethodConnect && (f.http11 || string(proto) == "HTTP/1.0")
}

// field reads a header line.
func (f *follower) field(line []byte) bool {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 || !isToken(line[:colon]) { // a line that begins with a space continues another
		return false
	}
	name, value := line[:colon], line[colon+1:]
	switch {
	case isName(name, "content-length"):
		return f.contentLength(bytes.Trim(value, " \t"))
	case isName(name, "transfer-encoding"):
		return f.transferEncoding(bytes.Trim(value, " \t"))
	}
	return true
}

func (f *follower) contentLength(value []byte) bool {
	if f.framed || len(value) == 0 || len(value) > maxLengthDigits {
		return false
	}
	f.framed = true
	for _, c := range value {
		if c < '0' || c > '9' {
			return false
		}
		f.length = 10*f.length + int64(c-'0')
	}
	return true
}

// transferEncoding objects to HTTP/1.0, where net/http ignores the field, and RFC 9112 section 6.1 says that the
// framing is faulty.
func (f *follower) transferEncoding(value []byte) bool {
	if f.framed || !f.http11 || !isName(value, "chunked") {
		return false
	}
	f.framed = true
	f.length = -1
	return true
}

// isToken objects to less than RFC 9110 section 5.6.2 does, of ASCII to nothing visible.
func isToken(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(b) > 0
}

// isName says whether b is a name in any case. Beyond ASCII no letter is equal to one of as many bytes.
func isName(b []byte, name string) bool {
	return len(b) == len(name) && strings.EqualFold(string(b), name)
}

// endHead is for when the last line of the head was read. It returns how many bytes beyond that there are.
func (f *follower) endHead() int {
	f.mark = f.line
	beyond := len(f.head) - f.mark
	f.head = f.head[:f.mark]
	switch {
	case f.length < 0:
		f.state = inSize
	case f.length > 0:
		f.state, f.left = inBody, f.length
	default:
		f.state = ended
	}
	return beyond
}

// skip passes over what is left.
func (f *follower) skip(b []byte, then followed) int {
	n := int(min(f.left, int64(len(b))))
	f.left -= int64(n)
	if f.left == 0 {
		f.state = then
	}
	return n
}

// followAhead gets the byte that net/http reads ahead to learn that a client has gone while its request is being served
// (connReader.backgroundRead). No more than that can be the server's before the request is answered.
func (f *follower) followAhead(b []byte) int {
	if len(f.head) > f.mark {
		f.lose()
		return len(b)
	}
	f.head = append(f.head, b[0])
	return 1
}

// followChunked reads chunks of the plainest form (RFC 9112 section 7.1): no extensions, no trailers.
func (f *follower) followChunked(b []byte) int {
	for n := 0; n < len(b); {
		if f.state == inChunk {
			n += f.skip(b[n:], afterChunk)
			continue
		}
		f.chunkByte(b[n])
		n++
		switch f.state {
		case ended:
			return n
		case lost:
			return len(b)
		}
	}
	return len(b)
}

// chunkByte follows one byte of what is around the chunks.
func (f *follower) chunkByte(c byte) {
	switch {
	case f.state == inSize && c == '\r' && f.digits > 0:
		f.state = afterSize
	case f.state == inSize:
		f.sizeDigit(c)
	case f.state == afterSize && c == '\n' && f.left > 0:
		f.state = inChunk
	case f.state == afterSize && c == '\n':
		f.state = afterLast
	case f.state == afterChunk && c == '\r':
		f.state = afterChunkCR
	case f.state == afterChunkCR && c == '\n':
		f.state, f.digits = inSize, 0
	case f.state == afterLast && c == '\r':
		f.state = afterLastCR
	case f.state == afterLastCR && c == '\n':
		f.state = ended
	default:
		f.lose()
	}
}

func (f *follower) sizeDigit(c byte) {
	digit := strings.IndexByte("0123456789abcdef", c|0x20) // which makes a letter lower case, and leaves a digit
	if digit < 0 || c < '0' || f.digits == maxSizeDigits {
		f.lose()
		return
	}
	f.digits++
	f.left = f.left<<4 | int64(digit)
}
