// Package config is the front door's configuration: the types that a YAML file is read into, what is
// wrong with a file and at which line and column, and the defaults. The same types make the JSON Schema
// and the reference in doc/operating.md, from their doc comments.
//
// A file is read strictly: a key that is not known or is given twice, one without a value, an empty
// string and a YAML tag are errors, because each is more likely a slip than a wish, and a match that lost
// its condition would match everything. Numbers are taken for strings (as in users: [1000]), nothing
// else is taken for anything else. Anchors, aliases and merge keys work.
package config

import (
	_ "embed"
	"net/netip"
	"time"
)

// source is this file: its doc comments are the texts of the schema and of the reference, which so cannot
// be behind the types.
//
//go:embed config.go
var source string

// The tags of the fields, beside yaml:
//
//	default   what the field is where the file says nothing; without the tag, its zero value
//	enum      the only values
//	min, max  the least and the most: of a number, a duration, a size, or the items of a list
//	required  true: it must be there
//	alone     true: a single string may stand for the whole struct, and is this field

// Config is the whole configuration file.
type Config struct {
	// Listeners are the addresses at which clients connect. At least one is needed.
	Listeners []Listener `yaml:"listeners" required:"true" min:"1"`

	// Routes say which connection goes where. The most specific match wins, whatever the order: an exact
	// host before the longest wildcard before none, then the longest path, then the one that names an ALPN
	// protocol, a listener, the smallest network of clients.
	Routes []Route `yaml:"routes"`

	// AutoRoutes sends a connection whose host no route matches to the endpoint of the host's own name,
	// where there is one.
	AutoRoutes bool `yaml:"auto_routes"`

	// Endpoints says where the endpoints of takers are and who may serve them.
	Endpoints Endpoints `yaml:"endpoints"`

	// Admin is where the door answers its operators. Without it there is no admin address.
	Admin *Admin `yaml:"admin"`

	// Control is where the running door answers usher upgrade and the door that is to serve in its place: an
	// endpoint to which no host leads. A plain name is a socket in the folder .control within that of the takers'
	// sockets; else it is the path of the socket. Doors that share a folder need a name each. Not used on Windows.
	Control string `yaml:"control" default:"door"`

	// Log says what is written to standard error.
	Log Log `yaml:"log"`

	// ShutdownTimeout bounds how long the door waits, once it is told to end, for the connections that it
	// still has: those in the peek phase, on their way to a taker, or proxied.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout" default:"30s" min:"1ms"`
}

// Listener is an address at which clients connect.
type Listener struct {
	// Name is what routes, logs and metrics call the listener. It must be unique. Without one it is the
	// address.
	Name string `yaml:"name"`

	// Address is HOST:PORT, :PORT for all addresses of the machine, or systemd:NAME for a socket that
	// systemd passes (FileDescriptorName=NAME). HOST is an IP address, or a name that has one when the door
	// starts. With port 0 the system chooses one.
	Address string `yaml:"address" required:"true"`

	// Sniff says what the first bytes are: auto (TLS or HTTP, by the first byte), tls, http, or none: a
	// protocol whose server speaks first, or that the door does not know. With none only the listener and
	// the client's address are known when the route is chosen.
	Sniff Sniff `yaml:"sniff" default:"auto" enum:"auto,tls,http,none"`

	// DeferAccept leaves clients in the kernel until they have sent something, or for about a second
	// (TCP_DEFER_ACCEPT of Linux; elsewhere, and where sniff is none, it does nothing). One look at a
	// connection is enough then, and a client that connects and says nothing costs the kernel some hundred
	// bytes and the door nothing. For that second it is not seen, not counted against any limit and not
	// timed. When the listener goes, or the door ends, those that have said nothing are reset.
	DeferAccept bool `yaml:"defer_accept" default:"true"`

	// AcceptProxy are the networks of the proxies from which a PROXY protocol header (version 1 or 2) is
	// expected and believed, or single addresses. A header from anywhere else is not taken for one.
	AcceptProxy []netip.Prefix `yaml:"accept_proxy"`

	// Limits bound what clients can cost the door.
	Limits Limits `yaml:"limits"`
}

