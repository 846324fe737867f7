package ipc

import (
	"os/exec"
	"syscall"
	"time"
)

// transport is a connection to another process: what differs between systems. read, claim,
// checkWithin and drop are called under the reader's lock, send under the writer's.
type transport interface {
	// send sends one frame, using *scratch as its buffer. partial says, with an error, that the peer
	// may have got some of it.
	send(scratch *[]byte, data []byte, attachments []syscall.Conn) (partial bool, err error)

	// trySend is send if that needs no waiting; false means that nothing was sent.
	trySend(scratch *[]byte, data []byte, attachments []syscall.Conn) (sent bool, err error)

	// read reads into p. at is the stream offset of its first byte, for matching handles to frames.
	read(p []byte, at uint64) (int, error)

	// claim returns the attachments of the frame that lies at [start, end) of the stream. On an
	// error the caller closes those returned; the transport has closed the others.
	claim(entries []entry, count int, start, end uint64) ([]*Attachment, error)

	// checkWithin fails if handles came that cannot belong to the frame at [start, end) nor to a
	// later one.
	checkWithin(start, end uint64) error

	// drop closes all handles that arrived and were not claimed.
	drop()

	peer() (Peer, error)

	// control calls f with the descriptor, for it to be sent on another channel.
	control(f func(fd uintptr)) error

	// sentTo notes that this end was sent on the channel given.
	sentTo(transport)

	passTo(cmd *exec.Cmd) (value string, err error)
	setReadDeadline(time.Time) error
	setWriteDeadline(time.Time) error
	close() error
}

// acceptor is a listener for transports.
type acceptor interface {
	accept() (transport, error)
	replaced() bool
	close() error
}
