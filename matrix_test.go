//go:build darwin || freebsd || linux || netbsd || openbsd || windows

package usher_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

// The matrix has one process halt right before or after each step of a handover, lets a fault happen
// there, and sees what becomes of the connection. Nothing is left to chance: whoever can go on without
// the halted process has done so, as far as the row says, before the fault happens.

// state is what has become of the offer when the fault happens. It and the fault decide the outcome.
type state string

const (
	unsent       state = "not sent"
	sent         state = "sent"
	withdrawn    state = "withdrawn"
	declined     state = "declined"
	toldDeclined state = "declined, `Handoff` has returned"
	claimed      state = "claimed"
	toldClaimed  state = "claimed, `Handoff` has returned"
)

type fault string

const (
	giverKilled  fault = "giver killed"
	takerKilled  fault = "taker killed"
	takerStopped fault = "taker stopped, context ends"
	contextEnds  fault = "context ends"
)

var allFaults = []fault{giverKilled, takerKilled, takerStopped, contextEnds}

// stop and resume halt a process as a whole. They are nil where the system cannot.
var stop, resume func(t testing.TB, pid int)

// point is where a process halts.
type point struct{ moment, step string }

func (p point) String() string { return p.moment + " " + p.step }

var moments = []string{"before", "after"}

// row is a step, and a way to it.
type row struct {
	side, step, how string
	before, after   state  // of the offer when the fault happens before the step, and after it
	other           string // the point at which the other process stands meanwhile, if any
	full            bool   // the taker's queue has no room
	reach           func(s *scene, p point)
}

// Up to the claim the taker calls Accept only when the fault is over; from then on it has called it at
// once.
var rows = []row{
	{side: "giver", step: "offer", before: unsent, after: unsent, reach: (*scene).reachUnclaimed},
	{side: "giver", step: "send", before: unsent, after: sent, reach: (*scene).reachUnclaimed},
	{side: "taker", step: "receive", before: sent, after: sent, reach: (*scene).reachUnclaimed},
	{side: "giver", step: "withdraw", how: "in time", before: sent, after: withdrawn,
		other: "after receive", reach: (*scene).reachWithdrawal},
	{side: "giver", step: "told", how: "it was declined", before: declined, after: toldDeclined,
		other: "after receive", full: true, reach: (*scene).reachDeclined},
	{side: "taker", step: "claim", before: sent, after: claimed, reach: (*scene).reachClaim},
	{side: "giver", step: "withdraw", how: "too late", before: claimed, after: claimed,
		other: "before tell", reach: (*scene).reachLateWithdrawal},
	{side: "taker", step: "tell", before: claimed, after: toldClaimed, reach: (*scene).reachTold},
	{side: "giver", step: "told", how: "it was claimed", before: claimed, after: toldClaimed, reach: (*scene).reachTold},
	{side: "giver", step: "drop", before: claimed, after: claimed, reach: (*scene).reachClaimed},
	{side: "taker", step: "close", before: claimed, after: claimed, // while the giver has its copy still: O6
		other: "before drop", reach: (*scene).reachClose},
}

// wayBack are the rows of a hand-back. The parts are changed, the steps are the same; but the taker here, who was the giver, accepts
// at once what is handed back to it. So it is halted where it should not have claimed yet.
var wayBack = []row{
	{side: "giver", step: "offer", before: unsent, after: unsent, other: "before claim", reach: (*scene).reachUnclaimed},
	{side: "giver", step: "send", before: unsent, after: sent, other: "before claim", reach: (*scene).reachUnclaimed},
	{side: "taker", step: "receive", before: sent, after: toldClaimed, reach: (*scene).reachUnhindered},
	{side: "giver", step: "withdraw", how: "in time", before: sent, after: withdrawn,
		other: "before claim", reach: (*scene).reachWithdrawal},
	{side: "taker", step: "claim", before: sent, after: claimed, reach: (*scene).reachUnclaimed},
	{side: "giver", step: "withdraw", how: "too late", before: claimed, after: claimed,
		other: "before tell", reach: (*scene).reachLateWithdrawal},
	{side: "taker", step: "tell", before: claimed, after: toldClaimed, reach: (*scene).reachTold},
	{side: "giver", step: "told", how: "it was claimed", before: claimed, after: toldClaimed, reach: (*scene).reachTold},
	{side: "giver", step: "drop", before: claimed, after: claimed, reach: (*scene).reachClaimed},
	{side: "taker", step: "close", before: claimed, after: claimed,
		other: "before drop", reach: (*scene).reachClose},
}

