package config

import (
	"context"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/go-usher/usher/ipc"
)

func TestCheckWarnsOfWhatShouldBeLookedAt(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Skip("who runs the tests has no name: ", err)
	}
	const route = shortest + "routes: [{handoff: shop, fallback: {handoff: spare}}]\n"
	tests := []struct {
		name, yaml string
		want       []string
	}{
		{"nothing", route, nil},
		{"a user that there is", route + "endpoints: {users: ['" + me.Username + "'], pin: {shop: '" + me.Username + "'}}\n", nil},
		{"numbers and SIDs without a name", route + "endpoints: {users: [4242424, S-1-5-21-1-2-3-4], groups: [4242424], pin: {spare: 4242424}}\n", nil},
		{"users and groups that there are not", route + "endpoints:\n  users: [no-such-user]\n  groups: [no-such-group]\n  pin: {shop: no-such-owner}\n", []string{
			`4:11: endpoints.users[0]: this machine knows no user "no-such-user": a door here would not start`,
			`5:12: endpoints.groups[0]: this machine knows no group "no-such-group": a door here would not start`,
			`6:15: endpoints.pin.shop: this machine knows no user "no-such-owner": a door here would not start`,
		}},
		{"a pinned endpoint that no route hands over to", route + "endpoints: {pin: {shopp: 0}}\n", []string{
			"3:26: endpoints.pin.shopp: no route hands over to this endpoint",
		}},
		{"the same with auto routes", route + "endpoints: {pin: {shopp: 0}}\nauto_routes: true\n", nil},
		{"no way to go", shortest, []string{"1:1: there are no routes, and auto_routes is off: every connection will be refused"}},
		{"an ALPN with a path", shortest + "routes:\n  - match: {alpn: h2, path: /a}\n    handoff: shop\n", []string{
			"3:12: routes[0].match: matches nothing: clients offer ALPN in TLS, in which no path can be seen",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "usher.yaml")
			if err := os.WriteFile(file, []byte(tt.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			c, warnings, err := Check(file)
			if err != nil || c == nil {
				t.Fatal(c, err)
			}
			var got []string
			for _, w := range warnings {
				got = append(got, strings.TrimPrefix(w.Error(), file+":"))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestCheckTellsOfErrorsAsLoadDoes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "usher.yaml")
	if err := os.WriteFile(file, []byte("listeners: 5\nendpoints: {users: [no-such-user]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, want := Load(file)
	_, warnings, err := Check(file)
	if err == nil || err.Error() != want.Error() || warnings != nil {
		t.Errorf("got %v with the warnings %v, want %v", err, warnings, want)
	}
	if _, _, err := Check(file + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestEndpointsAreJudgedAsPackageIPCJudgesThem dials, where nobody listens: ipc fails for the name, or for
// that.
func TestEndpointsAreJudgedAsPackageIPCJudgesThem(t *testing.T) {
	dir, err := os.MkdirTemp("", "ep") // shorter than t.TempDir: the path of a socket has a limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("USHER_DIR", dir)
	names := []string{
		"", "a", "A-b_c.d", "shop.example.com", ".a", "-a", "a.", "a-", "..", "a b", "a:b", "é", "a\x00b", "a*", "@a", "0", "~",
		"/nowhere/a", "./a", "../a", "a/b", `\\.\pipe\usher-no-such-pipe`, `a\b`,
		strings.Repeat("x", 253), strings.Repeat("x", 254),
	}
	for _, name := range names {
		_, err := ipc.Dial(context.Background(), name)
		if err == nil {
			t.Errorf("somebody listens at %q", name)
			continue
		}
		if strings.Contains(err.Error(), "the path of the ") {
			continue // socket or pipe is too long, which depends on where the folder is
		}
		absent := errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
		ours := checkString(name)
		if ours == nil {
			ours = checkEndpoint(name)
		}
		if absent != (ours == nil) {
			t.Errorf("endpoint %q: we say %v, ipc says %v", name, ours, err)
		}
	}
}
