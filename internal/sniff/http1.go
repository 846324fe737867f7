package sniff

import (
	"bytes"
	"errors"
	"strings"
)

// ErrShort means that the bytes so far allow no verdict: read more and ask again. How much to read at most is the caller's limit.
var ErrShort = errors.New("sniff: more bytes are needed")

// ErrNotHTTP means that the bytes cannot begin an HTTP/1.x request. Any other error but [ErrShort] means that they begin one which
// nobody should serve.
var ErrNotHTTP = errors.New("sniff: not HTTP/1.x")

// malformed is the verdict on an HTTP request, of whichever version, that breaks the rules; its text says which.
type malformed string

func (e malformed) Error() string { return "sniff: malformed HTTP request: " + string(e) }

const (
	errTarget      malformed = "bad request target"
	errHeaderLine  malformed = "bad header line"
	errHost        malformed = "bad host name"
	errNoHost      malformed = "no Host"
	errManyHosts   malformed = "more than one Host header"
	errOtherTarget malformed = "Host header and request target name different hosts"
)

// Request is what the head of an HTTP request, of whichever version, says about where it should go.
type Request struct {
	// Method as sent: methods are case-sensitive.
	Method string
	// Path is the target without its query, still percent-encoded: "/" where an absolute target has none, "*" for OPTIONS *, and
	// empty for CONNECT, which has no path.
	Path string
	// Host is in lower case, without port and without trailing dot. An IPv6 literal has no brackets and is in its shortest form.
	// Every other host consists of letters, digits, '-', '_' and single dots: it is safe to use as a file name.
	Host string
}

const (
	// maxMethod ends the wait for a space from a peer that talks something else: the longest registered method has 17 bytes.
	maxMethod = 32
	version   = "HTTP/1."
)

// HTTP1 reads the head of an HTTP/1.x request, request line to blank line, from the first bytes of a connection.
//
// It waits for the whole head though the Host may stand in its first lines, because a second Host further down would make a request
// that two programs understand differently. It is strict where that protects the choice of a backend: a second Host, a Host other than
// the one in an absolute target, folded header lines, and spaces before a colon are all errors.
// Like net/http it takes a bare LF for the end of a line.
func HTTP1(b []byte) (Request, error) {
	b = skipBlankLine(b)
	line, n, err := scanRequestLine(b)
	if err != nil {
		return Request{}, err
	}
	to, err := line.destination()
	if err != nil {
		return Request{}, err
	}
	host, err := scanHeaders(b[n:], to.host)
	if err != nil {
		return Request{}, err
	}
	return Request{Method: methodName(line.method), Path: to.path, Host: host}, nil
}

// skipBlankLine passes over the one empty line that RFC 9112, section 2.2, asks servers to forgive. A lone CR is passed over too: what
// follows it decides, and that is either LF or not HTTP.
func skipBlankLine(b []byte) []byte {
	if bytes.HasPrefix(b, []byte("\r\n")) {
		return b[2:]
	}
	if len(b) == 1 && b[0] == '\r' {
		return nil
	}
	return b
}

// requestLine holds the words of a request line; they alias the caller's bytes.
type requestLine struct {
	method, target []byte
}

// scanRequestLine goes strictly from left to right and stops at the first byte that does not fit, so that the bytes of another protocol
// are known as such at the earliest one possible. n is the length of the line with its end.
func scanRequestLine(b []byte) (line requestLine, n int, err error) {
	i := 0
	for i < len(b) && i <= maxMethod && isToken(b[i]) {
		i++
	}
	if i == len(b) && i <= maxMethod {
		return line, 0, ErrShort
	}
	if i == 0 || i > maxMethod || b[i] != ' ' {
		return line, 0, ErrNotHTTP
	}
	line.method = b[:i]

	start := i + 1
	size, err := scanTarget(b[start:], string(line.method) == "CONNECT")
	if err != nil {
		return line, 0, err
	}
	line.target = b[start : start+size]

	start += size + 1
	size, err = scanVersion(b[start:])
	return line, start + size, err
}

// scanTarget returns the length of the target, which ends before a space.
func scanTarget(b []byte, connect bool) (int, error) {
	state := targetStart
	if connect {
		state = targetRest
	}
	for i, c := range b {
		if c == ' ' && i > 0 && (state == targetRest || state == targetEnd) {
			return i, nil
		}
		if c <= ' ' || c == 0x7f {
			return 0, ErrNotHTTP
		}
		if state = state.next(c); state == targetBad {
			return 0, ErrNotHTTP
		}
	}
	return 0, ErrShort
}

// targetState tells the three forms of a target apart: "/path", "*" and "scheme://…". What begins like none of them is not HTTP.
//
//	start ─ '/' ─────────────────────────────────────→ rest (any byte)
//	start ─ '*' ─→ end (no byte)
//	start ─ letter ─→ scheme ─ ':' ─→ colon ─ '/' ─→ slash ─ '/' ─→ rest
type targetState int