// Sniff is what a listener expects as first bytes.
type Sniff string

// The values of Sniff.
const (
	SniffAuto Sniff = "auto"
	SniffTLS  Sniff = "tls"
	SniffHTTP Sniff = "http"
	SniffNone Sniff = "none"
)

// Limits bound what the clients of a listener can cost the door.
type Limits struct {
	// PeekTimeout is how long a client may take to say what it wants, from accept to the last byte that is
	// needed.
	PeekTimeout time.Duration `yaml:"peek_timeout" default:"5s" min:"1ms"`

	// PeekBytes is how many first bytes may be needed for that. On Unix the door leaves them where they are,
	// in the kernel, whose buffer for a connection may never have more than 64KiB at once.
	PeekBytes Size `yaml:"peek_bytes" default:"16KiB" min:"1" max:"64KiB"`

	// Peeking is how many connections may be in the peek phase at once. While there are so many, or no
	// descriptors are left, the one that has been in it the longest is closed for each new one.
	Peeking int `yaml:"peeking" default:"10000" min:"1"`

	// PerIP is how many connections one client address (of IPv6, one /64) may have at the door at once: in
	// the peek phase, on their way to a taker, or proxied. Those handed over are not the door's any more,
	// and do not count.
	PerIP int `yaml:"per_ip" default:"200" min:"1"`

	// PerIPRate is how many new connections a second one client address (of IPv6, one /64) may make, with
	// bursts of as many. 0 is no limit.
	PerIPRate int `yaml:"per_ip_rate" default:"0" min:"0"`
}

// Size is a number of bytes. In a file it is a number, or a number with the unit KiB, MiB (1024 and
// 1024² bytes), kB or MB (1000 and 1000²).
type Size int64

// Route says where the connections go that match.
type Route struct {
	// Name is what logs and metrics call the route, and what takers are told. It must be unique; auto and
	// none are taken. Without one it is made of the match: the first host and the path, or default.
	Name string `yaml:"name"`

	// Match is what connections the route is for. An empty one matches everything.
	Match Match `yaml:"match"`

	// Target is where they go. Its keys are keys of the route, and exactly one of handoff, proxy and reject
	// must be there.
	Target `yaml:",inline"`

	// Fallback is where a connection goes when the route's own target cannot be reached. It is a target of
	// its own, with the keys of one.
	Fallback *Target `yaml:"fallback"`
}

// Match is what a route wants of a connection. What is left out matches everything. Two routes cannot
// match the same.
type Match struct {
	// Host is a host name, or a list of them: exact (shop.example.com), a wildcard for any number of
	// labels (*.example.com, which is not example.com itself), or an IP address. It is compared with the
	// server name of TLS (SNI) or the Host of HTTP, both without port, in lower case and in Punycode.
	Host Strings `yaml:"host" min:"1"`

	// Path is what the path of the first HTTP request begins with, by whole segments: /api matches /api
	// and /api/x, not /apis. A connection over TLS has none that can be seen. Later requests on the same
	// connection go where the first one went. It makes no sense with a listener whose sniff is tls or none.
	Path string `yaml:"path"`

	// ALPN is a protocol that the client offers in its TLS ClientHello, as h2. It makes no sense with a
	// listener whose sniff is http or none.
	ALPN string `yaml:"alpn"`

	// Listener is the name of a listener.
	Listener string `yaml:"listener"`

	// From are networks (10.0.0.0/8), or single addresses, of clients.
	From []netip.Prefix `yaml:"from" min:"1"`
}

// Strings is a list of strings. In a file a single one may stand for a list of one.
type Strings []string

