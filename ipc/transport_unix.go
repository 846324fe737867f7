//go:build darwin || freebsd || linux || netbsd || openbsd

package ipc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const network = "unix"

// handle is a descriptor.
type handle = int

// unixTransport is a Unix-domain stream socket. Streams keep the order of descriptors, not the
// bounds of messages; what ties descriptors to their frame is told at [group].
type unixTransport struct {
	w      *wire
	first  firstSend
	oob    []byte
	groups []group // arrived and not claimed, in order
	lost   bool    // the last read failed for want of room for its descriptors

	cred    Peer
	credErr error

	pair  *passed // for an end of a pair
	end   int
	child *os.File // the duplicate that a child inherits, until close
}

// group is the descriptors of one SCM_RIGHTS message. The read that returned it covered the bytes
// [start, end) of the stream.
//
// A sender attaches all descriptors of a frame to its first byte, in one sendmsg. No system lets a
// read that returns descriptors go on past the bytes they were sent with: Linux ends it there, the
// BSDs start a new read at them. So the first byte of the frame that a group belongs to lies within
// [start, end), and a group is matched with the one frame that starts there and announces
// descriptors. All else is a breach of the protocol.
type group struct {
	start, end uint64
	fds        []int
	truncated  bool // the process had no room for all of them (MSG_CTRUNC)
}

func (g group) close() {
	for _, fd := range g.fds {
		unix.Close(fd)
	}
}

// newUnixTransport takes over uc, unless it fails.
func newUnixTransport(uc *net.UnixConn) (*unixTransport, error) {
	w, err := newWire(uc)
	if err != nil {
		return nil, err
	}
	t := &unixTransport{w: w, oob: make([]byte, unix.CmsgSpace(4*MaxAttachments))}
	t.cred, t.credErr = w.credentials()
	return t, nil
}

// takeOver is newUnixTransport, and closes uc if that fails.
func takeOver(uc *net.UnixConn) (*unixTransport, error) {
	t, err := newUnixTransport(uc)
	if err != nil {
		uc.Close()
	}
	return t, err
}

// credentials asks the kernel who made the other end of the connection.
func (w *wire) credentials() (p Peer, err error) {
	controlErr := w.control(func(fd int) { p, err = peerOf(fd) })
	return p, errors.Join(controlErr, os.NewSyscallError("getsockopt", err))
}

func (t *unixTransport) peer() (Peer, error) {
	p, err := t.cred, t.credErr
	if err == nil && t.pair != nil {
		p, err = t.pair.other(t.end, p)
	}
	return p, err
}

func (t *unixTransport) control(f func(uintptr)) error {
	return t.w.control(func(fd int) { f(uintptr(fd)) })
}

func (t *unixTransport) sentTo(on transport) {
	if to, err := on.peer(); err == nil && t.pair != nil {
		t.pair.sent(to, t.end)
	}
}

func dial(ctx context.Context, path string) (transport, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("user %d may not pass through a folder of the path: its group or its mode has to let that user in: %w", os.Geteuid(), err)
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("%s is not a socket: %s", path, info.Mode())
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return takeOver(c.(*net.UnixConn))
		}
		if errors.Is(err, unix.EACCES) {
			stat := info.Sys().(*syscall.Stat_t)
			return nil, fmt.Errorf("user %d may not write to the socket, which belongs to user %d and group %d and has mode %s: "+
				"its listener has to let that user in by ListenConfig.Mode, or by the group: %w", os.Geteuid(), stat.Uid, stat.Gid, info.Mode(), err)
		}
		// Linux does not let a connect wait on the poller for a place in a full accept queue: it
		// says EAGAIN (connect(2)).
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// copyLimit is up to where data is copied behind its header, to go out in the same sendmsg.
const copyLimit = 32 << 10

func (t *unixTransport) send(scratch *[]byte, data []byte, attachments []syscall.Conn) (bool, error) {
	frame := beginFrame(*scratch, len(data), attachments, nil)
	rest := data
	if len(data) <= copyLimit {
		frame, rest = append(frame, data...), nil
	}
	*scratch = frame
	n, err := t.sendFirst(frame, attachments, false)
	if err != nil {
		return n > 0, err
	}
	// The descriptors went with the first byte; what the socket's buffer had no room for follows.
	for _, b := range [][]byte{frame[n:], rest} {
		for len(b) > 0 {
			n, err := t.w.send(b, nil)
			if err != nil {
				return true, err
			}
			b = b[n:]
		}
	}
	return false, nil
}

