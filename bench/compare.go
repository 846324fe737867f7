package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/go-usher/usher/internal/bench"
)

// difference is how far a ratio of one run is from that of another.
type difference struct {
	workload, contender, figure string
	a, b                        float64
}

// size is 0.05 if one is 5 % more than the other.
func (d difference) size() float64 { return math.Max(d.a, d.b)/math.Min(d.a, d.b) - 1 }

func (d difference) String() string {
	return fmt.Sprintf("%.1f %%: %s, %s, %s", 100*d.size(), d.workload, d.contender, d.figure)
}

// compare lists the ratios that both runs have, first those that differ most, and what only one of them has.
func compare(w io.Writer, a, b *bench.Results) error {
	all, alone := differences(a, b)
	if len(all) == 0 {
		return errors.New("the two have no ratio in common")
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "WORKLOAD\tCONTENDER\tFIGURE\tA\tB\tDIFFERENCE")
	for _, d := range all {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%.3f\t%.3f\t%.1f %%\n", d.workload, d.contender, d.figure, d.a, d.b, 100*d.size())
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, what := range alone {
		fmt.Fprintf(w, "only one of them has %s\n", what)
	}
	fmt.Fprintf(w, "the largest difference is %v\n", all[0])
	// The slowest requests of a run are a matter of luck more than its middle is.
	if i := slices.IndexFunc(all, func(d difference) bool { return d.figure != "p99" }); i > 0 {
		fmt.Fprintf(w, "the largest of those that are no 99th percentile is %v\n", all[i])
	}
	return nil
}

func differences(a, b *bench.Results) (all []difference, alone []string) {
	ofA, ofB := ratios(a), ratios(b)
	for name, ratio := range ofA {
		other, ok := ofB[name]
		if !ok {
			alone = append(alone, strings.Join(name[:], ", "))
			continue
		}
		all = append(all, difference{name[0], name[1], name[2], ratio, other})
	}
	for name := range ofB {
		if _, ok := ofA[name]; !ok {
			alone = append(alone, strings.Join(name[:], ", "))
		}
	}
	slices.SortFunc(all, func(x, y difference) int {
		return cmp.Or(-cmp.Compare(x.size(), y.size()), cmp.Compare(x.String(), y.String()))
	})
	slices.Sort(alone)
	return all, alone
}

// ratios returns all ratios by workload, contender and figure.
func ratios(r *bench.Results) map[[3]string]float64 {
	all := make(map[[3]string]float64)
	for _, t := range r.Tables {
		for _, row := range t.Rows {
			for _, f := range row.Figures {
				if f.Ratio > 0 {
					all[[3]string{t.Workload, row.Contender, f.Name}] = f.Ratio
				}
			}
		}
	}
	return all
}
