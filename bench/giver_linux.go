package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

// startGiver has the minimal giver in C hand connections over: rivals/giver.c, one process for HTTP and one for TLS.
func startGiver(_ context.Context, c *crew) (*bench.Running, error) {
	program, err := c.place.compiledGiver()
	if err != nil {
		return nil, err
	}
	backend, _, _, err := c.backend("-passed", c.Dir)
	if err != nil {
		return nil, err
	}
	r := &bench.Running{Backend: []int{backend.Pid}}
	if r.HTTP, r.TLS, err = processes.FreeAddresses(); err != nil {
		return nil, err
	}
	for name, address := range map[string]string{"http": r.HTTP, "tls": r.TLS} {
		_, port, _ := net.SplitHostPort(address)
		p, err := c.Start(program, port, filepath.Join(c.Dir, name+".passed"), bench.Host)
		if err != nil {
			return nil, err
		}
		r.Door = append(r.Door, p.Pid)
	}
	return r, nil
}

// compileGiver compiles the giver into dir.
func compileGiver(dir string) (string, error) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return "", fmt.Errorf("%w: there is no C compiler: %w", bench.ErrAbsent, err)
	}
	source, err := rivals.ReadFile("rivals/giver.c")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "giver")
	cmd := exec.Command(cc, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-x", "c", "-o", program, "-")
	cmd.Stdin = strings.NewReader(string(source))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", cc, err, out)
	}
	return program, nil
}

// passedListener is a listener whose connections come through a Unix socket.
type passedListener struct {
	*net.UnixListener
	channel *net.UnixConn // once the giver has connected
	control []byte        // room for one descriptor
}

func listenPassed(path string) (net.Listener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &passedListener{UnixListener: l, control: make([]byte, syscall.CmsgSpace(4))}, nil
}

// Accept is not for several goroutines at once, which http.Server does not ask for.
func (l *passedListener) Accept() (net.Conn, error) {
	if l.channel == nil {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		l.channel = c
	}
	var data [1]byte // and no more: the giver sends one with each descriptor
	n, m, _, _, err := l.channel.ReadMsgUnix(data[:], l.control)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errors.New("the giver is gone")
	}
	messages, err := syscall.ParseSocketControlMessage(l.control[:m])
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages came where one was expected", len(messages))
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	return &passedConn{os.NewFile(uintptr(fds[0]), "passed")}, nil
}

// passedConn is the cheapest net.Conn that there is for a descriptor, which it owns: no second descriptor, no options,
// and nobody asks the kernel for addresses.
type passedConn struct{ *os.File }

// Read returns errors as connections do. A deadline that a file wraps in a PathError is no temporary net.Error any more,
// and package tls gives a connection up after one; http.Server uses deadlines between requests.
func (c *passedConn) Read(b []byte) (int, error) {
	n, err := c.File.Read(b)
	if e, ok := err.(*os.PathError); ok {
		err = e.Err
	}
	return n, err
}

func (*passedConn) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (*passedConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }
