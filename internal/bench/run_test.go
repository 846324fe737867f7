package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// contender is one whose processes are this one. It serves with what is given, and counts its starts and stops.
type contender struct {
	Contender
	starts, stops atomic.Int32
}

func newContender(t *testing.T, name, baseline string, serve, serveTLS func(net.Listener) error) *contender {
	c := &contender{Contender: Contender{Name: name, Title: "the " + name, Baseline: baseline}}
	c.Start = func(context.Context) (*Running, error) {
		c.starts.Add(1)
		var closers []func()
		listen := func(serve func(net.Listener) error) string {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				serve(l)
			}()
			closers = append(closers, func() { l.Close(); <-ended })
			return l.Addr().String()
		}
		r := &Running{HTTP: listen(serve), Door: []int{os.Getpid()}, Backend: []int{os.Getpid()}}
		if serveTLS != nil {
			r.TLS = listen(serveTLS)
		}
		r.Stop = func() {
			c.stops.Add(1)
			for _, closeListener := range closers {
				closeListener()
			}
		}
		return r, nil
	}
	return c
}

func absent(name string) Contender {
	return Contender{Name: name, Start: func(context.Context) (*Running, error) {
		return nil, fmt.Errorf("no program %s: %w", name, ErrAbsent)
	}}
}

// workload returns the one of that name.
func workload(t *testing.T, name string) Workload {
	for _, w := range Workloads() {
		if w.Name == name {
			return w
		}
	}
	t.Fatalf("there is no workload %q", name)
	return Workload{}
}

