package usherhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-usher/usher"
)

// DefaultShutdownTimeout is how long the end of a [Server] may take unless told otherwise.
const DefaultShutdownTimeout = 30 * time.Second

// Serve serves HTTP on the connections that come to l, until ctx ends or another process takes the endpoint over; see
// [Server.Serve].
func Serve(ctx context.Context, l *usher.Listener, s *http.Server) error {
	return (&Server{HTTP: s}).Serve(ctx, l)
}

// Server has options for serving. Its zero value serves [http.DefaultServeMux].
type Server struct {
	// HTTP is the server, of which Serve sets Handler, ConnContext and ConnState to functions that call those which it
	// finds there. It serves once, as one that is shut down does not serve again, and nowhere else: Serve fails for one that it had
	// before. If its TLSConfig is not nil the connections are TLS, with the certificates of that, and none of them is handed on.
	// Nil means the zero value.
	HTTP *http.Server

	// ShutdownTimeout is how long requests under way may take when the end has come; then their connections are closed.
	// Zero means [DefaultShutdownTimeout], and a negative one that there is no limit.
	ShutdownTimeout time.Duration

	// Leaving, if not nil, is called in a goroutine of its own when the end has come. It may have requests end that would take long, as
	// those for server-sent events: their connections are handed on then, and the clients make new ones. Functions that were
	// registered with [http.Server.RegisterOnShutdown] are called when all is handed on, which may be too late for that.
	Leaving func()
}

// Serve serves HTTP on the connections that come to l, which it takes over, until ctx ends, l is closed, or another process
// takes the endpoint over ([usher.ErrReplaced]). Then it ends:
//
//   - What was not claimed goes back to the giver; see [usher.Listener.Shutdown].
//   - Requests under way are answered, as is the first of a connection that was claimed just before, for which net/http's own
//     Shutdown would do nothing. That one is awaited for 5 seconds.
//   - Connections on which no request is under way, now or when it has been answered, are handed on, with what has come of the
//     next: to the process that has taken the endpoint over, or else to their giver, if that takes them back
//     ([usher.Conn.Returnable]; on Windows none does then, for no channel outlives its listener there). Both give the client as
//     long for its next request as a new one has for its first: the successor by its ReadHeaderTimeout or ReadTimeout, and
//     by its IdleTimeout if it has neither; the door by the limits of its listener. A ReadHeaderTimeout that is much shorter than
//     IdleTimeout closes connections early that are idle while the server is replaced.
//   - Connections that nobody takes, and those that cannot be handed on, such as those of TLS, are closed when their next request is
//     answered, which tells the client so, or when there is none under way after 2 seconds.
//   - Reports of the ends of connections go out.
//
// It returns nil when all that is done. If it was not by ShutdownTimeout, connections with a request under way are closed, and
// the error is [os.ErrDeadlineExceeded]. If s.HTTP cannot serve, or somebody else closes it or shuts it down, it returns at once
// what [http.Server.Serve] or [http.Server.ServeTLS] does, such as [http.ErrServerClosed]; when only requests under way are left to wait
// for, [http.Server.Close] ends that wait, and the error is nil. Hijacked connections are not waited for.
func (s *Server) Serve(ctx context.Context, l *usher.Listener) error {
	defer l.Close()
	if s.hasServed() {
		return fmt.Errorf("serve %v: the http.Server has been given to Serve before, and serves once", l.Addr())
	}
	v := newServing(s, l)
	served := make(chan error, 1)
	go func() { served <- v.serve() }()
	select {
	case err := <-served:
		return err
	case <-v.ended:
	case <-ctx.Done():
	}
	end, cancel := s.end()
	defer cancel()
	go l.Shutdown(end) // Accept ends before that has
	select {
	case <-v.ended:
	case err := <-served: // before it came to Accept
		return err
	}
	if v.stopped.Load() {
		return <-served
	}
	err := v.end(end)
	closed := <-served
	if v.stopped.Load() {
		return closed
	}
	v.report(end)
	return err
}

