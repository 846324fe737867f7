package door

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/ipc"
)

// Predecessor is a running door, as the one sees it that is to serve in its place.
type Predecessor struct {
	t       talk
	ctx     context.Context
	pid     int
	build   string
	sockets inheritedSockets
	gone    bool // it has died, or there is nothing more to say
	unused  []string
}

// TakeOver tells the door that runs at a control endpoint, a path, that this process is to serve in its place, and gets its
// listening sockets. build is this program's. A process that a door has started as its successor talks to that one, wherever
// it is. Where no door runs the error is [ErrNoDoor]; on Windows it is [errors.ErrUnsupported].
//
// The running door goes on with what it does until Start, with Options.Predecessor, serves in its place; or until Fail, or
// the end of this process. ctx bounds all of that, until this process accepts.
func TakeOver(ctx context.Context, control, build string) (*Predecessor, error) {
	if !canTakeOver {
		return nil, errNoTakeover
	}
	c, err := ipc.Inherited()
	if err != nil {
		c, err = dialControl(ctx, control)
	}
	if err != nil {
		return nil, err
	}
	p := &Predecessor{t: talk{c}, ctx: ctx}
	err = p.t.say(message{Say: sayTakeover, Version: takeoverVersion, Build: build, PID: os.Getpid()})
	if err == nil {
		err = p.receiveSockets(build)
	}
	if errors.Is(err, errOtherGone) {
		p.gone, err = true, nil // what has come is what has clients, and is as good as all of it
	}
	if err != nil {
		p.Fail(err)
		return nil, p.inWords(err)
	}
	return p, nil
}

func (p *Predecessor) receiveSockets(build string) error {
	for more := true; more; {
		m, got, err := p.t.hear(p.ctx, readyTime, saySockets)
		if err != nil {
			return err
		}
		err = m.checkVersion(build)
		if err == nil {
			err = p.addSockets(&m, got)
		}
		got.Close()
		if err != nil {
			return err
		}
		p.build, more = m.Build, m.More
		p.pid = m.PID
		if peer, err := p.t.c.Peer(); err == nil && peer.PID != 0 {
			p.pid = peer.PID // what the kernel says
		}
	}
	return nil
}

func (p *Predecessor) addSockets(m *message, got *ipc.Message) error {
	if len(p.sockets)+len(m.Sockets) > maxAllNames {
		return fmt.Errorf("the running door has more than %d sockets", maxAllNames)
	}
	for i, name := range m.Sockets {
		l, err := got.Attachments()[i].Listener()
		if err != nil {
			return fmt.Errorf("the socket of %s: %w", cut(name.Address), err)
		}
		p.sockets = append(p.sockets, inheritedSocket{name, l, len(p.sockets)})
	}
	return nil
}

// PID returns the process of the running door.
func (p *Predecessor) PID() int { return p.pid }

// Unused returns the addresses at which the running door had listeners, and the one that has started in its place has none.
func (p *Predecessor) Unused() []string {
	if p == nil {
		return nil
	}
	return p.unused
}

// Fail tells the running door why this one will not serve in its place, and closes what came from it. After Start, and
// of nil, it does nothing.
func (p *Predecessor) Fail(err error) {
	if p == nil {
		return
	}
	if !p.gone {
		p.gone = true
		p.t.fail(err)
	}
	p.t.c.Close()
	p.sockets.close()
}

// inWords says what the running door did.
func (p *Predecessor) inWords(err error) error {
	var said refusal
	switch {
	case errors.As(err, &said):
		return fmt.Errorf("the running door, process %d, says: %w", p.pid, said)
	case errors.Is(err, errSilent):
		return fmt.Errorf("the running door, process %d, does not answer: %w", p.pid, err)
	}
	return err
}

// passed adds the sockets that the running door had from its parent to those that this one has.
func (p *Predecessor) passed(own map[string][]net.Listener) map[string][]net.Listener {
	all := make(map[string][]net.Listener)
	for i, s := range p.sockets {
		if s.Passed && len(own[s.Address]) == 0 {
			all[s.Address] = append(all[s.Address], p.sockets.takeAt(i))
		}
	}
	for name, ls := range own {
		all[name] = ls
	}
	return all
}

// awaitTurn tells the running door that this one is ready, with the indexes of the sockets that it uses, and waits until that
// accepts nothing any more, or has died.
func (p *Predecessor) awaitTurn(kept []int) error {
	if p.gone {
		return nil
	}
	err := p.t.say(message{Say: sayReady, Kept: kept})
	if err == nil || errors.Is(err, errOtherGone) { // then it may have said why before
		var got *ipc.Message
		if _, got, err = p.t.hear(p.ctx, readyTime, sayYours); err == nil {
			got.Close()
		}
	}
	if errors.Is(err, errOtherGone) {
		p.gone, err = true, nil
	}
	if err != nil {
		return p.inWords(err)
	}
	return nil
}

