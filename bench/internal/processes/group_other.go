//go:build !unix

package processes

import (
	"os"
	"os/exec"
)

func ownGroup(*exec.Cmd) {}

// askToEnd does nothing: roles end with their standard input, and there is no signal for the others.
func askToEnd(*os.Process) {}

// killGroup kills p alone.
func killGroup(p *os.Process) error { return p.Kill() }

func endGroup(p *os.Process) { p.Kill() }
