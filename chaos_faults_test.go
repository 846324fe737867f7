//go:build linux

package usher_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"
)

// chaosFault is one fault, as it was drawn.
type chaosFault struct {
	kind   int           // in chaosKinds
	taker  int           // the first of those to which it may happen
	after  time.Duration // since the last was due
	length time.Duration
	number int // of descriptors, or which way
}

// chaosHappening is a fault that has happened to a process.
type chaosHappening struct {
	from, until int64
	kind        string
	to          chaosLife
	fault       chaosFault
}

// chaosKinds are the faults. Each ends with a process in its place, which runs and may open descriptors.
var chaosKinds = []struct {
	name   string
	weight int // how often, of about 100
	to     chaosSort
	ends   bool // the process has ended then
	do     func(r *chaosRun, at int, f chaosFault) error
}{
	{"taker stopped", 27, takerProcess, false, (*chaosRun).stopOne},
	{"taker stopped and killed", 8, takerProcess, true, (*chaosRun).stopAndKillOne},
	{"taker killed", 12, takerProcess, true, (*chaosRun).killOne},
	{"taker shut down", 8, takerProcess, true, (*chaosRun).shutDownOne},
	{"taker replaced", 10, takerProcess, true, (*chaosRun).replaceOne},
	{"taker replaced and killed", 4, takerProcess, true, (*chaosRun).replaceAndKillOld},
	{"taker replaced by one killed", 4, takerProcess, true, (*chaosRun).replaceAndKillNew},
	{"taker starved", 14, takerProcess, false, (*chaosRun).starveOne},
	{"giver stopped", 4, giverProcess, false, (*chaosRun).stopOne},
	{"giver killed", 5, giverProcess, true, (*chaosRun).killOne},
	{"giver stopped and killed", 2, giverProcess, true, (*chaosRun).stopAndKillOne},
	{"giver starved", 2, giverProcess, false, (*chaosRun).starveOne},
}

type chaosSort int

const (
	noProcess chaosSort = iota
	takerProcess
	giverProcess
)

// drawFault makes all choices for a fault, whatever will come of the ones before it. It ends no process
// of the sort to spare.
func drawFault(rng *rand.Rand, spare chaosSort) chaosFault {
	f := chaosFault{
		after: *chaosEvery/2 + time.Duration(rng.Int64N(int64(*chaosEvery)+1)),
		taker: rng.IntN(chaosTakers),
		// Most are shorter than the giver's patience, some longer.
		length: min(time.Duration(rng.ExpFloat64()*float64(40*time.Millisecond)), 500*time.Millisecond),
		number: rng.IntN(6),
	}
	var kinds []int
	for i, k := range chaosKinds {
		if !k.ends || k.to != spare {
			kinds = append(kinds, slices.Repeat([]int{i}, k.weight)...)
		}
	}
	f.kind = kinds[rng.IntN(len(kinds))]
	return f
}

// startFaults makes faults happen until the function that it returns is called, which waits for the last
// to be over.
func (r *chaosRun) startFaults(spare chaosSort) (stop func()) {
	done := make(chan struct{})
	var scheduler, faults sync.WaitGroup
	busy := make([]bool, len(r.current)) // guarded by mu: something happens to it already
	scheduler.Go(func() {
		rng := chaosRand(r.seed, chaosFaultChoices, int(spare))
		next := time.Now()
		for {
			f := drawFault(rng, spare)
			next = next.Add(f.after)
			select {
			case <-done:
				return
			case <-r.over:
				return
			case <-time.After(time.Until(next)):
			}
			at := r.reserve(busy, f)
			if at < 0 {
				continue
			}
			faults.Go(func() {
				r.happen(at, f)
				r.mu.Lock()
				busy[at] = false
				r.mu.Unlock()
			})
		}
	})
	return func() {
		close(done)
		scheduler.Wait()
		faults.Wait()
		r.retiring.Wait()
	}
}

// reserve returns a process for a fault to happen to, or -1.
func (r *chaosRun) reserve(busy []bool, f chaosFault) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	candidates := []int{chaosTakers}
	if chaosKinds[f.kind].to == takerProcess {
		candidates = candidates[:0]
		for i := range chaosTakers {
			candidates = append(candidates, (f.taker+i)%chaosTakers)
		}
	}
	for _, at := range candidates {
		if !busy[at] {
			busy[at] = true
			return at
		}
	}
	r.skipped++
	return -1
}

func (r *chaosRun) happen(at int, f chaosFault) {
	h := chaosHappening{from: chaosNow(), kind: chaosKinds[f.kind].name, to: r.current[at].chaosLife, fault: f}
	if err := chaosKinds[f.kind].do(r, at, f); err != nil {
		r.fail(fmt.Errorf("%s: %w", h.kind, err))
	}
	h.until = chaosNow()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.happened = append(r.happened, h)
}

// restart puts a new process in the place of one that has ended.
func (r *chaosRun) restart(at int) (err error) {
	r.current[at], err = r.startReady(r.endpointOf(at), false)
	return err
}

func (r *chaosRun) stopOne(at int, f chaosFault) error {
	p := r.current[at]
	err := p.signal(syscall.SIGSTOP)
	time.Sleep(f.length)
	return errors.Join(err, p.signal(syscall.SIGCONT))
}

func (r *chaosRun) stopAndKillOne(at int, f chaosFault) error {
	err := r.current[at].signal(syscall.SIGSTOP)
	time.Sleep(f.length)
	return errors.Join(err, r.killOne(at, f))
}

func (r *chaosRun) killOne(at int, f chaosFault) error {
	if err := r.current[at].killAndWait(); err != nil {
		return err
	}
	return r.restart(at)
}

func (r *chaosRun) shutDownOne(at int, f chaosFault) error {
	p := r.current[at]
	command := "shutdown"
	if f.number%2 == 0 {
		command = "close"
	}
	if err := errors.Join(p.say("%s", command), p.wait()); err != nil {
		return err
	}
	return r.restart(at)
}

// replaceOne starts a taker in the place of another, which ends when it has answered what it has.
func (r *chaosRun) replaceOne(at int, f chaosFault) error {
	old := r.current[at]
	p, err := r.startReady(at, true)
	if err != nil {
		return err
	}
	r.current[at] = p
	r.retiring.Go(func() {
		if err := old.wait(); err != nil {
			r.fail(fmt.Errorf("%s replaced it: %w", p.chaosLife, err))
		}
	})
	return nil
}

// replaceAndKillOld kills the old one while it is being replaced, or has been and ends.
func (r *chaosRun) replaceAndKillOld(at int, f chaosFault) error {
	old := r.current[at]
	p, err := r.start(at, true)
	if err != nil {
		return err
	}
	r.current[at] = p
	time.Sleep(f.length / 4)
	return errors.Join(old.killAndWait(), p.awaitReady())
}

// replaceAndKillNew kills the new one at some time after it was started. Then the old one listens, or
// none, and is ending; and a third one takes over from either.
func (r *chaosRun) replaceAndKillNew(at int, f chaosFault) error {
	p, err := r.start(at, true)
	if err != nil {
		return err
	}
	time.Sleep(f.length / 4)
	if err := p.killAndWait(); err != nil {
		return err
	}
	return r.replaceOne(at, f)
}

// starveOne leaves a process few descriptors to open, or none.
func (r *chaosRun) starveOne(at int, f chaosFault) error {
	p := r.current[at]
	err := p.say("starve %d", f.number)
	time.Sleep(f.length)
	return errors.Join(err, p.say("feed"))
}
