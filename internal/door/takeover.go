package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/ipc"
)

// A takeover: a door that is to serve in the place of another talks to it, over a channel of package ipc, in messages
// of JSON. Listening sockets and channels come with them.
//
//	the new door                      the old door
//	takeover{version,build,pid} ──►
//	                            ◄──   sockets{…}, several   and goes on as before
//	loads its configuration, opens
//	what is missing, connects to
//	takers
//	ready{kept}                 ──►
//	                                  does not accept any more, and keeps its sockets open
//	                            ◄──   yours
//	accepts
//	serving                     ──►
//	                                  closes its sockets: there is no way back from here
//	                            ◄──   leaving               with a channel, for what is in the peek phase
//	listens at the control endpoint
//	settled                     ──►
//	                            ◄──   target{…}, for each   its channels to takers
//	                            ◄──   before, for each      those to doors before it that have not ended yet
//
// The accept queues are in the kernel, and never without a process that has them. Until serving is said, either may say
// failed{text} instead of what is its turn, and then the old one serves on. A channel that ends without that word is a door that has
// died: if it is the new one, or it is silent for too long, the old one serves on; if it is the old one, the new one does.
//
// Who only wants a takeover to happen says upgrade{version,build}: the old door starts its successor, and answers
// done{pid,build} or failed{text}.
const (
	sayTakeover = "takeover"
	saySockets  = "sockets"
	sayReady    = "ready"
	sayYours    = "yours"
	sayServing  = "serving"
	sayLeaving  = "leaving"
	saySettled  = "settled"
	sayTarget   = "target"
	sayBefore   = "before"
	sayFailed   = "failed"
	sayUpgrade  = "upgrade"
	sayDone     = "done"
)

// takeoverVersion is that of the messages. It changes when a door that knows the one could not deal with the other.
const takeoverVersion = 1

// message is what doors say to each other. Which fields there are depends on what it is.
type message struct {
	Say     string `json:"say"`
	Version int    `json:"version,omitempty"` // takeover, upgrade, sockets: of these messages
	Build   string `json:"build,omitempty"`   // takeover, upgrade, sockets, done: of the program
	PID     int    `json:"pid,omitempty"`     // takeover, done: of the new door; sockets: of the old one

	Sockets []socketName `json:"sockets,omitempty"` // of each attachment
	More    bool         `json:"more,omitempty"`    // sockets: another message with some follows
	Kept    []int        `json:"kept,omitempty"`    // ready: which of all the sockets the new door uses

	Target *detached `json:"target,omitempty"` // target: a channel to a taker

	Text string `json:"text,omitempty"` // failed: why
}

// socketName says what a listening socket is for.
type socketName struct {
	Address  string `json:"address"`            // as in the configuration
	Listener string `json:"listener,omitempty"` // the name of the listener at that address; empty for the others
	Admin    bool   `json:"admin,omitempty"`
	Passed   bool   `json:"passed,omitempty"` // the door has it from its parent, and Address is its name
}

// Bounds of a message. A configuration with more listeners than fit is passed in several.
const (
	maxMessage  = 256 << 10
	maxSockets  = 64
	maxAllNames = 1 << 16 // sockets of all messages together
	maxText     = 4 << 10
)

var channelLimits = ipc.Limits{Data: maxMessage, Attachments: maxSockets}

// parseMessage reads what another door says. attachments is how many came with it.
func parseMessage(b []byte, attachments int) (message, error) {
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return message{}, fmt.Errorf("what it says is no message of a door: %w", err)
	}
	want := len(m.Sockets)
	if m.Say == sayLeaving && attachments == 1 || m.Say == sayTarget || m.Say == sayBefore {
		want = 1
	}
	switch {
	case m.Say == "":
		return message{}, errors.New("what it says is no message of a door: it has no word")
	case (m.Say == sayTarget) != (m.Target != nil):
		return message{}, fmt.Errorf("it says %q, and a target is to be in what it says of one", cut(m.Say))
	case len(m.Sockets) > 0 && m.Say != saySockets:
		return message{}, fmt.Errorf("it says %q, with the names of sockets", cut(m.Say))
	case attachments != want:
		return message{}, fmt.Errorf("it says %q, with %d attachments instead of %d", cut(m.Say), attachments, want)
	}
	m.Text = m.Text[:min(len(m.Text), maxText)]
	m.Build = cut(m.Build)
	return m, nil
}

// checkVersion says why two doors do not understand each other, if so.
func (m *message) checkVersion(build string) error {
	if m.Version == takeoverVersion {
		return nil
	}
	return fmt.Errorf("this door speaks version %d of the takeover (build %s), the other door version %d (build %s)",
		takeoverVersion, build, m.Version, m.Build)
}

