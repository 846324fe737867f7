//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

func init() {
	roles["report-holder"] = playReportHolder
	roles["report-server"] = playReportServer
	roles["report-closer"] = playReportCloser
	roles["report-keeper"] = playReportKeeper
	roles["report-idle"] = playReportIdle
}

// ear hears what a target is told.
type ear struct {
	reports chan usher.Report
	lost    chan error
	takers  chan ipc.Peer // of lost
}

func newEar() *ear {
	return &ear{reports: make(chan usher.Report, 1<<15), lost: make(chan error, 100), takers: make(chan ipc.Peer, 100)}
}

func (e *ear) dialer() *usher.Dialer {
	return &usher.Dialer{
		Ended: func(r usher.Report) { e.reports <- r },
		Lost:  func(p ipc.Peer, err error) { e.takers <- p; e.lost <- err },
	}
}

func (e *ear) dial(t testing.TB, path string) *usher.Target {
	t.Helper()
	target := must(e.dialer().Dial(within(t, timeout), path))(t)
	t.Cleanup(func() { target.Close() })
	return target
}

func await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(timeout):
		t.Fatalf("nothing is heard of %s", what)
		panic("not reached")
	}
}

// silence fails if there are more reports. It is for when the channels have ended, after which there can be none.
func (e *ear) silence(t testing.TB) {
	t.Helper()
	select {
	case r := <-e.reports:
		t.Errorf("one report too many: %+v", r)
	default:
	}
}

// shutDownTarget waits until all is reported.
func shutDownTarget(t testing.TB, target *usher.Target) {
	t.Helper()
	if err := target.Shutdown(within(t, timeout)); err != nil {
		t.Error(err)
	}
}

// checkBytes compares what is reported with what a client has sent, and was sent.
func checkBytes(t testing.TB, r usher.Report, received, sent int) {
	t.Helper()
	if r.Received != int64(received) || r.Sent != int64(sent) {
		t.Errorf("reported are %d bytes received and %d sent; want %d and %d", r.Received, r.Sent, received, sent)
	}
}

