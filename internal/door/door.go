// Package door is the front door: it accepts connections, learns from their first bytes what they want,
// and hands each to the process that should serve it. Then it is out of their path.
//
// A connection's life is in conn.go, from top to bottom. What the configuration says is compiled into a
// plan (plan.go); a reload makes another and swaps it in, and a connection keeps the plan that it began
// with. Endpoints, backends and listeners that both plans use live on.
package door

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/systemd"
)

// Options are what a door is started with.
type Options struct {
	Config *config.Config

	// ConfigPath is told to operators; empty where the configuration comes from no file.
	ConfigPath string

	// Log gets what the door has to say. Nil means nothing is logged.
	Log *slog.Logger

	// Passed are listening sockets that the parent process has opened, by name: those of systemd:NAME
	// addresses. The door takes them over, and closes those that no listener uses.
	Passed map[string][]net.Listener

	// Stored are listening sockets that a door before this one has left, by the addresses that its configuration had for
	// them: listeners at these use them. The door takes them over, and closes those that no listener uses.
	Stored map[string][]net.Listener

	// Version is told to operators.
	Version string

	// Control is where the door answers its successor, in the place of the configuration's control.
	Control string

	// Predecessor is the door in whose place this one is to serve. Start takes it over: it returns when that
	// door accepts nothing any more, or with an error if that serves on.
	Predecessor *Predecessor

	// AddressWait is for how long Start tries to have an address that is in use: a door that ends or has just died may have it
	// for a moment yet.
	AddressWait time.Duration

	// Successor returns the command that starts a door to serve in the place of this one, which calls [TakeOver]. Its process
	// outlives this one. Nil means that this door starts none.
	Successor func() *exec.Cmd

	// MainPID, if not nil, is told the process of the door that serves in the place of this one, when it does and
	// before it knows that it is alone.
	MainPID func(pid int)

	// For tests; zero means readyTime and servingTime.
	readyWithin, servingWithin time.Duration
}

// Door is a running front door. Its methods may be called from several goroutines at once.
type Door struct {
	options Options
	log     *slog.Logger
	started time.Time
	passed  *passedSockets

	// life ends when the door must end at once. work is done when it does not accept any more and has no
	// connection, background when nothing else of it runs.
	life       context.Context
	kill       context.CancelFunc
	work       work
	background sync.WaitGroup
	partings   partings

	id       string // of this run: connections are numbered from it
	serial   atomic.Uint64
	stats    stats
	refusals refusals
	reserve  reserve // for connecting to takers
	spare    reserve // for connections that package net is to have, and apart: a taker may be slow to greet

	reloading sync.Mutex       // held while a configuration is applied: not while another door takes over
	stopped   []*listener      // by reloads, until they have ended; reloading guards them
	inherited inheritedSockets // that no listener uses, while the door starts
	control   *control         // nil where there is none; reloading guards it

	replaced  chan struct{}         // closed when another door serves in the place of this one
	successor atomic.Pointer[child] // which serves then, if this one has started it
	missed    chan struct{}         // tells of a reload that was refused for a takeover that failed

	peeking atomic.Pointer[usher.Listener] // for what the door before this one had in the peek phase

	mu           sync.RWMutex
	plan         *plan
	draining     bool
	isReplaced   bool
	handing      *handover // under way, nil if there is none
	reloadMissed bool
	followed     []*following // doors before this one
	status       admin.ConfigStatus
	endpoints    map[string][]*endpoint // by path: one for each policy
	backends     map[string]*backends   // by their configuration in words
	watch        *watcher
	admin        *adminServer
}

// errShutDown is what Reload returns once the door drains.
var errShutDown = errors.New("the door is shutting down")

// Start opens what the configuration names and serves it until Shutdown. If it fails nothing is left open.
func Start(o Options) (_ *Door, err error) {
	d := &Door{
		options: o, log: o.Log, started: time.Now(),
		id: newRunID(), endpoints: make(map[string][]*endpoint), backends: make(map[string]*backends),
		reserve: reserve{size: forTakers}, spare: reserve{size: forConns},
		replaced: make(chan struct{}), missed: make(chan struct{}, 1),
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.inherit()
	d.life, d.kill = context.WithCancel(context.Background())
	d.status.Path = o.ConfigPath
	d.watch = newWatcher(d.log, d.appeared)
	d.reserve.fill()
	d.spare.fill()
	defer func() {
		if err != nil {
			d.abandon(err)
		}
	}()
	if err := d.begin(); err != nil {
		return nil, err
	}
	d.checkDescriptors()
	return d, nil
}

// inherit takes over the sockets that other processes have opened.
func (d *Door) inherit() {
	passed := d.options.Passed
	if p := d.options.Predecessor; p != nil {
		passed = p.passed(passed)
		d.inherited, p.sockets = p.sockets, nil
	}
	d.passed = newPassedSockets(passed)
	for address, ls := range d.options.Stored {
		for _, l := range ls {
			d.inherited = append(d.inherited, inheritedSocket{socketName{Address: address}, l, -1})
		}
	}
}

// begin has the door accept, and then become the one that is found at the control endpoint.
func (d *Door) begin() error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if err := d.apply(d.options.Config); err != nil {
		return err
	}
	d.passed.closeUnused()
	p := d.options.Predecessor
	if p == nil {
		d.useControl(d.options.Config, false)
		return nil
	}
	return d.succeed(p, d.options.Config)
}

