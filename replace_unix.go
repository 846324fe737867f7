//go:build darwin || freebsd || linux || netbsd || openbsd

package usher

import (
	"context"
	"fmt"
	"io"

	"github.com/go-usher/usher/ipc"
)

// listenInPlace takes the name from the listener at the other end of old, which watches that channel: it
// looks at the name when the channel ends.
func listenInPlace(_ context.Context, _ *ipc.Conn, lc *ipc.ListenConfig, endpoint string) (*ipc.Listener, error) {
	return lc.Listen(endpoint)
}

// beReplaced waits until the process at the other end of t listens in this one's place, or is gone. It
// believes the file system, not the peer.
func (l *Listener) beReplaced(t *taking) error {
	if m, err := t.c.Receive(); err == nil {
		m.Close()
		return fmt.Errorf("%w: it spoke on after it had asked to replace this process", ipc.ErrProtocol)
	}
	if l.l.Replaced() {
		l.stop(errReplaced, 0)
	}
	return io.EOF
}

// channelsOutliveListeners says whether a channel can stay open for reports when its listener is closed.
const channelsOutliveListeners = true
