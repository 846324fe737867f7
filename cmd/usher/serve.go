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
shutdown_timeout is over; a second one ends it at once.

With --takeover the door serves in the place of the one that runs, if one does at the control endpoint: it takes over
its listening sockets, and what clients wait in their queues. The old one serves on until the new one is ready, and ends when
the connections that it still has are done. See usher upgrade.`,
		Example: `  usher serve --listen :80 --listen :443
  usher serve --config /etc/usher/usher.yaml
  usher serve --config /etc/usher/usher.yaml --takeover`,
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
	cmd.Flags().StringVar(&s.control, "control", "", "control endpoint, `NAME` or path, in the place of the configuration's")
	cmd.Flags().BoolVar(&s.takeover, "takeover", false, "serve in the place of the door that runs")
	cmd.MarkFlagFilename("config", "yaml", "yml")
	return cmd
}

// server is the door as a process: what goes on between it, its file, its signals and systemd.
type server struct {
	path     string
	listen   []string
	control  string
	takeover bool
	err      io.Writer

	program string         // to start a successor with
	alone   error          // why there is no door to take over from, if there should be one
	config  *config.Config // in force
	level   slog.LevelVar
	log     *slog.Logger
	door    *door.Door
	notify  systemd.Notifier
}

func (s *server) run() (err error) {
	// Before anything else: a signal that comes while the door starts ends it as it does later.
	ends, reloads := make(chan os.Signal, 2), make(chan os.Signal, 1) // apart: many of one must not crowd out the other
	signal.Notify(ends, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(ends)
	if len(reloadSignals) > 0 { // Notify would take none for all
		signal.Notify(reloads, reloadSignals...)
		defer signal.Stop(reloads)
	}
	if s.program, err = program(); err != nil { // before it can be replaced
		return err
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	changed, watchErr := s.watch(ctx) // before it is read, so that no change goes unseen
	starting, started := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer started()
	before, err := s.takeOver(starting) // before it is read: the running door is to hear what is wrong with it
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			before.Fail(err)
		}
	}()
	if s.config, err = s.load(); err != nil {
		return err
	}
	defer s.startLog(&s.config.Log).close(logPatience)
	if s.alone != nil {
		s.log.Info("there is no door to take over from; this one starts by itself", "error", s.alone)
	}
	if watchErr != nil {
		s.log.Warn("the configuration file is not watched; use SIGHUP", "error", watchErr)
	}
	if err := s.open(before); err != nil {
		return err
	}
	started()

	go s.notify.Watch(ctx, s.healthy)
	why := s.serve(changed, reloads, ends)
	if why == nil {
		cancel() // what this process would tell systemd is the other's to tell now
		return s.leave(ends)
	}
	return s.shutdown(ends, why)
}

// open starts the door, in the place of another if before is not nil.
func (s *server) open(before *door.Predecessor) error {
	passed, stored, err := s.notify.Passed(addresses(s.config))
	if err != nil {
		return err
	}
	o := door.Options{
		Config: s.config, ConfigPath: s.path, Log: s.log, Passed: passed, Stored: stored, Version: buildVersion(),
		Control: s.control, Predecessor: before, Successor: s.successor, MainPID: s.notify.MainPID,
	}
	if s.alone != nil {
		o.AddressWait = addressWait
	}
	if s.door, err = door.Start(o); err != nil {
		return err
	}
	s.settle()
	s.notify.Ready(s.summary())
	for _, address := range before.Unused() { // which systemd has since it was the running door's
		s.notify.Remove(address)
	}
	s.notify.Keep(s.door.Sockets())
	return nil
}

// addressWait is for a door that has just ended, from which there is nothing to take over any more, to close its sockets.
const addressWait = 3 * time.Second

// addresses are those of a configuration's listeners.
func addresses(c *config.Config) []string {
	var all []string
	for _, l := range c.Listeners {
		all = append(all, l.Address)
	}
	return all
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

// serve reloads when it is asked to, and returns with the signal that ends the door, or nil if another door serves in its
// place.
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
		case <-s.door.Replaced():
			return nil
		case <-s.door.ReloadMissed():
			s.reload("no other door has taken over")
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
		s.notify.Keep(s.door.Sockets())
		s.log.Info("configuration loaded", "reason", why, "listeners", len(c.Listeners), "routes", len(c.Routes))
		return
	}
	if errors.Is(err, door.ErrUpgrading) { // which loads it
		s.log.Info("configuration not loaded", "reason", why, "error", err)
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
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.log.Info("shutting down", "signal", why.String(), "timeout", s.config.ShutdownTimeout)
	go s.bound(ctx, cancel, ends)
	if err := s.door.Shutdown(ctx); err != nil {
		return err
	}
	s.log.Info("shut down")
	return nil
}

// leave lets the door's connections end, however long that takes, now that another door serves; after a signal as shutdown
// does.
func (s *server) leave(ends <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case why := <-ends:
			if s.door.Orphaned() { // nobody serves, and systemd waits for this one before it starts another
				s.log.Warn("the door that served in the place of this one has ended; so this one ends at once", "signal", why.String())
				cancel()
				return
			}
			s.log.Info("shutting down", "signal", why.String(), "timeout", s.config.ShutdownTimeout)
			s.bound(ctx, cancel, ends)
		case <-ctx.Done():
		}
	}()
	if err := s.door.Shutdown(ctx); err != nil {
		return err
	}
	s.log.Info("shut down", "reason", "all connections have ended that another door did not take over")
	return nil
}

// bound cancels ctx when shutdown_timeout is over or another signal comes.
func (s *server) bound(ctx context.Context, cancel func(), ends <-chan os.Signal) {
	late := time.NewTimer(s.config.ShutdownTimeout)
	defer late.Stop()
	select {
	case <-ends:
	case <-late.C:
	case <-ctx.Done():
	}
	cancel()
}
