package door

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/systemd"
	"github.com/go-usher/usher/ipc"
)

// canTakeOver is false where two processes cannot accept at one socket: on Windows it can be on one completion port, which is
// one process's.
const canTakeOver = runtime.GOOS != "windows"

var errNoTakeover = fmt.Errorf("a door cannot take over from another on %s: %w", runtime.GOOS, errors.ErrUnsupported)

// ControlPath returns the path of the control endpoint: control and dir are control and endpoints.dir of the configuration,
// the latter empty for the library's own folder. On Windows, where there is none, the error is [errors.ErrUnsupported].
func ControlPath(control, dir string) (string, error) {
	if !canTakeOver {
		return "", errNoTakeover
	}
	path, err := ipc.Path(control) // which also checks a plain name
	if err != nil || strings.Contains(control, "/") {
		return path, err
	}
	beside, err := (&policies{dir: dir}).path("any")
	if err != nil {
		return "", err
	}
	return ipc.Path(filepath.Join(filepath.Dir(beside), controlDir, control+socketSuffix))
}

// controlDir is within the folder of the takers' sockets. Its name is none that a host can have.
const controlDir = ".control"

// control is where the door answers its successor, and whoever wants it to have one.
type control struct {
	door *Door
	path string
	l    *ipc.Listener

	life context.Context // of the channels on which nothing was said yet
	end  context.CancelFunc
	work sync.WaitGroup
}

// useControl listens at the control endpoint of a configuration, in the place of whoever does if replace is set, and no
// longer at another. One whose socket somebody has removed, with its folder perhaps, has one again. A door that cannot serves all
// the same. d.reloading is held.
func (d *Door) useControl(c *config.Config, replace bool) {
	if !canTakeOver {
		return
	}
	path, err := ControlPath(d.controlName(c), c.Endpoints.Dir)
	if err == nil && d.control != nil && d.control.path == path && !isRemoved(path) {
		return
	}
	var next *control
	if err == nil {
		next, err = d.listenControl(path, replace)
	}
	if err != nil {
		d.log.Warn("this door cannot be upgraded: it has no control endpoint", "control", path, "error", err)
		return
	}
	if old := d.control; old != nil {
		old.stopListening()
		d.background.Go(old.close) // who talks to the door there may wait for this to be over
	}
	d.control = next
	d.log.Debug("control endpoint", "control", path)
}

func isRemoved(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func (d *Door) controlName(c *config.Config) string {
	if d.options.Control != "" {
		return d.options.Control
	}
	return c.Control
}

func (d *Door) listenControl(path string, replace bool) (*control, error) {
	// Whoever else may write to a folder that is there already can keep this door from being found, and no more: both sides
	// ask the kernel who the other is.
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	lc := ipc.ListenConfig{Limits: channelLimits, Replace: replace, Refused: func(err error) {
		d.log.Warn("a process may not use the control endpoint", "error", err)
	}}
	l, err := lc.Listen(path)
	if err != nil {
		return nil, err
	}
	k := &control{door: d, path: path, l: l}
	k.life, k.end = context.WithCancel(context.Background())
	k.work.Go(k.serve)
	return k, nil
}

func (k *control) serve() {
	for {
		c, err := k.l.Accept()
		if errors.Is(err, net.ErrClosed) || isClosed(k.life.Done()) {
			if err == nil {
				c.Close()
			}
			return
		}
		if err != nil { // as for want of descriptors
			time.Sleep(maxPause)
			continue
		}
		k.work.Go(func() {
			defer c.Close()
			k.door.answer(k.life, talk{c})
		})
	}
}

// stopListening gives up the endpoint, and leaves alone who talks to the door already.
func (k *control) stopListening() {
	if k == nil {
		return
	}
	k.end()
	k.l.Close()
}

// close also waits for those.
func (k *control) close() {
	if k == nil {
		return
	}
	k.stopListening()
	k.work.Wait()
}

// firstWord is for whoever has connected to say what it wants.
const firstWord = 10 * time.Second

// answer does what the process at the other end of a channel wants.
func (d *Door) answer(life context.Context, t talk) {
	m, got, err := t.hear(life, firstWord, sayTakeover, sayUpgrade)
	if errors.Is(err, errOtherGone) || life.Err() != nil { // another door that looked whether this one lives, say
		return
	}
	if err == nil {
		got.Close()
		err = m.checkVersion(d.options.Version)
	}
	if err != nil {
		d.log.Warn("what was said at the control endpoint is of no use", "error", err)
		t.fail(err)
		return
	}
	if m.Say == sayUpgrade {
		d.answerUpgrade(t)
		return
	}
	h, err := d.beginHandover()
	if err != nil {
		t.fail(err)
		return
	}
	h.of(t, &m)
	if err := h.run(t); err != nil {
		if !errors.Is(err, errShutDown) { // which the log tells of, and is no failure
			d.log.Error("no other door has taken over; this one serves on", "pid", h.pid, "build", h.build, "error", err)
		}
		return
	}
	h.handOn()
}

// answerUpgrade starts a successor and says what came of it.
func (d *Door) answerUpgrade(t talk) {
	h, err := d.beginHandover()
	if err != nil {
		t.fail(err)
		return
	}
	err = h.runWithChild()
	if errors.Is(err, errShutDown) {
		t.fail(err)
		return
	}
	if err != nil {
		d.log.Error("the upgrade has failed; this door serves on", "pid", h.pid, "error", err)
		t.fail(fmt.Errorf("the new door has failed, and the old one serves on: %w", err))
		return
	}
	_ = t.say(message{Say: sayDone, PID: h.pid, Build: h.build}) // it may have lost its patience
	t.c.Close()
	h.handOn()
}

// child is a successor that this door has started.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when its process has ended
}

