//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usherhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
)

func TestIdleConnectionsGoToTheSuccessor(t *testing.T) {
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	first := startBackend(t, endpoint, "first", nil)
	idle, partial := dialDoor(t, d), dialDoor(t, d)
	idle.send(t, request("shop", "/1"))
	idle.wants(t, "first: GET shop /1 ", false)
	partial.send(t, request("shop", "/1")+"GET /2 HTT")
	partial.wants(t, "first: GET shop /1 ", false)

	startBackend(t, endpoint, "second", nil)
	if err := first.ended(t); err != nil {
		t.Error(err)
	}
	idle.send(t, request("shop", "/2"))
	idle.wants(t, "second: GET shop /2 ", false)
	partial.send(t, "P/1.1\r\nHost: shop\r\n\r\n")
	partial.wants(t, "second: GET shop /2 ", false)

	third := startBackend(t, endpoint, "third", nil)
	idle.awaitServer(t, "third")
	partial.awaitServer(t, "third")
	third.stop()
	if err := third.ended(t); err != nil {
		t.Error(err)
	}
	idle.wantsEnd(t)
}

func TestIdleConnectionsGoBackToTheDoor(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there the channel ends with the listener")
	}
	d, endpoint := newDoor(t, false), faults.Endpoint(t)
	d.route("shop", endpoint)
	first := startBackend(t, endpoint, "first", nil)
	c := dialDoor(t, d)
	c.send(t, request("shop", "/1"))
	c.wants(t, "first: GET shop /1 ", false)
	first.stop()
	if err := first.ended(t); err != nil {
		t.Error(err)
	}
	startBackend(t, endpoint, "second", nil)
	c.send(t, request("shop", "/2"))
	c.wants(t, "second: GET shop /2 ", false)
	if n := d.tookBack(); n != 1 {
		t.Errorf("the door has taken back %d connections", n)
	}
}

func TestARequestUnderWayIsAnsweredAndItsConnectionHandedOn(t *testing.T) {
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	first := startBackend(t, endpoint, "first", nil)
	c, pipelined, idle := dialDoor(t, d), dialDoor(t, d), dialDoor(t, d)
	idle.awaitServer(t, "first")
	c.send(t, request("shop", "/wait"))
	pipelined.send(t, request("shop", "/wait")+"POST /2 HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello"+request("shop", "/3"))
	<-first.in
	<-first.in
	startBackend(t, endpoint, "second", nil)
	idle.awaitServer(t, "second")
	close(first.gate)
	c.wants(t, "first: GET shop /wait ", false)
	pipelined.wants(t, "first: GET shop /wait ", false)
	pipelined.wants(t, "second: POST shop /2 hello", false)
	pipelined.wants(t, "second: GET shop /3 ", false)
	c.send(t, request("shop", "/2"))
	c.wants(t, "second: GET shop /2 ", false)
	if err := first.ended(t); err != nil {
		t.Error(err)
	}
}

func TestARequestUnderWayIsTheLastWhereNobodyTakesTheConnection(t *testing.T) {
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	b := startBackend(t, endpoint, "first", nil)
	old, idle := dialDoor(t, d), dialDoor(t, d)
	idle.send(t, request("shop", "/1"))
	idle.wants(t, "first: GET shop /1 ", false)
	old.send(t, request("shop", "/wait"))
	<-b.in
	b.stop()
	// The server waits for the request that has come in part, though not for the connection that has none.
	idle.wantsEnd(t)
	close(b.gate)
	old.wants(t, "first: GET shop /wait ", true)
	old.wantsEnd(t)
	if err := b.ended(t); err != nil {
		t.Error(err)
	}
}

