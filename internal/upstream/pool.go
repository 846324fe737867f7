// Package upstream proxies connections to backends that cannot take them: it chooses a backend that is fit,
// connects to it, tells it in a PROXY protocol header who the client is, and copies between the two until
// both have ended. On Linux the kernel does the copying.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
)

// Options are what a route says of its backends. They are not checked: package config has done that.
type Options struct {
	// Addresses of the backends: HOST:PORT or unix:PATH. A host name is resolved for each connection anew.
	Addresses []string

	// ConnectTimeout is how long one backend may take to accept a connection, its name to be resolved
	// included; 0 is as long as the system allows.
	ConnectTimeout time.Duration

	// SendProxy is the version of the PROXY protocol header that a backend is sent first: v1, v2, or none if
	// it is empty.
	SendProxy string

	// Health says when a backend is unfit. If it is nil, none ever is.
	Health *config.Health

	// Log is told when a backend becomes unfit, and fit again. If it is nil, nobody is.
	Log *slog.Logger
}

// Pool is the backends of a route.
type Pool struct {
	o        Options
	health   config.Health // never where o.Health is nil
	backends []*Backend

	stop   context.CancelFunc
	checks sync.WaitGroup

	mu     sync.Mutex
	next   int // the backend that comes first among equals
	closed bool
}

// New makes a pool, and starts to check its backends if Health has an Interval. All backends are fit until
// they are found not to be. Close it when it is not needed any more.
func New(o Options) *Pool {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pool{o: o, health: healthOf(o.Health), stop: cancel}
	for _, address := range o.Addresses {
		p.backends = append(p.backends, &Backend{Address: address, pool: p})
	}
	if p.health.Interval > 0 {
		for _, b := range p.backends {
			p.checks.Go(func() { b.watch(ctx) })
		}
	}
	return p
}

// Close ends the checks, those that are under way too, and returns when they have ended. Connections live
// on. Dial still works, with what is known of the backends by then: a route that is about to go may have
// clients on their way to it. Further calls do nothing.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	for _, b := range p.backends {
		if b.cooldown != nil {
			b.cooldown.Stop()
		}
	}
	p.mu.Unlock()
	p.stop()
	p.checks.Wait()
}

// Addresses are what a PROXY protocol header tells a backend about a connection.
type Addresses struct {
	Client netip.AddrPort // where it comes from
	Local  netip.AddrPort // where the client connected to
}

// Dial connects to a backend for the client that from describes: to the fit one that has the fewest
// connections open, or the next in turn if several have. If it fails it tries the other fit ones, then the
// unfit ones, each once, and in the end tells what each has answered. It returns when ctx ends, which is
// held against no backend.
//
// The connection, a *net.TCPConn or *net.UnixConn, is the caller's to close. It has been sent the PROXY
// protocol header and nothing else. The caller must call Done of the backend once when it has ended.
func (p *Pool) Dial(ctx context.Context, from Addresses) (Conn, *Backend, error) {
	header := proxyHeader(p.o.SendProxy, from)
	tried := make([]bool, len(p.backends))
	var answers failures
	for ctx.Err() == nil {
		b := p.pick(tried)
		if b == nil {
			return nil, nil, answers.error(nil)
		}
		c, err := p.connect(ctx, b.Address, header)
		if err == nil {
			b.connected()
			return c, b, nil
		}
		b.failed(err, !isOver(ctx) && !isOurs(err))
		answers = append(answers, fmt.Errorf("%s: %w", b.Address, err))
	}
	return nil, nil, answers.error(context.Cause(ctx))
}

// pick chooses a backend that was not tried yet, counts the connection that is about to be made as open so
// that others who come meanwhile go elsewhere, and returns nil if there is no backend left.
func (p *Pool) pick(tried []bool) *Backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	best := -1
	for i := range p.backends {
		i := (p.next + i) % len(p.backends)
		if !tried[i] && (best < 0 || p.backends[i].before(p.backends[best])) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	tried[best] = true
	p.next = best + 1
	p.backends[best].open++
	return p.backends[best]
}

// connect makes a connection and sends header as its first bytes.
func (p *Pool) connect(ctx context.Context, address string, header []byte) (Conn, error) {
	if p.o.ConnectTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.o.ConnectTimeout)
		defer cancel()
	}
	return dial(ctx, address, header)
}

// dial leaves keep-alive on, as package net switches it: see Copy.
func dial(ctx context.Context, address string, header []byte) (Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, withoutAddress(err)
	}
	c := nc.(Conn)
	if len(header) == 0 {
		return c, nil
	}
	deadline, _ := ctx.Deadline() // none is the zero time for both
	_ = c.SetWriteDeadline(deadline)
	_, err = c.Write(header)
	if err == nil {
		err = c.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("PROXY protocol header: %w", withoutAddress(err))
	}
	return c, nil
}

// withoutAddress takes the address out of an error of package net, for it is told already, and as it is
// configured.
func withoutAddress(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// isOver tells whether ctx has ended, also when only its deadline is over: connecting has a timer of its own
// for that, which may be the faster one.
func isOver(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// isOurs tells whether it was for want of something here that a connection could not be made, which says
// nothing of the backend.
func isOurs(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// failures are what the backends have answered, in the order in which they were tried.
type failures []error

// error makes one error of all that happened; why is the reason to stop before all backends were tried.
func (f failures) error(why error) error {
	if why != nil {
		f = append(f, why)
	}
	if len(f) == 0 {
		return errors.New("upstream: there is no backend")
	}
	return f
}

func (f failures) Error() string {
	text := make([]string, len(f))
	for i, err := range f {
		text[i] = err.Error()
	}
	return "upstream: no backend could be reached: " + strings.Join(text, "; ")
}

func (f failures) Unwrap() []error { return f }

// Status tells about the backends, in the order of Options.Addresses. Route is left to the caller.
func (p *Pool) Status() []admin.UpstreamStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]admin.UpstreamStatus, len(p.backends))
	for i, b := range p.backends {
		all[i] = admin.UpstreamStatus{
			Address: b.Address, Healthy: !b.unfit, Open: b.open, Connections: b.connections,
			Failures: b.failures, Checks: b.checks, FailedCheck: b.failedChecks,
		}
		if b.unfit {
			all[i].Error = b.err.Error()
		}
	}
	return all
}
