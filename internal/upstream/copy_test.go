package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/internal/upstream"
	"github.com/go-usher/usher/ipc"
)

func init() { roles["backend"] = playBackend }

// fronts are what the door may have in its hands of a client.
var fronts = []string{"TCP connection", "connection with a prefix", "connection that was on offer"}

const prefix = "prefix"

// newFront makes a connection of a client what front says, and returns what is read first from it.
func newFront(front string, c upstream.Conn) (made upstream.Conn, first string, err error) {
	switch front {
	case "connection with a prefix":
		return ipc.NewPrefixConn(c, []byte(prefix)), prefix, nil
	case "connection that was on offer":
		o, err := usher.NewOffer(c, []byte(prefix), usher.Info{})
		if err != nil {
			return nil, "", err
		}
		made, err := o.Reclaim()
		return made, prefix, err
	}
	return c, "", nil
}

// proxied is a client and a backend that talk through Copy.
type proxied struct {
	client, backend upstream.Conn
	prefix          string // what the backend reads first
	cancel          context.CancelCauseFunc

	copied chan struct{} // closed when Copy has returned
	stats  upstream.Stats
	err    error
}

// newProxied starts Copy between a client, of which the door has what front says, and a backend on network.
func newProxied(t testing.TB, front, network string) *proxied {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	p := &proxied{copied: make(chan struct{}), cancel: cancel}
	var door, dialed upstream.Conn
	p.client, door = pair(t, "tcp")
	dialed, p.backend = pair(t, network)
	var err error
	if door, p.prefix, err = newFront(front, door); err != nil {
		t.Fatal(err)
	}
	door.SetDeadline(time.Unix(1, 0)) // Copy is to remove what was left
	go func() {
		defer close(p.copied)
		p.stats, p.err = upstream.Copy(ctx, door, dialed)
	}()
	t.Cleanup(func() {
		cancel(nil)
		<-p.copied
	})
	return p
}

// wait returns what Copy has returned.
func (p *proxied) wait(t testing.TB) (upstream.Stats, error) {
	t.Helper()
	select {
	case <-p.copied:
	case <-time.After(timeout):
		t.Fatal("Copy does not return")
	}
	return p.stats, p.err
}

// exchange has a byte come through in both directions: then Copy runs.
func (p *proxied) exchange(t testing.TB) {
	t.Helper()
	for _, way := range []struct {
		from, to upstream.Conn
		n        int
	}{{p.client, p.backend, len(p.prefix) + 1}, {p.backend, p.client, 1}} {
		io.WriteString(way.from, "x")
		if _, err := io.ReadFull(way.to, make([]byte, way.n)); err != nil {
			t.Fatal(err)
		}
	}
}

// forAll runs a test with all kinds of clients and backends.
func forAll(t *testing.T, test func(t *testing.T, front, network string)) {
	for _, front := range fronts {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(front+" and a backend on "+network, func(t *testing.T) {
				faults.NoLeak(t)
				test(t, front, network)
			})
		}
	}
}

func TestHalfCloseIsPassedOn(t *testing.T) {
	const large = 10 << 20
	answer := make([]byte, large)
	rand.Read(answer)
	for _, clientFirst := range []bool{true, false} {
		name := "the backend ends its stream, then the client sends much"
		if clientFirst {
			name = "the client ends its stream, then the backend sends much"
		}
		t.Run(name, func(t *testing.T) {
			forAll(t, func(t *testing.T, front, network string) {
				p := newProxied(t, front, network)
				first, second, before, after := p.client, p.backend, p.prefix, ""
				if !clientFirst {
					first, second, before, after = p.backend, p.client, "", p.prefix
				}
				io.WriteString(first, "request")
				first.CloseWrite()
				if got, err := io.ReadAll(second); string(got) != before+"request" || err != nil {
					t.Fatalf("one side reads %q, %v", got, err)
				}
				go func() {
					second.Write(answer)
					second.CloseWrite()
				}()
				if got, err := io.ReadAll(first); !bytes.Equal(got, append([]byte(after), answer...)) || err != nil {
					t.Fatalf("the other side reads %d bytes, %v", len(got), err)
				}
				stats, err := p.wait(t)
				if err != nil {
					t.Error(err)
				}
				want := upstream.Stats{Received: int64(len(before) + len("request")), Sent: large}
				if !clientFirst {
					want = upstream.Stats{Received: int64(len(after) + large), Sent: int64(len("request"))}
				}
				if stats != want {
					t.Errorf("stats %+v, want %+v", stats, want)
				}
			})
		})
	}
}

