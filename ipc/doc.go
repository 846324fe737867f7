// Package ipc passes messages between processes on one machine, and with them live connections,
// listeners and open files.
//
// A message is a slice of bytes and some attachments, both within [Limits]. What is attached arrives as a new
// handle to the same kernel object: a TCP connection is the same connection, a file has the same
// offset. The sender's own handle stays the sender's, to use (see below for Windows) and to close.
//
//	// in one process
//	c, err := ipc.Dial(ctx, "shop")
//	err = c.Send(prefix, tcpConn) // prefix: what was already read from tcpConn
//
//	// in another
//	l, err := ipc.Listen("shop")
//	c, err := l.Accept()
//	m, err := c.Receive()
//	defer m.Close()
//	conn, err := m.Attachments()[0].Conn()
//	served := ipc.NewPrefixConn(conn, m.Data)
//
// Package ipc promises nothing about who owns a connection that is on its way: a message that was
// sent may die unread with its receiver. The package above it, usher, does.
//
// # Endpoints
//
// A plain name such as shop or shop.example.com, made of letters, digits, '.', '-' and '_', is on
// Unix the socket file DIR/NAME.sock. DIR is $USHER_DIR; without it /run/usher for root
// (/var/run/usher where there is no /run: not on Linux), $XDG_RUNTIME_DIR/usher for others, and without that a folder of the user's own under the temporary
// folder. On Windows it is the named pipe \\.\pipe\usher\NAME. A name that has a path separator is
// the path of the socket, or of the pipe, itself.
//
// # Security
//
// The default is to deny: a [Listener] admits and [Dial] accepts only the same user and root (on
// Windows the same user, Administrators and SYSTEM), whoever the kernel says is at the other end of
// this very connection. A Policy says otherwise: see [Users], [Groups] and [AnyOf]. Socket files have mode 0600 and
// their folder 0700, unless told otherwise by [ListenConfig].Mode and by who makes the folder.
//
// # Systems
//
// Linux, macOS, FreeBSD, OpenBSD and NetBSD carry attachments as SCM_RIGHTS over Unix-domain stream
// sockets, Windows through WSADuplicateSocket and DuplicateHandle over named pipes. Elsewhere the
// package builds and every function returns an error that is [errors.ErrUnsupported].
//
// On Windows, sending a socket takes it off the sender's completion port, as net.TCPConn.File does:
// after Send, also one that failed, the sender should only close what it gave it. No read or write may be pending on it when
// it is sent. Unix-domain sockets cannot be sent there.
//
// On Linux a channel takes two descriptors, and a third once a Send has had to wait: it is polled through epoll sets of its own,
// so that a sender does not wake up each time that the other side has received.
//
// On macOS the kernel may drop a descriptor that is on its way when its last open copy is closed
// before it was received: a sender there does well to close its copy when the receiver has answered.
//
// # Errors
//
// What fails for being closed is [net.ErrClosed], for a deadline [os.ErrDeadlineExceeded], both
// through [errors.Is]. Receive returns a bare [io.EOF] at the end. Other errors are a [*net.OpError]
// with the operation and the endpoint. A peer that breaks the protocol gives [ErrProtocol].
//
// The wire format is in SPEC.md at the root of the module.
package ipc
