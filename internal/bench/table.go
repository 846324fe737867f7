package bench

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// summarize computes each figure's value and ratio from its rounds.
func (t *Table) summarize() {
	for i := range t.Rows {
		row := &t.Rows[i]
		for j := range row.Figures {
			f := &row.Figures[j]
			f.Value = Median(f.Rounds)
			f.Ratio = ratio(f, t.figure(row.Baseline, f.Name))
		}
	}
}

// ratio returns the median of the rounds' ratios to base's; 0 if there is none. It is not the ratio of medians: what
// disturbs the machine for a while disturbs both in the same round.
func ratio(f, base *Figure) float64 {
	if base == nil || len(base.Rounds) != len(f.Rounds) {
		return 0
	}
	var ratios []float64
	for i, value := range f.Rounds {
		if base.Rounds[i] == 0 {
			return 0
		}
		ratios = append(ratios, value/base.Rounds[i])
	}
	return Median(ratios)
}

// figure returns nil if there is none.
func (t *Table) figure(contender, name string) *Figure {
	for i := range t.Rows {
		if t.Rows[i].Contender != contender {
			continue
		}
		for j := range t.Rows[i].Figures {
			if f := &t.Rows[i].Figures[j]; f.Name == name {
				return f
			}
		}
	}
	return nil
}

// WriteTable writes the results as text for people: the machine, a table for each workload, and who could not take
// part.
func (r *Results) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintln(&b, r.Machine)
	for i := range r.Tables {
		t := &r.Tables[i]
		fmt.Fprintf(&b, "\n%s: %s\n", t.Workload, t.Title)
		t.write(&b)
	}
	if len(r.Skipped) > 0 {
		fmt.Fprintln(&b)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Skipped)) {
		fmt.Fprintf(&b, "skipped: %s: %s\n", name, r.Skipped[name])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// String returns what is known of the machine, as "AMD EPYC, 2 cores, 8 GB, Linux 6.18.0, amd64".
func (m Machine) String() string {
	var known []string
	if m.CPU != "" {
		known = append(known, m.CPU)
	}
	if m.Cores == 1 {
		known = append(known, "1 core")
	} else {
		known = append(known, fmt.Sprintf("%d cores", m.Cores))
	}
	if m.Memory > 0 {
		known = append(known, fmt.Sprintf("%.0f GB", float64(m.Memory)/(1<<30)))
	}
	return strings.Join(append(known, m.OS, m.Arch), ", ")
}

// write writes a line for each row, with a column for each figure that any of them has, and one for its ratio if
// there is any.
func (t *Table) write(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	width := 0 // of the titles, which the tabwriter would move to the right
	for i := range t.Rows {
		width = max(width, utf8.RuneCountInString(t.Rows[i].Title))
	}
	heads := t.heads()
	fmt.Fprintf(tw, "%-*s", width, "")
	for _, h := range heads {
		fmt.Fprintf(tw, "\t%s", strings.TrimSpace(h.name+" "+h.unit))
		if h.hasRatio {
			fmt.Fprint(tw, "\tratio")
		}
	}
	fmt.Fprintln(tw, "\t")
	for i := range t.Rows {
		row := &t.Rows[i]
		fmt.Fprintf(tw, "%-*s", width, row.Title)
		for _, h := range heads {
			value, ratio := t.figure(row.Contender, h.name).words()
			fmt.Fprintf(tw, "\t%s", value)
			if h.hasRatio {
				fmt.Fprintf(tw, "\t%s", ratio)
			}
		}
		fmt.Fprintln(tw, "\t")
	}
	tw.Flush() // w is a strings.Builder
}

// words are how a figure is shown. There may be none.
func (f *Figure) words() (value, ratio string) {
	value, ratio = "-", "-"
	if f == nil {
		return value, ratio
	}
	if f.Ratio != 0 {
		ratio = fmt.Sprintf("%.2f", f.Ratio)
	}
	return FormatValue(f.Value), ratio
}

type head struct {
	name, unit string
	hasRatio   bool
}

// heads are the figures that rows have.
func (t *Table) heads() (heads []head) {
	for _, row := range t.Rows {
		for _, f := range row.Figures {
			i := slices.IndexFunc(heads, func(h head) bool { return h.name == f.Name })
			if i < 0 {
				i = len(heads)
				heads = append(heads, head{name: f.Name, unit: f.Unit})
			}
			heads[i].hasRatio = heads[i].hasRatio || f.Ratio != 0
		}
	}
	return heads
}

// FormatValue writes a value with as many digits as mean something, three at least, and thousands apart:
// "12,345", "61.2", "0.437".
func FormatValue(v float64) string {
	digits := 0
	for size := math.Abs(v); size < 100 && digits < 3 && v != 0; size *= 10 {
		digits++
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	whole, fraction, _ := strings.Cut(text, ".")
	sign := strings.TrimRight(whole, "0123456789")
	whole = whole[len(sign):]
	for at := len(whole) - 3; at > 0; at -= 3 {
		whole = whole[:at] + "," + whole[at:]
	}
	if fraction != "" {
		whole += "." + fraction
	}
	return sign + whole
}
