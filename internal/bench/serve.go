package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Serve answers over HTTP/1.1 to those who connect to l, as a backend written in Go does: with an http.Server of
// which nothing is set. It returns when l fails, as it does when it is closed; connections stay.
func Serve(l net.Listener) error {
	return newServer().Serve(l)
}

// ServeTLS does so over TLS, with a certificate that it makes for itself.
func ServeTLS(l net.Listener) error {
	certificate, err := SelfSigned()
	if err != nil {
		return err
	}
	return newServer().Serve(tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{"http/1.1"},
	}))
}

func newServer() *http.Server {
	return &http.Server{
		Handler:  http.HandlerFunc(answer),
		ErrorLog: log.New(io.Discard, "", 0), // clients that go away are none
	}
}

// maxBulk is for those who mistype; it is more than anybody has the time for.
const maxBulk = 1 << 40

func answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == PathSmall {
		io.WriteString(w, SmallBody)
		return
	}
	size, ok := strings.CutPrefix(r.URL.Path, PathBulk)
	if !ok {
		http.NotFound(w, r)
		return
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 || n > maxBulk {
		http.Error(w, "no such number of bytes: "+size, http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	for n > 0 {
		sent, err := w.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return // the client is gone
		}
		n -= int64(sent)
	}
}

// zeros are a piece of the large answer. Larger ones do not make it faster.
var zeros [256 << 10]byte

// SelfSigned makes a certificate for Host, of the kind that servers most often have today.
func SelfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{Host},
		NotBefore:    time.Now().Add(-time.Hour), // for clocks that differ
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