// TestAConnectionThatNobodyTakesIsNotClosedUnderARequest has a client that makes one request after the other: each is answered, and one of them
// is said to be the last, before the connection is closed.
func TestAConnectionThatNobodyTakesIsNotClosedUnderARequest(t *testing.T) {
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	b := startBackend(t, endpoint, "first", nil)
	c := dialDoor(t, d)
	for n, last := 0, false; !last; n++ {
		c.send(t, request("shop", "/1"))
		r, body, err := c.answer()
		if err != nil || body != "first: GET shop /1 " {
			t.Fatalf("answer %d is %q, %v", n, body, err)
		}
		if last = r.Close; n == 0 {
			b.stop()
		}
	}
	c.wantsEnd(t)
	if err := b.ended(t); err != nil {
		t.Error(err)
	}
}

func TestRequestsThatTakeTooLongEnd(t *testing.T) {
	d, endpoint := newDoor(t, false), faults.Endpoint(t)
	d.route("shop", endpoint)
	b := startBackend(t, endpoint, "first", func(s *Server) { s.ShutdownTimeout = time.Millisecond })
	c := dialDoor(t, d)
	c.send(t, request("shop", "/wait"))
	<-b.in
	b.stop()
	wantError(t, b.ended(t), os.ErrDeadlineExceeded)
	c.wantsEnd(t)
	close(b.gate)
	if n := d.tookBack(); n != 0 {
		t.Errorf("%d connections have gone back with a request under way", n)
	}
}

