package ipc

import (
	"fmt"
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
