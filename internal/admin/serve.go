package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Bounds of what a client of the admin address can cost.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second // profiles get theirs on top
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
	// shutdownTimeout is for answers under way when the door ends.
	shutdownTimeout = 5 * time.Second
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
// contexts of requests, which ends profiles early; other answers may take 5 seconds to be complete. It returns
// nil if all were, else the error that ended serving. What the server has to say beside goes to the standard
// logger of package log.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { stopped <- shutDown(server) })
	err := server.Serve(l)
	if stop() { // ctx has not ended: it was the listener that failed
		server.Close()
		return fmt.Errorf("admin: %w", err)
	}
	if err := <-stopped; err != nil {
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
