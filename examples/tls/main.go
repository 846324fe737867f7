// Tls is a web server that takes TLS connections from a front door, which has seen the server name in them and
// nothing else: certificate and key are here. Run it as "tls ENDPOINT CERT KEY" beside "usher serve".
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/go-usher/usher"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: tls ENDPOINT CERT KEY")
	}
	l, err := usher.Listen(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ServeTLS(l, http.HandlerFunc(hello), os.Args[2], os.Args[3]))
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello %s, this is %s over %s, and you asked for %s%s.\n", r.RemoteAddr, os.Args[1], r.Proto, r.Host, r.URL.Path)
}