// startChild starts a successor, and returns the channel to it.
func (d *Door) startChild() (*child, talk, error) {
	if d.options.Successor == nil {
		return nil, talk{}, errors.New("this door does not know how to start a successor")
	}
	ours, theirs, err := ipc.Pair()
	if err != nil {
		return nil, talk{}, err
	}
	defer theirs.Close()
	c := &child{cmd: d.options.Successor(), exited: make(chan struct{})}
	if err = theirs.PassTo(c.cmd); err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		ours.Close()
		return nil, talk{}, fmt.Errorf("cannot start the new door: %w", err)
	}
	go func() { // not waited for: it outlives this door
		systemd.Wait(c.cmd)
		close(c.exited)
	}()
	return c, talk{ours}, nil
}

// exitPatience is for a child that has failed to end by itself.
const exitPatience = 2 * time.Second

// why says what has become of a child that has not taken over. What it has said itself is the best reason.
func (c *child) why(err error) error {
	if !errors.Is(err, errOtherGone) {
		return err
	}
	select {
	case <-c.exited:
		return fmt.Errorf("process %d %s before it was ready", c.cmd.Process.Pid, howEnded(c.cmd.ProcessState))
	case <-time.After(exitPatience):
		return err
	}
}

func howEnded(s *os.ProcessState) string {
	if s == nil { // systemd knows
		return "ended"
	}
	if s.Exited() {
		return fmt.Sprintf("exited with status %d", s.ExitCode())
	}
	return "ended (" + s.String() + ")"
}

// endSoon sees to it that a child which was not to serve is not left behind: it may be stopped.
func (c *child) endSoon() {
	select {
	case <-c.exited:
	case <-time.After(exitPatience):
		c.cmd.Process.Kill()
	}
}

// Upgrade asks the door at a control endpoint to start its successor, and returns when that serves in its place, with its
// process and build; build is this program's. An error says why not, and that the door serves on, as far as that is known. It
// is ctx's if that has ended before.
func Upgrade(ctx context.Context, control, build string) (pid int, newBuild string, err error) {
	c, err := dialControl(ctx, control)
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	t := talk{c}
	if err := t.say(message{Say: sayUpgrade, Version: takeoverVersion, Build: build}); err != nil {
		return 0, "", err
	}
	m, got, err := t.hear(ctx, forEver, sayDone)
	if errors.Is(err, errOtherGone) {
		err = fmt.Errorf("the door at %s has ended", control)
	}
	if err != nil {
		return 0, "", err
	}
	got.Close()
	return m.PID, m.Build, nil
}

// ErrNoDoor is in the chain of an error for a control endpoint where no door answers.
var ErrNoDoor = errors.New("no door runs there")

func dialControl(ctx context.Context, path string) (*ipc.Conn, error) {
	c, err := (&ipc.Dialer{Limits: channelLimits}).Dial(ctx, path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: %w", ErrNoDoor, err)
	}
	return c, err
}
