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
