package ipc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/windows"
)

// fileBody is the length of an entry's body for a file: the handle, placed into the receiver by the
// sender. protocolInfo is that for a socket: a WSAPROTOCOL_INFOW.
const fileBody = 8

var protocolInfo = binary.Size(windows.WSAProtocolInfo{})

// export prepares an attachment for the process pid, to which target is a handle: the entry's body.
//
// For a socket, WSADuplicateSocket puts a duplicate into the other process, which has it from
// WSASocket; if the message then fails, it stays there until that process ends. undo, for a file,
// takes the duplicate back.
func export(a syscall.Conn, target windows.Handle, pid uint32) (body []byte, undo func(), err error) {
	if f, ok := a.(*os.File); ok {
		return exportFile(f, target)
	}
	if c, ok := a.(*Conn); ok {
		return exportChannel(c, target)
	}
	if p, ok := a.(*PrefixConn); ok {
		inner, ok := p.NetConn().(syscall.Conn)
		if !ok {
			return nil, nil, errors.ErrUnsupported
		}
		return export(inner, target, pid)
	}
	switch a.(type) {
	case *net.UnixConn, *net.UnixListener:
		return nil, nil, fmt.Errorf("a Unix-domain socket cannot be passed on Windows: %w", errors.ErrUnsupported)
	}
	if s, ok := a.(interface{ File() (*os.File, error) }); ok {
		body, err = exportSocket(s, pid)
	} else {
		body, err = exportRaw(a, pid)
	}
	return body, func() {}, err
}

// exportRaw exports a socket that is on no completion port already.
func exportRaw(s syscall.Conn, pid uint32) (body []byte, err error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	var dupErr error
	err = raw.Control(func(h uintptr) { body, dupErr = duplicateSocket(windows.Handle(h), pid) })
	if err == nil {
		err = dupErr
	}
	return body, err
}

func duplicateSocket(s windows.Handle, pid uint32) ([]byte, error) {
	var info windows.WSAProtocolInfo
	if err := windows.WSADuplicateSocket(s, pid, &info); err != nil {
		return nil, os.NewSyscallError("WSADuplicateSocket", err)
	}
	return binary.Append(nil, binary.LittleEndian, &info)
}

func exportSocket(s interface{ File() (*os.File, error) }, pid uint32) ([]byte, error) {
	f, err := s.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// File took the socket off its completion port and put the duplicate onto one. The receiver can
	// only use the socket when it is on none: Fd takes it off.
	return duplicateSocket(windows.Handle(f.Fd()), pid)
}

func exportFile(f *os.File, target windows.Handle) (body []byte, undo func(), err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var theirs windows.Handle
	var dupErr error
	err = raw.Control(func(h uintptr) {
		dupErr = windows.DuplicateHandle(windows.CurrentProcess(), windows.Handle(h), target, &theirs, 0, false,
			windows.DUPLICATE_SAME_ACCESS)
	})
	if err == nil {
		err = os.NewSyscallError("DuplicateHandle", dupErr)
	}
	if err != nil {
		return nil, nil, err
	}
	undo = func() {
		_ = windows.DuplicateHandle(target, theirs, 0, nil, 0, false, windows.DUPLICATE_CLOSE_SOURCE)
	}
	return binary.LittleEndian.AppendUint64(nil, uint64(theirs)), undo, nil
}

// channelKind is what a channel is on the wire: the end of a pipe.
const channelKind = kindFile

// exportChannel exports what a child could inherit: the end of a pair that is on no completion port for good.
func exportChannel(c *Conn, target windows.Handle) (body []byte, undo func(), err error) {
	t := c.t.(*pipeTransport)
	err = c.whileWhole(func() error {
		if t.child == nil {
			return errors.New("only the second end that Pair returned can be sent, on Windows, and once")
		}
		t.child.Fd() // takes it off this process's completion port
		var err error
		body, undo, err = exportFile(t.child, target)
		return err
	})
	return body, undo, err
}

