//go:build linux

package usher_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/faults"
)

// chaosLife is what the test knows of a process by itself.
type chaosLife struct {
	serial   int // its number in the run: a pid may come again
	pid      int
	endpoint int   // of a taker; -1 for a giver
	began    int64 // just before it was started
	killedAt int64 // just before it was sent SIGKILL
	endedAt  int64 // just after it was waited for
	killed   bool  // it ended by that signal
}

func (l chaosLife) isGiver() bool { return l.endpoint < 0 }

func (l chaosLife) String() string {
	if l.isGiver() {
		return fmt.Sprintf("giver %d (pid %d)", l.serial, l.pid)
	}
	return fmt.Sprintf("taker %d (pid %d, endpoint %d)", l.serial, l.pid, l.endpoint)
}

// chaosProcess is a process that obeys commands, each a line on its standard input.
type chaosProcess struct {
	chaosLife
	log   string
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *os.File
	lines *bufio.Reader
	ended bool
}

// start starts the taker for an endpoint, or with -1 the giver.
func (r *chaosRun) start(endpoint int, replace bool) (*chaosProcess, error) {
	role := "chaos-taker"
	if endpoint < 0 {
		role = "chaos-giver"
	}
	r.mu.Lock() // held until it has a pid: a client may ask for it at once
	defer r.mu.Unlock()
	serial := len(r.processes)
	p := &chaosProcess{chaosLife: chaosLife{serial: serial, endpoint: endpoint}, log: r.logPath(serial)}
	args := []string{p.log, strconv.Itoa(serial), strconv.FormatUint(r.seed, 10)}
	if endpoint < 0 {
		args = append(args, r.endpoints...)
	} else {
		args = append(args, r.endpoints[endpoint], strconv.FormatBool(replace))
	}
	p.cmd = faults.Command(r.t, role, args...)
	if endpoint < 0 {
		p.cmd.ExtraFiles = []*os.File{r.inherited}
	}
	if err := p.start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", p.chaosLife, err)
	}
	r.processes = append(r.processes, p)
	return p, nil
}

func (p *chaosProcess) start() error {
	// Under the race detector a process would sleep for a second before it exits.
	p.cmd.Env = append(p.cmd.Env, "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p.in, p.out, p.lines = in, out.(*os.File), bufio.NewReader(out)
	p.began = chaosNow()
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.pid = p.cmd.Process.Pid
	return nil
}

// startReady starts a process and waits until it says that it is ready.
func (r *chaosRun) startReady(endpoint int, replace bool) (*chaosProcess, error) {
	p, err := r.start(endpoint, replace)
	if err != nil {
		return nil, err
	}
	return p, p.awaitReady()
}

func (p *chaosProcess) awaitReady() error {
	line, err := p.hear()
	if err == nil && line != "ready" {
		err = fmt.Errorf("%s said %q instead of ready", p.chaosLife, line)
	}
	return err
}

func (p *chaosProcess) hear() (string, error) {
	p.out.SetReadDeadline(time.Now().Add(chaosPatience))
	line, err := p.lines.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s does not speak: %w", p.chaosLife, err)
	}
	return strings.TrimSpace(line), nil
}

func (p *chaosProcess) say(format string, args ...any) error {
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		return fmt.Errorf("%s does not listen: %w", p.chaosLife, err)
	}
	return nil
}

func (p *chaosProcess) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("cannot send %v to %s: %w", s, p.chaosLife, err)
	}
	return nil
}

// kill kills a process. It may have ended by itself just before: wait tells.
func (p *chaosProcess) kill() error {
	p.killedAt = chaosNow()
	return p.signal(syscall.SIGKILL)
}

// wait waits for a process to end, and fails unless it was killed or said that all was well. One that
// hangs shows where.
func (p *chaosProcess) wait() error {
	hangs := time.AfterFunc(chaosPatience, func() { p.cmd.Process.Signal(syscall.SIGQUIT) })
	defer hangs.Stop()
	err := p.cmd.Wait()
	p.ended = true
	p.endedAt = chaosNow()
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	p.killed = p.killedAt != 0 && status.Signaled() && status.Signal() == syscall.SIGKILL
	if p.killed {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s ended by itself: %w", p.chaosLife, err)
	}
	return nil
}

