//go:build linux

package main

import (
	"net"
	"os"

	"github.com/go-usher/usher/bench/internal/processes"
)

// listen opens the sockets at which clients connect. Whatever is in front is passed them whenever it is started.
func (r *running) listen() (err error) {
	r.sockets, r.http, r.tls, err = r.listenTwice()
	return err
}

// listenTwice opens two listening sockets, one for HTTP and one for TLS, and returns their addresses as well. They are open
// to the end: clients can connect, and wait, whether or not anybody else has them.
func (r *running) listenTwice() (files []*os.File, http, tls string, err error) {
	if http, tls, err = processes.FreeAddresses(); err != nil {
		return nil, "", "", err
	}
	for _, address := range []string{http, tls} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, "", "", err
		}
		f, err := l.(*net.TCPListener).File()
		l.Close() // f is a descriptor of its own
		if err != nil {
			return nil, "", "", err
		}
		files = append(files, f)
		r.open = append(r.open, f)
	}
	return files, http, tls, nil
}