func TestARequestThatIsDueIsAnsweredThoughTheServerIsEnding(t *testing.T) {
	for _, tt := range []struct{ name, before, after, first string }{
		{"of which nothing has come", "", request("shop", "/2"), ""},
		{"that is the first and has come in part", request("shop", "/2")[:20], request("shop", "/2")[20:], ""},
		{"that has come in part behind another", request("shop", "/1") + request("shop", "/2")[:20], request("shop", "/2")[20:], "first: GET shop /1 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, endpoint := newDoor(t, true), faults.Endpoint(t)
			d.route("shop", endpoint)
			d.beBlind()
			rest := make(chan struct{}) // closed when that comes
			claimed := make(chan struct{})
			b := startBackend(t, endpoint, "first", func(s *Server) {
				s.HTTP.RegisterOnShutdown(func() {
					select {
					case <-rest:
					default:
						t.Error("the server is shut down before it has the request")
					}
				})
				s.HTTP.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
					close(claimed)
					return ctx
				}
			})
			c := dialDoor(t, d)
			c.send(t, tt.before)
			<-claimed
			if tt.first != "" {
				c.wants(t, tt.first, false)
			}
			b.stop()
			for !errors.Is(dialOnce(t, endpoint), fs.ErrNotExist) {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(20 * time.Millisecond) // for what must not happen
			close(rest)
			c.send(t, tt.after)
			c.wants(t, "first: GET shop /2 ", true)
			c.wantsEnd(t)
			if err := b.ended(t); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestARequestThatNobodyTakesIsServedHere(t *testing.T) {
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	log := new(logTo)
	b := startBackend(t, endpoint, "first", func(s *Server) { s.HTTP.ErrorLog = stdlog.New(log, "", 0) })
	c, idle := dialDoor(t, d), dialDoor(t, d)
	idle.send(t, request("shop", "/1"))
	idle.wants(t, "first: GET shop /1 ", false)
	c.send(t, request("shop", "/wait")+request("shop", "/2"))
	<-b.in

	successor := must((&usher.ListenConfig{Replace: true}).Listen(endpoint))(t)
	must(successor.Accept())(t).Close()
	idle.wantsEnd(t)
	successor.Close()
	close(b.gate)
	c.wants(t, "first: GET shop /wait ", false)
	c.wants(t, "first: GET shop /2 ", true)
	c.wantsEnd(t)
	if err := b.ended(t); err != nil {
		t.Error(err)
	}
	if said := log.String(); !strings.Contains(said, "could not be handed on: 1;") {
		t.Errorf("the log says %q", said)
	}
}

// leaveSuccessor has a process take the endpoint over that claims one connection, which must be one that rests, and ends.
func leaveSuccessor(t *testing.T, endpoint string) {
	t.Helper()
	successor := must((&usher.ListenConfig{Replace: true}).Listen(endpoint))(t)
	must(successor.Accept())(t).Close()
	successor.Close()
}

func TestAConnectionThatNobodyTakesIsThereForALastRequest(t *testing.T) {
	shorten(t, &lingerTimeout, timeout)
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	b := startBackend(t, endpoint, "first", func(s *Server) { s.HTTP.ErrorLog = quiet() })
	idle := []*client{dialDoor(t, d), dialDoor(t, d)}
	for _, c := range idle {
		c.awaitServer(t, "first")
	}
	leaveSuccessor(t, endpoint)
	answered := 0
	for _, c := range idle {
		c.send(t, request("shop", "/2"))
		if r, body, err := c.answer(); err == nil && r.Close && body == "first: GET shop /2 " {
			answered++
		}
	}
	if answered != 1 {
		t.Errorf("%d of the connections have their last request answered; want 1, for the other one has ended", answered)
	}
	if err := b.ended(t); err != nil {
		t.Error(err)
	}
}

func TestAConnectionThatNobodyTakesIsClosedIfItsRequestDoesNotCome(t *testing.T) {
	for name, partial := range map[string]string{"idle": "", "with a request in part": "GET /2 HT"} {
		t.Run(name, func(t *testing.T) {
			shorten(t, &dueTimeout, 10*time.Millisecond)
			shorten(t, &lingerTimeout, time.Millisecond)
			d, endpoint := newDoor(t, true), faults.Endpoint(t)
			d.route("shop", endpoint)
			b := startBackend(t, endpoint, "first", func(s *Server) {
				s.HTTP.ErrorLog = quiet()
				s.ShutdownTimeout = -1
			})
			c, idle := dialDoor(t, d), dialDoor(t, d)
			idle.awaitServer(t, "first")
			c.send(t, request("shop", "/wait")+partial)
			<-b.in
			leaveSuccessor(t, endpoint)
			time.Sleep(5 * dueTimeout) // it comes back when the others have been given up
			close(b.gate)
			c.wants(t, "first: GET shop /wait ", false)
			if err := b.ended(t); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConnectionsGoBackToTheDoorIfTheSuccessorDoesNotClaimThem(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there the channel ends with the listener")
	}
	shorten(t, &handOnTimeout, 100*time.Millisecond)
	d, endpoint, other := newDoor(t, false), faults.Endpoint(t), faults.Endpoint(t)
	d.route("shop", endpoint)
	startBackend(t, other, "other", nil)
	first := startBackend(t, endpoint, "first", nil)
	c := dialDoor(t, d)
	c.awaitServer(t, "first")
	d.route("shop", other)
	successor := must((&usher.ListenConfig{Replace: true}).Listen(endpoint))(t)
	defer successor.Close()
	if err := first.ended(t); err != nil {
		t.Error(err)
	}
	c.send(t, request("shop", "/2"))
	c.wants(t, "other: GET shop /2 ", false)
}

func TestALongAnswerCanEndWhenTheServerLeaves(t *testing.T) {
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	leaving := make(chan struct{})
	first := startBackend(t, endpoint, "first", func(s *Server) {
		s.Leaving = func() { close(leaving) }
		s.HTTP.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "event")
			http.NewResponseController(w).Flush()
			<-leaving
		})
	})
	c := dialDoor(t, d)
	c.send(t, request("shop", "/events"))
	r := must(http.ReadResponse(c.r, nil))(t)
	must(io.ReadFull(r.Body, make([]byte, len("event"))))(t)
	startBackend(t, endpoint, "second", nil)
	if rest, err := io.ReadAll(r.Body); err != nil || len(rest) > 0 || r.Close {
		t.Errorf("the answer goes on with %q, %v, and says that the connection closes: %t", rest, err, r.Close)
	}
	c.send(t, request("shop", "/2"))
	c.wants(t, "second: GET shop /2 ", false)
	if err := first.ended(t); err != nil {
		t.Error(err)
	}
}

func TestAConnectionThatAPredecessorHasHandedOnIsIdle(t *testing.T) {
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	first := startBackend(t, endpoint, "first", nil)
	c := dialDoor(t, d)
	c.awaitServer(t, "first")
	startBackend(t, endpoint, "second", func(s *Server) { s.HTTP.IdleTimeout = 10 * time.Millisecond })
	if err := first.ended(t); err != nil {
		t.Error(err)
	}
	c.wantsEnd(t)
}

func TestAServerThatCannotServeReturnsThoughItIsToEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // for both is true when it begins, and either may be seen first
		l := must(usher.Listen(faults.Endpoint(t)))(t)
		s := new(http.Server)
		s.Close()
		done := make(chan error, 1)
		go func() { done <- Serve(ctx, l, s) }()
		select {
		case err := <-done:
			wantError(t, err, http.ErrServerClosed)
		case <-time.After(timeout):
			t.Fatal("it does not")
		}
	}
}

func dialOnce(t *testing.T, endpoint string) error {
	target, err := usher.Dial(t.Context(), endpoint)
	if err == nil {
		target.Close()
	}
	return err
}

func TestTheServersOwnEndIsNetHTTPs(t *testing.T) {
	for name, end := range map[string]func(*http.Server){
		"closed":    func(s *http.Server) { s.Close() },
		"shut down": func(s *http.Server) { s.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			d, endpoint := newDoor(t, false), faults.Endpoint(t)
			d.route("shop", endpoint)
			var s *http.Server
			b := startBackend(t, endpoint, "first", func(server *Server) { s = server.HTTP })
			c := dialDoor(t, d)
			c.send(t, request("shop", "/1"))
			c.wants(t, "first: GET shop /1 ", false)
			end(s)
			wantError(t, b.ended(t), http.ErrServerClosed)
			c.wantsEnd(t)
			wantError(t, dialOnce(t, endpoint), fs.ErrNotExist)
		})
	}
}

