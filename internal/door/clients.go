package door

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// clients counts what each client address has at the door. Its zero value is ready.
type clients struct {
	mu      sync.Mutex
	counts  map[netip.Addr]*client
	sweepAt int // how many there are when those that nobody needs are thrown away
}

type client struct {
	open int
	rate *rate.Limiter // nil until there is a limit
}

// minSweep is how many addresses are kept before any is looked at again.
const minSweep = 1024

// add counts one more connection of an address, or says which limit forbids it. What was added has to be
// removed.
func (cs *clients) add(a netip.Addr, perIP, perIPRate int) (refused string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.of(a)
	if c.open >= perIP {
		return "its address has as many connections at the door as per_ip allows"
	}
	if perIPRate > 0 {
		if c.rate == nil || c.rate.Burst() != perIPRate {
			c.rate = rate.NewLimiter(rate.Limit(perIPRate), perIPRate)
		}
		if !c.rate.Allow() {
			return "its address makes more connections a second than per_ip_rate allows"
		}
	}
	c.open++
	return ""
}

// readmit is add for a connection that was admitted before, and has come back: whatever the limits say.
func (cs *clients) readmit(a netip.Addr) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.of(a).open++
}

// of is called with cs.mu held.
func (cs *clients) of(a netip.Addr) *client {
	a = block(a)
	if c := cs.counts[a]; c != nil {
		return c
	}
	return cs.newClient(a)
}

func (cs *clients) newClient(a netip.Addr) *client {
	if cs.counts == nil {
		cs.counts, cs.sweepAt = make(map[netip.Addr]*client), minSweep
	}
	if len(cs.counts) >= cs.sweepAt {
		cs.sweep()
		cs.sweepAt = max(minSweep, 2*len(cs.counts))
	}
	c := new(client)
	cs.counts[a] = c
	return c
}

// sweep forgets addresses that have no connection and could make a whole burst of them.
func (cs *clients) sweep() {
	now := time.Now()
	for a, c := range cs.counts {
		if c.idle(now) {
			delete(cs.counts, a)
		}
	}
}

func (c *client) idle(now time.Time) bool {
	return c.open == 0 && (c.rate == nil || c.rate.TokensAt(now) >= float64(c.rate.Burst()))
}

func (cs *clients) remove(a netip.Addr) {
	a = block(a)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.counts[a].open-- // it is kept until there are many, for most come again
}

// block is what counts as one client: an address, or of IPv6 the /64 that one customer has at least.
func block(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is4() {
		return a
	}
	p, _ := a.WithZone("").Prefix(64)
	return p.Addr()
}

// networks are some networks.
type networks []netip.Prefix

func (ns networks) contain(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, n := range ns {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// addrPort returns the address of a TCP connection, IPv4 as such. It is not valid for a connection that has
// ended so early that the kernel has forgotten its address.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
