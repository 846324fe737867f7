//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usherhttp

import (
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
)

// BenchmarkServe makes requests on a connection that is kept alive, in turns to net/http and to this package, both of which have the
// connection from a listener of package usher. It reports the medians and their ratio.
func BenchmarkServe(b *testing.B) {
	answer := []byte("hello")
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(answer) })
	d := newDoor(b, false)
	for _, host := range []string{"plain", "usherhttp"} {
		d.route(host, faults.Endpoint(b))
	}
	l := must(usher.Listen(d.endpoint("plain")))(b)
	plain := &http.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- plain.Serve(l) }()
	defer func() {
		plain.Close()
		<-served
	}()
	startBackend(b, d.endpoint("usherhttp"), "", func(s *Server) { s.HTTP.Handler = handler })

	ask := func(c *client, request []byte, into []byte) {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, into); err != nil {
			b.Fatal(err)
		}
	}
	var clients [2]*client
	var requests [2][]byte
	for i, host := range []string{"plain", "usherhttp"} {
		clients[i] = dialDoor(b, d)
		clients[i].SetDeadline(time.Time{})
		requests[i] = []byte("GET / HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
			"Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\r\n")
	}
	const answerLen = len("HTTP/1.1 200 OK\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Length: 5\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello")
	into := make([]byte, answerLen)
	var times [2][]time.Duration
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		i := n % 2
		from := time.Now()
		ask(clients[i], requests[i], into)
		times[i] = append(times[i], time.Since(from))
	}
	if len(times[1]) == 0 {
		return
	}
	var medians [2]float64
	for i := range times {
		slices.Sort(times[i])
		medians[i] = float64(times[i][len(times[i])/2])
	}
	b.ReportMetric(medians[0], "ns/plain")
	b.ReportMetric(medians[1], "ns/usherhttp")
	b.ReportMetric(medians[1]/medians[0], "ratio")
}
