package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/go-usher/usher/internal/admin"
)

const (
	// statusTimeout bounds the whole of it: a door that has not answered by then is stuck.
	statusTimeout = 10 * time.Second
	// maxStatus is some ten times what a door with 10,000 routes has to say.
	maxStatus = 64 << 20
	// shownRefusals are the newest of those that the door remembers.
	shownRefusals = 10
)

func newStatusCommand() *cobra.Command {
	var asJSON bool
	var address string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show routes, endpoints and rates of the running door",
		Long: `Show the listeners, routes, endpoints, upstreams and last refusals of the running door, which it
tells at its admin address.

With --json it prints what the door tells, as it is: see /status.json.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
			defer cancel()
			body, err := askStatus(ctx, address)
			if err != nil {
				return err
			}
			if asJSON {
				_, err := cmd.OutOrStdout().Write(body)
				return err
			}
			var s admin.Status
			if err := json.Unmarshal(body, &s); err != nil {
				return fmt.Errorf("what answers at %s is not a door: %w", address, err)
			}
			return writeStatus(cmd.OutOrStdout(), &s)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&address, "admin", "127.0.0.1:9901", "the door's admin `ADDR`, HOST:PORT or unix:PATH")
	return cmd
}

// askStatus returns the status of the door at an admin address, which is JSON.
func askStatus(ctx context.Context, address string) ([]byte, error) {
	network, dialed, host := splitAdmin(address)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/status.json", nil)
	if err != nil || dialed == "" {
		return nil, fmt.Errorf("%q is not an admin address: it is HOST:PORT or unix:PATH", address)
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, dialed)
		},
		DisableKeepAlives: true, // there is one request
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, unreachable(address, err)
	}
	defer answer.Body.Close()
	return readStatus(answer, address)
}

// splitAdmin returns what to dial, empty if the address is none, and the host to ask for.
func splitAdmin(address string) (network, dialed, host string) {
	if path, isUnix := strings.CutPrefix(address, admin.UnixPrefix); isUnix {
		return "unix", path, "localhost"
	}
	name, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return "", "", ""
	}
	if name == "" { // net.Dial takes that for this machine, but the door answers to names
		name = "localhost"
	}
	address = net.JoinHostPort(name, port)
	return "tcp", address, address
}

// unreachable says what the operator can do about it.
func unreachable(address string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the door at %s has not answered within %v", address, statusTimeout)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("no door answers at %s: %w; is one running, with this admin address in its config?", address, op.Err)
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // what was tried is said here
	}
	return fmt.Errorf("what answers at %s is not a door: %w", address, err)
}

func readStatus(answer *http.Response, address string) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxStatus+1))
	if err != nil {
		return nil, fmt.Errorf("the answer of the door at %s broke off: %w", address, err)
	}
	if answer.StatusCode != http.StatusOK {
		line, _, _ := strings.Cut(string(body), "\n")
		return nil, fmt.Errorf("what answers at %s says: %s: %s", address, printable(answer.Status), printable(line[:min(len(line), 200)]))
	}
	if len(body) > maxStatus {
		return nil, fmt.Errorf("the answer from %s has more than %d bytes", address, maxStatus)
	}
	if !json.Valid(body) {
		return nil, fmt.Errorf("what answers at %s is not a door: its /status.json is not JSON", address)
	}
	return body, nil
}

// writeStatus writes tables for people.
func writeStatus(out io.Writer, s *admin.Status) error {
	w := &tables{out: out}
	w.line("usher %s, process %d, up for %s: %s", s.Version, s.PID, s.Now.Sub(s.Started).Round(time.Second), readiness(s))
	w.line("%s", configInWords(&s.Config))

	w.table("LISTENER\tADDRESS\tSNIFF\tACCEPTED\tERRORS\tPEEKING\tOPEN\tSTATE")
	for _, l := range s.Listeners {
		w.row(l.Name, l.Address, l.Sniff, l.Accepted, l.AcceptErrors, l.Peeking, l.Open, cmp.Or(l.Error, "listens"))
	}
	w.table("ROUTE\tMATCH\tTARGET\tHANDED OVER\tPROXIED\tREFUSED\tMEDIAN\tP99")
	for _, r := range s.Routes {
		handed, proxied, refused := countConnections(r.Connections)
		w.row(r.Name, cmp.Or(r.Match, "-"), cmp.Or(r.Target, "-"), handed, proxied, refused,
			inSeconds(r.Handover.Quantile(0.5)), inSeconds(r.Handover.Quantile(0.99)))
	}
	w.table("ENDPOINT\tSTATE\tCLAIMED\tDECLINED\tWITHDRAWN\tTAKERS")
	for _, e := range s.Endpoints {
		w.row(e.Name, withReason(e.State, e.Error), e.Claimed, e.Declined, e.Withdrawn, takersInWords(e.Takers))
	}
	w.table("UPSTREAM\tROUTE\tHEALTH\tOPEN\tCONNECTIONS\tFAILURES\tFAILED CHECKS")
	for _, u := range s.Upstreams {
		health := "unfit"
		if u.Healthy {
			health = "healthy"
		}
		w.row(u.Address, u.Route, withReason(health, u.Error), u.Open, u.Connections, u.Failures, u.FailedCheck)
	}
	w.table("REFUSED\tCLIENT\tLISTENER\tROUTE\tHOST\tOUTCOME\tREASON")
	for _, r := range s.Refusals[:min(len(s.Refusals), shownRefusals)] {
		w.row(r.Time.Local().Format(time.DateTime), r.Client, r.Listener, cmp.Or(r.Route, "-"), cmp.Or(r.Host, "-"), r.Outcome, r.Reason)
	}
	return w.end()
}

func readiness(s *admin.Status) string {
	state := "not ready"
	switch {
	case s.Draining:
		state = "draining"
	case s.Ready:
		return "ready"
	}
	return withReason(state, s.NotReady)
}

func configInWords(c *admin.ConfigStatus) string {
	words := fmt.Sprintf("config %s, loaded %s", cmp.Or(c.Path, "without a file"), c.Loaded.Local().Format(time.DateTime))
	if c.Error != "" {
		words += "; the last reload failed: " + c.Error
	}
	return words
}

func countConnections(counts []admin.Count) (handed, proxied, refused uint64) {
	for _, c := range counts {
		switch c.Outcome {
		case admin.HandedOver:
			handed += c.N
		case admin.Proxied:
			proxied += c.N
		case admin.Idle: // nobody has asked for anything
		default:
			refused += c.N
		}
	}
	return handed, proxied, refused
}

func takersInWords(takers []admin.TakerStatus) string {
	words := make([]string, len(takers))
	for i, t := range takers {
		words[i] = fmt.Sprintf("%d (%s, %d open)", t.PID, t.User, t.Open)
	}
	return cmp.Or(strings.Join(words, ", "), "-")
}

// inSeconds keeps three digits: more than the buckets of a histogram can tell.
func inSeconds(s float64) string {
	if math.IsNaN(s) {
		return "-"
	}
	s, _ = strconv.ParseFloat(strconv.FormatFloat(s, 'g', 3, 64), 64)
	return time.Duration(math.Round(s * float64(time.Second))).String()
}

func withReason(state, reason string) string {
	if reason == "" {
		return state
	}
	return state + ": " + reason
}

// tables writes lines, and tables that have a header and columns as wide as they need. A table without rows is
// left out. It keeps the first error.
type tables struct {
	out    io.Writer
	header string
	rows   *tabwriter.Writer // nil before the first row
	err    error
}

func (t *tables) line(format string, args ...any) {
	t.print(t.out, printable(fmt.Sprintf(format, args...)))
}

// table begins another one.
func (t *tables) table(header string) {
	t.flush()
	t.header = header
}

func (t *tables) row(cells ...any) {
	if t.rows == nil {
		t.print(t.out, "")
		t.rows = tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
		t.print(t.rows, t.header)
	}
	words := make([]string, len(cells))
	for i, c := range cells {
		words[i] = printable(fmt.Sprint(c))
	}
	t.print(t.rows, strings.Join(words, "\t"))
}

func (t *tables) print(w io.Writer, line string) {
	if t.err == nil {
		_, t.err = fmt.Fprintln(w, line)
	}
}

func (t *tables) flush() {
	if t.rows != nil && t.err == nil {
		t.err = t.rows.Flush()
	}
	t.rows = nil
}

func (t *tables) end() error {
	t.flush()
	return t.err
}

// printable keeps what comes from the door's clients from commanding the terminal, or from looking like a row
// of its own.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