// importEntry makes the attachment of an entry. An attachment that cannot be made is lost, not
// fatal: the process may be out of handles. A body that makes no sense is a breach of the protocol.
func importEntry(e entry) (*Attachment, error) {
	if e.kind == kindSocket {
		if len(e.body) != protocolInfo {
			return nil, fmt.Errorf("%w: a socket with a body of %d bytes, want %d", ErrProtocol, len(e.body), protocolInfo)
		}
		var info windows.WSAProtocolInfo
		if err := binary.Read(bytes.NewReader(e.body), binary.LittleEndian, &info); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		// FROM_PROTOCOL_INFO is -1.
		s, err := windows.WSASocket(-1, -1, -1, &info, 0, windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
		if err != nil {
			return lostAttachment(fmt.Errorf("attachment did not arrive: %w", os.NewSyscallError("WSASocket", err))), nil
		}
		return newAttachment(s, kindSocket, e.name), nil
	}
	if len(e.body) != fileBody {
		return nil, fmt.Errorf("%w: a file with a body of %d bytes, want %d", ErrProtocol, len(e.body), fileBody)
	}
	h := windows.Handle(binary.LittleEndian.Uint64(e.body))
	if t, err := windows.GetFileType(h); (err != nil || t == windows.FILE_TYPE_UNKNOWN) && !sys.IsSection(h) {
		return nil, fmt.Errorf("%w: %#x is no handle of a file or a section", ErrProtocol, h)
	}
	return newAttachment(h, kindFile, e.name), nil
}

func closeHandle(h handle, k kind) error {
	if k == kindSocket {
		return os.NewSyscallError("closesocket", windows.Closesocket(h))
	}
	return os.NewSyscallError("CloseHandle", windows.CloseHandle(h))
}

// Of winsock2.h.
const (
	soAcceptConn = 0x2    // SO_ACCEPTCONN
	soType       = 0x1008 // SO_TYPE
)

// describe says what the attachment is, in the words of the errors below.
func describe(a *Attachment) (what string, listens, stream bool) {
	if a.kind == kindFile {
		return "a file", false, false
	}
	typ, err := windows.GetsockoptInt(a.h, windows.SOL_SOCKET, soType)
	if err != nil || typ != windows.SOCK_STREAM {
		return "a packet socket", false, false
	}
	accepts, err := windows.GetsockoptInt(a.h, windows.SOL_SOCKET, soAcceptConn)
	if err == nil && accepts != 0 {
		return "a listener", true, true
	}
	return "a connection", false, true
}

// viaFile makes a T of the attachment by one of net's File functions, which duplicate the socket,
// then closes the original.
func viaFile[T any](a *Attachment, make func(*os.File) (T, error)) (T, error) {
	v, err := make(a.file())
	if err == nil {
		a.f.Close()
	}
	return v, err
}

// file returns the attachment's handle as an *os.File, which owns it from then on; the attachment
// keeps the file, for another try or for Message.Close.
func (a *Attachment) file() *os.File {
	if a.f == nil {
		a.f = os.NewFile(uintptr(a.h), a.name)
	}
	return a.f
}

func toConn(a *Attachment) (net.Conn, error) {
	what, listens, stream := describe(a)
	if a.kind == kindFile || listens {
		return nil, fmt.Errorf("it is %s", what)
	}
	if !stream {
		if _, err := windows.Getpeername(a.h); err != nil {
			return nil, fmt.Errorf("it is %s without a peer", what)
		}
	}
	options := sys.ReadTCPOptions(uintptr(a.h))
	c, err := viaFile(a, net.FileConn)
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		if err := options.Restore(tcp); err != nil {
			c.Close()
			a.open, a.err = false, err
			return nil, err
		}
	}
	return c, nil
}

func toListener(a *Attachment) (net.Listener, error) {
	if what, listens, _ := describe(a); !listens {
		return nil, fmt.Errorf("it is %s", what)
	}
	return viaFile(a, net.FileListener)
}

func toPacketConn(a *Attachment) (net.PacketConn, error) {
	if what, _, stream := describe(a); a.kind == kindFile || stream {
		return nil, fmt.Errorf("it is %s", what)
	}
	return viaFile(a, net.FilePacketConn)
}

func toFile(a *Attachment) (*os.File, error) {
	if what, _, _ := describe(a); a.kind != kindFile {
		return nil, fmt.Errorf("it is %s", what)
	}
	return a.file(), nil
}

// toChannel takes the end of a pipe that the sender itself has made: this process will put handles into that which has the
// other end.
func toChannel(a *Attachment, l Limits) (*Conn, error) {
	if what, _, _ := describe(a); a.kind != kindFile {
		return nil, fmt.Errorf("it is %s", what)
	}
	if typ, err := windows.GetFileType(a.h); err != nil || typ != windows.FILE_TYPE_PIPE {
		return nil, errors.New("it is a file that is no pipe")
	}
	sender, err := a.from.peer()
	if err != nil {
		return nil, err
	}
	made, err := credentials(a.h, clientEnd)
	if err != nil {
		return nil, err
	}
	if made.PID != sender.PID {
		return nil, fmt.Errorf("process %d has sent it, and process %d has made it", sender.PID, made.PID)
	}
	f := a.file()
	if err := f.SetDeadline(time.Time{}); err != nil { // a read that waits could not be ended
		return nil, fmt.Errorf("it is no overlapped pipe: %w", err)
	}
	return newConn(&pipeTransport{f: f, cred: made, pair: elsewhere(sender, 0), end: 1}, "pair", l), nil
}

// toSocket is not for Windows, where reading a socket as a file has its own rules (ReadFile).
func toSocket(*Attachment) (*os.File, error) { return nil, errors.ErrUnsupported }