// wholeLimit is the length of frames that are sent whole or not at all, where any are. Linux puts so much into one
// buffer of its own (unix_stream_sendmsg).
const wholeLimit = 4 << 10

func (t *unixTransport) trySend(scratch *[]byte, data []byte, attachments []syscall.Conn) (bool, error) {
	if !sendsWhole || len(data) > wholeLimit {
		return false, nil
	}
	frame := append(beginFrame(*scratch, len(data), attachments, nil), data...)
	*scratch = frame
	if len(frame) > wholeLimit {
		return false, nil
	}
	n, err := t.sendFirst(frame, attachments, true)
	if errors.Is(err, unix.EAGAIN) {
		return false, nil
	}
	for err == nil && n < len(frame) { // does not happen; must not go wrong either
		var more int
		more, err = t.w.send(frame[n:], nil)
		n += more
	}
	return n > 0, err
}

// sendFirst sends what it can of frame, with the descriptors: all that can be sent at once if now is set.
func (t *unixTransport) sendFirst(frame []byte, attachments []syscall.Conn, now bool) (int, error) {
	f := &t.first
	f.w, f.frame, f.attachments, f.now, f.n, f.err = t.w, frame, attachments, now, 0, nil
	if f.onward == nil {
		f.onward = f.with
	}
	f.fds = f.fds[:0]
	err := f.send()
	f.frame, f.attachments = nil, nil
	return f.n, err
}

// firstSend is a call of sendFirst. There is one at a time, and its memory is used again: a handover is made of such.
type firstSend struct {
	w           *wire
	frame       []byte
	attachments []syscall.Conn
	now         bool

	fds    []int
	n      int
	err    error
	onward func(uintptr) // is with
}

// send sends the frame when it has the descriptors of all attachments, none of which can be closed meanwhile: they are
// held open, not duplicated. SyscallConn, unlike File and Fd, leaves the shared socket's non-blocking mode alone.
func (f *firstSend) send() (err error) {
	i := len(f.fds)
	if i == len(f.attachments) {
		if f.now {
			f.n, err = f.w.sendNow(f.frame, f.fds)
		} else {
			f.n, err = f.w.send(f.frame, f.fds)
		}
		return err
	}
	raw, err := f.attachments[i].SyscallConn()
	if err == nil {
		err = raw.Control(f.onward)
	}
	if err != nil {
		return attachmentError(i, err)
	}
	return f.err
}

// with goes on with one more descriptor.
func (f *firstSend) with(fd uintptr) {
	f.fds = append(f.fds, int(fd))
	f.err = f.send()
}

func (t *unixTransport) read(p []byte, at uint64) (int, error) {
	for {
		n, oobn, flags, err := t.w.receive(p, t.oob)
		// Where Linux sets MSG_CTRUNC, the BSDs may fail the call for a process that has no room for
		// the descriptors (unp_externalize); the bytes can still be read.
		if (errors.Is(err, unix.EMFILE) || errors.Is(err, unix.EMSGSIZE)) && !t.lost {
			t.lost = true
			continue
		}
		if oobn > 0 || flags&unix.MSG_CTRUNC != 0 || t.lost && n > 0 {
			g := group{start: at, end: at + uint64(n), truncated: t.lost || flags&unix.MSG_CTRUNC != 0}
			t.lost = false
			var parseErr error
			g.fds, parseErr = rights(t.oob[:oobn])
			t.groups = append(t.groups, g)
			if parseErr != nil {
				return n, parseErr
			}
		}
		// A peer that closes without having read all that was sent to it ends the stream with
		// ECONNRESET on Linux, after all that it sent. It is the end all the same.
		if n == 0 && (err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET)) {
			err = io.EOF
		}
		return n, err
	}
}

// rights returns the descriptors in control data. Those found before an error are returned too.
func rights(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: control data that does not parse: %w", ErrProtocol, err)
	}
	var fds []int
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		// Not unix.ParseUnixRights: with a length that is no multiple of 4 it fails and leaks all.
		for b := m.Data; len(b) >= 4; b = b[4:] {
			fds = append(fds, int(int32(binary.NativeEndian.Uint32(b))))
		}
	}
	return fds, nil
}

