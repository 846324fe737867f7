package systemd

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-usher/usher/internal/faults"
	"golang.org/x/sys/unix"
)

func listen(t testing.TB, address string) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// inode names a socket, whoever has descriptors of it.
func inode(t testing.TB, s syscall.Conn) uint64 {
	t.Helper()
	var st unix.Stat_t
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) })
	if err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// hears fails unless the next datagrams are these, in any order. Each is "what name", and for one that stores it returns
// the socket by the name.
func (m manager) hears(t testing.TB, want ...string) map[string][]uint64 {
	t.Helper()
	stored := make(map[string][]uint64)
	var got []string
	for {
		state, files := m.nextWithFiles(t)
		if state == "" {
			break
		}
		what, name, _ := strings.Cut(state, "\nFDNAME=")
		got = append(got, what+" "+name)
		for _, f := range files {
			stored[name] = append(stored[name], inode(t, f))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("systemd hears %q; want %q", got, want)
	}
	return stored
}

func TestTheStoreIsKeptLikeTheListenersAre(t *testing.T) {
	m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	n := mustNotFail(t)
	a, b, c := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")

	n.Keep(map[string][]syscall.Conn{":80": {a}, ":443": {b}})
	stored := m.hears(t, "FDSTORE=1 usher-listen=%3A80", "FDSTORE=1 usher-listen=%3A443")
	want := map[string][]uint64{"usher-listen=%3A80": {inode(t, a)}, "usher-listen=%3A443": {inode(t, b)}}
	if !maps.EqualFunc(stored, want, slices.Equal) {
		t.Errorf("systemd has the sockets %v; want %v", stored, want)
	}

	n.Keep(map[string][]syscall.Conn{":443": {b}, ":8080": {c}})
	if first := m.next(t); first != "FDSTOREREMOVE=1\nFDNAME=usher-listen=%3A80" {
		t.Errorf("systemd hears %q; want what is removed first", first)
	}
	m.hears(t, "FDSTORE=1 usher-listen=%3A443", "FDSTORE=1 usher-listen=%3A8080")

	n.Keep(nil)
	m.hears(t, "FDSTOREREMOVE=1 usher-listen=%3A443", "FDSTOREREMOVE=1 usher-listen=%3A8080")
	n.Keep(nil)
	m.hears(t)
}

// Port 0 may be there several times, and they have one name.
func TestOfSeveralSocketsOfAnAddressOneCanGo(t *testing.T) {
	m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	n := mustNotFail(t)
	a, b := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	const name = "usher-listen=127.0.0.1%3A0"
	n.Keep(map[string][]syscall.Conn{"127.0.0.1:0": {a, b}})
	stored := m.hears(t, "FDSTORE=1 "+name, "FDSTORE=1 "+name)
	if got, want := stored[name], []uint64{inode(t, a), inode(t, b)}; !slices.Equal(got, want) {
		t.Errorf("systemd has the sockets %v; want %v", got, want)
	}
	n.Keep(map[string][]syscall.Conn{"127.0.0.1:0": {b}})
	if first := m.next(t); first != "FDSTOREREMOVE=1\nFDNAME="+name {
		t.Errorf("systemd hears %q; want that both are removed", first)
	}
	if got, want := m.hears(t, "FDSTORE=1 "+name)[name], []uint64{inode(t, b)}; !slices.Equal(got, want) {
		t.Errorf("systemd has the sockets %v; want %v", got, want)
	}
}

func TestWhatCannotBeStoredIsReported(t *testing.T) {
	m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	closed := listen(t, "127.0.0.1:0")
	closed.Close()
	tests := []struct {
		name, address string
		socket        *net.TCPListener
		want          string
	}{
		{"an address whose name is too long", strings.Repeat("h", 242) + ":80", listen(t, "127.0.0.1:0"),
			"systemd: cannot store the socket of " + strings.Repeat("h", 242) + ":80: its name usher-listen="},
		{"a socket that is closed", ":80", closed, "systemd: cannot store the socket of :80: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var failed []string
			n := Notifier{Failed: func(err error) { failed = append(failed, err.Error()) }}
			n.Keep(map[string][]syscall.Conn{tt.address: {tt.socket}})
			if len(failed) != 1 || !strings.HasPrefix(failed[0], tt.want) {
				t.Errorf("reported: %q; want %q", failed, tt.want)
			}
			m.hears(t)
		})
	}
}

