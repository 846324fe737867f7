package door

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// reserve is some descriptors for what must not fail when clients have all the others: connecting to a taker, and making
// a connection one of package net, which takes a second descriptor for a moment. Without them a door out of descriptors
// could stay so, with each connection waiting for a taker that none can be connected to.
type reserve struct {
	size int

	mu    sync.Mutex
	files []*os.File // of nothing
	short atomic.Bool
}

// The sizes are more than it takes, for a listener may be quicker: to connect to a taker, a channel's three and a page; for a
// connection, one.
const (
	forTakers = 8
	forConns  = 2
)

// fill makes the reserve whole, as far as there are descriptors.
func (r *reserve) fill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fillLocked()
}

func (r *reserve) fillLocked() {
	for len(r.files) < r.size {
		f, err := os.Open(os.DevNull)
		if err != nil {
			r.short.Store(true)
			return
		}
		r.files = append(r.files, f)
	}
	r.short.Store(false)
}

// refill is fill for when something was closed: what is free goes here first.
func (r *reserve) refill() {
	if r.short.Load() && r.mu.TryLock() { // who has it fills it
		defer r.mu.Unlock()
		r.fillLocked()
	}
}

// use calls f, and once more with the reserve if there was no descriptor for it. Meanwhile nobody else may use it.
func (r *reserve) use(f func() error) error {
	err := f()
	if !outOfDescriptors(err) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closeLocked()
	err = f()
	r.fillLocked()
	return err
}

func (r *reserve) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closeLocked()
	r.short.Store(false)
}

func (r *reserve) closeLocked() {
	for _, f := range r.files {
		f.Close()
	}
	r.files = nil
}

func outOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
