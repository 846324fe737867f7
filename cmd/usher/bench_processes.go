package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/bench"
	"github.com/spf13/cobra"
)

// Listeners of doors and backends alike.
const (
	benchHTTP = "http"
	benchTLS  = "tls"
)

// startDirect starts a backend that clients connect to.
func startDirect(ctx context.Context) (*bench.Running, error) {
	b := &benchRun{}
	return b.start(ctx, func() error {
		return b.startBackend(ctx)
	})
}

// startHandingOver starts a backend and a door that hands connections over to it.
func startHandingOver(ctx context.Context) (*bench.Running, error) {
	b := &benchRun{}
	return b.start(ctx, func() error {
		endpoints := []string{demoEndpoint(b.dir, benchHTTP), demoEndpoint(b.dir, benchTLS)}
		if err := b.startBackend(ctx, endpoints...); err != nil {
			return err
		}
		return b.startDoor(ctx, "handoff", endpoints[0], endpoints[1])
	})
}

// startProxying starts a backend and a door that proxies.
func startProxying(ctx context.Context) (*bench.Running, error) {
	b := &benchRun{}
	return b.start(ctx, func() error {
		if err := b.startBackend(ctx); err != nil {
			return err
		}
		return b.startDoor(ctx, "proxy", b.backend.listens[benchHTTP], b.backend.listens[benchTLS])
	})
}

// benchRun is what one contender runs. The door is nil if there is none.
type benchRun struct {
	dir           string // for sockets and the configuration
	backend, door *benchProcess
}

// start starts the processes and waits until they serve. If it cannot, nothing is left.
func (b *benchRun) start(ctx context.Context, processes func() error) (_ *bench.Running, err error) {
	if b.dir, err = socketDir(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.stop()
		}
	}()
	if err := processes(); err != nil {
		return nil, err
	}
	running := &bench.Running{Backend: []int{b.backend.pid()}, Stop: b.stop}
	front := b.backend
	if b.door != nil {
		front = b.door
		running.Door = []int{b.door.pid()}
	}
	running.HTTP, running.TLS = front.listens[benchHTTP], front.listens[benchTLS]
	return running, awaitAnswers(ctx, running)
}

func (b *benchRun) stop() {
	for _, p := range []*benchProcess{b.door, b.backend} {
		if p != nil {
			p.stop()
		}
	}
	os.RemoveAll(b.dir)
}

func (b *benchRun) startBackend(ctx context.Context, endpoints ...string) (err error) {
	b.backend, err = startBenchProcess(ctx, append([]string{"bench-backend"}, endpoints...)...)
	return err
}

// startDoor starts usher serve with a route for each listener, of the kind that its target is.
func (b *benchRun) startDoor(ctx context.Context, kind, httpTarget, tlsTarget string) (err error) {
	// The limit is far: all clients have one address, and proxied connections stay at the door.
	text := fmt.Sprintf(`listeners:
  - {name: %[1]s, address: '127.0.0.1:0', limits: {per_ip: 1000000}}
  - {name: %[2]s, address: '127.0.0.1:0', limits: {per_ip: 1000000}}
routes:
  - {name: %[1]s, match: {host: %[3]s, listener: %[1]s}, %[4]s: %[5]q}
  - {name: %[2]s, match: {host: %[3]s, listener: %[2]s}, %[4]s: %[6]q}
log: {format: json, access: false}
`, benchHTTP, benchTLS, bench.Host, kind, httpTarget, tlsTarget)
	path := filepath.Join(b.dir, "usher.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	b.door, err = startBenchProcess(ctx, "serve", "--config", path)
	return err
}

// awaitAnswers waits until what runs serves: a door may listen before it has found its backend.
func awaitAnswers(ctx context.Context, r *bench.Running) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := errors.Join(ask(ctx, "http", r.HTTP), ask(ctx, "https", r.TLS))
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not serve: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ask makes one request.
func ask(ctx context.Context, scheme, address string) error {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // the backend has made its certificate itself
		DisableKeepAlives: true,
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+bench.Host+bench.PathSmall, nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || string(body) != bench.SmallBody {
		return fmt.Errorf("status %d, %.100q", response.StatusCode, body)
	}
	return nil
}

// benchProcess is a process of this program that tells where it listens, in a log as serve writes it.
type benchProcess struct {
	cmd     *exec.Cmd
	stdin   io.Closer         // open for as long as a backend should live
	listens map[string]string // addresses by the names of listeners
	ended   chan struct{}     // closed when the process is gone
	last    string            // line of its log; read it after ended
}

// startBenchProcess starts a process and waits until it listens. The caller stops it, unless there is an error.
func startBenchProcess(ctx context.Context, args ...string) (*benchProcess, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Args = append([]string{os.Args[0]}, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &benchProcess{cmd: cmd, stdin: stdin, listens: make(map[string]string), ended: make(chan struct{})}
	listens := make(chan struct{})
	go p.attend(stderr, listens)
	select {
	case <-listens:
		return p, nil
	case <-p.ended:
		err = fmt.Errorf("%s has ended: %s", args[0], p.last)
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(readyTimeout):
		err = fmt.Errorf("%s does not listen after %v", args[0], readyTimeout)
	}
	p.stop()
	return nil, err
}

// attend closes listens when the process listens for HTTP and TLS, and stays with it to its end.
func (p *benchProcess) attend(stderr io.Reader, listens chan<- struct{}) {
	found := make(map[string]string)
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		p.last = lines.Text()
		var said struct{ Msg, Listener, Address string }
		if json.Unmarshal(lines.Bytes(), &said) != nil || said.Msg != listening {
			continue
		}
		found[said.Listener] = said.Address
		if len(found) == 2 {
			p.listens = found
			close(listens)
		}
	}
	io.Copy(io.Discard, stderr) // after a line that was too long, too
	p.cmd.Wait()
	close(p.ended)
}

// listening is what the log of serve says when a listener does.
const listening = "listening"

func (p *benchProcess) pid() int { return p.cmd.Process.Pid }

// stop ends the process, and returns when it is gone. Asked to end, a door would wait for its connections.
func (p *benchProcess) stop() {
	p.stdin.Close()
	p.cmd.Process.Kill()
	<-p.ended
}

// newBenchBackendCommand is what bench runs as its backends: not for people, hence hidden.
func newBenchBackendCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "bench-backend [ENDPOINT TLS-ENDPOINT]",
		Short:  "Serve as a backend of usher bench until stdin ends",
		Hidden: true,
		Args:   cobra.RangeArgs(0, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return serveBenchBackend(args, cmd.InOrStdin(), cmd.ErrOrStderr())
		},
	}
}

// serveBenchBackend serves HTTP and TLS, at TCP ports and at endpoints if there are any. It ends when in does, as it
// does when the process at its other end has died.
func serveBenchBackend(endpoints []string, in io.Reader, log io.Writer) error {
	signal.Notify(make(chan os.Signal, 1), os.Interrupt) // it is the one in front who ends the run

	failed := make(chan error, 4)
	serve := []func(net.Listener) error{bench.Serve, bench.ServeTLS}
	for i, endpoint := range endpoints {
		l, err := usher.Listen(endpoint)
		if err != nil {
			return err
		}
		defer l.Close()
		go func() { failed <- serve[i](l) }()
	}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	for i, name := range []string{benchHTTP, benchTLS} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		go func() { failed <- serve[i](l) }()
		logger.Info(listening, "listener", name, "address", l.Addr().String())
	}
	go func() {
		io.Copy(io.Discard, in)
		failed <- nil
	}()
	return <-failed
}
