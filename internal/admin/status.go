// Package admin is the door's side that faces its operators: status, metrics, health, profiles and the
// dashboard, over HTTP. All that it tells is in a [Status], which the door makes when it is asked.
package admin

import "time"

// Status is what the door tells about itself. Its JSON form, at /status.json, is a public contract: names
// are added, not changed.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Now     time.Time `json:"now"`
	Started time.Time `json:"started"`

	// Ready means that every listener listens and the door does not drain.
	Ready bool `json:"ready"`
	// NotReady says why not.
	NotReady string `json:"not_ready,omitempty"`
	Draining bool   `json:"draining,omitempty"`

	Config    ConfigStatus     `json:"config"`
	Listeners []ListenerStatus `json:"listeners"`
	Routes    []RouteStatus    `json:"routes"`
	Endpoints []EndpointStatus `json:"endpoints"`
	Upstreams []UpstreamStatus `json:"upstreams"`

	// Refusals are the most recent connections that no target got, newest first.
	Refusals []Refusal `json:"refusals"`
}

// ConfigStatus is about the configuration file.
type ConfigStatus struct {
	// Path is empty where there is no file.
	Path string `json:"path,omitempty"`
	// Loaded is when the configuration in force was loaded.
	Loaded time.Time `json:"loaded"`
	// Reloads counts the tries to load it anew, Failures those of them that failed.
	Reloads  uint64 `json:"reloads"`
	Failures uint64 `json:"failures"`
	// Error is why the last try failed; empty if it did not.
	Error string `json:"error,omitempty"`
}

// ListenerStatus is about a listener.
type ListenerStatus struct {
	Name    string `json:"name"`
	Address string `json:"address"` // where it really listens: with the port that the system chose
	Sniff   string `json:"sniff"`
	// Error is why it does not listen.
	Error string `json:"error,omitempty"`

	Accepted uint64 `json:"accepted"`
	// AcceptErrors counts failures to accept, as for want of descriptors.
	AcceptErrors uint64 `json:"accept_errors"`
	// Peeking and Open are connections now: in the peek phase, and all that are still the door's.
	Peeking int `json:"peeking"`
	Open    int `json:"open"`
	// Peek is how long connections were in the peek phase.
	Peek Histogram `json:"peek"`
}

// RouteStatus is about a route. Two are always there and have no match: "auto" for auto routes, if they
// are on, and "none" for connections that never had a route.
type RouteStatus struct {
	Name   string `json:"name"`
	Match  string `json:"match"`  // in words, as "shop.example.com/api/"
	Target string `json:"target"` // in words, as "handoff shop, blog"

	// Connections counts them by listener and outcome.
	Connections []Count `json:"connections"`
	// Handover is how long it took to hand connections over, from the route's choice to the taker's claim.
	Handover Histogram `json:"handover"`

	// Ended counts the connections, handed over or proxied, whose end the door has heard of, with the bytes
	// that clients sent and received on them and how long they lasted.
	Ended    uint64    `json:"ended"`
	Received uint64    `json:"received_bytes"` // from clients
	Sent     uint64    `json:"sent_bytes"`     // to clients
	Lifetime Histogram `json:"lifetime"`
}

// Count is a number of connections of a route.
type Count struct {
	Listener string  `json:"listener"` // empty for what a taker has given back and no listener can have accepted
	Outcome  Outcome `json:"outcome"`
	N        uint64  `json:"n"`
}

// Outcome is what became of a connection at the door.
type Outcome string

// The outcomes. All but the first three are refusals.
const (
	HandedOver  Outcome = "handed_over" // a taker has claimed it
	Proxied     Outcome = "proxied"     // a backend that cannot take got it, and the door copies
	Idle        Outcome = "idle"        // a taker gave it back between two requests, and its client made no other
	Rejected    Outcome = "rejected"    // the route says so
	NoRoute     Outcome = "no_route"    // nothing matches
	Unavailable Outcome = "unavailable" // no taker and no backend of the route, nor of its fallback, could be reached
	Malformed   Outcome = "malformed"   // the first bytes break the rules of their protocol
	TooLong     Outcome = "too_long"    // more first bytes than peek_bytes would be needed
	Timeout     Outcome = "timeout"     // they did not come within peek_timeout
	Gone        Outcome = "gone"        // the client left before it had said what it wants
	Limited     Outcome = "limited"     // per_ip or per_ip_rate
	Evicted     Outcome = "evicted"     // it was the oldest when there were more than peeking, or no descriptors left
	Failed      Outcome = "failed"      // the door itself failed: out of descriptors, as a rule
	ShutDown    Outcome = "shut_down"   // the door ended before it was known where it goes
)

// EndpointStatus is about an endpoint that a route names, or that an auto route has used.
type EndpointStatus struct {
	Name string `json:"name"`
	Path string `json:"path"` // of its socket or pipe
	// State is "up" when a taker is connected, "idle" when one seems to listen and none was needed yet,
	// "absent" when none listens, "refused" when who listens may not, or the last try failed.
	State string `json:"state"`
	Error string `json:"error,omitempty"` // the last failure, while there is no taker

	Takers []TakerStatus `json:"takers"` // those connected
	// Claimed, Declined and Withdrawn count offers since the door has started, of all takers that there were.
	// Withdrawn are those that a taker did not answer in time, or that its end left open.
	Claimed   uint64 `json:"claimed"`
	Declined  uint64 `json:"declined"`
	Withdrawn uint64 `json:"withdrawn"`
	// Returned are connections that takers have given back.
	Returned uint64 `json:"returned"`
}

// TakerStatus is about a process that takes connections at an endpoint.
type TakerStatus struct {
	PID  int    `json:"pid"`
	User string `json:"user"`
	// Open are the offers that it has not answered yet.
	Open int `json:"open"`
}

// UpstreamStatus is about a backend to which connections are proxied.
type UpstreamStatus struct {
	Route   string `json:"route"`
	Address string `json:"address"`
	Healthy bool   `json:"healthy"`
	// Open are the connections proxied to it now.
	Open        int    `json:"open"`
	Connections uint64 `json:"connections"`
	Failures    uint64 `json:"failures"` // to connect, of clients' connections
	Checks      uint64 `json:"checks"`
	FailedCheck uint64 `json:"failed_checks"`
	Error       string `json:"error,omitempty"` // the last failure, while it is unfit
}

// Refusal is a connection that no target got.
type Refusal struct {
	Time     time.Time `json:"time"`
	Client   string    `json:"client"`
	Listener string    `json:"listener"`
	Host     string    `json:"host,omitempty"`
	Route    string    `json:"route,omitempty"`
	Outcome  Outcome   `json:"outcome"`
	Reason   string    `json:"reason"`
}
