package usher

import (
	"net"
	"os"

	"github.com/go-usher/usher/ipc"
)

// prepare does nothing: a socket that is still the giver's must not be put onto a completion port of
// this process, which all of its handles would share for good (CreateIoCompletionPort).
func prepare(*ipc.Attachment) (*os.File, error) { return nil, nil }

// finish makes a connection of one that was claimed.
func finish(a *ipc.Attachment, _ *os.File, _, _ net.Addr) (net.Conn, error) { return a.Conn() }

// netConn is what Conn.NetConn returns for the connection that it has.
func netConn(c net.Conn) net.Conn { return c }
