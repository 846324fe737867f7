package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/go-usher/usher/internal/config"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newManCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "man --dir FOLDER",
		Short: "Write the man pages",
		Long: `Write the man pages, one for each command and usher.yaml(5), into a folder as man(1) wants it: with
a folder for each section.

Their date is that of SOURCE_DATE_EPOCH if that is set, else that of the commit which the program was built
from: the same program writes the same pages.`,
		Example: `  usher man --dir /usr/local/share/man`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return writeManPages(cmd.Root(), dir)
		},

		DisableFlagsInUseLine: true,
	}
	cmd.Flags().StringVar(&dir, "dir", "", "write them into `FOLDER`, which is made if it is not there")
	cmd.MarkFlagRequired("dir")
	cmd.MarkFlagDirname("dir")
	return cmd
}

func writeManPages(root *cobra.Command, dir string) error {
	info, _ := debug.ReadBuildInfo()
	date, err := manDate(info)
	if err != nil {
		return err
	}
	footer := manFooter{Date: date.Format(time.DateOnly), Source: "usher " + moduleVersion(info)}
	if err := writeCommandPages(root, dir, footer); err != nil {
		return err
	}
	return writeManPage(dir, "usher.yaml", "5", "config", configPage{footer})
}

// manDate is what makes pages reproducible. A program that does not know its commit, as one that "go install"
// built, has today.
func manDate(info *debug.BuildInfo) (time.Time, error) {
	// https://reproducible-builds.org/specs/source-date-epoch/
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q, which is not a number of seconds", epoch)
		}
		return time.Unix(seconds, 0).UTC(), nil
	}
	if info != nil {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				return time.Parse(time.RFC3339, s.Value)
			}
		}
	}
	return time.Now().UTC(), nil
}

// writeCommandPages writes the page of a command and those of the commands below it.
func writeCommandPages(cmd *cobra.Command, dir string, footer manFooter) error {
	cmd.InitDefaultHelpFlag()
	page := commandPage{cmd, footer}
	for _, c := range page.Commands() {
		if err := writeCommandPages(c, dir, footer); err != nil {
			return err
		}
	}
	return writeManPage(dir, page.Name(), "1", "command", page)
}

// writeManPage makes roff of the Markdown that the template of a kind makes of a page.
func writeManPage(dir, name, section, kind string, page any) error {
	var markdown bytes.Buffer
	if err := manTemplates.ExecuteTemplate(&markdown, kind, page); err != nil {
		return err
	}
	dir = filepath.Join(dir, "man"+section)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+"."+section), md2man.Render(markdown.Bytes()), 0o644)
}

//go:embed man.md.tmpl
var manTemplate string

var manTemplates = template.Must(template.New("man").Parse(manTemplate))

// manFooter is what stands at the foot of each page.
type manFooter struct{ Date, Source string }

// commandPage is what the template needs of a command.
type commandPage struct {
	*cobra.Command
	manFooter
}

func (p commandPage) Name() string { return manName(p.Command) }

func (p commandPage) ParentName() string { return manName(p.Parent()) }

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func (p commandPage) Commands() []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(p.Command.Commands()), func(c *cobra.Command) bool { return !c.IsAvailableCommand() })
}

// Takes says whether the command has a flag of this name.
func (p commandPage) Takes(flag string) bool { return p.Flags().Lookup(flag) != nil }

// manFlag is a flag as a page has it: its value stands as a word beside it.
type manFlag struct{ Shorthand, Name, Value, Usage, Default string }

func (p commandPage) Options() []manFlag {
	var options []manFlag
	p.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		o := manFlag{Shorthand: f.Shorthand, Name: f.Name, Value: value, Usage: usage}
		if !slices.Contains([]string{"", "false", "0", "[]"}, f.DefValue) {
			o.Default = f.DefValue
		}
		options = append(options, o)
	})
	return options
}

type configPage struct{ manFooter }

var markdownLink = regexp.MustCompile(`\[(\w+)\]\(#\w+\)`)

// Reference has no links: there is nothing to follow them with.
func (configPage) Reference() string { return markdownLink.ReplaceAllString(config.Reference(), "$1") }
