//go:build darwin || freebsd || linux || netbsd || openbsd

package ipc

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

func sameUser(p Peer) error {
	if p.UID == os.Geteuid() || p.UID == 0 {
		return nil
	}
	if os.Geteuid() == 0 {
		return fmt.Errorf("process %d belongs to user %d, not to root", p.PID, p.UID)
	}
	return fmt.Errorf("process %d belongs to user %d, neither root nor %d", p.PID, p.UID, os.Geteuid())
}

func users(names []string) (Policy, error) {
	uids, err := numbers(names, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return nil, err
	}
	wanted := strings.Join(names, ", ")
	return func(p Peer) error {
		if slices.Contains(uids, p.UID) {
			return nil
		}
		return fmt.Errorf("process %d belongs to user %d, who is not among %s", p.PID, p.UID, wanted)
	}, nil
}

func groups(names []string) (Policy, error) {
	gids, err := numbers(names, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if err != nil {
		return nil, err
	}
	wanted := strings.Join(names, ", ")
	return func(p Peer) error {
		if slices.Contains(gids, p.GID) || belongsTo(p.UID, gids) {
			return nil
		}
		return fmt.Errorf("process %d belongs to user %d and group %d, not to a group among %s", p.PID, p.UID, p.GID, wanted)
	}, nil
}

// numbers returns those that are named, and asks lookup for those of names.
func numbers(names []string, lookup func(string) (string, error)) ([]int, error) {
	var ids []int
	for _, name := range names {
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			number, lookupErr := lookup(name)
			if lookupErr != nil {
				return nil, lookupErr
			}
			id, err = strconv.ParseUint(number, 10, 32)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		ids = append(ids, int(id))
	}
	return ids, nil
}

// belongsTo says whether a user belongs to one of the groups by the system's database. One that it does not know
// belongs to none.
func belongsTo(uid int, gids []int) bool {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return false
	}
	own, err := u.GroupIds()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(gids, func(gid int) bool { return slices.Contains(own, strconv.Itoa(gid)) })
}
