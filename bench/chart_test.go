package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/go-usher/usher/internal/bench"
)

func draw(t *testing.T, r *bench.Results) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := chart(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// texts returns what is written in the elements of an SVG that have the class, and fails if it is no XML.
func texts(t *testing.T, svg []byte, class string) []string {
	t.Helper()
	var all []string
	wanted := false
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			wanted = false
			for _, a := range token.Attr {
				if a.Name.Local == "class" && slices.Contains(strings.Fields(a.Value), class) {
					wanted = true
				}
			}
		case xml.CharData:
			if wanted {
				all = append(all, string(token))
			}
		case xml.EndElement:
			wanted = false
		}
	}
}

func TestChartIsWhatItWas(t *testing.T) {
	svg := draw(t, sample(t))
	if again := draw(t, sample(t)); !bytes.Equal(svg, again) {
		t.Error("the same results gave two different charts")
	}
	golden(t, "chart.svg", svg)
}

func TestChartHasEveryContenderAndNumber(t *testing.T) {
	r := sample(t)
	svg := draw(t, r)
	labels, values := texts(t, svg, "label"), texts(t, svg, "value")
	if len(labels) != len(values) {
		t.Fatalf("%d labels and %d values", len(labels), len(values))
	}
	var want []string
	for _, p := range panels {
		table := tableOf(r, p.workload)
		if table == nil {
			t.Fatalf("the sample has no %s", p.workload)
		}
		for i := range table.Rows {
			row := &table.Rows[i]
			f := figureOf(row, p.figure)
			value := quantity(f.Value, f.Unit)
			if p.ratio && row.Baseline != "" {
				value = times(f.Ratio) + "× · " + value
			} else if p.ratio {
				value = "1.00× · " + value
			}
			want = append(want, row.Title+": "+value)
		}
	}
	var got []string
	for i := range labels {
		got = append(got, labels[i]+": "+values[i])
	}
	if !slices.Equal(got, want) {
		t.Errorf("the chart has\n%q\nwant\n%q", got, want)
	}
	notes := strings.Join(texts(t, svg, "note"), "\n")
	for _, s := range []string{"2 January 2026", "Sample <Processor> & Co", "Linux 0.0", "nginx 0.2", "usher v0.4.0", "envoy was not there"} {
		if !strings.Contains(notes, s) {
			t.Errorf("the chart does not say %q", s)
		}
	}
}

func TestChartOfSomeWorkloads(t *testing.T) {
	r := sample(t)
	r.Tables = r.Tables[1:2]
	if got, want := len(texts(t, draw(t, r), "value")), len(r.Tables[0].Rows); got != want {
		t.Errorf("%d bars; want %d", got, want)
	}
	r.Tables = nil
	if err := chart(io.Discard, r); err == nil {
		t.Error("a chart of nothing was drawn")
	}
}
