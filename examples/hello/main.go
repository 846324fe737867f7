// Hello is a web server that takes its connections from a front door: run it with the name of its endpoint,
// as "hello shop", beside "usher serve". On SIGTERM or SIGINT, and when another process replaces it, it takes
// no more, serves what it has, and ends.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

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
	var f fresh
	s := &http.Server{Handler: f.handler(http.HandlerFunc(hello)), ConnContext: f.add, ConnState: f.changed}

	signals, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(signals, func() { l.Shutdown(context.Background()) }) // what is not claimed goes back to the door
	err = s.Serve(l)                                                        // until then, or until it is replaced
	log.Print(err)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f.wait(ctx)
	s.Shutdown(ctx) // waits for the requests under way
	l.Shutdown(ctx) // waits until the door has heard how the last connections ended
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello %s, this is %s (process %d), and you asked for %s%s.\n", r.RemoteAddr, os.Args[1], os.Getpid(), r.Host, r.URL.Path)
}

// fresh counts connections whose first request has not reached its handler. A net/http server that is being
// shut down closes those without an answer, so it must wait for them first.
type fresh struct {
	conns sync.Map // of struct{}, by net.Conn
	n     sync.WaitGroup
}

type connKey struct{}

func (f *fresh) add(ctx context.Context, c net.Conn) context.Context {
	f.conns.Store(c, struct{}{})
	f.n.Add(1)
	return context.WithValue(ctx, connKey{}, c)
}

func (f *fresh) done(c any) {
	if _, was := f.conns.LoadAndDelete(c); was {
		f.n.Done()
	}
}

func (f *fresh) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.done(r.Context().Value(connKey{}))
		next.ServeHTTP(w, r)
	})
}

func (f *fresh) changed(c net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		f.done(c)
	}
}

// wait waits until there are none. Serve must have returned: then no more come.
func (f *fresh) wait(ctx context.Context) {
	none := make(chan struct{})
	go func() {
		f.n.Wait()
		close(none)
	}()
	select {
	case <-none:
	case <-ctx.Done(): // a client may never make a request
	}
}
