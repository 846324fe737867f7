package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	processes.Play(roles) // the contenders' processes are this program
	os.Exit(m.Run())
}

// sample returns the results in testdata, which nobody has measured.
func sample(t *testing.T) *bench.Results {
	t.Helper()
	r, err := read(filepath.Join("testdata", "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("not what is in %s; look at the difference after -update. It is now\n%s", path, got)
	}
}

func TestResultsThatCannotBeRead(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":                "median: 1.2",
		"JSON cut off":           `{"version": 1, "tables": [`,
		"of another version":     `{"version": 2}`,
		"JSON of something else": `{"name": "usher"}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "results.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"check", path}, {"table", path}, {"chart", path, path + ".svg"}, {"compare", path, path}} {
				if err := run(new(measurement), args); err == nil || !strings.Contains(err.Error(), path) {
					t.Errorf("%s: the error is %v; want one that names the file", args[0], err)
				}
			}
			if _, err := os.Stat(path + ".svg"); err == nil {
				t.Error("a chart was made of it")
			}
		})
	}
}

func TestCommandsThatAreNone(t *testing.T) {
	for _, args := range [][]string{{"chart"}, {"chart", "a.json"}, {"check"}, {"compare", "a.json"}, {"measure"}} {
		if err := run(new(measurement), args); err == nil || !strings.Contains(err.Error(), "usage:") {
			t.Errorf("%q: the error is %v; want one that shows the usage", args, err)
		}
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := markdown(&b, sample(t)); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.md", b.Bytes())
}

func TestQuantities(t *testing.T) {
	for _, test := range []struct {
		value float64
		unit  string
		want  string
	}{
		{0, "B", "0 B"},
		{-0.2, "B", "0 B"},
		{-1234, "B", "-1.2 kB"},
		{-40, "B", "-40 B"},
		{999, "B", "999 B"},
		{15834.2, "B", "15.8 kB"},
		{1234567.4, "1/s", "1,234,567/s"},
		{999.6, "1/s", "1,000/s"},
		{3.14159, "µs", "3.14 µs"},
		{31.4159, "µs", "31.4 µs"},
		{314.159, "µs", "314 µs"},
		{0.2, "s/GB", "0.20 s/GB"},
		{10000, "", "10,000"},
	} {
		if got := quantity(test.value, test.unit); got != test.want {
			t.Errorf("%v in %q is %q; want %q", test.value, test.unit, got, test.want)
		}
	}
}

func TestChoose(t *testing.T) {
	all := []string{"a", "b", "c"}
	self := func(s string) string { return s }
	for _, test := range []struct {
		name, list, want string
		wrong            bool
	}{
		{name: "an empty list chooses all", list: "", want: "abc"},
		{name: "their order stays", list: "c,a", want: "ac"},
		{name: "one that is not there", list: "a,d", wrong: true},
		{name: "an empty name", list: "a,", wrong: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := choose(all, self, test.list)
			if (err != nil) != test.wrong {
				t.Fatalf("the error is %v", err)
			}
			if err == nil && strings.Join(got, "") != test.want {
				t.Errorf("chose %q; want %q", got, test.want)
			}
		})
	}
}