func TestTheServersOwnEndIsNetHTTPsAlsoWhileItLeaves(t *testing.T) {
	for name, end := range map[string]func(*http.Server){
		"closed":    func(s *http.Server) { s.Close() },
		"shut down": func(s *http.Server) { go s.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			d, endpoint := newDoor(t, true), faults.Endpoint(t)
			d.route("shop", endpoint)
			leaving := make(chan struct{})
			b := startBackend(t, endpoint, "first", func(s *Server) {
				s.ShutdownTimeout = -1
				s.Leaving = func() {
					close(leaving)
					end(s.HTTP)
				}
			})
			c := dialDoor(t, d)
			c.send(t, request("shop", "/wait"))
			<-b.in
			startBackend(t, endpoint, "second", nil)
			<-leaving
			wantError(t, b.ended(t), http.ErrServerClosed) // though a handler runs
			close(b.gate)
		})
	}
}

func TestAServerServesAtOneEndpoint(t *testing.T) {
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	var s *http.Server
	startBackend(t, endpoint, "first", func(server *Server) { s = server.HTTP })
	c := dialDoor(t, d)
	c.awaitServer(t, "first")
	other := faults.Endpoint(t)
	err := Serve(t.Context(), must(usher.Listen(other))(t), s)
	if err == nil || !strings.Contains(err.Error(), "serves once") {
		t.Errorf("the error at a second one is %v", err)
	}
	wantError(t, dialOnce(t, other), fs.ErrNotExist)
	c.awaitServer(t, "first")
}

func TestAServerForTLSWithoutCertificatesSaysSo(t *testing.T) {
	l := must(usher.Listen(faults.Endpoint(t)))(t)
	err := Serve(t.Context(), l, &http.Server{TLSConfig: new(tls.Config)})
	if err == nil || !strings.Contains(err.Error(), "no certificates") {
		t.Errorf("the error is %v", err)
	}
}

