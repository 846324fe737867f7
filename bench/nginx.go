package main

import (
	"context"
	"os"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

// nginxConfig is what goes into rivals/nginx-*.conf.
type nginxConfig struct {
	Root                    bool   // it runs as root, and has to be told to stay so
	Module                  string // of the stream, where that is a file of its own
	HTTP, TLS               string // addresses
	HTTPBackend, TLSBackend string
	Host                    string
}

// startNginxStream has nginx copy, by the server name of TLS.
func startNginxStream(_ context.Context, c *crew) (*bench.Running, error) {
	return c.nginx("nginx-stream.conf", true, true)
}

// startNginxHTTP has nginx be the proxy that most of them are. It is not asked to end TLS.
func startNginxHTTP(_ context.Context, c *crew) (*bench.Running, error) {
	return c.nginx("nginx-http.conf", false, false)
}

func (c *crew) nginx(name string, stream, tls bool) (*bench.Running, error) {
	program, err := processes.Installed("nginx")
	if err != nil {
		return nil, err
	}
	d := nginxConfig{Root: os.Geteuid() == 0, Host: bench.Host}
	if stream {
		if d.Module, err = processes.NginxStreamModule(program); err != nil {
			return nil, err
		}
	}
	backend, http, tlsAddress, err := c.backend()
	if err != nil {
		return nil, err
	}
	d.HTTPBackend, d.TLSBackend = http, tlsAddress
	if d.HTTP, d.TLS, err = processes.FreeAddresses(); err != nil {
		return nil, err
	}
	config, err := c.write(name, d)
	if err != nil {
		return nil, err
	}
	master, err := c.Start(program, "-p", c.Dir, "-c", config, "-e", "stderr")
	if err != nil {
		return nil, err
	}
	workers, err := master.Workers()
	if err != nil {
		return nil, err
	}
	r := &bench.Running{HTTP: d.HTTP, Door: append([]int{master.Pid}, workers...), Backend: []int{backend.Pid}}
	if tls {
		r.TLS = d.TLS
	}
	return r, nil
}
