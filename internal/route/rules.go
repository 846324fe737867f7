package route

import (
	"cmp"
	"net/netip"
	"slices"
)

// index is the index of a match plus one, so that its zero value is none.
type index int

const ambiguous index = Ambiguous + 1 // negative; a match has a positive one

// rules are the routes of one host and path.
type rules struct {
	alpn map[string]*listeners
	any  listeners
}

func (r *rules) route(q *Query) index {
	if r.alpn != nil { // do not look at the list, of any length, that a client has sent
		for _, protocol := range q.ALPN {
			if i := r.alpn[protocol].route(q); i != 0 {
				return i
			}
		}
	}
	return r.any.route(q)
}

// grow returns the networks for an ALPN and a listener, which it makes if need be.
func (r *rules) grow(alpn, listener string) *networks {
	if alpn == "" {
		return r.any.grow(listener)
	}
	if r.alpn == nil {
		r.alpn = make(map[string]*listeners)
	}
	if r.alpn[alpn] == nil {
		r.alpn[alpn] = new(listeners)
	}
	return r.alpn[alpn].grow(listener)
}

// listeners are those that also agree on the ALPN.
type listeners struct {
	named map[string]*networks
	any   networks
}

func (l *listeners) route(q *Query) index {
	if l == nil {
		return 0
	}
	if i := l.named[q.Listener].route(q.Client); i != 0 {
		return i
	}
	return l.any.route(q.Client)
}

func (l *listeners) grow(listener string) *networks {
	if listener == "" {
		return &l.any
	}
	if l.named == nil {
		l.named = make(map[string]*networks)
	}
	if l.named[listener] == nil {
		l.named[listener] = new(networks)
	}
	return l.named[listener]
}

// networks are those that differ only in the client's network.
type networks struct {
	from   map[netip.Prefix]index
	v4, v6 []int // the lengths of the prefixes in from, longest first
	any    index
}

func (n *networks) route(client netip.Addr) index {
	if n == nil {
		return 0
	}
	if n.from == nil {
		return n.any
	}
	client = client.Unmap()
	lengths := n.v6
	if client.Is4() {
		lengths = n.v4
	}
	for _, bits := range lengths {
		network, _ := client.Prefix(bits) // not valid, and so not in from, if client is not
		if i := n.from[network]; i != 0 {
			return i
		}
	}
	return n.any
}

// add adds a network, or every client if it is the zero Prefix, unless it is there: then it returns whose it
// is.
func (n *networks) add(network netip.Prefix, i index) (earlier index) {
	if !network.IsValid() {
		if n.any == 0 {
			n.any = i
		}
		return n.any
	}
	if n.from == nil {
		n.from = make(map[netip.Prefix]index)
	}
	if earlier := n.from[network]; earlier != 0 {
		return earlier
	}
	n.from[network] = i
	lengths := &n.v6
	if network.Addr().Is4() {
		lengths = &n.v4
	}
	if at, found := slices.BinarySearchFunc(*lengths, network.Bits(), longestFirst); !found {
		*lengths = slices.Insert(*lengths, at, network.Bits())
	}
	return i
}

func longestFirst(a, b int) int { return cmp.Compare(b, a) }
