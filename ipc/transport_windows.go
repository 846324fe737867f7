package ipc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

const network = "pipe"

// handle is a socket or the handle of a file.
type handle = windows.Handle

// pipeFile is what a channel needs of a pipe: go-winio's, or for the end that a child gets an
// *os.File.
type pipeFile interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

type winioConn interface {
	net.Conn
	Fd() uintptr
}

type pipeEnd int

const (
	serverEnd pipeEnd = iota
	clientEnd
)

// pipeTransport is a byte-mode named pipe. Handles travel as numbers in the frame's table.
type pipeTransport struct {
	f pipeFile

	cred    Peer
	credErr error

	pair  *passed // for an end of a pair
	end   int
	child *os.File // the end that a child inherits: f, or nil

	targetMu  sync.Mutex
	target    windows.Handle // the peer's process, with the right to put handles into it; once needed
	targetPID int
	closed    bool
}

func newPipeTransport(c winioConn, end pipeEnd) *pipeTransport {
	t := &pipeTransport{f: c}
	t.cred, t.credErr = credentials(windows.Handle(c.Fd()), end)
	return t
}

func (t *pipeTransport) peer() (Peer, error) {
	p, err := t.cred, t.credErr
	if err == nil && t.pair != nil {
		p, err = t.pair.other(t.end, p)
	}
	return p, err
}

// control is not for Windows: see exportChannel.
func (t *pipeTransport) control(func(uintptr)) error { return errors.ErrUnsupported }

func (t *pipeTransport) sentTo(on transport) {
	t.child = nil
	if to, err := on.peer(); err == nil {
		t.pair.sent(to, t.end)
	}
}

func (t *pipeTransport) send(scratch *[]byte, data []byte, attachments []syscall.Conn) (partial bool, err error) {
	bodies, undo, err := t.exportAll(attachments)
	if err != nil {
		return false, err
	}
	frame := append(beginFrame(*scratch, len(data), attachments, bodies), data...)
	*scratch = frame
	// One write a frame: if it fails, the peer has not read the end of the frame, and drops it.
	if _, err := t.f.Write(frame); err != nil {
		undo()
		err = pipeError(err)
		if err == io.EOF {
			err = syscall.EPIPE
		}
		return true, err
	}
	return false, nil
}

// trySend leaves all to send: a pipe does not say whether it has room.
func (t *pipeTransport) trySend(*[]byte, []byte, []syscall.Conn) (bool, error) { return false, nil }

// exportAll puts the attachments into the peer's process. undo takes back what can be.
func (t *pipeTransport) exportAll(attachments []syscall.Conn) (bodies [][]byte, undo func(), err error) {
	if len(attachments) == 0 {
		return nil, func() {}, nil
	}
	t.targetMu.Lock() // holds off close, which would close the handle to the peer's process
	defer t.targetMu.Unlock()
	if err := t.openTarget(); err != nil {
		return nil, nil, fmt.Errorf("cannot put handles into the peer's process: %w", err)
	}
	var undos []func()
	undo = func() {
		t.targetMu.Lock()
		defer t.targetMu.Unlock()
		if t.target == 0 {
			return
		}
		for _, f := range undos {
			f()
		}
	}
	for i, a := range attachments {
		body, undoOne, err := export(a, t.target, uint32(t.targetPID))
		if err != nil {
			for _, f := range undos {
				f()
			}
			return nil, nil, attachmentError(i, err)
		}
		bodies, undos = append(bodies, body), append(undos, undoOne)
	}
	return bodies, undo, nil
}

// openTarget opens the peer's process to duplicate handles into it. t.targetMu is held.
func (t *pipeTransport) openTarget() error {
	if t.closed {
		return net.ErrClosed
	}
	p, err := t.peer()
	if err != nil {
		return err
	}
	if t.target != 0 && t.targetPID == p.PID {
		return nil
	}
	h, err := windows.OpenProcess(windows.PROCESS_DUP_HANDLE, false, uint32(p.PID))
	if err != nil {
		return os.NewSyscallError("OpenProcess", err)
	}
	t.closeTarget()
	t.target, t.targetPID = h, p.PID
	return nil
}

func (t *pipeTransport) closeTarget() {
	if t.target != 0 {
		windows.CloseHandle(t.target)
		t.target = 0
	}
}

func (t *pipeTransport) read(p []byte, _ uint64) (int, error) {
	n, err := t.f.Read(p)
	return n, pipeError(err)
}

func (t *pipeTransport) claim(entries []entry, count int, _, _ uint64) ([]*Attachment, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	if err := t.mayPlaceHandles(); err != nil {
		return nil, err
	}
	var attachments []*Attachment
	var errs error
	for _, e := range entries {
		a, err := importEntry(e)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		attachments = append(attachments, a)
	}
	return attachments, errs
}

