package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-usher/usher/bench/internal/processes"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	processes.Play(roles) // the contenders' processes are this program
	os.Exit(m.Run())
}

// sample returns the results in testdata, which nobody has measured.
func sample(t *testing.T) *Results {
	t.Helper()
	r, err := readResults(filepath.Join("testdata", "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTables(t *testing.T) {
	var got bytes.Buffer
	if err := sample(t).writeTables(&got); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "tables.md")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("not what is in %s; look at the difference after -update. It is now\n%s", path, got.Bytes())
	}
}

func TestTablesOfNothing(t *testing.T) {
	if err := new(Results).writeTables(new(bytes.Buffer)); err == nil {
		t.Error("no error")
	}
}

func TestWhatIsWrittenByHandStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	const before, after = "# Reliability\n\nWords.\n\n", "\nMore words.\n"
	if err := os.WriteFile(path, []byte(before+pageStart+"old tables\n"+pageEnd+after), 0o600); err != nil {
		t.Fatal(err)
	}
	var tables bytes.Buffer
	if err := sample(t).writeTables(&tables); err != nil {
		t.Fatal(err)
	}
	want := before + pageStart + "\n" + tables.String() + "\n" + pageEnd + after
	for range 2 { // the second time changes nothing
		if err := run(new(measurement), []string{"write", filepath.Join("testdata", "results.json"), path}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Fatalf("the page is\n%s\nwant\n%s", got, want)
		}
	}
}

func TestPagesThatAreNotWritten(t *testing.T) {
	r := sample(t)
	for name, text := range map[string]string{
		"without marks":              "# Reliability\n",
		"whose end is not marked":    pageStart + "tables\n",
		"whose end is before it":     pageEnd + pageStart,
		"whose marks are in a line":  "see " + strings.TrimSpace(pageStart) + " and " + pageEnd,
		"whose beginning is missing": pageEnd,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "page.md")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := r.writePage(path); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("the error is %v; want one that names the file", err)
			}
			if got, err := os.ReadFile(path); string(got) != text {
				t.Errorf("it is now %q, %v", got, err)
			}
		})
	}
}

func TestResultsThatCannotBeRead(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":                "failed: 0",
		"JSON cut off":           `{"version": 1, "rows": [`,
		"of another version":     `{"version": 2}`,
		"JSON of something else": `{"name": "usher"}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "results.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := run(new(measurement), []string{"write", path, path + ".md"}); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("the error is %v; want one that names the file", err)
			}
		})
	}
}

func TestResultsAreReadAsTheyWereWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	if err := sample(t).write(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what was read, but\n%s", path, got)
	}
}

func TestCommandsThatAreNone(t *testing.T) {
	for _, args := range [][]string{{"write"}, {"write", "a.json"}, {"write", "a.json", "b.md", "c"}, {"measure"}} {
		if err := run(new(measurement), args); err == nil || !strings.Contains(err.Error(), "usage:") {
			t.Errorf("%q: the error is %v; want one that shows the usage", args, err)
		}
	}
}

func TestCheck(t *testing.T) {
	row := func(disturbance string, before, during, broken int) Row {
		return Row{
			Title: disturbance, Disturbance: disturbance, Broken: broken,
			Before: Phase{Kinds: []Figure{{Failed: before}}},
			During: Phase{Kinds: []Figure{{}, {Failed: during}}},
		}
	}
	for _, test := range []struct {
		name  string
		row   Row
		wrong bool
	}{
		{name: "nothing was noticed", row: row("upgrade", 0, 0, 0)},
		{name: "a request failed", row: row("upgrade", 0, 1, 0), wrong: true},
		{name: "a request failed before anything was done", row: row("upgrade", 1, 0, 0), wrong: true},
		{name: "a download broke", row: row("upgrade", 0, 0, 1), wrong: true},
		{name: "a killed door may lose one", row: row("kill", 0, 1, 0)},
		{name: "but not two", row: row("kill", 0, 2, 0), wrong: true},
		{name: "nor one before it is killed", row: row("kill", 1, 0, 0), wrong: true},
		{name: "nor a download", row: row("kill", 0, 0, 1), wrong: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := Results{Rows: []Row{row("reload", 0, 0, 0), test.row}}
			err := r.check()
			if (err != nil) != test.wrong {
				t.Fatalf("the error is %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), test.row.Title) {
				t.Errorf("the error is %v; want one that says what was done", err)
			}
		})
	}
}
