package bench

import (
	"slices"
	"time"
)

// Results are what one run has measured. They are kept as JSON: tables, charts and checks are made of that, so that
// what is shown can be shown again, and compared with another run.
type Results struct {
	Version  int               `json:"version"` // of this format: ResultsVersion
	Date     time.Time         `json:"date"`
	Command  string            `json:"command"` // that made them
	Machine  Machine           `json:"machine"`
	Versions map[string]string `json:"versions"`          // of what was measured, by its name: "usher", "go", "nginx"
	Skipped  map[string]string `json:"skipped,omitempty"` // contenders that could not take part, and why
	Tables   []Table           `json:"tables"`
}

// ResultsVersion is the version of the format that this package writes and reads.
const ResultsVersion = 1

// Machine is what the run was made on.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory"` // bytes; 0 if unknown
	OS     string `json:"os"`     // with the version of the kernel
	Arch   string `json:"arch"`
}

// Table is one workload's.
type Table struct {
	Workload string `json:"workload"` // "connect"
	Title    string `json:"title"`
	Rounds   int    `json:"rounds"`
	Rows     []Row  `json:"rows"`
}

// Row is what one contender did.
type Row struct {
	Contender string   `json:"contender"`
	Title     string   `json:"title"`
	Baseline  string   `json:"baseline,omitempty"` // the contender that its ratios are to; none for a baseline itself
	Figures   []Figure `json:"figures"`
}

// Figure is one quantity, measured in each round.
type Figure struct {
	Name   string    `json:"name"`            // "median", "p99", "rate", "cpu"
	Unit   string    `json:"unit"`            // "µs", "1/s", "GB/s", "s/GB", "B"
	Better string    `json:"better"`          // "less" or "more"
	Rounds []float64 `json:"rounds"`          // in the order of the rounds
	Value  float64   `json:"value"`           // their median
	Ratio  float64   `json:"ratio,omitempty"` // the median of the rounds' ratios to the baseline's; 0 if there is none
}

// Median returns the middle of values, or the mean of the two in the middle; 0 if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// Percentile returns the smallest value that p percent of values do not exceed; 0 if there are none.
func Percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	at := int(p/100*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(at, 0), len(sorted)-1)]
}
