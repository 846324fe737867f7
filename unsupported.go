//go:build !(darwin || freebsd || linux || netbsd || openbsd || windows)

package usher

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/go-usher/usher/ipc"
)

var errUnsupported = fmt.Errorf("package usher does not know %s: %w", runtime.GOOS, errors.ErrUnsupported)

var (
	peerGone             []error
	errTooManyOnTheirWay = errUnsupported
)

const channelsOutliveListeners = false

func isSystems(error) bool                      { return false }
func createPage() (*os.File, error)             { return nil, errUnsupported }
func mapPage(*os.File) (*page, error)           { return nil, errUnsupported }
func hold(net.Conn) (held, error)               { return nil, errUnsupported }
func prepare(*ipc.Attachment) (*os.File, error) { return nil, errUnsupported }
func finish(*ipc.Attachment, *os.File, net.Addr, net.Addr) (net.Conn, error) {
	return nil, errUnsupported
}
func netConn(c net.Conn) net.Conn            { return c }
func shutdown(uintptr)                       {}
func (l *Listener) beReplaced(*taking) error { return errUnsupported }

func replace(*ipc.ListenConfig, string) (*ipc.Listener, error) { return nil, errUnsupported }