// hasServed says whether Serve had the http.Server before. Such a one calls hooks of both, and looks as if it was for TLS.
func (s *Server) hasServed() bool {
	if s.HTTP == nil {
		return false
	}
	_, has := s.HTTP.Handler.(*serving)
	return has
}

// end returns the context in which all is to have ended.
func (s *Server) end() (context.Context, context.CancelFunc) {
	switch {
	case s.ShutdownTimeout < 0:
		return context.WithCancel(context.Background())
	case s.ShutdownTimeout == 0:
		return context.WithTimeout(context.Background(), DefaultShutdownTimeout)
	}
	return context.WithTimeout(context.Background(), s.ShutdownTimeout)
}

// Tests shorten these.
var (
	// dueTimeout is how long a request is awaited on a connection that was claimed before the end, as net/http awaits it.
	dueTimeout = 5 * time.Second

	// handOnTimeout is for one connection and a process that does not claim it.
	handOnTimeout = 5 * time.Second

	// lingerTimeout is how long connections stay open that nobody can be handed. Clients that make requests often make one in that time.
	lingerTimeout = 2 * time.Second
)

const (
	// dialTimeout and dialPause are for a successor that does not answer. On Windows nobody listens at the endpoint for some
	// milliseconds when it is taken over.
	dialTimeout = 2 * time.Second
	dialPause   = 5 * time.Millisecond

	// reclaimPatience and reclaimPause are for a process that is out of descriptors.
	reclaimPatience = 10 * time.Second
	reclaimPause    = 10 * time.Millisecond

	// reportTimeout is for the reports of the last connections when all the time has been used up.
	reportTimeout = time.Second
)

// serving is one run of a Server. It is the listener of the http.Server, whose Accept returns when the server is closed, not when
// the usher.Listener is: what could not be handed on may come again.
type serving struct {
	http    *http.Server
	l       *usher.Listener
	handler http.Handler // nil means http.DefaultServeMux
	tls     bool         // asked for; the http.Server gives itself a TLSConfig for other reasons
	leaving func()       // nil if nobody wants to be told

	ended   chan struct{} // closed when l returns no more connections
	err     error         // why; read it after ended
	kept    chan *conn    // that could not be handed on
	left    atomic.Bool   // the http.Server is to be closed
	stopped atomic.Bool   // it was before that, by somebody else
	done    chan struct{} // closed when the http.Server is
	once    sync.Once

	way       atomic.Pointer[way] // nil until the server is leaving
	unsettled sync.WaitGroup      // of connections

	mu       sync.Mutex
	conns    map[*conn]struct{}
	empty    chan struct{} // closed when there are no conns; nil while nobody waits for that
	failures int           // connections that could not be handed on
	failure  error
}

// newServing hooks itself in.
func newServing(server *Server, l *usher.Listener) *serving {
	s := server.HTTP
	if s == nil {
		s = new(http.Server)
	}
	v := &serving{
		http: s, l: l, handler: s.Handler, tls: s.TLSConfig != nil, leaving: server.Leaving,
		ended: make(chan struct{}), kept: make(chan *conn), done: make(chan struct{}), conns: make(map[*conn]struct{}),
	}
	s.Handler = v
	connContext, connState := s.ConnContext, s.ConnState
	s.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		ctx = context.WithValue(ctx, connKey{}, connOf(nc))
		if connContext == nil {
			return ctx
		}
		return connContext(ctx, nc)
	}
	s.ConnState = func(nc net.Conn, state http.ConnState) {
		if c := connOf(nc); c != nil {
			c.changed(state)
		}
		if connState != nil {
			connState(nc, state)
		}
	}
	return v
}

type connKey struct{}

// connOf returns the connection of which the server has nc; nil if that is not one of Serve's.
func connOf(nc net.Conn) *conn {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	c, _ := nc.(*conn)
	return c
}

