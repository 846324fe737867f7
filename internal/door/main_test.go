package door

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-usher/usher"
	"github.com/go-usher/usher/internal/admin"
	"github.com/go-usher/usher/internal/config"
	"github.com/go-usher/usher/internal/faults"
)

// loadConns is what CI makes larger.
var loadConns = flag.Int("door.conns", 1000, "connections in each test under load")

// roles are what the test binary can play in a process of its own.
var roles = map[string]func([]string) error{}

func TestMain(m *testing.M) { faults.Main(m, roles) }

const isWindows = runtime.GOOS == "windows"

// timeout ends a test that hangs, not one that is slow.
const timeout = 30 * time.Second

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("not within %v: %s", timeout, what)
}

// house is a door with the folder that its takers' endpoints are in.
type house struct {
	t    testing.TB
	dir  string
	door *Door
	log  logged
}

var houses atomic.Int32

// newHouse makes a house whose door is not open yet.
func newHouse(t testing.TB) *house {
	h := &house{t: t}
	if isWindows {
		h.dir = fmt.Sprintf("test-%d-%d-", os.Getpid(), houses.Add(1))
		return h
	}
	h.dir = must(os.MkdirTemp("", "usher"))(t)
	t.Cleanup(func() { os.RemoveAll(h.dir) })
	return h
}

// name is that of an endpoint of this house.
func (h *house) name(name string) string {
	if isWindows {
		return h.dir + name
	}
	return name
}

func (h *house) path(name string) string {
	if isWindows {
		return `\\.\pipe\usher\` + h.dir + name
	}
	return filepath.Join(h.dir, name+".sock")
}

// config reads a configuration in which {name} stands for an endpoint of this house, and which gets what all
// have.
func (h *house) config(yaml string) *config.Config {
	h.t.Helper()
	for _, name := range []string{"shop", "blog", "chat"} {
		yaml = strings.ReplaceAll(yaml, "{"+name+"}", h.name(name))
	}
	if !strings.Contains(yaml, "listeners:") {
		yaml = "listeners: [{name: web, address: 127.0.0.1:0}]\n" + yaml
	}
	if !isWindows && !strings.Contains(yaml, "endpoints:") {
		yaml += "\nendpoints: {dir: " + h.dir + "}\n"
	}
	return must(config.Parse("test.yaml", []byte(yaml)))(h.t)
}

// open opens the door, until the test ends.
func (h *house) open(yaml string) {
	h.t.Helper()
	h.start(Options{Config: h.config(yaml)})
}

// start is open for a door with options of its own.
func (h *house) start(o Options) {
	h.t.Helper()
	o.Log = slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h.door = must(Start(o))(h.t)
	h.t.Cleanup(func() {
		h.shut()
		if h.t.Failed() {
			h.t.Logf("the door's log, of its refusals and the last of the rest:\n%s", h.log.short())
		}
	})
}

func (h *house) shut() {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := h.door.Shutdown(ctx); err != nil && !errors.Is(err, errShutDown) {
		h.t.Error(err)
	}
}

// addr is where a listener listens.
func (h *house) addr(listener string) string {
	h.t.Helper()
	for _, l := range h.door.Status().Listeners {
		if l.Name == listener {
			return l.Address
		}
	}
	h.t.Fatalf("no listener %s", listener)
	return ""
}

// count is how many connections had an outcome, of a route or of all.
func (h *house) count(route string, outcome admin.Outcome) (n int) {
	for _, r := range h.door.Status().Routes {
		for _, c := range r.Connections {
			if c.Outcome == outcome && (route == "" || route == r.Name) {
				n += int(c.N)
			}
		}
	}
	return n
}

// expect waits for a count: the door counts when it has handed over, and the client may be quicker.
func (h *house) expect(route string, outcome admin.Outcome, n int) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("route %s has %d connections %s", route, n, outcome), func() bool { return h.count(route, outcome) >= n })
	if got := h.count(route, outcome); got != n {
		h.t.Errorf("route %s has %d connections %s, want %d", route, got, outcome, n)
	}
}

// logged is a log to be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// short is what a person may want to read of a log that may have thousands of lines.
func (l *logged) short() string {
	lines := strings.SplitAfter(l.String(), "\n")
	var b strings.Builder
	for i, line := range lines {
		if i >= len(lines)-50 || !strings.Contains(line, "outcome=handed_over") && !strings.Contains(line, "msg=ended") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// taker is a server at an endpoint.
type taker struct {
	*http.Server
	l *usher.Listener
}

type infoKey struct{}

// infoOf returns what the door told of the connection that a request came on.
func infoOf(r *http.Request) usher.Info {
	info, _ := r.Context().Value(infoKey{}).(usher.Info)
	return info
}

// whoami answers with the name of the server and what it was asked.
func whoami(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s serves %s%s over %s for %s", name, r.Host, r.URL.Path, r.Proto, infoOf(r).Route)
	})
}

// take serves HTTP at an endpoint, over TLS if there is a certificate, until the test ends.
func (h *house) take(name string, handler http.Handler, cert *tls.Certificate) *taker {
	h.t.Helper()
	l := must(usher.Listen(h.path(name)))(h.t)
	s := &taker{l: l, Server: &http.Server{
		Handler: handler, Protocols: new(http.Protocols),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if tc, ok := c.(*tls.Conn); ok {
				c = tc.NetConn()
			}
			return context.WithValue(ctx, infoKey{}, c.(*usher.Conn).Info())
		},
	}}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	serve := func() error { return s.Serve(l) }
	if cert != nil {
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}}
		serve = func() error { return s.ServeTLS(l, "", "") }
	}
	served := make(chan error, 1)
	go func() { served <- serve() }()
	h.t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, usher.ErrReplaced) {
			h.t.Errorf("%s: %v", name, err)
		}
	})
	return s
}

// certificate is one for names below example.com.
var certificate = sync.OnceValue(func() *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"*.example.com", "example.com"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

// httpClient makes requests to one address, whatever the host. how changes its transport.
func httpClient(t testing.TB, addr string, how func(*http.Transport)) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(certificate().Leaf)
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		},
		TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: new(http.Protocols),
	}
	tr.Protocols.SetHTTP1(true)
	if how != nil {
		how(tr)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: timeout}
}

func http2Only(tr *http.Transport) {
	tr.Protocols.SetHTTP1(false)
	tr.Protocols.SetHTTP2(true)
	tr.Protocols.SetUnencryptedHTTP2(true)
}

func freshConns(tr *http.Transport) { tr.DisableKeepAlives = true }

// get returns the status and the body.
func get(c *http.Client, url string) (int, string, error) {
	r, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

// raw makes a connection to addr on which the test speaks for itself.
func raw(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c := must(net.Dial("tcp", addr))(t)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	return c.(*net.TCPConn)
}

func send(t testing.TB, c net.Conn, b string) {
	t.Helper()
	if _, err := io.WriteString(c, b); err != nil {
		t.Fatal(err)
	}
}

// rest returns all that comes until the end, which has to be a clean one.
func rest(t testing.TB, c net.Conn) string {
	t.Helper()
	return string(must(io.ReadAll(c))(t))
}
