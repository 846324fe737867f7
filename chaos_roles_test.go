//go:build linux

package usher_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
)

func init() {
	roles["chaos-giver"] = playChaosGiver
	roles["chaos-taker"] = playChaosTaker
}

// What a process logs of a connection.
const (
	chaosAccept  = "accept"  // giver: it has accepted it
	chaosOffer   = "offer"   // giver: it calls Handoff: a is which time, b the endpoint, c which time it had made the Offer
	chaosHanded  = "handed"  // giver: Handoff said that the taker has claimed: a and b as before, c microseconds past the deadline
	chaosTried   = "tried"   // giver: it was TryHandoff that has made the offer
	chaosKept    = "kept"    // giver: Handoff said that it has not, and why
	chaosRenewed = "renewed" // giver: it has reclaimed it, and made another Offer
	chaosReclaim = "reclaim" // giver: it has reclaimed it, and will answer
	chaosReport  = "report"  // giver: a taker has reported the end: a is the endpoint, b the taker's pid, c the bytes received
	chaosClaim   = "claim"   // taker: Accept has returned it: a is which goroutine called, b the giver's c, c the giver's pid
	chaosDone    = "done"    // either: it has answered and closed
	chaosFailed  = "failed"  // either: it could not
	chaosBack    = "back"    // taker: it calls HandBack
	chaosGone    = "gone"    // taker: HandBack said that the giver has claimed it: c is microseconds past the deadline
	chaosStayed  = "stayed"  // taker: HandBack said that it has not, and why; c as before
	chaosCame    = "came"    // giver: it has come back: a is the endpoint, b the taker's pid
	chaosPassed  = "passed"  // giver: a taker has reported that it has handed it back: a, b and c as for a report
	chaosRefused = "refused" // taker: what its listener's Refused was told, of no certain connection
)

// chaosEvent is a line of a log.
type chaosEvent struct {
	at      int64
	serial  int // of the process
	what    string
	id      int
	a, b, c int
	text    string
}

func (e chaosEvent) line() string {
	return fmt.Sprintf("%d %s %d %d %d %d %s\n", e.at, e.what, e.id, e.a, e.b, e.c, e.text)
}

func parseChaosEvent(line string) (e chaosEvent, err error) {
	fields := strings.SplitN(line, " ", 7)
	if len(fields) != 7 {
		return e, fmt.Errorf("it has %d fields, want 7", len(fields))
	}
	e.at, err = strconv.ParseInt(fields[0], 10, 64)
	e.what, e.text = fields[1], fields[6]
	for i, into := range []*int{&e.id, &e.a, &e.b, &e.c} {
		if err == nil {
			*into, err = strconv.Atoi(fields[2+i])
		}
	}
	return e, err
}

// chaosLog is the log of a process. It outlives SIGKILL at any instant, as each line is one write(2).
type chaosLog struct{ f *os.File }

func (l chaosLog) add(what string, id, a, b, c int, err error) {
	e := chaosEvent{at: chaosNow(), what: what, id: id, a: a, b: b, c: c}
	if err != nil {
		e.text = strconv.Quote(err.Error())
	}
	if _, err := io.WriteString(l.f, e.line()); err != nil {
		panic(err)
	}
}

// chaosRole is what both roles have.
type chaosRole struct {
	log      chaosLog
	serial   int
	seed     uint64
	handlers sync.WaitGroup
	limit    syscall.Rlimit

	wayBack sync.Map // of a taker: the givers, by pid, that it has handed a connection back to
}

// newChaosRole takes the arguments that both have, and returns the rest.
func newChaosRole(args []string) (*chaosRole, []string, error) {
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	leaveGarbage()
	r := &chaosRole{log: chaosLog{f}}
	r.serial, _ = strconv.Atoi(args[1])
	r.seed, _ = strconv.ParseUint(args[2], 10, 64)
	return r, args[3:], syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r.limit)
}

