//go:build darwin || freebsd || linux || netbsd || openbsd

package sys

import (
	"net/netip"
	"testing"
)

func TestWithZone(t *testing.T) {
	for _, test := range []struct {
		name, addr string
		zone       uint32
		want       string
	}{
		{"IPv4 has none", "127.0.0.1", 0, "127.0.0.1"},
		{"IPv4 in IPv6 is IPv4", "::ffff:192.0.2.1", 0, "192.0.2.1"},
		{"and has no zone either", "::ffff:192.0.2.1", 1, "192.0.2.1"},
		{"IPv6 without", "2001:db8::1", 0, "2001:db8::1"},
		{"an interface that has gone keeps its number", "fe80::1", 1 << 30, "fe80::1%1073741824"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := withZone(netip.MustParseAddr(test.addr), test.zone); got.String() != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
