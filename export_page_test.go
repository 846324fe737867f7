package usher

import "os"

// CreatePage and MapPage are for tests that speak the protocol themselves.
var CreatePage = createPage

func MapPage(f *os.File) (words []uint32, unmap func(), err error) {
	p, err := openPage(f)
	if err != nil {
		return nil, nil, err
	}
	return p.words, p.release, nil
}