// TestNothingIsWrittenOnAConnectionThatIsGone is about one that was reclaimed by a process without a descriptor to spare: what net/http had
// is the same connection as that which is served anew.
func TestNothingIsWrittenOnAConnectionThatIsGone(t *testing.T) {
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	had := make(chan *conn, 1)
	startBackend(t, endpoint, "first", func(s *Server) {
		s.HTTP.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
			had <- nc.(*conn)
			return ctx
		}
	})
	client := dialDoor(t, d)
	client.awaitServer(t, "first")
	client.send(t, "GET /2 HTTP/1.1\r\nHost: sh")
	c := <-had
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	_, err := io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	wantError(t, err, net.ErrClosed)
	c.SetDeadline(aLongTimeAgo)
	c.Close()
	if _, err := io.WriteString(c.Conn, "still open"); err != nil {
		t.Error(err)
	}
	c.Conn.CloseWrite()
	if all, err := io.ReadAll(client.r); err != nil || string(all) != "still open" {
		t.Errorf("the client has got %q, %v", all, err)
	}
	c.Conn.Close()
}

func TestAHijackedConnectionIsTheHandlers(t *testing.T) {
	d, endpoint := newDoor(t, false), faults.Endpoint(t)
	d.route("shop", endpoint)
	early := make(chan struct{})
	hijacked := make(chan net.Conn, 1)
	b := startBackend(t, endpoint, "first", func(s *Server) {
		s.HTTP.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-early
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			rw.Flush()
			b := make([]byte, rw.Reader.Buffered())
			io.ReadFull(rw, b)
			c.Write(b)
			hijacked <- c
		})
	})
	c := dialDoor(t, d)
	c.send(t, "GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly")
	close(early)
	if r := must(http.ReadResponse(c.r, nil))(t); r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(r.Status)
	}
	server := <-hijacked
	b.stop()
	if err := b.ended(t); err != nil {
		t.Error(err)
	}
	echoed := make(chan error, 1)
	go func() {
		_, err := io.Copy(server, server)
		echoed <- errors.Join(err, server.Close())
	}()
	c.send(t, " and late")
	c.Conn.(*net.TCPConn).CloseWrite()
	if all, err := io.ReadAll(c.r); err != nil || string(all) != "early and late" {
		t.Errorf("the echo is %q, %v", all, err)
	}
	if err := <-echoed; err != nil {
		t.Error(err)
	}
	if n := d.tookBack(); n != 0 {
		t.Errorf("%d connections were given back", n)
	}
}

func TestTheServersOwnHooksAreCalled(t *testing.T) {
	d, endpoint := newDoor(t, true), faults.Endpoint(t)
	d.route("shop", endpoint)
	type key struct{}
	states := make(chan http.ConnState, 10)
	startBackend(t, endpoint, "first", func(s *Server) {
		s.HTTP.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, key{}, c.RemoteAddr())
		}
		s.HTTP.ConnState = func(_ net.Conn, state http.ConnState) { states <- state }
		s.HTTP.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Context().Value(key{}), " ", Conn(r).Info().Route)
		})
	})
	c := dialDoor(t, d)
	c.send(t, request("shop", "/1"))
	c.wants(t, fmt.Sprint(c.LocalAddr(), " shop"), false)
	c.Close()
	for _, want := range []http.ConnState{http.StateNew, http.StateActive, http.StateIdle, http.StateClosed} {
		if got := <-states; got != want {
			t.Errorf("the state is %v; want %v", got, want)
		}
	}
	if c := Conn(httptest.NewRequest("GET", "/", nil)); c != nil {
		t.Errorf("a request of another server has the connection %v", c)
	}
}

func TestHandingOnToNobodyFails(t *testing.T) {
	if err := (&way{ctx: t.Context()}).handOn(nil, false); err == nil {
		t.Error("it does not")
	}
}