// connIn returns the connection of a request; nil if that is not one of Serve's.
func connIn(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// Conn returns the connection that a request has come on, for what the giver has told of it: [usher.Conn.Info],
// [usher.Conn.Giver]. Reading, writing and closing it is the server's. It is nil for a request that was not served by this package.
func Conn(r *http.Request) *usher.Conn {
	if c := connIn(r); c != nil {
		return c.Conn
	}
	return nil
}

func (v *serving) serve() error {
	if !v.tls {
		return v.http.Serve(v)
	}
	if c := v.http.TLSConfig; len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		// net/http would open a file with no name.
		return fmt.Errorf("serve %v: TLSConfig is set and has no certificates; net/http sets one in a server that serves elsewhere", v.l.Addr())
	}
	return v.http.ServeTLS(v, "", "")
}

// Accept returns what l does, then what is kept.
func (v *serving) Accept() (net.Conn, error) {
	select {
	case <-v.ended:
	default:
		c, err := v.l.Accept()
		if err == nil {
			return v.track(c.(*usher.Conn), follower{}), nil
		}
		v.err = err
		close(v.ended)
	}
	select {
	case c := <-v.kept:
		return c, nil
	case <-v.done:
		return nil, v.err
	}
}

// Close is called by the http.Server.
func (v *serving) Close() error {
	v.once.Do(func() {
		if !v.left.Load() {
			v.stopped.Store(true)
			v.l.Close()
		}
		close(v.done)
	})
	return nil
}

func (v *serving) Addr() net.Addr { return v.l.Addr() }

// track makes a connection one of the server's.
func (v *serving) track(uc *usher.Conn, f follower) *conn {
	if v.tls {
		f.lose()
	}
	if d := v.http.IdleTimeout; d > 0 && v.waitsForEver() {
		uc.SetReadDeadline(time.Now().Add(d))
	}
	c := &conn{Conn: uc, v: v, f: f, due: true}
	v.unsettled.Add(1)
	v.mu.Lock()
	v.conns[c] = struct{}{}
	v.mu.Unlock()
	return c
}

// waitsForEver says whether net/http waits without a deadline for the first request of a connection, so that one which a predecessor has
// handed on would stay open for ever if its client is gone; and clears a deadline that is set here when the request has come,
// as it does not for HTTP/2 in TLS.
func (v *serving) waitsForEver() bool {
	return !v.tls && v.http.ReadHeaderTimeout <= 0 && v.http.ReadTimeout <= 0
}

func (v *serving) forget(c *conn) {
	v.mu.Lock()
	delete(v.conns, c)
	v.checkEmpty()
	v.mu.Unlock()
}

// checkEmpty is called with v.mu held.
func (v *serving) checkEmpty() {
	if v.empty != nil && len(v.conns) == 0 {
		close(v.empty)
		v.empty = nil
	}
}

func (v *serving) each(f func(*conn)) {
	v.mu.Lock()
	conns := slices.Collect(maps.Keys(v.conns))
	v.mu.Unlock()
	for _, c := range conns {
		f(c)
	}
}

// ServeHTTP is the http.Server's handler.
func (v *serving) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c := connIn(r); c != nil && c.arrived(r) && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	if v.handler == nil {
		http.DefaultServeMux.ServeHTTP(w, r)
		return
	}
	v.handler.ServeHTTP(w, r)
}

// end sees to what there is when l has ended.
func (v *serving) end(ctx context.Context) error {
	v.leave(ctx)
	if successor := v.way.Load().successor; successor != nil {
		defer successor.Close()
	}
	v.linger(ctx)
	v.left.Store(true)
	if v.stopped.Load() {
		return nil // Serve has the reason
	}
	err := v.http.Shutdown(ctx) // closes what rests and could not be handed on, and waits for the rest
	v.mu.Lock()
	n, failure := v.failures, v.failure
	v.mu.Unlock()
	if n > 0 {
		v.logf("usherhttp: connections that could not be handed on: %d; the last of them: %v", n, failure)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		v.http.Close()
		return fmt.Errorf("serve %v: connections were closed with requests under way: %w", v.l.Addr(), os.ErrDeadlineExceeded)
	}
	if !errors.Is(v.err, net.ErrClosed) {
		return v.err
	}
	return nil
}

