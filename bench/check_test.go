package main

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/go-usher/usher/internal/bench"
)

// set gives a figure the value in all rounds.
func set(t *testing.T, r *bench.Results, workload, contender, figure string, value float64) {
	t.Helper()
	f := figureOf(rowOf(tableOf(r, workload), contender), figure)
	f.Value = value
	for i := range f.Rounds {
		f.Rounds[i] = value
	}
}

func remove(r *bench.Results, workload, contender string) {
	t := tableOf(r, workload)
	t.Rows = slices.DeleteFunc(t.Rows, func(row bench.Row) bool { return row.Contender == contender })
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*testing.T, *bench.Results)
		broken string // what the error says; empty if all is well
		says   string // in the table
	}{
		{
			name:   "all bounds are kept",
			change: func(*testing.T, *bench.Results) {},
			says:   "usher          best proxy",
		},
		{
			name:   "connecting takes too long",
			change: func(t *testing.T, r *bench.Results) { set(t, r, "connect", "usher", "median", 500) },
			broken: "2 of", says: "BROKEN",
		},
		{
			name:   "too few requests",
			change: func(t *testing.T, r *bench.Results) { set(t, r, "keepalive", "usher", "rate", 40000) },
			broken: "1 of", says: "BROKEN",
		},
		{
			name:   "a proxy of others is much faster",
			change: func(t *testing.T, r *bench.Results) { set(t, r, "saturation", "nginx-http", "rate", 30000) },
			broken: "1 of", says: "BROKEN",
		},
		{
			name:   "idle connections cost memory",
			change: func(t *testing.T, r *bench.Results) { set(t, r, "idle", "usher", "memory", 4096) },
			broken: "1 of", says: "4096.00",
		},
		{
			name:   "many routes cost time",
			change: func(t *testing.T, r *bench.Results) { set(t, r, "routes", "routes-100000", "median", 200) },
			broken: "1 of", says: "BROKEN",
		},
		{
			name: "figures that are 0 are no figures",
			change: func(t *testing.T, r *bench.Results) {
				set(t, r, "tls", "usher", "median", 0)
				set(t, r, "tls", "direct", "median", 0)
			},
			broken: "1 of", says: "NaN",
		},
		{
			name: "a floor without a C compiler is not measured",
			change: func(_ *testing.T, r *bench.Results) {
				remove(r, "connect", "c-giver")
				r.Skipped["c-giver"] = "there is no C compiler"
			},
			says: "there is no C compiler",
		},
		{
			name:   "a floor that is missing for no reason is a fault",
			change: func(_ *testing.T, r *bench.Results) { remove(r, "connect", "c-giver") },
			broken: "1 of", says: "c-giver is missing",
		},
		{
			name:   "so is usher",
			change: func(_ *testing.T, r *bench.Results) { remove(r, "bulk", "usher") },
			broken: "2 of", says: "usher is missing",
		},
		{
			name: "no proxies were there",
			change: func(_ *testing.T, r *bench.Results) {
				for _, name := range proxies {
					remove(r, "saturation", name)
				}
			},
			says: "no proxy took part",
		},
		{
			name: "a figure is missing",
			change: func(_ *testing.T, r *bench.Results) {
				rowOf(tableOf(r, "keepalive"), "direct").Figures = nil
			},
			broken: "1 of", says: "direct has no such figure",
		},
		{
			name: "rounds are missing",
			change: func(_ *testing.T, r *bench.Results) {
				f := figureOf(rowOf(tableOf(r, "tls"), "direct"), "median")
				f.Rounds = f.Rounds[:1]
			},
			broken: "1 of", says: "3 rounds of one and 1 of the other",
		},
		{
			name:   "one workload alone",
			change: func(_ *testing.T, r *bench.Results) { r.Tables = r.Tables[:1] },
			says:   "not measured",
		},
		{
			name:   "nothing at all",
			change: func(_ *testing.T, r *bench.Results) { r.Tables = nil },
			broken: "nothing of what has a bound was measured", says: "not measured",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := sample(t)
			test.change(t, r)
			var said bytes.Buffer
			err := check(&said, r)
			if test.broken == "" && err != nil {
				t.Errorf("%v\n%s", err, &said)
			}
			if test.broken != "" && (err == nil || !strings.Contains(err.Error(), test.broken)) {
				t.Errorf("the error is %v; want %q\n%s", err, test.broken, &said)
			}
			if !strings.Contains(said.String(), test.says) {
				t.Errorf("it does not say %q:\n%s", test.says, &said)
			}
		})
	}
}

// A bound on a figure that no run has would be kept for ever.
func TestBoundsAreOnWhatIsMeasured(t *testing.T) {
	r := sample(t)
	for _, b := range bounds {
		if _, err := b.value(r); err != nil {
			t.Errorf("%+v: %v", b, err)
		}
		if (b.most > 0) == (b.least > 0) {
			t.Errorf("%+v: one of most and least", b)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Run("a run and itself", func(t *testing.T) {
		var b bytes.Buffer
		if err := compare(&b, sample(t), sample(t)); err != nil {
			t.Fatal(err)
		}
		if want := "the largest difference is 0.0 %"; !strings.Contains(b.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &b)
		}
		if got, want := strings.Count(b.String(), "0.0 %"), len(ratios(sample(t)))+1; got < want {
			t.Errorf("%d lines of ratios; want %d", got, want)
		}
	})
	t.Run("what differs most comes first, whichever is larger", func(t *testing.T) {
		a, other := sample(t), sample(t)
		figureOf(rowOf(tableOf(a, "connect"), "nginx-http"), "median").Ratio = 1
		figureOf(rowOf(tableOf(other, "connect"), "nginx-http"), "median").Ratio = 1.1
		figureOf(rowOf(tableOf(a, "tls"), "usher"), "p99").Ratio = 1.5
		figureOf(rowOf(tableOf(other, "tls"), "usher"), "p99").Ratio = 1
		remove(other, "bulk", "tcpproxy")
		var b bytes.Buffer
		if err := compare(&b, a, other); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"the largest difference is 50.0 %: tls, usher, p99\n",
			"the largest of those that are no 99th percentile is 10.0 %: connect, nginx-http, median\n",
			"only one of them has bulk, tcpproxy, cpu\n",
		} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("it does not say %q:\n%s", want, &b)
			}
		}
		if lines := strings.Split(b.String(), "\n"); !strings.HasPrefix(lines[1], "tls ") || !strings.HasPrefix(lines[2], "connect ") {
			t.Errorf("not in the order of the differences:\n%s", &b)
		}
	})
	t.Run("nothing in common", func(t *testing.T) {
		a, b := sample(t), sample(t)
		a.Tables, b.Tables = a.Tables[:1], b.Tables[1:2]
		if err := compare(io.Discard, a, b); err == nil {
			t.Error("no error")
		}
	})
}
