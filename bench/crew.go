package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"text/template"
	"time"

	"github.com/go-usher/usher/internal/bench"
)

const (
	startTimeout = 10 * time.Second // for one process; a door with very many routes has longer
	endTimeout   = 3 * time.Second
)

// crew is the processes of one contender, and the folder that they have to themselves.
type crew struct {
	*place
	dir       string
	processes []*process
}

// process is one of them. It leads a process group of its own where there is such a thing, so that an interrupt from
// the terminal reaches the bench alone, and so that whatever it has started ends with it.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer     // open for as long as it should live
	log   string        // the file that has what it said on its standard error
	ended chan struct{} // closed when it is gone
	err   error         // how it ended; read it after ended
}

// start starts a program. What it writes goes to a file in the crew's folder.
func (c *crew) start(program string, args ...string) (*process, error) {
	return c.launch(exec.Command(program, args...))
}

// play starts this program in a role, and returns the words that the role says when it is ready.
func (c *crew) play(role string, args ...string) (*process, []string, error) {
	stdout, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer stdout.Close() // a role says no more than that
	cmd := exec.Command(c.self, append([]string{"role", role}, args...)...)
	cmd.Stdout = w
	p, err := c.launch(cmd)
	w.Close() // the role has its own
	if err != nil {
		return nil, nil, err
	}
	stdout.SetReadDeadline(time.Now().Add(startTimeout)) // without effect on Windows
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, nil, p.failure(fmt.Errorf("it did not say that it is ready: %w", err))
	}
	return p, strings.Fields(line), nil
}

func (c *crew) launch(cmd *exec.Cmd) (*process, error) {
	p := &process{
		cmd:   cmd,
		log:   filepath.Join(c.dir, fmt.Sprintf("%d.log", len(c.processes))),
		ended: make(chan struct{}),
	}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "USHER_DIR="+c.dir)
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	ownGroup(cmd)
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	c.processes = append(c.processes, p)
	c.warden.watch(p.pid())
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// failure adds to err what the process said last, and how it ended if it has.
func (p *process) failure(err error) error {
	select {
	case <-p.ended:
		err = fmt.Errorf("%w; it has ended: %v", err, p.err)
	case <-time.After(100 * time.Millisecond):
	}
	said, _ := os.ReadFile(p.log)
	said = bytes.TrimSpace(said)
	if len(said) > 2000 {
		said = said[len(said)-2000:]
	}
	return fmt.Errorf("%s: %w: %s", filepath.Base(p.cmd.Path), err, said)
}

// stop ends the processes, the last one first, waits for them and removes their folder.
func (c *crew) stop() {
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].stop()
		c.warden.forget(c.processes[i].pid())
	}
	os.RemoveAll(c.dir)
}

func (p *process) stop() {
	p.stdin.Close()
	askToEnd(p.cmd.Process)
	select {
	case <-p.ended:
	case <-time.After(endTimeout):
	}
	endGroup(p.cmd.Process) // it may have gone without its workers
	<-p.ended
}

// write makes a file in the crew's folder of a template in rivals/, and returns its path.
func (c *crew) write(name string, data any) (string, error) {
	t, err := template.ParseFS(rivals, "rivals/"+name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return path, errors.Join(t.Execute(f, data), f.Close())
}

// maxAwaited is how many hosts of a contender that has very many are asked for before it is measured.
const maxAwaited = 100

// await returns when the contender answers rightly, as clients will ask it: for each of its hosts, over HTTP, and over
// TLS if it has that.
func (c *crew) await(ctx context.Context, r *bench.Running) error {
	hosts := r.Hosts
	if len(hosts) == 0 {
		hosts = []string{bench.Host}
	}
	for _, host := range hosts[:min(len(hosts), maxAwaited)] {
		if err := c.awaitURL(ctx, "http://"+r.HTTP+bench.PathSmall, host); err != nil {
			return err
		}
		if r.TLS == "" {
			continue
		}
		if err := c.awaitURL(ctx, "https://"+r.TLS+bench.PathSmall, host); err != nil {
			return err
		}
	}
	return nil
}

func (c *crew) awaitURL(ctx context.Context, url, host string) error {
	client := clientFor(host)
	for {
		err := get(ctx, client, url, host, bench.SmallBody)
		if err == nil {
			return nil
		}
		for _, p := range c.processes {
			select {
			case <-p.ended:
				return p.failure(err)
			default:
			}
		}
		select {
		case <-ctx.Done():
			return c.processes[len(c.processes)-1].failure(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// clientFor returns a client that connects anew for every request and takes any certificate.
func clientFor(host string) *http.Client {
	return &http.Client{Timeout: startTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{ServerName: host, InsecureSkipVerify: true},
	}}
}

// get wants to be answered with body.
func get(ctx context.Context, client *http.Client, url, host, body string) error {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	req.Host = host
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || string(got) != body) {
		err = fmt.Errorf("%s answered %s with %d bytes: %.100q", url, res.Status, len(got), got)
	}
	return err
}

// lastPort is the port that was given away last. They lie below those that the system chooses for clients, which
// would otherwise take them by the thousand.
var lastPort atomic.Uint32

func init() { lastPort.Store(20000 + rand.Uint32N(5000)) }

// freeAddress returns an address of the loopback interface that nobody listens at, for programs that have to be told
// where to listen.
func freeAddress() (string, error) {
	for range 2000 {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+lastPort.Add(1)%12000)
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		return address, l.Close()
	}
	return "", errors.New("no port is free on 127.0.0.1")
}

// freeAddresses returns two: one for HTTP and one for TLS.
func freeAddresses() (http, tls string, err error) {
	http, err = freeAddress()
	if err != nil {
		return "", "", err
	}
	tls, err = freeAddress()
	return http, tls, err
}
