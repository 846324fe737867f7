//go:build darwin || freebsd || linux || netbsd || openbsd

package usher_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

func init() { roles["stranger"] = playStranger }

// playStranger listens at the endpoint args[0], and says so, until it is killed.
func playStranger(args []string) error {
	l, err := ipc.Listen(args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
	return err
}

// TestATakerHandsBackItself, and not by a channel to a process that the giver's policy was not asked about.
func TestATakerHandsBackItself(t *testing.T) {
	faults.NoLeak(t)
	path := endpoint(t)
	cmd := faults.Command(t, "stranger", path)
	stdin := must(cmd.StdinPipe())(t)
	defer stdin.Close()
	startCommand(t, cmd).hear(t)
	taker := newRawTaker(t, 4, 5, func(c *ipc.Conn, _ []uint32, _ byte, _ uint32) error {
		other, err := ipc.Dial(within(t, timeout), path)
		if err != nil {
			return err
		}
		defer other.Close()
		return c.Send(head(9, 0, 0, 0), other)
	})
	target := newHome().dial(t, taker.l.Addr().String())
	_, server := tcpPair(t)
	wantError(t, target.Handoff(within(t, timeout), newOffer(t, server, "", usher.Info{})), ipc.ErrProtocol,
		fmt.Sprintf("it hands back on a channel to process %d, which is another", cmd.Process.Pid))
}

// TestNothingComesBackAfterDetach on a channel that could not be passed on.
func TestNothingComesBackAfterDetach(t *testing.T) {
	faults.NoLeak(t)
	k := newNakedTaker(t)
	ours, theirs := pair(t)
	k.sendBack(t, theirs)
	if err := receiveOne(ours); err != nil { // the giver's hello
		t.Fatal(err)
	}
	report := frame(reportMessage(0, 1, 2, 3, ""))
	must(k.Write(append(report, report[:20]...)))(t)
	await(t, k.home.reports, "an end") // the giver has read what is behind it, too
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if d, err := k.target.Detach(ctx); err != nil || len(d) != 0 {
		t.Errorf("%d channels were passed on, %v", len(d), err)
	}
	checkNothingGoes(t, ours, k.home)
}

// sendBack sends one end of a pair to the giver, and closes it.
func (k *nakedTaker) sendBack(t *testing.T, theirs *ipc.Conn) {
	t.Helper()
	h := append([]byte("USH\x01"), 8, 0, 0, 0)
	h = binary.LittleEndian.AppendUint32(h, 8)
	h = append(h, 1, 0, 0, 0) // an attachment
	h = append(h, 1, 0, 0, 0, 0, 0, 0, 0)
	h = append(h, head(9, 0, 0, 0)...)
	raw := must(theirs.SyscallConn())(t)
	err := raw.Control(func(fd uintptr) {
		if _, _, err := k.WriteMsgUnix(h, unix.UnixRights(int(fd)), nil); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
}

// TestWhatATakerHasHandedBackBeforeItDied is the giver's, though that has nothing more to expect of it: so it is with a connection
// that came from another giver. On Windows the giver cannot learn who has made a pipe that is closed already.
func TestWhatATakerHasHandedBackBeforeItDied(t *testing.T) {
	faults.NoLeak(t)
	clients := make(chan *net.TCPConn, 1)
	taker := newRawTaker(t, 4, 5, func(c *ipc.Conn, _ []uint32, slot byte, generation uint32) error {
		ours, theirs := pair(t)
		clients <- offerRaw(t, ours, 0)
		ours.Close()
		if err := c.Send(answerMessage(2, slot, 1, generation)); err != nil {
			return err
		}
		if err := c.Send(head(9, 0, 0, 0), theirs); err != nil {
			return err
		}
		theirs.Close()
		return c.Close()
	})
	h := newHome()
	target := h.dial(t, taker.l.Addr().String())
	_, server := tcpPair(t)
	wantError(t, target.Handoff(within(t, timeout), newOffer(t, server, "", usher.Info{})), usher.ErrDeclined, "")
	checkConversation(t, <-clients, h.back(t))
	shutDownTarget(t, target)
}
