package door

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/ipc"
)

// policies say, of each endpoint, where it is and who may serve it.
type policies struct {
	dir     string // empty for the library's own
	general policy
	pinned  map[string]policy
}

// policy is one with words that tell it from others.
type policy struct {
	ipc.Policy
	words string
}

func newPolicies(c *config.Endpoints) (*policies, error) {
	p := &policies{dir: c.Dir, general: policy{ipc.SameUser, "same user"}, pinned: make(map[string]policy)}
	all := []ipc.Policy{ipc.SameUser}
	if len(c.Users) > 0 {
		users, err := ipc.Users(c.Users...)
		if err != nil {
			return nil, fmt.Errorf("endpoints.users: %w", err)
		}
		all = append(all, users)
		p.general.words += ", users " + words(c.Users)
	}
	if len(c.Groups) > 0 {
		groups, err := ipc.Groups(c.Groups...)
		if err != nil {
			return nil, fmt.Errorf("endpoints.groups: %w", err)
		}
		all = append(all, groups)
		p.general.words += ", groups " + words(c.Groups)
	}
	if len(all) > 1 {
		p.general.Policy = ipc.AnyOf(all...)
	}
	for name, user := range c.Pin {
		only, err := ipc.Users(user)
		if err != nil {
			return nil, fmt.Errorf("endpoints.pin.%s: %w", name, err)
		}
		p.pinned[name] = policy{only, "pinned to " + user}
	}
	return p, nil
}

func words(names []string) string {
	names = slices.Clone(names)
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// of returns the policy for the endpoint of a name.
func (p *policies) of(name string) policy {
	if pinned, ok := p.pinned[name]; ok {
		return pinned
	}
	return p.general
}

// path returns where the socket or pipe of an endpoint is.
func (p *policies) path(name string) (string, error) {
	path, err := ipc.Path(name)
	if err != nil || p.dir == "" || runtime.GOOS == "windows" || isPath(name) {
		return path, err
	}
	return ipc.Path(filepath.Join(p.dir, filepath.Base(path))) // which checks its length
}

func isPath(name string) bool { return strings.ContainsAny(name, `/\`) }
