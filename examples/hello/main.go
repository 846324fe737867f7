// Hello is a web server that takes its connections from a front door: run it with the name of its endpoint,
// as "hello shop", beside "usher serve". On SIGTERM or SIGINT it takes no more, finishes what it has, and ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-usher/usher"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: hello ENDPOINT")
	}
	// Replace lets a new version start while the old one runs: no connection finds nobody.
	lc := usher.ListenConfig{Replace: true}
	l, err := lc.Listen(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(hello)}
	go shutDownOnSignal(s)
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, usher.ErrReplaced) {
		log.Fatal(err)
	}
	// Both Serve and a shutdown under way return before the last request is answered.
	if err := s.Shutdown(context.Background()); err != nil && !errors.Is(err, net.ErrClosed) {
		log.Fatal(err)
	}
	l.Shutdown(context.Background()) // the door hears how the last connection ended
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello %s, this is %s (process %d), and you asked for %s%s.\n", r.RemoteAddr, os.Args[1], os.Getpid(), r.Host, r.URL.Path)
}

func shutDownOnSignal(s *http.Server) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	<-signals
	s.Shutdown(context.Background())
}
