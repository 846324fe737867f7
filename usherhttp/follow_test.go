//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usherhttp

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

const (
	get       = "GET /a?b HTTP/1.1\r\nHost: shop.example.com\r\nAccept: */*\r\n\r\n"
	post      = "POST / HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 5\r\n\r\nhello"
	chunked   = "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n00B\r\nGET / HTTP/\r\n0\r\n\r\n"
	emptyBody = "DELETE /d HTTP/1.1\r\nHost: a\r\ntransfer-encoding:chunked\r\n\r\n0\r\n\r\n"
)

// streams are what clients may send, and how many of the requests in it a follower follows to their ends.
var streams = []struct {
	name, stream string
	want         int
}{
	{"nothing", "", 0},
	{"a request without a body", get, 1},
	{"a request whose lines end with LF alone", strings.ReplaceAll(get, "\r", ""), 1},
	{"a request of HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 1},
	{"a request with a body", post, 1},
	{"an empty body with its length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 1},
	{"a body in chunks", chunked, 1},
	{"no chunk", emptyBody, 1},
	{"many requests", get + post + get + chunked + emptyBody + post, 6},
	{"a request that is not all there", get + get[:len(get)-1], 1},
	{"a body that is not all there", get + post[:len(post)-1], 1},
	{"chunks that are not all there", get + chunked[:len(chunked)-1], 1},
	{"a body that looks like a request", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n" + get, 2},
	{"an upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 1},
	{"a request that wants to be told to continue", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello" + get, 2},
	{"a length in spaces", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\t 5 \r\n\r\nhello", 1},
	{"a field that only ends like a length", "POST / HTTP/1.1\r\nHost: a\r\nX-Content-Length: 5\r\n\r\n" + get, 2},
	{"the longest head", longHead(maxHead), 1},

	{"an empty line before a request", get + "\r\n" + get, 1},
	{"an empty line after a POST", post + "\r\n" + get, 1},
	{"HTTP/0.9", "GET /\r\n", 0},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 0},
	{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0},
	{"a TLS record", "\x16\x03\x01\x00\x05\n\n\n\n\n", 0},
	{"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n" + get, 0},
	{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 0},
	{"two lengths in a line", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 0},
	{"a length with a sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 0},
	{"an empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", 0},
	{"a length beyond counting", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", 0},
	{"a length and chunks", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
	{"chunks and a length", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 0},
	{"two transfer codings", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0},
	{"a transfer coding twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
	{"no transfer coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n" + get, 0},
	{"chunks in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
	{"a space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", 0},
	{"a line without a colon", "GET / HTTP/1.1\r\nHost: a\r\nhello\r\n\r\n", 0},
	{"a line that goes on in the next", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 5\r\n\r\nhello", 0},
	{"a first line that starts with a space", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 0},
	{"an empty line with a space in it", "GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", 0},
	{"an empty line with two CR", "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n", 0},
	{"a chunk extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n", 0},
	{"a trailer", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n", 0},
	{"a chunk whose size ends with LF alone", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 0},
	{"a chunk that ends with LF alone", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", 0},
	{"a chunk that is longer than its size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n", 0},
	{"chunks that end with LF alone", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n", 0},
	{"a size with a sign", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", 0},
	{"a size with a prefix", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 0},
	{"an empty size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", 0},
	{"a size beyond counting", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000000\r\n", 0},
	{"a head that is too long", longHead(maxHead + 1), 0},
}

func longHead(n int) string {
	const before, after = "GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n"
	return before + strings.Repeat("x", n-len(before)-len(after)) + after
}

func TestFollowerFindsTheEndsOfRequests(t *testing.T) {
	for _, tt := range streams {
		t.Run(tt.name, func(t *testing.T) {
			for _, piece := range []int{1, 2, 7, len(tt.stream) + 1} {
				if got := checkFollower(t, []byte(tt.stream), piece); got != tt.want {
					t.Errorf("in pieces of %d bytes it has followed %d requests; want %d", piece, got, tt.want)
				}
			}
		})
	}
}

// FuzzFollower holds what the follower makes of a stream against what net/http does.
func FuzzFollower(f *testing.F) {
	for _, s := range streams {
		if len(s.stream) > maxFuzzed {
			continue
		}
		f.Add([]byte(s.stream), uint16(len(s.stream)))
		f.Add([]byte(s.stream+get), uint16(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, piece uint16) {
		if len(stream) <= maxFuzzed {
			checkFollower(t, stream, max(1, int(piece)))
		}
	})
}

// maxFuzzed is so much that the fuzzer gets somewhere.
const maxFuzzed = 4 << 10

// checkFollower follows a stream that comes in pieces, beside net/http, and returns how many requests have ended before the
// stream has, or before the follower was lost.
func checkFollower(t *testing.T, stream []byte, piece int) int {
	t.Helper()
	var f follower
	unread := bytes.NewReader(stream)
	b := bufio.NewReader(unread)
	at := 0
	for n := 0; ; n++ {
		start := at
		at = followOne(t, &f, stream, at, piece)
		r, readErr := http.ReadRequest(b)
		var bodyErr error
		if readErr == nil {
			_, bodyErr = io.Copy(io.Discard, r.Body)
		}
		if f.state == lost {
			return n
		}
		if f.state != ended {
			if readErr == nil && bodyErr == nil {
				t.Fatalf("request %d, from byte %d: net/http finds its end, the follower is in state %d\n%q", n, start, f.state, stream)
			}
			return n
		}
		if readErr != nil { // which ends the connection
			return n
		}
		end := len(stream) - unread.Len() - b.Buffered()
		if bodyErr != nil || end != at {
			t.Fatalf("request %d, from byte %d, ends at byte %d: %v; the follower says at %d\n%q", n, start, end, bodyErr, at, stream)
		}
		if head := stream[start : start+len(f.head)]; !bytes.Equal(f.head, head) {
			t.Fatalf("request %d has the head %q; the follower says %q", n, head, f.head)
		}
		f.meets(r)
		if f.state == lost {
			t.Fatalf("request %d, from byte %d, is not what the follower has followed\n%q", n, start, stream)
		}
		f.begin()
		if f.state != inHead {
			t.Fatalf("the follower is in state %d after request %d", f.state, n)
		}
	}
}

// followOne follows from a byte to the end of a request, or of the stream, and returns where that is. It checks that there is
// progress, and that heads are followed on their own.
func followOne(t *testing.T, f *follower, stream []byte, at, piece int) int {
	t.Helper()
	for at < len(stream) && f.state != ended && f.state != lost {
		given := stream[at:min(at+piece, len(stream))]
		was := f.state
		n := f.follow(given)
		if n < 1 || n > len(given) {
			t.Fatalf("the follower has followed %d of %d bytes", n, len(given))
		}
		if was == inHead && f.state != inHead && f.state != lost && at+n > 0 && stream[at+n-1] != '\n' {
			t.Fatalf("the follower has left a head within a line\n%q", stream)
		}
		at += n
	}
	return at
}

func TestFollowerTakesOneByteAhead(t *testing.T) {
	var f follower
	f.follow([]byte(get))
	if n := f.follow([]byte(post)); n != 1 {
		t.Fatalf("it has followed %d bytes before the answer; want 1", n)
	}
	f.meets(must(http.ReadRequest(bufio.NewReader(strings.NewReader(get))))(t))
	f.begin()
	if f.state != inHead || string(f.head) != post[:1] {
		t.Errorf("then it is in state %d with %q; want a head that begins with %q", f.state, f.head, post[:1])
	}
	if n := f.follow([]byte(post[1:])); n != len(post)-1-len("hello") {
		t.Errorf("it has followed %d bytes, which is not the rest of the head", n)
	}
}

func TestFollowerGivesUpWhenTheServerSeesSomethingElse(t *testing.T) {
	read := func(s string) *http.Request { return must(http.ReadRequest(bufio.NewReader(strings.NewReader(s))))(t) }
	for name, do := range map[string]func(*follower){
		"more than a byte is read before the answer": func(f *follower) { f.follow([]byte("G")); f.follow([]byte("E")) },
		"the method is another":                      func(f *follower) { f.meets(read(strings.Replace(get, "GET", "PUT", 1))) },
		"the target is another":                      func(f *follower) { f.meets(read(strings.Replace(get, "/a?b", "/a", 1))) },
		"the version is another":                     func(f *follower) { f.meets(read(strings.Replace(get, "1.1", "1.0", 1))) },
		"there is a body":                            func(f *follower) { f.meets(read(strings.Replace(get, "Accept: */*", "Content-Length: 1", 1))) },
		"there are two requests":                     func(f *follower) { f.meets(read(get)); f.meets(read(get)) },
		"the answer comes without a handler":         func(f *follower) { f.begin() },
	} {
		t.Run(name, func(t *testing.T) {
			var f follower
			f.follow([]byte(get))
			do(&f)
			if f.state != lost {
				t.Errorf("it is in state %d", f.state)
			}
		})
	}
	t.Run("the answer comes before the end of the body", func(t *testing.T) {
		var f follower
		f.follow([]byte(post[:len(post)-5]))
		f.meets(read(post))
		f.follow([]byte("hell"))
		f.begin()
		if f.state != lost {
			t.Errorf("it is in state %d", f.state)
		}
	})
}

func BenchmarkFollow(b *testing.B) {
	const browser = "GET /index.html HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"
	var f follower
	b.ReportAllocs()
	for b.Loop() {
		if n := f.follow([]byte(browser)); n != len(browser) {
			b.Fatal(n)
		}
		f.known = true
		f.begin()
	}
}
