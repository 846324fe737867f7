package processes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

const (
	// StartTimeout is for one process.
	StartTimeout = 10 * time.Second

	endTimeout = 3 * time.Second
)

// Crew is the processes of one contender, and the folder that they have to themselves.
type Crew struct {
	*Place
	Dir       string
	processes []*Process
}

// NewCrew makes a crew of nobody yet. Whoever called it stops it at the end.
func (p *Place) NewCrew(name string) (*Crew, error) {
	dir, err := os.MkdirTemp(p.Dir, name+"-")
	if err != nil {
		return nil, err
	}
	return &Crew{Place: p, Dir: dir}, nil
}

// Process is one of them. It leads a process group of its own where there is such a thing, so that an interrupt from
// the terminal reaches the bench alone, and so that whatever it has started ends with it.
type Process struct {
	*os.Process
	Stdin io.WriteCloser // open for as long as it should live
	Ended chan struct{}  // closed when it is gone
	Err   error          // how it ended; to be read after Ended

	name string
	log  string // the file that has what it said on its standard error
}

// Start starts a program. What it writes goes to a file in the crew's folder.
func (c *Crew) Start(program string, args ...string) (*Process, error) {
	return c.Launch(exec.Command(program, args...))
}

// Play starts this program in a role, and returns the words that the role says when it is ready. It has files as
// descriptors 3 and on; they stay the caller's.
func (c *Crew) Play(role string, files []*os.File, args ...string) (*Process, []string, error) {
	stdout, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer stdout.Close() // a role says no more than that
	cmd := exec.Command(c.Self, append([]string{"role", role}, args...)...)
	cmd.Stdout = w
	cmd.ExtraFiles = files
	p, err := c.Launch(cmd)
	w.Close() // the role has its own
	if err != nil {
		return nil, nil, err
	}
	stdout.SetReadDeadline(time.Now().Add(StartTimeout)) // without effect on Windows
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, nil, p.Failure(fmt.Errorf("it did not say that it is ready: %w", err))
	}
	return p, strings.Fields(line), nil
}

// Launch starts a command, in the crew's folder, which is also that of usher's endpoints.
func (c *Crew) Launch(cmd *exec.Cmd) (*Process, error) {
	p := &Process{
		Ended: make(chan struct{}),
		name:  filepath.Base(cmd.Path),
		log:   filepath.Join(c.Dir, fmt.Sprintf("%d.log", len(c.processes))),
	}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Dir = c.Dir
	cmd.Env = append(cmd.Environ(), "USHER_DIR="+c.Dir)
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	ownGroup(cmd)
	if p.Stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.Process = cmd.Process
	go func() {
		p.Err = cmd.Wait()
		close(p.Ended)
	}()
	c.processes = append(c.processes, p)
	c.warden.watch(p.Pid)
	return p, nil
}

// Failure adds to err what the process said last, and how it ended if it has.
func (p *Process) Failure(err error) error {
	select {
	case <-p.Ended:
		err = fmt.Errorf("%w; it has ended: %v", err, p.Err)
	case <-time.After(100 * time.Millisecond):
	}
	said := strings.TrimSpace(p.Said())
	if len(said) > 2000 {
		said = said[len(said)-2000:]
	}
	return fmt.Errorf("%s: %w: %s", p.name, err, said)
}

// Said returns all that the process has written to its standard error.
func (p *Process) Said() string {
	said, _ := os.ReadFile(p.log)
	return string(said)
}

// Workers waits until the process has children, and returns them; on systems where they cannot be told, none.
func (p *Process) Workers() ([]int, error) {
	for from := time.Now(); time.Since(from) < StartTimeout; time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.Ended:
			return nil, p.Failure(fmt.Errorf("it has no workers"))
		default:
		}
		if found, known := Children(p.Pid); len(found) > 0 || !known {
			return found, nil
		}
	}
	return nil, p.Failure(fmt.Errorf("it has no workers"))
}

// Stop ends the processes, the last one first, waits for them and removes their folder.
func (c *Crew) Stop() {
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].Stop()
		c.warden.forget(c.processes[i].Pid)
	}
	os.RemoveAll(c.Dir)
}

// Stop ends the process, and whatever it has started, and waits for it.
func (p *Process) Stop() {
	p.Stdin.Close()
	askToEnd(p.Process)
	select {
	case <-p.Ended:
	case <-time.After(endTimeout):
	}
	endGroup(p.Process) // it may have gone without its workers
	<-p.Ended
}

// Write makes a file in the crew's folder of a template in the folder rivals of files, and returns its path.
func (c *Crew) Write(files fs.FS, name string, data any) (string, error) {
	t, err := template.ParseFS(files, "rivals/"+name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.Dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return path, errors.Join(t.Execute(f, data), f.Close())
}

// Await returns when ask has succeeded; or with its error when ctx ends, or one of the processes does.
func (c *Crew) Await(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if err == nil {
			return nil
		}
		for _, p := range c.processes {
			select {
			case <-p.Ended:
				return p.Failure(err)
			default:
			}
		}
		select {
		case <-ctx.Done():
			return c.processes[len(c.processes)-1].Failure(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
