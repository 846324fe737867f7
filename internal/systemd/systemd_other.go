//go:build !linux

package systemd

import (
	"net"
	"time"
)

func listeners() (map[string][]net.Listener, error) { return nil, nil }

func notify(string) error { return nil }

func reloadingState() string { return "" }

func watchdogPeriod() (time.Duration, error) { return 0, nil }
