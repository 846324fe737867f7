package door

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/ipc"
)

// handover is a takeover as the door sees it that is to be replaced.
type handover struct {
	door  *Door
	life  context.Context // ends when the door is told to end, with the reason
	end   context.CancelCauseFunc
	done  chan struct{} // closed when it is decided who serves
	pid   int           // of the new door, 0 while that is not known
	build string

	sockets []sharedSocket
	paused  bool // this door accepts nothing
	after   talk // the new door serves, and this is the channel to it
	peeking *ipc.Conn
}

// sharedSocket is a listening socket that the new door gets, too. It stays this door's.
type sharedSocket struct {
	socketName
	socket syscall.Conn
	of     *listener // nil for that of the admin address and what the parent process has passed
}

// How long a new door may take, if the options do not say otherwise.
const (
	readyTime   = 30 * time.Second // to load its configuration and open what it needs
	servingTime = 10 * time.Second // to accept, and to listen at the control endpoint
)

// ErrUpgrading is what Reload returns while another door is about to serve in the place of this one, which has loaded its own
// configuration. If it does not come to that, ReloadMissed tells.
var ErrUpgrading = errors.New("another door is about to serve in the place of this one")

// beginHandover reserves the door for one takeover.
func (d *Door) beginHandover() (*handover, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining || d.isReplaced {
		return nil, errShutDown
	}
	if d.handing != nil {
		return nil, errors.New("another door is about to take over already")
	}
	h := &handover{door: d, done: make(chan struct{})}
	h.life, h.end = context.WithCancelCause(context.Background())
	d.handing = h
	return h, nil
}

// finish says that it is decided who serves.
func (h *handover) finish(replaced bool) {
	d := h.door
	d.mu.Lock()
	d.handing = nil
	d.isReplaced = replaced
	missed := d.reloadMissed
	d.reloadMissed = false
	d.mu.Unlock()
	h.end(nil)
	close(h.done)
	if replaced {
		close(d.replaced)
		return
	}
	if missed {
		select {
		case d.missed <- struct{}{}:
		default: // it has been told, and has not looked yet
		}
	}
}

// runWithChild is run with a door that this one starts.
func (h *handover) runWithChild() error {
	child, t, err := h.door.startChild()
	if err != nil {
		h.finish(false)
		return err
	}
	h.pid = child.cmd.Process.Pid
	m, got, err := t.hear(h.life, cmp.Or(h.door.options.readyWithin, readyTime), sayTakeover)
	if err == nil {
		got.Close()
		err = m.checkVersion(h.door.options.Version)
	}
	if err == nil {
		h.of(t, &m)
		err = h.run(t)
	} else {
		t.fail(err)
		h.finish(false)
		err = h.inWords("before it was ready", err)
	}
	if err == nil {
		h.door.successor.Store(child)
		return nil
	}
	t.c.Close()
	if !h.paused { // else it may have clients by now, and ends when they have
		h.door.background.Go(child.endSoon)
	}
	return child.why(err)
}

// of notes who takes over.
func (h *handover) of(t talk, m *message) {
	h.pid, h.build = m.PID, m.Build
	if peer, err := t.c.Peer(); err == nil && peer.PID != 0 {
		h.pid = peer.PID // what the kernel says
	}
}

// run goes through a takeover with the new door at the other end of t. When it returns nil that serves, and handOn is
// due; t is h's until then.
func (h *handover) run(t talk) error {
	h.awaitReload()
	h.door.log.Info("another door is about to take over", "pid", h.pid, "build", h.build)
	err := h.negotiate(t)
	if err != nil {
		h.resume()
		t.fail(err)
		h.finish(false)
		return err
	}
	h.leave(t)
	h.door.work.Add(1) // handOn: what comes back until it is done is this door's to serve
	h.finish(true)
	return nil
}

// awaitReload waits for a reload that is under way. All that come later are refused until it is decided who serves: so what
// reloading guards changes only here, and whoever asks for the sockets, or is to end, need not wait for the new door.
func (h *handover) awaitReload() {
	h.door.reloading.Lock()
	defer h.door.reloading.Unlock()
}

