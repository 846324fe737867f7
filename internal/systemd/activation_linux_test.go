package systemd

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-usher/usher/internal/faults"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	faults.Main(m, map[string]func([]string) error{"service": playService, "counter": playCounter, "predecessor": playPredecessor})
}

// service is what a service that was passed sockets says about them, as JSON on its stdout. Then it answers one client
// of each listener with the listener's name.
type service struct {
	Error     string
	Listeners map[string][]string // network and address
	Stored    map[string][]string
	Dropped   []string // what the Notifier's Failed was told
	Again     int      // what a second call returned
	Open      []string
	Inherited string // LISTEN_ variables and sockets that a child has
}

func playService(wanted []string) error {
	var said service
	n := Notifier{Failed: func(err error) { said.Dropped = append(said.Dropped, err.Error()) }}
	passed, stored, err := n.Passed(wanted)
	again, storedAgain, _ := new(Notifier).Passed(wanted)
	n.Keep(nil) // it keeps none of them
	said.Again = len(again) + len(storedAgain)
	said.Open = openSockets()
	if err != nil {
		said.Error = err.Error()
	}
	said.Listeners, said.Stored = addresses(passed), addresses(stored)
	child, err := exec.Command("/bin/sh", "-c", "env | grep ^LISTEN_; readlink /proc/$$/fd/* | grep ^socket; true").Output()
	if err != nil {
		return err
	}
	said.Inherited = string(child)
	err = json.NewEncoder(os.Stdout).Encode(said)
	errs := make(chan error)
	answers := 0
	for name, ls := range passed {
		for _, l := range ls {
			answers++
			go func() { errs <- answer(l, name) }()
		}
	}
	for range answers {
		err = errors.Join(err, <-errs)
	}
	return err
}

func addresses(passed map[string][]net.Listener) map[string][]string {
	all := make(map[string][]string)
	for name, ls := range passed {
		for _, l := range ls {
			all[name] = append(all[name], l.Addr().Network()+" "+l.Addr().String())
		}
	}
	return all
}

func answer(l net.Listener, name string) error {
	defer l.Close()
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.WriteString(c, name)
	return err
}

// openSockets leaves out the standard streams, which are whoever's who runs the tests.
func openSockets() []string {
	var sockets []string
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		what, _ := os.Readlink(link)
		if fd, _ := strconv.Atoi(filepath.Base(link)); fd > 2 && strings.HasPrefix(what, "socket:") {
			sockets = append(sockets, what)
		}
	}
	return sockets
}

// startService runs a service as systemd would, which wants what was stored for :80 and :8080.
func startService(t *testing.T, files []*os.File, environment ...string) (service, *exec.Cmd) {
	t.Helper()
	cmd := activated(t, faults.Command(t, "service", ":80", ":8080"), files, environment...)
	return hear(t, cmd), cmd
}

// activated makes a command one that systemd starts: as the process that LISTEN_PID names, unless environment has another.
func activated(t *testing.T, role *exec.Cmd, files []*os.File, environment ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", `: "${LISTEN_PID=$$}"; export LISTEN_PID; exec "$0" "$@"`}, role.Args...)...)
	cmd.ExtraFiles, cmd.Stderr = files, os.Stderr
	cmd.Env = append(role.Env, "LISTEN_FDS="+strconv.Itoa(len(files)))
	cmd.Env = append(cmd.Env, environment...)
	return cmd
}

// hear starts a service and returns what it says.
func hear(t *testing.T, cmd *exec.Cmd) (said service) {
	t.Helper()
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if err := json.NewDecoder(out).Decode(&said); err != nil {
		t.Fatal(err)
	}
	return said
}

func wait(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the service: %v", err)
	}
}

// ask returns what the listener at an address, "network address", answers.
func ask(t *testing.T, address string) string {
	t.Helper()
	network, address, _ := strings.Cut(address, " ")
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// file returns the descriptor of a socket that is the test's from here on, and "network address" of it.
func file(t *testing.T, s any, err error) (*os.File, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var addr net.Addr
	switch s := s.(type) {
	case net.Listener:
		addr = s.Addr()
		if u, ok := s.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
	case net.Conn:
		addr = s.LocalAddr()
	}
	s.(io.Closer).Close()
	return f, addr.Network() + " " + addr.String()
}

func tcp(t *testing.T) (*os.File, string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	return file(t, l, err)
}

func TestAServiceGetsTheSocketsThatItWasPassed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	web, webAddr := tcp(t)
	web2, web2Addr := tcp(t)
	l, err := net.Listen("unix", path)
	admin, adminAddr := file(t, l, err)

	said, cmd := startService(t, []*os.File{web, admin, web2}, "LISTEN_FDNAMES=web:admin:web")
	if said.Error != "" {
		t.Fatal(said.Error)
	}
	if got, want := said.Listeners["web"], []string{webAddr, web2Addr}; !slices.Equal(got, want) {
		t.Errorf("web is %q; want %q, in this order", got, want)
	}
	if got, want := said.Listeners["admin"], []string{adminAddr}; !slices.Equal(got, want) {
		t.Errorf("admin is %q; want %q", got, want)
	}
	if len(said.Listeners) != 2 || said.Again != 0 {
		t.Errorf("names: %q, and %d more in a second call; want web and admin, once", said.Listeners, said.Again)
	}
	if len(said.Open) != 3 {
		t.Errorf("it has open %q; want a descriptor for each listener", said.Open)
	}
	if said.Inherited != "" {
		t.Errorf("its children inherit %q", said.Inherited)
	}
	for addr, name := range map[string]string{webAddr: "web", web2Addr: "web", adminAddr: "admin"} {
		if got := ask(t, addr); got != name {
			t.Errorf("%s answers %q; want %q", addr, got, name)
		}
	}
	wait(t, cmd)
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the service removed systemd's socket file: %v", err)
	}
}