// Errors of talk.hear, beside those of the channel.
var (
	errSilent    = errors.New("the other door has said nothing")
	errOtherGone = errors.New("the other door has ended")
)

// refusal is what the other door says instead of going on.
type refusal struct{ text string }

func (r refusal) Error() string { return r.text }

// talk is a channel between two doors.
type talk struct{ c *ipc.Conn }

// sayPatience is for the other door to make room for a message. One that is stopped may never.
const sayPatience = 10 * time.Second

func (t talk) say(m message, attachments ...syscall.Conn) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	t.c.SetWriteDeadline(time.Now().Add(sayPatience))
	err = t.c.Send(b, attachments...)
	switch {
	case err == nil || errors.Is(err, ipc.ErrTooLarge) || errors.Is(err, ipc.ErrAttachment):
		return err
	case isLate(err):
		return fmt.Errorf("%w and heard nothing for %v", errSilent, sayPatience)
	}
	return fmt.Errorf("%w: %w", errOtherGone, err)
}

// fail says why this door does not go on. That may be in vain.
func (t talk) fail(err error) {
	text := err.Error()
	_ = t.say(message{Say: sayFailed, Text: text[:min(len(text), maxText)]})
}

// forEver is for hear to wait for what may come in days.
const forEver = time.Duration(0)

// hear waits for one of some words, until within is over or ctx ends, whose cause it returns then. What comes with the
// message is the caller's to close.
func (t talk) hear(ctx context.Context, within time.Duration, words ...string) (message, *ipc.Message, error) {
	deadline := time.Time{}
	if within != forEver {
		deadline = time.Now().Add(within)
	}
	t.c.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { t.c.SetReadDeadline(past) })
	defer stop()
	got, err := t.c.Receive()
	switch {
	case ctx.Err() != nil && isLate(err):
		return message{}, nil, context.Cause(ctx)
	case isLate(err):
		return message{}, nil, fmt.Errorf("%w for %v", errSilent, within)
	case errors.Is(err, ipc.ErrProtocol):
		return message{}, nil, err
	case err != nil:
		return message{}, nil, errOtherGone
	}
	m, err := parseMessage(got.Data, len(got.Attachments()))
	if err == nil && m.Say == sayFailed && !slices.Contains(words, sayFailed) {
		err = refusal{m.Text}
	}
	if err == nil && !slices.Contains(words, m.Say) {
		err = fmt.Errorf("it says %q, and it was to say %q", cut(m.Say), words)
	}
	if err != nil {
		got.Close()
		return message{}, nil, err
	}
	return m, got, nil
}

func isLate(err error) bool {
	var late net.Error
	return errors.As(err, &late) && late.Timeout()
}

// inheritedSockets are listening sockets that another process has opened: the door before this one, or one before that
// whose sockets systemd has kept. This door's listeners take those that they want when it starts.
type inheritedSockets []inheritedSocket

type inheritedSocket struct {
	socketName
	l     net.Listener // nil once it is taken
	index int          // of those from the door before; -1 for any other
}

// take returns the socket of a listener, nil if there is none. It is the caller's. There may be several with the port 0; named
// says for which names at an address there are listeners.
func (s inheritedSockets) take(lc *config.Listener, named func(address, name string) bool) net.Listener {
	found := -1
	for i := range s {
		if s[i].l == nil || s[i].Admin || s[i].Passed || s[i].Address != lc.Address {
			continue
		}
		if name := s[i].Listener; name == lc.Name || found < 0 && !named(lc.Address, name) {
			found = i
		}
	}
	return s.takeAt(found)
}

func (s inheritedSockets) takeAdmin(address string) net.Listener {
	return s.takeAt(slices.IndexFunc(s, func(i inheritedSocket) bool { return i.l != nil && i.Admin && i.Address == address }))
}

func (s inheritedSockets) takeAt(i int) net.Listener {
	if i < 0 {
		return nil
	}
	l := s[i].l
	s[i].l = nil
	return l
}

// taken are the indexes of those from the door before that are in use, by listeners or among those that were passed.
func (s inheritedSockets) taken(passed *passedSockets) []int {
	kept := []int{}
	for _, i := range s {
		if i.index >= 0 && i.l == nil && (!i.Passed || passed.isUsed(i.Address)) {
			kept = append(kept, i.index)
		}
	}
	return kept
}

// left are the addresses of the listeners' sockets that were not taken.
func (s inheritedSockets) left() []string {
	var addresses []string
	for _, i := range s {
		if i.l != nil && !i.Admin && !i.Passed {
			addresses = append(addresses, i.Address)
		}
	}
	return addresses
}

// close closes those that were not taken.
func (s inheritedSockets) close() {
	for i := range s {
		if l := s.takeAt(i); l != nil {
			l.Close()
		}
	}
}
