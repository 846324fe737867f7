//go:build linux

package usher_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
)

func init() {
	roles["starved"] = playStarved
	roles["copier"] = playCopier
	roles["starved-giver"] = playStarvedGiver
	roles["starved-replacer"] = playStarvedReplacer
	roles["starved-offer"] = playStarvedOffer
}

// playStarved serves at the endpoint args[0]. For each line on standard input it gives itself no room
// for further descriptors, or as much as before.
func playStarved(args []string) error {
	l, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	go echoAll(l)
	fmt.Println("ready")
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	for starve := true; ; starve = !starve {
		if _, err := in.ReadString('\n'); err != nil {
			return nil
		}
		limit := before
		if starve {
			// The lowest free number is the first that is refused: dup to learn it.
			n, err := syscall.Dup(0)
			if err != nil {
				return err
			}
			syscall.Close(n)
			limit.Cur = uint64(n)
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
		fmt.Println("done")
	}
}

// TestATakerOutOfDescriptorsDeclines, and takes again when it has some, on the same channel.
func TestATakerOutOfDescriptorsDeclines(t *testing.T) {
	faults.NoLeak(t)
	path := endpoint(t)
	cmd := faults.Command(t, "starved", path)
	stdin := must(cmd.StdinPipe())(t)
	taker := startCommand(t, cmd)
	taker.hear(t)
	defer stdin.Close()
	target := must(usher.Dial(within(t, timeout), path))(t)
	defer target.Close()

	// One that stays: when it is served, the taker has closed all that it opens for a new channel.
	first, server := tcpPair(t)
	if err := target.Handoff(within(t, timeout), newOffer(t, server, "x", usher.Info{})); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(first, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}

	client, server := tcpPair(t)
	o := newOffer(t, server, "pre", usher.Info{})
	io.WriteString(stdin, "\n")
	taker.hear(t)
	for range 3 {
		wantError(t, target.Handoff(within(t, timeout), o), usher.ErrDeclined, "out of descriptors")
	}
	io.WriteString(stdin, "\n")
	taker.hear(t)
	if err := target.Handoff(within(t, timeout), o); err != nil {
		t.Fatal(err)
	}
	io.WriteString(client, "fix")
	client.CloseWrite()
	if got, err := io.ReadAll(client); err != nil || string(got) != "prefix" {
		t.Errorf("read %q, %v", got, err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// playStarvedGiver hands a connection to the endpoint args[0], and closes what comes back. For each line on standard input, a number,
// it gives itself room for so many further descriptors.
func playStarvedGiver(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	d := usher.Dialer{Returned: func(c *usher.Conn) { c.Close() }}
	target, err := d.Dial(ctx, args[0])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	client, server, err := connect(l)
	if err != nil {
		return err
	}
	defer client.Close()
	o, err := usher.NewOffer(server, nil, usher.Info{})
	if err != nil {
		return err
	}
	if err := target.Handoff(ctx, o); err != nil {
		return err
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		return err
	}
	for {
		var room int
		if _, err := fmt.Scanln(&room); err != nil {
			return nil
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			return err
		}
		var free []int
		for range room + 1 { // the last of them is the first that is refused
			n, err := syscall.Dup(0)
			if err != nil {
				return err
			}
			free = append(free, n)
		}
		for _, n := range free {
			syscall.Close(n)
		}
		limit := before
		limit.Cur = uint64(free[room])
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
		fmt.Println("done")
	}
}

// TestAGiverOutOfDescriptorsTakesNothingBack, whichever it is that it lacks, but keeps the channel, and takes back when it has some.
func TestAGiverOutOfDescriptorsTakesNothingBack(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	cmd := faults.Command(t, "starved-giver", l.Addr().String())
	stdin := must(cmd.StdinPipe())(t)
	defer stdin.Close()
	giver := startCommand(t, cmd)
	c := must(l.Accept())(t).(*usher.Conn)
	defer func() { c.Close() }()
	for room := 0; ; room++ {
		fmt.Fprintln(stdin, room)
		giver.hear(t)
		o := newOffer(t, c, "", usher.Info{})
		err := o.HandBack(within(t, timeout))
		if err == nil {
			if room < 3 {
				t.Errorf("it was taken back by a giver with room for %d descriptors", room)
			}
			return
		}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("with room for %d: %v", room, err)
		}
		c = must(o.Reclaim())(t)
		if !c.Returnable() {
			t.Fatalf("with room for %d the channel has ended", room)
		}
	}
}

// TestAnOfferWithoutADescriptorToSpare is of the connection itself, and is harmed as little by whoever closes that once more.
func TestAnOfferWithoutADescriptorToSpare(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	role := startRole(t, "starved-offer", l.Addr().String())
	client, server := tcpPair(t)
	o := newOffer(t, server, "", usher.Info{})
	if err := dialRole(t, role).Handoff(within(t, timeout), o); err != nil {
		t.Fatal(err)
	}
	if said := role.hear(t); said != "closed" {
		t.Fatalf("it says %q", said)
	}
	c := must(l.Accept())(t)
	defer c.Close()
	checkConversation(t, client, c)
}

// dialRole dials the endpoint that a role has said.
func dialRole(t *testing.T, role *process) *usher.Target {
	t.Helper()
	target := must(usher.Dial(within(t, timeout), role.hear(t)))(t)
	t.Cleanup(func() { target.Close() })
	return target
}

// playStarvedOffer hands the connection that it is handed on to the endpoint args[0], and has no room for another descriptor.
func playStarvedOffer(args []string) error {
	path := args[0] + "-starved"
	l, err := usher.Listen(path)
	if err != nil {
		return err
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	target, err := usher.Dial(ctx, args[0])
	if err != nil {
		return err
	}
	defer target.Close()
	fmt.Println(path)
	c, err := l.Accept()
	if err != nil {
		return err
	}
	room, err := faults.LimitDescriptors()
	if err != nil {
		return err
	}
	if err := room(0); err != nil {
		return err
	}
	o, err := usher.NewOffer(c, nil, usher.Info{})
	if err != nil {
		return err
	}
	said := "closed"
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		said = fmt.Sprint("closed twice: ", err)
	}
	if _, err := usher.NewOffer(c, nil, usher.Info{}); !errors.Is(err, net.ErrClosed) {
		said = fmt.Sprint("offered twice: ", err)
	}
	fmt.Println(said)
	if err := target.Handoff(ctx, o); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// playCopier takes two connections at the endpoint args[0]: it sends the first the file args[1], and
// copies the second into the third.
func playCopier(args []string) error {
	l, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("ready")
	var conns [3]net.Conn
	for i := range conns {
		if conns[i], err = l.Accept(); err != nil {
			return err
		}
		defer conns[i].Close()
	}
	f, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(conns[0], f)
	_, copyErr := io.Copy(conns[2], conns[1])
	return errors.Join(err, copyErr)
}

// TestTheKernelCopies has strace watch what a taker does for io.Copy, once the prefix is read.
func TestTheKernelCopies(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not here: ", err)
	}
	faults.NoLeak(t)
	path := endpoint(t)
	dir := t.TempDir()
	name, trace := filepath.Join(dir, "f"), filepath.Join(dir, "trace")
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := faults.Command(t, "copier", path, name)
	cmd.Args = append([]string{strace, "-f", "-o", trace, "-e", "trace=sendfile,splice", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = strace
	taker := startCommand(t, cmd)
	line, err := taker.out.ReadString('\n')
	if err != nil {
		t.Skip("strace cannot trace here: ", err)
	}
	if strings.TrimSpace(line) != "ready" {
		t.Fatalf("the taker says %q", line)
	}
	target := must(usher.Dial(within(t, timeout), path))(t)
	defer target.Close()
	var clients [3]*net.TCPConn
	for i := range clients {
		client, server := tcpPair(t)
		clients[i] = client
		if err := target.Handoff(within(t, timeout), newOffer(t, server, "pre", usher.Info{})); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(clients[0], 1<<20)); n != 1<<20 || err != nil {
		t.Errorf("the file came as %d bytes, %v", n, err)
	}
	go func() {
		clients[1].Write(make([]byte, 1<<20))
		clients[1].CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, clients[2]); n != 3+1<<20 || err != nil {
		t.Errorf("%d bytes were copied from one connection to the other, %v", n, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	said := string(must(os.ReadFile(trace))(t))
	for _, call := range []string{"sendfile(", "splice("} {
		if !strings.Contains(said, call) {
			t.Errorf("the taker made no call of %s: %.2000s", call, said)
		}
	}
}

// playStarvedReplacer listens in the place of who does at the endpoint args[0], with room for args[1] further descriptors.
func playStarvedReplacer(args []string) error {
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil { // the runtime's own descriptors are open after that
		l.Close()
	}
	n, err := syscall.Dup(0)
	if err != nil {
		return err
	}
	syscall.Close(n)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	room, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	limit.Cur = uint64(n + room)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	lc := usher.ListenConfig{Replace: true}
	if _, err := lc.Listen(args[0]); err != nil {
		fmt.Println("failed:", err)
	} else {
		fmt.Println("listens")
	}
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// TestAReplacementOutOfDescriptors fails, or the one that is replaced hears of it.
func TestAReplacementOutOfDescriptors(t *testing.T) {
	faults.NoLeak(t)
	listened := false
	for room := 0; room < 10 && !listened; room++ {
		l := listen(t, usher.ListenConfig{})
		accepted := make(chan error, 1)
		go func() { _, err := l.Accept(); accepted <- err }()
		cmd := faults.Command(t, "starved-replacer", l.Addr().String(), strconv.Itoa(room))
		stdin := must(cmd.StdinPipe())(t)
		next := startCommand(t, cmd)
		said := next.hear(t)
		listened = said == "listens"
		if listened {
			wantError(t, await(t, accepted, "the replacement"), usher.ErrReplaced, "")
		} else if !strings.Contains(said, "too many open files") {
			t.Errorf("with room for %d descriptors it says: %s", room, said)
		}
		if !listened { // the one that is in office serves on
			dial(t, l).Close()
			l.Close()
			wantError(t, await(t, accepted, "the end"), net.ErrClosed, "the listener is closed")
		}
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if !listened {
		t.Error("it never listens")
	}
}
