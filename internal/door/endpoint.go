package door

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/time/rate"
)

// endpoint is where takers are handed connections. It connects when the first is needed, or as soon as
// somebody listens, and the usher.Target in it connects anew by itself.
type endpoint struct {
	door   *Door
	path   string // of its socket or pipe
	name   string
	policy policy // another policy makes another endpoint
	stats  *endpointStats
	pace   *rate.Limiter // of what its takers give back

	holders int // plans; door.mu guards it

	connecting chan struct{} // a lock that can be waited for with a context
	greeting   atomic.Int32  // how many hold it or wait for it
	soon       atomic.Int32  // reasons to connect that were not seen to
	owing      atomic.Int64  // since when its taker has offers and answers none, in nanoseconds of Unix time; 0 if it does

	mu         sync.Mutex
	target     *usher.Target
	taker      int       // the process that the log says is connected, 0 if none
	failed     error     // the last try, if that failed
	hangs      error     // why it is not tried again
	hangsUntil time.Time // before then
	closed     bool
}

// holdEndpoint finds or makes the endpoint that a route names, for p, which holds it from then on.
func (p *plan) holdEndpoint(route, name string) (*endpoint, error) {
	path, err := p.policies.path(name)
	if err != nil {
		return nil, err
	}
	p.door.watch.folderOf(path)
	p.named[path] = true
	p.door.mu.Lock()
	e := p.holdLocked(name, path)
	p.door.mu.Unlock()
	e.stats.routes.Store(route, struct{}{})
	return e, nil
}

// holdLocked is called with door.mu held.
func (p *plan) holdLocked(name, path string) *endpoint {
	d := p.door
	policy := p.policies.of(path)
	e := findEndpoint(d.endpoints[path], policy)
	if e == nil {
		e = d.newEndpoint(path, name, policy)
		// A new slice: appeared reads the old one without the lock.
		d.endpoints[path] = append(slices.Clip(d.endpoints[path]), e)
	}
	e.holders++
	p.endpoints = append(p.endpoints, e)
	return e
}

func (d *Door) newEndpoint(path, name string, policy policy) *endpoint {
	return &endpoint{
		door: d, path: path, name: name, policy: policy,
		stats: d.stats.endpoint(name), pace: newReturnsPace(), connecting: make(chan struct{}, 1),
	}
}

// findEndpoint returns that of a policy, or nil.
func findEndpoint(there []*endpoint, policy policy) *endpoint {
	at := slices.IndexFunc(there, func(e *endpoint) bool { return e.policy.words == policy.words })
	if at < 0 {
		return nil
	}
	return there[at]
}

// autoEndpoint returns the endpoint of a host's own name, nil where nobody listens there. It is none that a
// route names: what that asks of clients would be in vain. The names are those that clients ask for: nothing is
// kept of one without a socket.
func (p *plan) autoEndpoint(host string) *endpoint {
	if host == "" {
		return nil
	}
	path, err := p.policies.path(host)
	if err != nil || p.named[path] {
		return nil // no name for an endpoint, as an IPv6 address
	}
	d := p.door
	d.mu.RLock()
	e := p.autos[path]
	d.mu.RUnlock()
	if e != nil && d.watch.has(path) {
		return e
	}
	if !d.watch.exists(path) {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if e = p.autos[path]; e == nil {
		p.sweepAutos()
		e = p.holdLocked(host, path)
		e.stats.routes.Store(autoRoute, struct{}{})
		p.autos[path] = e
	}
	return e
}

// minSweepAutos is how many endpoints auto routes may have used before any is looked at again.
const minSweepAutos = 256

// sweepAutos lets go the endpoints that auto routes have used and that are not there any more, when there are
// twice as many as the last time. door.mu is held.
func (p *plan) sweepAutos() {
	if len(p.autos) < max(minSweepAutos, p.sweepAt) {
		return
	}
	gone := make(map[*endpoint]bool)
	for path, e := range p.autos {
		if !p.door.watch.has(path) {
			delete(p.autos, path)
			gone[e] = true
		}
	}
	p.endpoints = slices.DeleteFunc(p.endpoints, func(e *endpoint) bool { return gone[e] })
	for e := range gone {
		e.letGo()
	}
	p.sweepAt = 2 * len(p.autos)
}

// handoff hands o over to the taker, counts what came of it, and returns when the taker has claimed. ctx has a deadline.
func (e *endpoint) handoff(ctx context.Context, o *usher.Offer) (claimed time.Time, err error) {
	for {
		t, err := e.connected(ctx)
		if err != nil {
			return time.Time{}, err
		}
		claimed, err = e.handoffTo(ctx, t, o)
		if !errors.Is(err, net.ErrClosed) || !e.hasGivenUp(t) {
			return claimed, err
		}
	}
}

// hasGivenUp says whether t, which is closed, was left to the next door: then another may be connected.
func (e *endpoint) hasGivenUp(t *usher.Target) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.closed && e.target != t
}

