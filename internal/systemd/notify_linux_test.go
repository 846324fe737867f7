package systemd

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// manager is the socket at which systemd would hear of this process.
type manager struct{ *net.UnixConn }

func listenAsManager(t testing.TB, address string) manager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		os.Remove(address)
	})
	t.Setenv("NOTIFY_SOCKET", address)
	return manager{c}
}

// next returns the next datagram, and "" where none is there: a datagram is there when its sender's call has returned.
func (m manager) next(t testing.TB) string {
	t.Helper()
	state, files := m.nextWithFiles(t)
	if len(files) > 0 {
		t.Errorf("%q came with %d descriptors", state, len(files))
	}
	return state
}

// nextWithFiles is next for datagrams that may have descriptors.
func (m manager) nextWithFiles(t testing.TB) (string, []*os.File) {
	t.Helper()
	raw, err := m.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(64*4))
	var n, oobn int
	raw.Read(func(fd uintptr) bool {
		n, oobn, _, _, err = unix.Recvmsg(int(fd), b, oob, unix.MSG_CMSG_CLOEXEC)
		return true
	})
	if errors.Is(err, unix.EAGAIN) {
		return "", nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), filesOf(t, oob[:oobn])
}

// wait is nextWithFiles for a datagram that another process has yet to send.
func (m manager) wait(t testing.TB) (string, []*os.File) {
	t.Helper()
	b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(64*4))
	m.SetReadDeadline(time.Now().Add(time.Minute))
	n, oobn, _, _, err := m.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), filesOf(t, oob[:oobn])
}

func filesOf(t testing.TB, oob []byte) (files []*os.File) {
	t.Helper()
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			f := os.NewFile(uintptr(fd), "stored")
			t.Cleanup(func() { f.Close() })
			files = append(files, f)
		}
	}
	return files
}

func mustNotFail(t testing.TB) Notifier {
	return Notifier{Failed: func(err error) { t.Error(err) }}
}

func TestNewsReachesSystemdInOneDatagram(t *testing.T) {
	tests := []struct {
		name string
		tell func(*Notifier)
		want string
	}{
		{"ready", func(n *Notifier) { n.Ready("2 listeners, 7 routes") }, "READY=1\nSTATUS=2 listeners, 7 routes"},
		{"stopping", (*Notifier).Stopping, "STOPPING=1"},
		{"another main process", func(n *Notifier) { n.MainPID(4711) }, "MAINPID=4711"},
		{"a socket that is given up", func(n *Notifier) { n.Remove("[::1]:80") }, "FDSTOREREMOVE=1\nFDNAME=usher-listen=%5B%3A%3A1%5D%3A80"},
		{"no status", func(n *Notifier) { n.Ready("") }, "READY=1\nSTATUS="},
		{"a status of two lines has one", func(n *Notifier) { n.Ready("a\nSTOPPING=1\r\nb\x00\x1b[0m") }, "READY=1\nSTATUS=a STOPPING=1  b  [0m"},
		{"a status that is not UTF-8", func(n *Notifier) { n.Ready("caf\xe9 \u00e9") }, "READY=1\nSTATUS=caf\uFFFD \u00e9"},
	}
	sockets := []struct{ name, address string }{
		{"a socket in a folder", filepath.Join(t.TempDir(), "notify")},
		{"an abstract socket", "@usher-test-" + strconv.Itoa(os.Getpid())},
	}
	for _, s := range sockets {
		for _, tt := range tests {
			t.Run(s.name+" hears "+tt.name, func(t *testing.T) {
				m := listenAsManager(t, s.address)
				n := mustNotFail(t)
				tt.tell(&n)
				if got := m.next(t); got != tt.want {
					t.Errorf("systemd hears %q; want %q", got, tt.want)
				}
				if got := m.next(t); got != "" {
					t.Errorf("systemd hears %q more", got)
				}
			})
		}
	}
}

func TestReloadingSaysWhenItBeganByTheMonotonicClock(t *testing.T) {
	m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	n := mustNotFail(t)
	before := monotonic(t)
	n.Reloading()
	after := monotonic(t)
	got := m.next(t)
	usec, ok := strings.CutPrefix(strings.TrimSuffix(got, "\n"), "RELOADING=1\nMONOTONIC_USEC=")
	began, err := strconv.ParseInt(usec, 10, 64)
	if !ok || err != nil {
		t.Fatalf("systemd hears %q", got)
	}
	if began < before || began > after {
		t.Errorf("it began at %d; want %d to %d", began, before, after)
	}
}

// monotonic returns microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
}

