package ipc_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

func init() { roles["send"] = playSend }

// playSend sends so many messages as it is told, of a size that it is told, and sleeps in between. Each has a file with it,
// so that none is received together with another.
func playSend([]string) error {
	c, err := ipc.Inherited()
	if err != nil {
		return err
	}
	defer c.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	// As in most processes a goroutine waits for messages, or nobody would poll.
	go c.Receive()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var n, size int
		if _, err := fmt.Sscan(in.Text(), &n, &size); err != nil {
			return err
		}
		for range n {
			if err := c.Send(large[:size], null); err != nil {
				return err
			}
		}
		fmt.Println("sent")
	}
	return nil
}

// TestReceivingDoesNotWakeTheSender counts how often the sender's threads go to sleep again while its messages are
// received, of which it has nothing to learn. See wire.
func TestReceivingDoesNotWakeTheSender(t *testing.T) {
	for _, waited := range []bool{false, true} {
		t.Run(fmt.Sprintf("which has waited before: %v", waited), func(t *testing.T) {
			c, tell, pid := startSender(t)
			if waited {
				tell(1, 1<<20)
				must(c.Receive())(t).Close()
				tell(0, 0)
			}
			const batches, batch = 10, 100 // for which the channel has room
			woken := 0
			for range batches {
				tell(batch, 10)
				before := sleeps(t, pid)
				for range batch {
					must(c.Receive())(t).Close()
					time.Sleep(50 * time.Microsecond) // for the sender to wake up, if it does
				}
				woken += sleeps(t, pid) - before
			}
			t.Logf("%d messages, %d wake-ups", batches*batch, woken)
			if woken > batches*batch/20 {
				t.Errorf("the sender woke up %d times for %d messages that were received", woken, batches*batch)
			}
		})
	}
}

// startSender returns a channel to a process that sends, and what tells it to. Telling does not wait for a large message.
func startSender(t *testing.T) (c *ipc.Conn, tell func(n, size int), pid int) {
	ours, theirs := newPair(t)
	cmd := faults.Command(t, "send")
	if err := theirs.PassTo(cmd); err != nil {
		t.Fatal(err)
	}
	in := must(cmd.StdinPipe())(t)
	out := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	theirs.Close()
	lines := bufio.NewReader(out)
	owed := 0
	return ours, func(n, size int) {
		t.Helper()
		if _, err := fmt.Fprintln(in, n, size); err != nil {
			t.Fatal(err)
		}
		for owed++; owed > 0 && size < 1<<20; owed-- {
			must(lines.ReadString('\n'))(t)
		}
	}, cmd.Process.Pid
}

// sleeps returns how often the threads of a process have gone to sleep of their own accord, when that has been the
// same for a while.
func sleeps(t *testing.T, pid int) int {
	t.Helper()
	last := -1
	deadline := time.Now().Add(timeout)
	for same := 0; same < 3; time.Sleep(2 * time.Millisecond) {
		n := 0
		for _, name := range must(filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/status"))(t) {
			n += voluntary(name)
		}
		if same++; n != last {
			same = 0
		}
		last = n
		if time.Now().After(deadline) {
			t.Fatal("the sender never rests")
		}
	}
	return last
}

// voluntary returns a thread's voluntary_ctxt_switches, 0 if it has gone; proc_pid_status(5).
func voluntary(name string) (n int) {
	f, err := os.Open(name)
	if err != nil {
		return 0
	}
	defer f.Close()
	status, _ := io.ReadAll(f)
	if _, after, ok := strings.Cut(string(status), "\nvoluntary_ctxt_switches:"); ok {
		fmt.Sscan(after, &n)
	}
	return n
}
