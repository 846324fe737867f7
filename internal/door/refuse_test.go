package door

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/admin"
)

// refusing is a door where nothing is served.
const refusing = `
listeners:
  - {name: web, address: "127.0.0.1:0", defer_accept: false, limits: {peek_timeout: 300ms, peek_bytes: 2KiB}}
  - {name: raw, address: "127.0.0.1:0", sniff: none}
routes:
  - {name: gone, match: {host: gone.example.com}, handoff: "{shop}"}
  - {name: no, match: {host: no.example.com}, reject: true}
  - {name: raw, match: {listener: raw}, handoff: "{shop}"}
`

func TestHTTPIsRefusedWithAnAnswer(t *testing.T) {
	h := newHouse(t)
	h.open(refusing)
	for _, c := range []struct {
		name, url string
		status    int
		outcome   admin.Outcome
	}{
		{"503 when nobody takes", "http://gone.example.com/", 503, admin.Unavailable},
		{"404 when no route matches", "http://other.example.com/", 404, admin.NoRoute},
		{"403 when the route rejects", "http://no.example.com/", 403, admin.Rejected},
		{"431 when the head is too long", "http://gone.example.com/" + strings.Repeat("a", 4<<10), 431, admin.TooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			for version, how := range map[string]func(*http.Transport){"HTTP/1.1": freshConns, "HTTP/2": http2Only} {
				if c.status == 431 && version == "HTTP/2" {
					continue // whose first request has no stream that is known
				}
				before := h.count("", c.outcome)
				r, err := httpClient(t, h.addr("web"), how).Get(c.url)
				if err != nil {
					t.Fatalf("%s: %v", version, err)
				}
				body := string(must(io.ReadAll(r.Body))(t))
				r.Body.Close()
				if r.StatusCode != c.status || version == "HTTP/1.1" && !strings.HasPrefix(body, "usher: ") {
					t.Errorf("%s: %d %q, want %d", version, r.StatusCode, body, c.status)
				}
				if retry := r.Header.Get("Retry-After"); (retry != "") != (c.status == 503) {
					t.Errorf("%s: Retry-After is %q", version, retry)
				}
				if n := h.count("", c.outcome) - before; n != 1 {
					t.Errorf("%s: counted %d as %s, want 1", version, n, c.outcome)
				}
			}
		})
	}
}

func TestTLSIsRefusedWithAnAlert(t *testing.T) {
	h := newHouse(t)
	h.open(refusing)
	for _, c := range []struct {
		name, server string
		alert        string
	}{
		{"internal_error when nobody takes", "gone.example.com", "internal error"},
		{"unrecognized_name when no route matches", "other.example.com", "unrecognized name"},
		{"unrecognized_name when no name is given", "", "unrecognized name"},
		{"access_denied when the route rejects", "no.example.com", "access denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := tls.Client(raw(t, h.addr("web")), &tls.Config{ServerName: c.server, InsecureSkipVerify: true})
			err := conn.Handshake()
			if err == nil || !strings.HasSuffix(err.Error(), "tls: "+c.alert) {
				t.Errorf("the client says %v, want %s", err, c.alert)
			}
		})
	}
}

func TestOthersAreReset(t *testing.T) {
	h := newHouse(t)
	h.open(refusing)
	for _, c := range []struct{ name, listener, first string }{
		{"a protocol that the door does not know", "web", "\x00\x01\x02\x03 what is this?"},
		{"one that it does not look at", "raw", "hello"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := reaction(h.addr(c.listener), c.first)
			if err == nil && c.listener == "raw" && runtime.GOOS != "linux" {
				return // what was on offer ends, elsewhere, before it is reset
			}
			if !wasReset(err) {
				t.Errorf("the client sees %v, want a reset", err)
			}
		})
	}
}

// reaction is what a client comes to know that connects, says something, and reads to the end. A reset can come
// at any of these.
func reaction(addr, first string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(timeout))
	if _, err = io.WriteString(c, first); err == nil {
		_, err = io.ReadAll(c)
	}
	return err
}

func TestMalformedFirstBytesAreRefused(t *testing.T) {
	h := newHouse(t)
	h.open(refusing)
	for _, c := range []struct{ name, first, want string }{
		{"HTTP with two hosts", "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", "HTTP/1.1 400 "},
		{"HTTP/1.1 without a host", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"TLS whose hello is no hello", "\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "\x15\x03\x03\x00\x02\x02\x32"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := raw(t, h.addr("web"))
			send(t, conn, c.first)
			if got := rest(t, conn); !strings.HasPrefix(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	h.expect("none", admin.Malformed, 3)
	refusals := h.door.Status().Refusals
	if len(refusals) != 3 || refusals[0].Reason == "" || refusals[0].Outcome != admin.Malformed {
		t.Errorf("refusals: %+v", refusals)
	}
}

func TestAClientThatDoesNotSayWhatItWantsIsNotWaitedFor(t *testing.T) {
	h := newHouse(t)
	h.open(refusing)
	silent := raw(t, h.addr("web"))
	if got := rest(t, silent); got != "" {
		t.Errorf("one that says nothing is told %q", got)
	}
	slow := raw(t, h.addr("web"))
	send(t, slow, "GET / HTTP/1.1\r\nHo")
	if got := rest(t, slow); !strings.HasPrefix(got, "HTTP/1.1 408 ") {
		t.Errorf("one that stops is told %q, want 408", got)
	}
	h.expect("none", admin.Timeout, 2)
	quitter := raw(t, h.addr("web"))
	send(t, quitter, "GET / HTTP/1.1\r\nHo")
	quitter.CloseWrite()
	io.Copy(io.Discard, quitter)
	eventually(t, "one that leaves is noticed", func() bool { return h.count("none", admin.Gone)+h.count("none", admin.Timeout) == 3 })
}