// mayPlaceHandles fails for a peer that a wider policy than SameUser admitted. Such a peer may not
// open this process, so no handle it names is one that it put here: it would name one of ours.
func (t *pipeTransport) mayPlaceHandles() error {
	if t.pair != nil {
		return nil
	}
	p, err := t.peer()
	if err == nil {
		err = sameUser(p)
	}
	if err != nil {
		return fmt.Errorf("%w: attachments from a process that cannot have put handles into this one: %w", ErrProtocol, err)
	}
	return nil
}

func (t *pipeTransport) checkWithin(_, _ uint64) error { return nil }
func (t *pipeTransport) drop()                         {}

func (t *pipeTransport) setReadDeadline(d time.Time) error {
	return pipeError(t.f.SetReadDeadline(d))
}

func (t *pipeTransport) setWriteDeadline(d time.Time) error {
	return pipeError(t.f.SetWriteDeadline(d))
}

func (t *pipeTransport) close() error {
	err := t.f.Close()
	t.targetMu.Lock()
	defer t.targetMu.Unlock()
	t.closed = true
	t.closeTarget()
	return pipeError(err)
}

// pipeError gives go-winio's errors and Windows' the meaning they have on other systems.
func pipeError(err error) error {
	switch {
	case err == nil, err == io.EOF:
		return err
	case errors.Is(err, winio.ErrTimeout):
		return os.ErrDeadlineExceeded
	case errors.Is(err, os.ErrClosed):
		return net.ErrClosed
	case errors.Is(err, windows.ERROR_BROKEN_PIPE), errors.Is(err, windows.ERROR_PIPE_NOT_CONNECTED):
		return io.EOF
	case errors.Is(err, windows.ERROR_NO_DATA): // writing to a pipe that the peer has closed
		return fmt.Errorf("%w: %w", syscall.EPIPE, err)
	}
	return err
}

// pair makes both ends over a pipe with a random name that takes one client. The second end is an
// *os.File, which unlike go-winio's pipes can be given to a child: a handle that is on a completion
// port of this process would be of no use there.
func pair() (transport, transport, error) {
	var random [16]byte
	rand.Read(random[:])
	path := pipePrefix + `usher\pair-` + hex.EncodeToString(random[:])
	l, err := listen(path, false, new(ListenConfig))
	if err != nil {
		return nil, nil, err
	}
	defer l.close()
	type result struct {
		t   transport
		err error
	}
	accepted := make(chan result, 1)
	go func() {
		t, err := l.accept()
		accepted <- result{t, err}
	}()
	client, err := openPipe(path)
	if err != nil {
		l.close()
		if r := <-accepted; r.err == nil {
			r.t.close()
		}
		return nil, nil, err
	}
	r := <-accepted
	if r.err != nil {
		client.Close()
		return nil, nil, r.err
	}
	shared := new(passed)
	a := r.t.(*pipeTransport)
	a.pair, a.end = shared, 0
	b := &pipeTransport{f: client, child: client, cred: a.cred, credErr: a.credErr, pair: shared, end: 1}
	return a, b, nil
}

// openPipe waits until the listener has an instance ready.
func openPipe(path string) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for {
		h, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING,
			windows.FILE_FLAG_OVERLAPPED|windows.SECURITY_SQOS_PRESENT|windows.SECURITY_IDENTIFICATION, 0)
		if err == nil {
			return os.NewFile(uintptr(h), path), nil
		}
		if err != windows.ERROR_PIPE_BUSY || ctx.Err() != nil {
			return nil, os.NewSyscallError("CreateFile", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func (t *pipeTransport) passTo(cmd *exec.Cmd) (string, error) {
	if t.child == nil {
		return "", errors.New("only the second end that Pair returned can be passed on, on Windows, and once")
	}
	h := t.child.Fd() // takes it off this process's completion port
	if err := windows.SetHandleInformation(windows.Handle(h), windows.HANDLE_FLAG_INHERIT, windows.HANDLE_FLAG_INHERIT); err != nil {
		return "", os.NewSyscallError("SetHandleInformation", err)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.AdditionalInheritedHandles = append(cmd.SysProcAttr.AdditionalInheritedHandles, syscall.Handle(h))
	t.pair.set(cmd, t.end)
	t.child = nil
	return strconv.FormatUint(uint64(h), 10), nil
}

func inherited(value string) (transport, error) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n == 0 {
		return nil, errors.New("not the number of an inherited handle")
	}
	h := windows.Handle(n)
	if typ, err := windows.GetFileType(h); err != nil || typ != windows.FILE_TYPE_PIPE {
		return nil, errors.New("the handle is not a pipe")
	}
	if err := windows.SetHandleInformation(h, windows.HANDLE_FLAG_INHERIT, 0); err != nil {
		return nil, os.NewSyscallError("SetHandleInformation", err)
	}
	f := os.NewFile(uintptr(h), "channel")
	t := &pipeTransport{f: f}
	t.cred, t.credErr = credentials(h, clientEnd)
	t.pair = &passed{parent: t.cred.PID}
	return t, nil
}
