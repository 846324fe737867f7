package main

import (
	"flag"
	"fmt"
	"net"
	"path/filepath"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

// playBackend serves on two TCP addresses, for HTTP and TLS, which it says; and, if told to, at endpoints of usher,
// and with what the minimal giver in C passes.
func playBackend(args []string) error {
	flags := flag.NewFlagSet("backend", flag.ExitOnError)
	http := flags.String("http", "127.0.0.1:0", "`ADDRESS` for HTTP, which other backends may have too if it has a port")
	endpoint := flags.String("endpoint", "", "take offers at NAME-http and NAME-tls")
	passed := flags.String("passed", "", "take descriptors at the sockets `DIR`/http.passed and DIR/tls.passed")
	flags.Parse(args)

	go processes.EndWithStdin()
	failed := make(chan error)
	serve := func(l net.Listener) { failed <- bench.Serve(l) }
	serveTLS := func(l net.Listener) { failed <- bench.ServeTLS(l) }

	plain, err := listenShared(*http)
	if err != nil {
		return err
	}
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go serve(plain)
	go serveTLS(secure)
	if *endpoint != "" {
		l, err := usher.Listen(*endpoint + "-http")
		if err != nil {
			return err
		}
		go serve(l)
		if l, err = usher.Listen(*endpoint + "-tls"); err != nil {
			return err
		}
		go serveTLS(l)
	}
	if *passed != "" {
		l, err := listenPassed(filepath.Join(*passed, "http.passed"))
		if err != nil {
			return err
		}
		go serve(l)
		if l, err = listenPassed(filepath.Join(*passed, "tls.passed")); err != nil {
			return err
		}
		go serveTLS(l)
	}
	fmt.Println(plain.Addr(), secure.Addr())
	return <-failed
}

// backend starts a backend of the contender's own.
func (c *crew) backend(args ...string) (p *processes.Process, http, tls string, err error) {
	p, said, err := c.Play("backend", nil, args...)
	if err != nil {
		return nil, "", "", err
	}
	if len(said) != 2 {
		return nil, "", "", fmt.Errorf("the backend said %q, not two addresses", said)
	}
	return p, said[0], said[1], nil
}