// leaveGarbage keeps the collector from closing connections that were forgotten, as long as there is room.
func leaveGarbage() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(128 << 20)
}

// obey does what is commanded on standard input, to its end: then the test is dead.
func (r *chaosRole) obey(shutdown, closeAll func()) {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		command, arg, _ := strings.Cut(in.Text(), " ")
		switch command {
		case "usage":
			tellUsage()
		case "starve":
			n, _ := strconv.Atoi(arg)
			r.setLimit(uint64(faults.Descriptors() + n))
		case "feed":
			r.setLimit(r.limit.Cur)
		case "shutdown":
			shutdown()
		case "close":
			closeAll()
		}
	}
	os.Exit(3)
}

func (r *chaosRole) setLimit(n uint64) {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: r.limit.Max}); err != nil {
		panic(err)
	}
}

// tellUsage says how many descriptors, goroutines and pages of tickets there are, and what they are.
func tellUsage() {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		panic(err)
	}
	var stacks bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&stacks, 1)
	open := faults.ListDescriptors()
	fmt.Printf("%d %d %d %q\n", len(open), runtime.NumGoroutine(), bytes.Count(maps, []byte("memfd:usher-tickets")),
		strings.Join(open, ", ")+"; "+stacks.String())
}

// answer reads the request of client id from c, answers it, and closes c. Nothing in it may fail: the
// client waits for the answer.
func (r *chaosRole) answer(c *usher.Conn, id int) {
	err := r.converse(c, id)
	if err != nil {
		r.log.add(chaosFailed, id, 0, 0, 0, err)
		return
	}
	r.log.add(chaosDone, id, 0, 0, 0, nil)
}

func (r *chaosRole) converse(c *usher.Conn, id int) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(chaosPatience))
	token, err := readChaosRequest(c, id)
	if err != nil {
		return err
	}
	reply := append([]byte(chaosReplyHead(id, r.serial, len(token))), token...)
	if _, err := c.Write(reply); err != nil {
		return err
	}
	return c.Close()
}

func readChaosRequest(c *usher.Conn, id int) ([]byte, error) {
	if from, told := chaosID(c.RemoteAddr()), c.Info().Host; from != id || told != strconv.Itoa(id) {
		return nil, fmt.Errorf("it comes from client %d, and the giver says from %q", from, told)
	}
	in := bufio.NewReader(c)
	head, err := in.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", head, err)
	}
	var gotID, size int
	var halfClose bool
	if _, err := fmt.Sscanf(head, "%d %d %t\n", &gotID, &size, &halfClose); err != nil || gotID != id {
		return nil, fmt.Errorf("it says %q: %v", head, err)
	}
	if !halfClose {
		token := make([]byte, size)
		n, err := io.ReadFull(in, token)
		if err != nil {
			err = fmt.Errorf("read %d bytes of %d: %w", n, size, err)
		}
		return token, err
	}
	var token bytes.Buffer
	if _, err := io.Copy(&token, in); err != nil || token.Len() != size { // by c.WriteTo
		return nil, fmt.Errorf("copied %d bytes of %d: %v", token.Len(), size, err)
	}
	return token.Bytes(), nil
}

// chaosAcceptors is how many goroutines of a taker call Accept. So many connections at most can be its
// own before it has logged them.
const chaosAcceptors = 2

// chaosBacklogs are those of takers, in turn: from the usual one to one that is full soon.
var chaosBacklogs = []int{0, 32, 4}