// succeed is called when this door accepts. It returns an error if the running door serves on, and this one must not.
// d.reloading is held.
func (d *Door) succeed(p *Predecessor, c *config.Config) error {
	leaving, err := p.leaves(cmp.Or(d.options.servingWithin, servingTime))
	var said refusal
	switch {
	case errors.As(err, &said):
		d.yield()
		return p.inWords(err)
	case errors.Is(err, errSilent):
		// It accepts nothing, so this door has to. It may be stopped, and leaves when it goes on.
		d.log.Warn("the door before this one does not answer; this one serves in its place", "pid", p.pid)
	case err != nil:
		d.log.Warn("the door before this one has died; this one serves in its place", "pid", p.pid, "error", err)
	default:
		d.log.Info("took over", "pid", p.pid, "build", p.build)
	}
	d.useControl(c, true)
	if err == nil {
		d.settle(p.t, leaving)
	}
	d.follow(p.t)
	return nil
}

// leaves tells the running door that this one serves, and waits until that leaves.
func (p *Predecessor) leaves(within time.Duration) (*ipc.Message, error) {
	if p.gone {
		return nil, errOtherGone
	}
	p.gone = true // there is nothing to fail any more
	err := p.t.say(message{Say: sayServing})
	if err != nil && !errors.Is(err, errOtherGone) { // then it may have said why before
		return nil, err
	}
	// Not until p.ctx ends: a door that is told to end meanwhile has to know as well which of the two serves.
	_, leaving, err := p.t.hear(context.Background(), within, sayLeaving)
	return leaving, err
}

// yield leaves the sockets to the door that serves on.
func (d *Door) yield() {
	for _, l := range d.plan.listeners {
		l.hold()
		l.close()
	}
	if a := d.admin; a != nil {
		a.hold()
		a.shared = true
		a.leave()
	}
}

// following is a door before this one, which may have something to give until it has ended.
type following struct {
	t    talk
	stop context.CancelFunc
	done chan struct{} // closed when nobody listens to it any more
}

// follow takes what a door before this one gives, until that has ended or this one leaves.
func (d *Door) follow(t talk) {
	ctx, stop := context.WithCancel(d.life)
	f := &following{t, stop, make(chan struct{})}
	d.mu.Lock()
	d.followed = append(d.followed, f)
	d.mu.Unlock()
	d.background.Go(func() {
		defer close(f.done)
		d.listenTo(ctx, t)
		if ctx.Err() == nil || d.life.Err() != nil { // else it is another's to listen to
			t.c.Close()
		}
	})
}

func (d *Door) listenTo(ctx context.Context, t talk) {
	for {
		// It has said that it is leaving, as a rule; or was silent then, and says so late.
		m, got, err := t.hear(ctx, forEver, sayLeaving, sayTarget, sayBefore)
		switch {
		case err != nil:
			return
		case m.Say == sayLeaving:
			d.settle(t, got)
		default:
			if err := d.take(&m, got); err != nil {
				d.log.Warn("the ends of some connections will not be heard of", "error", err)
			}
		}
	}
}

// settle is when the door before this one is leaving, as it says, and has left the control endpoint.
func (d *Door) settle(t talk, leaving *ipc.Message) {
	_ = t.say(message{Say: saySettled})
	d.takePeeking(leaving)
}

// take takes a channel that a door before this one has given.
func (d *Door) take(m *message, got *ipc.Message) error {
	defer got.Close()
	c, err := got.Attachments()[0].Channel(channelLimits)
	if err != nil {
		return err
	}
	if m.Say == sayTarget {
		m.Target.Conn = c
		return d.attach(*m.Target)
	}
	d.follow(talk{c})
	return nil
}

// stopFollowing leaves the doors before this one to the next.
func (d *Door) stopFollowing() {
	for i := 0; ; i++ { // while one is waited for it may bring another
		d.mu.RLock()
		all := d.followed
		d.mu.RUnlock()
		if i == len(all) {
			return
		}
		all[i].stop()
		<-all[i].done
	}
}

// takePeeking receives the connections that the door before this one had in the peek phase.
func (d *Door) takePeeking(leaving *ipc.Message) {
	defer leaving.Close()
	if len(leaving.Attachments()) == 0 {
		return
	}
	var l *usher.Listener
	c, err := leaving.Attachments()[0].Channel(ipc.Limits{})
	if err == nil {
		l, err = new(usher.ListenConfig).ListenOn(c)
	}
	if err != nil {
		d.log.Warn("connections in the peek phase stay with the door before this one", "error", err)
		return
	}
	d.peeking.Store(l) // in the place of that of a door before
	d.background.Go(func() {
		defer context.AfterFunc(d.life, func() { l.Close() })() // not all are found there, and a door that is stopped ends none
		defer l.Close()
		d.receiveFrom(l)
	})
}
