// Package systemd is the door's side of systemd: the sockets that it passes, the news that it wants, the store in which
// it keeps sockets for the next process, and its watchdog. Where a program was not started by systemd, and on systems that
// have none, nothing is passed and nobody is told: callers need not ask.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Notifier tells systemd how the service is, as sd_notify(3) describes. Its zero value is ready for use; without
// NOTIFY_SOCKET in the environment its methods do nothing. They may be called by several goroutines at once. Each
// is one datagram to systemd, and waits while the queue of systemd's socket is full, for 5 seconds at most.
type Notifier struct {
	// Failed, if not nil, is told of news that did not get out and, by Watch, of each failure of the health
	// check. It may be called by several goroutines at once.
	Failed func(error)

	mu     sync.Mutex
	stored map[string]int // how many sockets of an address systemd holds, as far as this process knows
}

// Passed returns the listening stream sockets that systemd passed to this process, TCP or Unix. Those of units are by
// their FileDescriptorName, which is the name of the socket unit ("usher.socket") where the unit sets none. A name has
// several listeners if its units have several ListenStream lines; they are in the order of those. Those that a process
// before this one stored by Keep are by the addresses that Keep was given.
//
// Stored ones of other addresses than those that are wanted are gone when it returns, from the store too: as long as
// somebody holds the socket of :80, nobody can open 127.0.0.1:80.
//
// The sockets are passed once, so call it once, before anything starts a process: from then on they are close-on-exec,
// and LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES are out of the environment. The listeners are the caller's to close,
// those for which there is no use too: clients can connect to a socket that nobody accepts on. For a stored one closing
// is not enough, as systemd holds it as well, until the next Keep. Closing a Unix one leaves its socket file.
//
// A descriptor of a unit that is anything else is an error that names it, and then all of them are closed. A stored one
// that is of no use any more is dropped, and n.Failed is told: the service starts without it.
//
// The protocol is that of sd_listen_fds(3).
func (n *Notifier) Passed(wanted []string) (units, stored map[string][]net.Listener, err error) {
	units, stored = make(map[string][]net.Listener), make(map[string][]net.Listener)
	var unwanted []string
	var errs []error
	for _, s := range receive() {
		if address, ok := addressOf(s.name); ok {
			if l := n.usable(s, address, wanted); l != nil {
				stored[address] = append(stored[address], l)
			} else {
				unwanted = append(unwanted, address)
			}
			continue
		}
		if s.err != nil {
			errs = append(errs, fmt.Errorf("systemd passed descriptor %d (%s): %w%s", s.fd, s.name, s.err, advice(s.err)))
			continue
		}
		units[s.name] = append(units[s.name], s.listener)
	}
	if len(errs) > 0 {
		closeAll(units)
		closeAll(stored)
		return nil, nil, errors.Join(errs...)
	}
	n.noteStored(stored)
	n.drop(unwanted)
	return units, stored, nil
}

// usable returns the listener of what was stored for an address, nil if there is no use for it, and it is closed.
func (n *Notifier) usable(s passed, address string, wanted []string) net.Listener {
	if s.err != nil {
		n.failed(fmt.Errorf("systemd: descriptor %d, stored for %s, is dropped: %w", s.fd, address, s.err))
		return nil
	}
	if !slices.Contains(wanted, address) {
		s.listener.Close()
		return nil
	}
	return s.listener
}

func (n *Notifier) noteStored(stored map[string][]net.Listener) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stored = make(map[string]int)
	for address, ls := range stored {
		n.stored[address] = len(ls)
	}
}

// drop removes sockets from the store, and returns when systemd has closed them.
func (n *Notifier) drop(addresses []string) {
	if len(addresses) == 0 {
		return
	}
	for _, address := range addresses {
		n.Remove(address)
	}
	if err := barrier(); err != nil {
		n.failed(fmt.Errorf("systemd: it may hold sockets for %s still: %w", strings.Join(addresses, ", "), err))
	}
}

// passed is a descriptor that systemd passed. Its listener, or else err, says what it is.
type passed struct {
	fd       int
	name     string
	listener net.Listener
	err      error
}

var (
	errNoStream   = errors.New("it is not a stream socket")
	errNoListener = errors.New("it does not listen")
)

// advice says what the socket unit needs of which this is the error.
func advice(err error) string {
	switch {
	case errors.Is(err, errNoStream):
		return "; the socket unit needs ListenStream="
	case errors.Is(err, errNoListener):
		return "; the socket unit needs Accept=no"
	}
	return ""
}

func closeAll(passed map[string][]net.Listener) {
	for _, ls := range passed {
		for _, l := range ls {
			l.Close()
		}
	}
}

// Successor prepares a command, before it is started, whose process is to be the service's main one by MainPID. Wait, and
// not the command's own, waits for it.
//
// If systemd has started this process, it is the new one's parent, too (CLONE_PARENT of clone(2)). Of a main process
// that was another's child when it became that, systemd does not notice the end; and it sends SIGTERM to such a one and
// then SIGKILL at once, however long TimeoutStopSec is.
//
// Variables of the environment that are meant for one process alone are taken out of the command's: LISTEN_PID,
// LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PIDFDID, whose descriptors this process has taken, and WATCHDOG_PID, which would
// have the new one believe that the watchdog is not interested in it. NOTIFY_SOCKET and WATCHDOG_USEC stay. See
// sd_listen_fds(3) and sd_watchdog_enabled(3).
func Successor(cmd *exec.Cmd) {
	cmd.Env = slices.DeleteFunc(cmd.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(ownVariables, name)
	})
	if byManager() {
		makeSibling(cmd)
	}
}