// abandon is for a door that could not start. One that has accepted already, in the place of a door that serves on, sees its
// connections through first.
func (d *Door) abandon(why error) {
	if p := d.options.Predecessor; p != nil {
		p.Fail(why)
	}
	if d.plan != nil {
		ctx, cancel := context.WithTimeout(context.Background(), d.options.Config.ShutdownTimeout)
		defer cancel()
		d.Shutdown(ctx)
		return
	}
	d.inherited.close()
	d.watch.close()
	d.passed.close()
	d.kill()
	d.background.Wait()
	d.reserve.close()
	d.spare.close()
}

// checkDescriptors tells an operator whose limits.peeking cannot be reached.
func (d *Door) checkDescriptors() {
	most, known := maxDescriptors()
	peeking := uint64(0)
	for _, l := range d.plan.config.Listeners {
		peeking += uint64(l.Limits.Peeking)
	}
	if known && most < peeking {
		d.log.Warn("fewer descriptors than limits.peeking: the oldest of the connections in the peek phase will go before there are so many",
			"descriptors", most, "peeking", peeking)
	}
}

func newRunID() string {
	var b [4]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Reload puts another configuration in force. If that fails the old one stays, whole, and the error says
// what could not be done. Either way no connection is dropped: those under way go where the configuration
// sent them with which they began.
func (d *Door) Reload(c *config.Config) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.isHanding() {
		return ErrUpgrading
	}
	err := d.apply(c)
	d.noteReload(err)
	return err
}

// isHanding says whether another door is about to take over, and notes then that a reload was refused for that.
func (d *Door) isHanding() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.handing != nil {
		d.reloadMissed = true
	}
	return d.handing != nil
}

// ReloadMissed tells that a reload was refused for a takeover ([ErrUpgrading]) that has failed since: it is due now.
func (d *Door) ReloadMissed() <-chan struct{} { return d.missed }

// Replaced is closed when another door serves in the place of this one. What is left to do then is Shutdown, which waits
// for the connections that are still this door's.
func (d *Door) Replaced() <-chan struct{} { return d.replaced }

// Orphaned says whether the door that served in the place of this one has ended, if this one has started it.
func (d *Door) Orphaned() bool {
	c := d.successor.Load()
	return c != nil && systemd.Ended(c.cmd)
}

// ReloadFailed notes that there was no configuration to reload, as with a file that is wrong.
func (d *Door) ReloadFailed(err error) { d.noteReload(err) }

func (d *Door) noteReload(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status.Reloads++
	d.status.Error = ""
	if err != nil {
		d.status.Failures++
		d.status.Error = err.Error()
	}
}

// apply makes a plan of c, opens what is new in it, swaps it in, and lets go what the old one alone used. d.reloading is
// held.
func (d *Door) apply(c *config.Config) error {
	if d.isDraining() {
		return errShutDown
	}
	next, err := d.newPlan(c)
	if err != nil {
		return err
	}
	server, err := d.newAdmin(c.Admin)
	if err != nil {
		next.abandon()
		return err
	}
	next.connect()
	if err := d.awaitTurn(); err != nil {
		server.closeUnstarted()
		next.abandon()
		return err
	}

	d.mu.Lock()
	old, oldAdmin := d.plan, d.admin
	d.plan, d.admin = next, server
	d.status.Loaded = time.Now()
	d.mu.Unlock()

	next.start()
	server.use(c.Admin)
	if server != oldAdmin {
		oldAdmin.stop()
	}
	if old == nil {
		return nil
	}
	old.supersede(next)
	d.useControl(c, false)
	return nil
}

// awaitTurn is for a door that starts: it waits until the one before it, if there is one, accepts nothing.
func (d *Door) awaitTurn() error {
	p := d.options.Predecessor
	if d.plan != nil || p == nil {
		d.inherited.close()
		return nil
	}
	kept := d.inherited.taken(d.passed)
	p.unused = d.inherited.left()
	d.inherited.close() // before that door accepts nothing: who waits in their queues is its own to serve
	return p.awaitTurn(kept)
}

// current returns the plan in force, held until it is released.
func (d *Door) current() *plan {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plan.users++ // it is in force, so there is one at least
	return d.plan
}

func (d *Door) isDraining() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.draining || d.isReplaced
}