func (e *endpoint) handoffTo(ctx context.Context, t *usher.Target, o *usher.Offer) (claimed time.Time, err error) {
	if decided, made, err := e.tryHandoff(ctx, t, o); made && !e.count(err) {
		return decided, err
	}
	_, there := t.Taker()
	e.offers()
	err = t.Handoff(ctx, o)
	if err == nil || there || errors.Is(err, usher.ErrDeclined) {
		e.count(err)
	} else {
		e.note(err) // nobody was made an offer
	}
	if err == nil && !there {
		e.announce(t)
	}
	return time.Now(), err
}

// tryHandoff makes an offer if that needs no waiting, and waits for what comes of it. It does so before Handoff does
// because that hears of a claim as late as a patient target's taker may tell, and does not say when it was.
func (e *endpoint) tryHandoff(ctx context.Context, t *usher.Target, o *usher.Offer) (decided time.Time, made bool, err error) {
	e.offers()
	until, _ := ctx.Deadline()
	told := make(chan struct{})
	made = t.TryHandoff(o, time.Until(until), func(at time.Time, outcome error) {
		decided, err = at, outcome
		close(told)
	})
	if made {
		<-told // when ctx's time is up, at the latest, or a door that has to end at once closes the target
	}
	return decided, made, err
}

// offers is called before an offer is made.
func (e *endpoint) offers() {
	if e.owing.Load() == 0 || e.open() == 0 {
		e.owing.Store(time.Now().UnixNano())
	}
}

// isStuck says whether its taker has had offers for longer than any should need, and answers none. The number of its
// offers alone shows that late, for those of a good one are some as well: what it claims, it tells some milliseconds later.
func (e *endpoint) isStuck() bool {
	since := e.owing.Load()
	return since != 0 && time.Since(time.Unix(0, since)) > stuckAfter
}

const stuckAfter = 100 * time.Millisecond

// count counts what came of an offer that was made to a taker, and says whether that has gone: then there may be another
// by now. Any other error is the taker's last word on that connection.
func (e *endpoint) count(err error) (gone bool) {
	switch {
	case err == nil:
		e.stats.claimed.Add(1)
		e.owing.Store(0)
		return false
	case errors.Is(err, usher.ErrDeclined):
		e.stats.declined.Add(1)
		e.owing.Store(0)
	default:
		e.stats.withdrawn.Add(1)
		gone = !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ipc.ErrProtocol)
	}
	e.note(err)
	return gone
}

// connected returns the target, and connects it first where there is none. While somebody listens who has not
// greeted in time, it fails at once: one connection after the other would wait for as long as it may.
func (e *endpoint) connected(ctx context.Context) (*usher.Target, error) {
	if t := e.current(); t != nil {
		return t, nil
	}
	if err := e.hanging(); err != nil {
		return nil, err
	}
	return e.connect(ctx, e.hanging)
}

// connect connects unless somebody else does meanwhile, or giveUp says then why not to.
func (e *endpoint) connect(ctx context.Context, giveUp func() error) (*usher.Target, error) {
	e.greeting.Add(1)
	defer e.greeting.Add(-1)
	select {
	case e.connecting <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("endpoint %s: another connection waits for its taker's greeting: %w", e.name, ctx.Err())
	}
	defer func() { <-e.connecting }()
	if t := e.current(); t != nil {
		return t, nil
	}
	if err := giveUp(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // no fault of the taker's
		return nil, fmt.Errorf("endpoint %s: there was no time left to connect: %w", e.name, ctx.Err())
	}
	return e.dial(ctx)
}

func (e *endpoint) dial(ctx context.Context) (*usher.Target, error) {
	d := e.dialer()
	var t *usher.Target
	err := e.door.reserve.use(func() (err error) {
		t, err = d.Dial(ctx, e.path)
		return err
	})
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			e.hang(err)
		}
		e.note(err)
		return nil, err
	}
	if !e.adopt(t) {
		t.Close()
		return nil, fmt.Errorf("endpoint %s is not used any more", e.name)
	}
	e.announce(t)
	return t, nil
}

func (e *endpoint) dialer() usher.Dialer {
	return usher.Dialer{Policy: e.policy.Policy, Patient: patient, Ended: e.ended, Returned: e.returned, Lost: e.lost}
}

// patient is where TryHandoff makes offers. Elsewhere a connection's goroutine waits for its claim to be told.
const patient = runtime.GOOS == "linux"

