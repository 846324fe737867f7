package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/spf13/cobra"
)

// manPages writes all pages and returns their text by their name, as "man1/usher.1".
func manPages(t *testing.T, dir string) map[string]string {
	t.Helper()
	root := newRootCommand()
	root.SetArgs([]string{"man", "--dir", dir})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	pages := make(map[string]string)
	files, err := filepath.Glob(filepath.Join(dir, "man*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(dir, f)
		pages[filepath.ToSlash(name)] = string(text)
	}
	return pages
}

func TestEachCommandThatPeopleUseHasAManPage(t *testing.T) {
	pages := manPages(t, t.TempDir())
	want := map[string]bool{"man5/usher.yaml.5": true}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		want["man1/"+strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"] = true
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	root := newRootCommand()
	root.InitDefaultCompletionCmd("completion") // as Execute does
	visit(root)
	for name := range want {
		if !strings.Contains(pages[name], ".SH NAME") {
			t.Errorf("%s is not there", name)
		}
	}
	for name := range pages {
		if !want[name] {
			t.Errorf("%s is there and should not be", name)
		}
	}
}

func TestAManPageHasWhatItsCommandTakes(t *testing.T) {
	pages := manPages(t, t.TempDir())
	tests := []struct{ name, page, want string }{
		{"the name as man -k wants it", "man1/usher-man.1", "usher-man \\- Write the man pages\n"},
		{"the title", "man1/usher-man.1", `.TH "usher-man" "1" "`},
		{"an option with the word for its value", "man1/usher-man.1", "\\fB--dir\\fP \\fIFOLDER\\fP\nwrite them into FOLDER"},
		{"an option without one", "man1/usher-man.1", "\\fB-h\\fP, \\fB--help\\fP\nhelp for man\n"},
		{"an example", "man1/usher-man.1", ".SH EXAMPLES\n.EX\n  usher man --dir "},
		{"the commands below", "man1/usher.1", "\\fBdemo\\fP\nRun a front door"},
		{"the way from one page to the others", "man1/usher.1", "\\fBusher.yaml(5)\\fP, \\fBusher-"},
		{"the way back", "man1/usher-man.1", ".SH SEE ALSO\n\\fBusher(1)\\fP\n"},
		{"the environment", "man1/usher.1", "\\fBUSHER_DIR\\fP\n"},
		{"the keys of the configuration", "man5/usher.yaml.5", "\\fBpeek_timeout\\fR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(pages[tt.page], tt.want) {
				t.Errorf("%s has no %q:\n%s", tt.page, tt.want, pages[tt.page])
			}
		})
	}
	if page := pages["man5/usher.yaml.5"]; strings.Contains(page, "](#") || strings.Contains(page, "\\[la]") {
		t.Errorf("usher.yaml(5) has links:\n%s", page)
	}
}

func TestTheConfigurationInTheManPageIsRight(t *testing.T) {
	var example bytes.Buffer
	if err := manTemplates.ExecuteTemplate(&example, "example", nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "usher.yaml")
	if err := os.WriteFile(path, example.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); err != nil {
		t.Error(err)
	}
}

func TestManPagesAreTheSameWhereverTheyAreWritten(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	local := time.Local
	t.Cleanup(func() { time.Local = local })
	time.Local = time.FixedZone("east", 12*60*60)
	east := manPages(t, t.TempDir())
	time.Local = time.FixedZone("west", -12*60*60)
	west := manPages(t, t.TempDir())
	for name, page := range east {
		if page != west[name] {
			t.Errorf("%s differs", name)
		}
		if !strings.Contains(page, `"2023-11-14"`) {
			t.Errorf("%s has not the date of SOURCE_DATE_EPOCH", name)
		}
	}
}

func TestTheDateOfManPages(t *testing.T) {
	built := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.time", Value: "2026-02-03T04:05:06Z"}}}
	tests := []struct {
		name, epoch string
		info        *debug.BuildInfo
		want        string // empty: an error
	}{
		{"SOURCE_DATE_EPOCH comes first", "86400", built, "1970-01-02"},
		{"then the commit", "", built, "2026-02-03"},
		{"an epoch that is no number is an error", "yesterday", built, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("SOURCE_DATE_EPOCH", tt.epoch)
			date, err := manDate(tt.info)
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), tt.epoch) {
					t.Errorf("error %v; want one that names %q", err, tt.epoch)
				}
				return
			}
			if got := date.Format(time.DateOnly); err != nil || got != tt.want {
				t.Errorf("%s, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func TestManPagesRenderWithoutWarnings(t *testing.T) {
	formatters := []struct {
		program string
		args    []string
	}{
		{"groff", []string{"-man", "-t", "-ww", "-z", "-Tutf8", "-K", "utf8"}}, // what man-db's man runs
		{"mandoc", []string{"-Tlint", "-Wwarning"}},                            // what man is on the BSDs and macOS
	}
	found := false
	for _, f := range formatters {
		program, err := exec.LookPath(f.program)
		if err != nil {
			continue
		}
		found = true
		dir := t.TempDir()
		for name := range manPages(t, dir) {
			out, err := exec.Command(program, append(f.args, filepath.Join(dir, name))...).CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Errorf("%s: %s: %v\n%s", f.program, name, err, out)
			}
		}
	}
	if !found {
		t.Skip("neither groff nor mandoc is here")
	}
}
