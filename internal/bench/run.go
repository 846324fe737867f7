package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
)

// Options say what to run.
type Options struct {
	Contenders []Contender
	Workloads  []Workload
	Rounds     int                              // for each workload; its own number if 0
	Short      bool                             // a few seconds in all, for tests: the figures are rough
	Log        func(format string, args ...any) // told what is being done; nil is silent
}

// Workload is one kind of work that clients give to contenders.
type Workload struct {
	Name, Title string
	Rounds      int // if Options say nothing; 1 if they say Short

	measure func(context.Context, *trial) error
}

// Workloads returns all there are: connect, keepalive, tls, bulk, idle and saturation.
func Workloads() []Workload {
	return []Workload{
		{"connect", "connect, request, close: one client", 15, measureConnect},
		{"keepalive", "requests over 16 kept connections", 9, measureKeepAlive},
		{"tls", "connect, TLS handshake, request, close: one client", 9, measureTLS},
		{"bulk", "one large download", 15, measureBulk},
		{"idle", "memory of the process in front for idle connections", 3, measureIdle},
		{"saturation", "connect, request, close: 64 clients", 9, measureSaturation},
	}
}

// Run measures each workload in rounds. For each round it starts all contenders anew, since where processes happen
// to be placed can favour one of them for as long as they live, measures them in turn, a little of each at a time,
// and stops them. A contender whose Start is ErrAbsent takes no further part, and Results.Skipped says why. Every
// answer is checked: a wrong or missing one is an error that ends the run, as the end of ctx is.
func Run(ctx context.Context, o Options) (*Results, error) {
	// A TLS client makes garbage, and collecting it would take the processor from what is measured.
	defer debug.SetGCPercent(debug.SetGCPercent(1000))

	r := &run{
		Options:     o,
		descriptors: raiseDescriptors(),
		present:     make(map[string]bool),
		results: &Results{
			Version:  ResultsVersion,
			Date:     time.Now().UTC().Truncate(time.Second),
			Machine:  ThisMachine(),
			Versions: map[string]string{"go": runtime.Version()},
			Skipped:  make(map[string]string),
		},
	}
	for _, w := range o.Workloads {
		table, err := r.measure(ctx, w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.Name, err)
		}
		if len(table.Rows) == 0 {
			r.log("%s: nothing to measure on this machine", w.Name)
			continue
		}
		r.results.Tables = append(r.results.Tables, *table)
	}
	return r.results, nil
}

// run is what goes on in Run.
type run struct {
	Options
	descriptors int             // that a process may have
	present     map[string]bool // contenders that have started before
	results     *Results
}

func (r *run) log(format string, args ...any) {
	if r.Log != nil {
		r.Log(format, args...)
	}
}

// measure makes the table of one workload.
func (r *run) measure(ctx context.Context, w Workload) (*Table, error) {
	rounds := w.Rounds
	if r.Short {
		rounds = 1
	}
	if r.Rounds > 0 {
		rounds = r.Rounds
	}
	table := &Table{Workload: w.Name, Title: w.Title, Rounds: rounds}
	rows := make([]Row, len(r.Contenders))
	for i, c := range r.Contenders {
		rows[i] = Row{Contender: c.Name, Title: c.Title, Baseline: c.Baseline}
	}
	for round := range rounds {
		r.log("%s: round %d of %d", w.Name, round+1, rounds)
		if err := r.round(ctx, w, round, rows); err != nil {
			return nil, err
		}
	}
	for _, row := range rows {
		if len(row.Figures) > 0 {
			table.Rows = append(table.Rows, row)
		}
	}
	table.summarize()
	return table, nil
}

// round starts the contenders, measures them, and stops them whatever happened.
func (r *run) round(ctx context.Context, w Workload, round int, rows []Row) error {
	t := &trial{round: round, short: r.Short, descriptors: r.descriptors}
	defer t.stop()
	for i, c := range r.Contenders {
		if r.results.Skipped[c.Name] != "" {
			continue
		}
		running, err := c.Start(ctx)
		if errors.Is(err, ErrAbsent) && !r.present[c.Name] {
			r.results.Skipped[c.Name] = err.Error()
			r.log("%s: skipped: %v", c.Name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: cannot start: %w", c.Name, err)
		}
		r.present[c.Name] = true
		t.subjects = append(t.subjects, &subject{Running: running, name: c.Name, row: &rows[i]})
	}
	return w.measure(ctx, t)
}

// trial is one round of one workload.
type trial struct {
	subjects []*subject
	round    int
	short    bool

	descriptors int // that a process may have
}

func (t *trial) stop() {
	for _, s := range t.subjects {
		s.Stop()
	}
}

// inTurn calls measure for each subject, so many times over, each time with another one first: what comes after
// another's work finds caches and clocks as that left them.
func (t *trial) inTurn(ctx context.Context, times int, measure func(*subject) error) error {
	for n := range times {
		for i := range t.subjects {
			if err := ctx.Err(); err != nil {
				return err
			}
			s := t.subjects[(i+n+t.round)%len(t.subjects)]
			if err := measure(s); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return nil
}

// only leaves out, for this trial, the subjects that have no part in it. They run on.
func (t *trial) only(take func(*subject) bool) *trial {
	part := *t
	part.subjects = nil
	for _, s := range t.subjects {
		if take(s) {
			part.subjects = append(part.subjects, s)
		}
	}
	return &part
}

// subject is a contender that runs.
type subject struct {
	*Running
	name string
	row  *Row
}

// choose returns how much to do: less in a short trial.
func (t *trial) choose(long, short int) int {
	if t.short {
		return short
	}
	return long
}

// record adds this round's value of a figure.
func (s *subject) record(name, unit, better string, value float64) {
	for i := range s.row.Figures {
		if f := &s.row.Figures[i]; f.Name == name {
			f.Rounds = append(f.Rounds, value)
			return
		}
	}
	s.row.Figures = append(s.row.Figures, Figure{Name: name, Unit: unit, Better: better, Rounds: []float64{value}})
}