// Shutdown stops accepting, when it has accepted what the kernel already has, and waits for the connections
// that are still the door's. If ctx ends before, it closes them, says so in its error, and returns. Takers
// keep what they have. A takeover that is under way ends first, and the other door with it, unless that serves already.
func (d *Door) Shutdown(ctx context.Context) error {
	d.mu.Lock()
	if d.draining {
		d.mu.Unlock()
		return errShutDown
	}
	d.draining = true
	handing := d.handing
	d.mu.Unlock()
	if handing != nil {
		handing.end(errShutDown)
		<-handing.done
	}
	d.reloading.Lock() // wait for a reload that is under way
	defer d.reloading.Unlock()

	d.control.stopListening()
	for _, l := range d.plan.listeners {
		l.stop() // which does nothing to one that is closed, for another door has it
	}
	if l := d.peeking.Load(); l != nil {
		l.Close() // what comes from the door before goes on there
	}
	err := d.waitForWork(ctx)
	d.kill() // at once: what a taker gave back from now on would be nobody's
	d.control.close()
	d.plan.release()
	<-d.plan.unused
	d.plan.letGo()
	d.watch.close()
	d.admin.stop()
	d.passed.close()
	d.background.Wait()
	d.reserve.close()
	d.spare.close()
	return err
}

func (d *Door) waitForWork(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		d.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	n := d.stats.open.Load()
	d.kill()
	d.cutEndpoints()
	<-done
	if n == 0 { // only the next door was to be given something yet
		return nil
	}
	return fmt.Errorf("closed %d connections that had not ended: %w", n, ctx.Err())
}

// cutEndpoints takes back what is on offer, which waits for nothing but its taker or its time. It is called when life has
// ended: no endpoint that is made from then on connects.
func (d *Door) cutEndpoints() {
	var all []*endpoint
	d.mu.RLock()
	for _, there := range d.endpoints {
		all = append(all, there...)
	}
	d.mu.RUnlock()
	for _, e := range all {
		e.cut()
	}
}

// passedSockets are those that the parent process has opened. One whose listener a reload removes stays
// open: the parent has it anyway, and a later reload may want it back.
type passedSockets struct {
	mu      sync.Mutex
	sockets map[string]*passedSocket
	closed  bool // those that were not used
}

type passedSocket struct {
	listeners []net.Listener
	used      bool
}

func newPassedSockets(passed map[string][]net.Listener) *passedSockets {
	p := &passedSockets{sockets: make(map[string]*passedSocket, len(passed))}
	for name, ls := range passed {
		p.sockets[name] = &passedSocket{listeners: ls}
	}
	return p
}

// take returns the only socket of a name, on a descriptor that is the caller's to close.
func (p *passedSockets) take(name string) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sockets[name]
	if s == nil && p.closed {
		return nil, fmt.Errorf("systemd has passed no socket of the name %q, or it was closed because no listener had it when the door was started: restart the door", name)
	}
	if s == nil {
		return nil, fmt.Errorf("systemd has passed no socket of the name %q: set FileDescriptorName=%s in its unit", name, name)
	}
	if len(s.listeners) != 1 {
		return nil, fmt.Errorf("systemd has passed %d sockets of the name %q, want one: give each its own FileDescriptorName", len(s.listeners), name)
	}
	f, err := fileOf(s.listeners[0])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the socket %q that systemd has passed: %w", name, err)
	}
	s.used = true
	return l, nil
}

// shareable returns them for another door, which gets those that no listener of this one uses, too.
func (p *passedSockets) shareable() []sharedSocket {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []sharedSocket
	for name, s := range p.sockets {
		for _, l := range s.listeners {
			if socket, ok := l.(syscall.Conn); ok {
				all = append(all, sharedSocket{socketName: socketName{Address: name, Passed: true}, socket: socket})
			}
		}
	}
	return all
}

func (p *passedSockets) isUsed(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sockets[name] != nil && p.sockets[name].used
}

func fileOf(l net.Listener) (*os.File, error) {
	filer, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("a passed socket is a %T, which has no descriptor", l)
	}
	return filer.File()
}

// closeUnused closes the sockets whose names the configuration did not ask for, so that no client waits in a
// queue that nobody serves.
func (p *passedSockets) closeUnused() { p.closeIf(func(s *passedSocket) bool { return !s.used }) }

func (p *passedSockets) close() { p.closeIf(func(*passedSocket) bool { return true }) }

func (p *passedSockets) closeIf(which func(*passedSocket) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, s := range p.sockets {
		if !which(s) {
			continue
		}
		for _, l := range s.listeners {
			l.Close()
		}
		delete(p.sockets, name)
		p.closed = true
	}
}

// appeared is told of each socket that appears in a folder of endpoints: somebody listens there.
func (d *Door) appeared(path string) {
	d.mu.RLock()
	there := d.endpoints[path]
	d.mu.RUnlock()
	for _, e := range there {
		e.appeared()
	}
}
