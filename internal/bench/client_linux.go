package bench

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errNoPort is what connect says when all ports to a destination are used.
var errNoPort error = unix.EADDRNOTAVAIL

// socket is a connection whose calls block in the kernel. Package net would add the poller's system calls and two
// switches of goroutines to each request, which is much beside what is measured.
type socket struct {
	fd       int
	net.Conn // nil: of the rest, TLS calls nothing
}

// dial connects to address. The caller owns the connection.
func dial(address netip.AddrPort) (net.Conn, time.Time, error) {
	s := new(socket)
	begin, err := whilePortsRunShort(func() (err error) {
		s.fd, err = connect(address)
		return err
	})
	if err != nil {
		return nil, begin, err
	}
	return s, begin, nil
}

// connect returns a socket that the caller owns.
func connect(address netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	timeout := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect %v: %w", address, err)
	}
	return fd, nil
}

func (s *socket) Read(p []byte) (int, error) {
	return received(unix.Read(s.fd, p))
}

// received is for the results of read and recv.
func received(n int, err error) (int, error) {
	switch {
	case err == unix.EAGAIN:
		return 0, errLate
	case err == unix.EINTR: // SA_RESTART is not for sockets with SO_RCVTIMEO: signal(7)
		return 0, nil
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (s *socket) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n, err := unix.Write(s.fd, p[sent:])
		if err != nil && err != unix.EINTR {
			return sent, os.NewSyscallError("write", err)
		}
		sent += max(n, 0)
	}
	return len(p), nil
}

// Close may be called again and then does nothing.
func (s *socket) Close() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

func noDelay(conn net.Conn) error {
	err := unix.SetsockoptInt(conn.(*socket).fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return os.NewSyscallError("setsockopt", err)
}

// TLS sets one for the last record that it sends.
func (*socket) SetWriteDeadline(time.Time) error { return nil }

// discard reads and forgets n bytes. With MSG_TRUNC the kernel does not even copy them: tcp(7).
func discard(conn net.Conn, n int64, buf []byte) error {
	s := conn.(*socket)
	for n > 0 {
		got, _, err := unix.Recvfrom(s.fd, buf[:min(n, int64(len(buf)))], unix.MSG_TRUNC)
		got, err = received(got, err)
		if err != nil {
			return err
		}
		n -= int64(got)
	}
	return nil
}

// run lets the clients go on for so long. All are on one thread with one epoll instance: the client must be cheap,
// as it takes its time from the same processors as what is measured.
func (l *load) run(d time.Duration) (t tally, err error) {
	err = onOneThread(func() error {
		t, err = l.loop(d)
		return err
	})
	return t, err
}

// loader is a load that runs.
type loader struct {
	*load
	epoll   int
	clients []loadClient
	next    int           // request
	waited  time.Duration // for ports, which does not count
	tally   tally
}

type loadClient struct {
	fd    int // -1: it has no connection
	begin time.Time
	n     int // bytes that are in buf
	buf   [maxHeader]byte
}

func (l *load) loop(d time.Duration) (tally, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return tally{}, os.NewSyscallError("epoll_create1", err)
	}
	defer unix.Close(epoll)
	r := &loader{load: l, epoll: epoll, clients: make([]loadClient, l.clients)}
	for i := range r.clients {
		r.clients[i].fd = -1
	}
	defer r.close()

	if l.keep { // the connections come before the clock starts
		for i := range r.clients {
			if err := r.connect(i); err != nil {
				return tally{}, err
			}
		}
	}
	begin := time.Now()
	for i := range r.clients {
		if err := r.begin(i); err != nil {
			return tally{}, err
		}
	}
	if err := r.attend(begin.Add(d)); err != nil {
		return tally{}, err
	}
	r.tally.took = time.Since(begin) - r.waited
	return r.tally, nil
}

func (r *loader) close() {
	for i := range r.clients {
		if fd := r.clients[i].fd; fd >= 0 {
			unix.Close(fd)
		}
	}
}

// connect gives a client a connection. That blocks, and is over when the kernel on the other side has answered: it
// needs nobody to accept.
func (r *loader) connect(i int) error {
	fd, err := connect(r.address)
	if err != nil {
		return err
	}
	r.clients[i].fd = fd
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)} // data, which is ours, whatever x/sys calls it
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

// begin makes a client's next request.
func (r *loader) begin(i int) (err error) {
	c := &r.clients[i]
	if c.fd < 0 {
		first := time.Now()
		c.begin, err = whilePortsRunShort(func() error { return r.connect(i) })
		r.waited += c.begin.Sub(first)
		if err != nil {
			return err
		}
	} else {
		c.begin = time.Now()
	}
	c.n = 0
	request := r.requests[r.next%len(r.requests)]
	r.next++
	n, err := unix.Write(c.fd, request)
	if err != nil || n < len(request) { // there is room in an empty buffer
		return fmt.Errorf("write: %d of %d bytes: %w", n, len(request), err)
	}
	return nil
}

// attend sees each client's request through, and has it make the next until deadline has come. It returns when all
// requests are answered.
func (r *loader) attend(deadline time.Time) error {
	events := make([]unix.EpollEvent, len(r.clients))
	for waiting := len(r.clients); waiting > 0; {
		n, err := unix.EpollWait(r.epoll, events, int(patience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("epoll_wait", err)
		}
		if n == 0 {
			return errLate
		}
		for _, e := range events[:n] {
			i := int(e.Fd)
			done, err := r.read(i)
			if err != nil {
				return err
			}
			if !done {
				continue
			}
			now := time.Now()
			r.tally.latencies = append(r.tally.latencies, micros(now.Sub(r.clients[i].begin)))
			if !now.Before(deadline) {
				waiting--
				continue
			}
			if err := r.begin(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// read reads what there is for a client, and says whether it has the whole answer. It then closes a connection that
// is not kept, which is of the request's time.
func (r *loader) read(i int) (done bool, err error) {
	c := &r.clients[i]
	if c.n == len(c.buf) {
		return false, errTooLong
	}
	n, err := received(unix.Read(c.fd, c.buf[c.n:]))
	if err == io.EOF {
		return false, errEnd
	}
	if err != nil {
		return false, err
	}
	c.n += n
	done, err = checkAnswer(c.buf[:c.n])
	if done && !r.keep {
		err = os.NewSyscallError("close", unix.Close(c.fd))
		c.fd = -1
	}
	return done, err
}