func TestAnAddressComesBackFromTheNameItIsStoredBy(t *testing.T) {
	tests := []struct{ address, name string }{
		{":8080", "usher-listen=%3A8080"},
		{"127.0.0.1:9901", "usher-listen=127.0.0.1%3A9901"},
		{"[::1]:80", "usher-listen=%5B%3A%3A1%5D%3A80"},
		{"[fe80::1%eth0]:80", "usher-listen=%5Bfe80%3A%3A1%25eth0%5D%3A80"},
		{"localhost:http", "usher-listen=localhost%3Ahttp"},
		{"unix:/run/my app/a+b.sock", "usher-listen=unix%3A%2Frun%2Fmy+app%2Fa%2Bb.sock"},
		{"unix:/run/größe", "usher-listen=unix%3A%2Frun%2Fgr%C3%B6%C3%9Fe"},
		{"", "usher-listen="},
	}
	for _, tt := range tests {
		name, err := storeName(tt.address)
		if name != tt.name || err != nil {
			t.Errorf("%q has the name %q, %v; want %q", tt.address, name, err, tt.name)
		}
		if address, ok := addressOf(name); address != tt.address || !ok {
			t.Errorf("%q is of %q, %t; want %q", name, address, ok, tt.address)
		}
	}
}

func TestOtherNamesAreThoseOfUnits(t *testing.T) {
	for _, name := range []string{"web", "usher.socket", "", "usher-listen", "usher-listen=%", "usher-listen=%zz", "Usher-listen=a"} {
		if address, ok := addressOf(name); ok {
			t.Errorf("%q is taken for the socket of %q", name, address)
		}
	}
}

// An address is what somebody has written into a configuration.
func FuzzStoreName(f *testing.F) {
	for _, seed := range []string{":80", "[::1]:80", "unix:/a b", "\x00:\n", "größe", "%", "\xff", strings.Repeat(":", 300)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, address string) {
		addressOf(address) // LISTEN_FDNAMES may hold anything
		name, err := storeName(address)
		if err != nil {
			return
		}
		if len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r >= 0x7f || r == ':' }) {
			t.Errorf("%q has the name %q, which systemd refuses", address, name)
		}
		if got, ok := addressOf(name); got != address || !ok {
			t.Errorf("%q comes back as %q, %t", address, got, ok)
		}
	})
}

func TestStoredSocketsComeBackApartFromThoseOfUnits(t *testing.T) {
	m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	web, webAddr := tcp(t)
	kept, keptAddr := tcp(t)
	kept2, kept2Addr := tcp(t)
	said, cmd := startService(t, []*os.File{kept2, web, kept}, "LISTEN_FDNAMES=usher-listen=%3A8080:web:usher-listen=%3A80")
	if said.Error != "" || len(said.Dropped) > 0 || said.Again != 0 {
		t.Fatalf("error %q, dropped %q, %d more in a second call", said.Error, said.Dropped, said.Again)
	}
	if want := map[string][]string{"web": {webAddr}}; !maps.EqualFunc(said.Listeners, want, slices.Equal) {
		t.Errorf("of units it has %q; want %q", said.Listeners, want)
	}
	if want := map[string][]string{":80": {keptAddr}, ":8080": {kept2Addr}}; !maps.EqualFunc(said.Stored, want, slices.Equal) {
		t.Errorf("stored are %q; want %q", said.Stored, want)
	}
	m.hears(t, "FDSTOREREMOVE=1 usher-listen=%3A80", "FDSTOREREMOVE=1 usher-listen=%3A8080") // it gives them up in the end
	ask(t, webAddr)
	wait(t, cmd)
}

