package usher

import (
	"fmt"
	"os"

	"github.com/go-usher/usher/internal/sys"
	"github.com/go-usher/usher/ipc"
	"golang.org/x/sys/windows"
)

// createPage makes a section of the paging file. It is sent as a file is, by its handle, and nobody can
// make it smaller.
func createPage() (*os.File, error) {
	h, err := windows.CreateFileMapping(windows.InvalidHandle, nil, windows.PAGE_READWRITE, 0, pageSize, nil)
	if err != nil {
		return nil, os.NewSyscallError("CreateFileMapping", err)
	}
	return os.NewFile(uintptr(h), "tickets"), nil
}

// mapPage fails for a section that is smaller than the page (MapViewOfFile).
func mapPage(f *os.File) (*page, error) {
	view, err := windows.MapViewOfFile(windows.Handle(f.Fd()), windows.FILE_MAP_READ|windows.FILE_MAP_WRITE, 0, 0, pageSize)
	if err != nil {
		return nil, fmt.Errorf("%w: it is no section of %d bytes: %w", ipc.ErrProtocol, pageSize, os.NewSyscallError("MapViewOfFile", err))
	}
	return &page{words: sys.WordsAt(view, pageSize), unmap: func() { windows.UnmapViewOfFile(view) }}, nil
}
