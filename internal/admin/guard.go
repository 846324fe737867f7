package admin

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// contentSecurityPolicy lets the dashboard load its own files and ask its own server, and nothing else: what
// clients of the door put into a host name could not run, or call home, even if it became markup.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// guard is before every page.
func (o *Options) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setSecurityHeaders(w.Header())
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			answer(w, http.StatusMethodNotAllowed, "only GET and HEAD are allowed: nothing can be changed here")
			return
		}
		if !o.AllowRemote && !isOwnHost(r) {
			o.refuse(w, r, http.StatusMisdirectedRequest, "this address is not known by that name; ask for a loopback address or localhost")
			return
		}
		isHealth := r.URL.Path == healthPath || r.URL.Path == readyPath
		if !isHealth && isFromOtherSite(r) {
			o.refuse(w, r, http.StatusForbidden, "another site has asked for this; type the address or use a bookmark")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refuse logs at the lowest level: a page in any browser here can cause as many refusals as it likes.
func (o *Options) refuse(w http.ResponseWriter, r *http.Request, code int, why string) {
	o.Log.Debug("admin request refused", "reason", why, "client", r.RemoteAddr, "host", r.Host, "path", r.URL.Path,
		"origin", r.Header.Get("Origin"))
	answer(w, code, why)
}

func setSecurityHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
}

// isOwnHost defeats DNS rebinding, where a page from evil.example makes that name point to 127.0.0.1 and then
// is of the same origin as the dashboard: the name is still in the Host header. An address cannot be rebound.
// The port may be another one, since the connection may come through a forwarded one.
func isOwnHost(r *http.Request) bool {
	if r.Host == "" {
		return true // HTTP/1.0, from a health check: no browser leaves it out
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local != nil && local.Network() == "unix" {
		return true // no browser can connect to one
	}
	host := (&url.URL{Host: r.Host}).Hostname() // without port and brackets
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	return ip.Unmap().IsLoopback() || isAddrOf(local, ip)
}

func isAddrOf(local net.Addr, ip netip.Addr) bool {
	tcp, ok := local.(*net.TCPAddr)
	return ok && tcp.AddrPort().Addr().Unmap().WithZone("") == ip.Unmap().WithZone("")
}

// isFromOtherSite tells whether a page of another origin has caused the request. Browsers say so in
// Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/), and in Origin where a script wants to read the
// answer. "same-site" is another port of this machine, hence another program, which may only link here.
func isFromOtherSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	case "same-site":
		if r.Header.Get("Sec-Fetch-Mode") != "navigate" {
			return true
		}
	default:
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	_, host, found := strings.Cut(origin, "://")
	return !found || !strings.EqualFold(host, r.Host)
}
