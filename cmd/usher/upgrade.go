package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/door"
	"github.com/go-usher/usher/internal/systemd"
	"github.com/spf13/cobra"
)

// upgradeOptions are the flags of usher upgrade.
type upgradeOptions struct {
	config  string
	control string
	timeout time.Duration
}

func newUpgradeCommand() *cobra.Command {
	var o upgradeOptions
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace the running door by a new one, of this program and configuration, without a gap",
		Long: `Ask the running door to start its successor, with the program that is now where its own was and with the
arguments and the environment that it was started with itself, and wait until that serves in its place.
This cannot be done on Windows.

If the new door does not come up, as with a configuration that is wrong, the old one serves on, and the exit
code is 1. The door is found at its control endpoint: --control, else control of the configuration.`,
		Example: `  usher upgrade --config /etc/usher/usher.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.upgrade(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&o.config, "config", "c", "", "configuration `FILE` of the door")
	cmd.MarkFlagFilename("config", "yaml", "yml")
	cmd.Flags().StringVar(&o.control, "control", "", "control endpoint of the door, `NAME` or path, in the place of the configuration's")
	cmd.Flags().DurationVar(&o.timeout, "timeout", time.Minute, "for how long to wait")
	return cmd
}

func (o *upgradeOptions) upgrade(out io.Writer) error {
	path, wrong, err := controlPath(o.control, o.config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	pid, build, err := door.Upgrade(ctx, path, buildVersion())
	switch {
	case errors.Is(err, door.ErrNoDoor) && wrong != nil:
		return fmt.Errorf("%w; the configuration is wrong, so this may not be where the door is: --control says where; %w", err, wrong)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the door at %s has not answered within %v; its log says what becomes of the upgrade", path, o.timeout)
	case err != nil:
		return err
	}
	_, err = fmt.Fprintf(out, "process %d serves now, build %s\n", pid, build)
	return err
}

// controlPath returns where a door is found: by a flag, else by its configuration file, if it has one, and else where one
// without a file is. wrong is what is wrong with the file, which does not matter if that says where.
func controlPath(flag, file string) (path string, wrong, err error) {
	initial := config.Default()
	name, dir := initial.Control, initial.Endpoints.Dir
	if file != "" {
		name, dir, wrong = config.Control(file)
	}
	if flag != "" {
		name = flag
	}
	path, err = door.ControlPath(name, dir)
	return path, wrong, err
}

// takeOver tells the running door that this one is to serve in its place. It returns nil if this door is not to take over, or
// none runs.
func (s *server) takeOver(ctx context.Context) (*door.Predecessor, error) {
	if !s.takeover {
		return nil, nil
	}
	path, _, err := controlPath(s.control, s.path) // what is wrong with the file is told when it is loaded
	if err != nil {
		return nil, err
	}
	before, err := door.TakeOver(ctx, path, buildVersion())
	if errors.Is(err, door.ErrNoDoor) {
		s.alone, err = err, nil
	}
	return before, err
}

// successor is the command of the door that is to serve in the place of this one.
func (s *server) successor() *exec.Cmd {
	const takeover = "--takeover"
	args := slices.Clone(os.Args[1:])
	if !slices.Contains(args, takeover) {
		args = append(args, takeover)
	}
	cmd := exec.Command(s.program, args...)
	systemd.Successor(cmd)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

// program returns the path of this program as it was started, if it is that: os.Executable may have followed links, which
// lead to a newer version by the time of an upgrade.
func program() (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", err
	}
	called, err := exec.LookPath(os.Args[0])
	if err == nil {
		called, err = filepath.Abs(called)
	}
	if err != nil || !isSameFile(called, own) {
		return own, nil
	}
	return called, nil
}

func isSameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}
