package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-usher/usher/internal/bench"
)

// quantity writes a value with the unit of its figure, as people write it.
func quantity(value float64, unit string) string {
	switch unit {
	case "":
		return thousands(value)
	case "1/s":
		return thousands(value) + "/s"
	case "B":
		if math.Abs(value) >= 1000 {
			return strconv.FormatFloat(value/1000, 'f', 1, 64) + " kB"
		}
		return thousands(value) + " B"
	case "µs":
		return digits(value) + " µs"
	}
	return strconv.FormatFloat(value, 'f', 2, 64) + " " + unit
}

// digits writes three digits of small numbers and all of the others.
func digits(value float64) string {
	switch {
	case value < 10:
		return strconv.FormatFloat(value, 'f', 2, 64)
	case value < 100:
		return strconv.FormatFloat(value, 'f', 1, 64)
	}
	return thousands(value)
}

// thousands writes a whole number in groups of three digits.
func thousands(value float64) string {
	s := strconv.FormatFloat(math.Abs(value), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if value < 0 && s != "0" {
		s = "-" + s
	}
	return s
}

// times writes a ratio.
func times(ratio float64) string { return strconv.FormatFloat(ratio, 'f', 2, 64) }

// machine says what a run was made on, and when.
func machine(r *bench.Results) string {
	m := r.Machine
	parts := []string{r.Date.Format("2 January 2006"), fmt.Sprintf("%s, cores: %d", cmp.Or(m.CPU, "unknown processor"), m.Cores)}
	if m.Memory > 0 {
		parts = append(parts, fmt.Sprintf("%.0f GB", float64(m.Memory)/1e9))
	}
	return strings.Join(append(parts, m.OS+" "+m.Arch), " · ")
}

// measured says what was measured, and what could not be.
func measured(r *bench.Results) []string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		parts = append(parts, name+" "+strings.TrimPrefix(r.Versions[name], name))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Skipped)) {
		parts = append(parts, name+" was not there")
	}
	return parts
}

func tableOf(r *bench.Results, workload string) *bench.Table {
	for i := range r.Tables {
		if r.Tables[i].Workload == workload {
			return &r.Tables[i]
		}
	}
	return nil
}

func rowOf(t *bench.Table, contender string) *bench.Row {
	for i := range t.Rows {
		if t.Rows[i].Contender == contender {
			return &t.Rows[i]
		}
	}
	return nil
}

func figureOf(row *bench.Row, name string) *bench.Figure {
	for i := range row.Figures {
		if row.Figures[i].Name == name {
			return &row.Figures[i]
		}
	}
	return nil
}
