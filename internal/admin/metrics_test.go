package admin_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/go-usher/usher/internal/admin"
)

var update = flag.Bool("update", false, "write the table of metrics into doc/operating.md")

// scrape reads /metrics of a status as Prometheus does.
func scrape(t *testing.T, s *admin.Status) map[string]*dto.MetricFamily {
	t.Helper()
	addr, c := serve(t, handler(s)), client(t)
	w, body := get(t, c, "http://"+addr+"/metrics")
	if w.StatusCode != 200 {
		t.Fatalf("status %s: %s", w.Status, body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// series writes a sample's name as queries do: name{label="value"}.
func series(name string, m *dto.Metric) string {
	var labels []string
	for _, l := range m.GetLabel() {
		labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	return name + "{" + strings.Join(labels, ",") + "}"
}

// values are all samples of the door's own metrics; of a histogram its count and its sum.
func values(families map[string]*dto.MetricFamily) map[string]float64 {
	all := make(map[string]float64)
	for name, f := range families {
		if !strings.HasPrefix(name, "usher_") {
			continue
		}
		for _, m := range f.GetMetric() {
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				all[series(name, m)] = m.GetCounter().GetValue()
			case dto.MetricType_GAUGE:
				all[series(name, m)] = m.GetGauge().GetValue()
			case dto.MetricType_HISTOGRAM:
				all[series(name+"_count", m)] = float64(m.GetHistogram().GetSampleCount())
				all[series(name+"_sum", m)] = m.GetHistogram().GetSampleSum()
			}
		}
	}
	return all
}

func TestMetricsTellTheStatus(t *testing.T) {
	got := values(scrape(t, status()))
	want := map[string]float64{
		`usher_info{goversion="` + runtime.Version() + `",version="v1.2.3"}`:         1,
		`usher_start_time_seconds{}`:                                                 1773475200.5,
		`usher_ready{}`:                                                              1,
		`usher_draining{}`:                                                           0,
		`usher_config_loaded_timestamp_seconds{}`:                                    1773475260.5,
		`usher_config_last_reload_successful{}`:                                      0,
		`usher_config_reloads_total{}`:                                               3,
		`usher_config_reload_failures_total{}`:                                       1,
		`usher_listener_up{address="127.0.0.1:443",listener="web"}`:                  1,
		`usher_accepted_connections_total{listener="web"}`:                           10,
		`usher_accept_errors_total{listener="web"}`:                                  1,
		`usher_peeking_connections{listener="web"}`:                                  2,
		`usher_open_connections{listener="web"}`:                                     4,
		`usher_peek_duration_seconds_count{listener="web"}`:                          1,
		`usher_peek_duration_seconds_sum{listener="web"}`:                            0.003,
		`usher_connections_total{listener="web",outcome="handed_over",route="shop"}`: 3,
		`usher_connections_total{listener="web",outcome="unavailable",route="shop"}`: 2,
		`usher_handover_duration_seconds_count{route="shop"}`:                        3,
		`usher_handover_duration_seconds_sum{route="shop"}`:                          7200.00013,
		`usher_ended_connections_total{route="shop"}`:                                2,
		`usher_ended_connections_total{route="none"}`:                                0,
		`usher_received_bytes_total{route="shop"}`:                                   100,
		`usher_received_bytes_total{route="none"}`:                                   0,
		`usher_sent_bytes_total{route="shop"}`:                                       2000,
		`usher_sent_bytes_total{route="none"}`:                                       0,
		`usher_connection_lifetime_seconds_count{route="shop"}`:                      1,
		`usher_connection_lifetime_seconds_sum{route="shop"}`:                        0.003,
		`usher_endpoint_state{endpoint="shop",state="up"}`:                           1,
		`usher_endpoint_state{endpoint="shop",state="idle"}`:                         0,
		`usher_endpoint_state{endpoint="shop",state="absent"}`:                       0,
		`usher_endpoint_state{endpoint="shop",state="refused"}`:                      0,
		`usher_endpoint_takers{endpoint="shop"}`:                                     2,
		`usher_open_offers{endpoint="shop"}`:                                         5,
		`usher_offers_total{endpoint="shop",result="claimed"}`:                       3,
		`usher_offers_total{endpoint="shop",result="declined"}`:                      4,
		`usher_offers_total{endpoint="shop",result="withdrawn"}`:                     5,
		`usher_returned_total{endpoint="shop"}`:                                      6,
		`usher_upstream_healthy{route="old",upstream="127.0.0.1:9000"}`:              1,
		`usher_upstream_open_connections{route="old",upstream="127.0.0.1:9000"}`:     1,
		`usher_upstream_connections_total{route="old",upstream="127.0.0.1:9000"}`:    7,
		`usher_upstream_failures_total{route="old",upstream="127.0.0.1:9000"}`:       2,
		`usher_upstream_checks_total{route="old",upstream="127.0.0.1:9000"}`:         9,
		`usher_upstream_failed_checks_total{route="old",upstream="127.0.0.1:9000"}`:  3,
	}
	for name, v := range want {
		if g, ok := got[name]; !ok || g != v {
			t.Errorf("%s is %v, there: %v; want %v", name, g, ok, v)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is not expected", name)
		}
	}
}

func TestMetricsHaveBuckets(t *testing.T) {
	f := scrape(t, status())["usher_handover_duration_seconds"]
	buckets := f.GetMetric()[0].GetHistogram().GetBucket()
	below := make(map[float64]uint64)
	for _, b := range buckets {
		below[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	for bound, want := range map[float64]uint64{0.00005: 0, 0.0001: 2, 3600: 2} { // 60 and 70 µs, and 2 h above all bounds
		if got, ok := below[bound]; !ok || got != want {
			t.Errorf("%d are at most %v s, there: %v; want %d", got, bound, ok, want)
		}
	}
}

// Of all metrics, those of Go and of the process included.
func TestMetricsKeepTheRules(t *testing.T) {
	addr, c := serve(t, handler(status())), client(t)
	_, body := get(t, c, "http://"+addr+"/metrics")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, name := range []string{"go_goroutines", "go_info"} {
		if !strings.Contains(body, "\n"+name) {
			t.Errorf("%s is not there", name)
		}
	}
	reference := admin.MetricsReference()
	for name := range scrape(t, status()) {
		if strings.HasPrefix(name, "usher_") && !strings.Contains(reference, "`"+name+"`") {
			t.Errorf("%s is not in the reference", name)
		}
	}
}

func TestMetricsOfADoorWithoutAnything(t *testing.T) {
	got := values(scrape(t, &admin.Status{Listeners: []admin.ListenerStatus{{Name: "web", Error: "in use"}}}))
	for name, want := range map[string]float64{
		`usher_ready{}`:                                     0,
		`usher_start_time_seconds{}`:                        0,
		`usher_config_last_reload_successful{}`:             1,
		`usher_listener_up{address="",listener="web"}`:      0,
		`usher_peek_duration_seconds_count{listener="web"}`: 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, there: %v; want %v", name, v, ok, want)
		}
	}
}

// A name that cannot be a label, or that is there twice, costs its own sample and no other.
func TestMetricsSurviveBadNames(t *testing.T) {
	s := status()
	s.Listeners = append(s.Listeners, admin.ListenerStatus{Name: "bad \xff name"})
	s.Upstreams = append(s.Upstreams, s.Upstreams[0])
	got := values(scrape(t, s))
	for _, name := range []string{`usher_accepted_connections_total{listener="web"}`, `usher_upstream_healthy{route="old",upstream="127.0.0.1:9000"}`} {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is not there", name)
		}
	}
}

const (
	operatingDoc = "../../doc/operating.md"
	tableBegins  = "<!-- metrics -->\n"
	tableEnds    = "<!-- end of metrics -->"
)

func TestTheDocumentHasTheReference(t *testing.T) {
	doc, err := os.ReadFile(operatingDoc)
	if os.IsNotExist(err) {
		t.Skipf("skipped: there is no %s", operatingDoc)
	}
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(doc), "\r\n", "\n")
	before, rest, found := strings.Cut(text, tableBegins)
	if !found {
		t.Skipf("skipped: there is no %q in %s", tableBegins, operatingDoc)
	}
	table, after, found := strings.Cut(rest, tableEnds)
	if !found {
		t.Fatalf("%s has %q and not %q", operatingDoc, tableBegins, tableEnds)
	}
	want := admin.MetricsReference()
	if table == want {
		return
	}
	if !*update {
		t.Fatalf("%s has another table of metrics than the code; run this test with -update", operatingDoc)
	}
	if err := os.WriteFile(operatingDoc, []byte(before+tableBegins+want+tableEnds+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
