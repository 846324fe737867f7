package bench

import (
	"context"
	"errors"
)

// Contender is a way for a client's connections to reach a backend.
type Contender struct {
	Name     string // in results: "haproxy-tcp"
	Title    string // for people: "HAProxy, TCP with inspection"
	Baseline string // the contender that its ratios are to; empty if it is one itself

	// Start starts its processes anew, on free ports of the loopback address, and returns when they serve.
	// An error that is ErrAbsent says that it cannot take part on this machine.
	Start func(context.Context) (*Running, error)
}

// ErrAbsent is in the chain of errors of a contender that cannot take part here, as when its program is not
// installed.
var ErrAbsent = errors.New("cannot take part")

// Running is a contender whose processes run.
type Running struct {
	HTTP string // the address where clients connect and speak HTTP
	TLS  string // the address where they speak TLS; empty if it has none

	// Hosts are what clients ask for, one after the other; Host alone if it is empty. Workloads connect and
	// saturation ask so, the others always for Host.
	Hosts []string

	// The process in front, with all its workers, and the backend behind it. Door is empty for one that
	// clients connect to directly.
	Door, Backend []int // process IDs

	// Stop ends all processes and waits for them.
	Stop func()
}

// The backend answers to these, over HTTP and TLS alike. Every contender has the same one, but for those whose
// program is both door and backend.
const (
	// Host is what clients ask for, in the Host header and as the server name in TLS.
	Host = "bench.example.com"

	// PathSmall answers with SmallBody, PathBulk+"N" with N bytes.
	PathSmall = "/"
	PathBulk  = "/bulk/"
	SmallBody = "ok\n"
)
