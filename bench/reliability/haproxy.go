//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/go-usher/usher/bench/internal/processes"
)

var haproxy = contender{
	name: "haproxy", title: "HAProxy",
	start: startHAProxy,
	disturbances: []disturbance{
		{name: "reload", title: "configuration reloaded", times: 20, few: 3, pause: time.Second, do: reloadHAProxy},
		{name: "kill", title: "worker killed, restarted after 0.1 s", times: 20, few: 3, pause: time.Second,
			start: startHAProxyActivated, do: killHAProxy},
		{name: "replace", title: "backend replaced", times: 100, few: 10, pause: 300 * time.Millisecond, do: replaceBackend},
	},
}

// haproxyConfig is what goes into rivals/haproxy.cfg.
type haproxyConfig struct {
	MaxConn   int
	HTTP, TLS string // where it listens
	Backends  []tcpBackend
}

// tcpBackend is a backend that listens on sockets of ours, so that another can take its place and no client of it, in
// the kernel's queue or not, is lost.
type tcpBackend struct {
	Host, HTTP, TLS string
	sockets         []*os.File
}

// startBackends starts a backend for each host, which a proxy connects to.
func (r *running) startBackends() ([]tcpBackend, error) {
	var all []tcpBackend
	for _, host := range hosts {
		b := tcpBackend{Host: host}
		var err error
		if b.sockets, b.HTTP, b.TLS, err = r.listenTwice(); err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	r.replace = func(host string) error { return r.startBackend(all[slices.Index(hosts, host)]) }
	for _, host := range hosts {
		if err := r.replace(host); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// startBackend starts a backend, and has the one end that has served until then.
func (r *running) startBackend(b tcpBackend) error {
	p, _, err := r.Play("backend", b.sockets, b.Host)
	if err != nil {
		return err
	}
	old := r.serving[b.Host]
	r.backends = append(r.backends, p)
	r.serving[b.Host] = p
	if old == nil {
		return nil
	}
	return old.Signal(syscall.SIGTERM)
}

func startHAProxy(_ context.Context, r *running) (err error) {
	if r.http, r.tls, err = processes.FreeAddresses(); err != nil {
		return err
	}
	return r.startHAProxy(haproxyConfig{HTTP: r.http, TLS: r.tls})
}

// startHAProxyActivated has it listen on sockets that stay when it has gone.
func startHAProxyActivated(_ context.Context, r *running) error {
	if err := r.listen(); err != nil {
		return err
	}
	return r.startHAProxy(haproxyConfig{HTTP: "fd@3", TLS: "fd@4"})
}

func (r *running) startHAProxy(c haproxyConfig) (err error) {
	if _, err = processes.Installed("haproxy"); err != nil {
		return err
	}
	if c.Backends, err = r.startBackends(); err != nil {
		return err
	}
	// It does not start unless it may have two descriptors for each connection, two for each pipe, and some more.
	c.MaxConn = min(20000, (processes.Descriptors()-700)/2)
	if r.config, err = r.Write(rivals, "haproxy.cfg", c); err != nil {
		return err
	}
	r.restart = r.startMaster
	return r.restart()
}

func (r *running) startMaster() (err error) {
	cmd := exec.Command("haproxy", "-W", "-f", r.config)
	cmd.ExtraFiles = r.sockets
	if r.front, err = r.Launch(cmd); err != nil {
		return err
	}
	r.master = r.front.Pid
	return nil
}

// reloadHAProxy has the master start a new worker, which takes the sockets over from the old one.
func reloadHAProxy(ctx context.Context, r *running, _ int) error {
	return r.newWorkers(ctx, func([]int) error { return r.front.Signal(syscall.SIGUSR2) })
}

// newWorkers does something that has the master start new workers, and waits for them.
func (r *running) newWorkers(ctx context.Context, do func(old []int) error) error {
	old, _ := processes.Children(r.master)
	if err := do(old); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, processes.StartTimeout)
	defer cancel()
	return r.Await(ctx, func() error {
		now, _ := processes.Children(r.master)
		if slices.ContainsFunc(now, func(pid int) bool { return !slices.Contains(old, pid) }) {
			return nil
		}
		return fmt.Errorf("its workers are still the old ones, %v", old)
	})
}

// killHAProxy kills the process that has the connections. The master ends when a worker has died, and is started again.
func killHAProxy(ctx context.Context, r *running, _ int) error {
	workers, err := r.front.Workers()
	if err != nil {
		return err
	}
	kill(workers)
	<-r.front.Ended
	if err := sleep(ctx, downtime); err != nil {
		return err
	}
	return r.restart()
}

func kill(pids []int) {
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}
