package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-usher/usher/internal/bench"
)

// Results are what one run has measured. They are kept as JSON, and the page is made of that.
type Results struct {
	Version  int               `json:"version"` // of this format: resultsVersion
	Date     time.Time         `json:"date"`
	Command  string            `json:"command"` // that made them
	Machine  bench.Machine     `json:"machine"`
	Versions map[string]string `json:"versions"`          // of what was measured, by its name: "usher", "go", "nginx"
	Skipped  map[string]string `json:"skipped,omitempty"` // contenders that could not take part, and why

	Rate      int   `json:"rate"`      // requests a second of each kind
	Kept      int   `json:"kept"`      // connections of each kind that keeps them
	Downloads int   `json:"downloads"` // of each row
	Rows      []Row `json:"rows"`
}

const resultsVersion = 1

// Row is what clients noticed of one disturbance of one contender.
type Row struct {
	Contender   string `json:"contender"`
	Disturbance string `json:"disturbance"`
	Title       string `json:"title"` // of both, for people
	Times       int    `json:"times"` // it was done

	Before Phase `json:"before"` // nothing was done
	During Phase `json:"during"` // from the first time to a while after the last

	Broken    int            `json:"broken"` // downloads
	Breakages map[string]int `json:"breakages,omitempty"`
}

// Phase is a part of a measurement.
type Phase struct {
	Seconds float64  `json:"seconds"`
	Busy    float64  `json:"busy"` // the share of the machine's processors
	Kinds   []Figure `json:"kinds"`
}

// Figure is what came of the requests of one kind that ended in a phase. Times are in milliseconds, from the beginning of
// a request, connecting included, to the last byte of its answer, or until it had failed.
type Figure struct {
	Kind      string         `json:"kind"`
	Title     string         `json:"title"`
	Requests  int            `json:"requests"`
	Failed    int            `json:"failed"`
	Failures  map[string]int `json:"failures,omitempty"`
	Kept      bool           `json:"kept,omitempty"` // connections are
	Connected int            `json:"connected"`      // connections made
	Median    float64        `json:"p50"`
	P99       float64        `json:"p99"`
	Longest   float64        `json:"longest"`
}

func (p *Phase) requests() (all, failed int) {
	for _, f := range p.Kinds {
		all += f.Requests
		failed += f.Failed
	}
	return all, failed
}

// longest returns the time of the slowest request, of whatever kind.
func (p *Phase) longest() float64 {
	var longest float64
	for _, f := range p.Kinds {
		longest = max(longest, f.Longest)
	}
	return longest
}

func (p *Phase) kind(name string) *Figure {
	for i := range p.Kinds {
		if p.Kinds[i].Kind == name {
			return &p.Kinds[i]
		}
	}
	return nil
}

// check returns an error if clients noticed more than they should have: anything at all, but for those whom a process
// that was killed had in its hands.
func (r *Results) check() error {
	var errs []error
	for i := range r.Rows {
		row := &r.Rows[i]
		_, before := row.Before.requests()
		_, during := row.During.requests()
		if before > 0 || during > allowed[row.Disturbance] || row.Broken > 0 {
			errs = append(errs, fmt.Errorf("%s: %d requests failed, %d before anything was done, and %d downloads broke: %s",
				row.Title, during, before, row.Broken, counted(row.everything())))
		}
	}
	return errors.Join(errs...)
}

// everything returns all that clients noticed.
func (r *Row) everything() map[string]int {
	all := r.Before.failures()
	for _, more := range []map[string]int{r.During.failures(), r.Breakages} {
		for why, n := range more {
			all[why] += n
		}
	}
	return all
}

// allowed is how many requests may fail. What a killed door is just looking at is lost: at the rate of -short, that is
// one connection in some tens of runs.
var allowed = map[string]int{"kill": 1}

// failures returns those of all kinds.
func (p *Phase) failures() map[string]int {
	all := make(map[string]int)
	for _, f := range p.Kinds {
		for why, n := range f.Failures {
			all[why+" ("+f.Title+")"] += n
		}
	}
	return all
}

func readResults(path string) (*Results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r Results
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Version != resultsVersion {
		return nil, fmt.Errorf("%s: results of version %d; this program reads version %d", path, r.Version, resultsVersion)
	}
	return &r, nil
}

func (r *Results) write(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
