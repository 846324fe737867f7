package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// get is a request as clients make it. It says nothing of what comes after it, so that the same will do for
// connections that are kept and for those that are not.
func get(host, path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
}

// requests returns what the clients of a contender send, in turn.
func (r *Running) requests() [][]byte {
	if len(r.Hosts) == 0 {
		return [][]byte{get(Host, PathSmall)}
	}
	all := make([][]byte, len(r.Hosts))
	for i, host := range r.Hosts {
		all[i] = get(host, PathSmall)
	}
	return all
}

// maxHeader is more than any contender's answer has before its body.
const maxHeader = 4 << 10

var errEnd = errors.New("the connection ended before the whole answer was there")

// readAnswer reads the answer to a small request from r and checks it. It reads what there is and allocates
// nothing, as it is the client's cost in all that is measured; buf has room for maxHeader bytes.
func readAnswer(r io.Reader, buf []byte) error {
	for n := 0; ; {
		if n == len(buf) {
			return errTooLong
		}
		got, err := r.Read(buf[n:])
		n += got
		if got > 0 {
			if done, err := checkAnswer(buf[:n]); done || err != nil {
				return err
			}
		}
		if err == io.EOF {
			return errEnd
		}
		if err != nil {
			return err
		}
	}
}

// checkAnswer says whether b is a whole answer to a small request, and the right one.
func checkAnswer(b []byte) (done bool, err error) {
	body, length, err := parseHeader(b)
	if body == 0 || err != nil {
		return false, err
	}
	if length != int64(len(SmallBody)) {
		return false, fmt.Errorf("a body of %d bytes; want %d", length, len(SmallBody))
	}
	if len(b)-body < len(SmallBody) {
		return false, nil
	}
	if got := b[body:]; string(got) != SmallBody {
		return false, fmt.Errorf("the answer %.100q; want %q", got, SmallBody)
	}
	return true, nil
}

var (
	okLine     = []byte("HTTP/1.1 200 ")
	headerEnd  = []byte("\r\n\r\n")
	lengthName = []byte("content-length:")

	errTooLong = errors.New("an answer without end of its header")
)

// parseHeader finds where the body of an answer begins in b, which is 0 for as long as b has not the whole header,
// and the body's length. It takes no answer other than a 200 with a Content-Length: nobody here has a reason to give
// one (RFC 9112, section 6.3).
func parseHeader(b []byte) (body int, length int64, err error) {
	if n := min(len(b), len(okLine)); !bytes.Equal(b[:n], okLine[:n]) {
		return 0, 0, fmt.Errorf("not an answer with status 200: %.100q", b)
	}
	end := bytes.Index(b, headerEnd)
	if end < 0 {
		return 0, 0, nil
	}
	for rest := b[:end]; ; {
		at := bytes.IndexByte(rest, '\n')
		if at < 0 {
			return 0, 0, fmt.Errorf("an answer without Content-Length: %.200q", b[:end])
		}
		rest = rest[at+1:]
		if len(rest) < len(lengthName) || !bytes.EqualFold(rest[:len(lengthName)], lengthName) {
			continue
		}
		value, _, _ := bytes.Cut(rest[len(lengthName):], headerEnd[:2])
		length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		if err != nil || length < 0 {
			return 0, 0, fmt.Errorf("not a Content-Length: %.100q", value)
		}
		return end + len(headerEnd), length, nil
	}
}
