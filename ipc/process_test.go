//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package ipc_test

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
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

// playAnswer listens at the endpoint args[0], says so, and serves what comes over one channel.
func playAnswer(args []string) error {
	l, err := ipc.Listen(args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("ready")
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	return answerAll(c)
}

// playInherit serves what comes over the channel that its parent passed to it.
func playInherit([]string) error {
	c, err := ipc.Inherited()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := ipc.Inherited(); err == nil {
		return errors.New("inherited twice")
	}
	p, err := c.Peer()
	if err != nil {
		return err
	}
	if p.PID != os.Getppid() {
		return fmt.Errorf("the peer is process %d, want the parent %d", p.PID, os.Getppid())
	}
	return answerAll(c)
}

// playNap takes the channel and does not read from it, until it is killed.
func playNap([]string) error {
	c, err := ipc.Inherited()
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Println("ready")
	time.Sleep(10 * time.Minute)
	return nil
}

func answerAll(c *ipc.Conn) error {
	for {
		m, err := c.Receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answer(c, m); err != nil {
			return fmt.Errorf("%q: %w", m.Data, err)
		}
		m.Close()
	}
}

// answer does with the attachment what the first word of the message says.
func answer(c *ipc.Conn, m *ipc.Message) error {
	verb, prefix, _ := strings.Cut(string(m.Data), " ")
	switch verb {
	case "conn":
		conn, err := m.Attachments()[0].Conn()
		if err != nil {
			return err
		}
		return answerLine(ipc.NewPrefixConn(conn, []byte(prefix)))
	case "listener":
		l, err := m.Attachments()[0].Listener()
		if err != nil {
			return err
		}
		defer l.Close()
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		return answerLine(conn)
	case "channel":
		ch, err := m.Attachments()[0].Channel(ipc.Limits{})
		if err != nil {
			return err
		}
		defer ch.Close()
		p, err := ch.Peer()
		if err != nil {
			return err
		}
		if p.PID != os.Getppid() {
			return fmt.Errorf("the peer is process %d, want %d, which has sent the channel", p.PID, os.Getppid())
		}
		return answerAll(ch)
	case "deadline":
		conn, err := m.Attachments()[0].Conn()
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("read returned %v", err)
		}
		_, err = fmt.Fprintf(conn, "%d late\n", os.Getpid())
		return err
	case "file":
		f, err := m.Attachments()[0].File()
		if err != nil {
			return err
		}
		defer f.Close()
		all, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		return c.Send([]byte(f.Name() + " " + string(all)))
	case "pipe":
		f, err := m.Attachments()[0].File()
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
		return err
	}
	return errors.New("what?")
}

// answerLine writes its pid and the line that it reads, and closes the connection.
func answerLine(c net.Conn) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(timeout))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c, "%d %s", os.Getpid(), line)
	return err
}

// start starts cmd and ends it with the test. hear returns the first line that it says.
func start(t testing.TB, cmd *exec.Cmd) (hear func() string) {
	t.Helper()
	stdout := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return func() string {
		t.Helper()
		return strings.TrimSpace(must(bufio.NewReader(stdout).ReadString('\n'))(t))
	}
}

