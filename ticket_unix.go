//go:build darwin || freebsd || linux || netbsd || openbsd

package usher

import (
	"fmt"
	"os"

	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

// mapFile maps the page in f, shared and writable.
func mapFile(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < pageSize {
		return nil, fmt.Errorf("%w: it has %d bytes, want %d", ipc.ErrProtocol, info.Size(), pageSize)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return mem, os.NewSyscallError("mmap", err)
}
