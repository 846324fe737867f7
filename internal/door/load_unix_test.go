//go:build unix

package door

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

// slowClients is what CI makes larger.
var slowClients = flag.Int("door.slow", 500, "clients that send one byte a second in TestSlowClientsDoNotDelayAGoodOne")

func init() {
	roles["door"] = playDoor
	roles["taker"] = playTaker
	roles["drip"] = playDrip
}

// fewDescriptors is how many the door may have in TestADoorOutOfDescriptorsLosesNobody.
const fewDescriptors = 48

// playDoor is a door. Args: whether it has "few" descriptors or "many", the configuration, and the number of the user
// to be, if it is to be another. It says where it listens, how it is each time it is asked, and ends with its input.
func playDoor(args []string) error {
	c, err := config.Parse("test.yaml", []byte(args[1]))
	if err != nil {
		return err
	}
	if args[0] == "few" {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: fewDescriptors, Max: fewDescriptors}); err != nil {
			return err
		}
	}
	if len(args) > 2 {
		if err := become(args[2]); err != nil {
			return err
		}
	}
	d, err := Start(Options{Config: c, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError + 1}))})
	if err != nil {
		return err
	}
	fmt.Println("listening", d.Status().Listeners[0].Address)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		l := d.Status().Listeners[0]
		fmt.Println(in.Text(), l.AcceptErrors, l.Peeking, m.HeapInuse+m.StackInuse)
	}
	return d.Shutdown(context.Background())
}

// playTaker serves an endpoint. Args: the socket, "accept" or "stuck", which accepts nothing, and then, if they
// matter, the numbers of the user to be and of the one that the door is. It says when it listens. When its input ends it gives back what it has not claimed, serves the rest and ends.
func playTaker(args []string) error {
	if len(args) > 2 {
		if err := become(args[2]); err != nil {
			return err
		}
	}
	lc := usher.ListenConfig{Replace: true}
	if len(args) > 3 {
		policy, err := ipc.Users(args[3])
		if err != nil {
			return err
		}
		lc.Policy, lc.Mode = policy, 0o666
	}
	l, err := lc.Listen(args[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var fresh sync.WaitGroup // connections whose request has not reached the handler
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fresh.Done() // each has one request
			fmt.Fprint(w, os.Getpid())
		}),
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { fresh.Add(1); return ctx },
	}
	served := make(chan error, 1)
	if args[1] == "accept" {
		go func() { served <- s.Serve(l) }()
	}
	io.Copy(io.Discard, os.Stdin)
	if err := l.Shutdown(context.Background()); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	if args[1] == "accept" {
		<-served
		fresh.Wait() // a server that is being shut down closes those without an answer
	}
	if err := s.Shutdown(context.Background()); !errors.Is(err, net.ErrClosed) { // the listener is, already
		return err
	}
	return nil
}

// playDrip makes connections that send a byte a second of a request that is never done. Args: address, number. It
// says when all are made, and then how many are still there each time it is asked.
func playDrip(args []string) error {
	n, _ := strconv.Atoi(args[1])
	conns := make([]net.Conn, n)
	for i := range conns {
		// Each from an address of its own: per_ip is another defence.
		from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}
		c, err := (&net.Dialer{LocalAddr: from, Control: reuse}).Dial("tcp", args[0])
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		conns[i] = c
	}
	fmt.Println("made")
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			asked <- struct{}{}
		}
	}()
	request := "GET /" + strings.Repeat("a", 1000)
	alive, tick := n, time.NewTicker(time.Second)
	for at := 0; ; {
		select {
		case <-tick.C:
			alive = 0
			for i, c := range conns {
				if c == nil {
					continue
				}
				if _, err := io.WriteString(c, request[at:at+1]); err != nil {
					conns[i] = nil
					c.Close()
					continue
				}
				alive++
			}
			at++
		case _, ok := <-asked:
			if !ok {
				return nil
			}
			fmt.Println("alive", alive)
		}
	}
}

func reuse(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
}

// exchange makes a connection, a request on it, and reads the answer to its end.
func exchange(addr string) (string, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(timeout))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	if err == nil && !strings.HasPrefix(string(b), "HTTP/1.1 200") {
		err = fmt.Errorf("it was told %q", b)
	}
	return string(b), err
}