// leave hands on what can be, now or when its request is answered, and waits until that is done and nothing is due.
func (v *serving) leave(ctx context.Context) {
	v.way.Store(&way{ctx: ctx, successor: v.dialSuccessor(ctx)})
	v.each((*conn).leave)
	if v.leaving != nil {
		go v.leaving()
	}
	settled := make(chan struct{})
	go func() {
		v.unsettled.Wait()
		close(settled)
	}()
	select {
	case <-settled:
	case <-v.done:
	case <-ctx.Done():
	}
}

// linger lets clients make another request on what nobody can be handed, which is answered, and told to be the last. Of a client that has
// just sent one, Shutdown would close the connection without an answer.
func (v *serving) linger(ctx context.Context) {
	empty := make(chan struct{})
	v.mu.Lock()
	v.empty = empty
	v.checkEmpty()
	v.mu.Unlock()
	late := time.NewTimer(lingerTimeout)
	defer late.Stop()
	select {
	case <-empty:
	case <-late.C:
	case <-v.done:
	case <-ctx.Done():
	}
	v.each((*conn).dismiss)
}

// dialSuccessor returns nil if there is none.
func (v *serving) dialSuccessor(ctx context.Context) *usher.Target {
	if !errors.Is(v.err, usher.ErrReplaced) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for {
		t, err := usher.Dial(ctx, v.l.Addr().String())
		if err == nil {
			return t
		}
		if ctx.Err() != nil || !errors.Is(err, fs.ErrNotExist) {
			v.logf("usherhttp: nothing is handed on to the successor: %v", err)
			return nil
		}
		time.Sleep(dialPause)
	}
}

// way is where connections go when the server is leaving.
type way struct {
	ctx       context.Context
	successor *usher.Target // nil if there is none
}

// errNobody is for a connection that could be given back a moment ago.
var errNobody = errors.New("there is nobody to take it")

func (w *way) handOn(o *usher.Offer, returnable bool) error {
	err := errNobody
	if w.successor != nil {
		err = w.try(func(ctx context.Context) error { return w.successor.Handoff(ctx, o) })
	}
	if err != nil && returnable {
		err = w.try(o.HandBack)
	}
	return err
}

// try gives each its time: a successor that has been stopped is no reason for the giver not to be asked.
func (w *way) try(hand func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(w.ctx, handOnTimeout)
	defer cancel()
	return hand(ctx)
}

// reclaim is for an offer that nobody has claimed. It is served here: a request that has come, or comes while the server lingers, is
// answered, for its client has done nothing wrong.
func (v *serving) reclaim(o *usher.Offer) {
	uc, err := reclaim(o)
	if err != nil {
		v.failed(err)
		return
	}
	c := v.track(uc, follower{state: lost})
	c.mu.Lock()
	c.due = uc.Buffered() > 0
	c.review()
	c.mu.Unlock()
	select {
	case v.kept <- c:
	case <-v.done:
		c.Close()
		c.changed(http.StateClosed)
	}
}

// reclaim has a connection back that nobody has claimed. A process that is out of descriptors may have to wait for that.
func reclaim(o *usher.Offer) (*usher.Conn, error) {
	for began := time.Now(); ; time.Sleep(reclaimPause) {
		c, err := o.Reclaim()
		if err == nil || errors.Is(err, net.ErrClosed) || time.Since(began) >= reclaimPatience {
			return c, err
		}
	}
}

// failed counts, so that one line in the log says it all.
func (v *serving) failed(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failures++
	v.failure = err
}

// report waits until the givers have heard how the last connections have ended.
func (v *serving) report(ctx context.Context) {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.Background(), reportTimeout)
		defer cancel()
	}
	_ = v.l.Shutdown(ctx) // what it says is that l is closed, or that reports were lost, which are no promise
}

func (v *serving) logf(format string, args ...any) {
	if v.http.ErrorLog != nil {
		v.http.ErrorLog.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}
