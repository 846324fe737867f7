package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain makes the command usher of this test binary: for the scripts, for the tests that look it up in $PATH, and for the demo when it
// executes itself. The scripts have their backend of it, too.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"usher": main, "backend": backendMain})
}

// leakChecked fails a run that passed but left goroutines.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	if code := m.M.Run(); code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestVersionLine(t *testing.T) {
	suffix := fmt.Sprintf(" %s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	commit := debug.BuildSetting{Key: "vcs.revision", Value: "0123abc"}
	dirty := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	clean := debug.BuildSetting{Key: "vcs.modified", Value: "false"}
	tests := []struct {
		name     string
		version  string
		settings []debug.BuildSetting
		want     string
	}{
		{"a release", "v1.2.3", []debug.BuildSetting{commit, clean}, "usher v1.2.3"},
		{"a clean tree without a version", "(devel)", []debug.BuildSetting{commit, clean}, "usher (devel) 0123abc"},
		{"a changed tree without a version", "(devel)", []debug.BuildSetting{commit, dirty}, "usher (devel) 0123abc+dirty"},
		{"a build outside a repository", "(devel)", nil, "usher (devel)"},
		{"a build without a version", "", nil, "usher (unknown)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			info := &debug.BuildInfo{Main: debug.Module{Version: tt.version}, Settings: tt.settings}
			if got := versionLine(info); got != tt.want+suffix {
				t.Errorf("versionLine() = %q; want %q", got, tt.want+suffix)
			}
		})
	}
	if got := versionLine(nil); got != "usher (unknown)"+suffix {
		t.Errorf("versionLine(nil) = %q", got)
	}
}
