//go:build unix

package ipc_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestTheLibraryImportsLittle holds what package ipc may depend on, on every kind of system.
func TestTheLibraryImportsLittle(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	allowed := []string{"github.com/go-usher/usher/ipc", "github.com/go-usher/usher/internal/sys", "golang.org/x/sys/"}
	for _, system := range []string{"linux", "darwin", "freebsd", "openbsd", "netbsd", "windows"} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
		cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		allowed := allowed
		if system == "windows" {
			allowed = append(allowed, "github.com/Microsoft/go-winio")
		}
		for _, path := range strings.Fields(string(out)) {
			if !hasAnyPrefix(path, allowed) {
				t.Errorf("on %s package ipc depends on %s", system, path)
			}
		}
	}
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
