package main

import (
	"context"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

// haproxyConfig is what goes into rivals/haproxy-*.cfg.
type haproxyConfig struct {
	MaxConn                 int
	HTTP, TLS               string // addresses
	HTTPBackend, TLSBackend string
	Host                    string
}

// startHAProxyTCP has HAProxy copy, by the server name of TLS or the Host of HTTP.
func startHAProxyTCP(_ context.Context, c *crew) (*bench.Running, error) {
	return c.haproxy("haproxy-tcp.cfg", true)
}

// startHAProxyHTTP has HAProxy be an HTTP proxy. It is not asked to end TLS.
func startHAProxyHTTP(_ context.Context, c *crew) (*bench.Running, error) {
	return c.haproxy("haproxy-http.cfg", false)
}

func (c *crew) haproxy(name string, tls bool) (*bench.Running, error) {
	program, err := processes.Installed("haproxy")
	if err != nil {
		return nil, err
	}
	backend, http, tlsAddress, err := c.backend()
	if err != nil {
		return nil, err
	}
	// It does not start unless it may have two descriptors for each connection, two for each pipe, and some more.
	d := haproxyConfig{MaxConn: min(20000, (processes.Descriptors()-700)/2), HTTPBackend: http, TLSBackend: tlsAddress, Host: bench.Host}
	if d.HTTP, d.TLS, err = processes.FreeAddresses(); err != nil {
		return nil, err
	}
	config, err := c.write(name, d)
	if err != nil {
		return nil, err
	}
	p, err := c.Start(program, "-db", "-f", config)
	if err != nil {
		return nil, err
	}
	r := &bench.Running{HTTP: d.HTTP, Door: []int{p.Pid}, Backend: []int{backend.Pid}}
	if tls {
		r.TLS = d.TLS
	}
	return r, nil
}
