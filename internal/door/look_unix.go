//go:build unix

package door

import (
	"io"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/sniff"
	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/unix"
)

// look peeks at the first bytes until in knows enough: they stay in the kernel, so that nothing has to
// travel with the connection and the taker gets it untouched. (A prefix, which somebody else has read, travels on as it
// is.) While it waits it holds no memory but its goroutine's stack.
func (c *conn) look(in *inspection) error {
	if len(c.prefix) > 0 {
		if err := in.inspectPrefix(); err != sniff.ErrShort {
			return err
		}
	}
	raw, err := c.nc.SyscallConn()
	if err != nil {
		return err
	}
	looks := 0
	var found error
	err = raw.Read(func(fd uintptr) bool {
		if looks++; looks > patientLooks {
			time.Sleep(impatience)
		}
		found = in.peek(int(fd))
		return found != sniff.ErrShort
	})
	if err != nil {
		return err
	}
	return found
}

// addresses returns those of a connection that another process has passed on, as the kernel has them: nc's own are what that
// process says.
func addresses(nc *usher.Conn) (local, remote netip.AddrPort) {
	if raw, err := nc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { local, remote = sys.Addresses(int(fd)) })
	}
	return local, remote
}

// A client that sends byte by byte makes the door look at all that it has sent, again and again. After some
// looks it has to wait a little before each.
const (
	patientLooks = 32
	impatience   = 10 * time.Millisecond
)

// peek looks once at all that there is: the prefix, and what the kernel has. The error is sniff.ErrShort when it is worth
// to wait for more.
func (in *inspection) peek(fd int) error {
	buf := peekBuffers.Get().(*[]byte)
	defer peekBuffers.Put(buf)
	most := in.most()
	if len(*buf) < most {
		*buf = make([]byte, most)
	}
	b := (*buf)[:most]
	for had := -1; ; {
		prefix := copy(b, in.conn.prefix) // which is less than most, or inspectPrefix would have known enough
		n, err := sys.Peek(fd, b[prefix:])
		if err == unix.EAGAIN {
			return sniff.ErrShort
		}
		if err != nil {
			return os.NewSyscallError("recv", err)
		}
		if n += prefix; n == 0 {
			return io.EOF
		}
		if n == had || n == prefix {
			return io.ErrUnexpectedEOF // and no more will come
		}
		header, err := in.inspect(b[:n])
		if header > 0 {
			if err := in.conn.skip(fd, b[:header]); err != nil {
				return err
			}
			n -= header
		}
		if err != sniff.ErrShort || !hungUp(fd) {
			return err
		}
		// The client has said its last. The poller tells that once, with the bytes, and peeking does not show
		// it: another look shows whether these were the last.
		had = n
	}
}

var peekBuffers = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

// skip takes bytes off the stream: off the prefix first, then off what the kernel is known to have.
func (c *conn) skip(fd int, b []byte) error {
	n := min(len(b), len(c.prefix))
	c.prefix = c.prefix[n:]
	return discard(fd, b[n:])
}

// discard takes bytes off the stream that the kernel is known to have.
func discard(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := recv(fd, b)
		if err != nil {
			return os.NewSyscallError("recv", err)
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
	}
	return nil
}

func recv(fd int, b []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}
