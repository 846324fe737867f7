//go:build linux

// Haproxy has HAProxy take connections from a front door: run it as "haproxy ENDPOINT -- haproxy -f FILE", where a frontend
// in FILE has "bind sockpair@${USHER_FD}", beside "usher serve". HAProxy takes each descriptor that comes over this
// pair of sockets for a connection that it has accepted, and alone reads and writes it from then on. On SIGTERM or
// SIGINT the program takes no more, and ends when HAProxy is done with what it has.
//
// HAProxy does not ask the kernel for the addresses of such a connection, and takes both ends for Unix sockets
// (sockpair_accept_conn in its src/proto_sockpair.c): src and dst are empty there, and option forwardfor adds nothing.
package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-usher/usher"
	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 4 || os.Args[2] != "--" {
		log.Fatal("usage: haproxy ENDPOINT -- haproxy -f FILE...")
	}
	if err := run(os.Args[1], os.Args[3:]); err != nil {
		log.Fatal(err)
	}
}

func run(endpoint string, command []string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	l, err := usher.Listen(endpoint)
	if err != nil {
		return err
	}
	defer l.Close()
	haproxy, pair, err := start(command)
	if err != nil {
		return err
	}
	defer pair.Close()

	passed := make(chan error, 1)
	go func() { passed <- passAll(l, pair) }()
	ended := make(chan error, 1)
	go func() { ended <- haproxy.Wait() }()
	select {
	case err := <-ended:
		if err == nil {
			err = errors.New("exit status 0")
		}
		return fmt.Errorf("%s has ended: %w", command[0], err)
	case err := <-passed:
		haproxy.Process.Kill()
		<-ended
		return err
	case <-signals:
	}
	l.Close() // the door has what was not taken
	<-passed
	if err := awaitRead(pair); err != nil {
		return err
	}
	haproxy.Process.Signal(syscall.SIGUSR1) // stop softly; an error is that it has ended
	return <-ended
}

// start runs HAProxy with one end of a pair of sockets, whose number is in $USHER_FD. The other end is the caller's
// to close, when HAProxy has ended: before that it would try for ever to read from the pair.
func start(command []string) (*exec.Cmd, *net.UnixConn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close() // FileConn makes another
	defer theirs.Close()
	pair, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.ExtraFiles = []*os.File{theirs} // which is descriptor 3 there
	cmd.Env = append(os.Environ(), "USHER_FD=3")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		pair.Close()
		return nil, nil, err
	}
	return cmd, pair.(*net.UnixConn), nil
}

// passAll passes on what comes until l is closed.
func passAll(l *usher.Listener, pair *net.UnixConn) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := pass(c.(*usher.Conn), pair); err != nil {
			return err
		}
	}
}

// pass passes c on and closes this process's copy of its descriptor. It waits for room in the pair where HAProxy is
// behind: what comes meanwhile waits at the listener, and what finds no room there the door sends elsewhere.
func pass(c *usher.Conn, pair *net.UnixConn) error {
	defer c.Close()
	if n := c.Buffered(); n > 0 {
		log.Printf("a connection from %v ends here: %d bytes of it were read already, which HAProxy would not see", c.RemoteAddr(), n)
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var passErr error
	err = raw.Control(func(fd uintptr) {
		// As many bytes as HAProxy reads at once (recv_fd_uxst there): with others it would lose count.
		_, _, passErr = pair.WriteMsgUnix([]byte{0, 0}, unix.UnixRights(int(fd)), nil)
		if passErr == nil {
			passErr = letGo(int(fd))
		}
	})
	return errors.Join(err, passErr)
}

// letGo puts /dev/null in the place of a connection's descriptor: Close would shut the connection down otherwise, for
// HAProxy too. What stays is the poller's interest in the socket (epoll(7), on descriptors that were duplicated): it
// wakes this process, which does nothing then, when the client sends to HAProxy.
func letGo(fd int) error {
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(null)
	return os.NewSyscallError("dup3", unix.Dup3(null, fd, unix.O_CLOEXEC))
}

// awaitRead waits until HAProxy has read all of the pair: what is still there when it ends is lost.
func awaitRead(pair *net.UnixConn) error {
	raw, err := pair.SyscallConn()
	if err != nil {
		return err
	}
	for unread := 1; unread > 0; time.Sleep(time.Millisecond) {
		var ioctlErr error
		err := raw.Control(func(fd uintptr) { unread, ioctlErr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		if err := errors.Join(err, ioctlErr); err != nil {
			return err
		}
	}
	return nil
}
