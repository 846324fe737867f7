package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-usher/usher/internal/sniff"
	"github.com/go-usher/usher/ipc"
)

const (
	maxHead     = 16 << 10         // bytes of a request that the door reads before it gives up
	headTimeout = 10 * time.Second // for the client to say what it wants
	sendTimeout = 2 * time.Second  // for a backend to make room for one more message
)

// demoDoor reads the first bytes of a connection and hands it to the backend they ask for.
type demoDoor struct {
	targets map[string]*target // by host
}

func newDoor(backends []*backend) *demoDoor {
	d := &demoDoor{targets: make(map[string]*target)}
	for _, b := range backends {
		d.targets[demoHost(b.name)] = &target{backend: b}
	}
	return d
}

// serve accepts connections until ctx ends. It takes over l, and returns when nothing of it runs any more.
func (d *demoDoor) serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()

	var conns sync.WaitGroup
	defer d.closeTargets()
	defer conns.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			complain(fmt.Errorf("cannot accept a connection: %w", err))
			time.Sleep(10 * time.Millisecond) // out of descriptors, most likely: let some go
			continue
		}
		conns.Go(func() { d.handle(ctx, conn.(*net.TCPConn)) })
	}
}

func (d *demoDoor) closeTargets() {
	for _, t := range d.targets {
		t.close()
	}
}

// handle takes over conn. Whatever happens the door's copy of it is closed in the end; one that was handed over lives on in the backend.
func (d *demoDoor) handle(ctx context.Context, conn *net.TCPConn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) // wake it when the demo ends
	defer stop()

	head, request, err := readHead(conn)
	if errors.Is(err, errGone) {
		return
	}
	if err != nil {
		refuse(conn, http.StatusBadRequest, err.Error())
		return
	}
	t := d.targets[request.Host]
	if t == nil {
		refuse(conn, http.StatusNotFound, fmt.Sprintf("no backend for host %q; try %s", request.Host, knownHosts()))
		return
	}
	if !stop() {
		return // the demo ends
	}
	if err := t.send(ctx, head, conn); err != nil {
		unreachable(conn, request.Host, err)
	}
}

// errGone means that the client left, or said too little in time, so there is nobody to answer.
var errGone = errors.New("the client is gone")

// readHead reads until it knows what the client wants. It returns all the bytes that it has read: they belong to the stream.
func readHead(conn net.Conn) ([]byte, sniff.Request, error) {
	if err := conn.SetReadDeadline(time.Now().Add(headTimeout)); err != nil {
		return nil, sniff.Request{}, errGone
	}
	head := make([]byte, 0, 2<<10) // enough for most
	for len(head) < maxHead {
		if len(head) == cap(head) {
			head = slices.Grow(head, min(cap(head), maxHead-len(head)))
		}
		n, readErr := conn.Read(head[len(head):min(cap(head), maxHead)])
		head = head[:len(head)+n]
		request, err := sniff.HTTP1(head)
		if err != sniff.ErrShort {
			return head, request, err
		}
		if readErr != nil {
			return nil, sniff.Request{}, errGone
		}
	}
	return nil, sniff.Request{}, fmt.Errorf("the head of the request has more than %d bytes", maxHead)
}

// unreachable tells the client that the backend could not be given its connection.
func unreachable(conn *net.TCPConn, host string, err error) {
	complain(fmt.Errorf("cannot hand a connection to %s: %w", host, err))
	if runtime.GOOS == "windows" && !errors.Is(err, errNoChannel) {
		return // to send a socket takes it off its completion port there: it can only be closed
	}
	refuse(conn, http.StatusServiceUnavailable, "the backend for "+host+" cannot be reached")
}

func knownHosts() string {
	var hosts []string
	for _, name := range demoNames {
		hosts = append(hosts, demoHost(name))
	}
	return strings.Join(hosts, " or ")
}

// refuse writes a short answer.
func refuse(conn *net.TCPConn, status int, text string) {
	conn.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\nusher: %s\n",
		status, http.StatusText(status), len("usher: \n")+len(text), text)
	// To close a connection that holds unread bytes resets it, and a reset may overtake the answer: so say that this is the end, and
	// let the client finish first.
	conn.CloseWrite()
	io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
}

// target is the way to a backend: a channel that is dialed when it is first needed, and anew after it broke.
type target struct {
	backend *backend

	mu sync.Mutex // held while sending: the write deadline is the channel's, so it can only serve one message at a time
	ch *ipc.Conn
}

// errNoChannel means that the connection has not been touched by the attempt to send it.
var errNoChannel = errors.New("no channel")

// send hands conn over with the bytes that were read from it. The caller closes its copy whatever comes of it.
func (t *target) send(ctx context.Context, head []byte, conn *net.TCPConn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	ch, err := t.channel(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoChannel, err)
	}
	err = ch.SetWriteDeadline(time.Now().Add(sendTimeout))
	if err == nil {
		err = ch.Send(head, conn)
	}
	if err != nil {
		t.drop()
	}
	return err
}

// channel returns the channel to the backend. t.mu is held.
func (t *target) channel(ctx context.Context) (*ipc.Conn, error) {
	if err := t.backend.death(); err != nil {
		t.drop()
		return nil, err
	}
	if t.ch != nil {
		return t.ch, nil
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	ch, err := ipc.Dial(ctx, t.backend.endpoint)
	if err != nil {
		return nil, err
	}
	t.ch = ch
	return ch, nil
}

func (t *target) drop() {
	if t.ch != nil {
		t.ch.Close()
		t.ch = nil
	}
}

func (t *target) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop()
}