// matrix is rows, how to come to them, and where the table of them is.
type matrix struct {
	rows  []row
	start func(s *scene, r row, p point) // has both processes ready
	table string
}

var (
	handover = matrix{rows, (*scene).startHandover, "TestMatrix"}
	handBack = matrix{wayBack, (*scene).startHandBack, "TestMatrixOfTheWayBack"}
)

func (r row) state(p point) state {
	if p.moment == "before" {
		return r.before
	}
	return r.after
}

func (r row) name() string {
	if r.how == "" {
		return r.step
	}
	return r.step + " (" + r.how + ")"
}

// cell is what came of a case: for the connection, and from Handoff.
type cell struct{ outcome, handoff string }

func (c cell) String() string { return c.outcome + "; " + c.handoff }

const (
	takerServes   = "taker serves"
	giverServes   = "giver serves"
	servedToEnd   = "taker has served, the end arrives"
	diedWithGiver = "died with the giver"
	diedWithTaker = "died with the taker"

	handoffNil           = "`nil`"
	handoffContextEnded  = "context ended"
	handoffDeclined      = "declined"
	handoffNobodyListens = "nobody listens"
	handoffUnknown       = "–" // it died with the giver
)

// expected derives the cell from the promise in doc.go.
func expected(r row, p point, f fault) cell {
	return cell{expectedOutcome(r, r.state(p), f), expectedHandoff(r, r.state(p), f)}
}

func expectedOutcome(r row, s state, f fault) string {
	isClaimed := s == claimed || s == toldClaimed
	switch {
	case r.step == "close": // all was said: what is left is the end, which arrives (O6)
		return servedToEnd
	case isClaimed && f == takerKilled: // what is claimed is the taker's, for good and ill
		return diedWithTaker
	case isClaimed: // and untouched by all else (O4)
		return takerServes
	case f == giverKilled && s == sent: // an offer that has reached the taker is served by it (O4)
		return takerServes
	case f == giverKilled: // nobody else has the connection, or may use it
		return diedWithGiver
	}
	return giverServes // what is not claimed is the giver's (O2)
}

func expectedHandoff(r row, s state, f fault) string {
	switch {
	case s == toldClaimed: // before the fault, as what follows
		return handoffNil
	case s == toldDeclined:
		return handoffDeclined
	case f == giverKilled:
		return handoffUnknown
	case s == claimed: // nil if and only if claimed (O2)
		return handoffNil
	case s == declined: // the taker has said no before anything happened to it
		return handoffDeclined
	case f == takerKilled && r.step != "withdraw": // Handoff looks for a successor, and there is none
		return handoffNobodyListens
	}
	return handoffContextEnded // and has ended before the fault where the giver withdraws (O3)
}

var updateFaults = flag.Bool("update-faults", false, "write the table of doc/faults.md")

func TestMatrix(t *testing.T) { handover.play(t) }

// TestMatrixOfTheWayBack has a taker hand connections back.
func TestMatrixOfTheWayBack(t *testing.T) { handBack.play(t) }

