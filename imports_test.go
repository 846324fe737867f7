//go:build unix

package usher_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestTheLibraryImportsLittle holds what the library packages may depend on, on every kind of system.
func TestTheLibraryImportsLittle(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	const module = "github.com/go-usher/usher"
	packages := map[string][]string{
		"./ipc":       {module + "/ipc", module + "/internal/sys", "golang.org/x/sys/"},
		".":           {module, module + "/ipc", module + "/internal/sys", "golang.org/x/sys/"},
		"./usherhttp": {module + "/usherhttp", module, module + "/ipc", module + "/internal/sys", "golang.org/x/sys/"},
	}
	for _, system := range []string{"linux", "darwin", "freebsd", "openbsd", "netbsd", "windows"} {
		for name, allowed := range packages {
			cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", name)
			cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if system == "windows" {
				allowed = append(allowed, "github.com/Microsoft/go-winio", "github.com/Microsoft/go-winio/")
			}
			for _, path := range strings.Fields(string(out)) {
				if !isOneOf(path, allowed) {
					t.Errorf("on %s package %s depends on %s", system, name, path)
				}
			}
		}
	}
}

// isOneOf says whether path is one of the packages, or below one that ends in a slash.
func isOneOf(path string, packages []string) bool {
	for _, p := range packages {
		if path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}