func TestAStoredSocketThatIsOfNoUseKeepsNobodyFromStarting(t *testing.T) {
	web, webAddr := tcp(t)
	kept, keptAddr := tcp(t)
	dead, _ := tcp(t)
	raw, err := dead.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RD) })
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	said, cmd := startService(t, []*os.File{dead, web, null, kept},
		"LISTEN_FDNAMES=usher-listen=%3A80:web:usher-listen=unix%3A%2Fa:usher-listen=%3A8080")
	dropped := []string{
		"systemd: descriptor 3, stored for :80, is dropped: it does not listen",
		"systemd: descriptor 5, stored for unix:/a, is dropped: it is not a socket",
	}
	if !slices.Equal(said.Dropped, dropped) || said.Error != "" {
		t.Errorf("dropped %q, error %q; want %q", said.Dropped, said.Error, dropped)
	}
	if want := map[string][]string{":8080": {keptAddr}}; !maps.EqualFunc(said.Stored, want, slices.Equal) {
		t.Errorf("stored are %q; want %q", said.Stored, want)
	}
	if len(said.Open) != 2 {
		t.Errorf("it has open %q; want a descriptor for each listener", said.Open)
	}
	ask(t, webAddr)
	wait(t, cmd)
}

// Its queue was as long as the kernel allowed when it was opened.
func TestTheQueueOfAStoredSocketIsAsLongAsThatOfANewOne(t *testing.T) {
	queue := func(s syscall.Conn) uint32 {
		t.Helper()
		raw, err := s.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var info *unix.TCPInfo
		raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
		if err != nil {
			t.Fatal(err)
		}
		return info.Sacked // for a socket that listens: sk_max_ack_backlog
	}
	l := listen(t, "127.0.0.1:0")
	longest := queue(l)
	short, _ := tcp(t)
	raw, _ := short.SyscallConn()
	raw.Control(func(fd uintptr) { unix.Listen(int(fd), 1) })
	if got := queue(short); got != 1 || longest <= got {
		t.Fatalf("the queue is of %d, and may be of %d; want a shorter one", got, longest)
	}
	_, cmd := startService(t, []*os.File{short}, "LISTEN_FDNAMES=usher-listen=%3A80")
	wait(t, cmd)
	if got := queue(short); got != longest {
		t.Errorf("the service has left it a queue of %d; want %d", got, longest)
	}
}

func TestASuccessorGetsNothingThatIsMeantForThisProcess(t *testing.T) {
	env := []string{
		"PATH=/bin", "LISTEN_PID=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=a:b", "LISTEN_PIDFDID=3", "NOTIFY_SOCKET=/run/notify", "WATCHDOG_PID=1",
		"WATCHDOG_USEC=30000000", "LISTEN_FDS_OF_MINE=x", "WATCHDOG_PID",
	}
	want := []string{"PATH=/bin", "NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=30000000", "LISTEN_FDS_OF_MINE=x"}
	cmd := &exec.Cmd{Env: env}
	Successor(cmd)
	if !slices.Equal(cmd.Env, want) {
		t.Errorf("it gets %q; want %q", cmd.Env, want)
	}
}

// playPredecessor starts a successor, lets that end with status 3, and says what there is to say about it.
func playPredecessor([]string) error {
	cmd := exec.Command("/bin/sh", "-c", "echo $PPID; read x; exit 3")
	Successor(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	parent, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	before := Ended(cmd)
	in.Close()
	Wait(cmd)
	status := "unknown"
	if cmd.ProcessState != nil {
		status = strconv.Itoa(cmd.ProcessState.ExitCode())
	}
	_, err = fmt.Println(pid, strings.TrimSpace(parent), status, before, Ended(cmd))
	return err
}

func TestASuccessorIsTheChildOfTheManagerIfThereIsOne(t *testing.T) {
	tests := []struct {
		name        string
		environment []string
		managed     bool
	}{
		{"a manager", []string{"NOTIFY_SOCKET=/nowhere", "MANAGERPID=" + strconv.Itoa(os.Getpid())}, true},
		{"another process has the manager", []string{"NOTIFY_SOCKET=/nowhere", "MANAGERPID=" + strconv.Itoa(os.Getppid())}, false},
		{"no manager", []string{"NOTIFY_SOCKET=", "MANAGERPID=" + strconv.Itoa(os.Getpid())}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			role := faults.Command(t, "predecessor")
			role.Env = append(role.Env, tt.environment...)
			out, err := role.Output()
			if err != nil {
				t.Fatal(err)
			}
			var pid, parent int
			var status string
			var before, after bool
			if _, err := fmt.Sscan(string(out), &pid, &parent, &status, &before, &after); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			if before || !after {
				t.Errorf("it has ended: %t while it lives, %t when it does not", before, after)
			}
			if !tt.managed {
				if parent != role.Process.Pid || status != "3" {
					t.Errorf("it is the child of %d, and ended with status %s; want %d, 3", parent, status, role.Process.Pid)
				}
				return
			}
			if parent != os.Getpid() || status != "unknown" {
				t.Errorf("it is the child of %d, and ended with status %s; want %d, unknown", parent, status, os.Getpid())
			}
			var ws unix.WaitStatus
			if _, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil); err != nil || ws.ExitStatus() != 3 {
				t.Errorf("the manager sees that it ended with status %d, %v; want 3", ws.ExitStatus(), err)
			}
		})
	}
}

