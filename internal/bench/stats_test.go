package bench

import (
	"strings"
	"testing"
)

func TestMedianAndPercentile(t *testing.T) {
	hundred := make([]float64, 100) // 100, 99, ... 1
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	tests := []struct {
		name        string
		values      []float64
		median, p99 float64
	}{
		{"of none", nil, 0, 0},
		{"of one", []float64{7}, 7, 7},
		{"of two the median is between", []float64{4, 2}, 3, 4},
		{"of three the order does not matter", []float64{9, 1, 5}, 5, 9},
		{"of a hundred the 99th percentile leaves one out", hundred, 50.5, 99},
		{"of many alike", []float64{3, 3, 3, 3}, 3, 3},
		{"below zero", []float64{-5, -1, -3}, -3, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Median(tt.values); got != tt.median {
				t.Errorf("the median is %v; want %v", got, tt.median)
			}
			if got := Percentile(tt.values, 99); got != tt.p99 {
				t.Errorf("the 99th percentile is %v; want %v", got, tt.p99)
			}
		})
	}
	if hundred[0] != 100 {
		t.Error("the values were sorted where they are")
	}
}

func TestARatioIsTheMedianOfTheRoundsRatios(t *testing.T) {
	tests := []struct {
		name           string
		rounds, base   []float64
		value, want    float64
		withoutFigures bool
	}{
		{name: "a disturbance of both in one round does not count", rounds: []float64{20, 200, 20}, base: []float64{10, 100, 10}, value: 20, want: 2},
		{name: "it is not the ratio of the medians", rounds: []float64{1, 9, 6}, base: []float64{1, 3, 6}, value: 6, want: 1},
		{name: "of an even number it is between", rounds: []float64{10, 30}, base: []float64{10, 10}, value: 20, want: 2},
		{name: "there is none to nothing", rounds: []float64{10}, base: []float64{0}, value: 10},
		{name: "there is none to a baseline with other rounds", rounds: []float64{10, 10}, base: []float64{10}, value: 10},
		{name: "there is none to a baseline that took no part", rounds: []float64{10}, value: 10, withoutFigures: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := Row{Contender: "base", Figures: []Figure{{Name: "other", Rounds: tt.rounds}, {Name: "median", Rounds: tt.base}}}
			if tt.withoutFigures {
				base.Figures = nil
			}
			table := Table{Rows: []Row{base, {Contender: "one", Baseline: "base", Figures: []Figure{{Name: "median", Rounds: tt.rounds}}}}}
			table.summarize()
			if got := table.Rows[1].Figures[0]; got.Value != tt.value || got.Ratio != tt.want {
				t.Errorf("value %v, ratio %v; want %v, %v", got.Value, got.Ratio, tt.value, tt.want)
			}
		})
	}
}

func TestFormatValue(t *testing.T) {
	tests := []struct {
		value float64
		want  string
	}{
		{0, "0"}, {0.1434, "0.143"}, {1.125, "1.12"}, {61.24, "61.2"}, {125.4, "125"}, {1896, "1,896"},
		{50682.4, "50,682"}, {1234567, "1,234,567"}, {-54.52, "-54.5"}, {-12345, "-12,345"},
	}
	for _, tt := range tests {
		if got := FormatValue(tt.value); got != tt.want {
			t.Errorf("FormatValue(%v) = %q; want %q", tt.value, got, tt.want)
		}
	}
}

func TestTheTableShowsEachFigureAndWhoIsMissing(t *testing.T) {
	r := Results{
		Machine: Machine{CPU: "6502", Cores: 1, Memory: 4 << 30, OS: "DOS 3.3", Arch: "8bit"},
		Skipped: map[string]string{"nginx": "it is not here", "cluster": "node is not here"},
		Tables: []Table{
			{Workload: "bulk", Title: "much at once", Rows: []Row{
				{Contender: "direct", Title: "direct", Figures: []Figure{{Name: "rate", Unit: "GB/s", Value: 5.25}}},
				{Contender: "usher", Title: "handed over", Figures: []Figure{
					{Name: "rate", Unit: "GB/s", Value: 5, Ratio: 0.954}, {Name: "cpu", Unit: "s/GB", Value: 0.15, Ratio: 1.009},
				}},
			}},
			{Workload: "idle", Title: "none at all", Rows: []Row{
				{Contender: "usher", Title: "übergeben", Figures: []Figure{{Name: "memory", Unit: "B", Value: 12345}, {Name: "connections", Value: 10}}},
			}},
		},
	}
	const want = `6502, 1 core, 4 GB, DOS 3.3, 8bit

bulk: much at once
               rate GB/s  ratio  cpu s/GB  ratio
  direct            5.25      -         -      -
  handed over       5.00   0.95     0.150   1.01

idle: none at all
             memory B  connections
  übergeben    12,345         10.0

skipped: cluster: node is not here
skipped: nginx: it is not here
`
	var got strings.Builder
	if err := r.WriteTable(&got); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("the table is\n%swant\n%s", got.String(), want)
	}
}
