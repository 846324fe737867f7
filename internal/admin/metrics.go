package admin

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metric is a row of the table that both the collector and the reference are made from. One of value and
// durations is set.
type metric struct {
	name   string
	kind   prometheus.ValueType
	help   string
	labels []string

	value     func(s *Status, emit func(v float64, labels ...string))
	durations func(s *Status, emit func(h Histogram, labels ...string))
}

// endpointStates are those of [EndpointStatus].State.
var endpointStates = []string{"up", "idle", "absent", "refused"}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// metrics are all of the door's own. What takers' processes come and go with, PIDs and users, is no label: each
// would leave its series behind.
var metrics = []metric{
	{name: "usher_info", kind: gauge, labels: []string{"version", "goversion"},
		help:  "Always 1. Its labels are the versions of the door and of the Go that built it.",
		value: func(s *Status, emit func(float64, ...string)) { emit(1, s.Version, runtime.Version()) }},
	{name: "usher_start_time_seconds", kind: gauge,
		help:  "When the door started, in seconds since 1970.",
		value: one(func(s *Status) float64 { return unixSeconds(s.Started) })},
	{name: "usher_ready", kind: gauge,
		help:  "1 when every listener listens and the door does not drain, else 0.",
		value: one(func(s *Status) float64 { return boolean(s.Ready) })},
	{name: "usher_draining", kind: gauge,
		help:  "1 when the door accepts nothing new and waits for what it still has, else 0.",
		value: one(func(s *Status) float64 { return boolean(s.Draining) })},

	{name: "usher_config_loaded_timestamp_seconds", kind: gauge,
		help:  "When the configuration in force was loaded, in seconds since 1970.",
		value: one(func(s *Status) float64 { return unixSeconds(s.Config.Loaded) })},
	{name: "usher_config_last_reload_successful", kind: gauge,
		help:  "0 when the last try to load the configuration anew has failed, so that an older one is in force, else 1.",
		value: one(func(s *Status) float64 { return boolean(s.Config.Error == "") })},
	{name: "usher_config_reloads_total", kind: counter,
		help:  "Tries to load the configuration anew, those that failed included.",
		value: one(func(s *Status) float64 { return float64(s.Config.Reloads) })},
	{name: "usher_config_reload_failures_total", kind: counter,
		help:  "Tries to load the configuration anew that failed.",
		value: one(func(s *Status) float64 { return float64(s.Config.Failures) })},

	{name: "usher_listener_up", kind: gauge, labels: []string{"listener", "address"},
		help: "1 when the listener listens at the address, else 0.",
		value: func(s *Status, emit func(float64, ...string)) {
			for _, l := range s.Listeners {
				emit(boolean(l.Error == ""), l.Name, l.Address)
			}
		}},
	{name: "usher_accepted_connections_total", kind: counter, labels: []string{"listener"},
		help:  "Connections accepted.",
		value: perListener(func(l *ListenerStatus) float64 { return float64(l.Accepted) })},
	{name: "usher_accept_errors_total", kind: counter, labels: []string{"listener"},
		help:  "Failures to accept a connection, as for want of descriptors.",
		value: perListener(func(l *ListenerStatus) float64 { return float64(l.AcceptErrors) })},
	{name: "usher_peeking_connections", kind: gauge, labels: []string{"listener"},
		help:  "Connections now of which it is not yet known where they go.",
		value: perListener(func(l *ListenerStatus) float64 { return float64(l.Peeking) })},
	{name: "usher_open_connections", kind: gauge, labels: []string{"listener"},
		help:  "Connections now that are the door's: peeking, on their way to a taker, or proxied. Those handed over are not.",
		value: perListener(func(l *ListenerStatus) float64 { return float64(l.Open) })},
	{name: "usher_peek_duration_seconds", labels: []string{"listener"},
		help: "How long it took to learn from the first bytes where a connection goes.",
		durations: func(s *Status, emit func(Histogram, ...string)) {
			for _, l := range s.Listeners {
				emit(l.Peek, l.Name)
			}
		}},

	{name: "usher_connections_total", kind: counter, labels: []string{"listener", "route", "outcome"},
		help: "Connections by what became of them: handed_over, proxied, idle (given back by a taker, and never used again), or refused as rejected, no_route, unavailable, malformed, " +
			"too_long, timeout, gone, limited, evicted, failed or shut_down.",
		value: func(s *Status, emit func(float64, ...string)) {
			for _, r := range s.Routes {
				for _, c := range r.Connections {
					emit(float64(c.N), c.Listener, r.Name, string(c.Outcome))
				}
			}
		}},
	{name: "usher_handover_duration_seconds", labels: []string{"route"},
		help: "How long it took to hand a connection over, from the route's choice to the taker's claim.",
		durations: func(s *Status, emit func(Histogram, ...string)) {
			for _, r := range s.Routes {
				emitUsed(r.Handover, r.Name, emit)
			}
		}},
	{name: "usher_ended_connections_total", kind: counter, labels: []string{"route"},
		help:  "Connections handed over or proxied whose end the door has heard of.",
		value: perRoute(func(r *RouteStatus) float64 { return float64(r.Ended) })},
	{name: "usher_received_bytes_total", kind: counter, labels: []string{"route"},
		help:  "Bytes that clients have sent on the connections that have ended.",
		value: perRoute(func(r *RouteStatus) float64 { return float64(r.Received) })},
	{name: "usher_sent_bytes_total", kind: counter, labels: []string{"route"},
		help:  "Bytes that were sent to clients on the connections that have ended.",
		value: perRoute(func(r *RouteStatus) float64 { return float64(r.Sent) })},
	{name: "usher_connection_lifetime_seconds", labels: []string{"route"},
		help: "How long the connections lasted that have ended.",
		durations: func(s *Status, emit func(Histogram, ...string)) {
			for _, r := range s.Routes {
				emitUsed(r.Lifetime, r.Name, emit)
			}
		}},

	{name: "usher_endpoint_state", kind: gauge, labels: []string{"endpoint", "state"},
		help: "1 for the state that the endpoint is in, 0 for each other of up, idle, absent and refused.",
		value: func(s *Status, emit func(float64, ...string)) {
			for _, e := range s.Endpoints {
				for _, state := range endpointStates {
					emit(boolean(e.State == state), e.Name, state)
				}
			}
		}},
	{name: "usher_endpoint_takers", kind: gauge, labels: []string{"endpoint"},
		help:  "Processes connected now that take connections at the endpoint.",
		value: perEndpoint(func(e *EndpointStatus) float64 { return float64(len(e.Takers)) })},
	{name: "usher_open_offers", kind: gauge, labels: []string{"endpoint"},
		help: "Offers now that no taker has answered yet.",
		value: perEndpoint(func(e *EndpointStatus) float64 {
			open := 0
			for _, t := range e.Takers {
				open += t.Open
			}
			return float64(open)
		})},
	{name: "usher_offers_total", kind: counter, labels: []string{"endpoint", "result"},
		help: "Offers by how they ended: claimed or declined by a taker, or withdrawn since it did not answer in time or was gone.",
		value: func(s *Status, emit func(float64, ...string)) {
			for _, e := range s.Endpoints {
				emit(float64(e.Claimed), e.Name, "claimed")
				emit(float64(e.Declined), e.Name, "declined")
				emit(float64(e.Withdrawn), e.Name, "withdrawn")
			}
		}},
	{name: "usher_returned_total", kind: counter, labels: []string{"endpoint"},
		help:  "Connections that takers have given back to the door.",
		value: perEndpoint(func(e *EndpointStatus) float64 { return float64(e.Returned) })},

	{name: "usher_upstream_healthy", kind: gauge, labels: []string{"route", "upstream"},
		help:  "1 when the backend is fit for connections, else 0.",
		value: perUpstream(func(u *UpstreamStatus) float64 { return boolean(u.Healthy) })},
	{name: "usher_upstream_open_connections", kind: gauge, labels: []string{"route", "upstream"},
		help:  "Connections proxied to the backend now.",
		value: perUpstream(func(u *UpstreamStatus) float64 { return float64(u.Open) })},
	{name: "usher_upstream_connections_total", kind: counter, labels: []string{"route", "upstream"},
		help:  "Connections that were proxied to the backend.",
		value: perUpstream(func(u *UpstreamStatus) float64 { return float64(u.Connections) })},
	{name: "usher_upstream_failures_total", kind: counter, labels: []string{"route", "upstream"},
		help:  "Failures to connect to the backend for a client.",
		value: perUpstream(func(u *UpstreamStatus) float64 { return float64(u.Failures) })},
	{name: "usher_upstream_checks_total", kind: counter, labels: []string{"route", "upstream"},
		help:  "Health checks of the backend, those that failed included.",
		value: perUpstream(func(u *UpstreamStatus) float64 { return float64(u.Checks) })},
	{name: "usher_upstream_failed_checks_total", kind: counter, labels: []string{"route", "upstream"},
		help:  "Health checks of the backend that failed.",
		value: perUpstream(func(u *UpstreamStatus) float64 { return float64(u.FailedCheck) })},
}

