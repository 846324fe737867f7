package admin

import (
	"math"
	"sync/atomic"
	"time"
)

// Bounds are the upper bounds of the buckets of every [Histogram], in seconds. A last bucket has the rest.
var Bounds = [...]float64{
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
	counts [len(Bounds) + 1]atomic.Uint64
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
	h := Histogram{Counts: make([]uint64, len(d.counts)), Sum: time.Duration(d.sum.Load()).Seconds()}
	for i := range h.Counts {
		h.Counts[i] = d.counts[i].Load()
	}
	return h
}

// Total returns how many durations there are.
func (h Histogram) Total() uint64 {
	var n uint64
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Quantile returns an estimate, in seconds, of the duration that the share q (0 to 1) of all does not exceed.
// Like histogram_quantile of Prometheus it takes the durations of a bucket for evenly spread, and what is over
// the last bound for that bound. It returns NaN if there are no durations.
func (h Histogram) Quantile(q float64) float64 {
	rank := q * float64(h.Total())
	lower, below := 0.0, 0.0
	for i, upper := range Bounds {
		if i >= len(h.Counts) {
			break
		}
		n := float64(h.Counts[i])
		if n > 0 && below+n >= rank {
			return lower + (upper-lower)*(rank-below)/n
		}
		lower, below = upper, below+n
	}
	if h.Total() == 0 {
		return math.NaN()
	}
	return Bounds[len(Bounds)-1]
}

// cumulative returns the counts as Prometheus has them: for each bound, how many do not exceed it.
func (h Histogram) cumulative() (count uint64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(Bounds))
	for i, bound := range Bounds {
		if i < len(h.Counts) {
			count += h.Counts[i]
		}
		buckets[bound] = count
	}
	return h.Total(), buckets
}