// startInheriting starts a process that has one end of a pair and returns the other.
func startInheriting(t testing.TB, role string, says bool) (*ipc.Conn, *exec.Cmd) {
	t.Helper()
	ours, theirs := newPair(t)
	cmd := faults.Command(t, role)
	if err := theirs.PassTo(cmd); err != nil {
		t.Fatal(err)
	}
	hear := start(t, cmd)
	if says {
		hear()
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	return ours, cmd
}

// TestBetweenProcesses passes each kind of attachment to another process, over both kinds of channel.
func TestBetweenProcesses(t *testing.T) {
	faults.NoLeak(t)
	t.Run("over an endpoint", func(t *testing.T) {
		path := endpoint(t)
		cmd := faults.Command(t, "answer", path)
		start(t, cmd)()
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		c := must(ipc.Dial(ctx, path))(t)
		defer c.Close()
		c.SetDeadline(time.Now().Add(timeout))
		testBetween(t, c, cmd)
	})
	t.Run("over an inherited pair", func(t *testing.T) {
		c, cmd := startInheriting(t, "inherit", false)
		testBetween(t, c, cmd)
	})
}

func testBetween(t *testing.T, c *ipc.Conn, cmd *exec.Cmd) {
	pid := strconv.Itoa(cmd.Process.Pid)
	if p := must(c.Peer())(t); p.PID != cmd.Process.Pid {
		t.Errorf("the peer is process %d, want %s", p.PID, pid)
	}
	t.Run("a connection partly read", func(t *testing.T) {
		client, server := tcpPair(t, "tcp4", "127.0.0.1:0")
		io.WriteString(client, "hello world\n")
		prefix := make([]byte, 6)
		if _, err := io.ReadFull(server, prefix); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(append([]byte("conn "), prefix...), server); err != nil {
			t.Fatal(err)
		}
		server.Close()
		expect(t, client, pid+" hello world\n")
	})
	t.Run("a connection with a deadline", func(t *testing.T) {
		client, server := tcpPair(t, "tcp4", "127.0.0.1:0")
		if err := c.Send([]byte("deadline"), server); err != nil {
			t.Fatal(err)
		}
		server.Close()
		expect(t, client, pid+" late\n")
	})
	t.Run("a listener", func(t *testing.T) {
		l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
		if err := c.Send([]byte("listener"), l.(*net.TCPListener)); err != nil {
			t.Fatal(err)
		}
		client := must(net.Dial("tcp", l.Addr().String()))(t)
		defer client.Close()
		l.Close()
		io.WriteString(client, "knock\n")
		expect(t, client, pid+" knock\n")
	})
	t.Run("a file", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(name, []byte("0123456789"), 0o600); err != nil {
			t.Fatal(err)
		}
		f := must(os.Open(name))(t)
		defer f.Close()
		f.Seek(7, io.SeekStart)
		if err := c.Send([]byte("file"), f); err != nil {
			t.Fatal(err)
		}
		if m := must(c.Receive())(t); string(m.Data) != name+" 789" {
			t.Errorf("the other process read %q", m.Data)
		}
	})
	t.Run("a pipe", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := c.Send([]byte("pipe"), w); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if all, err := io.ReadAll(r); err != nil || string(all) != pid+"\n" {
			t.Errorf("read %q, %v", all, err)
		}
	})
	t.Run("a channel", func(t *testing.T) {
		ours, theirs := newPair(t)
		if err := c.Send([]byte("channel"), theirs); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		if p := must(ours.Peer())(t); p.PID != cmd.Process.Pid {
			t.Errorf("its other end has process %d, want %s", p.PID, pid)
		}
		client, server := tcpPair(t, "tcp4", "127.0.0.1:0")
		io.WriteString(client, "hello\n")
		if err := ours.Send([]byte("conn "), server); err != nil {
			t.Fatal(err)
		}
		server.Close()
		expect(t, client, pid+" hello\n")
		ours.Close()
	})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the other process: %v", err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(timeout))
	if got, err := io.ReadAll(c); err != nil || string(got) != want {
		t.Errorf("read %q, %v; want %q", got, err, want)
	}
}

func TestPeerThatDiesEndsTheChannel(t *testing.T) {
	faults.NoLeak(t)
	t.Run("while it is awaited", func(t *testing.T) {
		c, cmd := startInheriting(t, "nap", true)
		got := make(chan error, 1)
		go func() { _, err := c.Receive(); got <- err }()
		cmd.Process.Kill()
		if err := <-got; err != io.EOF {
			t.Errorf("received %v, want a bare io.EOF", err)
		}
	})
	t.Run("with a message half sent", func(t *testing.T) {
		c, cmd := startInheriting(t, "nap", true)
		_, server := tcpPair(t, "tcp4", "127.0.0.1:0")
		got := make(chan error, 1)
		go func() { got <- c.Send(make([]byte, 8<<20), server) }()
		time.Sleep(50 * time.Millisecond)
		cmd.Process.Kill()
		if err := <-got; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("sent: %v", err)
		}
		contains(t, c.Send(nil), "channel is broken")
	})
	t.Run("with a connection on its way", func(t *testing.T) {
		c, cmd := startInheriting(t, "nap", true)
		client, server := tcpPair(t, "tcp4", "127.0.0.1:0")
		if err := c.Send([]byte("conn "), server); err != nil {
			t.Fatal(err)
		}
		server.Close()
		cmd.Process.Kill()
		cmd.Wait()
		c.Close()
		client.SetReadDeadline(time.Now().Add(timeout))
		if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the client's connection did not end: %v", err)
		}
	})
}

func TestNothingToInherit(t *testing.T) {
	if c, err := ipc.Inherited(); err == nil {
		c.Close()
		t.Error("inherited from nobody")
	}
	for _, bad := range []string{"", "x", "-1", "0", "1", "99999"} {
		t.Setenv("USHER_IPC", bad)
		if c, err := ipc.Inherited(); err == nil {
			c.Close()
			t.Errorf("inherited %q", bad)
		} else {
			contains(t, err, "USHER_IPC")
		}
	}
}
