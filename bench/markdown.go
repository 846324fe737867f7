package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/go-usher/usher/bench/internal/page"
	"github.com/go-usher/usher/internal/bench"
)

// markdown writes a table for each workload.
func markdown(w io.Writer, r *bench.Results) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.  \n%s.  \n`%s`\n", page.Machine(r.Date, r.Machine), strings.Join(page.Measured(r.Versions, r.Skipped), " · "), r.Command)
	for i := range r.Tables {
		markdownTable(&b, &r.Tables[i])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// column is one quantity of a table, with the ratios of it if any row has one.
type column struct {
	name   string
	ratios bool
}

func columns(t *bench.Table) []column {
	var all []column
	at := make(map[string]int)
	for _, row := range t.Rows {
		for _, f := range row.Figures {
			i, ok := at[f.Name]
			if !ok {
				i = len(all)
				at[f.Name] = i
				all = append(all, column{name: f.Name})
			}
			all[i].ratios = all[i].ratios || f.Ratio != 0
		}
	}
	return all
}

func markdownTable(b *strings.Builder, t *bench.Table) {
	fmt.Fprintf(b, "\n### %s\n\n", t.Title)
	head, rule := "|", "| --- |"
	all := columns(t)
	for _, c := range all {
		head += " | " + c.name
		rule += " ---: |"
		if c.ratios {
			head += " | ratio"
			rule += " ---: |"
		}
	}
	fmt.Fprintf(b, "%s |\n%s\n", head, rule)
	for i := range t.Rows {
		row := &t.Rows[i]
		b.WriteString("| " + row.Title)
		for _, c := range all {
			f := figureOf(row, c.name)
			if f == nil {
				f = &bench.Figure{}
				b.WriteString(" | ")
			} else {
				b.WriteString(" | " + quantity(f.Value, f.Unit))
			}
			if c.ratios {
				b.WriteString(" | " + ratioCell(t, row, f))
			}
		}
		b.WriteString(" |\n")
	}
	fmt.Fprintf(b, "\nRounds: %d.\n", t.Rounds)
}

// ratioCell names the baseline where it is not the table's first.
func ratioCell(t *bench.Table, row *bench.Row, f *bench.Figure) string {
	if f.Ratio == 0 {
		return ""
	}
	if row.Baseline == t.Rows[0].Contender {
		return times(f.Ratio)
	}
	return times(f.Ratio) + " of " + baselineTitle(t, row)
}

func baselineTitle(t *bench.Table, row *bench.Row) string {
	if base := rowOf(t, row.Baseline); base != nil {
		return base.Title
	}
	return row.Baseline
}
