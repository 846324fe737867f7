//go:build !(darwin || freebsd || linux || netbsd || openbsd || windows)

package ipc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
)

const network = "ipc"

type handle = int

const channelKind = kindSocket

var errUnsupported = fmt.Errorf("package ipc does not know %s: %w", runtime.GOOS, errors.ErrUnsupported)

func isPath(string) bool                                   { return false }
func resolvePath(path string) (string, error)              { return path, nil }
func resolveName(name string) (string, error)              { return name, nil }
func dial(context.Context, string) (transport, error)      { return nil, errUnsupported }
func listen(string, bool, *ListenConfig) (acceptor, error) { return nil, errUnsupported }
func pair() (transport, transport, error)                  { return nil, nil, errUnsupported }
func inherited(string) (transport, error)                  { return nil, errUnsupported }
func sameUser(Peer) error                                  { return errUnsupported }
func users([]string) (Policy, error)                       { return nil, errUnsupported }
func groups([]string) (Policy, error)                      { return nil, errUnsupported }
func closeHandle(handle, kind) error                       { return errUnsupported }
func toConn(*Attachment) (net.Conn, error)                 { return nil, errUnsupported }
func toListener(*Attachment) (net.Listener, error)         { return nil, errUnsupported }
func toPacketConn(*Attachment) (net.PacketConn, error)     { return nil, errUnsupported }
func toFile(*Attachment) (*os.File, error)                 { return nil, errUnsupported }
func toChannel(*Attachment, Limits) (*Conn, error)         { return nil, errUnsupported }
func toSocket(*Attachment) (*os.File, error)               { return nil, errUnsupported }
