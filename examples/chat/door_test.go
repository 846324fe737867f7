package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/door"
	"github.com/go-usher/usher/internal/faults"
)

func TestBehindADoorNobodyIsTurnedAwayDuringAnUpgrade(t *testing.T) {
	endpoint := faults.Endpoint(t)
	serving := startChat(t, endpoint, 1)
	serves(serving, 1)
	addr := openDoor(t, endpoint)
	g := crowd(t, addr, speakers+10)
	const upgrades = 2
	for v := 2; v < 2+upgrades; v++ {
		stop, late := make(chan struct{}), make(chan []*talker)
		go func() { late <- comers(t, addr, stop) }()
		for _, step := range []string{"room", "some", "all", "go"} {
			awaitDeath(faults.Start(t, "mayfly", endpoint, step))
		}
		g.speakOn(t)
		serving = upgrade(t, serving, endpoint, v)
		g.speakOn(t)
		close(stop)
		g.join(<-late)
	}
	g.end(t, upgrades)
}

// comers are clients that come one after the other until stop is closed.
func comers(t testing.TB, addr string, stop <-chan struct{}) (all []*talker) {
	for {
		k, err := visit(t, addr)
		if err != nil {
			t.Errorf("client %d of those who come during an upgrade: %v", len(all), err)
			return all
		}
		k.late = true
		all = append(all, k)
		select {
		case <-stop:
			return all
		case <-time.After(pause / 100): // so that they do not become thousands
		}
	}
}

// openDoor opens a front door for one endpoint until the test ends. It returns its address.
func openDoor(t testing.TB, endpoint string) string {
	t.Helper()
	c := must(config.Parse("test.yaml", fmt.Appendf(nil, `
listeners: [{name: chat, address: 127.0.0.1:0, sniff: none}]
routes: [{match: {}, handoff: %q}]
`, endpoint)))
	d := must(door.Start(door.Options{Config: c}))
	t.Cleanup(func() {
		if err := d.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return d.Status().Listeners[0].Address
}
