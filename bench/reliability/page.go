package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/go-usher/usher/bench/internal/page"
)

// What is between these lines of a page is written by this program; the rest is written by hand.
const (
	pageStart = "<!-- made by: go run ./reliability write -->\n"
	pageEnd   = "<!-- end of what go run ./reliability write makes -->\n"
)

// writePage writes the tables into a page that is there, in the place of those that it has.
func (r *Results) writePage(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), pageStart)
	_, after, ends := strings.Cut(rest, pageEnd)
	if !ok || !ends {
		return fmt.Errorf("%s: there is no %q with %q after it", path, strings.TrimSpace(pageStart), strings.TrimSpace(pageEnd))
	}
	var b strings.Builder
	if err := r.writeTables(&b); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(before+pageStart+"\n"+b.String()+"\n"+pageEnd+after), 0o644)
}

// writeTables writes as Markdown what was done and what came of it, by the results alone.
func (r *Results) writeTables(w io.Writer) error {
	if len(r.Rows) == 0 {
		return errors.New("the results have no rows")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s.  \n%s.  \n`%s`: %s requests a second of each kind, on %s connections where they are kept, and %s downloads. %s\n",
		page.Machine(r.Date, r.Machine), strings.Join(page.Measured(r.Versions, r.Skipped), " · "), r.Command,
		page.Thousands(float64(r.Rate)), page.Thousands(float64(r.Kept)), page.Thousands(float64(r.Downloads)), r.busy())
	b.WriteString("\n| | times | requests | failed | broken downloads | kept connections lost | p99, new HTTP connections | longest |\n" +
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for i := range r.Rows {
		r.Rows[i].writeSummary(&b)
	}
	r.writeFailures(&b)
	b.WriteString("\n### Times by kind\n\nMilliseconds, before → during.\n\n" +
		"| | | median | p99 | longest |\n| --- | --- | ---: | ---: | ---: |\n")
	for i := range r.Rows {
		r.Rows[i].writeTimes(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// busy says how much of the machine that takes, while nothing is done.
func (r *Results) busy() string {
	least, most := 1.0, 0.0
	for _, row := range r.Rows {
		least, most = min(least, row.Before.Busy), max(most, row.Before.Busy)
	}
	return fmt.Sprintf("That alone keeps the machine's processors busy for %.0f to %.0f %% of the time.", 100*least, 100*most)
}

func (row *Row) writeSummary(b *strings.Builder) {
	requests, failed := row.During.requests()
	p99 := ""
	if before, during := row.Before.kind("http-new"), row.During.kind("http-new"); before != nil && during != nil {
		p99 = change(before.P99, during.P99) + " ms"
	}
	fmt.Fprintf(b, "| %s | %d | %s | %s | %s | %s | %s | %s ms |\n", row.Title, row.Times, page.Thousands(float64(requests)),
		emphasized(failed), emphasized(row.Broken), page.Thousands(float64(row.lost())), p99, page.Digits(row.During.longest()))
}

// lost returns how many connections that clients meant to keep they had to make anew.
func (row *Row) lost() int {
	n := 0
	for _, f := range row.During.Kinds {
		if f.Kept {
			n += f.Connected
		}
	}
	return n
}

// emphasized writes a number that should be 0.
func emphasized(n int) string {
	if n == 0 {
		return "0"
	}
	return "**" + page.Thousands(float64(n)) + "**"
}

func change(before, during float64) string {
	return page.Digits(before) + " → " + page.Digits(during)
}

// writeFailures lists them all.
func (r *Results) writeFailures(b *strings.Builder) {
	var lines []string
	for i := range r.Rows {
		row := &r.Rows[i]
		if _, before := row.Before.requests(); before > 0 {
			lines = append(lines, fmt.Sprintf("- %s, before anything was done: %s.", row.Title, counted(row.Before.failures())))
		}
		if _, during := row.During.requests(); during > 0 {
			lines = append(lines, fmt.Sprintf("- %s: %s.", row.Title, counted(row.During.failures())))
		}
		if row.Broken > 0 {
			lines = append(lines, fmt.Sprintf("- %s, downloads: %s.", row.Title, counted(row.Breakages)))
		}
	}
	if len(lines) == 0 {
		b.WriteString("\nNothing failed.\n")
		return
	}
	b.WriteString("\nWhat failed:\n\n" + strings.Join(lines, "\n") + "\n")
}

// counted lists what happened and how often, the most frequent first.
func counted(of map[string]int) string {
	names := slices.Sorted(maps.Keys(of))
	slices.SortStableFunc(names, func(a, b string) int { return of[b] - of[a] })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s × %s", page.Thousands(float64(of[name])), name)
	}
	return strings.Join(names, ", ")
}

func (row *Row) writeTimes(b *strings.Builder) {
	title := row.Title
	for _, during := range row.During.Kinds {
		before := row.Before.kind(during.Kind)
		if before == nil {
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", title, during.Title, change(before.Median, during.Median),
			change(before.P99, during.P99), change(before.Longest, during.Longest))
		title = "" // of the lines below, too
	}
}
