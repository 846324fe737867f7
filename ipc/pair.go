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

// passed is shared by the two ends of a pair that are in one process: what became of them.
type passed struct {
	mu     sync.Mutex
	end    int       // of the two, which was passed to a child
	cmd    *exec.Cmd // the child
	at     [2]*Peer  // the processes that the ends were sent to, or came from
	parent int       // in a child, the process that has the other end
}

// elsewhere returns the shared part of an end that came from another process: that has the other.
func elsewhere(sender Peer, other int) *passed {
	p := new(passed)
	p.at[other] = &sender
	return p
}

func (p *passed) set(cmd *exec.Cmd, end int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.end = cmd, end
}

// sent notes that an end was sent to another process.
func (p *passed) sent(to Peer, end int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at[end] = &to
}

// other returns who has the other end than end: the process that it was sent to, or came from; a child if it was passed
// on; else this process, which is what the kernel says. The error is for a child that was not started.
func (p *passed) other(end int, made Peer) (Peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.at[1-end] != nil:
		return *p.at[1-end], nil
	case p.parent != 0:
		made.PID = p.parent
	case p.cmd == nil || p.end == end:
		made.PID = os.Getpid()
	case p.cmd.Process == nil:
		return Peer{}, errors.New("the child that has the other end was not started")
	default:
		made.PID = p.cmd.Process.Pid
	}
	return made, nil
}
