package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/go-usher/usher/internal/bench"
)

// bound is what a figure of usher's must not pass. They are generous: they are for machines that do other things as
// well, and break when the door has become slower, not when it was unlucky.
type bound struct {
	workload, figure string
	contender, to    string  // the ratio of the one to the other, or the value itself if to is empty
	most, least      float64 // one of them
}

// bestProxy stands for the proxy of others that did best in this run.
const bestProxy = "best proxy"

var proxies = []string{"haproxy-tcp", "haproxy-http", "nginx-stream", "nginx-http", "tcpproxy"}

var bounds = []bound{
	{workload: "connect", figure: "median", contender: "usher", to: "direct", most: 2.1},
	{workload: "connect", figure: "median", contender: "usher", to: "c-giver", most: 1.8},
	{workload: "keepalive", figure: "rate", contender: "usher", to: "direct", least: 0.85},
	{workload: "keepalive", figure: "rate", contender: "usher", to: bestProxy, least: 1.2},
	{workload: "tls", figure: "median", contender: "usher", to: "direct", most: 1.4},
	{workload: "bulk", figure: "cpu", contender: "usher", to: "direct", most: 1.5},
	{workload: "bulk", figure: "cpu", contender: "usher", to: bestProxy, most: 0.9},
	{workload: "idle", figure: "memory", contender: "usher", most: 1000},
	{workload: "saturation", figure: "rate", contender: "usher", to: bestProxy, least: 0.75},
	{workload: "routes", figure: "median", contender: "routes-100000", to: "routes-10", most: 1.3},
	{workload: "takers", figure: "median", contender: "takers-64", to: "direct-64", most: 2},
}

// errNotThere is of a bound whose figures were not measured, and need not have been.
var errNotThere = errors.New("not measured")

// check says for each bound how it was kept. It returns an error if one is broken, or if none could be checked.
// A workload or a contender that took no part is no fault; a figure that is missing of one that did is.
func check(w io.Writer, r *bench.Results) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "WORKLOAD\tFIGURE\tOF\tTO\tIS\tBOUND\t")
	var checked, broken int
	for _, b := range bounds {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t", b.workload, b.figure, b.contender, b.to)
		value, err := b.value(r)
		switch {
		case errors.Is(err, errNotThere):
			fmt.Fprintf(tw, "-\t%s\t%v\n", b.limit(), err)
			continue
		case err != nil:
			fmt.Fprintf(tw, "-\t%s\tBROKEN: %v\n", b.limit(), err)
			broken++
		case b.kept(value):
			fmt.Fprintf(tw, "%.2f\t%s\tkept\n", value, b.limit())
		default:
			fmt.Fprintf(tw, "%.2f\t%s\tBROKEN\n", value, b.limit())
			broken++
		}
		checked++
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if broken > 0 {
		return fmt.Errorf("%d of %d bounds are broken", broken, checked)
	}
	if checked == 0 {
		return errors.New("nothing of what has a bound was measured")
	}
	return nil
}

func (b bound) limit() string {
	if b.least > 0 {
		return fmt.Sprintf("≥ %g", b.least)
	}
	return fmt.Sprintf("≤ %g", b.most)
}

// kept is false for what is no number, as NaN is.
func (b bound) kept(value float64) bool {
	if b.least > 0 {
		return value >= b.least
	}
	return value <= b.most
}

func (b bound) value(r *bench.Results) (float64, error) {
	t := tableOf(r, b.workload)
	if t == nil {
		return 0, errNotThere
	}
	figure, err := b.of(r, t, b.contender)
	if err != nil {
		return 0, err
	}
	if b.to == "" {
		return figure.Value, nil
	}
	base, err := b.base(r, t)
	if err != nil {
		return 0, err
	}
	return roundsRatio(figure, base)
}

// roundsRatio is the median of the rounds' ratios, as the ratios in the results are.
func roundsRatio(f, base *bench.Figure) (float64, error) {
	if len(f.Rounds) != len(base.Rounds) {
		return 0, fmt.Errorf("%d rounds of one and %d of the other", len(f.Rounds), len(base.Rounds))
	}
	ratios := make([]float64, len(f.Rounds))
	for i := range ratios {
		ratios[i] = f.Rounds[i] / base.Rounds[i]
	}
	return bench.Median(ratios), nil
}

// base returns the figure that the ratio is to.
func (b bound) base(r *bench.Results, t *bench.Table) (*bench.Figure, error) {
	if b.to != bestProxy {
		return b.of(r, t, b.to)
	}
	var best *bench.Figure
	for _, name := range proxies {
		row := rowOf(t, name)
		if row == nil {
			continue
		}
		f, err := b.of(r, t, name)
		if err != nil {
			return nil, err
		}
		if best == nil || f.Better == "more" && f.Value > best.Value || f.Better == "less" && f.Value < best.Value {
			best = f
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: no proxy took part", errNotThere)
	}
	return best, nil
}

// of returns the contender's figure that has the bound.
func (b bound) of(r *bench.Results, t *bench.Table, contender string) (*bench.Figure, error) {
	row := rowOf(t, contender)
	if row == nil {
		if why := r.Skipped[contender]; why != "" {
			return nil, fmt.Errorf("%w: %s: %s", errNotThere, contender, why)
		}
		return nil, fmt.Errorf("%s is missing", contender)
	}
	f := figureOf(row, b.figure)
	if f == nil || len(f.Rounds) == 0 {
		return nil, fmt.Errorf("%s has no such figure", contender)
	}
	return f, nil
}
