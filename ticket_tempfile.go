//go:build darwin || freebsd || netbsd || openbsd

package usher

import (
	"os"

	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/unix"
)

// createPage makes an unlinked temporary file: the one kind of shared memory that all of these systems
// have, and that can be sent like any file. Nothing keeps the peer from shortening it, hence mayFault.
func createPage() (*os.File, error) {
	f, err := os.CreateTemp("", "usher-tickets-")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = f.Write(make([]byte, pageSize)) // not Truncate: a hole would be filled later, or not on a full disk
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func mapPage(f *os.File) (*page, error) {
	mem, err := mapFile(f)
	if err != nil {
		return nil, err
	}
	return &page{words: sys.Words(mem), mayFault: true, unmap: func() { unix.Munmap(mem) }}, nil
}
