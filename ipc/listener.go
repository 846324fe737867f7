package ipc

import (
	"io/fs"
	"net"
	"sync"
)

// Listen listens at an endpoint and admits the same user and root; see [ListenConfig].
func Listen(endpoint string) (*Listener, error) { return new(ListenConfig).Listen(endpoint) }

// ListenConfig has options for listening. Its zero value is that of [Listen].
type ListenConfig struct {
	// Mode is the mode of the socket file on Unix; zero means 0600. To connect takes leave to write to the
	// file, and to pass through its folder: for other users than this one and root both must be wider, beside Policy.
	// The file's group is that of the process, or of a folder with the setgid bit (on the BSDs and macOS of any
	// folder). So in a folder 01770 root:usher the mode 0666 lets in the members of the group usher, and in one of 03770
	// the mode 0660 does.
	Mode fs.FileMode

	// SecurityDescriptor, in SDDL, is that of the pipe on Windows. Empty means that this user,
	// Administrators and SYSTEM may connect. One without an owner gets this user as its owner.
	SecurityDescriptor string

	// Policy decides which peers are admitted. Nil means [SameUser]. A wider policy needs a wider
	// Mode or SecurityDescriptor too: the system checks those first. On Windows, attachments of a
	// peer that SameUser would not admit are refused whatever the Policy says: handles there are
	// numbers, and only a peer that may open this process can have put one into it.
	Policy Policy

	// Replace listens also where another process does, on Unix: new channels come here from then on,
	// without one that finds nobody. The other keeps the channels that it has accepted, and those that
	// wait for it; it is not told, but see [Listener.Replaced]. On Windows a name can have one listener.
	Replace bool

	// Replacing, if not nil, is called by Listen before it replaces a socket file that is there, so that whoever listens
	// there can be told: it may dial the endpoint. If another process has come there meanwhile it is called again, so that nobody is replaced
	// who listened there at none of the calls. An error of it leaves the other in its place, and Listen fails with that. It is not called on Windows.
	Replacing func() error

	// Refused, if not nil, is told of each peer that Policy refused and of the reason. Accept calls
	// it, and goes on when it returns.
	Refused func(error)

	// Limits bound the messages of the channels accepted.
	Limits Limits
}

// Listener accepts channels at an endpoint.
type Listener struct {
	config    ListenConfig
	addr      addr
	l         acceptor
	closeOnce sync.Once
}

// Listen listens at an endpoint. A socket file that a dead process left is replaced, a live one gives an error that is
// syscall.EADDRINUSE.
//
// On Unix it makes the folder of a plain name if it is missing, with mode 0700. One that is there must belong to
// root or to this user, and others must not be able to write to it, except for its group if the sticky bit is set
// (01770). There the members of the group can listen at any name that is free, but not in the place of another user: what a
// user's process left that died, only that user, the folder's owner and root can replace. That somebody else listens at
// a name first, nothing hinders; the dialer's Policy is what keeps it from being believed.
func (lc *ListenConfig) Listen(endpoint string) (*Listener, error) {
	path, err := resolve(endpoint)
	if err != nil {
		return nil, opError("listen", addr(endpoint), err)
	}
	l, err := listen(path, !isPath(endpoint), lc)
	if err != nil {
		return nil, opError("listen", addr(path), err)
	}
	return &Listener{config: *lc, addr: addr(path), l: l}, nil
}

// Accept waits for the next channel whose peer the policy admits. Others are closed unheard. A channel
// may be at its end already: a process that tries to listen at the same endpoint connects, to see
// that this one is alive, and leaves.
//
// At the limit of open files the error is syscall.EMFILE. Nobody is lost by that: who has connected waits for the next call.
func (l *Listener) Accept() (*Conn, error) {
	for {
		t, err := l.l.accept()
		if err != nil {
			return nil, opError("accept", l.addr, err)
		}
		err = admit(t, l.config.Policy)
		if err == nil {
			return newConn(t, l.addr, l.config.Limits), nil
		}
		t.close()
		if l.config.Refused != nil {
			l.config.Refused(opError("accept", l.addr, err))
		}
	}
}

// Close stops listening and, on Unix, removes the socket file if it is still this listener's.
// Accept returns an error that is [net.ErrClosed], as does a second Close. Channels that were
// accepted live on.
func (l *Listener) Close() error {
	err := net.ErrClosed
	l.closeOnce.Do(func() { err = l.l.close() })
	return opError("close", l.addr, err)
}

// Replaced says whether the endpoint is not this listener's any more: another process has replaced it,
// or somebody removed its socket file. On Windows that cannot be.
func (l *Listener) Replaced() bool { return l.l.replaced() }

// Addr returns the endpoint's path.
func (l *Listener) Addr() net.Addr { return l.addr }
