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
	"time"

	"github.com/go-usher/usher"
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

	l, err := usher.Listen(endpoint)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: answering(name), ConnContext: rememberDoor, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
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
	if c, ok := c.(*usher.Conn); ok {
		return context.WithValue(ctx, doorKey{}, c.Giver().PID)
	}
	return ctx
}
