package sys_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/internal/sys"
	"golang.org/x/sys/unix"
)

// socketPair returns two connected sockets. They are blocking, which the calls must not be.
func socketPair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// rights are the descriptors in control data.
func rights(t *testing.T, oob []byte) (fds []int) {
	t.Helper()
	for _, m := range must(unix.ParseSocketControlMessage(oob))(t) {
		fds = append(fds, must(unix.ParseUnixRights(&m))(t)...)
	}
	t.Cleanup(func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	})
	return fds
}

// TestDescriptorsArrive sends files that have their numbers written in them. 253 is the most that the kernel takes.
func TestDescriptorsArrive(t *testing.T) {
	faults.NoLeak(t)
	for _, count := range []int{0, 1, 2, 253} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			from, to := socketPair(t)
			var fds []int
			for i := range count {
				f := must(os.CreateTemp(t.TempDir(), ""))(t)
				defer f.Close()
				fmt.Fprint(f, i)
				fds = append(fds, int(f.Fd()))
			}
			if n, err := sys.TrySendRights(from, []byte("hello"), fds); n != 5 || err != nil {
				t.Fatalf("sent %d, %v", n, err)
			}
			b, oob := make([]byte, 10), make([]byte, unix.CmsgSpace(4*253))
			n, oobn, flags, err := sys.RecvRights(to, b, oob)
			if err != nil || string(b[:n]) != "hello" || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
				t.Fatalf("received %q, %v, flags %#x", b[:n], err, flags)
			}
			if want := unix.CmsgSpace(4 * count); count > 0 && oobn != want || count == 0 && oobn != 0 {
				t.Errorf("%d bytes of control data, want %d", oobn, want)
			}
			got := rights(t, oob[:oobn])
			if len(got) != count {
				t.Fatalf("%d descriptors came", len(got))
			}
			for i, fd := range got {
				n, err := unix.Pread(fd, b, 0)
				if err != nil || string(b[:n]) != fmt.Sprint(i) {
					t.Errorf("file %d holds %q, %v", i, b[:n], err)
				}
				if flags := must(unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0))(t); flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("children would inherit descriptor %d", i)
				}
			}
		})
	}
}

func TestDescriptorsWithoutRoomAreTruncated(t *testing.T) {
	faults.NoLeak(t)
	from, to := socketPair(t)
	if _, err := sys.TrySendRights(from, []byte("x"), []int{from, from, from, from}); err != nil {
		t.Fatal(err)
	}
	oob := make([]byte, unix.CmsgSpace(2*4))
	_, oobn, flags, err := sys.RecvRights(to, make([]byte, 1), oob)
	if err != nil || flags&unix.MSG_CTRUNC == 0 {
		t.Errorf("received flags %#x, %v; want MSG_CTRUNC", flags, err)
	}
	if fds := rights(t, oob[:oobn]); len(fds) != 2 {
		t.Errorf("%d descriptors came, want 2", len(fds))
	}
}

func TestMessagesDoNotWait(t *testing.T) {
	from, to := socketPair(t)
	b := make([]byte, 1<<20)
	if n, _, _, err := sys.RecvRights(to, b, b); err != unix.EAGAIN {
		t.Errorf("received %d, %v; want EAGAIN", n, err)
	}
	sent := 0
	for err := error(nil); err != unix.EAGAIN; {
		var n int
		n, err = sys.TrySendRights(from, b, nil)
		if err != nil && err != unix.EAGAIN {
			t.Fatal(err)
		}
		if sent += n; sent > 1<<30 {
			t.Fatal("the socket never is full")
		}
	}
	received := 0
	for {
		n, _, _, err := sys.RecvRights(to, b, make([]byte, 100))
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		received += n
	}
	if received != sent {
		t.Errorf("sent %d bytes, received %d", sent, received)
	}
}

// TestOneCallCopiesLittle: the scheduler does not know of the calls.
func TestOneCallCopiesLittle(t *testing.T) {
	from, to := socketPair(t)
	const most = 256 << 10
	if err := unix.SetsockoptInt(from, unix.SOL_SOCKET, unix.SO_SNDBUF, 4*most); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), most/8)
	total := 0
	for range 2 {
		n, err := sys.TrySendRights(from, big, nil)
		if err != nil || n > most {
			t.Errorf("sent %d bytes at once, %v; want %d at most", n, err, most)
		}
		total += n
	}
	if total <= most {
		t.Skipf("the socket has room for %d bytes only", total)
	}
	if n, _, _, err := sys.RecvRights(to, make([]byte, len(big)), make([]byte, 100)); err != nil || n > most {
		t.Errorf("received %d bytes at once, %v; want %d at most", n, err, most)
	}
}

func TestMessagesToAndFromAPeerThatIsGone(t *testing.T) {
	from, to := socketPair(t)
	if err := unix.Shutdown(to, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	// Without MSG_NOSIGNAL this would also raise SIGPIPE, which package os passes over for descriptors above 2.
	if _, err := sys.TrySendRights(from, []byte("x"), nil); err != unix.EPIPE {
		t.Errorf("sent: %v, want EPIPE", err)
	}
	if n, _, _, err := sys.RecvRights(from, make([]byte, 1), make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("received %d, %v; want the end", n, err)
	}
}

func TestMessagesWithoutAByteAreRefused(t *testing.T) {
	from, to := socketPair(t)
	if _, err := sys.TrySendRights(from, nil, []int{from}); err != unix.EINVAL {
		t.Errorf("sent: %v", err)
	}
	for _, b := range [][2][]byte{{nil, make([]byte, 1)}, {make([]byte, 1), nil}} {
		if _, _, _, err := sys.RecvRights(to, b[0], b[1]); err != unix.EINVAL {
			t.Errorf("received into %d and %d bytes: %v", len(b[0]), len(b[1]), err)
		}
	}
	if _, err := sys.TrySendRights(-1, []byte("x"), nil); err != unix.EBADF {
		t.Errorf("sent to no descriptor: %v", err)
	}
}

func TestDisconnectResetsTheClient(t *testing.T) {
	client, s := connect(t)
	if err := sys.Disconnect(uintptr(s.Descriptor())); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the client read %v, want a reset", err)
	}
	if err := sys.Disconnect(^uintptr(0)); err != unix.EBADF {
		t.Errorf("no descriptor: %v", err)
	}
}
