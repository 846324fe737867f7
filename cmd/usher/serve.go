package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/door"
	"github.com/go-usher/usher/internal/systemd"
	"github.com/spf13/cobra"
)

func newServeCommand() *cobra.Command {
	var s server
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the front door",
		Long: `Run the front door: accept connections, learn from their first bytes what they want, and hand each
to the process that should serve it.

Without --config every connection goes to the endpoint of its own host's name, by TLS server name or HTTP
host; --listen says where clients connect (default :8080).

The configuration is loaded anew on SIGHUP and when its file changes. One that is wrong is refused, and the
old one stays. SIGTERM and SIGINT end the door when the connections that it still has are done, or when
shutdown_timeout is over; a second one ends it at once.`,
		Example: `  usher serve --listen :80 --listen :443
  usher serve --config /etc/usher/usher.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.path != "" && len(s.listen) > 0 {
				return errors.New("give --config or --listen: with a configuration the listeners are in its file")
			}
			s.err = cmd.ErrOrStderr()
			return s.run()
		},
	}
	cmd.Flags().StringVarP(&s.path, "config", "c", "", "configuration `FILE`")
	cmd.Flags().StringArrayVar(&s.listen, "listen", nil, "`ADDR` at which clients connect; may be given several times")
	cmd.MarkFlagFilename("config", "yaml", "yml")
	return cmd
}

// server is the door as a process: what goes on between it, its file, its signals and systemd.
type server struct {
	path   string
	listen []string
	err    io.Writer

	config *config.Config // in force
	level  slog.LevelVar
	log    *slog.Logger
	door   *door.Door
	notify systemd.Notifier
}

func (s *server) run() error {
	// Before anything else: a signal that comes while the door starts ends it as it does later.
	ends, reloads := make(chan os.Signal, 2), make(chan os.Signal, 1) // apart: many of one must not crowd out the other
	signal.Notify(ends, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(ends)
	if len(reloadSignals) > 0 { // Notify would take none for all
		signal.Notify(reloads, reloadSignals...)
		defer signal.Stop(reloads)
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	changed, watchErr := s.watch(ctx) // before it is read, so that no change goes unseen
	var err error
	if s.config, err = s.load(); err != nil {
		return err
	}
	defer s.startLog(&s.config.Log).close(logPatience)
	if watchErr != nil {
		s.log.Warn("the configuration file is not watched; use SIGHUP", "error", watchErr)
	}
	passed, err := systemd.Listeners()
	if err != nil {
		return err
	}
	s.door, err = door.Start(door.Options{
		Config: s.config, ConfigPath: s.path, Log: s.log, Passed: passed, Version: buildVersion(),
	})
	if err != nil {
		return err
	}
	s.settle()
	s.notify.Ready(s.summary())

	go s.notify.Watch(ctx, s.healthy)
	return s.shutdown(ends, s.serve(changed, reloads, ends))
}

// load reads the configuration.
func (s *server) load() (*config.Config, error) {
	if s.path != "" {
		return config.Load(s.path)
	}
	if len(s.listen) == 0 {
		return config.Default(), nil
	}
	yaml := "auto_routes: true\nlisteners:\n"
	for _, address := range s.listen {
		yaml += fmt.Sprintf("  - {address: %q}\n", address)
	}
	return config.Parse("--listen", []byte(yaml))
}

// bigFile is how many bytes of configuration make the door's heap a large one. To load a file takes more than 100 times
// its size, of which a third is kept.
const bigFile = 100 << 10

// settle is for when a configuration has been loaded, or was wrong. A large one has what loading it took given back to
// the system. With any other the door's heap is small, and what a connection leaves there is garbage at once, to be
// collected less often; not so seldom, though, that garbage makes the door grow while idle connections are made
// (doc/performance.md).
func (s *server) settle() {
	if info, err := os.Stat(s.path); err == nil && info.Size() > bigFile {
		debug.FreeOSMemory()
		return
	}
	setGCPercent(200)
}

// unsettle is for before one is loaded, which makes more garbage than anything else.
func (s *server) unsettle() { setGCPercent(100) }

// setGCPercent is debug.SetGCPercent where the environment does not say better.
func setGCPercent(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// logPatience is for whoever reads the log to read it to its end.
const logPatience = time.Second

func (s *server) startLog(c *config.Log) *logWriter {
	s.setLevel(c)
	w := newLogWriter(s.err)
	options := &slog.HandlerOptions{Level: &s.level}
	if c.Format == "json" {
		s.log = slog.New(slog.NewJSONHandler(w, options))
	} else {
		s.log = slog.New(slog.NewTextHandler(w, options))
	}
	s.notify.Failed = func(err error) { s.log.Warn("systemd", "error", err) }
	return w
}

func (s *server) setLevel(c *config.Log) {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // package config has checked it
	s.level.Set(level)
}

// watch tells of changes of the configuration file.
func (s *server) watch(ctx context.Context) (<-chan struct{}, error) {
	if s.path == "" {
		return nil, nil
	}
	changed := make(chan struct{}, 1)
	err := config.Watch(ctx, s.path, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	return changed, err
}

// serve reloads when it is asked to, and returns with the signal that ends the door.
func (s *server) serve(changed <-chan struct{}, reloads, ends <-chan os.Signal) os.Signal {
	for {
		select { // an end first, whatever else there is
		case sig := <-ends:
			return sig
		default:
		}
		select {
		case sig := <-ends:
			return sig
		case <-reloads:
			s.reload("signal")
		case <-changed:
			s.reload("the file has changed")
		}
	}
}

// reload loads the configuration anew. If it is wrong the old one stays.
func (s *server) reload(why string) {
	s.notify.Reloading()
	defer func() { s.notify.Ready(s.summary()) }()
	s.unsettle()
	defer s.settle()
	c, err := s.load()
	if err != nil {
		s.door.ReloadFailed(err)
	} else if err = s.door.Reload(c); err == nil {
		s.config = c
		s.setLevel(&c.Log)
		s.log.Info("configuration loaded", "reason", why, "listeners", len(c.Listeners), "routes", len(c.Routes))
		return
	}
	s.log.Error("configuration not loaded; the old one stays", "reason", why, "error", err)
}

// summary is what systemctl status shows.
func (s *server) summary() string {
	st := s.door.Status()
	text := fmt.Sprintf("listeners: %d, routes: %d", len(st.Listeners), len(st.Routes))
	if st.Config.Error != "" {
		text += "; the last configuration was wrong: " + st.Config.Error
	}
	return text
}

// healthy is for the watchdog: a door that cannot tell its status has locked up.
func (s *server) healthy() error {
	s.door.Status()
	return nil
}

// shutdown lets the door's connections end, unless another signal comes.
func (s *server) shutdown(ends <-chan os.Signal, why os.Signal) error {
	s.notify.Stopping()
	s.log.Info("shutting down", "signal", why.String(), "timeout", s.config.ShutdownTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), s.config.ShutdownTimeout)
	defer cancel()
	go func() {
		select {
		case <-ends:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := s.door.Shutdown(ctx); err != nil {
		return err
	}
	s.log.Info("shut down")
	return nil
}
