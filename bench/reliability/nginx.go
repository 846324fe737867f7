//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/go-usher/usher/bench/internal/processes"
)

var nginx = contender{
	name: "nginx", title: "nginx",
	start: startNginx,
	disturbances: []disturbance{
		{name: "reload", title: "configuration reloaded", times: 20, few: 3, pause: time.Second, do: reloadNginx},
		// Not again: it refuses while connections last that are older than the upgrade before.
		{name: "upgrade", title: "program upgraded", times: 1, few: 1, pause: 10 * time.Second, do: upgradeNginx},
		{name: "kill", title: "workers killed, restarted at once", times: 20, few: 3, pause: time.Second, do: killNginx},
		{name: "replace", title: "backend replaced", times: 100, few: 10, pause: 300 * time.Millisecond, do: replaceBackend},
	},
}

// nginxConfig is what goes into rivals/nginx.conf.
type nginxConfig struct {
	Root      bool   // it runs as root, and has to be told to stay so
	Module    string // of the stream, where that is a file of its own
	HTTP, TLS string // addresses
	Backends  []tcpBackend
}

// starter starts nginx as an orphan in its own process group. One that has the parent that it was started by ignores
// what asks it to start its new program; and one that made itself a daemon would leave the group, which ends with us.
const starter = `sh -c '"$0" -p . -c nginx.conf -e stderr & while kill -0 $! && ! test -s nginx.pid; do sleep 0.01; done' "$0"
exec sleep infinity`

func startNginx(ctx context.Context, r *running) error {
	program, err := processes.Installed("nginx")
	if err != nil {
		return err
	}
	c := nginxConfig{Root: os.Geteuid() == 0}
	if c.Module, err = processes.NginxStreamModule(program); err != nil {
		return err
	}
	if c.Backends, err = r.startBackends(); err != nil {
		return err
	}
	if r.http, r.tls, err = processes.FreeAddresses(); err != nil {
		return err
	}
	c.HTTP, c.TLS = r.http, r.tls
	if _, err := r.Write(rivals, "nginx.conf", c); err != nil {
		return err
	}
	if _, err = r.Start("sh", "-c", starter, program); err != nil {
		return err
	}
	return r.awaitNginx(ctx, 0)
}

// awaitNginx waits until a master that is not the old one has workers, and makes it the one in front.
func (r *running) awaitNginx(ctx context.Context, old int) error {
	ctx, cancel := context.WithTimeout(ctx, processes.StartTimeout)
	defer cancel()
	return r.Await(ctx, func() error {
		text, err := os.ReadFile(filepath.Join(r.Dir, "nginx.pid"))
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
		if err != nil {
			return err
		}
		workers, _ := processes.Children(pid)
		if pid == old || len(workers) == 0 {
			return fmt.Errorf("process %d has %d workers, the old one was %d", pid, len(workers), old)
		}
		r.master = pid
		return nil
	})
}

// reloadNginx has the master start new workers.
func reloadNginx(ctx context.Context, r *running, _ int) error {
	return r.newWorkers(ctx, func([]int) error { return syscall.Kill(r.master, syscall.SIGHUP) })
}

// killNginx kills the processes that have the connections. The master starts others at once.
func killNginx(ctx context.Context, r *running, _ int) error {
	return r.newWorkers(ctx, func(workers []int) error {
		kill(workers)
		return nil
	})
}

// upgradeNginx does it as the documentation has it: https://nginx.org/en/docs/control.html, "Upgrading Executable on the
// Fly".
func upgradeNginx(ctx context.Context, r *running, _ int) error {
	old := r.master
	if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
		return err
	}
	if err := r.awaitNginx(ctx, old); err != nil {
		return err
	}
	for _, s := range []syscall.Signal{syscall.SIGWINCH, syscall.SIGQUIT} {
		if err := syscall.Kill(old, s); err != nil {
			return err
		}
	}
	return nil
}
