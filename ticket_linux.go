package usher

import (
	"fmt"
	"os"

	"github.com/go-usher/usher/internal/sys"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/unix"
)

// pageSeals keep either side from shortening the page, which would kill the other with SIGBUS when it
// looks (fcntl(2)).
const pageSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

func createPage() (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("usher-tickets", flags|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3; later ones may insist on it (sysctl vm.memfd_noexec)
		fd, err = unix.MemfdCreate("usher-tickets", flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "tickets")
	if err := f.Truncate(pageSize); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, pageSeals); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return f, nil
}

func mapPage(f *os.File) (*page, error) {
	fd := int(f.Fd())
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not a memfd: %w", ipc.ErrProtocol, os.NewSyscallError("fcntl", err))
	}
	if seals&unix.F_SEAL_SHRINK == 0 {
		return nil, fmt.Errorf("%w: the peer could still shorten it: seals %#x", ipc.ErrProtocol, seals)
	}
	mem, err := mapFile(f)
	if err != nil {
		return nil, err
	}
	return &page{words: sys.Words(mem), unmap: func() { unix.Munmap(mem) }}, nil
}
