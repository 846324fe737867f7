package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/go-usher/usher/internal/bench"
	"github.com/spf13/cobra"
)

func newBenchCommand() *cobra.Command {
	var b benchmark
	names := strings.Join(workloadNames(), ", ")
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure on this machine what a front door costs",
		Long: `Measure on this machine what a front door costs: direct connections to a backend, connections that the
door hands over to it, and connections that the door proxies.

Door and backend are processes of this program, on free ports of the loopback address, and the door
writes no access log. They are started anew for each round, and measured in turn, a little of each at a
time, so that what else goes on here disturbs all alike. Every answer is checked.

It takes about half a minute. The workloads are ` + names + `.`,
		Example: `  usher bench
  usher bench --only connect,tls --rounds 15
  usher bench --json > results.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("rounds") && b.rounds < 1 {
				return fmt.Errorf("--rounds must be at least 1, not %d", b.rounds)
			}
			return b.run(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVar(&b.json, "json", false, "print JSON, with the values of each round")
	cmd.Flags().IntVar(&b.rounds, "rounds", 0, "measure each workload in `N` rounds (default 3, and 1 for idle); more are steadier")
	cmd.Flags().StringSliceVar(&b.only, "only", nil, "only these `WORKLOADS`, separated by commas")
	cmd.Flags().BoolVar(&b.short, "short", false, "a few seconds in all: that it works, and rough figures")
	return cmd
}

// benchmark is what the user has asked for.
type benchmark struct {
	json   bool
	rounds int // 0: quickRounds
	only   []string
	short  bool
}

// quickRounds are enough to see what is what in half a minute. Memory hardly differs from one round to the next.
func quickRounds(workload string) int {
	if workload == "idle" {
		return 1
	}
	return 3
}

func workloadNames() []string {
	var names []string
	for _, w := range bench.Workloads() {
		names = append(names, w.Name)
	}
	return names
}

// workloads returns those that --only names, in the order that it has them.
func (b *benchmark) workloads() ([]bench.Workload, error) {
	all := bench.Workloads()
	for i := range all {
		all[i].Rounds = quickRounds(all[i].Name)
	}
	if len(b.only) == 0 {
		return all, nil
	}
	byName := make(map[string]bench.Workload)
	for _, w := range all {
		byName[w.Name] = w
	}
	var some []bench.Workload
	for _, name := range b.only {
		w, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("--only: there is no workload %q; there are %s", name, strings.Join(workloadNames(), ", "))
		}
		some = append(some, w)
	}
	return some, nil
}

func (b *benchmark) run(out, progress io.Writer) error {
	workloads, err := b.workloads()
	if err != nil {
		return err
	}
	// SIGHUP too: the door takes it for a wish to reload and would stay.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	results, err := bench.Run(ctx, bench.Options{
		Contenders: benchContenders(),
		Workloads:  workloads,
		Rounds:     b.rounds,
		Short:      b.short,
		Log:        func(format string, args ...any) { fmt.Fprintf(progress, format+"\n", args...) },
	})
	if ctx.Err() != nil {
		return errors.New("interrupted before all was measured")
	}
	if err != nil {
		return err
	}
	results.Command = strings.Join(append([]string{"usher"}, os.Args[1:]...), " ")
	results.Versions["usher"] = buildVersion()
	if b.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(results)
	}
	if err := results.WriteTable(out); err != nil {
		return err
	}
	_, err = io.WriteString(out, whatItMeans)
	return err
}

const whatItMeans = `
Each figure is the median of its rounds. A ratio is to direct, likewise the median of the rounds': what
disturbs the machine disturbs both in the same round. Clients, door and backend share the cores of this
machine, so a figure is lower than on machines of their own, and ratios say more than times.
`

// benchContenders are what this program can do alone.
func benchContenders() []bench.Contender {
	return []bench.Contender{
		{Name: "direct", Title: "direct", Start: startDirect},
		{Name: "usher", Title: "handed over", Baseline: "direct", Start: startHandingOver},
		{Name: "usher-proxy", Title: "proxied", Baseline: "direct", Start: startProxying},
	}
}