// TestAConversationIsPassedOn: neither direction waits for the other.
func TestAConversationIsPassedOn(t *testing.T) {
	forAll(t, func(t *testing.T, front, network string) {
		p := newProxied(t, front, network)
		if _, err := io.ReadFull(p.backend, make([]byte, len(p.prefix))); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			from, to := p.client, p.backend
			if i%2 == 0 {
				from, to = to, from
			}
			want := fmt.Sprint("line ", i)
			io.WriteString(from, want)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(to, got); string(got) != want || err != nil {
				t.Fatalf("read %q, %v; want %q", got, err, want)
			}
		}
		p.client.Close()
		if _, err := io.Copy(io.Discard, p.backend); err != nil {
			t.Error(err)
		}
		p.backend.Close()
		if _, err := p.wait(t); err != nil {
			t.Error(err)
		}
	})
}

// seesReset returns whether a side that may be sending meanwhile is told that the connection was reset. The
// kernel tells that once: to its read, or to its write, which is to return.
func seesReset(c upstream.Conn, sending bool) error {
	var readErr, writeErr error
	var wg sync.WaitGroup
	if sending {
		wg.Go(func() {
			for writeErr == nil {
				_, writeErr = c.Write(make([]byte, 64<<10))
			}
		})
	}
	_, readErr = io.Copy(io.Discard, c)
	wg.Wait()
	if isReset(readErr) || isReset(writeErr) {
		return nil
	}
	return fmt.Errorf("its read returns %w, its write %w", readErr, writeErr)
}

func isReset(err error) bool {
	if runtime.GOOS == "windows" {
		const wsaeconnreset = syscall.Errno(10054)
		// The other is what a write gets under Wine at times.
		return errors.Is(err, wsaeconnreset) || errors.Is(err, io.ErrUnexpectedEOF)
	}
	return errors.Is(err, syscall.ECONNRESET)
}

// reset ends a connection by a reset.
func reset(c upstream.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

func TestAResetIsPassedOn(t *testing.T) {
	for _, front := range fronts {
		if front == "connection that was on offer" && runtime.GOOS != "linux" {
			continue // the end of the stream comes first: see abort
		}
		for _, byClient := range []bool{true, false} {
			for _, traffic := range []struct {
				name            string
				dying, survivor bool // is sending
			}{
				{"nobody", false, false},
				{"the one that resets", true, false},
				{"the other", false, true},
				{"both", true, true},
			} {
				t.Run(fmt.Sprintf("%s, reset by the client: %v, %s sending", front, byClient, traffic.name), func(t *testing.T) {
					faults.NoLeak(t)
					p := newProxied(t, front, "tcp")
					dying, survivor := p.backend, p.client
					if byClient {
						dying, survivor = p.client, p.backend
					}
					p.exchange(t)
					go func() {
						for traffic.dying {
							if _, err := dying.Write(make([]byte, 64<<10)); err != nil {
								return
							}
						}
					}()
					seen := make(chan error, 1)
					go func() { seen <- seesReset(survivor, traffic.survivor) }()
					if traffic.survivor {
						if _, err := io.CopyN(io.Discard, dying, 1<<20); err != nil {
							t.Fatal(err)
						}
					}
					reset(dying)
					if err := <-seen; err != nil {
						t.Error("the other side sees no reset: ", err)
					}
					if _, err := p.wait(t); err == nil {
						t.Error("Copy returns no error")
					}
				})
			}
		}
	}
}

// TestAResetByAUnixBackendIsPassedOn: it closes while there is something that it has not read.
func TestAResetByAUnixBackendIsPassedOn(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells the peer of it")
	}
	faults.NoLeak(t)
	p := newProxied(t, fronts[0], "unix")
	io.WriteString(p.client, "request")
	if _, err := io.ReadFull(p.backend, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.backend.Close()
	if err := seesReset(p.client, false); err != nil {
		t.Error(err)
	}
	if _, err := p.wait(t); !isReset(err) {
		t.Errorf("Copy returns %v", err)
	}
}

// TestAResetAfterAnEndIsPassedOn: the client has ended its stream and waits for an answer.
func TestAResetAfterAnEndIsPassedOn(t *testing.T) {
	faults.NoLeak(t)
	p := newProxied(t, fronts[0], "tcp")
	p.client.CloseWrite()
	if _, err := io.ReadAll(p.backend); err != nil {
		t.Fatal(err)
	}
	reset(p.backend)
	if err := seesReset(p.client, false); err != nil {
		t.Error(err)
	}
	if _, err := p.wait(t); !isReset(err) {
		t.Errorf("Copy returns %v", err)
	}
}

// TestAnAnswerBeforeAResetArrives: a backend answers a request that it does not read to its end, and closes,
// which resets the connection. HTTP servers do so when they refuse a large upload.
func TestAnAnswerBeforeAResetArrives(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows drops what was received before a reset")
	}
	forAll(t, func(t *testing.T, front, network string) {
		p := newProxied(t, front, network)
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for {
				if _, err := p.client.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		})
		if _, err := io.CopyN(io.Discard, p.backend, 1<<20); err != nil {
			t.Fatal(err)
		}
		const answer = "413 Content Too Large"
		io.WriteString(p.backend, answer)
		p.backend.Close()
		if got, err := io.ReadAll(p.client); string(got) != answer {
			t.Errorf("the client reads %q, %v", got, err)
		}
		if _, err := p.wait(t); err == nil {
			t.Error("Copy returns no error, though it could not pass all on")
		}
	})
}