func (m *matrix) play(t *testing.T) {
	faults.NoLeak(t)
	var mu sync.Mutex
	seen := map[string]cell{}
	all := 0
	t.Run("at", func(t *testing.T) { // returns when all cases have
		for _, r := range m.rows {
			for _, moment := range moments {
				for _, f := range allFaults {
					all++
					if f == takerStopped && stop == nil {
						continue
					}
					p := point{moment, r.step}
					t.Run(fmt.Sprintf("%s %s, %s", moment, r.name(), f), func(t *testing.T) {
						t.Parallel()
						got := m.playOne(t, r, p, f)
						if want := expected(r, p, f); got != want {
							t.Errorf("%v; want %v", got, want)
						}
						mu.Lock()
						defer mu.Unlock()
						seen[key(r, p, f)] = got
					})
				}
			}
		}
	})
	m.checkTable(t, seen, all)
}

func key(r row, p point, f fault) string { return p.String() + r.how + string(f) }

// scene is one handover: the test plays the client.
type scene struct {
	*testing.T
	row          row
	giver, taker *faults.Actor
	halts        *faults.Actor // the one of them that halts at the step
	other        *faults.Actor // the other
	address      string        // of the giver, for clients
	client       *net.TCPConn
	replies      *bufio.Reader
	lines        []string // what the client has said
	said         []reply  // and heard
	accepts      bool     // the taker was told to
	allSaid      bool     // the client has nothing more to say
	isFull       bool     // the taker's queue, with a filler
}

type reply struct {
	line, role string
	pid        int
}

// playOne plays one case and returns what came of it.
func (m *matrix) playOne(t *testing.T, r row, p point, f fault) cell {
	s := &scene{T: t, row: r}
	m.start(s, r, p)
	s.begin(p)
	r.reach(s, p)
	s.strike(f)
	s.goOn(f)
	s.finish()
	for _, a := range []*faults.Actor{s.giver, s.taker} {
		if !s.isKilled(a, f) {
			a.End()
		}
	}
	got := cell{s.outcome(r, f), s.handoff()}
	s.checkPromise(got)
	return got
}

func (s *scene) isKilled(a *faults.Actor, f fault) bool {
	return a == s.giver && f == giverKilled || a == s.taker && f == takerKilled
}

func (s *scene) startHandover(r row, p point) {
	path := endpoint(s)
	giverHalts, takerHalts := r.halts(p)
	s.taker = faults.Start(s.T, "matrix-taker", path, takerHalts)
	s.taker.Await("listens")
	if r.full {
		s.fillQueue(path)
	}
	s.giver = faults.Start(s.T, "matrix-giver", path, giverHalts, prefixLen(p))
	s.address = s.giver.Await("listens at ")
}

// startHandBack starts a backend, which gives here, and its door.
func (s *scene) startHandBack(r row, p point) {
	path := endpoint(s)
	giverHalts, takerHalts := r.halts(p)
	s.giver = faults.Start(s.T, "matrix-backend", path, giverHalts, prefixLen(p))
	s.giver.Await("listens")
	s.taker = faults.Start(s.T, "matrix-door", path, takerHalts)
	s.address = s.taker.Await("listens at ")
}

// halts returns where each process halts.
func (r row) halts(p point) (giver, taker string) {
	if r.side == "taker" {
		return r.other, p.String()
	}
	return p.String(), r.other
}

// prefixLen is how much of the first line the giver reads.
func prefixLen(p point) string { return strconv.Itoa(len(firstLine(p)) / 2) }

// begin has the client connect and speak.
func (s *scene) begin(p point) {
	s.halts, s.other = s.giver, s.taker
	if s.row.side == "taker" {
		s.halts, s.other = s.taker, s.giver
	}
	s.client = s.connect()
	s.replies = bufio.NewReader(s.client)
	s.say(firstLine(p))
}

// fillQueue has an offer of the test's own wait in the taker's queue, where no other has room until the
// taker accepts it.
func (s *scene) fillQueue(path string) {
	target := must(usher.Dial(within(s, timeout), path))(s)
	_, server := tcpPair(s)
	o := newOffer(s, server, "", usher.Info{Host: "filler"})
	ctx, cancel := context.WithCancel(within(s, timeout))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := target.Handoff(ctx, o); err == nil {
			return
		}
		if c, err := o.Reclaim(); err == nil { // the taker was killed
			c.Close()
		}
	})
	s.Cleanup(func() {
		cancel()
		wg.Wait()
		target.Close()
	})
	s.taker.Await("reached after receive")
	s.isFull = true
}

