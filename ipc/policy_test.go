//go:build darwin || freebsd || linux || netbsd || openbsd

package ipc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/ipc"
)

func init() {
	roles["policy-listen"] = playPolicyListen
	roles["policy-dial"] = playPolicyDial
}

func TestPoliciesByName(t *testing.T) {
	me := os.Geteuid()
	group, err := user.LookupGroupId(strconv.Itoa(os.Getegid()))
	if err != nil {
		t.Skip("who runs the tests has no names: ", err)
	}
	own, err := user.LookupId(strconv.Itoa(me))
	if err != nil {
		t.Skip("who runs the tests has no names: ", err)
	}
	tests := []struct {
		name   string
		make   func() (ipc.Policy, error)
		peer   ipc.Peer
		reason string // "" if it is admitted
	}{
		{"a user by name", func() (ipc.Policy, error) { return ipc.Users("root") }, ipc.Peer{UID: 0, GID: 77}, ""},
		{"a user by number", func() (ipc.Policy, error) { return ipc.Users("root", "4242") }, ipc.Peer{UID: 4242}, ""},
		{"another user", func() (ipc.Policy, error) { return ipc.Users("root", "4242") }, ipc.Peer{PID: 7, UID: 4243},
			"process 7 belongs to user 4243, who is not among root, 4242"},
		{"root, who is not named", func() (ipc.Policy, error) { return ipc.Users("4242") }, ipc.Peer{UID: 0}, "belongs to user 0"},
		{"a group by name", func() (ipc.Policy, error) { return ipc.Groups(group.Name) }, ipc.Peer{UID: 4242, GID: os.Getegid()}, ""},
		{"a group by number", func() (ipc.Policy, error) { return ipc.Groups("4300") }, ipc.Peer{UID: 4242, GID: 4300}, ""},
		{"a user's group in the database", func() (ipc.Policy, error) { return ipc.Groups(own.Gid) }, ipc.Peer{UID: me, GID: 4300}, ""},
		{"another group", func() (ipc.Policy, error) { return ipc.Groups("4300", group.Name) }, ipc.Peer{PID: 7, UID: 4242, GID: 4301},
			"process 7 belongs to user 4242 and group 4301, not to a group among 4300, " + group.Name},
		{"the second of two", func() (ipc.Policy, error) {
			return ipc.AnyOf(must(ipc.Users("4242"))(t), must(ipc.Groups("4300"))(t)), nil
		}, ipc.Peer{UID: 4243, GID: 4300}, ""},
		{"the same user, among others", func() (ipc.Policy, error) { return ipc.AnyOf(must(ipc.Users("4242"))(t), nil), nil }, ipc.Peer{UID: me}, ""},
		{"none of two", func() (ipc.Policy, error) {
			return ipc.AnyOf(must(ipc.Users("4242"))(t), must(ipc.Groups("4300"))(t)), nil
		}, ipc.Peer{PID: 7, UID: 4243, GID: 4301},
			"process 7 belongs to user 4243, who is not among 4242; process 7 belongs to user 4243 and group 4301, not to a group among 4300"},
		{"any of nothing", func() (ipc.Policy, error) { return ipc.AnyOf(), nil }, ipc.Peer{UID: me}, "no policy admits anybody"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := must(tt.make())(t)(tt.peer)
			if tt.reason == "" && err != nil {
				t.Errorf("it is refused: %v", err)
			}
			if tt.reason != "" {
				contains(t, err, tt.reason)
			}
		})
	}
}

func TestReasonsAreInTheChain(t *testing.T) {
	one, two := errors.New("one"), errors.New("two")
	refuse := func(err error) ipc.Policy { return func(ipc.Peer) error { return err } }
	err := ipc.AnyOf(refuse(one), refuse(two))(ipc.Peer{})
	if !errors.Is(err, one) || !errors.Is(err, two) || err.Error() != "one; two" {
		t.Errorf("the error is %v", err)
	}
}

func TestPoliciesThatCannotBeMade(t *testing.T) {
	tests := []struct {
		name  string
		make  func(...string) (ipc.Policy, error)
		names []string
		want  string
	}{
		{"a user that nobody knows", ipc.Users, []string{"root", "no-such-user"}, "no-such-user"},
		{"a group that nobody knows", ipc.Groups, []string{"no-such-group"}, "no-such-group"},
		{"a number that is none", ipc.Users, []string{"4294967296"}, "4294967296"},
		{"an empty name", ipc.Users, []string{""}, "user"},
		{"no user", ipc.Users, nil, "none is named"},
		{"no group", ipc.Groups, nil, "none is named"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			policy, err := tt.make(tt.names...)
			if policy != nil {
				t.Error("there is a policy beside the error")
			}
			contains(t, err, tt.want)
		})
	}
}

