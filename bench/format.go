package main

import (
	"math"
	"strconv"

	"github.com/go-usher/usher/bench/internal/page"
	"github.com/go-usher/usher/internal/bench"
)

// quantity writes a value with the unit of its figure, as people write it.
func quantity(value float64, unit string) string {
	switch unit {
	case "":
		return page.Thousands(value)
	case "1/s":
		return page.Thousands(value) + "/s"
	case "B":
		if math.Abs(value) >= 1000 {
			return strconv.FormatFloat(value/1000, 'f', 1, 64) + " kB"
		}
		return page.Thousands(value) + " B"
	case "µs":
		return page.Digits(value) + " µs"
	}
	return strconv.FormatFloat(value, 'f', 2, 64) + " " + unit
}

// times writes a ratio.
func times(ratio float64) string { return strconv.FormatFloat(ratio, 'f', 2, 64) }

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
