package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/internal/upstream"
	"github.com/pires/go-proxyproto"
)

// journal is a log that remembers levels, messages and addresses.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) logger() *slog.Logger { return slog.New(j) }

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "address" {
			line += " " + a.Value.String()
		}
		return true
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
	return nil
}

func (j *journal) want(t *testing.T, lines ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the log has %q", lines), func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return len(j.lines) >= len(lines)
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.lines, lines) {
		t.Errorf("the log has %q, want %q", j.lines, lines)
	}
}

// healthy waits until a backend is fit, or unfit.
func healthy(t *testing.T, p *upstream.Pool, backend int, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("backend %d is fit: %v", backend, want), func() bool {
		return p.Status()[backend].Healthy == want
	})
}

// switched is an HTTP server that answers what it is told to.
type switched struct {
	status atomic.Int32
	asked  chan *http.Request // has room for the first
}

func newSwitched(t *testing.T, l net.Listener) *switched {
	s := &switched{asked: make(chan *http.Request, 1)}
	s.status.Store(http.StatusOK)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.asked <- r:
		default:
		}
		w.WriteHeader(int(s.status.Load()))
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return s
}

// TestABackendIsUnfitWhileItsAnswersAreErrors, and gets no connections then.
func TestABackendIsUnfitWhileItsAnswersAreErrors(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			faults.NoLeak(t)
			first, second := listen(t, network), listen(t, network)
			server := newSwitched(t, first)
			newSwitched(t, second)
			var log journal
			p := newPool(t, upstream.Options{
				Addresses: []string{addressOf(first), addressOf(second)}, Log: log.logger(),
				Health: &config.Health{Interval: time.Millisecond, Timeout: timeout, Path: "/healthz", Rise: 2, Fall: 2},
			})
			for _, status := range []int32{http.StatusServiceUnavailable, http.StatusNotFound} {
				server.status.Store(status)
				healthy(t, p, 0, false)
				if got, want := p.Status()[0].Error, fmt.Sprintf("check: GET /healthz: status %d", status); got != want {
					t.Errorf("the backend's error is %q, want %q", got, want)
				}
				for range 2 {
					if b := dial(t, p); b.Address != addressOf(second) {
						t.Error("a connection was made to the unfit backend")
					}
				}
				server.status.Store(http.StatusFound) // is below 400
				healthy(t, p, 0, true)
			}
			if b := dial(t, p); b.Address != addressOf(first) { // it has fewer
				t.Error("no connection is made to the backend that is fit again")
			}
			s := p.Status()
			if s[0].Error != "" || s[0].FailedCheck < 4 || s[0].Checks < s[0].FailedCheck+4 || s[1].FailedCheck != 0 {
				t.Errorf("status %+v", s)
			}
			unfit, fit := "WARN backend is unfit "+addressOf(first), "INFO backend is fit again "+addressOf(first)
			log.want(t, unfit, fit, unfit, fit)
		})
	}
}

func TestWhatACheckAsks(t *testing.T) {
	for _, test := range []struct {
		name, network, path, host string
		wantURI, wantHost         string // without wantHost it is the backend's address
	}{
		{"with a Host", "tcp", "/healthz?full=1", "shop.example.com", "/healthz?full=1", "shop.example.com"},
		{"without a Host", "tcp", "/", "", "/", ""},
		{"of a Unix socket, without a Host", "unix", "//a%2fb", "", "//a%2fb", "localhost"},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults.NoLeak(t)
			l := listen(t, test.network)
			server := newSwitched(t, l)
			newPool(t, upstream.Options{
				Addresses: []string{addressOf(l)},
				Health:    &config.Health{Interval: time.Millisecond, Timeout: timeout, Path: test.path, Host: test.host},
			})
			if test.wantHost == "" {
				test.wantHost = addressOf(l)
			}
			select {
			case r := <-server.asked:
				if r.Method != "GET" || r.RequestURI != test.wantURI || r.Host != test.wantHost {
					t.Errorf("it asks %s %s of %s", r.Method, r.RequestURI, r.Host)
				}
			case <-time.After(timeout):
				t.Fatal("it does not ask")
			}
		})
	}
}

// TestABackendIsUnfitWhileNobodyListens, when the check is just to connect.
func TestABackendIsUnfitWhileNobodyListens(t *testing.T) {
	faults.NoLeak(t)
	path := socketPath(t)
	var log journal
	p := newPool(t, upstream.Options{
		Addresses: []string{"unix:" + path}, Log: log.logger(),
		Health: &config.Health{Interval: time.Millisecond, Timeout: timeout, Rise: 3, Fall: 3},
	})
	for range 2 {
		healthy(t, p, 0, false)
		l := must(net.Listen("unix", path))(t)
		go serve(l)
		healthy(t, p, 0, true)
		l.Close()
	}
	unfit, fit := "WARN backend is unfit unix:"+path, "INFO backend is fit again unix:"+path
	healthy(t, p, 0, false)
	log.want(t, unfit, fit, unfit, fit, unfit)
}

