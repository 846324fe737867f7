package processes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"

	"github.com/go-usher/usher/internal/bench"
)

// Installed returns the path of a program, or why it cannot take part: an error that is bench.ErrAbsent.
func Installed(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%w: %w", bench.ErrAbsent, err)
	}
	return path, nil
}

// builtIn is what "nginx -V" says if the stream's module is in the program; if not, it is "--with-stream=dynamic".
var builtIn = regexp.MustCompile(`--with-stream(\s|$)`)

// NginxStreamModule returns the file that the stream's module of an nginx is in, or "" if it is in the program, as
// nginx.org's is. Debian has it apart, in libnginx-mod-stream.
func NginxStreamModule(nginx string) (string, error) {
	if said, _ := exec.Command(nginx, "-V").CombinedOutput(); builtIn.Match(said) {
		return "", nil
	}
	dirs := []string{"/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/libexec/nginx", "/opt/homebrew/lib/nginx/modules"}
	for _, dir := range dirs {
		path := filepath.Join(dir, "ngx_stream_module.so")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: nginx has no ngx_stream_module.so (Debian: libnginx-mod-stream)", bench.ErrAbsent)
}

// Versions says what is measured, for those programs that are here, and modules that this one is made of.
func Versions(modules map[string]string) map[string]string {
	v := map[string]string{"go": runtime.Version(), "usher": "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if name, ok := modules[m.Path]; ok {
				v[name] = m.Version
			}
		}
	}
	if dir, err := usherSource(); err == nil {
		if out, err := exec.Command("git", "-C", dir, "describe", "--tags", "--always", "--dirty").Output(); err == nil {
			v["usher"] = firstLine(out)
		}
	}
	for name, ask := range map[string]struct {
		command []string
		pattern string
	}{
		"cc":      {[]string{"cc", "--version"}, `(\d+(?:\.\d+)+)`},
		"haproxy": {[]string{"haproxy", "-v"}, `version (\S+)`},
		"nginx":   {[]string{"nginx", "-v"}, `nginx/(\S+)`},
		"node":    {[]string{"node", "--version"}, `v(\S+)`},
	} {
		out, _ := exec.Command(ask.command[0], ask.command[1:]...).CombinedOutput()
		if found := regexp.MustCompile(ask.pattern).FindSubmatch(out); found != nil {
			v[name] = string(found[1])
		}
	}
	return v
}
