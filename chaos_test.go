//go:build linux

package usher_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/faults"
	"golang.org/x/sys/unix"
)

var (
	chaosConns   = flag.Int("chaos.conns", 0, "TestChaos: number of connections (default 1500, less with -race or -short)")
	chaosEvery   = flag.Duration("chaos.every", 20*time.Millisecond, "TestChaos: time from one fault to the next")
	chaosClients = flag.Int("chaos.clients", 64, "TestChaos: clients at a time")
	chaosSeed    = flag.Uint64("chaos.seed", 0, "TestChaos: seed of all choices (default a new one)")
)

const (
	chaosTakers = 4

	// chaosPatience ends a test that hangs, not one that is slow.
	chaosPatience = time.Minute

	// chaosCalm connections are made before the faults and after them: several come to each taker.
	chaosCalm = 16 * chaosTakers
)

// TestChaos is the fault test. A giver hands the connections of many clients to takers, all in
// processes of their own, which are stopped, killed, replaced, shut down and starved of descriptors
// meanwhile, the giver too. Each process logs what becomes its own before it does anything with it. In
// the end each connection must have been served once, or have had one owner that was killed; see
// chaosHistory.
//
// All choices come from the seed, so that another run with it makes the same faults after the same
// delays; what they hit depends on the scheduler.
func TestChaos(t *testing.T) {
	faults.NoLeak(t)
	goroutines := runtime.NumGoroutine()
	r := newChaosRun(t)
	t.Logf("seed %d", r.seed)
	if err := r.startAll(); err != nil {
		t.Fatal(err)
	}
	conns := chaosConnCount()
	r.serve(chaosCalm)
	fresh := r.usage()
	began := time.Now()
	for _, spare := range []chaosSort{noProcess, takerProcess, giverProcess} {
		stopFaults := r.startFaults(spare)
		if spare == noProcess {
			r.serve(conns * 8 / 10)
		} else {
			r.serve(conns / 10)
		}
		stopFaults()
		if spare != noProcess { // those have seen the others die
			r.serve(chaosCalm)
			r.checkUsage(spare, fresh)
		}
	}
	took := time.Since(began)
	r.stopAll()
	r.account(took)
	for deadline := time.Now().Add(timeout); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%d goroutines are left, there were %d", runtime.NumGoroutine(), goroutines)
			break
		}
	}
}

func chaosConnCount() int {
	if *chaosConns > 0 {
		return *chaosConns
	}
	if testing.Short() || hasRaceDetector() {
		return 400
	}
	return 1500
}

func hasRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// chaosNow is the time in nanoseconds on the clock that all processes share and nobody sets.
func chaosNow() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// Who makes choices, each from a sequence of its own, so that no one's depend on another's.
const (
	chaosFaultChoices = iota
	chaosClientChoices
	chaosGiverChoices
	chaosTakerChoices
)

func chaosRand(seed uint64, who, id int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(id)<<8|uint64(who)))
}

// chaosRun is a run of TestChaos: the processes, and what the clients saw.
type chaosRun struct {
	t         *testing.T
	seed      uint64
	dir       string // of the logs; "go test -artifacts" keeps it
	listener  *net.TCPListener
	inherited *os.File // the listener, for the giver: while one is dead, clients wait in its queue
	endpoints []string
	over      chan struct{} // closed when the run cannot go on

	mu        sync.Mutex
	isOver    bool
	processes []*chaosProcess // all that there ever were
	current   []*chaosProcess // the taker at each endpoint, then the giver
	happened  []chaosHappening
	skipped   int            // faults for want of a process that none was done to
	retiring  sync.WaitGroup // of those that were replaced

	nextID  atomic.Int64
	clients sync.Map // of *chaosClient, by id
}

func newChaosRun(t *testing.T) *chaosRun {
	r := &chaosRun{
		t: t, seed: *chaosSeed, dir: t.ArtifactDir(), over: make(chan struct{}),
		current: make([]*chaosProcess, chaosTakers+1),
	}
	for r.seed == 0 {
		r.seed = rand.Uint64()
	}
	for range chaosTakers {
		r.endpoints = append(r.endpoints, endpoint(t))
	}
	r.listener = must(net.Listen("tcp", "127.0.0.1:0"))(t).(*net.TCPListener)
	r.inherited = must(r.listener.File())(t)
	t.Cleanup(func() {
		r.listener.Close()
		r.inherited.Close()
		r.killAll()
	})
	return r
}

