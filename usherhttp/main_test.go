//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usherhttp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
)

func TestMain(m *testing.M) { faults.Main(m, nil) }

// timeout ends a test that hangs, not one that is slow.
const timeout = 30 * time.Second

// shorten sets one of the package's times for the length of a test.
func shorten(t testing.TB, d *time.Duration, to time.Duration) {
	was := *d
	*d = to
	t.Cleanup(func() { *d = was })
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// door is a front door: it hands each connection to the endpoint of the host that is asked for, and takes it back.
type door struct {
	t    testing.TB
	l    net.Listener
	keep bool // it takes nothing back

	working sync.WaitGroup

	mu        sync.Mutex
	blind     bool                     // all are for the shop
	endpoints map[string]string        // by host
	targets   map[string]*usher.Target // by endpoint
	returned  int
	errs      []error
}

func newDoor(t testing.TB, keep bool) *door {
	t.Helper()
	d := &door{
		t: t, l: must(net.Listen("tcp", "127.0.0.1:0"))(t), keep: keep,
		targets: make(map[string]*usher.Target), endpoints: make(map[string]string),
	}
	d.working.Go(d.accept)
	t.Cleanup(func() {
		d.l.Close()
		d.working.Wait()
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, target := range d.targets {
			target.Close()
		}
		for _, err := range d.errs {
			t.Error("the door: ", err)
		}
	})
	return d
}

// route has the connections of a host handed over at an endpoint.
func (d *door) route(host, endpoint string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endpoints[host] = endpoint
}

func (d *door) accept() {
	for {
		c, err := d.l.Accept()
		if err != nil {
			return
		}
		d.working.Go(func() { d.see(c) })
	}
}

// takeBack is told by the dialer.
func (d *door) takeBack(c *usher.Conn) {
	d.mu.Lock()
	d.returned++
	d.mu.Unlock()
	d.see(c)
}

// see reads until it has a host, and hands the connection over.
func (d *door) see(c net.Conn) {
	if d.isBlind() {
		d.hand(c, nil, "shop")
		return
	}
	c.SetDeadline(time.Now().Add(timeout))
	var head []byte
	for host, found := "", false; ; {
		if _, host, found = strings.Cut(string(head), "Host: "); found {
			if host, _, found = strings.Cut(host, "\r\n"); found {
				d.hand(c, head, host)
				return
			}
		}
		b := make([]byte, 1<<16)
		n, err := c.Read(b)
		if err != nil {
			c.Close() // a client that has left
			return
		}
		head = append(head, b[:n]...)
	}
}

func (d *door) hand(c net.Conn, head []byte, host string) {
	c.SetDeadline(time.Time{})
	o, err := usher.NewOffer(c, head, usher.Info{Listener: "web", Route: host, Host: host})
	if err == nil {
		err = d.handoff(o, host)
	}
	if err != nil {
		d.failed(fmt.Errorf("a connection for %s: %w", host, err))
		if o != nil {
			if c, err := o.Reclaim(); err == nil {
				c.Close()
			}
		}
	}
}

// handoff hands over to whoever serves the host. Where that ends in the same instant another does now, or, when one follows the other
// faster than this can connect, a little later.
func (d *door) handoff(o *usher.Offer, host string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for {
		target, err := d.target(ctx, host)
		if err == nil {
			err = target.Handoff(ctx, o)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func (d *door) failed(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.errs = append(d.errs, err)
}

func (d *door) target(ctx context.Context, host string) (*usher.Target, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	endpoint := d.endpoints[host]
	if target := d.targets[endpoint]; target != nil {
		return target, nil
	}
	dialer := usher.Dialer{Returned: d.takeBack}
	if d.keep {
		dialer.Returned = nil
	}
	target, err := dialer.Dial(ctx, endpoint)
	if err == nil {
		d.targets[endpoint] = target
	}
	return target, err
}

// beBlind has the door hand over without reading.
func (d *door) beBlind() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blind = true
}

func (d *door) isBlind() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.blind
}

func (d *door) endpoint(host string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.endpoints[host]
}

// endChannel ends the one on which the connections of a host were handed over.
func (d *door) endChannel(host string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.targets[d.endpoints[host]].Close()
}

func (d *door) tookBack() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.returned
}

// backend is a server that says its name.
type backend struct {
	name string
	gate chan struct{} // a request for /wait is answered for each that comes
	in   chan struct{} // has one for each request for /wait that has come
	stop context.CancelFunc
	done chan error
}

// startBackend serves at an endpoint, in the place of whoever does. change may change the server.
func startBackend(t testing.TB, endpoint, name string, change func(*Server)) *backend {
	t.Helper()
	l := must((&usher.ListenConfig{Replace: true}).Listen(endpoint))(t)
	b := &backend{name: name, gate: make(chan struct{}), in: make(chan struct{}, 100), done: make(chan error, 1)}
	s := &Server{HTTP: &http.Server{Handler: b}}
	if change != nil {
		change(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	go func() { b.done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		s.HTTP.Close()
		<-b.done
	})
	return b
}

// ended waits for the backend's end.
func (b *backend) ended(t testing.TB) error {
	t.Helper()
	select {
	case err := <-b.done:
		b.done <- err // for the next who asks
		return err
	case <-time.After(timeout):
		t.Fatalf("%s does not end", b.name)
		return nil
	}
}

// ServeHTTP answers with the backend's name, the request, and its body.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/wait" {
		b.in <- struct{}{}
		<-b.gate
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	fmt.Fprintf(w, "%s: %s %s %s %s", b.name, r.Method, r.Host, r.RequestURI, body)
}

// client is one connection, on which nothing is tried twice.
type client struct {
	net.Conn
	r *bufio.Reader
}

func dialDoor(t testing.TB, d *door) *client {
	t.Helper()
	c := must(net.Dial("tcp", d.l.Addr().String()))(t)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	return &client{c, bufio.NewReader(c)}
}

func (c *client) send(t testing.TB, request string) {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
}

// answer reads an answer, and returns its body.
func (c *client) answer() (*http.Response, string, error) {
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(r.Body)
	return r, string(body), err
}

// wants reads an answer that is to have a body, on a connection that stays open, or not.
func (c *client) wants(t testing.TB, want string, close bool) {
	t.Helper()
	r, body, err := c.answer()
	if err != nil {
		t.Fatal(err)
	}
	if body != want || r.Close != close {
		t.Fatalf("the answer is %q, and says that the connection closes: %t; want %q and %t", body, r.Close, want, close)
	}
}

// awaitServer makes requests until the server of that name answers.
func (c *client) awaitServer(t testing.TB, name string) {
	t.Helper()
	for {
		c.send(t, request("shop", "/await"))
		r, body, err := c.answer()
		if err != nil || r.Close {
			t.Fatalf("the answer is %q, %v, and not by %s", body, err, name)
		}
		if body == name+": GET shop /await " {
			return
		}
	}
}

// wantsEnd checks that the connection ends without another byte.
func (c *client) wantsEnd(t testing.TB) {
	t.Helper()
	if b, err := c.r.ReadByte(); err != io.EOF {
		t.Fatalf("the connection has not ended: %q, %v", b, err)
	}
}

func request(host, path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Errorf("the error is %v; want %v", err, want)
	}
}

// logTo collects what a server logs.
type logTo struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logTo) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logTo) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// quiet is for a server whose clients err on purpose.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
