package usher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

var (
	// ErrDeclined is in the chain of an error of Handoff when the taker said no: it has no room, is
	// out of descriptors, or cannot use the connection. Another taker may do better at once.
	ErrDeclined = errors.New("the taker declined")

	// ErrReplaced is in the chain of Accept's error, beside [net.ErrClosed], when another process
	// has taken the endpoint over with [ListenConfig.Replace].
	ErrReplaced = errors.New("another process listens at the endpoint now")
)

// network is what net.OpError and net.Addr call this package's channels.
const network = "usher"

// opError says which operation failed on which endpoint. It unwraps what package ipc said of its own
// operation, so that none is named twice. io.EOF stays bare.
func opError(op string, addr net.Addr, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if inner, ok := err.(*net.OpError); ok {
		err = inner.Err
	}
	return &net.OpError{Op: op, Net: network, Addr: addr, Err: err}
}

// contextError says what was going on when ctx ended; a deadline is one in the words of package os, too.
func contextError(ctx context.Context, what string) error {
	err := fmt.Errorf("%s: %w", what, ctx.Err())
	if errors.Is(err, context.DeadlineExceeded) {
		return lateError{err}
	}
	return err
}

type lateError struct{ error }

func (e lateError) Unwrap() []error { return []error{os.ErrDeadlineExceeded, e.error} }
func (lateError) Timeout() bool     { return true }
func (lateError) Temporary() bool   { return true }

// addr is an endpoint's path.
type addr string

func (addr) Network() string  { return network }
func (a addr) String() string { return string(a) }
