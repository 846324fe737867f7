// Bench measures usher beside its rivals: see README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

const usage = `usage: go run . [flags]                      measure, print tables
       go run . chart FILE.json OUT.svg      draw the chart of the README
       go run . table FILE.json              print the tables as Markdown
       go run . compare A.json B.json        how much two runs differ
       go run . check FILE.json              hold ratios to their bounds; exit 1 if one is broken
`

func main() {
	processes.Play(roles)
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage, "\nflags:\n")
		flags.PrintDefaults()
	}
	var m measurement
	flags.IntVar(&m.rounds, "rounds", 0, "rounds of each workload, in place of its own `number`")
	flags.StringVar(&m.only, "only", "", "`workloads` to run, with commas: "+strings.Join(workloadNames(), ", "))
	flags.StringVar(&m.contenders, "contenders", "", "`names` of contenders to measure, with commas, in place of all; not for routes and takers")
	flags.BoolVar(&m.short, "short", false, "a little of everything: whether it works; the figures are rough")
	flags.StringVar(&m.json, "json", "", "write the results to `FILE`")
	flags.Parse(os.Args[1:])

	if err := run(&m, flags.Args()); err != nil {
		processes.Fatal(err)
	}
}

func run(m *measurement, args []string) error {
	if len(args) == 0 {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return m.run(ctx)
	}
	files := args[1:]
	switch {
	case args[0] == "chart" && len(files) == 2:
		return onResults(files[0], func(r *bench.Results) error { return writeFile(files[1], r, chart) })
	case args[0] == "table" && len(files) == 1:
		return onResults(files[0], func(r *bench.Results) error { return markdown(os.Stdout, r) })
	case args[0] == "check" && len(files) == 1:
		return onResults(files[0], func(r *bench.Results) error { return check(os.Stdout, r) })
	case args[0] == "compare" && len(files) == 2:
		return onResults(files[0], func(a *bench.Results) error {
			return onResults(files[1], func(b *bench.Results) error { return compare(os.Stdout, a, b) })
		})
	}
	return fmt.Errorf("%q is not a command with its files\n%s", strings.Join(args, " "), usage)
}

// measurement is a run as the flags have it.
type measurement struct {
	rounds                 int
	only, contenders, json string
	short                  bool
}

// workload is one of bench's, or connect with other contenders.
type workload struct {
	bench.Workload
	contenders func(*place) []bench.Contender
}

func workloads() []workload {
	var all []workload
	var connect bench.Workload
	for _, w := range bench.Workloads() {
		if w.Name == "connect" {
			connect = w
		}
		all = append(all, workload{w, (*place).contenders})
	}
	routes, takers := connect, connect
	routes.Name, routes.Title, routes.Rounds = "routes", "connect, request, close: doors with more and more routes", 9
	takers.Name, takers.Title, takers.Rounds = "takers", "connect, request, close: doors with more and more takers", 9
	return append(all, workload{routes, (*place).routeDoors}, workload{takers, (*place).takerDoors})
}

func workloadNames() []string {
	var names []string
	for _, w := range workloads() {
		names = append(names, w.Name)
	}
	return names
}

func (m *measurement) run(ctx context.Context) error {
	chosen, err := m.chosenWorkloads()
	if err != nil {
		return err
	}
	p, err := newPlace()
	if err != nil {
		return err
	}
	defer p.Close()
	results, err := m.measure(ctx, p, chosen)
	if err != nil {
		return err
	}
	if err := results.WriteTable(os.Stdout); err != nil {
		return err
	}
	if m.json == "" {
		return nil
	}
	return writeFile(m.json, results, func(w io.Writer, r *bench.Results) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "\t")
		return e.Encode(r)
	})
}

// measure runs the workloads one after the other, and puts their tables together.
func (m *measurement) measure(ctx context.Context, p *place, chosen []workload) (*bench.Results, error) {
	var all *bench.Results
	for _, w := range chosen {
		contenders, err := m.chosenContenders(w.contenders(p), w.Name)
		if err != nil {
			return nil, err
		}
		r, err := bench.Run(ctx, bench.Options{
			Contenders: contenders,
			Workloads:  []bench.Workload{w.Workload},
			Rounds:     m.rounds,
			Short:      m.short,
			Log:        func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
		})
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = r
			continue
		}
		all.Tables = append(all.Tables, r.Tables...)
		maps.Copy(all.Skipped, r.Skipped)
	}
	all.Command = m.String()
	maps.Copy(all.Versions, processes.Versions(map[string]string{"github.com/inetaf/tcpproxy": "tcpproxy"}))
	return all, nil
}

func (m *measurement) chosenWorkloads() ([]workload, error) {
	return choose(workloads(), func(w workload) string { return w.Name }, m.only)
}

func (m *measurement) chosenContenders(all []bench.Contender, workload string) ([]bench.Contender, error) {
	if workload == "routes" || workload == "takers" {
		return all, nil
	}
	return choose(all, func(c bench.Contender) string { return c.Name }, m.contenders)
}

// choose returns those of all whose names are in the list, or all if it is empty. Their order stays.
func choose[T any](all []T, name func(T) string, list string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	wanted := strings.Split(list, ",")
	var chosen []T
	for _, x := range all {
		if slices.Contains(wanted, name(x)) {
			chosen = append(chosen, x)
		}
	}
	for _, w := range wanted {
		if !slices.ContainsFunc(all, func(x T) bool { return name(x) == w }) {
			return nil, fmt.Errorf("there is no %q", w)
		}
	}
	return chosen, nil
}

// String is the command that makes such a run again.
func (m *measurement) String() string {
	s := "go run ."
	if m.rounds > 0 {
		s += fmt.Sprintf(" -rounds %d", m.rounds)
	}
	if m.only != "" {
		s += " -only " + m.only
	}
	if m.contenders != "" {
		s += " -contenders " + m.contenders
	}
	if m.short {
		s += " -short"
	}
	return s
}

// onResults reads a file of results and does something with them.
func onResults(path string, do func(*bench.Results) error) error {
	r, err := read(path)
	if err != nil {
		return err
	}
	return do(r)
}

func read(path string) (*bench.Results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r bench.Results
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Version != bench.ResultsVersion {
		return nil, fmt.Errorf("%s: results of version %d; this program reads version %d", path, r.Version, bench.ResultsVersion)
	}
	return &r, nil
}

// writeFile writes results to a file in some form.
func writeFile(path string, r *bench.Results, write func(io.Writer, *bench.Results) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f, r), f.Close())
}
