// Usher hands live connections to the processes that should serve them.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code, so that what was deferred has run when main ends the process.
func run(args []string) int {
	root := newRootCommand()
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		complain(err)
		return 1
	}
	return 0
}

// complain says on stderr what went wrong, as every part of this program does.
func complain(err error) { fmt.Fprintln(os.Stderr, "usher:", err) }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "usher",
		Short:         "Hand live connections to the processes that should serve them",
		SilenceErrors: true, // run says it, on stderr and in our own words
		SilenceUsage:  true,
	}
	root.SetOut(os.Stdout)
	root.Version = buildVersion()
	root.SetVersionTemplate("usher {{.Version}}\n")
	root.AddCommand(newServeCommand(), newUpgradeCommand())
	root.AddCommand(newVersionCommand(), newDemoCommand(), newDemoBackendCommand())
	root.AddCommand(newCheckCommand())
	root.AddCommand(newManCommand())
	root.AddCommand(newStatusCommand())
	root.AddCommand(newBenchCommand(), newBenchBackendCommand())
	return root
}
