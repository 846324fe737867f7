package admin

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
)

// Options are what a [Handler] is made of. Only Status is needed.
type Options struct {
	// Status makes the door's state of this moment. Handler calls it for every request that needs it, from
	// several goroutines at once, and only reads what it returns.
	Status func() *Status

	// Log is told of metrics that could not be made and, at debug level, of requests that were refused. nil is
	// [slog.Default].
	Log *slog.Logger

	// AllowRemote accepts requests for every host name. Without it a request over TCP must name a loopback
	// address, localhost, or the very address it has come to.
	AllowRemote bool
}

// Handler returns the admin address's pages:
//
//	/             the dashboard
//	/status.json  a [Status] as JSON, and with it "histogram_bounds": [Bounds]
//	/metrics      the same for Prometheus; see [MetricsReference]
//	/healthz      200 as long as the process answers at all
//	/readyz       200 when [Status] is Ready, else 503 and the reason
//	/debug/pprof/ profiles, as of [net/http/pprof]
//
// All of them only read. There is no authentication: whoever can connect sees everything, so that the address
// should be a loopback one or a Unix socket. What a browser on the same machine could be talked into by a page
// from elsewhere is refused: requests for a foreign host name (DNS rebinding) and requests that another site
// has caused. No answer may be cached or framed, or be read by another origin.
func Handler(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	mux := http.NewServeMux()
	serveDashboard(mux)
	mux.HandleFunc("/status.json", o.serveStatus)
	mux.Handle("/metrics", o.metricsHandler())
	mux.HandleFunc(healthPath, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc(readyPath, o.serveReady)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return o.guard(mux)
}

const (
	healthPath = "/healthz"
	readyPath  = "/readyz"
)

func (o *Options) serveReady(w http.ResponseWriter, _ *http.Request) {
	s := o.Status()
	if s.Ready {
		answer(w, http.StatusOK, "ready")
		return
	}
	why := s.NotReady
	if why == "" {
		why = "not ready"
	}
	answer(w, http.StatusServiceUnavailable, why)
}

// document is what /status.json has: nobody can read the histograms without the bounds.
type document struct {
	*Status
	Bounds []float64 `json:"histogram_bounds"`
}

// serveStatus compresses where it may: with 10,000 routes there are megabytes, a dashboard asks every second,
// and nearly all of it is zeros and the names of fields.
func (o *Options) serveStatus(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Vary", "Accept-Encoding")
	var body io.Writer = w
	if acceptsGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // fails for other levels only
		defer z.Close()
		body = z
	}
	// It marshals everything before it writes anything, and a Status always can be marshalled: what is left
	// to fail is a client that has gone.
	_ = json.NewEncoder(body).Encode(document{o.Status(), Bounds[:]})
}

// acceptsGzip reads Accept-Encoding (RFC 9110, section 12.5.3) as far as it matters here: gzip is accepted
// where it, or else everything, is named without a weight of zero.
func acceptsGzip(r *http.Request) bool {
	accepted := false
	for _, value := range r.Header.Values("Accept-Encoding") {
		for coding := range strings.SplitSeq(value, ",") {
			name, weight, _ := strings.Cut(coding, ";")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "gzip", "x-gzip":
				return !isZeroWeight(weight)
			case "*":
				accepted = !isZeroWeight(weight)
			}
		}
	}
	return accepted
}

func isZeroWeight(parameter string) bool {
	name, value, _ := strings.Cut(parameter, "=")
	if !strings.EqualFold(strings.TrimSpace(name), "q") {
		return false
	}
	q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	return err == nil && q == 0
}

// answer writes a line of plain text.
func answer(w http.ResponseWriter, code int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	io.WriteString(w, line+"\n")
}