// negotiate returns nil when the new door serves, and this one accepts nothing.
func (h *handover) negotiate(t talk) error {
	if err := h.share(t); err != nil {
		return err
	}
	m, got, err := t.hear(h.life, cmp.Or(h.door.options.readyWithin, readyTime), sayReady)
	if err != nil {
		return h.inWords("before it was ready", err)
	}
	got.Close()
	h.pause()
	if err := t.say(message{Say: sayYours}); err != nil {
		return h.inWords("before it served", err)
	}
	within := cmp.Or(h.door.options.servingWithin, servingTime)
	_, got, err = t.hear(h.life, within, sayServing)
	if errors.Is(err, errSilent) {
		// It may have been this process that was stopped, and not have looked at what came in time.
		var late error
		if _, got, late = t.hear(h.life, lastLook, sayServing); !errors.Is(late, errSilent) {
			err = late
		}
	}
	if err != nil {
		return h.inWords("before it served", err)
	}
	got.Close()
	h.keep(m.Kept)
	return nil
}

const lastLook = 50 * time.Millisecond

// inWords says what the new door did, if it has not said so itself.
func (h *handover) inWords(when string, err error) error {
	switch {
	case errors.Is(err, errOtherGone):
		return fmt.Errorf("process %d has ended %s: %w", h.pid, when, err)
	case errors.Is(err, errSilent):
		return fmt.Errorf("process %d was too slow: %w %s", h.pid, err, when)
	}
	return err
}

// share sends the door's listening sockets.
func (h *handover) share(t talk) error {
	d := h.door
	h.sockets = d.shareable()
	m := message{Say: saySockets, Version: takeoverVersion, Build: d.options.Version, PID: os.Getpid()}
	all := h.sockets
	for first := true; first || len(all) > 0; first = false {
		some := all[:min(len(all), maxSockets)]
		all = all[len(some):]
		m.Sockets, m.More = nil, len(all) > 0
		var sockets []syscall.Conn
		for _, s := range some {
			m.Sockets = append(m.Sockets, s.socketName)
			sockets = append(sockets, s.socket)
		}
		if err := t.say(m, sockets...); err != nil {
			return h.inWords("before it was ready", err)
		}
	}
	return nil
}

// shareable returns the door's listening sockets. No configuration is applied meanwhile.
func (d *Door) shareable() []sharedSocket {
	all := d.passed.shareable()
	for _, l := range d.plan.listeners {
		if !isPassed(l.address) {
			all = append(all, sharedSocket{socketName{Address: l.address, Listener: l.settings.Load().Name}, l.from.share(), l})
		}
	}
	if a := d.admin; a != nil && !isPassed(a.address) {
		if s, ok := a.l.Listener.(syscall.Conn); ok {
			all = append(all, sharedSocket{socketName: socketName{Address: a.address, Admin: true}, socket: s})
		}
	}
	return all
}

// pause stops accepting. Clients wait in the queues of the sockets, which the new door has, too.
func (h *handover) pause() {
	h.paused = true
	for _, l := range h.door.plan.listeners {
		l.hold()
	}
	h.door.admin.hold()
}

// resume is for a takeover that has failed.
func (h *handover) resume() {
	if !h.paused {
		return
	}
	for _, l := range h.door.plan.listeners {
		l.resume()
	}
	h.door.admin.resume()
}

// keep notes which sockets the new door uses. What waits in the queues of the others is this door's to serve.
func (h *handover) keep(kept []int) {
	for i, s := range h.sockets {
		shared := slices.Contains(kept, i)
		switch {
		case s.of != nil:
			s.of.shared = shared
		case s.Admin:
			h.door.admin.shared = shared
		}
		for _, l := range h.door.plan.listeners {
			if s.Passed && l.address == systemdPrefix+s.Address { // which has a descriptor of its own
				l.shared = shared
			}
		}
	}
}

