package door

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/ipc"
)

// departure is one call of surrender.
type departure struct {
	ctx    context.Context
	to     *usher.Target
	called sync.WaitGroup // connections that have not answered
	moved  atomic.Int64
}

// surrender offers the connections in the peek phase of some listeners to the door that takes this one's place, at t, until ctx
// ends. It returns how many that has claimed. The others go on here, with the time that they have left.
func (d *Door) surrender(ctx context.Context, t *usher.Target, listeners []*listener) (moved int) {
	to := &departure{ctx: ctx, to: t}
	for _, l := range listeners {
		l.waiting.callAll(to)
	}
	to.called.Wait()
	return int(to.moved.Load())
}

// callAll takes all out of the queue, and has their reads end: see conn.wait.
func (w *waiting) callAll(to *departure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.first != nil {
		to.called.Add(1)
		w.first.called = to
		w.evictLocked()
	}
}

// answersCall is for when it is known whether c goes to the next door, if it was called there.
func (c *conn) answersCall() {
	if c.called != nil {
		c.called.called.Done()
		c.called = nil
	}
}

// departs offers c to the next door, to which it was called. It returns false if c is here still, as it was.
func (c *conn) departs() bool {
	to := c.called
	defer c.answersCall()
	if err := c.becomeOffer(c.nc, c.passport()); err != nil {
		return false
	}
	if to.to.Handoff(to.ctx, c.offer) == nil {
		to.moved.Add(1)
		return true
	}
	c.answersCall() // for a door out of descriptors may need a while to have it back
	if !c.reclaim() {
		return true // lost, and counted as such
	}
	c.prefix = unread(c.nc.(*usher.Conn))
	return false
}

// passport is what the next door is told of a connection in the peek phase.
func (c *conn) passport() usher.Info {
	info := usher.Info{ID: c.origin.id, Listener: c.settings.Name}
	if c.client != c.peer {
		info.Client = c.client
	}
	state := peekState{age: time.Since(c.accepted), header: c.trusted, returned: c.origin.returned}
	info.State = state.encode()
	return info
}

// goOn takes what the old door says of a connection in the peek phase.
func (c *conn) goOn(info usher.Info) {
	state, err := parsePeekState(info.State)
	if err != nil { // it is served as one that is new
		c.door.log.Warn("the door before this one says what cannot be understood of a connection", c.origin.attr(), "error", err)
		state = peekState{header: c.settings.trusted.contain(c.peer.Addr())}
	}
	c.accepted = c.accepted.Add(-state.age)
	c.trusted = state.header
	c.origin.returned, c.origin.id = state.returned, cut(info.ID)
	if info.Client.IsValid() {
		c.client = info.Client
	}
}

// peekState is what one door tells the next of a connection in the peek phase, beside what there is a field for:
//
//	version:u8 = 1, flags:u8, age:u32 in milliseconds; little-endian
type peekState struct {
	age      time.Duration // since it was accepted, or given back
	header   bool          // a header of the PROXY protocol has yet to come
	returned bool          // a taker has given it back
}

const (
	peekStateVersion = 1
	peekStateLen     = 6

	flagHeader   = 1 << 0
	flagReturned = 1 << 1
)

func (s peekState) encode() []byte {
	flags := byte(0)
	if s.header {
		flags |= flagHeader
	}
	if s.returned {
		flags |= flagReturned
	}
	age := min(max(s.age.Milliseconds(), 0), math.MaxUint32)
	return binary.LittleEndian.AppendUint32([]byte{peekStateVersion, flags}, uint32(age))
}

func parsePeekState(b []byte) (peekState, error) {
	if len(b) == 0 || b[0] != peekStateVersion {
		return peekState{}, fmt.Errorf("its state %.8x is not of version %d", b, peekStateVersion)
	}
	if len(b) != peekStateLen {
		return peekState{}, fmt.Errorf("its state has %d bytes, want %d", len(b), peekStateLen)
	}
	flags := b[1]
	if flags&^(flagHeader|flagReturned) != 0 {
		return peekState{}, fmt.Errorf("its state has unknown flags %#x", flags)
	}
	age := time.Duration(binary.LittleEndian.Uint32(b[2:])) * time.Millisecond
	return peekState{age: age, header: flags&flagHeader != 0, returned: flags&flagReturned != 0}, nil
}

