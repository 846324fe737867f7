package main

import (
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/go-usher/usher/bench/internal/page"
	"github.com/go-usher/usher/internal/bench"
)

// panel is one of the chart's small bar charts: what its bars show, and of which workload.
type panel struct {
	workload, figure string
	ratio            bool // bars are ratios, and the value stands beside them
	title, note      string
}

var panels = []panel{
	{"connect", "median", true, "A new connection and one request", "median time, as a multiple of direct; less is better"},
	{"tls", "median", true, "The same over TLS, which the backend ends", "median time, as a multiple of direct; less is better"},
	{"keepalive", "rate", false, "Requests on connections that are kept", "requests a second on 16 connections; more is better"},
	{"saturation", "rate", false, "New connections, 64 clients at once", "connections a second; more is better"},
	{"bulk", "cpu", false, "A large download", "seconds of processor per GB, door and backend; less is better"},
	{"idle", "memory", false, "An idle connection", "memory of the process in front, each; less is better"},
}

// Sizes of the chart, in units of which GitHub shows about 900 in a row.
const (
	chartWidth  = 900
	margin      = 24
	panelWidth  = (chartWidth - 3*margin) / 2
	labelWidth  = 118
	valueWidth  = 112
	barsWidth   = panelWidth - labelWidth - valueWidth
	rowHeight   = 18
	barHeight   = 12
	headHeight  = 44 // title and note of a panel
	titleHeight = 52
	lineHeight  = 16
	lineLength  = 140 // letters of the footer in a line
)

//go:embed chart.css
var chartCSS string

// chart draws the results as SVG, by the results alone: the same ones give the same bytes.
func chart(w io.Writer, r *bench.Results) error {
	var d drawing
	y := titleHeight
	for i := 0; i < len(panels); i += 2 {
		left, right := panels[i].bars(r), panels[i+1].bars(r)
		d.panel(margin, y, panels[i], left)
		d.panel(2*margin+panelWidth, y, panels[i+1], right)
		y += headHeight + rowHeight*max(len(left), len(right)) + margin
	}
	if d.bars == 0 {
		return errors.New("the results have nothing of what the chart shows")
	}
	for _, line := range footer(r) {
		d.text(margin, y, "note", "", line)
		y += lineHeight
	}
	height := y + margin/2
	const title = "usher beside its rivals"
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-labelledby="title desc">
<title id="title">%[3]s</title>
<desc id="desc">%[4]s</desc>
<style>
%[5]s</style>
<rect class="page" width="%[1]d" height="%[2]d"/>
<text class="title" x="%[6]d" y="34">%[3]s</text>
%[7]s</svg>
`, chartWidth, height, title, escape(description(r)), chartCSS, margin, d.String())
	return err
}

// bar is a contender in a panel.
type bar struct {
	contender, title string
	length           float64 // what the bar shows
	label            string  // what is written beside it
}

func (p panel) bars(r *bench.Results) []bar {
	t := tableOf(r, p.workload)
	if t == nil {
		return nil
	}
	var bars []bar
	for i := range t.Rows {
		row := &t.Rows[i]
		f := figureOf(row, p.figure)
		if f == nil {
			continue
		}
		b := bar{contender: row.Contender, title: row.Title, length: f.Value, label: quantity(f.Value, f.Unit)}
		if p.ratio {
			b.length = f.Ratio
			if row.Baseline == "" {
				b.length = 1
			}
			b.label = times(b.length) + "× · " + b.label
		}
		bars = append(bars, b)
	}
	return bars
}

// drawing is the body of the chart as far as it is drawn.
type drawing struct {
	strings.Builder
	bars int
}

func (d *drawing) text(x, y int, class, anchor, s string) {
	if anchor != "" {
		anchor = ` text-anchor="` + anchor + `"`
	}
	fmt.Fprintf(d, "<text class=%q x=\"%d\" y=\"%d\"%s>%s</text>\n", class, x, y, anchor, escape(s))
}

func (d *drawing) panel(x, y int, p panel, bars []bar) {
	if len(bars) == 0 {
		return
	}
	d.bars += len(bars)
	d.text(x, y+14, "head", "", p.title)
	d.text(x, y+30, "note", "", p.note)
	y += headHeight
	from, scale := x+labelWidth, scaleOf(bars)
	length := func(b bar) float64 { return max(b.length*scale, 1) } // so that little is seen, and less than nothing too
	for i, b := range bars {
		class, top := barClass(b.contender), y+i*rowHeight
		d.text(from-8, top+10, "label "+class, "end", b.title)
		fmt.Fprintf(d, `<rect class="bar %s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n", class, from, top, length(b), barHeight)
	}
	if p.ratio { // the line that direct reaches, over the bars and under what is written
		at := float64(from) + scale
		fmt.Fprintf(d, `<line class="one" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", at, y-3, at, y+(len(bars)-1)*rowHeight+barHeight+3)
	}
	for i, b := range bars {
		at := float64(from) + length(b) + 6
		fmt.Fprintf(d, `<text class="value %s" x="%.1f" y="%d">%s</text>`+"\n", barClass(b.contender), at, y+i*rowHeight+10, escape(b.label))
	}
}

// scaleOf returns how long 1 is where the longest bar just fits.
func scaleOf(bars []bar) float64 {
	largest := 0.0
	for _, b := range bars {
		largest = math.Max(largest, b.length)
	}
	if largest == 0 {
		return 0
	}
	return barsWidth / largest
}

// barClass is how a contender looks: usher stands out, and what everybody is measured by is not as the others.
func barClass(contender string) string {
	switch contender {
	case "usher":
		return "usher"
	case "direct", "node":
		return "base"
	}
	return "rival"
}

// footer says on what and with what it was measured, in lines of bearable length.
func footer(r *bench.Results) []string {
	parts := append([]string{page.Machine(r.Date, r.Machine)}, page.Measured(r.Versions, r.Skipped)...)
	rounds := 0
	for _, t := range r.Tables {
		rounds = max(rounds, t.Rounds)
	}
	parts = append(parts, "client, door and backend share the cores", fmt.Sprintf("rounds: up to %d", rounds), "Node cluster's times are multiples of Node alone")
	var lines []string
	for _, part := range parts {
		last := len(lines) - 1
		if last >= 0 && len(lines[last])+len(part) < lineLength {
			lines[last] += " · " + part
			continue
		}
		lines = append(lines, part)
	}
	return lines
}

// description is the chart in words, for those who do not see it.
func description(r *bench.Results) string {
	var b strings.Builder
	for _, p := range panels {
		bars := p.bars(r)
		if len(bars) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s, %s:", p.title, p.note)
		for i, bar := range bars {
			if i > 0 {
				b.WriteString(";")
			}
			fmt.Fprintf(&b, " %s %s", bar.title, bar.label)
		}
		b.WriteString(". ")
	}
	return strings.TrimSpace(b.String())
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}