// TestReportsCountBytes has a taker read and write in all ways that there are, and then close.
func TestReportsCountBytes(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	e := newEar()
	target := e.dial(t, l.Addr().String())
	big := strings.Repeat("0123456789abcdef", 1<<16)
	name := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(name, []byte(big), 0o600); err != nil {
		t.Fatal(err)
	}
	// What passes by the library is known where the kernel tells.
	unseen := func(n int) int {
		if runtime.GOOS == "linux" {
			return n
		}
		return -1
	}
	tests := []struct {
		name           string
		use            func(t *testing.T, client *net.TCPConn, c *usher.Conn)
		received, sent int // the prefix is 6 bytes
	}{
		{"nothing", func(*testing.T, *net.TCPConn, *usher.Conn) {}, 6, 0},
		{"reads and writes", func(t *testing.T, client *net.TCPConn, c *usher.Conn) {
			must(io.ReadFull(c, make([]byte, 6)))(t)
			checkConversation(t, client, c)
		}, 11, 5},
		{"half of the prefix", func(t *testing.T, _ *net.TCPConn, c *usher.Conn) {
			must(io.ReadFull(c, make([]byte, 3)))(t)
		}, 6, 0},
		{"bytes that nobody reads", func(t *testing.T, client *net.TCPConn, c *usher.Conn) {
			io.WriteString(client, "hello")
			must(io.ReadFull(c, make([]byte, 8)))(t)
		}, 8, 0},
		{"to the end", func(t *testing.T, client *net.TCPConn, c *usher.Conn) {
			io.WriteString(client, "hello")
			client.CloseWrite()
			must(io.ReadAll(c))(t)
			io.WriteString(c, "bye")
		}, 11, 3},
		{"a file, by sendfile", func(t *testing.T, client *net.TCPConn, c *usher.Conn) {
			f := must(os.Open(name))(t)
			defer f.Close()
			go io.Copy(io.Discard, client)
			must(c.ReadFrom(f))(t)
		}, 6, len(big)},
		{"to another connection, by splice", func(t *testing.T, client *net.TCPConn, c *usher.Conn) {
			far, near := tcpPair(t)
			go io.Copy(io.Discard, far)
			go func() { io.WriteString(client, big); client.CloseWrite() }()
			must(c.WriteTo(near))(t)
		}, 6 + len(big), 0},
		{"by NetConn", func(t *testing.T, client *net.TCPConn, c *usher.Conn) {
			must(io.ReadFull(c, make([]byte, 6)))(t)
			checkConversation(t, client, c)
			checkConversation(t, client, c.NetConn())
		}, unseen(16), unseen(10)},
		{"by NetConn to the client's end, unread bytes before it", func(t *testing.T, client *net.TCPConn, c *usher.Conn) {
			checkConversation(t, client, c.NetConn())
			io.WriteString(client, "unread")
			client.CloseWrite()
			settleKernel()
		}, unseen(11), unseen(5)},
		{"by NetConn to the end both ways", func(t *testing.T, client *net.TCPConn, c *usher.Conn) {
			checkConversation(t, client, c.NetConn())
			c.CloseWrite()
			client.CloseWrite()
			must(io.ReadAll(c.NetConn()))(t)
			settleKernel()
		}, unseen(11), unseen(5)},
		{"by the descriptor", func(t *testing.T, client *net.TCPConn, c *usher.Conn) {
			raw := must(c.SyscallConn())(t)
			raw.Control(func(uintptr) {}) // who knows what it does
			go io.Copy(io.Discard, client)
			must(c.Write([]byte(big)))(t)
		}, unseen(6), unseen(len(big))},
		{"a copy that goes on when it is closed", func(t *testing.T, client *net.TCPConn, c *usher.Conn) {
			r, w := io.Pipe()
			copied := make(chan bool)
			go func() { c.ReadFrom(r); close(copied) }()
			t.Cleanup(func() { w.Close(); <-copied })
			io.WriteString(w, "hello")
			must(io.ReadFull(client, make([]byte, 5)))(t)
		}, unseen(6), unseen(5)},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, server := tcpPair(t)
			remote := server.RemoteAddr().String()
			io.WriteString(client, "prefix")
			must(io.ReadFull(server, make([]byte, 6)))(t)
			info := usher.Info{ID: strconv.Itoa(i), Host: "h", ALPN: []string{"h2"}}
			began := time.Now()
			c := take(t, target, l, newOffer(t, server, "prefix", info))
			tt.use(t, client, c)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			longest := time.Since(began)
			r := await(t, e.reports, "the end")
			checkBytes(t, r, tt.received, tt.sent)
			if r.Info.ID != info.ID || r.Info.Host != "h" || len(r.Info.ALPN) != 1 || r.Remote.String() != remote || r.Local.Port() == 0 {
				t.Errorf("the report is of another connection: %+v", r)
			}
			if r.Taker.PID != os.Getpid() || r.HandedOn || r.Missed != 0 || r.Duration <= 0 || r.Duration > longest {
				t.Errorf("the report is %+v", r)
			}
			c.Close()
			e.silence(t)
		})
	}
	shutDownTarget(t, target)
	e.silence(t)
}

// TestAWriteThatIsCutShort by Close has sent something all the same.
func TestAWriteThatIsCutShort(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	e := newEar()
	target := e.dial(t, l.Addr().String())
	client, server := tcpPair(t)
	c := take(t, target, l, newOffer(t, server, "", usher.Info{}))
	wrote := make(chan int, 1)
	go func() {
		n, _ := c.Write(make([]byte, 64<<20)) // more than the kernel holds
		wrote <- n
	}()
	must(io.ReadFull(client, make([]byte, 1)))(t)
	c.Close()
	n := int64(await(t, wrote, "the write"))
	r := await(t, e.reports, "the end")
	if runtime.GOOS != "linux" {
		n = -1
	}
	if r.Sent > n || r.Sent == 0 {
		t.Errorf("reported are %d bytes sent of %d that were written", r.Sent, n)
	}
}

