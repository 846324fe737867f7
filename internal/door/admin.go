package door

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
)

// adminServer answers operators at one address. A nil one is none.
type adminServer struct {
	door    *Door
	address string // as in the configuration
	l       net.Listener
	handler atomic.Pointer[http.Handler] // nil until it has been started
	stopIt  context.CancelFunc
	served  sync.WaitGroup
}

// newAdmin returns the server that there is, if c has the same address, or opens another. d.reloading is held.
func (d *Door) newAdmin(c *config.Admin) (*adminServer, error) {
	if c == nil {
		return nil, nil
	}
	if d.admin != nil && d.admin.address == c.Address {
		return d.admin, nil
	}
	l, err := d.openAdmin(c.Address)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	return &adminServer{door: d, address: c.Address, l: l}, nil
}

func (d *Door) openAdmin(address string) (net.Listener, error) {
	if name, ok := strings.CutPrefix(address, systemdPrefix); ok {
		return d.passed.take(name)
	}
	return admin.Listen(address)
}

// use puts c in force, and serves from then on.
func (a *adminServer) use(c *config.Admin) {
	if a == nil {
		return
	}
	h := admin.Handler(admin.Options{Status: a.door.Status, Log: a.door.log, AllowRemote: c.AllowRemote})
	if a.handler.Swap(&h) != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.stopIt = cancel
	a.served.Go(func() {
		current := func(w http.ResponseWriter, r *http.Request) { (*a.handler.Load()).ServeHTTP(w, r) }
		if err := admin.Serve(ctx, a.l, http.HandlerFunc(current)); err != nil {
			a.door.log.Error("the admin address is not served any more", "address", a.l.Addr().String(), "error", err)
		}
	})
	a.door.log.Info("admin address", "address", a.l.Addr().String())
}

func (a *adminServer) stop() {
	if a == nil {
		return
	}
	a.stopIt()
	a.served.Wait()
}