// playBackend accepts one connection, reads a byte of it, and waits to be killed.
func playBackend(args []string) error {
	l, err := net.Listen(args[0], args[1])
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	c, err := l.Accept()
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return err
	}
	fmt.Println("read")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// TestABackendThatIsKilled has not read all, so that its system resets the connection.
func TestABackendThatIsKilled(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			faults.NoLeak(t)
			address := "127.0.0.1:0"
			if network == "unix" {
				address = socketPath(t)
			}
			cmd := faults.Command(t, "backend", network, address)
			stdin := must(cmd.StdinPipe())(t)
			defer stdin.Close()
			out := bufio.NewReader(must(cmd.StdoutPipe())(t))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			line := must(out.ReadString('\n'))(t)
			dialed := must(net.Dial(network, line[:len(line)-1]))(t).(upstream.Conn)
			client, door := pair(t, "tcp")
			copied := make(chan error, 1)
			go func() {
				_, err := upstream.Copy(within(t), door, dialed)
				copied <- err
			}()
			io.WriteString(client, "request")
			if _, err := out.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			cmd.Process.Kill()
			cmd.Wait()
			if _, err := io.ReadAll(client); err == nil && runtime.GOOS == "linux" {
				t.Error("the client sees its stream end as if all were well")
			}
			client.Close()
			if err := <-copied; err == nil && runtime.GOOS == "linux" {
				t.Error("Copy returns no error")
			}
		})
	}
}

func TestCopyEndsWithItsContext(t *testing.T) {
	stop := errors.New("stop")
	forAll(t, func(t *testing.T, front, network string) {
		p := newProxied(t, front, network)
		io.WriteString(p.client, "to the backend")
		io.WriteString(p.backend, "to the client")
		for c, n := range map[upstream.Conn]int{
			p.backend: len(p.prefix) + len("to the backend"), p.client: len("to the client"),
		} {
			if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
				t.Fatal(err)
			}
		}
		p.cancel(stop)
		stats, err := p.wait(t)
		if !errors.Is(err, stop) {
			t.Errorf("Copy returns %v", err)
		}
		want := upstream.Stats{Received: int64(len(p.prefix + "to the backend")), Sent: int64(len("to the client"))}
		if stats != want {
			t.Errorf("stats %+v, want %+v", stats, want)
		}
		if runtime.GOOS == "linux" || front != "connection that was on offer" {
			if err := seesReset(p.client, false); err != nil {
				t.Error("the client sees no reset: ", err)
			}
		}
		if _, err := p.backend.Read(make([]byte, 1)); err == nil {
			t.Error("the backend's connection lives")
		}
	})
}

func TestCopyEndsAtOnceIfItsContextHasEnded(t *testing.T) {
	faults.NoLeak(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	client, door := pair(t, "tcp")
	dialed, _ := pair(t, "tcp")
	if _, err := upstream.Copy(ctx, door, dialed); !errors.Is(err, context.Canceled) {
		t.Errorf("Copy returns %v", err)
	}
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the client's connection lives")
	}
}
