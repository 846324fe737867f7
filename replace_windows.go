package usher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/windows"
)

// listenInPlace waits until the process at the other end of old has ended that channel, as it does with
// all of its channels: no process can make a pipe's first instance while another has any.
func listenInPlace(ctx context.Context, old *ipc.Conn, lc *ipc.ListenConfig, endpoint string) (*ipc.Listener, error) {
	for {
		m, err := old.Receive()
		if err != nil {
			break
		}
		m.Close() // its hello
	}
	old.Close()
	for {
		l, err := lc.Listen(endpoint)
		if err == nil || ctx.Err() != nil || !isInUse(err) {
			return l, err
		}
		sleep(ctx, replacePause)
	}
}

// leaveTime is for the givers to hear of the farewell. Who has not finds the channel at its end, and what
// became of its offers on the page.
const leaveTime = 200 * time.Millisecond

// beReplaced makes room for the process at the other end of t. Only who could end this process may ask
// for that.
func (l *Listener) beReplaced(t *taking) error {
	if err := ipc.SameUser(t.giver); err != nil {
		return fmt.Errorf("%w: it asked to replace this process: %w", ipc.ErrDenied, err)
	}
	l.stop(errReplaced)
	l.mu.Lock()
	delete(l.channels, t) // which is not waited for
	l.checkIdle()
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	select {
	case <-l.idle:
	case <-ctx.Done():
		l.closeChannels()
	}
	return io.EOF
}

func isInUse(err error) bool { return errors.Is(err, windows.WSAEADDRINUSE) }
