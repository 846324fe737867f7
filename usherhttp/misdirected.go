package usherhttp

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/go-usher/usher"
)

// Misdirected returns a handler that passes requests to h for which match is true, and sends the others where they belong: back to
// the door, with their connection and all that the client has sent on it since, to be routed anew. [Hosts] makes a match.
//
// The door routes a connection by its first request. A client may send later ones for any host and path on it, and clients do that keep
// connections by address, or by a certificate that is good for several names (RFC 9110 section 7.4, RFC 9113 section 9.1.1). So match
// should say no more than the door's routes to this backend do: a request that it refuses and the door sends here all the
// same is answered here with 421 Misdirected Request (RFC 9110 section 15.5.20), on which the client may try another connection.
//
// That is also the answer to a request whose connection cannot go back: of HTTP/2; in TLS; that is the first on its connection in this
// process, as the door may have sent it here by just that; that came on a connection which no giver takes back
// ([usher.Conn.Returnable]), or on which it is in doubt where a request begins; whose body has been read in part; or that the
// door does not claim within 5 seconds. On HTTP/1 the connection is closed then.
//
// It belongs outside of other handlers, and needs a [http.ResponseWriter] that can be hijacked ([http.ResponseController]), as that of
// [http.TimeoutHandler] cannot. Handlers outside of it must not have written any of the answer: it comes from another process.
func Misdirected(h http.Handler, match func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if match(r) {
			h.ServeHTTP(w, r)
			return
		}
		if c := connIn(r); c != nil && c.giveBack(w, r) {
			return
		}
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		http.Error(w, http.StatusText(http.StatusMisdirectedRequest), http.StatusMisdirectedRequest)
	})
}

// giveBackTimeout is for a door that does not claim what it is given back.
const giveBackTimeout = 5 * time.Second

// giveBack gives the connection back with a request on it, and answers that if the door does not take it. It returns false
// if nothing was done.
func (c *conn) giveBack(w http.ResponseWriter, r *http.Request) bool {
	if r.ProtoMajor != 1 || r.TLS != nil || !c.mayGiveBack() {
		return false
	}
	defer c.v.unsettled.Done() // a connection that is hijacked is not waited for otherwise
	if _, _, err := http.NewResponseController(w).Hijack(); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.giving = false
		return false
	}
	c.mu.Lock()
	c.gone = true
	prefix := c.unused()
	c.f.lose()
	c.mu.Unlock()
	o, err := usher.NewOffer(c.Conn, prefix, c.info())
	if err != nil {
		refuse(c.Conn)
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), giveBackTimeout)
	defer cancel()
	if o.HandBack(ctx) == nil {
		return true
	}
	if mine, err := reclaim(o); err == nil {
		refuse(mine)
	}
	return true
}

// mayGiveBack reserves the connection for giving it back.
func (c *conn) mayGiveBack() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled || !c.f.known || c.f.hasBody || c.requests < 2 || !c.Returnable() {
		return false
	}
	c.giving = true
	c.v.unsettled.Add(1)
	return true
}

// lingering is how long a client may go on sending that is being refused. To close the connection before that would have the
// kernel reset it, and take the answer from a client that has not read it (RFC 9112 section 9.6).
const lingering = time.Second

// refuse answers a request on a connection that is not the server's any more, and closes that.
func refuse(c *usher.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(lingering))
	_, err := fmt.Fprintf(c, "HTTP/1.1 421 Misdirected Request\r\nDate: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		time.Now().UTC().Format(http.TimeFormat))
	if err != nil || c.CloseWrite() != nil {
		return
	}
	_, _ = io.Copy(io.Discard, c)
}

// Hosts returns a match for [Misdirected]: requests for one of the hosts, in any case and at any port. "*.example.com" stands for
// one or more labels before example.com, as in the door's routes, and is not example.com itself. Hosts panics if one is written as no
// request's can be: empty, with a port, or with an asterisk elsewhere.
func Hosts(hosts ...string) func(*http.Request) bool {
	names := make(map[string]bool, len(hosts))
	for _, pattern := range hosts {
		domain, isWildcard := strings.CutPrefix(pattern, "*.")
		name, hasPort := hostName(domain)
		if name == "" || hasPort || strings.Contains(name, "*") {
			panic(fmt.Sprintf("usherhttp: %q is no host", pattern))
		}
		if isWildcard {
			name = "*." + name
		}
		names[name] = true
	}
	return func(r *http.Request) bool {
		name, _ := hostName(r.Host)
		if names[name] {
			return true
		}
		for _, rest, found := strings.Cut(name, "."); found; _, rest, found = strings.Cut(rest, ".") {
			if names["*."+rest] {
				return true
			}
		}
		return false
	}
}

// hostName returns the host of host[:port] as the door spells it: in lower case, without a dot at its end, an IPv6 address
// without brackets and in its shortest form. It is empty if there is none.
func hostName(s string) (name string, hasPort bool) {
	name, port, hasPort := strings.Cut(s, ":")
	if v6, isV6 := strings.CutPrefix(s, "["); isV6 {
		v6, after, closed := strings.Cut(v6, "]")
		addr, err := netip.ParseAddr(v6)
		port, hasPort = strings.CutPrefix(after, ":")
		if err != nil || !addr.Is6() || addr.Zone() != "" || !closed || !hasPort && after != "" {
			return "", false
		}
		name = addr.String()
	}
	if strings.Trim(port, "0123456789") != "" {
		return "", false
	}
	return strings.ToLower(strings.TrimSuffix(name, ".")), hasPort
}
