package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-usher/usher"
)

// backendMain is the command backend of the scripts: a web server that takes connections at an endpoint, or
// one that listens by itself and cannot take. It speaks HTTP/1.1 and HTTP/2, over TLS if it has a certificate.
// SIGTERM shuts it down.
func backendMain() {
	log.SetFlags(0)
	cert := flag.String("tls", "", "`FILE` with a certificate and its key")
	listen := flag.String("listen", "", "listen at a Unix socket of this `PATH`, and not at an endpoint")
	flag.Parse()
	if err := playBackend(flag.Arg(0), *listen, *cert); err != nil {
		log.Fatal(err)
	}
}

func playBackend(name, listen, cert string) error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	l, err := listenAt(name, listen)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: backendHandler(name), Protocols: new(http.Protocols), ErrorLog: log.Default()}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	serve := func() error { return s.Serve(l) }
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, cert)
		if err != nil {
			return err
		}
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
		serve = func() error { return s.ServeTLS(l, "", "") }
	}
	log.Printf("%s listens, process %d", name, os.Getpid())
	down := make(chan error, 1)
	go func() {
		<-stop.Done()
		down <- s.Shutdown(context.Background())
	}()
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	if err := <-down; err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	log.Printf("%s has ended", name)
	return nil
}

func listenAt(name, listen string) (net.Listener, error) {
	if listen != "" {
		return net.Listen("unix", listen)
	}
	return usher.Listen(name)
}

// backendHandler answers with what the server sees of a request; and
//
//	/sum            with the SHA-256 of its body
//	/files/NAME     with a file of the server's folder
//	/held?by=NAME   in two halves, the second not before there is a file of that name
func backendHandler(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s serves %s%s over %s for %s\n", name, r.Host, r.URL.Path, r.Proto, r.RemoteAddr)
	})
	mux.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err != nil {
			log.Printf("read the body: %v", err)
			return
		}
		fmt.Fprintf(w, "%x\n", h.Sum(nil))
	})
	files := http.StripPrefix("/files/", http.FileServer(http.Dir(".")))
	mux.HandleFunc("/files/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Timing-Allow-Origin", "*") // else a browser does not tell a page how the files of others came
		files.ServeHTTP(w, r)
	})
	mux.HandleFunc("/held", held)
	return mux
}

func held(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, "one half, ")
	http.NewResponseController(w).Flush()
	log.Print("holds a response")
	by := r.FormValue("by")
	for {
		if _, err := os.Stat(by); err == nil {
			break
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
	io.WriteString(w, "the other half\n")
}
