package door

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/sniff"
	"github.com/go-usher/usher/internal/upstream"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// refuse ends a connection that no target got, in a way that its client understands, and notes why.
func (c *conn) refuse(outcome admin.Outcome, reason string) {
	if outcome == admin.Idle { // nobody has asked for anything
		c.finished(outcome, nil)
		c.nc.Close()
		return
	}
	c.finished(outcome, reasonError(reason))
	switch last := c.lastWords(outcome); {
	case last != nil:
		c.say(last)
	case outcome == admin.Timeout || outcome == admin.ShutDown:
		c.nc.Close() // most likely one that a browser has opened in advance
	default:
		upstream.Reset(c.nc) // so that the client sees an error, not an end
	}
}

// reasonError is a reason in words.
type reasonError string

func (e reasonError) Error() string { return string(e) }

// lastWords are what the client is told, nil if nothing: then it sees a reset.
func (c *conn) lastWords(outcome admin.Outcome) []byte {
	switch c.seen.Protocol {
	case sniff.ProtocolTLS:
		if alert, ok := alerts[outcome]; ok {
			return tlsAlert(alert)
		}
	case sniff.ProtocolHTTP1:
		if status, ok := statuses[outcome]; ok {
			return http1Answer(status, c.seen.Method == http.MethodHead)
		}
	case sniff.ProtocolHTTP2:
		if status, ok := statuses[outcome]; ok && c.seen.Stream != 0 {
			return http2Answer(c.seen.Stream, status)
		}
	}
	return nil
}

// statuses are those of RFC 9110 and 6585 that say what happened.
var statuses = map[admin.Outcome]int{
	admin.NoRoute:     http.StatusNotFound,
	admin.Rejected:    http.StatusForbidden,
	admin.Unavailable: http.StatusServiceUnavailable,
	admin.Failed:      http.StatusServiceUnavailable,
	admin.ShutDown:    http.StatusServiceUnavailable,
	admin.Malformed:   http.StatusBadRequest,
	admin.TooLong:     http.StatusRequestHeaderFieldsTooLarge,
	admin.Timeout:     http.StatusRequestTimeout,
}

// alerts are those of RFC 8446 section 6 and RFC 6066 section 3.
var alerts = map[admin.Outcome]byte{
	admin.NoRoute:     112, // unrecognized_name
	admin.Rejected:    49,  // access_denied
	admin.Unavailable: 80,  // internal_error
	admin.Failed:      80,
	admin.ShutDown:    80,
	admin.Malformed:   50, // decode_error
	admin.TooLong:     80,
}

// retryAfter is what a client is told to wait, in seconds: about as long as a backend needs to start again.
const retryAfter = "2"

// tlsAlert is a fatal alert. RFC 8446 section 5.1 wants the version of TLS 1.2 for all records but the first.
func tlsAlert(description byte) []byte { return []byte{21, 3, 3, 0, 2, 2, description} }

func http1Answer(status int, head bool) []byte {
	var b bytes.Buffer
	// It says whose words these are, and no more: the reason may name what is no client's business.
	text := fmt.Sprintf("usher: %d %s\n", status, http.StatusText(status))
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	if status == http.StatusServiceUnavailable {
		fmt.Fprintf(&b, "Retry-After: %s\r\n", retryAfter)
	}
	fmt.Fprintf(&b, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", len(text))
	if !head { // RFC 9110 section 9.3.2
		b.WriteString(text)
	}
	return b.Bytes()
}

// http2Answer is all that a server has to say on a connection with one request (RFC 9113 section 3.4: the
// preface, which is SETTINGS; 6.8: GOAWAY). It has no body, which flow control might hold up, and uses no table
// that the client might not want (RFC 7541 section 4.2).
func http2Answer(stream uint32, status int) []byte {
	var head, b bytes.Buffer
	enc := hpack.NewEncoder(&head)
	enc.SetMaxDynamicTableSize(0)
	enc.WriteField(hpack.HeaderField{Name: ":status", Value: fmt.Sprint(status)})
	enc.WriteField(hpack.HeaderField{Name: "server", Value: "usher"})
	if status == http.StatusServiceUnavailable {
		enc.WriteField(hpack.HeaderField{Name: "retry-after", Value: retryAfter})
	}
	f := http2.NewFramer(&b, nil) // to a buffer: nothing here can fail
	f.WriteSettings()
	f.WriteSettingsAck()
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true, EndStream: true})
	f.WriteGoAway(stream, http2.ErrCodeNo, nil)
	return b.Bytes()
}

// endTimeout is how long the client may take to read the last words, and to come to its own end.
const endTimeout = 3 * time.Second

// say writes b and closes the connection. To close one that holds unread bytes resets it, and a reset may
// overtake what was written: so it says that this is the end, and lets the client finish first.
func (c *conn) say(b []byte) {
	defer c.nc.Close()
	c.nc.SetDeadline(time.Now().Add(endTimeout))
	defer context.AfterFunc(c.door.life, func() { c.nc.SetDeadline(past) })()
	if _, err := c.nc.Write(b); err != nil {
		return
	}
	c.nc.CloseWrite()
	io.Copy(io.Discard, c.nc)
}