const (
	targetStart targetState = iota
	targetScheme
	targetColon
	targetSlash
	targetRest
	targetEnd
	targetBad
)

func (s targetState) next(c byte) targetState {
	switch {
	case s == targetRest:
		return targetRest
	case s == targetStart && c == '/', s == targetSlash && c == '/':
		return targetRest
	case s == targetStart && c == '*':
		return targetEnd
	case s == targetStart && isLetter(c), s == targetScheme && isSchemeByte(c):
		return targetScheme
	case s == targetScheme && c == ':':
		return targetColon
	case s == targetColon && c == '/':
		return targetSlash
	}
	return targetBad
}

// scanVersion returns the length of what follows the target: the version and the end of the line.
func scanVersion(b []byte) (int, error) {
	for i, c := range b {
		switch {
		case i < len(version):
			if c != version[i] {
				return 0, ErrNotHTTP
			}
		case i == len(version):
			if !isDigit(c) {
				return 0, ErrNotHTTP
			}
		case c == '\n':
			return i + 1, nil
		case c != '\r' || i > len(version)+1:
			return 0, ErrNotHTTP
		}
	}
	return 0, ErrShort
}

// destination is what the request line alone says: host is empty if only the Host header can tell.
type destination struct {
	path, host string
}

func (l requestLine) destination() (destination, error) {
	if bytes.IndexByte(l.target, '#') >= 0 {
		return destination{}, errTarget // a fragment never travels; servers differ on where the path would end
	}
	if string(l.method) == "CONNECT" {
		host, err := hostName(l.target)
		return destination{host: host}, err
	}
	path, _, _ := bytes.Cut(l.target, []byte("?"))
	if path[0] == '/' || path[0] == '*' {
		return destination{path: string(path)}, nil
	}
	return absolute(l.target)
}

// absolute takes scheme://authority/path?query apart.
func absolute(target []byte) (destination, error) {
	_, rest, _ := bytes.Cut(target, []byte("://"))
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	host, err := hostName(rest[:end])
	if err != nil {
		return destination{}, err
	}
	path, _, _ := bytes.Cut(rest[end:], []byte("?"))
	if len(path) == 0 {
		return destination{path: "/", host: host}, nil
	}
	return destination{path: string(path), host: host}, nil
}

// scanHeaders reads header lines up to the blank one. target is the host that the request line named, if any: RFC 9112 lets it win over
// the Host header, but not every backend does, so they must agree.
func scanHeaders(b []byte, target string) (host string, err error) {
	seen := false
	for {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			return "", ErrShort
		}
		line := bytes.TrimSuffix(b[:end], []byte("\r"))
		b = b[end+1:]
		if len(line) == 0 {
			break
		}
		value, isHost, err := parseHeader(line)
		if err != nil {
			return "", err
		}
		if !isHost {
			continue
		}
		if seen {
			return "", errManyHosts
		}
		seen = true
		if host, err = hostHeader(value, target); err != nil {
			return "", err
		}
	}
	if host == "" {
		host = target
	}
	if host == "" {
		return "", errNoHost
	}
	return host, nil
}

// parseHeader checks a header line and returns its value if it is the Host.
func parseHeader(line []byte) (value []byte, isHost bool, err error) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return nil, false, errHeaderLine
	}
	name, value := line[:colon], line[colon+1:]
	for _, c := range name {
		if !isToken(c) { // also a space before the colon, and the leading space of a folded line
			return nil, false, errHeaderLine
		}
	}
	if !isFieldValue(value) {
		return nil, false, errHeaderLine
	}
	if len(name) != len("host") || !bytes.EqualFold(name, []byte("host")) {
		return nil, false, nil
	}
	return bytes.Trim(value, " \t"), true, nil
}

func hostHeader(value []byte, target string) (string, error) {
	if len(value) == 0 {
		return "", nil // legal beside a target that has no host either; scanHeaders says what that means
	}
	host, err := hostName(value)
	if err != nil {
		return "", err
	}
	if target != "" && host != target {
		return "", errOtherTarget
	}
	return host, nil
}

// methodName makes a string of a method, without memory for the usual ones.
func methodName(b []byte) string {
	switch string(b) {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "HEAD":
		return "HEAD"
	case "PUT":
		return "PUT"
	}
	return string(b)
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isSchemeByte(c byte) bool {
	return isLetter(c) || isDigit(c) || c == '+' || c == '-' || c == '.'
}

// isToken tells whether c may stand in a method or a header name (RFC 9110, section 5.6.2).
func isToken(c byte) bool {
	return isLetter(c) || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// isFieldValue tells whether b may be the value of a header (RFC 9110, section 5.5).
func isFieldValue[T []byte | string](b T) bool {
	for i := range len(b) {
		if (b[i] < ' ' && b[i] != '\t') || b[i] == 0x7f {
			return false
		}
	}
	return true
}
