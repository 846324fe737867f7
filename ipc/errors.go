package ipc

import (
	"errors"
	"io"
	"net"
	"os"
)

var (
	// ErrProtocol is in the chain of an error that says how the peer broke the protocol. The
	// channel is closed then.
	ErrProtocol = errors.New("peer broke the protocol")

	// ErrDenied is in the chain of an error that says why a policy refused a peer.
	ErrDenied = errors.New("peer denied")

	// ErrAttachment is in the chain of an error of Send that says which attachment could not be sent and
	// why. Nothing was sent then.
	ErrAttachment = errors.New("bad attachment")

	// ErrTooLarge is in the chain of an error of Send for a message over the limits.
	ErrTooLarge = errors.New("message too large")
)

// opError says which operation failed on which endpoint. Errors that already did so are unwrapped
// first, and io.EOF stays bare.
func opError(op string, addr net.Addr, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if inner, ok := err.(*net.OpError); ok {
		err = inner.Err
	}
	return &net.OpError{Op: op, Net: network, Addr: addr, Err: err}
}

// lateError is a deadline of a context in the words of package os.
type lateError struct{ error }

func (e lateError) Unwrap() []error { return []error{os.ErrDeadlineExceeded, e.error} }
func (lateError) Timeout() bool     { return true }
func (lateError) Temporary() bool   { return true }

// addr is the address of both ends of a channel: its endpoint's path.
type addr string

func (addr) Network() string  { return network }
func (a addr) String() string { return string(a) }