func one(value func(*Status) float64) func(*Status, func(float64, ...string)) {
	return func(s *Status, emit func(float64, ...string)) { emit(value(s)) }
}

func perListener(value func(*ListenerStatus) float64) func(*Status, func(float64, ...string)) {
	return func(s *Status, emit func(float64, ...string)) {
		for i := range s.Listeners {
			emit(value(&s.Listeners[i]), s.Listeners[i].Name)
		}
	}
}

func perRoute(value func(*RouteStatus) float64) func(*Status, func(float64, ...string)) {
	return func(s *Status, emit func(float64, ...string)) {
		for i := range s.Routes {
			emit(value(&s.Routes[i]), s.Routes[i].Name)
		}
	}
}

func perEndpoint(value func(*EndpointStatus) float64) func(*Status, func(float64, ...string)) {
	return func(s *Status, emit func(float64, ...string)) {
		for i := range s.Endpoints {
			emit(value(&s.Endpoints[i]), s.Endpoints[i].Name)
		}
	}
}

func perUpstream(value func(*UpstreamStatus) float64) func(*Status, func(float64, ...string)) {
	return func(s *Status, emit func(float64, ...string)) {
		for i := range s.Upstreams {
			emit(value(&s.Upstreams[i]), s.Upstreams[i].Route, s.Upstreams[i].Address)
		}
	}
}