// playPolicyListen listens at the endpoint args[0] with the mode args[1], in the place of another if args[2] is true,
// admits everybody, and says a word to each.
func playPolicyListen(args []string) error {
	mode, err := strconv.ParseUint(args[1], 8, 32)
	if err != nil {
		return err
	}
	lc := ipc.ListenConfig{Mode: os.FileMode(mode), Replace: args[2] == "true", Policy: func(ipc.Peer) error { return nil }}
	l, err := lc.Listen(args[0])
	if err != nil {
		fmt.Println("failed:", err)
		return nil
	}
	fmt.Println("listens")
	greetAll(l)
	return nil
}

func greetAll(l *ipc.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Send([]byte("welcome"))
		c.Close()
	}
}

// playPolicyDial dials the endpoint args[0] and says whether it is welcome. It believes whoever listens.
func playPolicyDial(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	d := ipc.Dialer{Policy: func(ipc.Peer) error { return nil }}
	c, err := d.Dial(ctx, args[0])
	if err != nil {
		fmt.Println("failed:", err)
		return nil
	}
	defer c.Close()
	m, err := c.Receive()
	if err != nil {
		fmt.Println("refused")
		return nil
	}
	fmt.Println(string(m.Data))
	return m.Close()
}

// others starts processes of other users. Only root can.
type others struct {
	exe string // the test binary, where others can reach it
	dir string // that anybody can pass through
}

func newOthers(t *testing.T) *others {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be other users")
	}
	dir := filepath.Dir(faults.Endpoint(t))
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "test")
	from := must(os.Open(must(os.Executable())(t)))(t)
	defer from.Close()
	to := must(os.OpenFile(exe, os.O_WRONLY|os.O_CREATE, 0o755))(t)
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return &others{exe, dir}
}

// command is a role played by another user.
func (o *others) command(t *testing.T, uid, gid int, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := faults.Command(t, role, args...)
	cmd.Path, cmd.Dir = o.exe, o.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return cmd
}

// says is what a process of another user says first.
func (o *others) says(t *testing.T, uid, gid int, role string, args ...string) string {
	t.Helper()
	return start(t, o.command(t, uid, gid, role, args...))()
}

// folder makes one that belongs to root and a group.
func (o *others) folder(t *testing.T, name string, gid int, mode os.FileMode) string {
	t.Helper()
	dir := filepath.Join(o.dir, name)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 0, gid), os.Chmod(dir, mode)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestOtherUsersAreAdmittedByPolicy has real processes of other users connect.
func TestOtherUsersAreAdmittedByPolicy(t *testing.T) {
	faults.NoLeak(t)
	o := newOthers(t)
	daemon, err := user.Lookup("daemon")
	if err != nil {
		t.Skip(err)
	}
	daemonUID, _ := strconv.Atoi(daemon.Uid)
	tests := []struct {
		name     string
		policy   ipc.Policy
		uid, gid int
		want     string
	}{
		{"the user named", must(ipc.Users("4242"))(t), 4242, 4242, "welcome"},
		{"another user", must(ipc.Users("4242"))(t), 4243, 4243, "refused"},
		{"root, who is not named", must(ipc.Users("4242"))(t), 0, 0, "refused"},
		{"a user by default", nil, 4242, 4242, "refused"},
		{"a member by its effective group", must(ipc.Groups("4300"))(t), 4242, 4300, "welcome"},
		{"a member by the database", must(ipc.Groups(daemon.Gid))(t), daemonUID, 4300, "welcome"},
		{"no member", must(ipc.Groups("4300"))(t), 4242, 4242, "refused"},
		{"root, among others", ipc.AnyOf(nil, must(ipc.Users("4242"))(t)), 0, 0, "welcome"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			refused := make(chan error, 1)
			lc := ipc.ListenConfig{Mode: 0o666, Policy: tt.policy, Refused: func(err error) { refused <- err }}
			l := must(lc.Listen(filepath.Join(o.dir, strconv.Itoa(i))))(t)
			defer l.Close()
			go greetAll(l)
			if got := o.says(t, tt.uid, tt.gid, "policy-dial", l.Addr().String()); got != tt.want {
				t.Errorf("it says %q; want %q", got, tt.want)
			}
			if tt.want != "refused" {
				return
			}
			if err := <-refused; !errors.Is(err, ipc.ErrDenied) {
				t.Errorf("refused is %v", err)
			}
		})
	}
}