// playChaosTaker answers what comes to the endpoint args[3], which it takes from another if args[4] is
// true, until it is told to end, or replaced.
func playChaosTaker(args []string) error {
	r, args, err := newChaosRole(args)
	if err != nil {
		return err
	}
	lc := usher.ListenConfig{
		Backlog: chaosBacklogs[r.serial%len(chaosBacklogs)],
		Replace: args[1] == "true",
		Refused: func(err error) { r.log.add(chaosRefused, 0, 0, 0, 0, err) },
	}
	l, err := lc.Listen(args[0])
	if err != nil {
		return err
	}
	var acceptors sync.WaitGroup
	for i := range chaosAcceptors {
		acceptors.Go(func() { r.acceptAll(l, i) })
	}
	go r.obey(func() { shutDown(l) }, func() { l.Close() })
	fmt.Println("ready")
	acceptors.Wait()
	if err := shutDown(l); !errors.Is(err, net.ErrClosed) { // it is closed; this waits until the givers have let go
		return fmt.Errorf("shutdown: %w", err)
	}
	r.handlers.Wait()
	if err := shutDown(l); !errors.Is(err, net.ErrClosed) { // once more: this waits until their ends are reported
		return fmt.Errorf("shutdown, for reports: %w", err)
	}
	return nil
}

func shutDown(l *usher.Listener) error {
	ctx, cancel := context.WithTimeout(context.Background(), chaosPatience/2)
	defer cancel()
	return l.Shutdown(ctx)
}

func (r *chaosRole) acceptAll(l *usher.Listener, acceptor int) {
	rng := chaosRand(r.seed, chaosTakerChoices, r.serial*chaosAcceptors+acceptor)
	for {
		nc, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				panic(err)
			}
			return
		}
		c := nc.(*usher.Conn)
		id, _ := strconv.Atoi(c.Info().Host)
		made, _ := strconv.Atoi(c.Info().Path)
		r.log.add(chaosClaim, id, acceptor, made, c.Giver().PID, nil)
		back, patience := r.choosesBack(rng, c)
		choices := chaosRand(r.seed, chaosTakerChoices, -id)
		r.handlers.Go(func() {
			if back {
				if c, err = r.handBack(choices, c, id, patience); err != nil {
					r.log.add(chaosFailed, id, 0, 0, 0, err)
				}
			}
			if c != nil {
				r.answer(c, id)
			}
		})
		if rng.IntN(64) == 0 { // busy: offers wait, some longer than their contexts
			time.Sleep(time.Duration(rng.Int64N(int64(60 * time.Millisecond))))
		}
	}
}

// choosesBack says whether a connection is to go back: the first from each giver, so that each channel has a way back before
// the faults, and some of those that come later, each once.
func (r *chaosRole) choosesBack(rng *rand.Rand, c *usher.Conn) (back bool, patience time.Duration) {
	chosen := rng.IntN(4) == 0
	patience = time.Duration(rng.Int64N(int64(100 * time.Millisecond)))
	if !c.Returnable() || c.Info().Route == chaosAgain {
		return false, 0
	}
	if _, has := r.wayBack.LoadOrStore(c.Giver().PID, true); !has {
		return true, chaosPatience
	}
	return chosen, patience
}

// chaosAgain is the route of a connection that has been back.
const chaosAgain = "again"

