package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/faults"
	"github.com/go-usher/usher/internal/upstream"
	"github.com/pires/go-proxyproto"
)

func newPool(t testing.TB, o upstream.Options) *upstream.Pool {
	t.Helper()
	p := upstream.New(o)
	t.Cleanup(p.Close)
	return p
}

// dial connects to a backend, whose address it returns, and closes the connection at the end of the test.
func dial(t testing.TB, p *upstream.Pool) *upstream.Backend {
	t.Helper()
	c, b, err := p.Dial(within(t), from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return b
}

// TestTheBackendWithTheFewestOpenConnectionsIsChosen, and of equals the next in turn.
func TestTheBackendWithTheFewestOpenConnectionsIsChosen(t *testing.T) {
	for _, test := range []struct {
		name string
		// steps are connections that are made to a backend (a, b, c), or end (A, B, C).
		steps string
	}{
		{"equals take turns", "abcabcabc"},
		{"one that has fewer comes first", "abc" + "Bb" + "Cc" + "Aa"},
		{"it gets all until it has as many", "abcabc" + "CCcc" + "abc"},
		{"equals take turns though others are busier", "abcabc" + "ABab" + "cab"},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults.NoLeak(t)
			var o upstream.Options
			for range 3 {
				l := listen(t, "tcp")
				go serve(l)
				o.Addresses = append(o.Addresses, addressOf(l))
			}
			p := newPool(t, o)
			open := map[rune][]*upstream.Backend{}
			for i, step := range test.steps {
				if ends := step + 'a' - 'A'; step < 'a' {
					open[ends][0].Done()
					open[ends] = open[ends][1:]
					continue
				}
				b := dial(t, p)
				if got := rune('a' + slices.Index(o.Addresses, b.Address)); got != step {
					t.Fatalf("after %q it is %c, want %c", test.steps[:i], got, step)
				}
				open[step] = append(open[step], b)
			}
			for i, s := range p.Status() {
				if want := len(open[rune('a'+i)]); s.Open != want || !s.Healthy || s.Address != o.Addresses[i] {
					t.Errorf("status %+v; want %d open", s, want)
				}
			}
		})
	}
}

func TestDialOfKindsOfAddresses(t *testing.T) {
	for _, test := range []struct {
		name, network string
		address       func(net.Listener) string
	}{
		{"an IP address", "tcp", addressOf},
		{"a Unix socket", "unix", addressOf},
		{"a host name", "tcp", func(l net.Listener) string {
			_, port, _ := net.SplitHostPort(l.Addr().String())
			return "localhost:" + port
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults.NoLeak(t)
			l := listen(t, test.network)
			p := newPool(t, upstream.Options{Addresses: []string{test.address(l)}, ConnectTimeout: timeout})
			c, b, err := p.Dial(within(t), from)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Done()
			io.WriteString(c, "hello")
			c.Close()
			if got, err := io.ReadAll(accept(t, l)); string(got) != "hello" || err != nil {
				t.Errorf("the backend reads %q, %v", got, err)
			}
		})
	}
}

func TestAnotherBackendIsTriedWhenOneRefuses(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, "tcp")
	go serve(l)
	p := newPool(t, upstream.Options{Addresses: []string{nobody(t), addressOf(l)}})
	for range 3 { // always the first is tried first: it has none open
		if b := dial(t, p); b.Address != addressOf(l) {
			t.Fatal("connected to ", b.Address)
		}
	}
	s := p.Status()
	if s[0].Failures != 3 || s[0].Open != 0 || s[0].Connections != 0 || s[1].Failures != 0 || s[1].Open != 3 || s[1].Connections != 3 {
		t.Errorf("status %+v", s)
	}
}

func TestWhenNoBackendAnswersTheErrorTellsOfEach(t *testing.T) {
	faults.NoLeak(t)
	addresses := []string{nobody(t), nobody(t), nobody(t)}
	p := newPool(t, upstream.Options{Addresses: addresses})
	_, _, err := p.Dial(within(t), from)
	if err == nil {
		t.Fatal("no error")
	}
	for _, a := range addresses {
		if strings.Count(err.Error(), a+": connect: ") != 1 {
			t.Errorf("the error does not tell of %s: %v", a, err)
		}
	}
	if runtime.GOOS != "windows" && !errors.Is(err, syscall.ENOENT) {
		t.Errorf("the error is not that of the backends: %v", err)
	}
	for _, s := range p.Status() {
		if s.Failures != 1 || s.Open != 0 || !s.Healthy {
			t.Errorf("status %+v", s)
		}
	}
}

