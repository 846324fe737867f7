package usher

import "os"

// SetBreakpoint has f called before and after each step of a handover. It is for a process that has not
// begun any.
func SetBreakpoint(f func(step, moment string)) {
	breakpoint = func(s step, m moment) { f(string(s), string(m)) }
}

// CreatePage and MapPage are for tests that speak the protocol themselves.
var CreatePage = createPage

func MapPage(f *os.File) (words []uint32, unmap func(), err error) {
	p, err := openPage(f)
	if err != nil {
		return nil, nil, err
	}
	return p.words, p.release, nil
}

// Unended returns how many connections that came to l have neither ended nor been forgotten.
func Unended(l *Listener) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for t := range l.channels {
		t.mu.Lock()
		n += t.ends.open
		t.mu.Unlock()
	}
	return n
}

// ErrChannelEnded is in the chain of errors of a Handoff that has gone on to other channels in vain.
var ErrChannelEnded = errChannelEnded
