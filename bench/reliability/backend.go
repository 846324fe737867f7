//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/bench"
	"github.com/go-usher/usher/usherhttp"
)

// backend answers to / with the name of its host, and to pathDownload with bytes that come slowly, until it reads finish
// on its standard input.
type backend struct {
	host string
	over chan struct{} // closed when downloads are to end
}

const (
	pathDownload = "/download"
	finish       = "finish"
)

// playBackend serves HTTP and TLS: at the endpoints NAME and NAME-tls, in the place of whoever serves there, until
// somebody takes its own; or on two listening sockets that it was passed, until SIGTERM. Then it serves to the end what
// it has.
func playBackend(args []string) error {
	flags := flag.NewFlagSet("backend", flag.ExitOnError)
	endpoint := flags.String("endpoint", "", "take offers at `NAME` and NAME-tls")
	flags.Parse(args)
	if flags.NArg() != 1 {
		return errors.New("usage: backend [-endpoint NAME] HOST")
	}
	b := &backend{host: flags.Arg(0), over: make(chan struct{})}
	go b.listenToStdin()
	if *endpoint != "" {
		return b.take(*endpoint)
	}
	return b.accept()
}

func (b *backend) listenToStdin() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if lines.Text() == finish {
			close(b.over)
		}
	}
	os.Exit(0)
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == pathDownload {
		b.download(w)
		return
	}
	fmt.Fprintln(w, b.host)
}

// pieces of a download: two kB a second, so that hundreds of them leave the machine to what is measured.
const (
	pieceSize = 1 << 10
	pieceTime = 500 * time.Millisecond
)

func (b *backend) download(w http.ResponseWriter) {
	random := rand.NewChaCha8([32]byte{byte(os.Getpid())})
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	flusher := http.NewResponseController(w)
	var piece [pieceSize]byte
	tick := time.NewTicker(pieceTime)
	defer tick.Stop()
	for {
		random.Read(piece[:])
		if _, err := out.Write(piece[:]); err != nil {
			return
		}
		if flusher.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-b.over:
			w.Write(sum.Sum(nil))
			return
		}
	}
}

// take serves at endpoints, with package usherhttp, until they are somebody else's.
func (b *backend) take(endpoint string) error {
	config, err := tlsConfig()
	if err != nil {
		return err
	}
	lc := usher.ListenConfig{Replace: true}
	plain, err := lc.Listen(endpoint)
	if err != nil {
		return err
	}
	secure, err := lc.Listen(endpoint + "-tls")
	if err != nil {
		return err
	}
	return served(
		func() error {
			return serveTaker(plain, &http.Server{Handler: usherhttp.Misdirected(b, usherhttp.Hosts(b.host))})
		},
		func() error { return serveTaker(secure, &http.Server{Handler: b, TLSConfig: config}) },
	)
}

func serveTaker(l *usher.Listener, s *http.Server) error {
	s.ErrorLog = log.New(os.Stderr, "", 0)
	u := usherhttp.Server{HTTP: s, ShutdownTimeout: -1} // downloads take their time
	if err := u.Serve(context.Background(), l); !errors.Is(err, usher.ErrReplaced) {
		return err
	}
	return nil
}

// accept serves on the sockets that it was passed as descriptors 3 and 4, until SIGTERM.
func (b *backend) accept() error {
	config, err := tlsConfig()
	if err != nil {
		return err
	}
	var listeners [2]net.Listener
	for i := range listeners {
		f := os.NewFile(uintptr(3+i), "listener")
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return err
		}
		listeners[i] = l
	}
	asked, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(asked, func() {
		listeners[0].Close()
		listeners[1].Close()
	})
	return served(
		func() error { return newGentle(b).serve(listeners[0]) },
		func() error { return newGentle(b).serve(tls.NewListener(listeners[1], config)) },
	)
}

func tlsConfig() (*tls.Config, error) {
	certificate, err := bench.SelfSigned()
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}, nil
}

// served says that it is ready, and returns when both have served to the end.
func served(http, tls func() error) error {
	secure := make(chan error)
	go func() { secure <- tls() }()
	fmt.Println("ready")
	return errors.Join(http(), <-secure)
}

// gentle is a server that ends without failing anybody. http.Server's own Shutdown closes connections that are idle, and
// a client may have sent a request at that moment; and those of which it has not read the first request. So it waits
// for the first requests, answers with "Connection: close" for a while, and shuts down then.
type gentle struct {
	http.Server
	ending atomic.Bool
	fresh  sync.WaitGroup // connections whose first request has not reached the handler
	conns  sync.Map       // those
}

// closing is for how long clients are told to close their connections. Each of them asks several times meanwhile.
const closing = time.Second

type connKey struct{}

func newGentle(h http.Handler) *gentle {
	g := new(gentle)
	g.ErrorLog = log.New(io.Discard, "", 0) // clients that go away are none
	g.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		g.conns.Store(c, struct{}{})
		g.fresh.Add(1)
		return context.WithValue(ctx, connKey{}, c)
	}
	g.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			g.notFresh(c)
		}
	}
	g.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.notFresh(r.Context().Value(connKey{}))
		if g.ending.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
	return g
}

func (g *gentle) notFresh(c any) {
	if _, was := g.conns.LoadAndDelete(c); was {
		g.fresh.Done()
	}
}

// serve returns when l has been closed and all of its connections have ended.
func (g *gentle) serve(l net.Listener) error {
	if err := g.Serve(l); !errors.Is(err, net.ErrClosed) {
		return err
	}
	g.ending.Store(true)
	g.fresh.Wait()
	time.Sleep(closing)
	return g.Shutdown(context.Background())
}
