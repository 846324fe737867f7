package route

import (
	"fmt"
	"net/netip"
	"strings"
)

// Match says which connections a route is for. What is left out matches everything; its zero value matches
// every connection.
type Match struct {
	// Hosts are names, wildcards ("*.example.com") and IP addresses, of which one has to match. They need
	// not be in normal form; see [NormalizePattern].
	Hosts []string

	// Path is what the request's path has to begin with, by whole segments. It starts with a slash. Its
	// segments have at most 255 bytes each, decoded, and nothing that servers understand differently: none
	// is empty, "." or "..", and none has a backslash, a semicolon, or an encoded slash.
	Path string

	// ALPN is a protocol that the client has to offer, such as "h2". Case matters (RFC 7301, section 3.2).
	ALPN string

	// Listener is the name of the listener at which the connection has to arrive.
	Listener string

	// From are networks, in one of which the client has to be. Host bits are ignored. IPv4 networks that are
	// written as IPv4-mapped IPv6 (::ffff:10.0.0.0/104) are IPv4 networks; any other IPv6 network, ::/0
	// too, has no IPv4 client in it.
	From []netip.Prefix
}

// Query is what is known of a connection.
type Query struct {
	// Host is in normal form, as [NormalizeHost] makes it and package sniff returns it; empty if unknown.
	Host string

	// Path is the path of the request as it was sent, without the query; empty if there is none.
	Path string

	// ALPN are the protocols that the client offers, in its order of preference.
	ALPN []string

	// Listener is the name of the listener.
	Listener string

	// Client is the address of the client. IPv4-mapped IPv6 is IPv4. The zero Addr is in no network.
	Client netip.Addr
}

// String describes m for people, as "shop.example.com/api/", "*.example.com (alpn h2, listener web)" or
// "everything". Lists are cut short.
func (m Match) String() string {
	where := m.where()
	conditions := m.conditions()
	if conditions == "" {
		return where
	}
	return where + " (" + conditions + ")"
}

func (m Match) where() string {
	if len(m.Hosts) == 0 && m.Path == "" {
		return "everything"
	}
	if len(m.Hosts) == 0 {
		return m.Path
	}
	return enumerate(m.Hosts, func(host string) string {
		if m.Path != "" && strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
			host = "[" + host + "]"
		}
		return host + m.Path
	})
}

func (m Match) conditions() string {
	var s []string
	if m.ALPN != "" {
		s = append(s, "alpn "+m.ALPN)
	}
	if m.Listener != "" {
		s = append(s, "listener "+m.Listener)
	}
	if len(m.From) > 0 {
		s = append(s, "from "+enumerate(m.From, netip.Prefix.String))
	}
	return strings.Join(s, ", ")
}

// enumerate shows the first few of a list that may have thousands.
func enumerate[T any](list []T, show func(T) string) string {
	const most = 3
	var s []string
	for _, v := range list[:min(len(list), most)] {
		s = append(s, show(v))
	}
	text := strings.Join(s, ", ")
	if more := len(list) - len(s); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
