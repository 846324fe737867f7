package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/go-usher/usher/internal/config"
	"github.com/spf13/cobra"
)

// checkOptions are the flags of usher check.
type checkOptions struct {
	config string
	json   bool
	schema bool
}

func newCheckCommand() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what is wrong with a configuration file",
		Long: `Check reads a configuration file as serve does, and says what is wrong with it, with line and column.

It also warns of users and groups that this machine does not know, and of what has no effect. The exit code
is 0 when there is nothing but warnings, else 1.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("the file goes with --config: usher check --config %s", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.schema {
				return printSchema(cmd.OutOrStdout())
			}
			return o.check(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVarP(&o.config, "config", "c", "usher.yaml", "configuration `FILE`")
	cmd.MarkFlagFilename("config", "yaml", "yml")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the result as JSON")
	cmd.Flags().BoolVar(&o.schema, "schema", false, "print the JSON Schema of configuration files, and check none")
	cmd.MarkFlagsMutuallyExclusive("json", "schema")
	return cmd
}

func printSchema(out io.Writer) error {
	schema, err := config.Schema()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", schema)
	return err
}

// check returns an error, after it has told of what is wrong with the file, if that is anything.
func (o *checkOptions) check(out, errOut io.Writer) error {
	c, warnings, err := config.Check(o.config)
	var wrong config.Errors
	if err != nil && !errors.As(err, &wrong) {
		return err
	}
	if o.json {
		if err := printResult(out, o.config, wrong, warnings); err != nil {
			return err
		}
	} else {
		complainOf(errOut, "", wrong)
		complainOf(errOut, "warning: ", warnings)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s is not valid: %s", o.config, counted(len(wrong), "error"))
	}
	if !o.json {
		_, err = fmt.Fprintf(out, "%s: ok, %s, %s\n", o.config, counted(len(c.Listeners), "listener"), counted(len(c.Routes), "route"))
	}
	return err
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// complainOf tells of each error, with the line that it is in, as compilers do.
func complainOf(out io.Writer, severity string, errs config.Errors) {
	for _, e := range errs {
		told := *e
		told.Msg = severity + e.Msg // not in front of the file's name, where tools look for that
		fmt.Fprintf(out, "%v\n%s", &told, told.Excerpt())
	}
}

// result is what --json prints. Its names are a public contract.
type result struct {
	File     string        `json:"file"`
	OK       bool          `json:"ok"`
	Errors   config.Errors `json:"errors"`
	Warnings config.Errors `json:"warnings"`
}

func printResult(out io.Writer, file string, wrong, warnings config.Errors) error {
	r := result{File: file, OK: len(wrong) == 0, Errors: wrong, Warnings: warnings}
	if r.Errors == nil {
		r.Errors = config.Errors{} // [] rather than null
	}
	if r.Warnings == nil {
		r.Warnings = config.Errors{}
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