// detached is a channel to a taker which a door leaves to the next: what it tells of the connections that it has, and those
// that it gives back, come there then. But for Conn, which is an attachment, it travels as JSON.
type detached struct {
	Path   string    `json:"path"`
	Name   string    `json:"name"`   // of the endpoint
	Routes []string  `json:"routes"` // that led there
	Since  time.Time `json:"since"`  // when the door started that has handed over the first
	State  []byte    `json:"state"`

	Conn *ipc.Conn `json:"-"`
}

// detach ends targets that were given up, and returns the channels on which there is something to come, whose Conn is the caller's
// to close. Offers that are open are waited for until ctx ends. What the door still hands over from then on goes over new channels.
func (d *Door) detach(ctx context.Context, targets map[*usher.Target]parting) (all []detached, err error) {
	var mu sync.Mutex
	var each sync.WaitGroup
	for t, of := range targets {
		each.Go(func() {
			channels, detachErr := t.Detach(ctx)
			d.partings.remove(t)
			mu.Lock()
			defer mu.Unlock()
			if detachErr != nil && !errors.Is(detachErr, net.ErrClosed) { // closed: its takers have told all
				err = errors.Join(err, detachErr)
			}
			for _, c := range channels {
				all = append(all, detached{
					Path: of.endpoint.path, Name: of.endpoint.name, Routes: of.endpoint.routes(), Since: of.since, State: c.State, Conn: c.Conn,
				})
			}
		})
	}
	each.Wait()
	return all, err
}

// giveUpTargets takes their targets from the endpoints, and adds those that make no offers already.
func (d *Door) giveUpTargets() map[*usher.Target]parting {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := d.partings.all() // under the lock: what an endpoint lets go meanwhile is in one or the other
	for _, there := range d.endpoints {
		for _, e := range there {
			if t := e.giveUpTarget(); t != nil {
				all[t] = parting{e, d.started}
			}
		}
	}
	return all
}

// giveUpTarget returns e's target, if it has one, which is another's to end. The next that is handed over there connects.
func (e *endpoint) giveUpTarget() *usher.Target {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.target
	e.target, e.taker = nil, 0
	return t
}

// maxRoutesTold bounds how long a detached is. The next door knows by itself the routes that its own configuration has.
const maxRoutesTold = 1000

// routes are the names of those that have led to e, maxRoutesTold at most.
func (e *endpoint) routes() []string {
	names := []string{}
	e.stats.routes.Range(func(name, _ any) bool {
		names = append(names, name.(string))
		return len(names) < maxRoutesTold
	})
	slices.Sort(names)
	return names
}

// attach goes on with a channel that the door before this one has detached. It takes over x.Conn, also if it fails, as it does
// when whoever is there may not serve the endpoint by this door's configuration.
func (d *Door) attach(x detached) error {
	e := d.endpointOf(&x)
	dialer := e.dialer()
	dialer.Lost = nil // the channel has ended for offers, as this door counts
	dialer.Ended = func(r usher.Report) { e.reported(r, x.Since) }
	t, err := dialer.Attach(x.Path, x.Conn, x.State)
	if err != nil {
		return fmt.Errorf("endpoint %s: %w", e.name, err)
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.draining { // nothing may be added to background any more
		t.Close()
		return errShutDown
	}
	e.seeOff(t, x.Since)
	return nil
}

// endpointOf returns the endpoint of a detached channel: that which the plan has, or one that nothing is handed over to.
func (d *Door) endpointOf(x *detached) *endpoint {
	d.mu.RLock()
	defer d.mu.RUnlock()
	policy := d.plan.policies.of(x.Path)
	e := findEndpoint(d.endpoints[x.Path], policy)
	if e == nil {
		e = d.newEndpoint(x.Path, x.Name, policy)
		e.closed = true
	}
	for _, name := range x.Routes {
		e.stats.routes.Store(name, struct{}{})
	}
	return e
}

// partings are the targets that make no more offers, and stay until their takers have told all. Its zero value is ready.
type partings struct {
	mu      sync.Mutex
	targets map[*usher.Target]parting
}

type parting struct {
	endpoint *endpoint
	since    time.Time // when the door started that has handed over the first
}

func (p *partings) add(t *usher.Target, of parting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.targets == nil {
		p.targets = make(map[*usher.Target]parting)
	}
	p.targets[t] = of
}

func (p *partings) remove(t *usher.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.targets, t)
}

// all returns a copy.
func (p *partings) all() map[*usher.Target]parting {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[*usher.Target]parting, len(p.targets))
	maps.Copy(all, p.targets)
	return all
}
