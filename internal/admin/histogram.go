package admin

import (
	"sync/atomic"
	"time"
)

// Bounds are the upper bounds of the buckets of every [Histogram], in seconds. A last bucket has the rest.
var Bounds = []float64{
	0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
	0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600,
}

// Histogram is a number of durations by size.
type Histogram struct {
	// Counts has a number for each of Bounds, and one for the rest; they are not cumulative.
	Counts []uint64 `json:"counts"`
	// Sum is that of all durations, in seconds.
	Sum float64 `json:"sum"`
}

// Durations collects durations for a [Histogram]. Its zero value is ready, and its methods may be called
// from several goroutines at once.
type Durations struct {
	counts [32]atomic.Uint64
	sum    atomic.Int64 // ns
}

// Observe adds a duration.
func (d *Durations) Observe(t time.Duration) {
	i, s := 0, t.Seconds()
	for i < len(Bounds) && s > Bounds[i] {
		i++
	}
	d.counts[i].Add(1)
	d.sum.Add(int64(t))
}

// Histogram returns what there is so far.
func (d *Durations) Histogram() Histogram {
	h := Histogram{Counts: make([]uint64, len(Bounds)+1), Sum: time.Duration(d.sum.Load()).Seconds()}
	for i := range h.Counts {
		h.Counts[i] = d.counts[i].Load()
	}
	return h
}
