package upstream

import (
	"math"
	"time"

	"github.com/go-usher/usher/internal/config"
)

// Backend is one of the backends of a pool.
type Backend struct {
	Address string // as in Options

	pool *Pool

	// What follows is guarded by pool.mu.

	open                 int // connections, and those being made
	connections          uint64
	failures             uint64 // to connect, for clients
	checks, failedChecks uint64
	fitness
	cooldown *time.Timer // makes it fit again
	until    time.Time   // when
}

// Done says that a connection which Dial has returned with this backend has ended. It is called once for
// each.
func (b *Backend) Done() {
	b.pool.mu.Lock()
	defer b.pool.mu.Unlock()
	b.open--
}

// before tells whether b is to be tried before other. It is called with pool.mu held.
func (b *Backend) before(other *Backend) bool {
	if b.unfit != other.unfit {
		return other.unfit
	}
	return b.open < other.open
}

// connected notes that a connection was made for a client.
func (b *Backend) connected() {
	b.update(func(h config.Health) change {
		b.connections++
		return b.afterDial(nil, h)
	})
}

// failed notes that it could not be, and says whether that is the backend's fault.
func (b *Backend) failed(err error, fault bool) {
	b.update(func(h config.Health) change {
		b.open--
		if !fault {
			return unchanged
		}
		b.failures++
		return b.afterDial(err, h)
	})
}

// checked notes how a check has ended.
func (b *Backend) checked(err error) {
	b.update(func(h config.Health) change {
		b.checks++
		if err != nil {
			b.failedChecks++
		}
		return b.afterCheck(err, h)
	})
}

// cooled makes the backend fit again.
func (b *Backend) cooled() {
	b.update(func(config.Health) change {
		// One that became fit meanwhile, and unfit once more, has another timer.
		if b.pool.closed || !b.unfit || time.Now().Before(b.until) {
			return unchanged
		}
		b.unfit = false
		return rose
	})
}

// update runs f with pool.mu held, and tells the log if the backend's fitness has changed: before mu is
// released, or the lines could come in another order than the changes.
func (b *Backend) update(f func(config.Health) change) {
	p := b.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	switch f(p.health) {
	case fell:
		p.o.Log.Warn("backend is unfit", "address", b.Address, "error", b.err)
		b.coolDown()
	case rose:
		p.o.Log.Info("backend is fit again", "address", b.Address)
	}
}

// coolDown sees to it that the backend becomes fit again if no check does. It is called with pool.mu held.
func (b *Backend) coolDown() {
	p := b.pool
	if p.health.Interval > 0 || p.closed {
		return
	}
	b.until = time.Now().Add(p.health.Cooldown)
	b.cooldown = time.AfterFunc(p.health.Cooldown, b.cooled)
}

// fitness is what is known of a backend's health. The zero value is fit.
//
//	fit ─ Fall checks in a row have failed ──────────────────────────→ unfit
//	fit ─ Fall connections of clients in a row have failed ──────────→ unfit
//	unfit ─ Rise checks in a row have succeeded ─────────────────────→ fit
//	unfit ─ no checks are made, and Cooldown is over ────────────────→ fit (the next failure is enough)
//	unfit ─ no checks are made, and a connection of a client succeeds ─→ fit
type fitness struct {
	unfit bool
	err   error // the last failure

	// How many there were in a row. Checks and connections of clients are counted apart: a backend that
	// answers each check with 503 still accepts connections.
	dialFailures  int
	checkFailures int
	checkPasses   int // while it is unfit
}

type change int

const (
	unchanged change = iota
	fell             // it is unfit now
	rose             // it is fit again
)

func (f *fitness) afterCheck(err error, h config.Health) change {
	if err != nil {
		f.err = err
		f.checkFailures++
		f.checkPasses = 0
		return f.fall(f.checkFailures >= h.Fall)
	}
	f.checkFailures = 0
	if !f.unfit {
		return unchanged
	}
	f.checkPasses++
	if f.checkPasses < h.Rise {
		return unchanged
	}
	f.dialFailures = 0
	f.unfit = false
	return rose
}

func (f *fitness) afterDial(err error, h config.Health) change {
	if err != nil {
		f.err = err
		f.dialFailures++
		return f.fall(f.dialFailures >= h.Fall)
	}
	f.dialFailures = 0
	if !f.unfit || h.Interval > 0 {
		return unchanged
	}
	f.unfit = false
	return rose
}

func (f *fitness) fall(enough bool) change {
	if f.unfit || !enough {
		return unchanged
	}
	f.unfit = true
	f.checkPasses = 0
	return fell
}

// healthOf makes counts of none into one, and nothing at all into what no backend ever fails.
func healthOf(h *config.Health) config.Health {
	if h == nil {
		return config.Health{Fall: math.MaxInt}
	}
	made := *h
	made.Rise = max(made.Rise, 1)
	made.Fall = max(made.Fall, 1)
	if made.Timeout <= 0 {
		made.Timeout = made.Interval
	}
	return made
}