// playCounter answers each connection with its process id. It listens at an address, on the stored socket if there is
// one, has systemd keep that, and says on stdout when it is ready.
func playCounter(args []string) error {
	n := Notifier{Failed: func(err error) { panic(err) }}
	_, stored, err := n.Passed(args)
	if err != nil {
		return err
	}
	var l net.Listener
	if ls := stored[args[0]]; len(ls) > 0 {
		l = ls[0]
	} else if l, err = net.Listen("tcp", args[0]); err != nil {
		return err
	}
	n.Keep(map[string][]syscall.Conn{args[0]: {l.(*net.TCPListener)}})
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprint(c, os.Getpid())
		c.Close()
	}
}

// startCounter starts a counter as systemd would, with what it has stored, and returns what it says.
func startCounter(t *testing.T, address string, files []*os.File, environment ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := activated(t, faults.Command(t, "counter", address), files, environment...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, bufio.NewReader(out)
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	text, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(text)
}

// The test is systemd here: it keeps the socket while no process of the service runs.
func TestAClientThatComesAfterACrashIsServedByTheNextProcess(t *testing.T) {
	m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	first, says := startCounter(t, "127.0.0.1:0", nil)
	address := line(t, says)
	state, files := m.wait(t)
	name, ok := strings.CutPrefix(state, "FDSTORE=1\nFDNAME=")
	if !ok || len(files) != 1 {
		t.Fatalf("systemd hears %q, with %d descriptors", state, len(files))
	}
	first.Process.Kill()
	first.Wait()
	client, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("it has no queue to wait in: %v", err)
	}
	defer client.Close()
	second, says := startCounter(t, "127.0.0.1:0", files, "LISTEN_FDNAMES="+name)
	if again := line(t, says); again != address {
		t.Errorf("the second process listens at %s; want %s", again, address)
	}
	answer, err := io.ReadAll(client)
	if string(answer) != fmt.Sprint(second.Process.Pid) {
		t.Errorf("the client is answered %q, %v; want the id of the second process, %d", answer, err, second.Process.Pid)
	}
}

// As long as systemd has the one, nobody can open the other.
func TestAnAddressThatAStoredSocketIsInTheWayOfCanBeOpened(t *testing.T) {
	m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	stored, address := tcp(t)
	address = strings.TrimPrefix(address, "tcp ")
	_, says := startCounter(t, address, []*os.File{stored}, "LISTEN_FDNAMES=usher-listen=%3A80")
	if state, _ := m.wait(t); state != "FDSTOREREMOVE=1\nFDNAME=usher-listen=%3A80" {
		t.Fatalf("systemd hears %q; want that the socket which is not wanted is removed", state)
	}
	state, files := m.wait(t)
	if state != "BARRIER=1" || len(files) != 1 {
		t.Fatalf("systemd hears %q, with %d descriptors; want a barrier", state, len(files))
	}
	stored.Close()
	files[0].Close()
	if got := line(t, says); got != address {
		t.Errorf("it listens at %s; want %s", got, address)
	}
	if state, _ := m.wait(t); !strings.HasPrefix(state, "FDSTORE=1\n") {
		t.Errorf("systemd hears %q; want the new socket", state)
	}
}