// TestAConnectionThatIsClosedWhileItIsOffered is one or the other, and reported once.
func TestAConnectionThatIsClosedWhileItIsOffered(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	e := newEar()
	target := e.dial(t, l.Addr().String())
	const n = 300
	for range n {
		_, server := tcpPair(t)
		c := take(t, target, l, newOffer(t, server, "", usher.Info{}))
		var wg sync.WaitGroup
		wg.Go(func() { c.Close() })
		if o, err := usher.NewOffer(c, nil, usher.Info{}); err == nil {
			must(o.Reclaim())(t).Close()
		}
		wg.Wait()
	}
	shutDownTarget(t, target)
	if len(e.reports) != n {
		t.Errorf("%d ends of %d connections were reported", len(e.reports), n)
	}
}

// settleKernel is for the client's last segment to arrive, which nobody reads.
func settleKernel() { time.Sleep(20 * time.Millisecond) }

// TestAConnectionThatIsHandedOn is reported by each who had it.
func TestAConnectionThatIsHandedOn(t *testing.T) {
	faults.NoLeak(t)
	first, second := listen(t, usher.ListenConfig{}), listen(t, usher.ListenConfig{})
	door, middle := newEar(), newEar()
	toFirst, toSecond := door.dial(t, first.Addr().String()), middle.dial(t, second.Addr().String())
	handOverTo := func(t *testing.T) (*net.TCPConn, *usher.Conn) {
		client, server := tcpPair(t)
		c := take(t, toFirst, first, newOffer(t, server, "", usher.Info{ID: "first"}))
		checkConversation(t, client, c)
		return client, c
	}
	for _, by := range []string{"Read", "NetConn"} {
		t.Run("having used "+by, func(t *testing.T) {
			client, c := handOverTo(t)
			if by == "NetConn" {
				checkConversation(t, client, c.NetConn())
			}
			o := newOffer(t, c, "", usher.Info{ID: "second"})
			door.silence(t)
			c.Close() // what is left of it
			again := take(t, toSecond, second, o)
			checkConversation(t, client, again)
			r := await(t, door.reports, "the first")
			if !r.HandedOn || r.Info.ID != "first" {
				t.Errorf("the report is %+v", r)
			}
			want := map[string]int{"Read": 5, "NetConn": 10}[by]
			if by == "NetConn" && runtime.GOOS != "linux" {
				want = -1
			}
			checkBytes(t, r, want, want)
			again.Close()
			r = await(t, middle.reports, "the second")
			if r.HandedOn || r.Info.ID != "second" {
				t.Errorf("the report is %+v", r)
			}
			checkBytes(t, r, 5, 5)
		})
	}
	t.Run("or is kept after all", func(t *testing.T) {
		client, c := handOverTo(t)
		io.WriteString(client, "too much")
		must(io.ReadFull(c, make([]byte, 8)))(t)
		o := newOffer(t, c, "too much", usher.Info{})
		kept := must(o.Reclaim())(t)
		must(io.ReadFull(kept, make([]byte, 8)))(t)
		checkConversation(t, client, kept)
		kept.Close()
		c.Close()
		r := await(t, door.reports, "it")
		if r.HandedOn || r.Info.ID != "first" {
			t.Errorf("the report is %+v", r)
		}
		checkBytes(t, r, 18, 10)
	})
	shutDownTarget(t, toFirst)
	shutDownTarget(t, toSecond)
	door.silence(t)
	middle.silence(t)
}

