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
	pinned  map[string]policy // by path: an endpoint may be named by that, too
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
		if err := p.pin(name, user); err != nil {
			return nil, fmt.Errorf("endpoints.pin.%s: %w", name, err)
		}
	}
	return p, nil
}

func (p *policies) pin(name, user string) error {
	only, err := ipc.Users(user)
	if err != nil {
		return err
	}
	path, err := p.path(name)
	if err != nil {
		return err
	}
	if other, ok := p.pinned[path]; ok {
		return fmt.Errorf("the endpoint at %s is %s already", path, other.words)
	}
	p.pinned[path] = policy{only, "pinned to " + user}
	return nil
}

func words(names []string) string {
	names = slices.Clone(names)
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// of returns the policy for the endpoint at a path.
func (p *policies) of(path string) policy {
	if pinned, ok := p.pinned[path]; ok {
		return pinned
	}
	return p.general
}

// path returns where the socket or pipe of an endpoint is. Each has one path, however it is named.
func (p *policies) path(name string) (string, error) {
	if runtime.GOOS == "windows" {
		path, err := ipc.Path(name)
		return strings.ToLower(path), err // names of pipes are the same in any case
	}
	if p.dir == "" || strings.Contains(name, "/") {
		path, err := ipc.Path(name)
		if err != nil {
			return "", err
		}
		return filepath.Abs(path)
	}
	// Package config has checked the names in the file, package sniff those that clients ask for.
	return ipc.Path(filepath.Join(p.dir, name+socketSuffix)) // which checks its length
}

// socketSuffix is what package ipc ends the names of sockets with.
const socketSuffix = ".sock"
