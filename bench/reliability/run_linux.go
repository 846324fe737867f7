package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-usher/usher/bench/internal/processes"
	"github.com/go-usher/usher/internal/bench"
)

// rivals are the configurations of all contenders, each with the reasons for its settings.
//
//go:embed rivals
var rivals embed.FS

var roles = map[string]func(args []string) error{
	"backend":   playBackend,
	"activated": playActivated,
}

var contenders = []contender{theUsher, usherProxy, haproxy, nginx}

func (m *measurement) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	chosen, err := m.chosen()
	if err != nil {
		return err
	}
	p, err := processes.NewPlace()
	if err != nil {
		return err
	}
	defer p.Close()
	if m.usher != "" {
		p.CompiledUsher = func() (string, error) { return filepath.Abs(m.usher) }
	}
	r, err := m.measure(ctx, p, chosen)
	if err != nil {
		return err
	}
	if err := r.writeTables(os.Stdout); err != nil {
		return err
	}
	if m.json != "" {
		if err := r.write(m.json); err != nil {
			return err
		}
	}
	if m.short {
		return r.check()
	}
	return nil
}

// chosen returns those contenders that take part, each with those disturbances that do.
func (m *measurement) chosen() ([]contender, error) {
	all := contenders
	if m.short && m.only == "" {
		all = all[:2] // both of usher
	}
	if m.only == "" {
		return all, nil
	}
	wanted := strings.Split(m.only, ",")
	found := make(map[string]bool)
	var chosen []contender
	for _, c := range all {
		var some []disturbance
		for _, d := range c.disturbances {
			names := []string{c.name, d.name, c.name + "/" + d.name}
			if slices.ContainsFunc(names, func(name string) bool { return slices.Contains(wanted, name) }) {
				some = append(some, d)
			}
			for _, name := range names {
				found[name] = true
			}
		}
		if len(some) > 0 {
			c.disturbances = some
			chosen = append(chosen, c)
		}
	}
	for _, name := range wanted {
		if !found[name] {
			return nil, fmt.Errorf("there is no contender and no disturbance %q", name)
		}
	}
	return chosen, nil
}

// measure takes the contenders one after the other, and all that is done to each.
func (m *measurement) measure(ctx context.Context, p *processes.Place, chosen []contender) (*Results, error) {
	s := whole
	if m.short {
		s = brief
	}
	r := &Results{
		Version: resultsVersion, Date: time.Now().UTC().Truncate(time.Second), Command: m.String(),
		Machine: bench.ThisMachine(), Versions: versions(chosen), Skipped: make(map[string]string),
		Rate: s.rate, Kept: s.kept, Downloads: s.downloads,
	}
	if m.usher != "" {
		r.Versions["usher"] = m.usher
	}
	for _, c := range chosen {
		for _, d := range c.disturbances {
			fmt.Fprintf(os.Stderr, "%s: %s\n", c.title, d.title)
			row, err := s.measure(ctx, p, c, d)
			if errors.Is(err, bench.ErrAbsent) {
				r.Skipped[c.name] = err.Error()
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", c.title, d.title, err)
			}
			r.Rows = append(r.Rows, *row)
		}
	}
	return r, nil
}

// versions returns those of the contenders.
func versions(chosen []contender) map[string]string {
	all := processes.Versions(map[string]string{"github.com/tsenart/vegeta/v12": "vegeta"})
	for name := range all {
		is := func(c contender) bool { return c.name == name }
		if name != "go" && name != "vegeta" && !slices.ContainsFunc(chosen, is) {
			delete(all, name)
		}
	}
	return all
}

// String is the command that makes such a run again.
func (m *measurement) String() string {
	s := "go run ./reliability"
	if m.only != "" {
		s += " -only " + m.only
	}
	if m.short {
		s += " -short"
	}
	return s
}