func (p *chaosProcess) killAndWait() error { return errors.Join(p.kill(), p.wait()) }

// startAll starts the takers, then the giver, and waits until it has a channel to each.
func (r *chaosRun) startAll() error {
	for i := range r.current {
		var err error
		if r.current[i], err = r.startReady(r.endpointOf(i), false); err != nil {
			return err
		}
	}
	return r.awaitChannels()
}

// endpointOf is that of a process in r.current.
func (r *chaosRun) endpointOf(i int) int {
	if i == chaosTakers {
		return -1
	}
	return i
}

// stopAll asks all processes that live to end: the giver first, as the takers wait for it to let go of
// what it gave.
func (r *chaosRun) stopAll() {
	for i := len(r.current) - 1; i >= 0; i-- {
		p := r.current[i]
		if p.ended { // a fault found that it was not well, and has said so
			continue
		}
		if err := errors.Join(p.say("shutdown"), p.wait()); err != nil {
			r.fail(err)
		}
	}
}

// killAll is for a test that has failed: others have no process left by then.
func (r *chaosRun) killAll() {
	for _, p := range r.processes {
		if !p.ended {
			p.killAndWait()
		}
	}
}

// chaosUsage is what a process has open.
type chaosUsage struct{ descriptors, goroutines, pages int }

func (u chaosUsage) within(limit chaosUsage) bool {
	return u.descriptors <= limit.descriptors && u.goroutines <= limit.goroutines && u.pages <= limit.pages
}

func (p *chaosProcess) usage() (u chaosUsage, open string, err error) {
	if err = p.say("usage"); err != nil {
		return u, "", err
	}
	line, err := p.hear()
	if err == nil {
		_, err = fmt.Sscanf(line, "%d %d %d %q", &u.descriptors, &u.goroutines, &u.pages, &open)
	}
	return u, open, err
}

func (r *chaosRun) awaitChannels() error {
	for i := range chaosTakers {
		for deadline := time.Now().Add(timeout); ; time.Sleep(5 * time.Millisecond) {
			u, _, err := r.current[i].usage()
			if err == nil && u.pages == 0 && time.Now().After(deadline) {
				err = fmt.Errorf("%s has no channel", r.current[i].chaosLife)
			}
			if err != nil {
				return err
			}
			if u.pages > 0 {
				break
			}
		}
	}
	return nil
}

// usage returns what each process has open now, after a moment for what is just ending.
func (r *chaosRun) usage() []chaosUsage {
	usage := make([]chaosUsage, len(r.current))
	for round := range 5 {
		for i, p := range r.current {
			u, _, err := p.usage()
			if err != nil {
				r.fail(err)
				return usage
			}
			if round == 0 || u.within(usage[i]) {
				usage[i] = u
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return usage
}

// checkUsage fails unless each process of a sort comes to have no more open than it had, or one in its
// place, at the start.
func (r *chaosRun) checkUsage(sort chaosSort, fresh []chaosUsage) {
	for i, p := range r.current {
		if p.ended || p.isGiver() != (sort == giverProcess) {
			continue
		}
		u, err := p.settle(fresh[i])
		if err != nil {
			r.fail(err)
		}
		r.t.Logf("%s has %+v, had at the start %+v", p.chaosLife, u, fresh[i])
	}
}

// settle asks less and less often: to answer takes memory, and if the collector ran it would close what
// was forgotten.
func (p *chaosProcess) settle(limit chaosUsage) (chaosUsage, error) {
	deadline := time.Now().Add(timeout)
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		u, open, err := p.usage()
		if err != nil || u.within(limit) {
			return u, err
		}
		if time.Now().After(deadline) {
			return u, fmt.Errorf("%s has %+v, which should be %+v: %s", p.chaosLife, u, limit, open)
		}
		time.Sleep(pause)
	}
}