// hangTime is how long an endpoint is left alone where somebody listens and does not greet. Meanwhile it is tried
// in the background, and that takes less time.
const hangTime = connectTimeout + 5*time.Second

func (e *endpoint) hang(err error) {
	e.mu.Lock()
	e.hangs, e.hangsUntil = err, time.Now().Add(hangTime)
	e.mu.Unlock()
	e.connectSoon()
}

// hanging says why not to wait for a greeting now.
func (e *endpoint) hanging() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Now().Before(e.hangsUntil) {
		return fmt.Errorf("endpoint %s: who listens there has not greeted: %w", e.name, e.hangs)
	}
	return nil
}

// adopt makes t the endpoint's target, unless a reload has closed the endpoint meanwhile.
func (e *endpoint) adopt(t *usher.Target) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.target = t
	}
	return !e.closed
}

func (e *endpoint) current() *usher.Target {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.target
}

// appeared is told that somebody has begun to listen.
func (e *endpoint) appeared() {
	e.mu.Lock()
	e.hangsUntil = time.Time{} // it may be another
	e.mu.Unlock()
	e.connectSoon()
}

// connectTimeout is for a taker that has just begun to listen to greet.
const connectTimeout = 10 * time.Second

// connectSoon connects in the background, so that the first connection does not have to wait for that, and
// operators see who is there.
func (e *endpoint) connectSoon() {
	if e.soon.Add(1) > 1 {
		return // one is enough, however often its socket is touched
	}
	e.door.background.Go(func() {
		for asked := int32(1); asked > 0; { // again, if there was another reason to meanwhile
			seen := e.soon.Load()
			e.connectNow()
			asked = e.soon.Add(-seen)
		}
	})
}

func (e *endpoint) connectNow() {
	ctx, cancel := context.WithTimeout(e.door.life, connectTimeout)
	defer cancel()
	t, err := e.connect(ctx, func() error { return nil })
	if err != nil {
		return
	}
	if err := e.door.reserve.use(func() error { return t.Connect(ctx) }); err != nil {
		e.note(err)
		return
	}
	e.announce(t)
}

// announce logs who is connected, once.
func (e *endpoint) announce(t *usher.Target) {
	who, ok := t.Taker()
	if !ok {
		return
	}
	e.mu.Lock()
	known := who.PID == e.taker
	if !known {
		e.taker, e.failed = who.PID, nil
	}
	e.mu.Unlock()
	if known {
		return
	}
	e.door.log.Info("a taker is connected", "endpoint", e.name, "pid", who.PID)
}

// note remembers a failure for the operator.
func (e *endpoint) note(err error) {
	e.mu.Lock()
	e.failed = err
	e.mu.Unlock()
	if errors.Is(err, ipc.ErrDenied) {
		e.door.log.Warn("who listens at an endpoint may not serve it", "endpoint", e.name, "error", err)
	}
}

// lost is told of a taker whose channel has ended.
func (e *endpoint) lost(who ipc.Peer, err error) {
	e.mu.Lock()
	e.failed = err
	if e.taker == who.PID {
		e.taker = 0
	}
	t := e.target
	e.mu.Unlock()
	e.door.log.Info("a taker is gone", "endpoint", e.name, "pid", who.PID, "reason", err)
	if t != nil { // a Handoff may have gone on to another one before this was heard
		e.announce(t)
	}
}

// ended is told of a connection that a taker had.
func (e *endpoint) ended(r usher.Report) { e.reported(r, e.door.started) }

// reported takes a taker's word: it may say what it likes of its own connections, of routes that lead to it. None was
// handed over before since.
func (e *endpoint) reported(r usher.Report, since time.Time) {
	route := r.Info.Route
	if _, ours := e.stats.routes.Load(route); !ours {
		e.door.log.Warn("a taker reports a connection of a route that does not lead to it", "endpoint", e.name, "pid", r.Taker.PID, "route", cut(route))
		return
	}
	client := r.Info.Client
	if !client.IsValid() {
		client = r.Remote
	}
	host := r.Info.Host
	if host == "" {
		host = r.Info.ServerName
	}
	if r.Missed > 0 {
		e.door.log.Warn("a taker has not kept reports that this door was slow to read", "endpoint", e.name, "pid", r.Taker.PID, "connections", r.Missed)
	}
	e.door.ended(route, ending{
		id: cut(r.Info.ID), client: client, host: cut(host), target: e.name,
		received: min(r.Received, maxReported), sent: min(r.Sent, maxReported),
		lasted: min(r.Duration, time.Since(since)), handedOn: r.HandedOn,
	})
}

// maxReported is what is believed of the bytes of one connection, so that no counter can be made to run over.
const maxReported = 1 << 50

