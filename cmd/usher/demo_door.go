package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/sniff"
)

const (
	maxHead     = 16 << 10         // bytes of a request that the door reads before it gives up
	headTimeout = 10 * time.Second // for the client to say what it wants
	takeTimeout = 2 * time.Second  // for a backend to take a connection
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

// handle takes over conn.
func (d *demoDoor) handle(ctx context.Context, conn *net.TCPConn) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) // wake it when the demo ends
	head, request, err := readHead(conn)
	stillOpen := stop()
	t := d.targets[request.Host]
	switch {
	case errors.Is(err, errGone) || !stillOpen:
		conn.Close()
	case err != nil:
		refuse(conn, http.StatusBadRequest, err.Error())
	case t == nil:
		refuse(conn, http.StatusNotFound, fmt.Sprintf("no backend for host %q; try %s", request.Host, knownHosts()))
	default:
		handOver(ctx, t, conn, head, request)
	}
}

// handOver takes over conn, and gives it to the backend or answers the client itself.
func handOver(ctx context.Context, t *target, conn *net.TCPConn, head []byte, request sniff.Request) {
	o, err := usher.NewOffer(conn, head, usher.Info{Host: request.Host})
	if err != nil {
		complain(err)
		conn.Close()
		return
	}
	err = t.handoff(ctx, o)
	if err == nil {
		return // it is the backend's
	}
	complain(fmt.Errorf("cannot hand a connection to %s: %w", request.Host, err))
	mine, err := o.Reclaim()
	if err != nil {
		complain(err)
		return
	}
	refuse(mine, http.StatusServiceUnavailable, "the backend for "+request.Host+" cannot be reached")
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

func knownHosts() string {
	var hosts []string
	for _, name := range demoNames {
		hosts = append(hosts, demoHost(name))
	}
	return strings.Join(hosts, " or ")
}

// halfCloser is a connection whose two ways end separately.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// refuse writes a short answer and closes the connection.
func refuse(conn halfCloser, status int, text string) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\nusher: %s\n",
		status, http.StatusText(status), len("usher: \n")+len(text), text)
	// To close a connection that holds unread bytes resets it, and a reset may overtake the answer: so say that this is the end, and
	// let the client finish first.
	conn.CloseWrite()
	io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
}

// target is the way to a backend, dialed when it is first needed.
type target struct {
	backend *backend

	mu sync.Mutex
	t  *usher.Target
}

// handoff hands o over, or says why the backend did not take it.
func (t *target) handoff(ctx context.Context, o *usher.Offer) error {
	if err := t.backend.death(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	to, err := t.dial(ctx)
	if err != nil {
		return err
	}
	return to.Handoff(ctx, o)
}

func (t *target) dial(ctx context.Context) (*usher.Target, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.t != nil {
		return t.t, nil
	}
	to, err := usher.Dial(ctx, t.backend.endpoint)
	if err != nil {
		return nil, err
	}
	t.t = to
	return to, nil
}

func (t *target) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.t != nil {
		t.t.Close()
	}
}