// firstLine is what the client says first; the giver reads half of it.
func firstLine(p point) string {
	if p.step == "close" {
		return goodbye
	}
	return "first line"
}

// goodbye is a line whose answer is the last.
const goodbye = "bye"

func (s *scene) connect() *net.TCPConn {
	s.Helper()
	c := must(net.Dial("tcp", s.address))(s)
	s.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	return c.(*net.TCPConn)
}

func (s *scene) say(line string) {
	s.lines = append(s.lines, line)
	// It fails where the connection has died, which is seen when it is read.
	_, _ = io.WriteString(s.client, line+"\n")
}

// hear waits until the client has heard n replies.
func (s *scene) hear(n int) {
	s.Helper()
	for len(s.said) < n {
		if err := s.hearOne(); err != nil {
			s.Fatalf("the client waits for reply %d: %v", n, err)
		}
	}
}

func (s *scene) hearOne() error {
	text, err := s.replies.ReadString('\n')
	if err != nil {
		return err
	}
	fields := strings.Split(strings.TrimSuffix(text, "\n"), "|")
	if len(fields) != 3 {
		s.Fatalf("the client heard %q", text)
	}
	pid, _ := strconv.Atoi(fields[1])
	s.said = append(s.said, reply{line: fields[0], pid: pid, role: fields[2]})
	return nil
}

// hearEnd waits until the connection has ended, in good order or not.
func (s *scene) hearEnd() {
	s.Helper()
	for {
		err := s.hearOne()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.Fatalf("the connection does not end; the client heard %+v", s.said)
		}
		if err != nil {
			return
		}
	}
}

// serves waits until a process has answered the client's first line.
func (s *scene) serves(a *faults.Actor) {
	s.Helper()
	s.hear(1)
	a.Await("answered")
}

func (s *scene) accept() {
	s.accepts = true
	s.taker.Tell("accept")
}

func (s *scene) reachUnclaimed(p point) { s.halts.Await("reached " + p.String()) }

// reachUnhindered is for a taker that accepts at once.
func (s *scene) reachUnhindered(p point) {
	s.halts.Await("reached " + p.String())
	if s.row.state(p) == toldClaimed {
		s.serves(s.taker)
		s.giver.Await("handoff of first: ")
	}
}

// reachWithdrawal waits for the offer to arrive before the context ends.
func (s *scene) reachWithdrawal(p point) {
	s.other.Await("reached " + s.row.other)
	s.giver.Tell("end the context")
	s.halts.Await("reached " + p.String())
}

func (s *scene) reachDeclined(p point) {
	s.halts.Await("reached " + p.String())
	if p.moment == "after" {
		s.giver.Await("handoff of first: ")
		s.serves(s.giver)
	}
}

func (s *scene) reachClaim(p point) {
	s.accept()
	s.halts.Await("reached " + p.String())
}

func (s *scene) reachClaimed(p point) {
	s.accept()
	s.halts.Await("reached " + p.String())
	s.serves(s.taker)
}

// reachLateWithdrawal has the taker claim, but not tell.
func (s *scene) reachLateWithdrawal(p point) {
	s.accept()
	s.other.Await("reached before tell")
	s.serves(s.taker)
	s.giver.Tell("end the context")
	s.halts.Await("reached " + p.String())
}

// reachTold waits also for Handoff, which does not wait for the goroutine that halts after it was told.
func (s *scene) reachTold(p point) {
	s.reachClaimed(p)
	if p.moment == "after" {
		s.giver.Await("handoff of first: ")
	}
}

func (s *scene) reachClose(p point) {
	s.accept()
	s.other.Await("reached before drop")
	s.serves(s.taker)
	s.allSaid = true
	s.halts.Await("reached " + p.String())
	if p.moment == "after" {
		s.hearEnd() // O6: at once
	}
}