// leave is when the new door serves. It closes what that has as well, and leaves it the control endpoint.
func (h *handover) leave(t talk) {
	d := h.door
	if d.options.MainPID != nil {
		d.options.MainPID(h.pid) // before the new door hears that it may tell systemd something
	}
	for _, l := range d.plan.listeners {
		if !l.shared {
			l.resume()
			l.stop()
			continue
		}
		l.close()
	}
	d.admin.leave()
	d.log.Info("another door serves now; this one ends when its connections have",
		"pid", h.pid, "build", h.build, "connections", d.stats.open.Load())
	h.after = t
	d.stopFollowing()
	h.sayLeaving()
	if _, got, err := t.hear(h.life, cmp.Or(d.options.servingWithin, servingTime), saySettled); err == nil {
		got.Close()
	}
	d.control.stopListening()
}

// sayLeaving sends the new door a channel for connections in the peek phase. Without one they stay here.
func (h *handover) sayLeaving() {
	ours, theirs, err := ipc.Pair()
	if err == nil {
		defer theirs.Close()
		err = h.after.say(message{Say: sayLeaving}, theirs)
		if err != nil {
			ours.Close()
		} else {
			h.peeking = ours
		}
	}
	if err != nil {
		_ = h.after.say(message{Say: sayLeaving})
	}
}

// greetTime is for the new door to greet on a channel that it has been sent, and for the last offers to takers to be
// answered.
const (
	greetTime  = 5 * time.Second
	detachTime = 5 * time.Second
)

// handOn gives the new door what this one still has and can give: connections in the peek phase, and its channels to takers,
// so that the ends of connections are reported, and connections given back, there. It returns when this door has none of either
// any more, for a connection that stayed here, or comes back meanwhile, may yet be handed over.
func (h *handover) handOn() {
	defer h.after.c.Close()
	defer h.door.work.Done()
	h.surrender()
	h.passOn()
	h.detach()
	h.door.work.waitAsLast()
	for h.detach() {
		h.door.work.waitAsLast()
	}
}

// passOn gives the new door the channels to the doors before this one.
func (h *handover) passOn() {
	for _, f := range h.door.followed {
		err := h.after.say(message{Say: sayBefore}, f.t.c)
		f.t.c.Close()
		if err != nil && !errors.Is(err, net.ErrClosed) {
			h.door.log.Warn("the ends of some connections of doors before this one will not be heard of", "error", err)
		}
	}
}

func (h *handover) surrender() {
	if h.peeking == nil {
		return
	}
	ctx, cancel := context.WithTimeout(h.door.life, greetTime)
	defer cancel()
	t, err := new(usher.Dialer).DialOn(ctx, h.peeking)
	if err != nil {
		h.door.log.Warn("connections in the peek phase stay with this door", "error", err)
		return
	}
	defer t.Close()
	moved := h.door.surrender(ctx, t, h.shared())
	h.door.log.Debug("connections in the peek phase have gone to the new door", "connections", moved)
}

// shared are the listeners that the new door has, too. To it a connection of another would be nobody's.
func (h *handover) shared() []*listener {
	return slices.DeleteFunc(slices.Clone(h.door.plan.listeners), func(l *listener) bool { return !l.shared })
}

// detach returns false if there was no channel: then nothing can have come back meanwhile.
func (h *handover) detach() bool {
	ctx, cancel := context.WithTimeout(h.door.life, detachTime)
	defer cancel()
	targets := h.door.giveUpTargets()
	all, err := h.door.detach(ctx, targets)
	if err != nil {
		h.door.log.Warn("not all channels to takers can be left to the new door", "error", err)
	}
	for i := range all {
		err := h.after.say(message{Say: sayTarget, Target: &all[i]}, all[i].Conn)
		all[i].Conn.Close()
		if err != nil {
			h.door.log.Warn("the ends of a taker's connections will not be heard of", "endpoint", all[i].Name, "error", err)
		}
	}
	return len(targets) > 0
}

// Sockets returns the sockets of the door's listeners by the addresses of the configuration, without those that its parent
// process has opened. They stay the door's.
func (d *Door) Sockets() map[string][]syscall.Conn {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	all := make(map[string][]syscall.Conn)
	for _, s := range d.shareable() {
		if s.of != nil {
			all[s.Address] = append(all[s.Address], s.socket)
		}
	}
	return all
}
