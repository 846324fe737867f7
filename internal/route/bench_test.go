package route

import (
	"fmt"
	"net/netip"
	"testing"
)

var sizes = []int{10, 1_000, 10_000, 100_000}

func exactHosts(n int) (list []Match) {
	for i := range n {
		list = append(list, Match{Hosts: hosts(fmt.Sprintf("shop-%d.example.com", i))})
	}
	return list
}

func wildcardHosts(n int) (list []Match) {
	for i := range n {
		list = append(list, Match{Hosts: hosts(fmt.Sprintf("*.shop-%d.example.com", i))})
	}
	return list
}

func pathsOfOneHost(n int) (list []Match) {
	for i := range n {
		list = append(list, Match{Hosts: hosts("example.com"), Path: fmt.Sprintf("/api/v1/shop-%d/", i)})
	}
	return list
}

func networksOfOneHost(n int) (list []Match) {
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		list = append(list, Match{Hosts: hosts("example.com"), From: []netip.Prefix{netip.PrefixFrom(addr, 32)}})
	}
	return list
}

func BenchmarkLookup(b *testing.B) {
	client := netip.MustParseAddr("10.0.0.7")
	for _, kind := range []struct {
		name    string
		matches func(int) []Match
		query   Query
		want    int
	}{
		{"exact host", exactHosts, Query{Host: "shop-7.example.com", ALPN: []string{"h2", "http/1.1"}}, 7},
		{"wildcard host", wildcardHosts, Query{Host: "www.shop-7.example.com", ALPN: []string{"h2", "http/1.1"}}, 7},
		{"many paths on one host", pathsOfOneHost, Query{Host: "example.com", Path: "/api/v1/shop-7/orders/12345"}, 7},
		{"many paths on one host, encoded", pathsOfOneHost, Query{Host: "example.com", Path: "/%61pi/v1/shop%2D7/orders/12345"}, 7},
		{"many networks on one host", networksOfOneHost, Query{Host: "example.com", Client: client}, 7},
		{"no match among exact hosts", exactHosts, Query{Host: "www.shop.example.org", Path: "/index.html"}, None},
		{"no match among wildcard hosts", wildcardHosts, Query{Host: "www.shop.example.org", Path: "/index.html"}, None},
	} {
		for _, n := range sizes {
			table := newTable(b, kind.matches(n)...)
			b.Run(fmt.Sprintf("%s/%d", kind.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if i, _ := table.Lookup(&kind.query); i != kind.want {
						b.Fatalf("Lookup = %d; want %d", i, kind.want)
					}
				}
			})
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for _, kind := range []struct {
		name    string
		matches func(int) []Match
	}{
		{"exact hosts", exactHosts},
		{"wildcard hosts", wildcardHosts},
		{"many paths on one host", pathsOfOneHost},
		{"many networks on one host", networksOfOneHost},
	} {
		for _, n := range sizes {
			matches := kind.matches(n)
			b.Run(fmt.Sprintf("%s/%d", kind.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					newTable(b, matches...)
				}
			})
		}
	}
}