// cut bounds what somebody else has the door log.
func cut(s string) string {
	const most = 256
	if len(s) > most {
		return s[:most]
	}
	return s
}

// letGo is called by plans, with door.mu held.
func (e *endpoint) letGo() {
	if e.holders--; e.holders > 0 {
		return
	}
	d := e.door
	rest := slices.DeleteFunc(slices.Clone(d.endpoints[e.path]), func(other *endpoint) bool { return other == e })
	if d.endpoints[e.path] = rest; len(rest) == 0 {
		delete(d.endpoints, e.path)
	}
	e.close()
}

func (e *endpoint) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if t := e.target; t != nil {
		e.seeOff(t, e.door.started)
	}
}

// seeOff waits, in the background, for what takers still tell on a target that makes no more offers: what was handed over
// there is reported when it ends, and may be given back. since is as reported has it.
func (e *endpoint) seeOff(t *usher.Target, since time.Time) {
	d := e.door
	d.partings.add(t, parting{e, since})
	d.background.Go(func() {
		defer d.partings.remove(t)
		t.Shutdown(d.life)
	})
}

// cut ends the endpoint at once: what is on offer comes back, and its taker's reports are lost.
func (e *endpoint) cut() {
	e.mu.Lock()
	e.closed = true // so that none is connected any more
	t := e.target
	e.mu.Unlock()
	if t != nil {
		t.Close()
	}
}

// open is how many offers its taker has not answered: few are a sign of a taker that is quick.
func (e *endpoint) open() int {
	if t := e.current(); t != nil {
		return t.Open()
	}
	return 0
}

// endpointsFor returns the endpoints to try, in this order.
func (p *plan) endpointsFor(t *targetPlan, host string) []*endpoint {
	if !t.auto {
		return t.order()
	}
	if e := p.autoEndpoint(host); e != nil {
		return []*endpoint{e}
	}
	return nil // it was there when the route was chosen
}

// order returns the endpoints of a target in the order in which they are to be tried: those where somebody
// listens first, and of them the one with the fewest offers under way. Ties go round.
func (t *targetPlan) order() []*endpoint {
	n := len(t.endpoints)
	if n == 1 {
		return t.endpoints
	}
	order, weights := make([]*endpoint, n), make([]int, n)
	first := int(t.turn.Add(1) % uint32(n))
	for i := range n {
		e := t.endpoints[(first+i)%n]
		at, w := i, e.weight()
		for ; at > 0 && weights[at-1] > w; at-- {
			order[at], weights[at] = order[at-1], weights[at-1]
		}
		order[at], weights[at] = e, w
	}
	return order
}

func (e *endpoint) weight() int {
	open, greeting := e.open(), int(e.greeting.Load())
	w := open + greeting
	if open > 0 && e.isStuck() {
		w += 1 << 14 // after all that answer
	}
	if greeting > 0 && e.current() == nil {
		w += 1 << 15 // after all that have greeted: this one may never
	}
	if !e.door.watch.has(e.path) || e.hanging() != nil {
		w += 1 << 16 // after all that are there
	}
	return w
}

func (e *endpoint) status() admin.EndpointStatus {
	e.mu.Lock()
	target, failed := e.target, e.failed
	e.mu.Unlock()
	s := admin.EndpointStatus{
		Name: e.name, Path: e.path, Takers: []admin.TakerStatus{},
		Claimed: e.stats.claimed.Load(), Declined: e.stats.declined.Load(), Withdrawn: e.stats.withdrawn.Load(),
		Returned: e.stats.returned.Load(),
	}
	if target != nil {
		if who, ok := target.Taker(); ok {
			s.State = "up"
			s.Takers = append(s.Takers, admin.TakerStatus{PID: who.PID, User: userName(who), Open: target.Open()})
			return s
		}
	}
	switch {
	case !e.door.watch.has(e.path) || errors.Is(failed, fs.ErrNotExist):
		s.State = "absent"
	case failed != nil:
		s.State = "refused"
	default:
		s.State = "idle"
	}
	if failed != nil {
		s.Error = failed.Error()
	}
	return s
}

// userNames are those that were looked up before: a status with many takers should not read /etc/passwd for
// each.
var userNames sync.Map // of string by ipc.Peer without its PID

func userName(who ipc.Peer) string {
	who.PID = 0
	if name, ok := userNames.Load(who); ok {
		return name.(string)
	}
	id := who.SID
	if id == "" {
		id = strconv.Itoa(who.UID)
	}
	name := id
	if u, err := user.LookupId(id); err == nil {
		name = u.Username
	}
	userNames.Store(who, name)
	return name
}

// endpointStats outlives reloads.
type endpointStats struct {
	claimed, declined, withdrawn, returned atomic.Uint64

	routes sync.Map // names of those that have led to it
}
