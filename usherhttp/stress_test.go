//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usherhttp

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
)

const (
	stressClients = 12
	stressRounds  = 100
)

// stress has clients make requests on one connection each, without a pause, while next is called again and again. Every request
// must be answered, by whoever serves its host, on a connection that stays open.
func stress(t *testing.T, d *door, hosts []string, next func(round int)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for n := range stressClients {
		clients.Go(func() {
			c := dialDoor(t, d)
			c.SetDeadline(time.Time{})
			for i := 0; ctx.Err() == nil; i++ {
				if err := c.ask(hosts[rand.IntN(len(hosts))], i); err != nil {
					t.Errorf("client %d, request %d: %v", n, i, err)
					return
				}
			}
		})
	}
	for round := range stressRounds {
		if t.Failed() {
			return
		}
		next(round)
	}
}

// ask makes two requests one behind the other, in one of several forms and in two pieces.
func (c *client) ask(host string, i int) error {
	body := strings.Repeat("x", rand.IntN(100))
	forms := []string{
		request(host, fmt.Sprint("/", i)),
		fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", i, host, len(body), body),
		fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", i, host, len(body)+1, body+"x"),
	}
	bodies := []string{"", body, body + "x"}
	first, second := rand.IntN(len(forms)), rand.IntN(len(forms))
	stream := forms[first] + forms[second]
	cut := rand.IntN(len(stream))
	if _, err := io.WriteString(c, stream[:cut]); err != nil {
		return err
	}
	if rand.IntN(2) == 0 {
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
	}
	if _, err := io.WriteString(c, stream[cut:]); err != nil {
		return err
	}
	for _, form := range []int{first, second} {
		r, got, err := c.answer()
		if err != nil {
			return err
		}
		want := fmt.Sprintf(": GET %s /%d %s", host, i, bodies[form])
		if !strings.HasSuffix(got, want) || !strings.HasPrefix(got, host) || r.Close {
			return fmt.Errorf("the answer is %q, and says that the connection closes: %t; want %q", got, r.Close, want)
		}
	}
	return nil
}

func TestNoRequestFailsWhileTheServerIsReplaced(t *testing.T) {
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	old := startBackend(t, endpoint, "shop", nil)
	stress(t, d, []string{"shop"}, func(round int) {
		b := startBackend(t, endpoint, "shop", func(s *Server) {
			if round%2 == 1 {
				limitTimes(s.HTTP)
			}
		})
		if err := old.ended(t); err != nil {
			t.Error(err)
		}
		old = b
	})
}

// limitTimes has net/http set deadlines at every turn, and handlers run in goroutines of their own.
func limitTimes(s *http.Server) {
	s.ReadTimeout, s.ReadHeaderTimeout, s.WriteTimeout, s.IdleTimeout = timeout, timeout, timeout, timeout
	s.Handler = http.TimeoutHandler(s.Handler, timeout, "")
}

func TestNoRequestFailsWhileServersComeAndGo(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nothing is given back there when a server ends")
	}
	d, endpoints := newDoor(t, false), []string{faults.Endpoint(t), faults.Endpoint(t)}
	d.route("shop", endpoints[0])
	old := startBackend(t, endpoints[0], "shop", nil)
	stress(t, d, []string{"shop"}, func(round int) {
		endpoint := endpoints[(round+1)%2]
		b := startBackend(t, endpoint, "shop", nil)
		d.route("shop", endpoint)
		old.stop()
		if err := old.ended(t); err != nil {
			t.Error(err)
		}
		old = b
	})
}

func TestNoRequestFailsWhileClientsGoFromHostToHost(t *testing.T) {
	d := startShopAndBlog(t, false, nil)
	stress(t, d, []string{"shop", "blog"}, func(int) {
		for before := d.tookBack(); d.tookBack() < before+10 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	})
}

// twins are two servers with the same handler, one with package net/http alone. Streams of bytes are sent to both.
type twins struct {
	t       testing.TB
	plain   net.Listener
	d       *door
	mu      sync.Mutex
	handled []string
}

func newTwins(t testing.TB) *twins {
	t.Helper()
	tw := &twins{t: t, plain: must(net.Listen("tcp", "127.0.0.1:0"))(t), d: newDoor(t, true)}
	s := &http.Server{Handler: tw, ErrorLog: quiet()}
	served := make(chan error, 1)
	go func() { served <- s.Serve(tw.plain) }()
	t.Cleanup(func() {
		s.Close()
		<-served
	})
	endpoint := faults.Endpoint(t)
	tw.d.route("shop", endpoint)
	tw.d.beBlind()
	startBackend(t, endpoint, "shop", func(s *Server) { s.HTTP.Handler, s.HTTP.ErrorLog = tw, quiet() })
	return tw
}

// ServeHTTP leaves some bodies unread.
func (tw *twins) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body []byte
	var err error
	if r.Method != http.MethodPut {
		body, err = io.ReadAll(r.Body)
	}
	tw.mu.Lock()
	defer tw.mu.Unlock()
	tw.handled = append(tw.handled, fmt.Sprintf("%s %s %s %d %q %t", r.Method, r.RequestURI, r.Proto, r.ContentLength, body, err == nil))
	fmt.Fprintf(w, "%q", body)
}

// check sends a stream in pieces to both, and compares what their handlers get.
func (tw *twins) check(t *testing.T, stream string, piece int) {
	t.Helper()
	var handled [2][]string
	for i, address := range []string{tw.plain.Addr().String(), tw.d.l.Addr().String()} {
		c := must(net.Dial("tcp", address))(t)
		c.SetDeadline(time.Now().Add(timeout))
		for rest := stream; rest != ""; {
			n := min(piece, len(rest))
			if _, err := io.WriteString(c, rest[:n]); err != nil {
				break // of a server that has read enough
			}
			rest = rest[n:]
		}
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c) // an error, if any, is of a connection that was reset behind its answer
		c.Close()
		tw.mu.Lock()
		handled[i], tw.handled = tw.handled, nil
		tw.mu.Unlock()
	}
	if !slices.Equal(handled[0], handled[1]) {
		t.Errorf("net/http's handler has got %q, and this package's %q, of\n%q", handled[0], handled[1], stream)
	}
}

func TestHandlersGetWhatNetHTTPGivesThem(t *testing.T) {
	tw := newTwins(t)
	for _, s := range streams {
		t.Run(s.name, func(t *testing.T) {
			for _, piece := range []int{1 + len(s.stream)/50, len(s.stream) + 1} {
				tw.check(t, s.stream+get, piece)
			}
		})
	}
}

func FuzzServe(f *testing.F) {
	for _, s := range streams {
		if len(s.stream) <= maxFuzzed {
			f.Add(s.stream+get, uint16(len(s.stream)))
		}
	}
	tw := newTwins(f)
	f.Fuzz(func(t *testing.T, stream string, piece uint16) {
		if len(stream) <= maxFuzzed {
			tw.check(t, stream, 1+len(stream)/50+int(piece))
		}
	})
}
