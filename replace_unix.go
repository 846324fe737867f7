//go:build darwin || freebsd || linux || netbsd || openbsd

package usher

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

// replace announces itself to whoever listens before it takes the name, and ends that channel when it has: the other watches the
// channel, and looks at the name when it ends. If this process dies at any instant, the other finds that it is alone, or replaced.
func replace(lc *ipc.ListenConfig, endpoint string) (*ipc.Listener, error) {
	var old []*ipc.Conn // more than one if others replace each other here meanwhile
	lc.Replacing = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), replaceTimeout)
		defer cancel()
		c, err := announce(ctx, lc.Policy, endpoint)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) { // the fault is here: who is there lives, and would not hear of it
			return err
		}
		if err == nil {
			old = append(old, c)
		}
		return nil
	}
	l, err := lc.Listen(endpoint)
	for _, c := range old {
		c.Close()
	}
	return l, err
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
