package upstream

import (
	"net"

	"github.com/pires/go-proxyproto"
)

// proxyHeader is the PROXY protocol header for a client's connection. If the families of its addresses
// differ, as they may behind another proxy, the IPv4 one is written as IPv6 (::ffff:192.0.2.1). If either is
// not known the header says so, and the backend takes the door's address for the client's.
//
// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
func proxyHeader(version string, from Addresses) []byte {
	return encode(version, net.TCPAddrFromAddrPort(from.Client), net.TCPAddrFromAddrPort(from.Local))
}

// checkHeader is the header for a connection that is not for a client: LOCAL in version 2, UNKNOWN in
// version 1. Without it the backend would log a check as a broken connection.
func checkHeader(version string) []byte { return encode(version, nil, nil) }

func encode(version string, source, destination net.Addr) []byte {
	number := byte(2)
	switch version {
	case "":
		return nil
	case "v1":
		number = 1
	}
	b, err := proxyproto.HeaderProxyFromAddrs(number, source, destination).Format()
	if err != nil {
		panic("upstream: a PROXY protocol header cannot be made: " + err.Error()) // no address leads here
	}
	return b
}