func TestDialWithoutBackends(t *testing.T) {
	if _, _, err := newPool(t, upstream.Options{}).Dial(within(t), from); err == nil {
		t.Error("no error")
	}
}

func TestDialInAContextThatHasEnded(t *testing.T) {
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(stop)
	p := newPool(t, upstream.Options{Addresses: []string{nobody(t)}})
	if _, _, err := p.Dial(ctx, from); !errors.Is(err, stop) {
		t.Errorf("the error is %v", err)
	}
	if s := p.Status()[0]; s.Failures != 0 || s.Open != 0 {
		t.Errorf("status %+v", s)
	}
}

// TestAfterCloseDialStillWorks: routes that are about to go may have clients on their way.
func TestAfterCloseDialStillWorks(t *testing.T) {
	faults.NoLeak(t)
	l := listen(t, "tcp")
	go serve(l)
	p := newPool(t, upstream.Options{
		Addresses: []string{nobody(t), addressOf(l)},
		Health:    &config.Health{Fall: 1, Cooldown: time.Nanosecond},
	})
	p.Close()
	p.Close()
	dial(t, p).Done()
	if s := p.Status(); s[0].Healthy {
		t.Errorf("status %+v", s)
	}
}

// TestHeaders has a parser that is not ours read the first bytes of connections, and the client's after them.
func TestHeaders(t *testing.T) {
	addr := func(client, local string) (a upstream.Addresses) {
		a.Client, _ = netip.ParseAddrPort(client)
		a.Local, _ = netip.ParseAddrPort(local)
		return a
	}
	for _, test := range []struct {
		name   string
		from   upstream.Addresses
		family proxyproto.AddressFamilyAndProtocol
		v1     string
	}{
		{
			"IPv4", addr("192.0.2.1:1234", "198.51.100.2:443"),
			proxyproto.TCPv4, "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n",
		},
		{
			"IPv4 on a socket for IPv6", addr("[::ffff:192.0.2.1]:1234", "[::ffff:198.51.100.2]:443"),
			proxyproto.TCPv4, "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n",
		},
		{
			"IPv6", addr("[2001:db8::1]:1234", "[2001:db8::2]:443"),
			proxyproto.TCPv6, "PROXY TCP6 2001:db8::1 2001:db8::2 1234 443\r\n",
		},
		{
			"IPv6 with a zone", addr("[fe80::1%eth0]:1234", "[fe80::2%eth0]:443"),
			proxyproto.TCPv6, "PROXY TCP6 fe80::1 fe80::2 1234 443\r\n",
		},
		{
			"both families", addr("192.0.2.1:1234", "[2001:db8::2]:443"),
			proxyproto.TCPv6, "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1234 443\r\n",
		},
		{"an address that is not known", addr("", "198.51.100.2:443"), proxyproto.UNSPEC, "PROXY UNKNOWN\r\n"},
	} {
		for _, version := range []string{"v1", "v2", ""} {
			for _, network := range []string{"tcp", "unix"} {
				t.Run(test.name+", "+version+" on "+network, func(t *testing.T) {
					faults.NoLeak(t)
					l := listen(t, network)
					p := newPool(t, upstream.Options{Addresses: []string{addressOf(l)}, SendProxy: version, ConnectTimeout: timeout})
					c, b, err := p.Dial(within(t), test.from)
					if err != nil {
						t.Fatal(err)
					}
					defer b.Done()
					io.WriteString(c, "hello")
					c.Close()
					r := bufio.NewReader(accept(t, l))
					if version == "v1" {
						if got, err := r.Peek(len(test.v1)); string(got) != test.v1 {
							t.Errorf("the header is %q, %v; want %q", got, err, test.v1)
						}
					}
					if version != "" {
						h, err := proxyproto.Read(r)
						if err != nil {
							t.Fatal(err)
						}
						if h.TransportProtocol != test.family {
							t.Errorf("the header is %+v, want family %v", h, test.family)
						}
						if want := map[string]byte{"v1": 1, "v2": 2}[version]; h.Version != want {
							t.Errorf("the header has version %d", h.Version)
						}
						if source, destination, ok := h.TCPAddrs(); ok {
							got := [2]netip.AddrPort{source.AddrPort(), destination.AddrPort()}
							for i, want := range []netip.AddrPort{test.from.Client, test.from.Local} {
								if got[i].Addr().Unmap() != want.Addr().Unmap().WithZone("") || got[i].Port() != want.Port() {
									t.Errorf("the header tells of %v, want %v", got[i], want)
								}
							}
						}
					}
					if rest, err := io.ReadAll(r); string(rest) != "hello" || err != nil {
						t.Errorf("then comes %q, %v", rest, err)
					}
				})
			}
		}
	}
}
