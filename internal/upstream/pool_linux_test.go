package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/internal/upstream"
	"golang.org/x/sys/unix"
)

func init() { roles["starved"] = playStarved }

// full returns a listener at which nobody, not even its system, accepts a further connection.
func full(t *testing.T) net.Listener {
	t.Helper()
	l := listen(t, "tcp").(*net.TCPListener)
	must(l.SyscallConn())(t).Control(func(fd uintptr) {
		if err := unix.Listen(int(fd), 0); err != nil {
			t.Error(err)
		}
	})
	a := l.Addr().(*net.TCPAddr)
	for range 4 { // one fills the queue; the others make sure
		fd := must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0))(t)
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}); err != unix.EINPROGRESS {
			t.Fatal(err)
		}
	}
	return l
}

func TestABackendThatDoesNotAnswerIsGivenUp(t *testing.T) {
	faults.NoLeak(t)
	busy, l := full(t), listen(t, "tcp")
	go serve(l)
	p := newPool(t, upstream.Options{
		Addresses: []string{addressOf(busy), addressOf(l)}, ConnectTimeout: 50 * time.Millisecond,
		Health: &config.Health{Fall: 1, Cooldown: time.Hour},
	})
	if b := dial(t, p); b.Address != addressOf(l) {
		t.Error("connected to ", b.Address)
	}
	s := p.Status()[0]
	if s.Healthy || s.Failures != 1 || s.Error != "i/o timeout" {
		t.Errorf("status %+v", s)
	}
	alone := newPool(t, upstream.Options{Addresses: []string{addressOf(busy)}, ConnectTimeout: 50 * time.Millisecond})
	_, _, err := alone.Dial(within(t), from)
	var late net.Error
	if !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("the error is %v", err)
	}
}

// TestABackendIsNotToBlameForAClientThatLeaves while the connection is being made.
func TestABackendIsNotToBlameForAClientThatLeaves(t *testing.T) {
	for _, test := range []struct {
		name string
		ends error
		end  func(context.Context) (context.Context, context.CancelFunc)
	}{
		{"the context is cancelled", context.Canceled, context.WithCancel},
		{"the context's deadline is over", context.DeadlineExceeded, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 50*time.Millisecond)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults.NoLeak(t)
			p := newPool(t, upstream.Options{
				Addresses: []string{addressOf(full(t)), addressOf(full(t))}, ConnectTimeout: timeout,
				Health: &config.Health{Fall: 1, Cooldown: time.Hour},
			})
			ctx, cancel := test.end(context.Background())
			defer cancel()
			dialed := make(chan error, 1)
			go func() {
				_, _, err := p.Dial(ctx, from)
				dialed <- err
			}()
			if test.ends == context.Canceled {
				eventually(t, "a connection is being made", func() bool { return p.Status()[0].Open == 1 })
				cancel()
			}
			if err := <-dialed; !errors.Is(err, test.ends) {
				t.Errorf("the error is %v", err)
			}
			for _, s := range p.Status() {
				if !s.Healthy || s.Failures != 0 || s.Open != 0 {
					t.Errorf("status %+v", s)
				}
			}
		})
	}
}

// playStarved dials the backend args[0] without a descriptor to spare, then with some.
func playStarved(args []string) error {
	p := upstream.New(upstream.Options{Addresses: args, Health: &config.Health{Fall: 1, Cooldown: time.Hour}})
	defer p.Close()
	c, b, err := p.Dial(context.Background(), from) // opens what the runtime keeps
	if err != nil {
		return err
	}
	defer b.Done()
	defer c.Close()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		return err
	}
	free, err := unix.Dup(0) // the lowest number that is free is the first that is refused
	if err != nil {
		return err
	}
	unix.Close(free)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: before.Max}); err != nil {
		return err
	}
	if _, _, err := p.Dial(context.Background(), from); !errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("without a descriptor to spare, the error is %v", err)
	}
	if s := p.Status()[0]; !s.Healthy || s.Failures != 0 || s.Open != 1 {
		return fmt.Errorf("status %+v", s)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		return err
	}
	c, b, err = p.Dial(context.Background(), from)
	if err != nil {
		return err
	}
	b.Done()
	return c.Close()
}

// TestABackendIsNotToBlameForADoorOutOfDescriptors: all would be unfit at once, when none is.
func TestABackendIsNotToBlameForADoorOutOfDescriptors(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, "tcp")
	go serve(l)
	if err := faults.Command(t, "starved", addressOf(l)).Run(); err != nil {
		t.Error(err)
	}
}