// load makes connections from several clients at once until there were n and more says so no longer. Each that is
// not served fails the test.
func load(t *testing.T, addr string, clients, n int, more func() bool) (served, lost int64, times []time.Duration) {
	t.Helper()
	var ok, bad, begun atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for begun.Add(1) <= int64(n) || more() {
				began := time.Now()
				if _, err := exchange(addr); err != nil {
					bad.Add(1)
					t.Errorf("a good client: %v", err)
					continue
				}
				ok.Add(1)
				mu.Lock()
				times = append(times, time.Since(began))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.Sort(times)
	return ok.Load(), bad.Load(), times
}

// maxWaiting is what a connection in the peek phase may cost the door, in bytes: most of it is a goroutine's stack.
const maxWaiting = 16 << 10

// loadMemory is what the good clients may cost it meanwhile, whatever the number of the slow ones.
const loadMemory = 8 << 20

func number(t *testing.T, s string) int {
	t.Helper()
	return must(strconv.Atoi(s))(t)
}

func never() bool { return false }

func quantile(times []time.Duration, q float64) time.Duration {
	return times[min(len(times)-1, int(q*float64(len(times))))]
}

func TestSlowClientsDoNotDelayAGoodOne(t *testing.T) {
	h := newHouse(t)
	taker := faults.Start(t, "taker", h.path("shop"), "accept")
	taker.Await("ready")
	yaml := `
listeners: [{name: web, address: "127.0.0.1:0", limits: {peek_timeout: 5m, peeking: 100000}}]
routes: [{match: {}, handoff: shop}]
endpoints: {dir: ` + h.dir + `}
`
	door := faults.Start(t, "door", "many", yaml)
	addr := strings.TrimSpace(door.Await("listening"))
	_, _, alone := load(t, addr, 2, *loadConns, never)
	door.Tell("before")
	before := strings.Fields(door.Await("before"))
	drip := faults.Start(t, "drip", addr, strconv.Itoa(*slowClients))
	drip.Await("made")
	began := time.Now()
	served, lost, beside := load(t, addr, 2, *loadConns, func() bool { return time.Since(began) < 3*time.Second })
	door.Tell("beside")
	during := strings.Fields(door.Await("beside"))
	grown := number(t, during[2]) - number(t, before[2])
	memory := float64(grown) / float64(*slowClients)
	if n := number(t, during[1]); n < *slowClients || grown > *slowClients*maxWaiting+loadMemory {
		t.Errorf("%d clients are in the peek phase, of which each costs %.0f bytes, want %d at least and %d at most", n, memory, *slowClients, maxWaiting)
	}
	drip.Tell("alive?")
	if alive := strings.TrimSpace(drip.Await("alive")); alive != strconv.Itoa(*slowClients) {
		t.Errorf("%s of %d slow clients are there at the end: they have not been there beside the good ones", alive, *slowClients)
	}
	t.Logf("%d connections beside %d slow clients, of %.0f bytes each: %d served, %d lost; median %v, 99 %% %v; without them %v, %v",
		served+lost, *slowClients, memory, served, lost, quantile(beside, .5), quantile(beside, .99), quantile(alone, .5), quantile(alone, .99))
	drip.Kill()
	taker.End()
	door.End()
}

// TestADoorOutOfDescriptorsLosesNobody gives the door fewer descriptors than it has clients at once. None is left when
// its taker comes, to which it has to connect.
func TestADoorOutOfDescriptorsLosesNobody(t *testing.T) {
	h := newHouse(t)
	door := faults.Start(t, "door", "few", `
listeners: [{name: web, address: "127.0.0.1:0", defer_accept: false, limits: {peek_timeout: 1s}}]
routes: [{match: {}, handoff: shop, handoff_timeout: 20s}]
endpoints: {dir: `+h.dir+`}
`)
	addr := strings.TrimSpace(door.Await("listening"))
	// Clients that say nothing hold most of the descriptors, for as long as a peek may take, or until they are evicted.
	idle := make([]net.Conn, 60)
	for i := range idle {
		idle[i] = raw(t, addr)
	}
	taker := faults.Start(t, "taker", h.path("shop"), "accept")
	taker.Await("ready")
	served, lost, _ := load(t, addr, 64, *loadConns, never)
	door.Tell("status")
	status := strings.Fields(door.Await("status"))
	if status[0] == "0" {
		t.Error("the door has never been out of descriptors")
	}
	t.Logf("%d connections, %d served, %d lost; accept failed %s times", *loadConns, served, lost, status[0])
	for _, c := range idle {
		c.Close()
	}
	taker.End()
	door.End()
}

// TestTakersVanishUnderLoad has one taker that is shut down and started again and again, and one that is killed
// each time when it has offers, of which it claims none. What they do not take has to go elsewhere.
func TestTakersVanishUnderLoad(t *testing.T) {
	h := newHouse(t)
	h.take("chat", whoami("chat"), nil)
	h.open(`
listeners: [{name: web, address: "127.0.0.1:0"}]
routes: [{name: r, match: {}, handoff: ["{shop}", "{blog}"], handoff_timeout: 200ms, fallback: {handoff: "{chat}"}}]
`)
	addr := h.addr("web")
	stop := make(chan struct{})
	var killed, stopped, ended int
	var vanishing sync.WaitGroup
	vanishing.Go(func() {
		for ; !isClosed(stop); ended++ {
			a := faults.Start(t, "taker", h.path("shop"), "accept")
			a.Await("ready")
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			a.End()
		}
	})
	vanishing.Go(func() {
		for ; !isClosed(stop); killed++ {
			a := faults.Start(t, "taker", h.path("blog"), "stuck")
			a.Await("ready")
			if killed%3 == 0 {
				syscall.Kill(a.PID(), syscall.SIGSTOP)
				stopped++
			}
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			a.Kill()
		}
	})
	began := time.Now()
	served, lost, _ := load(t, addr, 8, *loadConns, func() bool { return time.Since(began) < 2*time.Second })
	close(stop)
	vanishing.Wait()
	t.Logf("%d connections served, %d lost; takers shut down %d, killed %d, of which %d were stopped before", served, lost, ended, killed, stopped)
	s := h.door.Status()
	for _, e := range s.Endpoints {
		if e.Name == "blog" && e.Withdrawn == 0 {
			t.Error("no offer was open at a taker that was killed")
		}
		t.Logf("endpoint %s: %d claimed, %d declined, %d withdrawn", e.Name, e.Claimed, e.Declined, e.Withdrawn)
	}
	if n := h.count("r", admin.HandedOver); n != int(served) {
		t.Errorf("the door has handed over %d connections, and %d were served", n, served)
	}
}
