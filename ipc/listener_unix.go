//go:build darwin || freebsd || linux || netbsd || openbsd

package ipc

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func isPath(endpoint string) bool { return strings.Contains(endpoint, "/") }

func resolvePath(path string) (string, error) {
	path = filepath.Clean(path)
	if path[0] == '@' {
		path = "./" + path // net takes a leading @ for a name in Linux's abstract namespace
	}
	return path, checkPathLen(path)
}

func resolveName(name string) (string, error) {
	path := filepath.Join(runtimeDir(), name+".sock")
	return path, checkPathLen(path)
}

func checkPathLen(path string) error {
	var sa unix.RawSockaddrUnix
	if limit := len(sa.Path) - 1; len(path) > limit {
		return fmt.Errorf("the path of the socket has %d bytes, limit %d: %s", len(path), limit, path)
	}
	return nil
}

// runtimeDir is where the sockets of plain names are.
func runtimeDir() string {
	if dir := os.Getenv("USHER_DIR"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		if runtime.GOOS == "linux" {
			return "/run/usher"
		}
		return "/var/run/usher" // no other system has /run
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "usher")
	}
	return filepath.Join(os.TempDir(), "usher-"+strconv.Itoa(os.Geteuid()))
}

// makeDir makes the folder for plain names, or checks that nobody else can put a socket into the one
// that is there, or only beside those of others: in a folder with the sticky bit, the owner of a file, or of the folder, is
// who can remove and rename it (unlink(2), rename(2)).
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder but %s", dir, info.Mode())
	}
	owner := ownerOf(info)
	if owner != os.Geteuid() && owner != 0 {
		return fmt.Errorf("folder %s belongs to user %d, not to %d: %w", dir, owner, os.Geteuid(), os.ErrPermission)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("folder %s has mode %s, so that others can write to it: %w", dir, info.Mode(), os.ErrPermission)
	}
	if info.Mode().Perm()&0o020 != 0 && info.Mode()&os.ModeSticky == 0 {
		return fmt.Errorf("folder %s has mode %s, so that others can write to it and, as it has no sticky bit, replace the sockets in it: %w",
			dir, info.Mode(), os.ErrPermission)
	}
	return nil
}

// Bounds of the wait for the lock that listeners hold while they look at a socket file and replace
// it, which takes them well under a millisecond (on the BSDs 0.2 s, see probe). Whoever may open the
// folder can hold the lock for longer: in a folder that others can read they can hinder a listener,
// as they can by taking its name.
const (
	listenWait = 5 * time.Second
	closeWait  = 500 * time.Millisecond
)

// lockDir keeps other listeners from changing the socket files in dir until unlock. It polls: a
// blocking flock would hold a thread.
func lockDir(dir string, wait time.Duration) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(wait)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("cannot lock folder %s: %w", dir, os.NewSyscallError("flock", err))
		}
		time.Sleep(time.Millisecond)
	}
}

// lockToListen is lockDir for a listener. Whom that is to replace must be told without the lock, which a process that is stopped would
// make it hold for long; so it may be somebody else by the time of the lock.
func lockToListen(path string, lc *ListenConfig) (unlock func(), err error) {
	var told os.FileInfo
	for {
		unlock, err := lockDir(filepath.Dir(path), listenWait)
		if err != nil || !lc.Replace || lc.Replacing == nil {
			return unlock, err
		}
		there, err := os.Lstat(path)
		if err != nil || told != nil && isSameSocket(there, told) {
			return unlock, nil // checkFree sees to the error
		}
		unlock()
		told = there
		if err := lc.Replacing(); err != nil {
			return nil, err
		}
	}
}

// isSameSocket looks at the time as well: the number of a file that is gone may be another's.
func isSameSocket(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime())
}

// probe connects to the socket at path. On Linux a refusal means that nobody listens. On the BSDs a
// full queue refuses too: a refusal has to last there for as long as a listener that lives may take
// to accept.
func probe(path string) error {
	tries := 1
	if runtime.GOOS != "linux" {
		tries = 10
	}
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			return c.Close()
		}
		tries--
		if tries == 0 || !errors.Is(err, unix.ECONNREFUSED) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

type unixAcceptor struct {
	ul   *net.UnixListener
	path string
	info os.FileInfo // of the socket file

	mu     sync.Mutex
	kept   []*net.UnixConn // accepted, but there was no descriptor to spare for their wires
	closed bool
}

