package door

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
)

// adminServer answers operators at one address. A nil one is none.
type adminServer struct {
	door   *Door
	config config.Admin
	l      net.Listener
	stopIt context.CancelFunc
	served sync.WaitGroup
}

// newAdmin returns the server that there is, if c says the same, or opens another. d.reloading is held.
func (d *Door) newAdmin(c *config.Admin) (*adminServer, error) {
	if c == nil {
		return nil, nil
	}
	if d.admin != nil && d.admin.config == *c {
		return d.admin, nil
	}
	l, err := d.openAdmin(c.Address)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	return &adminServer{door: d, config: *c, l: l}, nil
}

func (d *Door) openAdmin(address string) (net.Listener, error) {
	if name, ok := strings.CutPrefix(address, systemdPrefix); ok {
		return d.passed.take(name)
	}
	return admin.Listen(address)
}

func (a *adminServer) start() {
	if a == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.stopIt = cancel
	h := admin.Handler(admin.Options{Status: a.door.Status, Log: a.door.log, AllowRemote: a.config.AllowRemote})
	a.served.Go(func() {
		if err := admin.Serve(ctx, a.l, h); err != nil {
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