func (s *scene) strike(f fault) {
	const notice = 10 * time.Millisecond // is likely to be enough to find that the channel has ended
	switch f {
	case giverKilled:
		s.giver.Kill()
		time.Sleep(notice)
	case takerKilled:
		s.taker.Kill()
		time.Sleep(notice)
	case takerStopped:
		stop(s, s.taker.PID())
		s.giver.Tell("end the context")
	case contextEnds:
		s.giver.Tell("end the context")
	}
}

// goOn lets first the giver go on, if it lives, then the taker. In between Handoff returns, whatever the
// taker does (O3), and if the giver owns the connection it serves it.
func (s *scene) goOn(f fault) {
	if f != giverKilled {
		s.giver.Tell("go on")
		if s.giver.Await("handoff of first: ") != handoffNil {
			s.hear(1)
		}
	}
	if f == takerStopped {
		resume(s, s.taker.PID())
	}
	if f != takerKilled {
		s.taker.Tell("go on")
		if !s.accepts {
			s.accept()
		}
		if s.isFull {
			s.taker.Await("accepted filler")
		}
	}
	if f != giverKilled && f != takerKilled {
		s.handOverAnother()
	}
}

// handOverAnother has the giver hand over another connection, while the first still lives. The taker
// accepts in turn: then it has also done with the first offer all that it will ever do.
func (s *scene) handOverAnother() {
	c := s.connect()
	io.WriteString(c, "another line\n")
	c.CloseWrite()
	got := must(io.ReadAll(c))(s)
	if want := answerTo("another line", "taker", s.taker.PID()); string(got) != want {
		s.Errorf("the client of another handover heard %q; want %q", got, want)
	}
}

// finish has the client say one thing more, which only an owner that lives can answer, and hear the end.
func (s *scene) finish() {
	if !s.allSaid {
		s.say("last line")
	}
	s.client.CloseWrite()
	s.hearEnd()
}

func (s *scene) outcome(r row, f fault) string {
	switch {
	case len(s.said) == len(s.lines) && s.allSaid:
		return servedToEnd
	case len(s.said) == len(s.lines):
		return s.said[0].role + " serves"
	case f == giverKilled:
		return diedWithGiver
	case f == takerKilled:
		return diedWithTaker
	}
	return "lost"
}

func (s *scene) handoff() string {
	said := s.giver.Heard("handoff of first: ")
	if len(said) == 0 {
		return handoffUnknown
	}
	return said[0]
}

// checkPromise holds what is promised for any case, whatever cell was expected.
func (s *scene) checkPromise(got cell) {
	pids := map[string]int{"giver": s.giver.PID(), "taker": s.taker.PID()}
	for i, r := range s.said {
		if r.role != s.said[0].role || r.pid != pids[r.role] {
			s.Errorf("O1: reply %d came from the %s, process %d; the first from the %s, the processes are %v", i+1, r.role, r.pid, s.said[0].role, pids)
		}
		if i >= len(s.lines) || r.line != s.lines[i] {
			s.Errorf("O5: reply %d is to %.40q; the client said %.40q", i+1, r.line, s.lines)
		}
	}
	accepted := len(s.taker.Heard("accepted first"))
	if accepted > 1 {
		s.Errorf("O1: the taker accepted the connection %d times", accepted)
	}
	returnedError := got.handoff != handoffNil && got.handoff != handoffUnknown
	if returnedError && accepted > 0 {
		s.Errorf("O2: the taker accepted, and Handoff returned: %s", got.handoff)
	}
	if got.handoff == handoffNil && len(s.said) > 0 && s.said[0].role == "giver" {
		s.Error("O2: Handoff returned nil, and the giver serves")
	}
}

func init() {
	roles["matrix-giver"] = playMatrixGiver
	roles["matrix-taker"] = playMatrixTaker
	roles["matrix-backend"] = playMatrixBackend
	roles["matrix-door"] = playMatrixDoor
}

