package sniff

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
)

// maxHost is the longest domain name there is.
const maxHost = 253

// hostName normalises host[:port].
func hostName(b []byte) (string, error) {
	if len(b) > 0 && b[0] == '[' {
		return literalV6(b)
	}
	host, port, found := bytes.Cut(b, []byte(":"))
	if found && !isPort(port) {
		return "", errHost
	}
	return domainName(host)
}

// domainName normalises a host name or an IPv4 address, without port.
func domainName(host []byte) (string, error) {
	host = bytes.TrimSuffix(host, []byte("."))
	if len(host) == 0 || len(host) > maxHost {
		return "", errHost
	}
	previous := byte('.')
	for _, c := range host {
		if !isHostByte(c) || (c == '.' && previous == '.') {
			return "", errHost
		}
		previous = c
	}
	if previous == '.' {
		return "", errHost
	}
	return strings.ToLower(string(host)), nil
}

// literalV6 normalises [address][:port], so that no other spelling of an address slips past a route.
func literalV6(b []byte) (string, error) {
	text, rest, found := bytes.Cut(b[1:], []byte("]"))
	if !found {
		return "", errHost
	}
	if len(rest) > 0 && (rest[0] != ':' || !isPort(rest[1:])) {
		return "", errHost
	}
	return addressV6(text)
}

// addressV6 normalises an IPv6 address that has neither brackets nor port.
func addressV6(text []byte) (string, error) {
	addr, err := netip.ParseAddr(string(text))
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return "", errHost
	}
	return addr.String(), nil
}

// isPort also takes the empty port that RFC 3986 allows after a colon.
func isPort(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	for _, c := range b {
		if !isDigit(c) {
			return false
		}
	}
	_, err := strconv.ParseUint(string(b), 10, 16)
	return err == nil
}

// isHostByte leaves out what RFC 3986 allows but no host in use has: percent-encoding, "!$&'()*+,;=~". All of it is trouble in the name
// of an endpoint.
func isHostByte(c byte) bool {
	return isLetter(c) || isDigit(c) || c == '-' || c == '_' || c == '.'
}