// Target is where connections go: one of handoff, proxy and reject, and the options of that one.
type Target struct {
	// Handoff is the endpoint of a taker, or a list of them: the one with the fewest offers under way comes
	// first, and the next one when a taker is gone, declines, or is slow. An endpoint is a plain name, of
	// letters, digits, '.', '-' and '_', or the path of a socket, or on Windows of a pipe.
	Handoff Strings `yaml:"handoff" min:"1"`

	// HandoffTimeout is how long one taker may take to claim a connection before the next is asked.
	HandoffTimeout time.Duration `yaml:"handoff_timeout" default:"5s" min:"1ms"`

	// Proxy is the address of a backend that cannot take connections, or a list of them: HOST:PORT, or
	// unix:PATH. The bytes are copied by the kernel.
	Proxy Strings `yaml:"proxy" min:"1"`

	// ConnectTimeout is how long one backend may take to accept a proxied connection before the next is
	// tried.
	ConnectTimeout time.Duration `yaml:"connect_timeout" default:"5s" min:"1ms"`

	// SendProxy is the version of the PROXY protocol header, v1 or v2, that a proxied backend is sent
	// first. Without it none is sent, and the backend sees the door as its client.
	SendProxy string `yaml:"send_proxy" enum:"v1,v2"`

	// Health says how the door finds out that a proxied backend is unfit.
	Health *Health `yaml:"health"`

	// Reject refuses the connection: HTTP gets a short answer, TLS an alert, anything else a reset.
	Reject bool `yaml:"reject"`
}

// Health says how the door finds out that a proxied backend is unfit. A backend that is gets no
// connections as long as another is fit.
type Health struct {
	// Interval is the time from one active check to the next. 0 switches active checks off.
	Interval time.Duration `yaml:"interval" default:"2s" min:"0s"`

	// Timeout is how long a check may take.
	Timeout time.Duration `yaml:"timeout" default:"1s" min:"1ms"`

	// Path makes the check an HTTP GET of this path, which has to be answered with a status below 400.
	// Without it the check is that the backend accepts a connection.
	Path string `yaml:"path"`

	// Host is the Host of that request. Without one it is the backend's address.
	Host string `yaml:"host"`

	// Rise is how many checks in a row must succeed before an unfit backend is fit again.
	Rise int `yaml:"rise" default:"2" min:"1"`

	// Fall is how many checks, or connections of clients, in a row must fail before a backend is unfit.
	Fall int `yaml:"fall" default:"3" min:"1"`

	// Cooldown is how long a backend that clients' connections found unfit stays so where there are no
	// active checks.
	Cooldown time.Duration `yaml:"cooldown" default:"10s" min:"1ms"`
}

// Endpoints says where the endpoints of takers are and who may serve them.
type Endpoints struct {
	// Dir is the folder of the sockets of plain names. Without it, it is the one that package usher uses:
	// $USHER_DIR, else /run/usher for root, else $XDG_RUNTIME_DIR/usher. Not used on Windows.
	Dir string `yaml:"dir"`

	// Users may serve any endpoint that is not pinned, besides the door's own user and root. They are names
	// or numbers; on Windows names or SIDs.
	Users []string `yaml:"users"`

	// Groups are groups whose members may do so, too.
	Groups []string `yaml:"groups"`

	// Pin gives endpoints to one user each, by the endpoint's name. No other user's process, not even
	// root's, is handed the connections of a pinned endpoint.
	Pin map[string]string `yaml:"pin"`
}

// Admin is where the door answers its operators: dashboard, JSON, metrics, health, profiles. In a file a
// single string may stand for its address.
type Admin struct {
	// Address is HOST:PORT, unix:PATH, or systemd:NAME. HOST must be a loopback address unless
	// allow_remote says otherwise: whoever can connect can see everything.
	Address string `yaml:"address" required:"true" alone:"true"`

	// AllowRemote allows an address that other machines can reach.
	AllowRemote bool `yaml:"allow_remote"`
}

// Log says what is written to standard error.
type Log struct {
	// Level is the least that is logged: debug, info, warn or error.
	Level string `yaml:"level" default:"info" enum:"debug,info,warn,error"`

	// Format is text or json.
	Format string `yaml:"format" default:"text" enum:"text,json"`

	// Access logs a line for each connection when it is known where it goes, and another when a connection
	// that was handed over or proxied has ended.
	Access bool `yaml:"access" default:"true"`
}