// listen makes the socket under a name of its own and moves it to path when it is complete, so that
// what is at path listens, and has its mode, from the first instant.
func listen(path string, plainName bool, lc *ListenConfig) (_ acceptor, err error) {
	dir := filepath.Dir(path)
	if plainName {
		if err := makeDir(dir); err != nil {
			return nil, err
		}
	}
	unlock, err := lockToListen(path, lc)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := checkFree(path, lc.Replace); err != nil {
		return nil, err
	}
	var random [4]byte
	rand.Read(random[:])
	temp := filepath.Join(dir, ".u"+hex.EncodeToString(random[:]))
	if err := checkPathLen(temp); err != nil {
		return nil, err
	}
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ul.SetUnlinkOnClose(false)
	defer func() {
		if err != nil {
			os.Remove(temp)
			ul.Close()
		}
	}()
	mode := lc.Mode
	if mode == 0 {
		mode = 0o600
	}
	if err := os.Chmod(temp, mode); err != nil {
		return nil, err
	}
	info, err := os.Lstat(temp)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(temp, path); err != nil {
		return nil, err
	}
	return &unixAcceptor{ul: ul, path: path, info: info}, nil
}

// checkFree fails unless path is free, or the socket of a process that is gone or may be replaced.
func checkFree(path string, replace bool) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s is there and is not a socket: %s", path, info.Mode())
	}
	kept := keptByOwner(path, info)
	if replace {
		return kept
	}
	err = probe(path)
	if kept != nil && (errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EACCES)) {
		return kept
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	if err == nil || errors.Is(err, unix.EAGAIN) { // EAGAIN: it listens, and its queue is full
		err = unix.EADDRINUSE
	}
	return fmt.Errorf("another process listens at %s: %w", path, err)
}

// keptByOwner is an error if this user may not replace the file at path because of its folder's sticky bit.
func keptByOwner(path string, file os.FileInfo) error {
	dir := filepath.Dir(path)
	folder, err := os.Stat(dir)
	if err != nil || folder.Mode()&os.ModeSticky == 0 {
		return err
	}
	me := os.Geteuid()
	owner, folderOwner := ownerOf(file), ownerOf(folder)
	if me == 0 || me == owner || me == folderOwner {
		return nil
	}
	who := "root"
	if folderOwner != 0 {
		who = fmt.Sprintf("user %d, whose folder it is, or root", folderOwner)
	}
	return fmt.Errorf("the socket %s was left by user %d, or is in use: in folder %s, which has the sticky bit, only that user and %s can replace it: %w",
		path, owner, dir, who, os.ErrPermission)
}

func ownerOf(info os.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// accept keeps a connection that this process has no descriptors for, as the kernel does with those that are not
// accepted: the next call tries it again.
func (a *unixAcceptor) accept() (transport, error) {
	uc, err := a.next()
	if err != nil {
		return nil, err
	}
	t, err := newUnixTransport(uc)
	if err == nil {
		return t, nil
	}
	if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) || !a.keep(uc) {
		uc.Close()
	}
	return nil, err
}

// next returns the connection that was kept for the longest, or waits for another.
func (a *unixAcceptor) next() (*net.UnixConn, error) {
	a.mu.Lock()
	if len(a.kept) > 0 {
		uc := a.kept[0]
		a.kept = a.kept[1:]
		a.mu.Unlock()
		return uc, nil
	}
	a.mu.Unlock()
	return a.ul.AcceptUnix()
}

// keep returns false once the listener is closed.
func (a *unixAcceptor) keep(uc *net.UnixConn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.kept = append(a.kept, uc)
	}
	return !a.closed
}

func (a *unixAcceptor) close() error {
	a.unlink()
	err := a.ul.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for _, uc := range a.kept {
		uc.Close()
	}
	a.kept = nil
	return err
}

// unlink removes the socket file if it is still ours. If it cannot, the next listener will find that
// nobody listens and replace it.
func (a *unixAcceptor) unlink() {
	unlock, err := lockDir(filepath.Dir(a.path), closeWait)
	if err != nil {
		return
	}
	defer unlock()
	if !a.replaced() {
		os.Remove(a.path)
	}
}

func (a *unixAcceptor) replaced() bool {
	info, err := os.Lstat(a.path)
	return err != nil || !os.SameFile(info, a.info)
}
