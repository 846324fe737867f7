// Tls is a web server that takes TLS connections from a front door, which has seen the server name in them and
// nothing else: certificate and key are here. Run it as "tls ENDPOINT CERT KEY" beside "usher serve". It ends as hello
// does, but for the connections that stay open: those are closed, since their keys are here.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/usherhttp"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: tls ENDPOINT CERT KEY")
	}
	cert, err := tls.LoadX509KeyPair(os.Args[2], os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the process at once
	l, err := (&usher.ListenConfig{Replace: true}).Listen(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(hello), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	if err := usherhttp.Serve(ctx, l, s); err != nil {
		log.Fatal(err)
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello %s, this is %s over %s, and you asked for %s%s.\n", r.RemoteAddr, os.Args[1], r.Proto, r.Host, r.URL.Path)
}