var ownVariables = []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "WATCHDOG_PID"}

// byManager says whether systemd, that of the system or of a user, has started this process.
func byManager() bool {
	parent := os.Getppid()
	return os.Getenv("NOTIFY_SOCKET") != "" && (parent == 1 || os.Getenv("MANAGERPID") == strconv.Itoa(parent))
}

// Wait waits for the end of a command that was prepared by Successor and started. Its ProcessState is nil afterwards if
// systemd is its parent, which alone learns how it ended.
func Wait(cmd *exec.Cmd) { waitFor(cmd) }

// Ended says whether such a command has ended, as the kernel knows it at this moment: before systemd sends SIGTERM for that
// reason, so that whoever gets it can ask. It may be called while Wait waits, and after. Where there is no systemd it
// is false.
func Ended(cmd *exec.Cmd) bool { return ended(cmd) }

// Ready says that the service has started or, after Reloading, that the reload is over, whether it succeeded or
// not. status is the line about the service that systemctl status shows.
func (n *Notifier) Ready(status string) { n.send("ready", "READY=1\nSTATUS="+oneLine(status)) }

// Reloading says that the configuration is being loaded anew. Ready must follow: until it does, a service of
// Type=notify-reload (systemd 253) counts as reloading, and is ended after its start time-out.
func (n *Notifier) Reloading() { n.send("reloading", reloadingState()) }

// Stopping says that the service has begun to end.
func (n *Notifier) Stopping() { n.send("stopping", "STOPPING=1") }

// MainPID says that the process pid is the service's main one from now on. It has to be in the service's control group,
// as a child of this process is.
//
// With NotifyAccess=main, which Type=notify implies, systemd believes the main process alone. So until this call the
// successor's news is dropped, and after it this process's: it cannot take it back, not even when pid has died. Call it
// when the successor serves, and have the successor call Ready, Keep and Watch only after that. systemd hears messages in
// the order in which they were sent, whoever sent them.
//
// Start it as Successor says. When it ends, systemd sends SIGTERM to this process too, if that has still something to
// finish, and waits for its end before it starts the service again.
func (n *Notifier) MainPID(pid int) { n.send("the new main process", fmt.Sprintf("MAINPID=%d", pid)) }

// Keep has systemd hold the sockets that the service listens on, by the addresses of the configuration, for the process
// that it starts after this one: after a crash and on systemctl restart, and until the service is stopped. Clients that
// connect in between wait in the queues of these sockets. The next process gets them from Passed.
//
// It is for all of them, each time they have changed: those of addresses that are missing are removed from the store,
// without which clients would wait for a door that does not listen there any more. Sockets that socket units have
// opened do not belong there: systemd has them anyway. They stay the caller's, and systemd gets duplicates.
//
// The unit needs a FileDescriptorStoreMax that is large enough; beyond that systemd drops them, with a warning in the
// journal. An address whose encoding has more than 255 bytes cannot be stored, and n.Failed is told.
//
// The protocol is that of FDSTORE=1 in sd_notify(3). FDPOLL=0 is not used: a socket that listens never polls as
// hung up or broken, and one that does not listen any more is better dropped.
func (n *Notifier) Keep(sockets map[string][]syscall.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for address, had := range n.stored {
		if len(sockets[address]) < had { // it has one name for all of them, so all go
			n.Remove(address)
		}
	}
	n.stored = make(map[string]int, len(sockets))
	for address, ss := range sockets {
		n.stored[address] = len(ss)
		for _, s := range ss {
			n.store(address, s)
		}
	}
}

// store may be told of a socket again: systemd compares descriptions, not descriptors, and ignores it.
func (n *Notifier) store(address string, socket syscall.Conn) {
	name, err := storeName(address)
	if err == nil {
		err = notifyWith("FDSTORE=1\nFDNAME="+name, socket)
	}
	if err != nil {
		n.failed(fmt.Errorf("systemd: cannot store the socket of %s: %w", address, err))
	}
}

// Remove removes the sockets of an address from the store. It is for what Keep cannot know of: a process that has taken
// the service over while it ran removes so what the one before it stored, and it has no use for.
func (n *Notifier) Remove(address string) {
	if name, err := storeName(address); err == nil { // else it was never stored
		n.send("a socket that is given up", "FDSTOREREMOVE=1\nFDNAME="+name)
	}
}

// storePrefix begins the names of stored sockets. No socket unit's FileDescriptorName is likely to.
const storePrefix = "usher-listen="

// maxName is FDNAME_MAX.
const maxName = 255

// storeName returns the name under which a socket is stored. The name of a descriptor is of printable ASCII without
// colons (sd_notify(3), FDNAME), which nearly every address has: so the address is encoded as in the query of a URL, for
// example usher-listen=127.0.0.1%3A8080.
func storeName(address string) (string, error) {
	name := storePrefix + url.QueryEscape(address)
	if len(name) > maxName {
		return "", fmt.Errorf("its name %s has %d bytes, and may have %d", name, len(name), maxName)
	}
	return name, nil
}

// addressOf returns the address of a stored socket, and false for the name of anything else.
func addressOf(name string) (string, bool) {
	encoded, ok := strings.CutPrefix(name, storePrefix)
	if !ok {
		return "", false
	}
	address, err := url.QueryUnescape(encoded)
	return address, err == nil
}

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
