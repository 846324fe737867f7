// Package systemd is the door's side of systemd: the sockets that it passes, the news that it wants, and its
// watchdog. Where a program was not started by systemd, and on systems that have none, nothing is passed and
// nobody is told: callers need not ask.
package systemd

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// Listeners returns the listening stream sockets that systemd passed to this process, TCP or Unix, by their
// FileDescriptorName, which is the name of the socket unit ("usher.socket") where the unit sets none. A name has
// several listeners if its units have several ListenStream lines; they are in the order of those.
//
// The sockets are passed once, so call it once, before anything starts a process: from then on they are
// close-on-exec, and LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES are out of the environment. The listeners are the
// caller's to close, those for which there is no use too: clients can connect to a socket that nobody accepts on.
// Closing a Unix one leaves its socket file, which is systemd's.
//
// A descriptor that is anything else is an error that names it, and then all of them are closed.
//
// The protocol is that of sd_listen_fds(3).
func Listeners() (map[string][]net.Listener, error) { return listeners() }

// Notifier tells systemd how the service is, as sd_notify(3) describes. Its zero value is ready for use; without
// NOTIFY_SOCKET in the environment its methods do nothing. They may be called by several goroutines at once. Each
// is one datagram to systemd, and waits while the queue of systemd's socket is full.
type Notifier struct {
	// Failed, if not nil, is told of news that did not get out and, by Watch, of each failure of the health
	// check. It may be called by several goroutines at once.
	Failed func(error)
}

// Ready says that the service has started or, after Reloading, that the reload is over, whether it succeeded or
// not. status is the line about the service that systemctl status shows.
func (n *Notifier) Ready(status string) { n.send("ready", "READY=1\nSTATUS="+oneLine(status)) }

// Reloading says that the configuration is being loaded anew. Ready must follow: until it does, a service of
// Type=notify-reload (systemd 253) counts as reloading, and is ended after its start time-out.
func (n *Notifier) Reloading() { n.send("reloading", reloadingState()) }

// Stopping says that the service has begun to end.
func (n *Notifier) Stopping() { n.send("stopping", "STOPPING=1") }

// Watch tells systemd's watchdog that the service lives, now and then at half of WatchdogSec, until ctx ends;
// if there is no watchdog for this process it returns at once. While healthy returns an error, or does not
// return, the watchdog is not told, and systemd ends the service when WatchdogSec have passed since it last was:
// healthy should fail only for what a restart mends.
func (n *Notifier) Watch(ctx context.Context, healthy func() error) {
	period, err := watchdogPeriod()
	if err != nil {
		n.failed(fmt.Errorf("systemd: no watchdog: %w", err))
	}
	if period <= 0 {
		return
	}
	tick := time.NewTicker(period / 2)
	defer tick.Stop()
	for ctx.Err() == nil {
		n.ping(healthy)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (n *Notifier) ping(healthy func() error) {
	if err := healthy(); err != nil {
		n.failed(fmt.Errorf("systemd: the watchdog is not told that the service lives: %w", err))
		return
	}
	n.send("life", "WATCHDOG=1")
}

func (n *Notifier) send(what, state string) {
	if err := notify(state); err != nil {
		n.failed(fmt.Errorf("systemd: cannot notify of %s: %w", what, err))
	}
}

func (n *Notifier) failed(err error) {
	if n.Failed != nil {
		n.Failed(err)
	}
}

// oneLine keeps a status to its line: what followed a line break would be another assignment, as STOPPING=1,
// and systemd drops a status that is not UTF-8.
func oneLine(status string) string {
	status = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, status)
	return strings.ToValidUTF8(status, "\uFFFD")
}