func TestSocketsThatAreNotForThisProcessAreLeftAlone(t *testing.T) {
	web, _ := tcp(t)
	tests := []struct {
		name        string
		environment []string
	}{
		{"no sockets were passed", []string{"LISTEN_FDS="}},
		{"they are another process's", []string{"LISTEN_PID=" + strconv.Itoa(os.Getpid())}},
		{"the number of sockets is no number", []string{"LISTEN_FDS=many"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			said, cmd := startService(t, []*os.File{web}, tt.environment...)
			wait(t, cmd)
			if said.Error != "" || len(said.Listeners) > 0 {
				t.Errorf("it got %q, error %q; want nothing", said.Listeners, said.Error)
			}
			if strings.Contains(said.Inherited, "LISTEN_") {
				t.Errorf("its children inherit %q", said.Inherited)
			}
		})
	}
}

func TestWhatCannotAcceptIsAnErrorThatNamesIt(t *testing.T) {
	web, webAddr := tcp(t)
	defer web.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	datagrams, _ := file(t, udp, err)
	c, err := net.Dial("tcp", strings.TrimPrefix(webAddr, "tcp "))
	connection, _ := file(t, c, err)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	packets := os.NewFile(uintptr(fds[0]), "packets")
	defer packets.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()

	const names = "LISTEN_FDNAMES=web:odd"
	tests := []struct {
		name        string
		files       []*os.File
		environment string
		want        string
	}{
		{"a datagram socket", []*os.File{web, datagrams}, names,
			"systemd passed descriptor 4 (odd): it is not a stream socket; the socket unit needs ListenStream="},
		{"a socket of packets", []*os.File{web, packets}, names,
			"systemd passed descriptor 4 (odd): it is not a stream socket; the socket unit needs ListenStream="},
		{"a connection", []*os.File{web, connection}, names,
			"systemd passed descriptor 4 (odd): it does not listen; the socket unit needs Accept=no"},
		{"a file", []*os.File{web, null}, names, "systemd passed descriptor 4 (odd): it is not a socket"},
		{"two at once", []*os.File{null, web, datagrams}, "LISTEN_FDNAMES=null:web:udp",
			"systemd passed descriptor 3 (null): it is not a socket\n" +
				"systemd passed descriptor 5 (udp): it is not a stream socket; the socket unit needs ListenStream="},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			said, cmd := startService(t, tt.files, tt.environment)
			wait(t, cmd)
			if said.Error != tt.want {
				t.Errorf("error %q; want %q", said.Error, tt.want)
			}
			if len(said.Listeners)+len(said.Open) > 0 || said.Inherited != "" {
				t.Errorf("there is something left: listeners %q, open %q, children have %q", said.Listeners, said.Open, said.Inherited)
			}
		})
	}
}

func TestSystemdsOwnActivatorPassesSockets(t *testing.T) {
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("systemd-socket-activate is not here")
	}
	path := filepath.Join(t.TempDir(), "web.sock")
	role := faults.Command(t, "service")
	cmd := exec.Command(activate, "--listen="+path, "--fdname=web", role.Path)
	for _, v := range role.Env { // else it passes on little
		cmd.Args = slices.Insert(cmd.Args, 1, "--setenv="+v)
	}
	says, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(says).ReadString('\n'); err != nil { // when it listens
		t.Fatalf("%q, %v", line, err)
	}
	// It starts the service when a client is there.
	if got := ask(t, "unix "+path); got != "web" {
		t.Errorf("the service answers %q; want %q", got, "web")
	}
	var said service
	if err := json.NewDecoder(out).Decode(&said); err != nil {
		t.Fatal(err)
	}
	if got, want := said.Listeners["web"], []string{"unix " + path}; !slices.Equal(got, want) {
		t.Errorf("it was passed %q, error %q; want %q", said.Listeners, said.Error, want)
	}
	wait(t, cmd)
}