// haltAt makes this process say when it comes to a point for the first time, and halt there, which holds
// the goroutine and all locks that it has, until goesOn is closed.
func haltAt(p string, goesOn <-chan struct{}) {
	var reached atomic.Bool
	usher.SetBreakpoint(func(step, moment string) {
		if (point{moment, step}).String() == p && !reached.Swap(true) {
			fmt.Println("reached", p)
			<-goesOn
		}
	})
}

// obey does what it is told, to the end of the standard input.
func obey(commands map[string]func()) error {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		do, ok := commands[in.Text()]
		if !ok {
			return fmt.Errorf("told %q", in.Text())
		}
		do()
	}
	return in.Err()
}

// playMatrixGiver hands over two connections, one after the other, to the endpoint args[0], and serves
// what it cannot hand over. It halts at the point args[1], and reads args[2] bytes of the first.
func playMatrixGiver(args []string) error {
	goesOn := make(chan struct{})
	haltAt(args[1], goesOn)
	t, err := usher.Dial(context.Background(), args[0])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("listens at", l.Addr())
	prefix, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		err := give(ctx, t.Handoff, l, "first", prefix, goesOn)
		if err == nil {
			err = give(context.Background(), t.Handoff, l, "another", 1, goesOn)
		}
		if err != nil {
			fmt.Println("failed:", err)
		}
	}()
	return obey(map[string]func(){"go on": func() { close(goesOn) }, "end the context": cancel})
}

// give hands the next connection over, of which it reads a prefix.
func give(ctx context.Context, handoff func(context.Context, *usher.Offer) error, l net.Listener, name string, prefix int, goesOn <-chan struct{}) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	read := make([]byte, prefix)
	if _, err := io.ReadFull(c, read); err != nil {
		return err
	}
	o, err := usher.NewOffer(c, read, usher.Info{Host: name})
	if err != nil {
		return err
	}
	err = handoff(ctx, o)
	fmt.Printf("handoff of %s: %s\n", name, handoffText(err))
	if err == nil {
		return nil
	}
	own, err := o.Reclaim()
	if err != nil {
		return err
	}
	go serveMatrix(own, "giver", goesOn)
	return nil
}

func handoffText(err error) string {
	switch {
	case err == nil:
		return handoffNil
	case errors.Is(err, context.Canceled):
		return handoffContextEnded
	case errors.Is(err, usher.ErrDeclined):
		return handoffDeclined
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist), errors.Is(err, net.ErrClosed):
		return handoffNobodyListens
	case isWindows && errors.Is(err, ipc.ErrAttachment): // a process that has died takes no handle of the channel for handing back
		return handoffNobodyListens
	}
	return err.Error()
}

// playMatrixTaker serves what is handed over at the endpoint args[0], when it is told to accept. It halts
// at the point args[1], and has room for one offer.
func playMatrixTaker(args []string) error {
	goesOn := make(chan struct{})
	haltAt(args[1], goesOn)
	lc := usher.ListenConfig{Backlog: 1}
	l, err := lc.Listen(args[0])
	if err != nil {
		return err
	}
	fmt.Println("listens")
	return obey(map[string]func(){
		"go on":  func() { close(goesOn) },
		"accept": func() { go serveAll(l, goesOn) },
	})
}

// playMatrixBackend hands back two connections that come to the endpoint args[0], as playMatrixGiver hands over.
func playMatrixBackend(args []string) error {
	goesOn := make(chan struct{})
	haltAt(args[1], goesOn)
	l, err := usher.Listen(args[0])
	if err != nil {
		return err
	}
	fmt.Println("listens")
	prefix, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	back := func(ctx context.Context, o *usher.Offer) error { return o.HandBack(ctx) }
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		err := give(ctx, back, l, "first", prefix, goesOn)
		if err == nil {
			err = give(context.Background(), back, l, "another", 1, goesOn)
		}
		if err != nil {
			fmt.Println("failed:", err)
		}
	}()
	return obey(map[string]func(){"go on": func() { close(goesOn) }, "end the context": cancel})
}