// handBack hands a connection of which some was read back, or returns it.
func (r *chaosRole) handBack(rng *rand.Rand, c *usher.Conn, id int, patience time.Duration) (*usher.Conn, error) {
	unused, err := chaosFirstBytes(rng, c)
	if err != nil {
		return nil, err
	}
	o, err := usher.NewOffer(c, unused, c.Info())
	if err != nil {
		return nil, err
	}
	r.log.add(chaosBack, id, 0, 0, 0, nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	deadline := time.Now().Add(patience)
	err = o.HandBack(ctx)
	late := int(max(0, time.Since(deadline)).Microseconds())
	if err == nil {
		r.log.add(chaosGone, id, 0, 0, late, nil)
		return nil, nil
	}
	r.log.add(chaosStayed, id, 0, 0, late, err)
	return o.Reclaim()
}

// chaosGiver accepts connections and hands each to one of its targets.
type chaosGiver struct {
	*chaosRole
	targets []atomic.Pointer[usher.Target] // nil until it was dialed
	l       net.Listener
	closing chan struct{}

	returned sync.WaitGroup // handlers of what came back
}

// playChaosGiver gives what comes to the listener that it has inherited to the endpoints args[3:].
func playChaosGiver(args []string) error {
	r, endpoints, err := newChaosRole(args)
	if err != nil {
		return err
	}
	f := os.NewFile(3, "listener")
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	f.Close()
	g := &chaosGiver{chaosRole: r, targets: make([]atomic.Pointer[usher.Target], len(endpoints)), l: l, closing: make(chan struct{})}
	var dialers sync.WaitGroup
	for i, e := range endpoints {
		dialers.Go(func() { g.dial(i, e) })
	}
	closed := sync.OnceFunc(func() {
		close(g.closing)
		l.Close()
	})
	go r.obey(closed, closed)
	fmt.Println("ready")
	g.acceptAll()
	r.handlers.Wait()
	dialers.Wait()
	err = g.shutDownTargets()
	g.returned.Wait()
	return err
}

// shutDownTargets waits for what takers have to report yet.
func (g *chaosGiver) shutDownTargets() error {
	ctx, cancel := context.WithTimeout(context.Background(), chaosPatience/2)
	defer cancel()
	for i := range g.targets {
		if t := g.targets[i].Load(); t != nil {
			if err := t.Shutdown(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// chaosReports says whether givers want reports from the takers at an endpoint.
func chaosReports(endpoint int) bool { return endpoint%2 == 1 }

// chaosPatient says whether givers let the takers at an endpoint tell late.
func chaosPatient(endpoint int) bool { return endpoint/2%2 == 1 }

// chaosReturns says whether givers take connections back from the takers at an endpoint.
func chaosReturns(endpoint int) bool { return endpoint != 0 }

func (g *chaosGiver) dialer(i int) *usher.Dialer {
	d := &usher.Dialer{Patient: chaosPatient(i)}
	if chaosReports(i) {
		d.Ended = func(r usher.Report) {
			id, _ := strconv.Atoi(r.Info.Host)
			what := chaosReport
			if r.HandedOn {
				what = chaosPassed
			}
			g.log.add(what, id, i, r.Taker.PID, int(r.Received), nil)
		}
	}
	if chaosReturns(i) {
		d.Returned = func(c *usher.Conn) {
			id, _ := strconv.Atoi(c.Info().Host)
			g.log.add(chaosCame, id, i, c.Giver().PID, 0, nil)
			g.returned.Go(func() { g.give(c, id, chaosAgain, chaosSecond) })
		}
	}
	return d
}

// chaosSecond is from where the offers of a connection that has been back are counted.
const chaosSecond = 1000

// dial goes on until somebody listens at the endpoint. Later the target connects anew by itself.
func (g *chaosGiver) dial(i int, endpoint string) {
	for !g.isClosing() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		t, err := g.dialer(i).Dial(ctx, endpoint)
		cancel()
		if err == nil {
			g.targets[i].Store(t)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (g *chaosGiver) isClosing() bool {
	select {
	case <-g.closing:
		return true
	default:
		return false
	}
}

func (g *chaosGiver) acceptAll() {
	for !g.isClosing() {
		c, err := g.l.Accept()
		if err != nil { // closed, or it is out of descriptors
			time.Sleep(time.Millisecond)
			continue
		}
		id := chaosID(c.RemoteAddr())
		g.log.add(chaosAccept, id, 0, 0, 0, nil)
		g.handlers.Go(func() { g.give(c, id, "", 0) })
	}
}

// give hands a connection to one taker or another, or answers it itself when none will have it. Its offers are counted
// from count on.
func (g *chaosGiver) give(c net.Conn, id int, route string, count int) {
	rng := chaosRand(g.seed, chaosGiverChoices, id+count<<24)
	prefix, err := chaosFirstBytes(rng, c)
	if err != nil {
		g.log.add(chaosFailed, id, 0, 0, 0, err)
		c.Close()
		return
	}
	made := count + 1
	o, err := g.newOffer(c, prefix, id, route, made)
	if err != nil {
		g.log.add(chaosFailed, id, 0, 0, 0, err)
		c.Close()
		return
	}
	giveUp := time.Now().Add(50*time.Millisecond + time.Duration(rng.Int64N(int64(time.Second))))
	for try := count + 1; time.Now().Before(giveUp); try++ {
		if g.tryOne(rng, o, id, try, made) {
			return
		}
		if rng.IntN(4) == 0 {
			made = try + 1
			if o, err = g.renew(o, id, route, made); err != nil {
				g.log.add(chaosFailed, id, made, 0, 0, err)
				return
			}
		}
		if try%chaosTakers == 0 {
			time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Millisecond))))
		}
	}
	own, err := o.Reclaim()
	if err != nil {
		g.log.add(chaosFailed, id, 0, 0, 0, err)
		return
	}
	g.log.add(chaosReclaim, id, 0, 0, 0, nil)
	g.answer(own, id)
}

// chaosFirstBytes reads what a giver may have read when it knows where to: some bytes, or none.
func chaosFirstBytes(rng *rand.Rand, c net.Conn) ([]byte, error) {
	size := 64 << 10
	switch rng.IntN(4) {
	case 0:
		return nil, nil
	case 1:
		size = 1 + rng.IntN(32)
	}
	b := make([]byte, size)
	c.SetReadDeadline(time.Now().Add(chaosPatience))
	n, err := c.Read(b)
	return b[:n:n], err
}

func (g *chaosGiver) newOffer(c net.Conn, prefix []byte, id int, route string, made int) (*usher.Offer, error) {
	return usher.NewOffer(c, prefix, usher.Info{Host: strconv.Itoa(id), Route: route, Path: strconv.Itoa(made)})
}

// renew takes a connection back and makes another offer of it, of what is left of the prefix too.
func (g *chaosGiver) renew(o *usher.Offer, id int, route string, made int) (*usher.Offer, error) {
	c, err := o.Reclaim()
	if err != nil {
		return nil, err
	}
	if o, err = g.newOffer(c, nil, id, route, made); err == nil {
		g.log.add(chaosRenewed, id, made, 0, 0, nil)
	}
	return o, err
}

// tryOne makes one offer, and logs before and after.
func (g *chaosGiver) tryOne(rng *rand.Rand, o *usher.Offer, id, try, made int) bool {
	endpoint := rng.IntN(len(g.targets))
	patience := min(10*time.Millisecond+time.Duration(rng.ExpFloat64()*float64(40*time.Millisecond)), 200*time.Millisecond)
	t := g.targets[endpoint].Load()
	if t == nil {
		time.Sleep(time.Millisecond)
		return false
	}
	g.log.add(chaosOffer, id, try, endpoint, made, nil)
	began := time.Now()
	tried, err := chaosHandoff(t, o, patience, rng.IntN(2) == 0)
	if tried {
		g.log.add(chaosTried, id, try, endpoint, 0, nil)
	}
	late := int(max(0, time.Since(began)-patience).Microseconds())
	if err != nil {
		g.log.add(chaosKept, id, try, endpoint, late, err)
		return false
	}
	g.log.add(chaosHanded, id, try, endpoint, late, nil)
	return true
}

// chaosHandoff hands over by TryHandoff, if it is to try that and can, else by Handoff.
func chaosHandoff(t *usher.Target, o *usher.Offer, patience time.Duration, try bool) (tried bool, err error) {
	told, times := make(chan error, 1), new(atomic.Int32)
	done := func(_ time.Time, err error) {
		if times.Add(1) > 1 {
			panic("an outcome is told twice")
		}
		told <- err
	}
	if try && t.TryHandoff(o, patience, done) {
		return true, <-told
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return false, t.Handoff(ctx, o)
}