// fail is for what makes it useless to go on. Any goroutine may call it.
func (r *chaosRun) fail(err error) {
	r.t.Errorf("seed %d: %v", r.seed, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isOver {
		r.isOver = true
		close(r.over)
	}
}

// chaosClient is what a client saw.
type chaosClient struct {
	id           int
	began, ended int64
	reply        chaosReply
	servedBy     int // serial of the process, for a whole reply
	got          int // bytes
	err          error
}

type chaosReply int

const (
	replyNone  chaosReply = iota
	replyPart             // some of what it should get, and not the end
	replyWhole            // and the end, and no more
	replyWrong
)

// serve has n clients served, and goes on until the last has seen the end of its connection.
func (r *chaosRun) serve(n int) {
	var wg sync.WaitGroup
	last := r.nextID.Load() + int64(n)
	for range min(n, *chaosClients) {
		wg.Go(func() {
			for {
				select {
				case <-r.over:
					return
				default:
				}
				id := r.nextID.Add(1)
				if id > last {
					return
				}
				c := r.client(int(id))
				r.clients.Store(c.id, c)
				if errors.Is(c.err, os.ErrDeadlineExceeded) {
					r.fail(fmt.Errorf("client %d waits in vain: %w", id, c.err))
				}
			}
		})
	}
	wg.Wait()
	r.nextID.Store(last)
}

// chaosSource is the address of a client. Each has its own, which tells the giver and the taker who it
// is before they have read anything, and makes no connection wait for the port of another.
func chaosSource(id int) net.IP { return net.IPv4(127, byte(1+id>>16), byte(id>>8), byte(id)) }

func chaosID(a net.Addr) int {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.To4() == nil {
		return 0
	}
	ip := tcp.IP.To4()
	return (int(ip[1])-1)<<16 | int(ip[2])<<8 | int(ip[3])
}

// chaosHead begins a request, and the token follows. The client may close its half after it; who
// answers then reads to the end.
func chaosHead(id, size int, halfClose bool) string {
	return fmt.Sprintf("%d %d %t\n", id, size, halfClose)
}

// chaosReplyHead begins the reply, and the token follows.
func chaosReplyHead(id, serial, size int) string {
	return fmt.Sprintf("%d from %d pid %d, %d bytes\n", id, serial, os.Getpid(), size)
}

// client makes a connection, sends a token in pieces, and reads to the end.
func (r *chaosRun) client(id int) *chaosClient {
	c := &chaosClient{id: id, began: chaosNow()}
	rng := chaosRand(r.seed, chaosClientChoices, id)
	ctx, cancel := context.WithTimeout(context.Background(), chaosPatience)
	defer cancel()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: chaosSource(id)}}
	nc, err := dialer.DialContext(ctx, "tcp", r.listener.Addr().String())
	if err != nil {
		c.err, c.ended = err, chaosNow()
		return c
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(chaosPatience))
	token := chaosToken(rng)
	sendErr := chaosSend(rng, nc.(*net.TCPConn), id, token)
	got, err := io.ReadAll(nc) // also after an error of the other: it may have been answered too early
	c.ended = chaosNow()
	c.err = errors.Join(sendErr, err)
	c.got = len(got)
	c.reply, c.servedBy = r.checkReply(id, got, token)
	if c.reply == replyWhole && c.err != nil { // the end is part of it
		c.reply = replyPart
	}
	return c
}

// chaosToken makes most tokens small, as first bytes are, and some too large for an offer to be sent at
// once.
func chaosToken(rng *rand.Rand) []byte {
	size := 8 + rng.IntN(300)
	if rng.IntN(64) == 0 {
		size = 10_000 + rng.IntN(60_000)
	}
	token := make([]byte, size)
	for i := range token {
		token[i] = byte('a' + rng.IntN(26))
	}
	return token
}