// playReportHolder holds the connections that come to the endpoint args[0], which it takes from another if args[1]
// is true, and does what it is told to.
func playReportHolder(args []string) error {
	lc := usher.ListenConfig{
		Replace: args[1] == "true",
		Refused: func(err error) { fmt.Println("refused", err) },
	}
	l, err := lc.Listen(args[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var mu sync.Mutex
	conns := make(map[string]net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				fmt.Println("accepts no more")
				return
			}
			mu.Lock()
			conns[c.(*usher.Conn).Info().ID] = c
			mu.Unlock()
			fmt.Println("holds", c.(*usher.Conn).Info().ID)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch verb, id, _ := strings.Cut(in.Text(), " "); verb {
		case "close":
			mu.Lock()
			err := conns[id].Close()
			mu.Unlock()
			fmt.Println("closed", id, err)
		case "stop":
			fmt.Println("stopped", l.Close())
		case "shutdown":
			fmt.Println("shut down", l.Shutdown(ctx))
		case "goroutines":
			fmt.Println("goroutines", settledGoroutines())
		}
	}
	return nil
}

// settledGoroutines returns how many there are when that has been the same for a while.
func settledGoroutines() int {
	n, same := 0, 0
	for ; same < 20; time.Sleep(5 * time.Millisecond) {
		if now := runtime.NumGoroutine(); now != n {
			n, same = now, 0
		}
		same++
	}
	return n
}

// giveTo hands a connection to an actor that holds it.
func giveTo(t testing.TB, target *usher.Target, a *faults.Actor, id string) *net.TCPConn {
	t.Helper()
	client, server := tcpPair(t)
	if err := target.Handoff(within(t, timeout), newOffer(t, server, "", usher.Info{ID: id})); err != nil {
		t.Fatal(err)
	}
	a.Await("holds " + id)
	return client
}

// TestReportsAfterTheListener has a process close its listener in all ways that there are, then the connections that
// it has. Channels stay until then, and no longer.
func TestReportsAfterTheListener(t *testing.T) {
	faults.NoLeak(t)
	if isWindows {
		t.Skip("there a channel ends with its listener")
	}
	tests := []struct {
		name string
		end  func(t *testing.T, path string, old *faults.Actor) (next *faults.Actor)
		lost error
	}{
		{"by Close", func(t *testing.T, path string, old *faults.Actor) *faults.Actor {
			old.Tell("stop")
			old.Await("stopped <nil>")
			return faults.Start(t, "report-holder", path, "false")
		}, nil},
		{"by Shutdown, which does not wait for connections", func(t *testing.T, path string, old *faults.Actor) *faults.Actor {
			old.Tell("shutdown")
			old.Await("shut down <nil>")
			return faults.Start(t, "report-holder", path, "false")
		}, nil},
		{"by another process in its place", func(t *testing.T, path string, old *faults.Actor) *faults.Actor {
			next := faults.Start(t, "report-holder", path, "true")
			next.Await("ready")
			old.Await("accepts no more")
			return next
		}, usher.ErrReplaced},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := endpoint(t)
			e := newEar()
			old := faults.Start(t, "report-holder", path, "false")
			old.Await("ready")
			before := settledGoroutines()
			target := e.dial(t, path)
			for _, id := range []string{"a", "b", "c"} {
				giveTo(t, target, old, id)
			}
			old.Tell("close a")
			old.Await("closed a <nil>")
			next := tt.end(t, path, old)
			next.Await("ready")
			if r := await(t, e.reports, "a"); r.Info.ID != "a" {
				t.Errorf("the report is %+v", r)
			}
			wantError(t, await(t, e.lost, "the listener"), tt.lost, path)
			if p := <-e.takers; p.PID != old.PID() {
				t.Errorf("process %d is lost; want %d", p.PID, old.PID())
			}
			giveTo(t, target, next, "d")
			if p, ok := target.Taker(); !ok || p.PID != next.PID() {
				t.Errorf("the taker is %+v, %v; want process %d", p, ok, next.PID())
			}
			old.Tell("close b")
			if r := await(t, e.reports, "b"); r.Info.ID != "b" || r.Taker.PID != old.PID() {
				t.Errorf("the report is %+v", r)
			}
			// The last one, after which that process has nothing left of the channel, nor has this one.
			old.Tell("close c")
			if r := await(t, e.reports, "c"); r.Info.ID != "c" {
				t.Errorf("the report is %+v", r)
			}
			old.Tell("goroutines")
			alone := old.Await("goroutines ")
			fresh := faults.Start(t, "report-holder", endpoint(t), "false")
			fresh.Await("ready")
			fresh.Tell("goroutines")
			// The fresh one waits in Accept of its listener and of its channels.
			if n, _ := strconv.Atoi(fresh.Await("goroutines ")); alone != strconv.Itoa(n-2) {
				t.Errorf("%s goroutines are left where %d are to begin with", alone, n)
			}
			next.Tell("close d")
			shutDownTarget(t, target)
			if r := await(t, e.reports, "d"); r.Info.ID != "d" {
				t.Errorf("the report is %+v", r)
			}
			e.silence(t)
			for _, a := range []*faults.Actor{old, next, fresh} {
				a.End()
				if refused := a.Heard("refused"); len(refused) > 0 {
					t.Error(refused)
				}
			}
			if after := settledGoroutines(); after > before {
				t.Errorf("%d goroutines are left, there were %d", after, before)
			}
		})
	}
}

