package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Bounds of what a client of the admin address can cost.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second // profiles get theirs on top
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
	// shutdownTimeout is for answers under way when the door ends, newcomerTimeout for the first request of a connection
	// that was accepted just before.
	shutdownTimeout = 5 * time.Second
	newcomerTimeout = 500 * time.Millisecond
)

// UnixPrefix is what an address begins with that is a socket's path.
const UnixPrefix = "unix:"

// Listen listens at HOST:PORT, or at unix:PATH. It does not judge whether other machines can reach the
// address. The listener is the caller's to close.
//
// A socket file has mode 0600 from the first instant; on Windows the permissions of its folder decide who can
// connect. A file that is there already is replaced only if it is a socket and a connection to it is refused,
// as it is when its listener has died. Close removes the file if it is still the listener's own, unless
// SetUnlinkOnClose(false) was called, as [net.UnixListener] has it.
func Listen(address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, UnixPrefix)
	if !isUnix {
		return net.Listen("tcp", address)
	}
	l, err := listenUnix(path)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // else it would name the temporary file
		}
		return nil, &net.OpError{Op: "listen", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"}, Err: err}
	}
	return l, nil
}

// Serve answers at l with h until ctx ends, and owns l: it closes it in any case. When ctx ends, so do the
// contexts of requests, which ends profiles early; other answers may take 5 seconds to be complete. Whoever was accepted
// before is answered once. It returns nil if all answers were complete, else the error that ended serving. What the
// server has to say beside goes to the standard logger of package log.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	l = onceListener{l, sync.OnceValue(l.Close)}
	var new newcomers
	server := &http.Server{
		Handler:           new.answered(h),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       new.come,
		ConnState:         new.gone,
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	err := server.Serve(l)
	if stop() { // ctx has not ended: it was the listener that failed
		server.Close()
		return fmt.Errorf("admin: %w", err)
	}
	new.wait() // only now are all of them known
	if err := shutDown(server); err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}

func shutDown(server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		server.Close()
		return fmt.Errorf("answers under way were cut off after %v", shutdownTimeout)
	}
	return err
}

// onceListener is a listener of which a second Close does nothing: http.Server.Shutdown would fail for it.
type onceListener struct {
	net.Listener
	close func() error
}

func (l onceListener) Close() error { return l.close() }

// newcomers are connections that have had no answer yet. http.Server.Shutdown closes them when their first request has come,
// without one.
type newcomers struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

type connKey struct{}

func (n *newcomers) come(ctx context.Context, c net.Conn) context.Context {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns == nil {
		n.conns = make(map[net.Conn]struct{})
	}
	n.conns[c] = struct{}{}
	return context.WithValue(ctx, connKey{}, c)
}

func (n *newcomers) gone(c net.Conn, s http.ConnState) {
	if s == http.StateClosed || s == http.StateHijacked {
		n.remove(c)
	}
}

func (n *newcomers) answered(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.remove(r.Context().Value(connKey{}).(net.Conn))
		h.ServeHTTP(w, r)
	})
}

func (n *newcomers) remove(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// wait waits until there are none, or for as long as their requests may take.
func (n *newcomers) wait() {
	for end := time.Now().Add(newcomerTimeout); n.some() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

func (n *newcomers) some() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns) > 0
}
