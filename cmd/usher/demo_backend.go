package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	"github.com/go-usher/usher/ipc"
	"github.com/spf13/cobra"
)

const (
	readyLine    = "ready\n" // a backend prints it when its endpoint takes connections
	readyTimeout = 10 * time.Second
	endTimeout   = 3 * time.Second
)

// backend is a backend process as the demo sees it.
type backend struct {
	name, endpoint string

	cmd   *exec.Cmd
	stdin io.Closer     // open for as long as the backend should live
	ended chan struct{} // closed when the process is gone
	err   error         // how it ended; read it after ended
}

// startBackend starts a backend and waits until it takes connections.
func startBackend(ctx context.Context, name, endpoint string) (*backend, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Args = []string{os.Args[0], "demo-backend", name, endpoint}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b := &backend{name: name, endpoint: endpoint, cmd: cmd, stdin: stdin, ended: make(chan struct{})}
	ready := make(chan struct{})
	go b.attend(stdout, ready)
	if err := b.waitUntilReady(ctx, ready); err != nil {
		stopBackends([]*backend{b})
		return nil, err
	}
	return b, nil
}

// attend closes ready when the backend says so, and stays with it to its end.
func (b *backend) attend(stdout io.Reader, ready chan<- struct{}) {
	r := bufio.NewReader(stdout)
	if line, err := r.ReadString('\n'); err == nil && line == readyLine {
		close(ready)
	}
	io.Copy(io.Discard, r) // Wait may close the pipe only when it has been read
	b.err = b.cmd.Wait()
	close(b.ended)
}

func (b *backend) waitUntilReady(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-b.ended:
		return b.death()
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(readyTimeout):
		return fmt.Errorf("it was not ready within %v", readyTimeout)
	}
}

func (b *backend) pid() int { return b.cmd.Process.Pid }

// death returns nil for as long as the backend lives.
func (b *backend) death() error {
	select {
	case <-b.ended:
		return b.deathNotice()
	default:
		return nil
	}
}

// deathNotice says how the backend ended. It must have.
func (b *backend) deathNotice() error {
	how := "exit status 0"
	if b.err != nil {
		how = b.err.Error()
	}
	return fmt.Errorf("backend %s (pid %d) has ended: %s", b.name, b.pid(), how)
}

// askToEnd closes what the backend lives by.
func (b *backend) askToEnd() { b.stdin.Close() }

// waitForEnd returns when the process is gone, which does not need its consent.
func (b *backend) waitForEnd() {
	select {
	case <-b.ended:
		return
	case <-time.After(endTimeout):
	}
	b.cmd.Process.Kill()
	<-b.ended
}

// newDemoBackendCommand is what the demo runs as its backends: not for people, hence hidden.
func newDemoBackendCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "demo-backend NAME ENDPOINT",
		Short:  "Serve as a backend of usher demo until stdin ends",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return serveBackend(args[0], args[1], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// serveBackend serves the connections that come to endpoint until in ends. It ends then because the process that holds the other end of
// in is the demo, and however that died the kernel has closed it.
func serveBackend(name, endpoint string, in io.Reader, out io.Writer) error {
	// Ctrl-C in a terminal goes to every process there; this one waits for the door to end. To be told and not to listen works on
	// Windows too, where signal.Ignore does not.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)

	l, err := ipc.Listen(endpoint)
	if err != nil {
		return err
	}
	handed := newHandedListener(l)
	server := &http.Server{Handler: answering(name), ConnContext: rememberDoor, ReadHeaderTimeout: headTimeout}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(handed) }()
	if _, err := io.WriteString(out, readyLine); err != nil {
		return errors.Join(err, server.Close())
	}

	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, in)
		close(ended)
	}()
	select {
	case err := <-failed:
		return errors.Join(err, server.Close())
	case <-ended:
		return server.Close()
	}
}

// answer is what a backend says of itself and of the connection that it was asked on.
type answer struct {
	Backend string `json:"backend"`
	PID     int    `json:"pid"`
	DoorPID int    `json:"door_pid"` // who handed the connection over, by the kernel's word
	Client  string `json:"client"`   // the other end of the connection, as this process sees it
}

func answering(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		door, _ := r.Context().Value(doorKey{}).(int)
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer{Backend: name, PID: os.Getpid(), DoorPID: door, Client: r.RemoteAddr})
	})
}

// doorKey is where a request's context has the pid of the door.
type doorKey struct{}

func rememberDoor(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(handedConn); ok {
		return context.WithValue(ctx, doorKey{}, c.door)
	}
	return ctx
}

// handedConn is a connection that another process accepted.
type handedConn struct {
	*ipc.PrefixConn
	door int // the pid of that process
}

// handedListener is a net.Listener of the connections that come as messages over the channels of an endpoint.
type handedListener struct {
	l      *ipc.Listener
	conns  chan handedConn
	closed chan struct{}
	once   sync.Once
}

var _ net.Listener = (*handedListener)(nil)

// newHandedListener takes over l.
func newHandedListener(l *ipc.Listener) *handedListener {
	h := &handedListener{l: l, conns: make(chan handedConn), closed: make(chan struct{})}
	go h.acceptChannels()
	return h
}

// Accept returns the next connection that was handed over. It is a handedConn, and the caller's to close.
func (h *handedListener) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and the endpoint. Channels end with the process. A second Close does nothing.
func (h *handedListener) Close() error {
	err := error(nil)
	h.once.Do(func() {
		close(h.closed)
		err = h.l.Close()
	})
	return err
}

// Addr returns the endpoint.
func (h *handedListener) Addr() net.Addr { return h.l.Addr() }

func (h *handedListener) acceptChannels() {
	defer h.Close()
	for {
		ch, err := h.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			complain(err)
			return
		}
		go h.receiveAll(ch)
	}
}

// receiveAll takes over ch and passes on every connection that comes with it.
func (h *handedListener) receiveAll(ch *ipc.Conn) {
	defer ch.Close()
	peer, err := ch.Peer()
	if err != nil {
		complain(err)
		return
	}
	for {
		m, err := ch.Receive()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			complain(err)
			return
		}
		if err := h.passOn(m, peer.PID); err != nil {
			complain(err)
		}
	}
}

// passOn takes over m, and gives the connection in it to Accept.
func (h *handedListener) passOn(m *ipc.Message, door int) error {
	defer m.Close() // closes what was not taken
	if n := len(m.Attachments()); n != 1 {
		return fmt.Errorf("the door sent a message with %d connections instead of one", n)
	}
	conn, err := m.Attachments()[0].Conn()
	if err != nil {
		return err
	}
	select {
	case h.conns <- handedConn{PrefixConn: ipc.NewPrefixConn(conn, m.Data), door: door}:
		return nil
	case <-h.closed:
		return conn.Close()
	}
}