// TestATargetThatIsShutDown waits for what is owed to it, and no longer than its context.
func TestATargetThatIsShutDown(t *testing.T) {
	faults.NoLeak(t)
	path := endpoint(t)
	taker := faults.Start(t, "report-holder", path, "false")
	taker.Await("ready")

	t.Run("waits", func(t *testing.T) {
		e := newEar()
		target := e.dial(t, path)
		giveTo(t, target, taker, "a")
		_, server := tcpPair(t)
		o := newOffer(t, server, "", usher.Info{})
		down := make(chan error, 1)
		go func() { down <- target.Shutdown(within(t, timeout)) }()
		for _, ok := target.Taker(); ok; _, ok = target.Taker() {
			time.Sleep(time.Millisecond)
		}
		wantError(t, target.Handoff(within(t, timeout), o), net.ErrClosed, "the target is shut down")
		select {
		case err := <-down:
			t.Errorf("it did not wait: %v", err)
		default:
		}
		taker.Tell("close a")
		if err := await(t, down, "the shutdown"); err != nil {
			t.Error(err)
		}
		if r := await(t, e.reports, "a"); r.Info.ID != "a" {
			t.Errorf("the report is %+v", r)
		}
		wantError(t, target.Shutdown(within(t, timeout)), net.ErrClosed, "")
		wantError(t, target.Close(), net.ErrClosed, "")
		if len(e.lost) > 0 {
			t.Errorf("it was told of its own end: %v", <-e.lost)
		}
	})
	t.Run("and gives up", func(t *testing.T) {
		e := newEar()
		target := e.dial(t, path)
		giveTo(t, target, taker, "b")
		wantError(t, target.Shutdown(within(t, 20*time.Millisecond)), os.ErrDeadlineExceeded, "have not reported")
		taker.Tell("close b")
		taker.Await("closed b <nil>")
		e.silence(t)
	})
	t.Run("or is closed meanwhile", func(t *testing.T) {
		e := newEar()
		target := e.dial(t, path)
		giveTo(t, target, taker, "c")
		down := make(chan error, 1)
		go func() { down <- target.Shutdown(context.Background()) }()
		for _, ok := target.Taker(); ok; _, ok = target.Taker() {
			time.Sleep(time.Millisecond)
		}
		wantError(t, target.Close(), net.ErrClosed, "")
		if err := await(t, down, "the shutdown"); err != nil {
			t.Error(err)
		}
	})
	t.Run("without reports it waits for nothing", func(t *testing.T) {
		target := must(usher.Dial(within(t, timeout), path))(t)
		giveTo(t, target, taker, "d")
		shutDownTarget(t, target)
	})
	t.Run("and the taker goes on", func(t *testing.T) {
		e := newEar()
		target := e.dial(t, path)
		giveTo(t, target, taker, "e")
		taker.Tell("close e")
		await(t, e.reports, "e")
	})
	taker.End()
	if refused := taker.Heard("refused"); len(refused) > 0 {
		t.Error(refused)
	}
}

// TestATakerThatIsKilled reports nothing; who waits for its reports waits no longer.
func TestATakerThatIsKilled(t *testing.T) {
	faults.NoLeak(t)
	path := endpoint(t)
	taker := faults.Start(t, "report-holder", path, "false")
	taker.Await("ready")
	e := newEar()
	target := e.dial(t, path)
	giveTo(t, target, taker, "a")
	taker.Kill()
	wantError(t, await(t, e.lost, "the taker"), nil, path)
	if p := <-e.takers; p.PID != taker.PID() {
		t.Errorf("process %d is lost; want %d", p.PID, taker.PID())
	}
	if p, ok := target.Taker(); ok || p != (ipc.Peer{}) || target.Open() != 0 {
		t.Errorf("the taker is %+v with %d offers", p, target.Open())
	}
	shutDownTarget(t, target)
	e.silence(t)
}

