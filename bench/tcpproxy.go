package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
	"github.com/inetaf/tcpproxy"
)

// startTCPProxy has inetaf/tcpproxy, a library, copy, in a process of its own.
func startTCPProxy(_ context.Context, c *crew) (*bench.Running, error) {
	backend, http, tls, err := c.backend()
	if err != nil {
		return nil, err
	}
	r := &bench.Running{Backend: []int{backend.Pid}}
	if r.HTTP, r.TLS, err = processes.FreeAddresses(); err != nil {
		return nil, err
	}
	p, _, err := c.Play("tcpproxy", nil, r.HTTP, http, r.TLS, tls)
	if err != nil {
		return nil, err
	}
	r.Door = []int{p.Pid}
	return r, nil
}

// playTCPProxy is as its documentation has it: routes by host and by server name to addresses.
func playTCPProxy(args []string) error {
	if len(args) != 4 {
		return errors.New("usage: tcpproxy HTTP HTTP-BACKEND TLS TLS-BACKEND")
	}
	go processes.EndWithStdin()
	var p tcpproxy.Proxy
	p.AddHTTPHostRoute(args[0], bench.Host, tcpproxy.To(args[1]))
	p.AddSNIRoute(args[2], bench.Host, tcpproxy.To(args[3]))
	if err := p.Start(); err != nil {
		return err
	}
	fmt.Println("ready")
	return p.Wait()
}
