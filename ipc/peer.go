package ipc

import (
	"errors"
	"fmt"
	"strings"
)

// Peer is the process at the other end of a channel, as the kernel tells it.
type Peer struct {
	// PID is the peer's process, or 0 where the system does not say.
	PID int

	// UID and GID are the peer's effective user and group; -1 on Windows.
	UID, GID int

	// SID is the peer's user on Windows, as S-1-…; empty elsewhere.
	SID string
}

// Policy decides whether a peer is admitted: nil admits it, an error says why not.
type Policy func(Peer) error

// SameUser is the default policy. It admits the user of this process and root; on Windows this user,
// SYSTEM and elevated processes of Administrators.
func SameUser(p Peer) error { return sameUser(p) }

// Users returns a policy that admits the processes of the users named, and no others: unlike [SameUser] neither
// root nor this process's own user, unless they are among them. A user is named by its name or number, on Windows by
// its name, as DOMAIN\name or name, or its SID. A number need not belong to anybody; a name that nobody has is an error,
// and so is no name. Names are looked up once, now.
//
// It is about effective users (on Windows that of the process). Where this process runs in a user namespace of Linux, all users
// that are not mapped into it pass for one, nobody (user_namespaces(7)). For a peer that this user may not connect to, or that
// may not connect to this one, see [ListenConfig].Mode.
func Users(names ...string) (Policy, error) {
	if len(names) == 0 {
		return nil, errors.New("a policy for users, and none is named")
	}
	return users(names)
}

// Groups returns a policy that admits the processes of the members of the groups named: those whose effective group is one
// of them, and those whose user belongs to one by the system's database, at the time when it connects. Other groups that
// a process has besides are not told by the kernel. Names and numbers are as those of [Users]. On Windows the error is
// [errors.ErrUnsupported].
func Groups(names ...string) (Policy, error) {
	if len(names) == 0 {
		return nil, errors.New("a policy for groups, and none is named")
	}
	return groups(names)
}

// AnyOf returns a policy that admits whom any of the policies does, asked in turn; nil among them is [SameUser]. Its error
// has the reasons of all in its chain. Of no policies it admits nobody.
func AnyOf(policies ...Policy) Policy {
	return func(p Peer) error {
		var reasons reasons
		for _, policy := range policies {
			if policy == nil {
				policy = SameUser
			}
			err := policy(p)
			if err == nil {
				return nil
			}
			reasons = append(reasons, err)
		}
		if len(reasons) == 0 {
			return fmt.Errorf("process %d: no policy admits anybody", p.PID)
		}
		return reasons
	}
}

// reasons are why none of several policies admits a peer, on one line.
type reasons []error

func (r reasons) Error() string {
	texts := make([]string, len(r))
	for i, err := range r {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (r reasons) Unwrap() []error { return r }

// admit asks the policy about the process at the other end of t.
func admit(t transport, policy Policy) error {
	peer, err := t.peer()
	if err != nil {
		return fmt.Errorf("%w: cannot learn who it is: %w", ErrDenied, err)
	}
	if policy == nil {
		policy = SameUser
	}
	if err := policy(peer); err != nil {
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return nil
}