// emitUsed leaves out a route's histogram while it is empty: with 10,000 routes, most of them idle, there would
// be half a million series of zeros.
func emitUsed(h Histogram, route string, emit func(Histogram, ...string)) {
	if h.Total() > 0 {
		emit(h, route)
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unixSeconds is 0 for a time that is not set.
func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}

// collector makes the metrics of one Status, so that those of one scrape agree with each other.
type collector struct {
	status func() *Status
	descs  []*prometheus.Desc // of metrics, in their order
}

var _ prometheus.Collector = (*collector)(nil)

func newCollector(status func() *Status) *collector {
	c := &collector{status: status}
	for _, m := range metrics {
		c.descs = append(c.descs, prometheus.NewDesc(m.name, m.help, m.labels, nil))
	}
	return c
}

// Describe sends all there is to describe.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect asks for a Status and sends what is in it.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.status()
	for i, m := range metrics {
		m.collect(s, c.descs[i], out)
	}
}

func (m *metric) collect(s *Status, d *prometheus.Desc, out chan<- prometheus.Metric) {
	to := sink{d, out}
	if m.durations != nil {
		m.durations(s, func(h Histogram, labels ...string) {
			count, buckets := h.cumulative()
			to.send(prometheus.NewConstHistogram(d, count, h.Sum, buckets, labels...))
		})
		return
	}
	m.value(s, func(v float64, labels ...string) {
		to.send(prometheus.NewConstMetric(d, m.kind, v, labels...))
	})
}

// sink is where the samples of a metric go.
type sink struct {
	desc *prometheus.Desc
	out  chan<- prometheus.Metric
}

// send takes what the constructors of samples return. A sample that cannot be made, since a name in a label is
// not UTF-8, goes as its error, and is the only one missing: see metricsHandler.
func (k sink) send(m prometheus.Metric, err error) {
	if err != nil {
		m = prometheus.NewInvalidMetric(k.desc, err)
	}
	k.out <- m
}

func (o *Options) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		newCollector(o.Status),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(o.Log.With("page", "/metrics").Handler(), slog.LevelError),
		ErrorHandling: promhttp.ContinueOnError,
	})
}

// MetricsReference returns what /metrics tells as a table in Markdown, for doc/operating.md.
func MetricsReference() string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | what it tells |\n| --- | --- | --- | --- |\n")
	for _, m := range metrics {
		labels := make([]string, len(m.labels))
		for i, l := range m.labels {
			labels[i] = "`" + l + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kindName(), strings.Join(labels, ", "), m.help)
	}
	b.WriteString("\nTimes are in seconds, sizes in bytes. A route's histograms appear with its first connection. " +
		"The `go_…` and `process_…` metrics of the\nPrometheus client for Go are there as well.\n")
	return b.String()
}

func (m *metric) kindName() string {
	switch {
	case m.durations != nil:
		return "histogram"
	case m.kind == counter:
		return "counter"
	default:
		return "gauge"
	}
}
