package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"runtime"
	"strconv"
	"strings"

	"github.com/go-usher/usher/internal/route"
)

// hostPort is an address with its host in normal form: empty for all addresses of the machine, which are
// also 0.0.0.0 and [::], as package net listens.
type hostPort struct {
	host string
	port uint16
}

func parseHostPort(s string) (hostPort, error) {
	host, port, err := net.SplitHostPort(s)
	if addrErr := (*net.AddrError)(nil); errors.As(err, &addrErr) {
		return hostPort{}, fmt.Errorf("%q is not HOST:PORT, or [IPV6]:PORT: %s", s, addrErr.Err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return hostPort{}, fmt.Errorf("%q has the port %q: it must be a number up to 65535", s, port)
	}
	host, err = normalizeAddressHost(host)
	if err != nil {
		return hostPort{}, fmt.Errorf("%q: %w", s, err)
	}
	return hostPort{host, uint16(n)}, nil
}

func normalizeAddressHost(host string) (string, error) {
	if host == "" {
		return "", nil
	}
	if host == "*" {
		return "", errors.New("for all addresses leave the host out")
	}
	addr, err := netip.ParseAddr(host) // with a zone, which no route could have
	if err != nil {
		return route.NormalizeHost(host)
	}
	if addr.IsUnspecified() {
		return "", nil
	}
	return addr.Unmap().String(), nil
}

// isLoopback tells whether only this machine can connect, as far as the address alone shows.
func (a hostPort) isLoopback() bool {
	if a.host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(a.host)
	return err == nil && addr.IsLoopback()
}

// place is where something listens, in a form in which equal places are equal.
type place string

// listens parses the address of a listener, or, with unixToo, that of the admin.
func listens(s string, unixToo bool) (at place, addr hostPort, err error) {
	if name, ok := strings.CutPrefix(s, "systemd:"); ok {
		return place(s), hostPort{}, checkSystemdName(name)
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !unixToo {
			return "", hostPort{}, fmt.Errorf("%q: clients come over TCP, so it must be HOST:PORT or systemd:NAME", s)
		}
		if path == "" {
			return "", hostPort{}, fmt.Errorf("%q has no path", s)
		}
		return place(s), hostPort{}, nil
	}
	addr, err = parseHostPort(s)
	if err != nil {
		return "", hostPort{}, err
	}
	if addr.port == 0 {
		return "", addr, nil // another one each time
	}
	return place(net.JoinHostPort(addr.host, strconv.Itoa(int(addr.port)))), addr, nil
}

// checkSystemdName follows FileDescriptorName= in systemd.socket(5).
func checkSystemdName(name string) error {
	if name == "" || len(name) > 255 {
		return fmt.Errorf("%q cannot be the name of a socket: it has %d characters, of 1 to 255", name, len(name))
	}
	for _, r := range name {
		if r <= ' ' || r >= 0x7f || r == ':' {
			return fmt.Errorf("%q cannot be the name of a socket: it has %q", name, r)
		}
	}
	return nil
}

// checkBackend checks where a proxied connection goes.
func checkBackend(s string) error {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" {
			return fmt.Errorf("%q has no path", s)
		}
		return nil
	}
	host, _, _ := net.SplitHostPort(s)
	addr, err := parseHostPort(s)
	if err != nil {
		return err
	}
	if host == "" {
		return fmt.Errorf("%q has no host", s)
	}
	if addr.port == 0 {
		return fmt.Errorf("%q has port 0, to which nothing can connect", s)
	}
	return nil
}

// checkCheckPath refuses a path that a check could not ask for: it would find every backend unfit.
func checkCheckPath(s string) error {
	if !strings.HasPrefix(s, "/") {
		return fmt.Errorf("%q does not start with a slash", s)
	}
	if strings.Contains(s, " ") {
		return fmt.Errorf("%q has a space, and would not be one word of a request", s)
	}
	if strings.Contains(s, "#") {
		return fmt.Errorf("%q has a fragment, which is never sent", s)
	}
	if _, err := url.ParseRequestURI(s); err != nil {
		return fmt.Errorf("%q is no path of a URL: %w", s, errors.Unwrap(err))
	}
	return nil
}

// checkCheckHost does so for a Host, which may have a port.
func checkCheckHost(s string) error {
	if host, port, err := net.SplitHostPort(s); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fmt.Errorf("%q has the port %q: it must be a number up to 65535", s, port)
		}
		_, err := route.NormalizeHost(host)
		return err
	}
	_, err := route.NormalizeHost(s)
	return err
}

// maxEndpoint is package ipc's.
const maxEndpoint = 253

// checkEndpoint refuses what package ipc would refuse on this kind of system, for a reason that is in the
// name itself. How long a path may be depends on the folder of plain names, too, and is left to ipc.
func checkEndpoint(s string) error {
	if isEndpointPath(s) {
		if runtime.GOOS == "windows" && !isPipe(s) {
			return fmt.Errorf(`%q is not the path of a pipe, which starts with \\.\pipe\`, s)
		}
		return nil
	}
	if len(s) > maxEndpoint {
		return fmt.Errorf("the endpoint's name has %d bytes, the most is %d", len(s), maxEndpoint)
	}
	if s == "" {
		return errors.New("an endpoint without a name")
	}
	if s[0] == '.' || s[0] == '-' {
		return fmt.Errorf("%q cannot be an endpoint: it starts with %q", s, s[0])
	}
	for _, r := range s {
		if !isWord(string(r)) && r != '.' {
			return fmt.Errorf("%q cannot be an endpoint: it has %q; a plain name has letters, digits, '.', '-' and '_'", s, r)
		}
	}
	return nil
}

func isEndpointPath(s string) bool {
	return strings.Contains(s, "/") || runtime.GOOS == "windows" && strings.Contains(s, `\`)
}

func isPipe(s string) bool {
	const prefix = `\\.\pipe\`
	s = strings.ReplaceAll(s, "/", `\`)
	return len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
