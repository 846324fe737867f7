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

// replace announces itself to whoever listens, and listens when that has left.
func replace(lc *ipc.ListenConfig, endpoint string) (*ipc.Listener, error) {
	ctx, cancel := context.WithTimeout(context.Background(), replaceTimeout)
	defer cancel()
	old, err := announce(ctx, lc.Policy, endpoint)
	if err != nil {
		return lc.Listen(endpoint)
	}
	defer old.Close()
	return listenInPlace(ctx, old, lc, endpoint)
}

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

// leaveTime is for the givers to hear the farewell and go, before Accept returns: this process may end
// then, and a pipe that ends takes with it what was not read (so it does under Wine). A giver that has not
// heard why the channel ended would not wait for the new listener.
const leaveTime = 2 * time.Second

// beReplaced makes room for the process at the other end of t. Only who could end this process may ask
// for that.
func (l *Listener) beReplaced(t *taking) error {
	if err := ipc.SameUser(t.giver); err != nil {
		return fmt.Errorf("%w: it asked to replace this process: %w", ipc.ErrDenied, err)
	}
	l.remove(t) // it is not waited for
	l.stop(errReplaced, leaveTime)
	l.closeChannels(func(*taking) bool { return false })
	return io.EOF
}

func isInUse(err error) bool { return errors.Is(err, windows.WSAEADDRINUSE) }

// channelsOutliveListeners is false where a channel keeps the name of its listener from others: the next process
// could not listen until the last connection of this one has ended.
const channelsOutliveListeners = false