func TestWhatCannotBeToldIsReported(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	var failed []error
	n := Notifier{Failed: func(err error) { failed = append(failed, err) }}
	n.Ready("")
	n.Stopping()
	if len(failed) != 2 || !errors.Is(failed[0], fs.ErrNotExist) || !strings.Contains(failed[0].Error(), "ready") {
		t.Errorf("reported: %q", failed)
	}
	new(Notifier).Stopping() // nobody to report it to
}

func TestWithoutAManagerNothingIsDone(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	n := mustNotFail(t)
	n.Ready("ready")
	n.Reloading()
	n.Stopping()
	n.Watch(context.Background(), func() error {
		t.Error("asked for the health of a service that is not watched")
		return nil
	})
}

func TestTheWatchdogIsToldOnlyOfHealth(t *testing.T) {
	m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "2000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ill := errors.New("the acceptor is stuck")
	results := []error{nil, ill, ill, nil, ill}
	ctx, cancel := context.WithCancel(context.Background())
	var failed []error
	n := Notifier{Failed: func(err error) { failed = append(failed, err) }}
	asked := 0
	n.Watch(ctx, func() error {
		result := results[asked]
		if asked++; asked == len(results) {
			cancel()
		}
		return result
	})
	for i, want := range []string{"WATCHDOG=1", "WATCHDOG=1", ""} {
		if got := m.next(t); got != want {
			t.Errorf("systemd hears %q as number %d; want %q", got, i, want)
		}
	}
	if len(failed) != 3 || !errors.Is(failed[0], ill) {
		t.Errorf("reported: %q; want the 3 failures", failed)
	}
}

func TestAWatchThatHasEndedIsNotBegun(t *testing.T) {
	m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", strconv.FormatInt(time.Hour.Microseconds(), 10))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n := mustNotFail(t)
	n.Watch(ctx, func() error { return nil })
	if got := m.next(t); got != "" {
		t.Errorf("systemd hears %q", got)
	}
}

func TestAWatchdogThatIsNotForThisProcessIsLeftAlone(t *testing.T) {
	m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	tests := []struct {
		name, period, pid string
		wantFailed        bool
	}{
		{"the watchdog of another process", "1000", strconv.Itoa(os.Getppid()), false},
		{"a period that is no number", "soon", "", true},
		{"a period of nothing", "0", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", tt.period)
			t.Setenv("WATCHDOG_PID", tt.pid)
			failed := false
			n := Notifier{Failed: func(error) { failed = true }}
			n.Watch(context.Background(), func() error { return nil })
			if failed != tt.wantFailed {
				t.Errorf("a failure reported: %t; want %t", failed, tt.wantFailed)
			}
			if got := m.next(t); got != "" {
				t.Errorf("systemd hears %q", got)
			}
		})
	}
}

// A status may have in it what peers sent, as the name of a host.
func FuzzStatus(f *testing.F) {
	m := listenAsManager(f, filepath.Join(f.TempDir(), "notify"))
	for _, seed := range []string{"", "7 routes", "a\nREADY=1", "\xff\n\xfe", "\u2028x=1", strings.Repeat("\n", 4096)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, status string) {
		if len(status) > 32<<10 {
			t.Skip("more than a datagram may hold")
		}
		n := mustNotFail(t)
		n.Ready(status)
		got := m.next(t)
		if text, ok := strings.CutPrefix(got, "READY=1\nSTATUS="); !ok || strings.ContainsAny(text, "\x00\n\r") || !utf8.ValidString(text) {
			t.Errorf("systemd hears %q", got)
		}
	})
}

// TestNewsForASystemdThatHangsIsGivenUp has it read nothing until the queue of its socket is full.
func TestNewsForASystemdThatHangsIsGivenUp(t *testing.T) {
	listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	fill(t, os.Getenv("NOTIFY_SOCKET"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for name, tell := range map[string]func(*Notifier){
		"news":     func(n *Notifier) { n.MainPID(1) },
		"a socket": func(n *Notifier) { n.Keep(map[string][]syscall.Conn{":1": {l.(syscall.Conn)}}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := make(chan error, 1)
			go tell(&Notifier{Failed: func(err error) { failed <- err }})
			select {
			case err := <-failed:
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("it fails with %v", err)
				}
			case <-time.After(time.Minute):
				t.Error("it is waited for")
			}
		})
	}
}

// fill sends to a socket until there is no room in its queue.
func fill(t *testing.T, address string) {
	t.Helper()
	c, err := net.Dial("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Write(func(fd uintptr) bool {
		for err == nil {
			_, err = unix.Write(int(fd), []byte("x"))
		}
		return true
	})
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
}
