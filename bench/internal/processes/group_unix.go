//go:build unix

package processes

import (
	"os"
	"os/exec"
	"syscall"
	"time"
)

func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func askToEnd(p *os.Process) { p.Signal(syscall.SIGTERM) }

// killGroup kills what is left of the group that p leads, and returns an error if nothing was.
func killGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }

// endGroup does so and waits for all of it to be gone.
func endGroup(p *os.Process) {
	for deadline := time.Now().Add(endTimeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if killGroup(p) != nil {
			return
		}
	}
}