// TestAGiverThatIsGone is none of the taker's business.
func TestAGiverThatIsGone(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{Refused: func(err error) { t.Error(err) }})
	target := newEar().dial(t, l.Addr().String())
	_, server := tcpPair(t)
	c := take(t, target, l, newOffer(t, server, "", usher.Info{}))
	target.Close()
	settleKernel()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Shutdown(within(t, timeout)); err != nil {
		t.Error(err)
	}
}

// TestAGiverThatDoesNotReadReports costs the taker no more than the reports for which it has room, and no time.
func TestAGiverThatDoesNotReadReports(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	page := must(usher.CreatePage())(t)
	defer page.Close()
	words, unmap, err := usher.MapPage(page)
	if err != nil {
		t.Fatal(err)
	}
	defer unmap()
	c := must(ipc.Dial(within(t, timeout), l.Addr().String()))(t)
	defer c.Close()
	if err := c.Send(head(1, 1, 0, 1), page); err != nil {
		t.Fatal(err)
	}
	const n = usher.MaxOpen
	info := append([]byte{99, 0xf0, 0xff}, make([]byte, 0xfff0)...) // large, of a type that nobody knows
	for slot := range n {
		_, server := tcpPair(t)
		words[slot*16] = 1<<2 | 1
		if err := c.Send(append(head(2, byte(slot), uint16(len(info)), 1), info...), server); err != nil {
			t.Fatal(err)
		}
		server.Close()
		conn := must(l.Accept())(t)
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	reports, missed := 0, 0
	c.SetDeadline(time.Now().Add(timeout))
	for reports+missed < n {
		m := must(c.Receive())(t)
		if m.Data[0] == 6 {
			reports += (len(m.Data) - 8) / (32 + len(info))
			missed += int(m.Data[4])
		}
	}
	// What waits, what is on its way, and what the channel holds: 1 MiB, as much, and less than that.
	if missed == 0 || reports*len(info) > 3<<20 {
		t.Errorf("%d reports of %d came, %d were missed", reports, n, missed)
	}
	if err := c.Send(head(7, 0, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if isWindows { // there the giver has the last word
		if _, _, err := farewell(c); err != nil {
			t.Error(err)
		}
		return
	}
	if err := receiveToEnd(c); err != io.EOF {
		t.Errorf("the channel ended with %v", err)
	}
}

// TestAConnectionThatIsForgotten is not reported, and nobody waits for it.
func TestAConnectionThatIsForgotten(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	e := newEar()
	target := e.dial(t, l.Addr().String())
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		c.Write([]byte("x"))
	}()
	client, server := tcpPair(t)
	if err := target.Handoff(within(t, timeout), newOffer(t, server, "", usher.Info{})); err != nil {
		t.Fatal(err)
	}
	must(io.ReadFull(client, make([]byte, 1)))(t)
	down := make(chan error, 1)
	go func() { down <- target.Shutdown(within(t, timeout)) }()
	for {
		runtime.GC()
		select {
		case err := <-down:
			if err != nil {
				t.Error(err)
			}
			e.silence(t)
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// TestOpenOffers are counted until the taker has answered for them.
func TestOpenOffers(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	target := dial(t, l)
	wantOpen := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(timeout); target.Open() != n; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d offers are open; want %d", target.Open(), n)
			}
		}
	}
	wantOpen(0)
	var wg sync.WaitGroup
	for i := range 3 {
		_, server := tcpPair(t)
		o := newOffer(t, server, "", usher.Info{})
		ctx := within(t, timeout)
		if i == 0 {
			ctx = within(t, 20*time.Millisecond) // will be withdrawn, and counts all the same
		}
		wg.Go(func() {
			if err := target.Handoff(ctx, o); (err != nil) != (i == 0) {
				t.Error(err)
			}
		})
	}
	wantOpen(3)
	time.Sleep(30 * time.Millisecond)
	wantOpen(3)
	for range 2 {
		must(l.Accept())(t).Close()
	}
	wg.Wait()
	wantOpen(0)
}

// playReportServer serves at the endpoint args[0] with package net/http, and stops like such servers do.
func playReportServer(args []string) error {
	l, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		w.Write(body)
	})}
	fmt.Println("ready")
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return err
	}
	if err := <-served; err != http.ErrServerClosed {
		return err
	}
	if err := l.Shutdown(ctx); !errors.Is(err, net.ErrClosed) { // the server has closed it
		return fmt.Errorf("shutdown: %w", err)
	}
	return nil
}

