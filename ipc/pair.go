package ipc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// inheritedEnv names the descriptor or handle that a child has from Conn.PassTo.
const inheritedEnv = "USHER_IPC"

// Pair returns the two ends of a new channel, for use within a process or between a parent and its
// child: see [Conn.PassTo]. Both are the caller's to close. They have the default [Limits].
func Pair() (*Conn, *Conn, error) {
	a, b, err := pair()
	if err != nil {
		return nil, nil, opError("pair", addr("pair"), err)
	}
	return newConn(a, "pair", Limits{}), newConn(b, "pair", Limits{}), nil
}

// PassTo arranges for a child to get c, one end of a [Pair], as what [Inherited] returns there. Call
// it before cmd.Start, and close c after Start, whether that succeeded or not: the child has its
// own. Nothing may have been sent or received on c.
//
// It adds to cmd.Env and to cmd.ExtraFiles or, on Windows, to
// cmd.SysProcAttr.AdditionalInheritedHandles.
func (c *Conn) PassTo(cmd *exec.Cmd) error {
	for _, kv := range cmd.Env {
		if strings.HasPrefix(kv, inheritedEnv+"=") {
			return opError("pass", c.addr, errors.New("the command has a channel to inherit already"))
		}
	}
	value, err := c.t.passTo(cmd)
	if err != nil {
		return opError("pass", c.addr, err)
	}
	if cmd.Env == nil {
		cmd.Env = without(os.Environ(), inheritedEnv)
	}
	cmd.Env = append(cmd.Env, inheritedEnv+"="+value)
	return nil
}

func without(env []string, name string) []string {
	kept := make([]string, 0, len(env)+1)
	for _, kv := range env {
		if !strings.HasPrefix(kv, name+"=") {
			kept = append(kept, kv)
		}
	}
	return kept
}

// Inherited returns the channel to the parent that called [Conn.PassTo]. The caller owns it. It can
// be had once: Inherited removes the variable that names it from the environment, so that no child
// of this process takes it for its own.
func Inherited() (*Conn, error) {
	inheritedMu.Lock()
	defer inheritedMu.Unlock()
	value, ok := os.LookupEnv(inheritedEnv)
	if !ok {
		return nil, opError("inherit", addr("pair"), fmt.Errorf("no channel was passed to this process: %s is not set", inheritedEnv))
	}
	if err := os.Unsetenv(inheritedEnv); err != nil {
		return nil, opError("inherit", addr("pair"), err)
	}
	t, err := inherited(value)
	if err != nil {
		return nil, opError("inherit", addr("pair"), fmt.Errorf("%s=%q: %w", inheritedEnv, value, err))
	}
	return newConn(t, "pair", Limits{}), nil
}

var inheritedMu sync.Mutex

// passed is shared by the two ends of a pair: the command that one of them was passed to.
type passed struct {
	mu     sync.Mutex
	cmd    *exec.Cmd
	end    int // of the two, which was passed to cmd
	parent int // in a child, the process that has the other end
}

func (p *passed) set(cmd *exec.Cmd, end int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.end = cmd, end
}

// pid returns the process that has the other end than end: a child if that was passed on, else this
// one. The error is for a child that was not started.
func (p *passed) pid(end int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parent != 0 {
		return p.parent, nil
	}
	if p.cmd == nil || p.end == end {
		return os.Getpid(), nil
	}
	if p.cmd.Process == nil {
		return 0, errors.New("the child that has the other end was not started")
	}
	return p.cmd.Process.Pid, nil
}
