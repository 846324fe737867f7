package processes

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// warden is a process that outlives the bench if need be. The contenders' processes know nothing of the bench, and
// would run on if it were killed: then the warden ends them and removes their files.
type warden struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func startWarden(self, dir string) (*warden, error) {
	cmd := exec.Command(self, "role", "warden", dir)
	ownGroup(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &warden{cmd, stdin}, cmd.Start()
}

// watch and forget tell it of a process that leads a group. It is the same to them whether the warden hears it: they
// are for when the bench cannot do its work, not for when the warden cannot.
func (w *warden) watch(pid int)  { fmt.Fprintln(w.stdin, pid) }
func (w *warden) forget(pid int) { fmt.Fprintln(w.stdin, -pid) }

func (w *warden) close() {
	w.stdin.Close()
	w.cmd.Wait()
}

// playWarden ends with its standard input, and ends with it the processes that it was told to watch and not to forget,
// and the folder args[0].
func playWarden(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: warden DIR")
	}
	watched := make(map[int]bool)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			continue // a line that the bench was killed in the middle of
		}
		if pid < 0 {
			delete(watched, -pid)
			continue
		}
		watched[pid] = true
	}
	for pid := range watched {
		if p, err := os.FindProcess(pid); err == nil {
			killGroup(p) // and no wait: it is for somebody else to collect it
		}
	}
	return os.RemoveAll(args[0])
}