// TestAFolderOfAGroup lets its members listen beside each other, and not in each other's place.
func TestAFolderOfAGroup(t *testing.T) {
	faults.NoLeak(t)
	o := newOthers(t)
	const alice, bob, group = 4242, 4243, 4300
	dir := o.folder(t, "usher", group, os.ModeSticky|0o770)
	t.Setenv("USHER_DIR", dir)
	cmd := o.command(t, alice, group, "policy-listen", "shop", "666", "false")
	if got := start(t, cmd)(); got != "listens" {
		t.Fatalf("alice says %q", got)
	}
	t.Run("a member connects", func(t *testing.T) {
		if got := o.says(t, bob, group, "policy-dial", "shop"); got != "welcome" {
			t.Errorf("bob says %q", got)
		}
	})
	t.Run("nobody else does", func(t *testing.T) {
		got := o.says(t, bob, bob, "policy-dial", "shop")
		if !strings.Contains(got, "may not pass through a folder") || !strings.Contains(got, "permission denied") {
			t.Errorf("bob says %q", got)
		}
	})
	t.Run("a dialer's policy tells who listens", func(t *testing.T) {
		d := ipc.Dialer{Policy: must(ipc.Users(strconv.Itoa(bob)))(t)}
		if c, err := d.Dial(within(t), "shop"); !errors.Is(err, ipc.ErrDenied) {
			c.Close()
			t.Errorf("alice passes for bob: %v", err)
		}
		d.Policy = must(ipc.Users(strconv.Itoa(alice)))(t)
		must(d.Dial(within(t), "shop"))(t).Close()
	})
	t.Run("a name that is in use is", func(t *testing.T) {
		if got := o.says(t, bob, group, "policy-listen", "shop", "666", "false"); !strings.Contains(got, "another process listens") {
			t.Errorf("bob says %q", got)
		}
	})
	t.Run("and cannot be taken from its user", func(t *testing.T) {
		got := o.says(t, bob, group, "policy-listen", "shop", "666", "true")
		if !strings.Contains(got, "by user 4242") || !strings.Contains(got, "sticky") {
			t.Errorf("bob says %q", got)
		}
	})
	cmd.Process.Kill()
	cmd.Wait()
	t.Run("nor when that has died", func(t *testing.T) {
		got := o.says(t, bob, group, "policy-listen", "shop", "666", "false")
		if !strings.Contains(got, "was left by user 4242") {
			t.Errorf("bob says %q", got)
		}
	})
	t.Run("but by itself", func(t *testing.T) {
		if got := o.says(t, alice, group, "policy-listen", "shop", "600", "false"); got != "listens" {
			t.Errorf("alice says %q", got)
		}
	})
	t.Run("what a mode keeps out is told how to come in", func(t *testing.T) {
		got := o.says(t, bob, group, "policy-dial", "shop")
		if !strings.Contains(got, "user 4243 may not write to the socket, which belongs to user 4242 and group 4300 and has mode Srw-------") ||
			!strings.Contains(got, "ListenConfig.Mode") {
			t.Errorf("bob says %q", got)
		}
	})
	t.Run("root takes what is left", func(t *testing.T) {
		lc := ipc.ListenConfig{Replace: true}
		must(lc.Listen("shop"))(t).Close()
	})
	t.Run("with the setgid bit sockets are the group's", func(t *testing.T) {
		t.Setenv("USHER_DIR", o.folder(t, "setgid", group, os.ModeSticky|os.ModeSetgid|0o770))
		// Its own group is alice; the group of the folder is one that it has besides.
		cmd := o.command(t, alice, alice, "policy-listen", "shop", "660", "false")
		cmd.SysProcAttr.Credential.Groups = []uint32{group}
		if got := start(t, cmd)(); got != "listens" {
			t.Fatalf("alice says %q", got)
		}
		if got := o.says(t, bob, group, "policy-dial", "shop"); got != "welcome" {
			t.Errorf("bob says %q", got)
		}
	})
	for _, tt := range []struct {
		name string
		mode os.FileMode
		want string
	}{
		{"without the sticky bit it is refused", 0o770, "no sticky bit"},
		{"open to everybody it is refused, sticky or not", os.ModeSticky | 0o777, "others can write to it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("USHER_DIR", o.folder(t, tt.mode.String(), group, tt.mode))
			if got := o.says(t, alice, group, "policy-listen", "shop", "666", "false"); !strings.Contains(got, tt.want) {
				t.Errorf("alice says %q", got)
			}
		})
	}
	t.Run("another user's it is refused", func(t *testing.T) {
		dir := o.folder(t, "bobs", group, os.ModeSticky|0o770)
		if err := os.Chown(dir, bob, group); err != nil {
			t.Fatal(err)
		}
		t.Setenv("USHER_DIR", dir)
		if got := o.says(t, alice, group, "policy-listen", "shop", "666", "false"); !strings.Contains(got, "belongs to user 4243") {
			t.Errorf("alice says %q", got)
		}
	})
}

func TestPath(t *testing.T) {
	dir := filepath.Dir(endpoint(t))
	t.Setenv("USHER_DIR", dir)
	for _, name := range []string{"shop", filepath.Join(dir, "elsewhere")} {
		l := must(ipc.Listen(name))(t)
		defer l.Close()
		if path := must(ipc.Path(name))(t); path != l.Addr().String() {
			t.Errorf("the path of %s is %s; it listens at %s", name, path, l.Addr())
		}
	}
	for _, bad := range []string{"", "..", "a b", "a\x00b", "/" + strings.Repeat("x", 200)} {
		path, err := ipc.Path(bad)
		var op *net.OpError
		if path != "" || !errors.As(err, &op) {
			t.Errorf("the path of %q is %q, %v", bad, path, err)
		}
	}
}