// TestAChecksHeader says that there is no client.
func TestAChecksHeader(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		for _, path := range []string{"", "/healthz"} {
			t.Run(version+" before GET "+path, func(t *testing.T) {
				faults.NoLeak(t)
				l := listen(t, "tcp")
				newPool(t, upstream.Options{
					Addresses: []string{addressOf(l)}, SendProxy: version,
					Health: &config.Health{Interval: time.Millisecond, Timeout: timeout, Path: path},
				})
				c := accept(t, l)
				defer c.Close()
				r := bufio.NewReader(c)
				h, err := proxyproto.Read(r)
				if err != nil {
					t.Fatal(err)
				}
				if h.TransportProtocol != proxyproto.UNSPEC || version == "v2" && h.Command != proxyproto.LOCAL {
					t.Errorf("the header is %+v", h)
				}
				if path == "" {
					if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
						t.Errorf("then comes %q, %v", rest, err)
					}
					return
				}
				if asked, err := http.ReadRequest(r); err != nil || asked.URL.Path != path {
					t.Errorf("then comes %+v, %v", asked, err)
				}
			})
		}
	}
}

// TestABackendThatHangsIsUnfit: no check waits for longer than Timeout, nor does its connection.
func TestABackendThatHangsIsUnfit(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, "tcp")
	p := newPool(t, upstream.Options{
		Addresses: []string{addressOf(l)},
		Health:    &config.Health{Interval: time.Millisecond, Timeout: 20 * time.Millisecond, Path: "/", Fall: 2},
	})
	for range 3 {
		if _, err := io.Copy(io.Discard, accept(t, l)); err != nil { // it ends
			t.Error(err)
		}
	}
	healthy(t, p, 0, false)
	if got := p.Status()[0].Error; !strings.HasSuffix(got, "i/o timeout") {
		t.Errorf("the backend's error is %q", got)
	}
}

// TestChecksDoNotPileUp behind one that hangs, which Close ends.
func TestChecksDoNotPileUp(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, "tcp")
	p := newPool(t, upstream.Options{
		Addresses: []string{addressOf(l)},
		Health:    &config.Health{Interval: time.Millisecond, Timeout: time.Hour, Path: "/"},
	})
	c := accept(t, l)
	l.(*net.TCPListener).SetDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a check was begun while another one waited, %v", err)
	}
	p.Close()
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Error(err)
	}
	if s := p.Status()[0]; s.Checks != 0 || !s.Healthy {
		t.Errorf("the check that Close ended was counted: %+v", s)
	}
}

// TestClientsFindABackendUnfit where there are no checks.
func TestClientsFindABackendUnfit(t *testing.T) {
	faults.NoLeak(t)
	path := socketPath(t)
	other := listen(t, "tcp")
	go serve(other)
	var log journal
	p := newPool(t, upstream.Options{
		Addresses: []string{"unix:" + path, addressOf(other)}, Log: log.logger(),
		Health: &config.Health{Fall: 2, Cooldown: time.Hour},
	})
	for range 3 {
		dial(t, p)
	}
	if s := p.Status()[0]; s.Healthy || s.Failures != 2 { // it was not tried the third time
		t.Fatalf("status %+v", s)
	}
	// The unfit one is the last resort, and fit when that succeeds.
	l := must(net.Listen("unix", path))(t)
	defer l.Close()
	go serve(l)
	other.Close()
	if b := dial(t, p); b.Address != "unix:"+path {
		t.Error("connected to ", b.Address)
	}
	if s := p.Status()[0]; !s.Healthy || s.Error != "" {
		t.Errorf("status %+v", s)
	}
	log.want(t, "WARN backend is unfit unix:"+path, "INFO backend is fit again unix:"+path)
}

// TestABackendThatCooledDownIsFit, if there are no checks, until the next connection to it fails.
func TestABackendThatCooledDownIsFit(t *testing.T) {
	faults.NoLeak(t)
	address := nobody(t)
	var log journal
	p := newPool(t, upstream.Options{
		Addresses: []string{address}, Log: log.logger(),
		Health: &config.Health{Fall: 2, Cooldown: time.Millisecond},
	})
	unfit, fit := "WARN backend is unfit "+address, "INFO backend is fit again "+address
	for range 2 {
		p.Dial(within(t), from)
	}
	log.want(t, unfit, fit)
	p.Dial(within(t), from)
	log.want(t, unfit, fit, unfit, fit)
	healthy(t, p, 0, true)
}