// TestAServerReports has a server in another process, some connections to which are open when it is told to stop: it
// ends right after the last of them.
func TestAServerReports(t *testing.T) {
	faults.NoLeak(t)
	path := endpoint(t)
	server := faults.Start(t, "report-server", path)
	server.Await("ready")
	e := newEar()
	target := e.dial(t, path)
	const n = 20
	for i := range n {
		client, conn := tcpPair(t)
		request := fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", i, strings.Repeat("x", i))
		io.WriteString(client, request)
		prefix := make([]byte, 4)
		must(io.ReadFull(conn, prefix))(t)
		info := usher.Info{ID: strconv.Itoa(i)}
		if err := target.Handoff(within(t, timeout), newOffer(t, conn, string(prefix), info)); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(io.LimitReader(client, 1<<20))
		response := must(http.ReadResponse(in, nil))(t)
		if body := must(io.ReadAll(response.Body))(t); len(body) != i {
			t.Errorf("the answer is %q", body)
		}
		if i%2 == 0 {
			client.Close()
		}
	}
	if isWindows { // connections that outlive the listener are not reported there
		for range n / 2 {
			await(t, e.reports, "a connection that its client has closed")
		}
		server.End()
		return
	}
	server.End()
	seen := make(map[string]bool)
	for range n {
		r := await(t, e.reports, "each connection")
		if seen[r.Info.ID] {
			t.Errorf("%+v is reported twice", r)
		}
		seen[r.Info.ID] = true
		i, _ := strconv.Atoi(r.Info.ID)
		if want := int64(len("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\n") + len(r.Info.ID) + i); r.Received != want || r.Sent < want {
			t.Errorf("connection %d received %d bytes, want %d, and sent %d", i, r.Received, want, r.Sent)
		}
	}
	await(t, e.lost, "the listener")
	shutDownTarget(t, target)
	e.silence(t)
}

// TestASecondCloseFindsTheEndReported closes connections twice at once, as package net/http does with one whose client has
// just gone when the server is shut down: the program may end after the second Close, though the first one runs elsewhere.
func TestASecondCloseFindsTheEndReported(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	e := newEar()
	target := e.dial(t, l.Addr().String())
	n := 1000
	if testing.Short() || isWindows {
		n = 100
	}
	for range n {
		_, conn := tcpPair(t)
		offer := newOffer(t, conn, "", usher.Info{})
		handed := make(chan error, 1)
		go func() { handed <- target.Handoff(within(t, timeout), offer) }()
		c := must(l.Accept())(t)
		if err := <-handed; err != nil {
			t.Fatal(err)
		}
		left := make(chan int, 2)
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				c.Close()
				left <- usher.Unended(l)
			})
		}
		both.Wait()
		if a, b := <-left, <-left; a != 0 || b != 0 {
			t.Fatal("a Close has returned before the end was reported")
		}
	}
	for range n {
		await(t, e.reports, "each connection")
	}
}

// playReportCloser says a byte on each connection that comes to the endpoint args[0], and closes it.
func playReportCloser(args []string) error {
	l, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("x"))
			c.Close()
		}
	}()
	io.Copy(io.Discard, os.Stdin)
	return l.Close()
}

