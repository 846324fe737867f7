// Hello is a web server that takes its connections from a front door: run it with the name of its endpoint,
// as "hello shop", beside "usher serve". On SIGTERM or SIGINT, and when another process replaces it, it takes
// no more, answers the requests that it has, hands on the connections that stay open, and ends. A second signal ends it at once.
package main

import (
	"context"
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
	if len(os.Args) != 2 {
		log.Fatal("usage: hello ENDPOINT")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the process at once
	// Replace lets a new version start while the old one runs: no connection finds nobody.
	l, err := (&usher.ListenConfig{Replace: true}).Listen(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if err := usherhttp.Serve(ctx, l, &http.Server{Handler: http.HandlerFunc(hello)}); err != nil {
		log.Fatal(err)
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello %s, this is %s (process %d), and you asked for %s%s.\n", r.RemoteAddr, os.Args[1], os.Getpid(), r.Host, r.URL.Path)
}
