package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/door"
	"github.com/spf13/cobra"
)

// demoNames are the backends of the demo. The door knows each by the host NAME.localhost, which browsers resolve by themselves.
var demoNames = []string{"red", "blue"}

func demoHost(name string) string { return name + ".localhost" }

func newDemoCommand() *cobra.Command {
	var requests int
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a front door and two backend processes on this machine",
		Long: `Run a front door and two backend processes, red and blue, on a free port of the loopback address.

The door reads the first bytes of each connection, learns the host, and hands the live connection
to the backend of that name. The backend answers the client itself and says in its answer which
process it is.

Without --requests the demo runs until it is interrupted. With --requests N it makes N requests,
checks every answer, prints a summary and ends; it exits with 1 if any request was lost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("requests") {
				return runDemo(cmd.OutOrStdout(), untilInterrupted)
			}
			if requests < 1 {
				return fmt.Errorf("--requests must be at least 1, not %d", requests)
			}
			return runDemo(cmd.OutOrStdout(), func(ctx context.Context, out io.Writer, d *demo) error {
				return d.makeRequests(ctx, out, requests)
			})
		},
	}
	cmd.Flags().IntVar(&requests, "requests", 0, "make this many requests, print a summary and end")
	return cmd
}

// demo is a running front door with its backends.
type demo struct {
	addr     string // of the door
	backends []*backend
}

// runDemo starts everything, lets use do what the demo is for, and ends everything again.
func runDemo(out io.Writer, use func(context.Context, io.Writer, *demo) error) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	dir, err := socketDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	backends, err := startBackends(ctx, dir)
	defer stopBackends(backends)
	if err != nil {
		if ctx.Err() != nil {
			return nil // interrupted while starting: the user wants it gone, which it is
		}
		return err
	}

	front, err := openDoor(backends)
	if err != nil {
		return err
	}
	defer shutDoor(front)
	d := &demo{addr: front.Status().Listeners[0].Address, backends: backends}
	d.introduce(out)
	return use(ctx, out, d)
}

func startBackends(ctx context.Context, dir string) ([]*backend, error) {
	var backends []*backend
	for _, name := range demoNames {
		b, err := startBackend(ctx, name, demoEndpoint(dir, name))
		if err != nil {
			return backends, fmt.Errorf("cannot start backend %s: %w", name, err)
		}
		backends = append(backends, b)
	}
	return backends, nil
}

// stopBackends asks all before it waits for any.
func stopBackends(backends []*backend) {
	for _, b := range backends {
		b.askToEnd()
	}
	for _, b := range backends {
		b.waitForEnd()
	}
}

// openDoor opens the door that usher serve opens, with a route for each backend.
func openDoor(backends []*backend) (*door.Door, error) {
	var yaml strings.Builder
	yaml.WriteString("listeners: [{name: demo, address: '127.0.0.1:0'}]\nroutes:\n")
	for _, b := range backends {
		fmt.Fprintf(&yaml, "  - {match: {host: %s}, handoff: %q}\n", demoHost(b.name), b.endpoint)
	}
	c, err := config.Parse("demo", []byte(yaml.String()))
	if err != nil {
		return nil, err
	}
	return door.Start(door.Options{Config: c, Version: buildVersion()})
}

// shutDoor waits a moment for clients that are about to be handed over.
func shutDoor(d *door.Door) {
	ctx, cancel := context.WithTimeout(context.Background(), shutTimeout)
	defer cancel()
	_ = d.Shutdown(ctx) // the rest are clients that have not said what they want, and the demo is over
}

const shutTimeout = 100 * time.Millisecond

// introduce says who is running.
func (d *demo) introduce(out io.Writer) {
	fmt.Fprintf(out, "front door    pid %-8d http://%s/\n", os.Getpid(), d.addr)
	for _, b := range d.backends {
		fmt.Fprintf(out, "%-13s pid %-8d Host: %s\n", "backend "+b.name, b.pid(), demoHost(b.name))
	}
	fmt.Fprintln(out)
}

// untilInterrupted says how to try the demo and leaves it to the user.
func untilInterrupted(ctx context.Context, out io.Writer, d *demo) error {
	fmt.Fprintln(out, "Try it:")
	for _, name := range demoNames {
		fmt.Fprintf(out, "  curl -H %s http://%s/\n", quote("Host: "+demoHost(name)), d.addr)
	}
	fmt.Fprintln(out, "\nEach answer comes from the process it names: the door gave it the connection and is out of the way.")
	fmt.Fprintln(out, "Press Ctrl-C to end the demo.")

	var mourners sync.WaitGroup
	for _, b := range d.backends {
		mourners.Go(func() { reportDeath(ctx, b) })
	}
	mourners.Wait()
	<-ctx.Done() // the door stays open though both backends are dead: its answers say so
	return nil
}

// reportDeath says so if a backend ends before the demo does.
func reportDeath(ctx context.Context, b *backend) {
	select {
	case <-ctx.Done():
	case <-b.ended:
		complain(b.deathNotice())
	}
}

// quote quotes for the shell that the user most likely has.
func quote(s string) string {
	if runtime.GOOS == "windows" {
		return `"` + s + `"` // cmd.exe knows no other
	}
	return "'" + s + "'"
}

// maxSocketDir leaves room for the longest name in a socket's address, which has 104 bytes on macOS and the BSDs.
const maxSocketDir = 104 - 1 - len("/blue.sock")

// socketDir makes a private folder for the sockets. On Windows pipes need none, but an empty one does no harm.
func socketDir() (string, error) {
	dir, err := os.MkdirTemp("", "usher-demo-")
	if err != nil {
		return "", fmt.Errorf("cannot make a folder for the sockets: %w", err)
	}
	if runtime.GOOS == "windows" || len(dir) <= maxSocketDir {
		return dir, nil
	}
	if err := os.Remove(dir); err != nil {
		return "", err
	}
	return os.MkdirTemp("/tmp", "usher-demo-") // $TMPDIR is too long for a socket
}

func demoEndpoint(dir, name string) string {
	if runtime.GOOS == "windows" {
		return fmt.Sprintf(`\\.\pipe\usher\demo-%d-%s`, os.Getpid(), name)
	}
	return filepath.Join(dir, name+".sock")
}
