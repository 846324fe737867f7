//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup has the process that cmd starts, and those that it starts, be a group.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killGroup ends those that are left of it, as a door that has taken over.
func killGroup(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