func TestEveryWorkloadMeasuresEveryContender(t *testing.T) {
	direct := newContender(t, "direct", "", Serve, ServeTLS)
	other := newContender(t, "other", "direct", Serve, nil)
	var said []string
	r, err := Run(t.Context(), Options{
		Contenders: []Contender{direct.Contender, absent("nginx"), other.Contender},
		Workloads:  Workloads(),
		Rounds:     2,
		Short:      true,
		Log:        func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{ // the figures
		"connect": {"median", "p99"}, "keepalive": {"rate", "p99"}, "tls": {"median", "p99"},
		"bulk": {"rate"}, "saturation": {"rate", "p99"},
	}
	if runtime.GOOS == "linux" {
		want["bulk"] = []string{"rate", "cpu"}
		want["idle"] = []string{"memory", "total", "connections"}
	}
	if len(r.Tables) != len(want) {
		t.Errorf("%d tables; want %d", len(r.Tables), len(want))
	}
	for _, table := range r.Tables {
		rows := 2
		if table.Workload == "tls" {
			rows = 1 // the other one has none
		}
		if len(table.Rows) != rows || table.Rounds != 2 || table.Title == "" {
			t.Errorf("%s has %d rows, %d rounds; want %d, 2", table.Workload, len(table.Rows), table.Rounds, rows)
		}
		for _, row := range table.Rows {
			checkRow(t, table.Workload, row, want[table.Workload])
		}
	}
	if why := r.Skipped["nginx"]; !strings.Contains(why, "no program nginx") || len(r.Skipped) != 1 {
		t.Errorf("skipped: %v; want nginx and why", r.Skipped)
	}
	if !slices.Contains(said, "nginx: skipped: no program nginx: cannot take part") || !slices.Contains(said, "tls: round 2 of 2") {
		t.Errorf("the log is %q", said)
	}
	if n := int32(2 * len(Workloads())); direct.starts.Load() != n || direct.stops.Load() != n {
		t.Errorf("%d starts, %d stops; want %d", direct.starts.Load(), direct.stops.Load(), n)
	}
	if r.Version != ResultsVersion || r.Date.IsZero() || r.Machine.Cores < 1 || r.Versions["go"] == "" {
		t.Errorf("the results do not say what they are of: %+v", r)
	}
}

func checkRow(t *testing.T, workload string, row Row, want []string) {
	t.Helper()
	var names []string
	for _, f := range row.Figures {
		names = append(names, f.Name)
		if len(f.Rounds) != 2 || f.Value != Median(f.Rounds) || (f.Better != "less" && f.Better != "more") {
			t.Errorf("%s of %s is incomplete: %+v", workload, row.Contender, f)
		}
		if workload != "idle" && f.Value <= 0 { // memory may be given back
			t.Errorf("%s of %s: %s is %v", workload, row.Contender, f.Name, f.Value)
		}
		if hasRatio := row.Baseline != "" && workload != "idle"; hasRatio && f.Ratio <= 0 || row.Baseline == "" && f.Ratio != 0 {
			t.Errorf("%s of %s: the ratio of %s is %v", workload, row.Contender, f.Name, f.Ratio)
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("%s of %s has %v; want %v", workload, row.Contender, names, want)
	}
	if row.Title != "the "+row.Contender {
		t.Errorf("the title of %s is %q", row.Contender, row.Title)
	}
}

// serving serves with another handler than the backend's.
func serving(h http.HandlerFunc) func(net.Listener) error {
	return func(l net.Listener) error { return http.Serve(l, h) }
}

func TestAWrongAnswerEndsTheRun(t *testing.T) {
	wrong := serving(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "wrong") })
	var served atomic.Int32
	rarely := serving(func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) == 100 {
			http.Error(w, "just this once", http.StatusServiceUnavailable)
			return
		}
		answer(w, r)
	})
	silent := func(l net.Listener) error {
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			c.Close()
		}
	}
	short := serving(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "67108864")
		w.Write(make([]byte, 1000)) // and net/http closes the connection
	})
	wrongTLS := func(l net.Listener) error {
		certificate, err := SelfSigned()
		if err != nil {
			return err
		}
		return wrong(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	}
	tests := []struct {
		name, workload  string
		serve, serveTLS func(net.Listener) error
	}{
		{"a body that is another", "connect", wrong, nil},
		{"a status that is another, once", "connect", rarely, nil},
		{"a connection that ends without an answer", "connect", silent, nil},
		{"a body that is another, on a kept connection", "keepalive", wrong, nil},
		{"a connection that ends, though it should be kept", "keepalive", silent, nil},
		{"a body that is another, over TLS", "tls", Serve, wrongTLS},
		{"no TLS", "tls", Serve, Serve},
		{"a download of another length", "bulk", wrong, nil},
		{"a download that ends early", "bulk", short, nil},
		{"a body that is another, of many clients", "saturation", wrong, nil},
		{"a body that is another, on an idle connection", "idle", wrong, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.workload == "idle" && runtime.GOOS != "linux" {
				t.Skip("memory is not measured here")
			}
			good := newContender(t, "good", "", Serve, ServeTLS)
			bad := newContender(t, "bad", "good", tt.serve, tt.serveTLS)
			r, err := Run(t.Context(), Options{
				Contenders: []Contender{good.Contender, bad.Contender},
				Workloads:  []Workload{workload(t, tt.workload)},
				Short:      true,
			})
			if err == nil || !strings.HasPrefix(err.Error(), tt.workload+": bad: ") {
				t.Errorf("results %v, error %v; want one that names workload and contender", r, err)
			}
			if good.stops.Load() != 1 || bad.stops.Load() != 1 {
				t.Errorf("stopped %d and %d times; want once each", good.stops.Load(), bad.stops.Load())
			}
		})
	}
}

func TestAContenderThatDoesNotStartEndsTheRunUnlessItIsAbsent(t *testing.T) {
	good := newContender(t, "good", "", Serve, nil)
	broken := Contender{Name: "broken", Start: func(context.Context) (*Running, error) { return nil, errors.New("no luck") }}
	_, err := Run(t.Context(), Options{Contenders: []Contender{good.Contender, broken}, Workloads: []Workload{workload(t, "connect")}, Short: true})
	if err == nil || err.Error() != "connect: broken: cannot start: no luck" {
		t.Errorf("error %v", err)
	}
	if good.stops.Load() != 1 {
		t.Errorf("what had started was stopped %d times; want once", good.stops.Load())
	}

	goes := newContender(t, "goes", "", Serve, nil)
	start := goes.Start
	goes.Start = func(ctx context.Context) (*Running, error) {
		if goes.starts.Load() > 0 {
			return nil, ErrAbsent
		}
		return start(ctx)
	}
	_, err = Run(t.Context(), Options{Contenders: []Contender{goes.Contender}, Workloads: []Workload{workload(t, "connect")}, Rounds: 2, Short: true})
	if !errors.Is(err, ErrAbsent) { // or its rounds would be fewer than the others'
		t.Errorf("error %v of one that was there in the round before; want one that is ErrAbsent", err)
	}
}

