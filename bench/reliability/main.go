// Reliability does to a front door what operators do to one, under load, and counts what clients notice: see README.md
// in the folder above.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/go-usher/usher/bench/internal/processes"
)

const usage = `usage: go run ./reliability [flags]                        measure, print the table
       go run ./reliability write FILE.json PAGE.md        write the tables into a page
`

func main() {
	processes.Play(roles)
	flags := flag.NewFlagSet("reliability", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage, "\nflags:\n")
		flags.PrintDefaults()
	}
	var m measurement
	flags.StringVar(&m.only, "only", "", "measure `those` alone, with commas: contenders, disturbances, or contender/disturbance")
	flags.BoolVar(&m.short, "short", false, "usher alone, and little of everything; exit 1 if a client noticed anything")
	flags.StringVar(&m.json, "json", "", "write the results to `FILE`")
	flags.StringVar(&m.usher, "usher", "", "the `PROGRAM` to measure, in place of what the folder above is compiled to")
	flags.Parse(os.Args[1:])

	if err := run(&m, flags.Args()); err != nil {
		processes.Fatal(err)
	}
}

// measurement is a run as the flags have it.
type measurement struct {
	only, json, usher string
	short             bool
}

func run(m *measurement, args []string) error {
	switch {
	case len(args) == 0:
		return m.run()
	case args[0] == "write" && len(args) == 3:
		r, err := readResults(args[1])
		if err != nil {
			return err
		}
		return r.writePage(args[2])
	}
	return fmt.Errorf("%q is not a command with its files\n%s", strings.Join(args, " "), usage)
}