func chaosSend(rng *rand.Rand, c *net.TCPConn, id int, token []byte) error {
	halfClose := rng.IntN(3) == 0
	request := append([]byte(chaosHead(id, len(token), halfClose)), token...)
	for pieces := 1 + rng.IntN(3); pieces > 0; pieces-- {
		n := len(request)
		if pieces > 1 {
			n = rng.IntN(len(request))
		}
		if _, err := c.Write(request[:n]); err != nil {
			return err
		}
		request = request[n:]
		if rng.IntN(2) == 0 {
			time.Sleep(time.Duration(rng.Int64N(int64(60 * time.Millisecond))))
		}
	}
	if halfClose {
		return c.CloseWrite()
	}
	return nil
}

// checkReply compares what a client got with what it should get, which only depends on who served it.
func (r *chaosRun) checkReply(id int, got, token []byte) (_ chaosReply, servedBy int) {
	head, rest, found := bytes.Cut(got, []byte("\n"))
	if !found {
		if len(got) == 0 {
			return replyNone, 0
		}
		if bytes.HasPrefix(got, fmt.Appendf(nil, "%d from ", id)) {
			return replyPart, 0
		}
		return replyWrong, 0
	}
	var gotID, serial, pid, size int
	_, err := fmt.Sscanf(string(head), "%d from %d pid %d, %d bytes", &gotID, &serial, &pid, &size)
	if err != nil || gotID != id || size != len(token) || !bytes.HasPrefix(token, rest) || !r.isProcess(serial, pid) {
		return replyWrong, 0
	}
	if len(rest) < len(token) {
		return replyPart, serial
	}
	return replyWhole, serial
}

func (r *chaosRun) isProcess(serial, pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return 0 <= serial && serial < len(r.processes) && r.processes[serial].pid == pid
}

// account reads the logs and judges.
func (r *chaosRun) account(took time.Duration) {
	h := &chaosHistory{seed: r.seed, faults: r.happened, events: make(map[int][]chaosEvent)}
	for _, p := range r.processes {
		h.lives = append(h.lives, p.chaosLife)
		if err := h.readLog(p); err != nil {
			r.t.Errorf("seed %d: %v", r.seed, err)
		}
	}
	for id := 1; id <= int(r.nextID.Load()); id++ {
		if c, ok := r.clients.Load(id); ok {
			h.clients = append(h.clients, c.(*chaosClient))
		}
	}
	s, problems := h.judge()
	twice := 0
	for _, p := range problems {
		if errors.Is(p.err, errOwnedTwice) {
			twice++
		}
	}
	for i, p := range problems {
		if i == 10 {
			r.t.Errorf("and %d more", len(problems)-i)
			break
		}
		r.t.Error(h.report(p))
	}
	var kinds []string
	count := 0
	for _, k := range chaosKinds {
		n := 0
		for _, f := range r.happened {
			if f.kind == k.name {
				n++
			}
		}
		count += n
		kinds = append(kinds, fmt.Sprintf("%d %s", n, k.name))
	}
	n := len(h.clients) - chaosCalm
	r.t.Logf("%d connections in %.1f s (%.0f a second), beside %d before the faults\n%s%d faults, %d processes (%d skipped: all busy): %s\nseed %d: %d problems, %d of them connections owned twice",
		n, took.Seconds(), float64(n)/took.Seconds(), chaosCalm,
		s, count, len(r.processes), r.skipped, strings.Join(kinds, ", "), r.seed, len(problems), twice)
}

// readLog adds the lines of a process. One that was killed may have been cut off within its last line,
// which it has not logged then.
func (h *chaosHistory) readLog(p *chaosProcess) error {
	b, err := os.ReadFile(p.log)
	if errors.Is(err, os.ErrNotExist) && p.killed {
		return nil
	}
	if err != nil {
		return err
	}
	lines := strings.Split(string(b), "\n")
	if tail := lines[len(lines)-1]; tail != "" && !p.killed {
		return fmt.Errorf("the log of %s, which was not killed, ends with %q", p.chaosLife, tail)
	}
	for _, line := range lines[:len(lines)-1] {
		e, err := parseChaosEvent(line)
		if err != nil {
			return fmt.Errorf("the log of %s has the line %q: %w", p.chaosLife, line, err)
		}
		e.serial = p.serial
		h.events[e.id] = append(h.events[e.id], e)
	}
	return nil
}

func (r *chaosRun) logPath(serial int) string { return filepath.Join(r.dir, strconv.Itoa(serial)) }