// playMatrixDoor hands connections over to the endpoint args[0], and serves what comes back. It halts at the point args[1].
func playMatrixDoor(args []string) error {
	goesOn := make(chan struct{})
	haltAt(args[1], goesOn)
	d := usher.Dialer{Returned: func(c *usher.Conn) {
		fmt.Println("accepted", c.Info().Host)
		serveMatrix(c, "taker", goesOn)
	}}
	t, err := d.Dial(context.Background(), args[0])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("listens at", l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o, err := usher.NewOffer(c, nil, usher.Info{})
			if err == nil {
				err = t.Handoff(context.Background(), o)
			}
			if err != nil {
				fmt.Println("failed:", err)
			}
		}
	}()
	return obey(map[string]func(){"go on": func() { close(goesOn) }, "accept": func() {}}) // it has accepted
}

func serveAll(l *usher.Listener, goesOn <-chan struct{}) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Println("accepted", c.(*usher.Conn).Info().Host)
		go serveMatrix(c, "taker", goesOn)
	}
}

// serveMatrix answers each line, to the end or to goodbye, and closes the connection. It says when it
// has answered, and reads the second line only when this process has gone on: under Wine, a process that
// is killed while it writes or begins to read leaves the socket open for good.
func serveMatrix(c net.Conn, role string, goesOn <-chan struct{}) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\n")
		io.WriteString(c, answerTo(line, role, os.Getpid()))
		fmt.Println("answered")
		if line == goodbye {
			return
		}
		<-goesOn
	}
}

func answerTo(line, role string, pid int) string { return fmt.Sprintf("%s|%d|%s\n", line, pid, role) }

const (
	tableFile  = "doc/faults.md"
	tableBegin = "<!-- generated by %[1]s: go test -run %[1]s -update-faults . -->\n"
	tableEnd   = "<!-- end of what %s generates -->\n"
)

// checkTable compares what was seen with the table, or writes it. Where not all cases were run, those that
// were have been held to what the table says anyway, by expected.
func (m *matrix) checkTable(t *testing.T, seen map[string]cell, all int) {
	if len(seen) < all {
		if *updateFaults {
			t.Error("the table needs all cases")
		}
		return
	}
	raw, err := os.ReadFile(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf(tableBegin, m.table), fmt.Sprintf(tableEnd, m.table)
	before, rest, found := strings.Cut(string(raw), begin)
	was, after, foundEnd := strings.Cut(rest, end)
	if !found || !foundEnd {
		t.Fatalf("%s has no place for the table, between %q and %q", tableFile, begin, end)
	}
	now := m.markdown(seen)
	if was == now {
		return
	}
	if !*updateFaults {
		t.Errorf("%s does not say what was seen; if that is right, write it with: go test -run %s -update-faults .", tableFile, m.table)
		for line := range strings.Lines(now) {
			if !strings.Contains(was, line) {
				t.Logf("seen: %s", line)
			}
		}
		return
	}
	if err := os.WriteFile(tableFile, []byte(before+begin+now+end+after), 0o666); err != nil {
		t.Fatal(err)
	}
}

// markdown is the table.
func (m *matrix) markdown(seen map[string]cell) string {
	var b strings.Builder
	b.WriteString("\n| side | halted | the offer is |")
	for _, f := range allFaults {
		fmt.Fprintf(&b, " %s |", f)
	}
	b.WriteString("\n| --- | --- | --- |" + strings.Repeat(" --- |", len(allFaults)) + "\n")
	for _, r := range m.rows {
		for _, moment := range moments {
			p := point{moment, r.step}
			fmt.Fprintf(&b, "| %s | %s `%s`%s | %s |", r.side, moment, r.step, strings.TrimPrefix(r.name(), r.step), r.state(p))
			for _, f := range allFaults {
				fmt.Fprintf(&b, " %s |", seen[key(r, p, f)])
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("\n")
	return b.String()
}