func TestARunEndsWithItsContext(t *testing.T) {
	for _, w := range Workloads() {
		if w.Name == "idle" && runtime.GOOS != "linux" {
			continue
		}
		t.Run(w.Name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			c := newContender(t, "direct", "", Serve, ServeTLS)
			start := c.Start
			c.Start = func(context.Context) (*Running, error) {
				cancel()
				return start(ctx)
			}
			if _, err := Run(ctx, Options{Contenders: []Contender{c.Contender}, Workloads: []Workload{w}}); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v; want %v", err, context.Canceled)
			}
			if c.stops.Load() != 1 {
				t.Errorf("stopped %d times; want once", c.stops.Load())
			}
		})
	}
}

func TestSubjectsAreMeasuredInTurnEachTimeAnotherOneFirst(t *testing.T) {
	var order string
	trial := trial{round: 1, subjects: []*subject{{name: "a"}, {name: "b"}, {name: "c"}}}
	err := trial.inTurn(t.Context(), 4, func(s *subject) error {
		order += s.name
		return nil
	})
	if want := "bcacababcbca"; order != want || err != nil {
		t.Errorf("the order is %s, error %v; want %s", order, err, want)
	}
}

func TestClientsAskForHostsInTurn(t *testing.T) {
	for _, name := range []string{"connect", "saturation"} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			asked := make(map[string]int)
			c := newContender(t, "direct", "", serving(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked[r.Host]++
				mu.Unlock()
				answer(w, r)
			}), nil)
			start := c.Start
			c.Start = func(ctx context.Context) (*Running, error) {
				r, err := start(ctx)
				r.Hosts = []string{"a.example", "b.example", "c.example"}
				return r, err
			}
			_, err := Run(t.Context(), Options{Contenders: []Contender{c.Contender}, Workloads: []Workload{workload(t, name)}, Short: true})
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock() // the last handler may not have returned
			defer mu.Unlock()
			fewest, most := asked["a.example"], asked["a.example"]
			for _, n := range asked {
				fewest, most = min(fewest, n), max(most, n)
			}
			if len(asked) != 3 || most-fewest > 2 { // a count may begin twice: for the warming-up
				t.Errorf("they were asked for %v", asked)
			}
		})
	}
}

func TestTheBackendAnswersOverHTTPAndTLS(t *testing.T) {
	c := newContender(t, "direct", "", Serve, ServeTLS)
	r, err := c.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	transport := &http.Transport{TLSClientConfig: &tls.Config{ServerName: Host, InsecureSkipVerify: true}, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	tests := []struct {
		path   string
		status int
		body   string
	}{
		{PathSmall, 200, SmallBody},
		{PathBulk + "5", 200, "\x00\x00\x00\x00\x00"},
		{PathBulk + "0", 200, ""},
		{PathBulk + "300000", 200, strings.Repeat("\x00", 300000)},
		{PathBulk + "-1", 400, "no such number of bytes: -1\n"},
		{PathBulk + "many", 400, "no such number of bytes: many\n"},
		{PathBulk + "9999999999999", 400, "no such number of bytes: 9999999999999\n"},
		{"/other", 404, "404 page not found\n"},
	}
	for _, base := range []string{"http://" + r.HTTP, "https://" + r.TLS} {
		for _, tt := range tests {
			response, err := client.Get(base + tt.path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil || response.StatusCode != tt.status || string(body) != tt.body {
				t.Errorf("%s%s: status %d, %.40q, error %v; want %d, %.40q", base, tt.path, response.StatusCode, body, err, tt.status, tt.body)
			}
			if response.Proto != "HTTP/1.1" || response.TLS != nil && response.TLS.Version != tls.VersionTLS13 {
				t.Errorf("%s%s: %s, TLS %v", base, tt.path, response.Proto, response.TLS)
			}
		}
	}
}

func TestAddressesAreIPv4WithAPort(t *testing.T) {
	for _, address := range []string{"", "localhost:80", "[::1]:80", "127.0.0.1"} {
		if _, err := parseAddress(address); err == nil {
			t.Errorf("%q is one", address)
		}
	}
	if a, err := parseAddress("127.0.0.2:80"); err != nil || a.Port() != 80 {
		t.Errorf("%v, %v", a, err)
	}
}