func (t *unixTransport) checkWithin(start, end uint64) error {
	for _, g := range t.groups {
		if g.start > start && g.end <= end {
			return fmt.Errorf("%w: %d descriptors came within a message instead of at its start", ErrProtocol, len(g.fds))
		}
	}
	return nil
}

func (t *unixTransport) claim(entries []entry, count int, start, end uint64) ([]*Attachment, error) {
	var attachments []*Attachment
	if count > 0 {
		if len(t.groups) == 0 || t.groups[0].start > start || start >= t.groups[0].end {
			return nil, fmt.Errorf("%w: %d attachments announced, none came", ErrProtocol, count)
		}
		g := t.groups[0]
		t.groups = t.groups[1:]
		if len(g.fds) > count || len(g.fds) < count && !g.truncated || len(entries) < count {
			g.close()
			return nil, fmt.Errorf("%w: %d attachments announced, %d came", ErrProtocol, count, len(g.fds))
		}
		attachments = attach(entries, g.fds)
		for i, e := range entries {
			if len(e.body) != 0 {
				return attachments, fmt.Errorf("%w: entry %d has a body of %d bytes, want none", ErrProtocol, i, len(e.body))
			}
		}
	}
	if len(t.groups) > 0 && t.groups[0].end <= end {
		return attachments, fmt.Errorf("%w: %d descriptors came that no message announced", ErrProtocol, len(t.groups[0].fds))
	}
	return attachments, nil
}

// attach makes attachments of fds, and of nothing where the kernel ran out of room.
func attach(entries []entry, fds []int) []*Attachment {
	attachments := make([]*Attachment, len(entries))
	for i, e := range entries {
		if i >= len(fds) {
			attachments[i] = lostAttachment(fmt.Errorf("attachment %d did not arrive: this process is at its limit of open files: %w", i, unix.EMFILE))
			continue
		}
		attachments[i] = newAttachment(fds[i], e.kind, e.name)
	}
	return attachments
}

func (t *unixTransport) drop() {
	for _, g := range t.groups {
		g.close()
	}
	t.groups = nil
}

func (t *unixTransport) setReadDeadline(d time.Time) error  { return t.w.setReadDeadline(d) }
func (t *unixTransport) setWriteDeadline(d time.Time) error { return t.w.setWriteDeadline(d) }

func (t *unixTransport) close() error {
	if t.child != nil {
		t.child.Close()
	}
	return t.w.close()
}

func pair() (transport, transport, error) {
	// Holding ForkLock keeps a child started now from inheriting the descriptors before they are
	// close-on-exec; not every system can make them so at birth.
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	a, errA := fromDescriptor(fds[0])
	b, errB := fromDescriptor(fds[1])
	if err := errors.Join(errA, errB); err != nil {
		for _, t := range []*unixTransport{a, b} {
			if t != nil {
				t.close()
			}
		}
		return nil, nil, err
	}
	shared := new(passed)
	a.pair, a.end = shared, 0
	b.pair, b.end = shared, 1
	return a, b, nil
}

// fromDescriptor takes over fd, a connected Unix-domain stream socket.
func fromDescriptor(fd int) (*unixTransport, error) {
	f := os.NewFile(uintptr(fd), "channel")
	if f == nil {
		return nil, unix.EBADF
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok || uc.LocalAddr().Network() != "unix" {
		c.Close()
		return nil, fmt.Errorf("it is not a Unix-domain stream socket but %s", c.LocalAddr().Network())
	}
	return takeOver(uc)
}

func (t *unixTransport) passTo(cmd *exec.Cmd) (string, error) {
	if t.pair == nil || t.child != nil {
		return "", errors.New("only an end of a pair can be passed on, and once")
	}
	f, err := t.w.file()
	if err != nil {
		return "", err
	}
	t.child = f
	t.pair.set(cmd, t.end)
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	return strconv.Itoa(2 + len(cmd.ExtraFiles)), nil // entry i becomes descriptor 3+i
}

func inherited(value string) (transport, error) {
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, errors.New("not the number of an inherited descriptor")
	}
	// It may be any file's number if the variable is not meant for this process: look before taking.
	if typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || typ != unix.SOCK_STREAM {
		return nil, errors.New("the descriptor is not a stream socket")
	}
	return fromDescriptor(fd)
}
