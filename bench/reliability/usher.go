//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-usher/usher/bench/internal/processes"
)

var theUsher = contender{
	name: "usher", title: "usher",
	start: startUsher,
	disturbances: []disturbance{
		{name: "upgrade", title: "door upgraded", times: 20, few: 3, pause: time.Second, do: upgrade},
		{name: "hand-back", title: "door upgraded, connections given back", times: 20, few: 3, pause: time.Second, twoHosts: true, do: upgrade},
		{name: "reload", title: "configuration reloaded", times: 20, few: 3, pause: time.Second, do: reload},
		{name: "failed-upgrade", title: "upgrade fails", times: len(failures), few: 3, pause: time.Second, do: failUpgrade},
		{name: "kill", title: "door killed, restarted after 0.1 s", times: 20, few: 3, pause: time.Second, do: killDoor},
		{name: "replace", title: "backend replaced", times: 100, few: 10, pause: 300 * time.Millisecond, do: replaceBackend},
	},
}

// usherProxy is the same door where it copies, as HAProxy and nginx do: only its old process has such connections.
var usherProxy = contender{
	name: "usher-proxy", title: "usher, proxying",
	start:        startUsherProxy,
	disturbances: theUsher.disturbances[:1],
}

// downtime is how long a supervisor waits before it starts a process again that was killed: RestartSec of systemd.
const downtime = 100 * time.Millisecond

// usherRoute is one of those that go into rivals/usher.yaml.
type usherRoute struct{ Name, Host, Listener, Target string }

// startUsher has a door and its takers serve.
func startUsher(_ context.Context, r *running) error {
	var routes []usherRoute
	for _, host := range hosts {
		if err := r.startTaker(host); err != nil {
			return err
		}
		routes = append(routes, usherRoute{host, host, "http", "handoff: " + host},
			usherRoute{host + "-tls", host, "tls", "handoff: " + host + "-tls"})
	}
	r.replace = r.startTaker
	return r.startUsher(routes)
}

// startUsherProxy has a door connect to backends.
func startUsherProxy(_ context.Context, r *running) error {
	backends, err := r.startBackends()
	if err != nil {
		return err
	}
	var routes []usherRoute
	for _, b := range backends {
		routes = append(routes, usherRoute{b.Host, b.Host, "http", `proxy: "` + b.HTTP + `"`},
			usherRoute{b.Host + "-tls", b.Host, "tls", `proxy: "` + b.TLS + `"`})
	}
	return r.startUsher(routes)
}

// startUsher starts the door. This process is its supervisor: it has the listening sockets.
func (r *running) startUsher(routes []usherRoute) (err error) {
	if err := r.listen(); err != nil {
		return err
	}
	if err := r.copyUsher(); err != nil {
		return err
	}
	if r.config, err = r.Write(rivals, "usher.yaml", routes); err != nil {
		return err
	}
	r.restart = r.startDoor
	return r.restart()
}

// startTaker starts a taker for a host, in place of the one that serves now.
func (r *running) startTaker(host string) error {
	p, _, err := r.Play("backend", nil, "-endpoint", host, host)
	if err != nil {
		return err
	}
	r.backends = append(r.backends, p)
	r.serving[host] = p
	return nil
}

// startDoor starts the door as systemd does that has its sockets: sd_listen_fds(3).
func (r *running) startDoor() (err error) {
	cmd := exec.Command(r.Self, "role", "activated", r.program, "serve", "--config", r.config)
	cmd.Env = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(r.sockets)), "LISTEN_FDNAMES=http:tls")
	cmd.ExtraFiles = r.sockets
	r.front, err = r.Launch(cmd)
	return err
}

// copyUsher copies usher's program into the crew's folder, where it can be replaced.
func (r *running) copyUsher() error {
	compiled, err := r.CompiledUsher()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(compiled)
	if err != nil {
		return err
	}
	r.program = filepath.Join(r.Dir, "usher")
	return os.WriteFile(r.program, program, 0o700)
}

// playActivated becomes the program that its arguments name. The sockets are for the process whose ID is in LISTEN_PID,
// which nobody knows before it is there.
func playActivated(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: activated PROGRAM [ARGUMENT…]")
	}
	if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	return syscall.Exec(args[0], args, os.Environ())
}

// command runs usher, and returns what it has written.
func (r *running) command(ctx context.Context, args ...string) (string, error) {
	program, err := r.CompiledUsher()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "USHER_DIR="+r.Dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func upgrade(ctx context.Context, r *running, _ int) error {
	if out, err := r.command(ctx, "upgrade", "--config", r.config); err != nil {
		return fmt.Errorf("usher upgrade: %w: %s", err, out)
	}
	return nil
}

// reload has the door load its configuration anew, and waits until it says that it has.
func reload(ctx context.Context, r *running, _ int) error {
	loaded := func() int { return strings.Count(r.front.Said(), `msg="configuration loaded"`) }
	before := loaded()
	if err := r.front.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, processes.StartTimeout)
	defer cancel()
	return r.Await(ctx, func() error {
		if loaded() == before {
			return errors.New("it has not loaded its configuration")
		}
		return nil
	})
}

func killDoor(ctx context.Context, r *running, _ int) error {
	r.front.Kill()
	<-r.front.Ended
	if err := sleep(ctx, downtime); err != nil {
		return err
	}
	return r.restart()
}