// TestAllReportsArrive hands over many connections, and hears of each once.
func TestAllReportsArrive(t *testing.T) {
	faults.NoLeak(t)
	n := 10_000
	if testing.Short() || isWindows {
		n = 500
	}
	path := endpoint(t)
	taker := faults.Start(t, "report-closer", path)
	taker.Await("ready")
	e := newEar()
	target := e.dial(t, path)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	ids := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for id := range ids {
				if err := giveAndHear(target, l, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for id := range n {
		ids <- id
	}
	close(ids)
	wg.Wait()
	seen := make(map[string]bool)
	for range n {
		r := await(t, e.reports, "each connection")
		if seen[r.Info.ID] || r.Missed > 0 {
			t.Fatalf("%+v after %d others", r, len(seen))
		}
		seen[r.Info.ID] = true
	}
	shutDownTarget(t, target)
	e.silence(t)
	taker.End()
}

// giveAndHear hands a connection over and waits until it is closed.
func giveAndHear(target *usher.Target, l net.Listener, id int) error {
	client, server, err := connect(l)
	if err != nil {
		return err
	}
	defer client.Close()
	o, err := usher.NewOffer(server, nil, usher.Info{ID: strconv.Itoa(id)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := target.Handoff(ctx, o); err != nil {
		return err
	}
	client.SetDeadline(time.Now().Add(timeout))
	got, err := io.ReadAll(client)
	if err == nil && string(got) != "x" {
		err = fmt.Errorf("read %q", got)
	}
	return err
}

// playReportKeeper keeps all connections that come to the endpoint args[0].
func playReportKeeper(args []string) error {
	l, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var conns []net.Conn
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// playReportIdle hands connections to the endpoint args[0] that it accepts at an address that it says, args[1] of them and
// then as many again, and says after each how many bytes it has on its heap, and how many descriptors.
func playReportIdle(args []string) error {
	ctx := context.Background()
	d := usher.Dialer{Ended: func(usher.Report) {}}
	t, err := d.Dial(ctx, args[0])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("address", l.Addr())
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for round := range 2 {
		for i := range n {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			o, err := usher.NewOffer(c, []byte("prefix"), usher.Info{ID: strconv.Itoa(i), Host: "shop.example.com"})
			if err != nil {
				return err
			}
			if err := t.Handoff(ctx, o); err != nil {
				return err
			}
		}
		// What goes by finalizers goes in the second collection.
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Println("round", round, m.HeapAlloc, faults.Descriptors())
	}
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// TestTheGiverKeepsNothing of connections that are open with a taker, though it shall hear of their ends.
func TestTheGiverKeepsNothing(t *testing.T) {
	if isWindows {
		t.Skip("descriptors are not counted there")
	}
	const n = 1000
	path := endpoint(t)
	taker := faults.Start(t, "report-keeper", path)
	taker.Await("ready")
	giver := faults.Start(t, "report-idle", path, strconv.Itoa(n))
	address := giver.Await("address ")
	var heap, descriptors [2]int
	for round := range heap {
		for range n {
			c := must(net.Dial("tcp", address))(t)
			defer c.Close()
		}
		fmt.Sscan(giver.Await(fmt.Sprintf("round %d ", round)), &heap[round], &descriptors[round])
	}
	if grown := heap[1] - heap[0]; grown > 32*n {
		t.Errorf("%d connections that were handed over hold %d bytes", n, grown)
	}
	if descriptors[1] != descriptors[0] || descriptors[0] == 0 {
		t.Errorf("%d descriptors are open, then %d", descriptors[0], descriptors[1])
	}
	giver.End()
	taker.End()
}

// TestCloseAndOfferAtOnce, as when a timer closes a connection that is about to be handed on: either is first, and the other finds it closed.
func TestCloseAndOfferAtOnce(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, usher.ListenConfig{})
	e := newEar()
	target := e.dial(t, l.Addr().String())
	for range 100 {
		client, c := handOver(t, target, l, "")
		var closeErr, offerErr error
		var o *usher.Offer
		var wg sync.WaitGroup
		wg.Go(func() { closeErr = c.Close() })
		wg.Go(func() { o, offerErr = usher.NewOffer(c, nil, usher.Info{}) })
		wg.Wait()
		if errors.Is(closeErr, net.ErrClosed) == errors.Is(offerErr, net.ErrClosed) {
			t.Fatalf("Close: %v, NewOffer: %v", closeErr, offerErr)
		}
		if offerErr == nil {
			next := take(t, target, l, o)
			if r := await(t, e.reports, "the connection that was handed on"); !r.HandedOn {
				t.Fatalf("a connection that was handed on is reported as %+v", r)
			}
			checkConversation(t, client, next)
			next.Close()
		}
		if r := await(t, e.reports, "the end"); r.HandedOn {
			t.Fatalf("a connection that was closed is reported as %+v", r)
		}
	}
}
