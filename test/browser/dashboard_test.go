package browser_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/go-usher/usher/internal/admin"
)

func TestTheHeaderTellsTheDoor(t *testing.T) {
	b := open(t, newDoor())
	for selector, want := range map[string]string{
		"h1":                          "usher\nv0.9.0",
		"#state":                      "Ready",
		`[data-fact="Up for"]`:        "2 d 4 h",
		`[data-fact="Process"]`:       "2214",
		`[data-fact="Configuration"]`: "/etc/usher/usher.yaml",
		`[data-fact="Loaded"]`:        "31 min ago",
		`[data-fact="Reloads"]`:       "4",
	} {
		if got := b.text(selector); got != want {
			t.Errorf("%s shows %q; want %q", selector, got, want)
		}
	}
	if got := eval[string](b, "document.title"); got != "usher" {
		t.Errorf("the title is %q", got)
	}
	if !eval[bool](b, `document.getElementById("problems").hidden`) {
		t.Errorf("problems are shown: %s", b.text("#problems"))
	}
}

func TestSectionsShowEverything(t *testing.T) {
	b := open(t, newDoor())
	tests := []struct {
		section, title string
		want           []string
	}{
		{"listeners", "Listener", []string{"web", "plain", "postgres"}},
		{"listeners", "State", []string{"Listens", "Listens", "Listens"}},
		{"listeners", "Address", []string{"[::]:443", "[::]:80", "10.0.4.2:5432"}},
		{"listeners", "Accepted", []string{"1,482,301", "96,155", "20,418"}},
		{"routes", "Route", []string{"shop\nshop.example.com", "api\napi.example.com/v2/", "*.wiki.example.com", "legacy\nold.example.com",
			"postgres\nlistener postgres", "auto\nhosts with an endpoint of their own name", "none\nconnections that never had a route"}},
		{"routes", "Handed over", []string{"921,004", "430,877", "0", "0", "0", "61,330", "0"}},
		{"routes", "Proxied", []string{"0", "0", "0", "159,508", "20,418", "0", "0"}},
		{"routes", "Refused", []string{"1,023", "478", "12,904", "177", "22", "68", "9,240"}},
		{"routes", "Sent", []string{"56.2 GB", "26.3 GB", "0 B", "9.73 GB", "1.25 GB", "3.74 GB", "0 B"}},
		{"endpoints", "State", []string{"Up", "Up", "Idle", "Absent\nconnect: no such file or directory"}},
		{"endpoints", "Takers", []string{"process 3120, shop, 2 open\nprocess 3121, shop, 1 open", "process 2870, api", "–", "–"}},
		{"endpoints", "Open offers", []string{"3", "0", "0", "0"}},
		{"endpoints", "Declined", []string{"212", "9", "0", "0"}},
		{"endpoints", "Withdrawn", []string{"31", "4", "1", "8"}},
		{"upstreams", "Upstream", []string{"10.0.4.11:9000", "10.0.4.12:9000", "unix:/run/postgresql/.s.PGSQL.5432"}},
		{"upstreams", "Health", []string{"Healthy", "Unfit\nGET /healthz: 503 Service Unavailable", "Healthy"}},
		{"refusals", "Outcome", []string{"No taker or backend", "Too slow to say", "Malformed", "No taker or backend", "No route", "Over a limit"}},
		{"refusals", "Host", []string{"team.wiki.example.com", "–", "–", "team.wiki.example.com", "old-shop.example.net", "–"}},
	}
	for _, tt := range tests {
		if got := b.column(tt.section, tt.title); !slices.Equal(got, tt.want) {
			t.Errorf("%s, %s: %q; want %q", tt.section, tt.title, got, tt.want)
		}
	}
	for section, want := range map[string]string{"listeners": "3", "routes": "7", "endpoints": "4", "upstreams": "3", "refusals": "6"} {
		if got := b.text("#" + section + "-count"); got != want {
			t.Errorf("the navigation has %s for %s; want %s", got, section, want)
		}
	}
}

func TestSectionsOfADoorWithoutAnything(t *testing.T) {
	b := open(t, &door{status: &admin.Status{Now: started, Started: started}})
	for section, want := range map[string]string{
		"listeners": "There are no listeners.",
		"routes":    "There are no routes.",
		"endpoints": "There are no endpoints: no route hands over.",
		"upstreams": "There are no upstreams: no route proxies.",
		"refusals":  "No connection was refused.",
	} {
		if got := b.text("#" + section + " .note"); got != want {
			t.Errorf("%s: %q; want %q", section, got, want)
		}
		if eval[bool](b, `document.querySelector($1).checkVisibility()`, "#"+section+" table") {
			t.Errorf("%s: an empty table is shown", section)
		}
	}
	if got := b.text("#state"); got != "Not ready" {
		t.Errorf("the state is %q", got)
	}
}

func TestLinksOfTheNavigationLeadToSections(t *testing.T) {
	b := openAny(t)
	b.prefer("prefers-reduced-motion", "reduce")
	for _, id := range []string{"refusals", "charts", "upstreams", "listeners", "routes", "endpoints"} {
		b.do(chromedp.Click(chromedp.CSS(`nav a[href="#` + id + `"]`)))
		b.await(`location.hash === "#" + $1`, id)
		// The heading is on the screen, and the navigation does not hide it.
		b.await(`(() => {
			const h = document.getElementById($1 + "-title").getBoundingClientRect();
			return document.elementFromPoint(h.left + 2, h.top + h.height / 2)?.id === $1 + "-title";
		})()`, id)
	}
}

func TestProblemsAreShownAndGoAway(t *testing.T) {
	b := open(t, newDoor())
	b.door.change(func(s *admin.Status) {
		s.Ready, s.NotReady = false, "listener plain does not listen"
		s.Listeners[1].Error = "bind: address already in use"
		s.Config.Error, s.Config.Failures = "usher.yaml:12:3: no such key: handof", 1
	})
	b.refresh()
	for _, want := range []string{
		"Not ready: listener plain does not listen",
		"The configuration could not be loaded anew, the one before is in force: usher.yaml:12:3: no such key: handof",
		"Listener plain does not listen: bind: address already in use",
	} {
		if got := b.text("#problems"); !strings.Contains(got, want) {
			t.Errorf("the problems are %q; want %q among them", got, want)
		}
	}
	if got := b.text("#state"); got != "Not ready" {
		t.Errorf("the state is %q", got)
	}
	if got := eval[string](b, "document.title"); got != "Not ready: usher" {
		t.Errorf("the title is %q", got)
	}
	if got := b.text(`[data-fact="Reloads"]`); got != "4 (1 failed)" {
		t.Errorf("reloads: %q", got)
	}
	// textContent: it is for those who do not see the page.
	if got := eval[string](b, `document.getElementById("announcements").textContent`); got !=
		"The door is not ready: listener plain does not listen. The configuration could not be loaded anew. Listener plain does not listen." {
		t.Errorf("announced was %q", got)
	}
	b.door.change(func(s *admin.Status) {
		s.Ready, s.NotReady, s.Draining = false, "the door drains", true
		s.Listeners[1].Error, s.Config.Error = "", ""
	})
	b.refresh()
	if got := b.text("#state"); got != "Draining" {
		t.Errorf("the state is %q", got)
	}
	b.door.change(func(s *admin.Status) { s.Ready, s.NotReady, s.Draining = true, "", false })
	b.refresh()
	if !eval[bool](b, `document.getElementById("problems").hidden`) {
		t.Errorf("problems are still shown: %s", b.text("#problems"))
	}
	if got := b.text("#state"); got != "Ready" {
		t.Errorf("the state is %q", got)
	}
}

func TestChangesAreAnnounced(t *testing.T) {
	tests := []struct {
		name   string
		change func(*admin.Status)
		want   string
	}{
		{"an endpoint", func(s *admin.Status) { s.Endpoints[0].State = "absent" }, "Endpoint shop is absent."},
		{"an upstream", func(s *admin.Status) { s.Upstreams[1].Healthy = true }, "Upstream 10.0.4.12:9000 of legacy is healthy."},
		{"an upstream that has another health in another route", func(s *admin.Status) {
			unfit := s.Upstreams[1]
			unfit.Route = "old"
			s.Upstreams = append(s.Upstreams, unfit)
			s.Upstreams[1].Healthy = true
		}, "Upstream 10.0.4.12:9000 of legacy is healthy."},
		{"a new configuration", func(s *admin.Status) { s.Config.Loaded = s.Now }, "A new configuration is in force."},
		{"another process", func(s *admin.Status) { s.PID++ }, "Another process is the door now."},
		{"many things", func(s *admin.Status) {
			for i := range s.Endpoints {
				s.Endpoints[i].State = "refused"
			}
			s.Upstreams[0].Healthy = false
		}, "Endpoint shop is refused. Endpoint api is refused. Endpoint blog.example.com is refused. And 2 more changes."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, newDoor())
			b.door.change(tt.change)
			b.refresh()
			if got := eval[string](b, `document.getElementById("announcements").textContent`); got != tt.want {
				t.Errorf("announced was %q; want %q", got, tt.want)
			}
		})
	}
}

// The page asks by itself, without anything that the test does.
func TestNumbersFollow(t *testing.T) {
	b := open(t, newDoor())
	b.door.change(func(s *admin.Status) {
		s.Now = s.Now.Add(2 * time.Second)
		s.Routes[0].Connections[0].N += 246
		s.Endpoints[0].Takers = s.Endpoints[0].Takers[:1]
		s.Refusals = slices.Insert(s.Refusals, 0, admin.Refusal{Time: s.Now, Client: "192.0.2.77:1", Listener: "web", Outcome: admin.Gone, Reason: "it left"})
	})
	b.await(`document.querySelector("#routes tbody tr").innerText.includes("921,250")`)
	if got := b.column("routes", "Rate")[0]; got != "123/s" {
		t.Errorf("the rate is %q", got)
	}
	if got := b.column("endpoints", "Takers")[0]; got != "process 3120, shop, 2 open" {
		t.Errorf("the takers are %q", got)
	}
	if got := b.column("refusals", "Reason"); len(got) != 7 || got[0] != "it left" {
		t.Errorf("the refusals are %q", got)
	}
	if got := b.text("#chart-grid figure .value"); got != "123/s" {
		t.Errorf("the chart says %q", got)
	}
}

// chartValues are the values that the charts show as text.
func (b *tab) chartValues() []string {
	b.t.Helper()
	return eval[[]string](b, `[...document.querySelectorAll("#chart-grid .value")].map((v) => v.innerText)`)
}

// chartAlternatives are what the charts say to those who cannot see them.
func (b *tab) chartAlternatives() []string {
	b.t.Helper()
	return eval[[]string](b, `[...document.querySelectorAll("#chart-grid svg[role=img]")].map((v) => v.getAttribute("aria-label"))`)
}

func TestChartsShowWhatHappened(t *testing.T) {
	d := newDoor()
	b := open(t, d)
	second := func(handed, proxied, refused, bytes uint64, open int, handover time.Duration) {
		var h admin.Durations
		for range handed {
			h.Observe(handover)
		}
		d.change(func(s *admin.Status) {
			s.Now = s.Now.Add(time.Second)
			s.Routes[0].Connections[0].N += handed
			s.Routes[3].Connections[0].N += proxied
			s.Routes[6].Connections[0].N += refused
			s.Routes[0].Received += bytes
			s.Routes[0].Sent += 1000 * bytes
			s.Listeners[0].Open, s.Listeners[0].Peeking = open, open/2
			counts := h.Histogram().Counts
			for i, n := range s.Routes[0].Handover.Counts {
				counts[i] += n
			}
			s.Routes[0].Handover.Counts = counts
		})
		b.refresh()
	}
	second(40, 5, 1, 700, 8, 20*time.Microsecond)
	second(200, 30, 12, 5600, 16, 4*time.Millisecond)
	if got, want := b.chartValues(), []string{"200/s", "30.0/s", "12.0/s", "3.75 ms", "4.98 ms", "16", "8", "5.60 kB/s", "5.60 MB/s"}; !slices.Equal(got, want) {
		t.Errorf("the charts say %q; want %q", got, want)
	}
	second(0, 0, 0, 0, 4, 0)
	if got, want := b.chartValues(), []string{"0/s", "0/s", "0/s", "–", "–", "4", "2", "0 B/s", "0 B/s"}; !slices.Equal(got, want) {
		t.Errorf("the charts say %q; want %q", got, want)
	}
	want := []string{
		"Connections a second, last 5 minutes. Handed over: 0/s, highest 200/s. Proxied: 0/s, highest 30.0/s. Refused: 0/s, highest 12.0/s.",
		"Time to hand over, last 5 minutes. Median: –, highest 3.75 ms. 99th percentile: –, highest 4.98 ms.",
		"Connections at the door now, last 5 minutes. Open: 4, highest 16. Peeking: 2, highest 8.",
		"Bytes a second, of ended connections, last 5 minutes. Received: 0 B/s, highest 5.60 kB/s. Sent: 0 B/s, highest 5.60 MB/s.",
	}
	if got := b.chartAlternatives(); !slices.Equal(got, want) {
		t.Errorf("the text alternatives are %q; want %q", got, want)
	}
	// Each line goes through as many points as there are values: two and three.
	points := eval[[]int](b, `[...document.querySelectorAll("#chart-grid .plot .line")].map((p) => p.getAttribute("d").split(/[ML]/).length - 1)`)
	if want := []int{3, 3, 3, 2, 2, 3, 3, 3, 3}; !slices.Equal(points, want) {
		t.Errorf("the lines have %v points; want %v", points, want)
	}
}

func TestTheCursorReadsThePast(t *testing.T) {
	b := open(t, newDoor())
	b.advance(20, time.Second)
	now := b.chartValues()
	b.do(chromedp.Focus(chromedp.ID("cursor")))
	for range 5 {
		b.do(chromedp.KeyEvent(kb.ArrowLeft))
	}
	past := b.chartValues()
	if slices.Equal(past, now) {
		t.Errorf("five seconds ago everything was as now: %q", past)
	}
	if got := b.text("#cursor-time"); got != "12:38:56" { // 12:38:41 + 20 s - 5 s
		t.Errorf("the cursor is at %q", got)
	}
	if got := eval[string](b, `document.getElementById("cursor").getAttribute("aria-valuetext")`); got != "12:38:56" {
		t.Errorf("the cursor says %q", got)
	}
	if n := eval[int](b, `document.querySelectorAll(".plot .mark").length`); n != 4 {
		t.Errorf("%d charts are marked", n)
	}
	b.do(chromedp.KeyEvent(kb.End))
	if got := b.text("#cursor-time"); got != "now" {
		t.Errorf("the cursor is at %q", got)
	}
	if got := b.chartValues(); !slices.Equal(got, now) {
		t.Errorf("now the charts say %q; want %q", got, now)
	}
}

func TestThePointerReadsThePast(t *testing.T) {
	b := open(t, newDoor())
	b.advance(20, time.Second)
	point := eval[[]float64](b, `(() => {
		const plot = document.querySelector(".plot");
		plot.scrollIntoView({ behavior: "instant" });
		const box = plot.getBoundingClientRect();
		return [box.right - 16, box.top + 30];
	})()`)
	b.do(chromedp.MouseEvent(chromedp.MouseMoved, point[0], point[1]))
	b.await(`document.querySelectorAll(".plot .mark").length === 4`)
	if got := b.text("#cursor-time"); got == "now" {
		t.Errorf("the cursor is at %q", got)
	}
	b.do(chromedp.MouseEvent(chromedp.MouseMoved, 5, 5))
	b.await(`document.querySelectorAll(".plot .mark").length === 0`)
	if got := b.text("#cursor-time"); got != "now" {
		t.Errorf("the cursor is at %q", got)
	}
}

func (b *tab) sortBy(section, title string) {
	b.t.Helper()
	b.run(`[...document.querySelectorAll("#" + $1 + " th button")].find((h) => h.textContent === $2).click()`, section, title)
}

func (b *tab) ariaSort(section, title string) string {
	b.t.Helper()
	return eval[string](b, `[...document.querySelectorAll("#" + $1 + " th")].find((h) => h.textContent === $2).getAttribute("aria-sort")`, section, title)
}

func TestTablesAreSorted(t *testing.T) {
	b := open(t, newDoor())
	tests := []struct {
		section, title string
		first, second  []string // after the first click, and after another
	}{
		{"endpoints", "Claimed", []string{"921,004", "430,877", "61,330", "12,904"}, []string{"12,904", "61,330", "430,877", "921,004"}},
		{"endpoints", "State", []string{"Absent\nconnect: no such file or directory", "Idle", "Up", "Up"}, []string{"Up", "Up", "Idle", "Absent\nconnect: no such file or directory"}},
		{"routes", "Proxied", []string{"159,508", "20,418", "0", "0", "0", "0", "0"}, []string{"0", "0", "0", "0", "0", "20,418", "159,508"}},
		{"listeners", "Address", []string{"[::]:80", "[::]:443", "10.0.4.2:5432"}, []string{"10.0.4.2:5432", "[::]:443", "[::]:80"}},
		{"refusals", "Host", []string{"old-shop.example.net", "team.wiki.example.com", "team.wiki.example.com", "–", "–", "–"},
			[]string{"team.wiki.example.com", "team.wiki.example.com", "old-shop.example.net", "–", "–", "–"}},
	}
	for _, tt := range tests {
		t.Run(tt.section+" by "+tt.title, func(t *testing.T) {
			numeric := tt.first[0] > tt.first[len(tt.first)-1] && strings.ContainsAny(tt.first[0][:1], "0123456789")
			directions := [2]string{"ascending", "descending"}
			if numeric {
				directions = [2]string{"descending", "ascending"}
			}
			for i, want := range [][]string{tt.first, tt.second} {
				b.sortBy(tt.section, tt.title)
				if got := b.column(tt.section, tt.title); !slices.Equal(got, want) {
					t.Errorf("click %d: %q; want %q", i+1, got, want)
				}
				if got := b.ariaSort(tt.section, tt.title); got != directions[i] {
					t.Errorf("click %d: aria-sort is %q; want %q", i+1, got, directions[i])
				}
			}
			b.refresh() // and the order stays
			if got := b.column(tt.section, tt.title); !slices.Equal(got, tt.second) {
				t.Errorf("after an update: %q; want %q", got, tt.second)
			}
		})
	}
	b.sortBy("endpoints", "Endpoint")
	if got := b.ariaSort("endpoints", "State"); got != "none" {
		t.Errorf("a table is sorted by two columns: %s", got)
	}
}

func (b *tab) search(id, text string) {
	b.t.Helper()
	b.run(`const box = document.getElementById($1); box.value = ""; box.focus()`, id)
	b.do(chromedp.KeyEvent(text))
	if text == "" {
		b.run(`document.getElementById($1).dispatchEvent(new Event("input"))`, id)
	}
}

func TestSearch(t *testing.T) {
	b := open(t, newDoor())
	tests := []struct {
		id, text string
		want     []string // of the first column
		note     string
	}{
		{"routes-search", "example", []string{"shop\nshop.example.com", "api\napi.example.com/v2/", "*.wiki.example.com", "legacy\nold.example.com"}, "4 of 7 routes."},
		{"routes-search", "PROXY 9000", []string{"legacy\nold.example.com"}, "1 of 7 routes."},
		{"routes-search", "nonsense", nil, "None of 7 routes matches."},
		{"routes-search", "*", []string{"*.wiki.example.com"}, "1 of 7 routes."},
		{"endpoints-search", "idle", []string{"blog.example.com\n/run/usher/blog.example.com.sock"}, "1 of 4 endpoints."},
		{"endpoints-search", "3121", []string{"shop\n/run/usher/shop.sock"}, "1 of 4 endpoints."},
		{"refusals-search", "limit", []string{"12:37:05"}, "1 of 6 refusals."},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			section := strings.TrimSuffix(tt.id, "-search")
			b.search(tt.id, tt.text)
			got := eval[[]string](b, `[...document.querySelectorAll("#" + $1 + " tbody tr")].map((r) => r.cells[0].innerText)`, section)
			if !slices.Equal(got, tt.want) {
				t.Errorf("found %q; want %q", got, tt.want)
			}
			if got := b.text("#" + section + " .note"); got != tt.note {
				t.Errorf("the note is %q; want %q", got, tt.note)
			}
			b.search(tt.id, "")
		})
	}
}

func TestRefusalsAreFilteredByOutcome(t *testing.T) {
	b := open(t, newDoor())
	choose := func(value string) []string {
		b.run(`const s = document.getElementById("refusals-outcome"); s.value = $1; s.dispatchEvent(new Event("change"))`, value)
		return b.column("refusals", "Outcome")
	}
	if got := choose("unavailable"); !slices.Equal(got, []string{"No taker or backend", "No taker or backend"}) {
		t.Errorf("there are %q", got)
	}
	b.search("refusals-search", "50122")
	if got := b.column("refusals", "Outcome"); len(got) != 1 {
		t.Errorf("searched as well there are %q", got)
	}
	b.search("refusals-search", "")
	if got := choose("evicted"); len(got) != 0 {
		t.Errorf("there are %q", got)
	}
	if got := choose(""); len(got) != 6 {
		t.Errorf("there are %q", got)
	}
	// Every outcome of the door can be chosen, and has words of its own.
	for _, o := range []admin.Outcome{admin.Rejected, admin.NoRoute, admin.Unavailable, admin.Malformed, admin.TooLong, admin.Timeout,
		admin.Gone, admin.Limited, admin.Evicted, admin.Failed, admin.ShutDown} {
		if !eval[bool](b, `[...document.querySelectorAll("#refusals-outcome option")].some((o) => o.value === $1 && o.textContent !== $1)`, o) {
			t.Errorf("outcome %s has no words", o)
		}
	}
}

func TestTenThousandRoutes(t *testing.T) {
	d := newDoor()
	d.manyRoutes(10_000)
	b := open(t, d)
	rows := func() int { return eval[int](b, `document.querySelectorAll("#routes tbody tr").length`) }
	if n := rows(); n != 100 {
		t.Errorf("%d rows are shown", n)
	}
	if got := b.text("#routes .note"); got != "The first 100 of 10,000 routes. Search, or sort by another column, to see others." {
		t.Errorf("the note is %q", got)
	}
	b.sortBy("routes", "Handed over")
	if got := b.column("routes", "Route")[0]; got != "tenant-09999.example.com" {
		t.Errorf("the first by connections is %q", got)
	}
	b.search("routes-search", "tenant-04711")
	if got := b.column("routes", "Handed over"); !slices.Equal(got, []string{"4,711"}) {
		t.Errorf("found was %q", got)
	}
	b.advance(3, time.Second)
	if n := rows(); n != 1 {
		t.Errorf("after an update %d rows are shown", n)
	}
	b.search("routes-search", "")
	if n := rows(); n != 100 {
		t.Errorf("%d rows are shown", n)
	}
}

// What is selected on the page stays so while numbers change around it.
func TestUpdatesKeepRows(t *testing.T) {
	b := open(t, newDoor())
	b.run(`window.row = document.querySelectorAll("#routes tbody tr")[3]; getSelection().selectAllChildren(row.cells[0])`)
	b.advance(3, time.Second)
	if got := eval[string](b, `getSelection().toString()`); !strings.Contains(got, "legacy") {
		t.Errorf("the selection is %q", got)
	}
	b.door.change(func(s *admin.Status) { s.Routes = slices.Delete(s.Routes, 0, 2) })
	b.refresh()
	if !eval[bool](b, `document.querySelectorAll("#routes tbody tr")[1] === row`) {
		t.Error("the row was made anew")
	}
	if got := eval[string](b, `getSelection().toString()`); !strings.Contains(got, "legacy") {
		t.Errorf("the selection is %q", got)
	}
}

// The same client may be refused twice in one instant for the same reason.
func TestRowsThatLookTheSame(t *testing.T) {
	b := open(t, newDoor())
	b.door.change(func(s *admin.Status) { s.Refusals = slices.Repeat(s.Refusals[:1], 5) })
	b.refresh()
	if n := eval[int](b, `document.querySelectorAll("#refusals tbody tr").length`); n != 5 {
		t.Errorf("%d rows are shown", n)
	}
}

func TestTheDoorGoesAwayAndComesBack(t *testing.T) {
	b := open(t, newDoor())
	b.advance(4, time.Second)
	b.alone(true)
	b.srv.end(t)
	b.await(`document.getElementById("state").innerText === "Connection lost"`)
	b.await(`document.getElementById("announcements").textContent === "The connection to the door is lost. Trying again."`)
	if got := eval[string](b, "document.title"); got != "Connection lost: usher" {
		t.Errorf("the title is %q", got)
	}
	if n := len(b.column("routes", "Route")); n != 7 {
		t.Errorf("of what was known last, %d routes are shown", n)
	}
	b.door.pass(time.Minute)
	b.door.change(func(s *admin.Status) { s.Routes[0].Connections[0].N = 5_000_000 })
	b.srv.start(t)
	b.await(`document.getElementById("state").innerText === "Ready"`)
	b.alone(false)
	b.await(`document.getElementById("announcements").textContent === "Connected again."`)
	b.await(`document.querySelector("#routes tbody").innerText.includes("5,000,000")`)
	b.advance(3, time.Second)
	if n := eval[int](b, `document.querySelector("#chart-grid .plot .line").getAttribute("d").split("M").length - 1`); n != 2 {
		t.Errorf("the line has %d pieces; want a gap between two", n)
	}
}

func TestAnAnswerThatIsNoStatus(t *testing.T) {
	for name, script := range map[string]string{
		"an error":           `async () => new Response("no", { status: 500 })`,
		"what is not JSON":   `async () => new Response("<html>")`,
		"no answer in time":  `async () => { throw new DOMException("too late", "TimeoutError"); }`,
		"an answer cut off":  `async () => new Response('{"version":')`,
		"an answer of nulls": `async () => new Response("null")`,
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, newDoor())
			b.run(`window.original = window.fetch; window.fetch = ` + script)
			b.await(`document.getElementById("state").innerText === "Connection lost"`)
			b.run(`window.fetch = window.original`)
			b.await(`document.getElementById("state").innerText === "Ready"`)
		})
	}
}

// watchTimers makes the tab count what the page still waits for.
func watchTimers(b *tab) {
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
		window.timers = new Set();
		window.asking = 0;
		{
			const { setTimeout, clearTimeout, fetch } = window;
			window.setTimeout = (f, ms) => {
				const id = setTimeout(() => { timers.delete(id); f(); }, ms);
				timers.add(id);
				return id;
			};
			window.clearTimeout = (id) => { timers.delete(id); clearTimeout(id); };
			window.fetch = (...args) => { asking++; return fetch(...args).finally(() => asking--); };
		}
	`})
}

func TestPauseAndAHiddenTabStopAsking(t *testing.T) {
	tests := []struct {
		name, stop, goOn string
	}{
		{"the button", `document.getElementById("pause").click()`, `document.getElementById("pause").click()`},
		{"a hidden tab",
			`Object.defineProperty(document, "hidden", { get: () => true, configurable: true }); document.dispatchEvent(new Event("visibilitychange"))`,
			`delete document.hidden; document.dispatchEvent(new Event("visibilitychange"))`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, newDoor(), watchTimers)
			b.await(`timers.size === 1`)
			b.run(tt.stop)
			b.await(`timers.size === 0 && asking === 0`)
			b.door.change(func(s *admin.Status) { s.PID = 99 })
			if got := b.text(`[data-fact="Process"]`); got != "2214" {
				t.Errorf("it has asked: process %s", got)
			}
			b.run(tt.goOn)
			b.await(`document.querySelector('[data-fact="Process"]').innerText === "99"`)
			b.await(`timers.size === 1`)
		})
	}
	t.Run("a hidden tab that is paused stays so", func(t *testing.T) {
		b := open(t, newDoor(), watchTimers)
		b.run(`document.getElementById("pause").click(); document.dispatchEvent(new Event("visibilitychange"))`)
		if got := eval[string](b, `document.getElementById("pause").getAttribute("aria-pressed")`); got != "true" {
			t.Errorf("the button is pressed: %s", got)
		}
		b.await(`timers.size === 0 && asking === 0`)
	})
}

// hostile is what a client could call itself, if the door let it.
var hostile = []string{
	`<img src=x onerror="window.hacked=1">`,
	`"><script>window.hacked=1</script>`,
	`</td></tr></table><svg onload="window.hacked=1">`,
	`javascript:window.hacked=1`,
	`{{constructor.constructor('window.hacked=1')()}}`,
	"\u202egnp.exe\u0000\u001b[31m",
	strings.Repeat("very-long-label-without-end", 40),
	`__proto__`,
	`constructor`,
}

func TestHostileNamesStayText(t *testing.T) {
	for i, name := range hostile {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			d := newDoor()
			d.change(func(s *admin.Status) { poison(s, name) })
			b := open(t, d)
			b.refresh()
			if eval[bool](b, `"hacked" in window`) {
				t.Error("it has run")
			}
			if n := eval[int](b, `document.querySelectorAll("img, script, iframe, object, embed").length`); n != 2 { // the page's own
				t.Errorf("there are %d elements of kinds that are dangerous", n)
			}
			if n := eval[int](b, `[...document.querySelectorAll("*")].filter((e) => [...e.attributes].some((a) => /^on|^style$/.test(a.name))).length`); n != 0 {
				t.Errorf("%d elements have handlers or styles", n)
			}
			for _, selector := range []string{"#version", "#problems", "#listeners tbody", "#routes tbody", "#endpoints tbody", "#upstreams tbody", "#refusals tbody"} {
				if got := eval[string](b, `document.querySelector($1).textContent`, selector); !strings.Contains(got, name) {
					t.Errorf("%s does not show it as it is, but %q", selector, got)
				}
			}
			b.size(360, 740, 1)
			b.checkWidth()
		})
	}
}

// poison puts a name wherever there is a text.
func poison(s *admin.Status, name string) {
	s.Version, s.NotReady, s.Ready = name, name, false
	s.Config.Path, s.Config.Error = name, name
	s.Listeners = []admin.ListenerStatus{{Name: name, Address: name, Sniff: name, Error: name}}
	s.Routes = []admin.RouteStatus{{Name: name, Match: name + name, Target: name, Connections: []admin.Count{{Listener: name, Outcome: admin.Outcome(name), N: 1}}}}
	s.Endpoints = []admin.EndpointStatus{{Name: name, Path: name, State: name, Error: name, Takers: []admin.TakerStatus{{PID: 1, User: name}}}}
	s.Upstreams = []admin.UpstreamStatus{{Route: name, Address: name, Error: name}}
	s.Refusals = []admin.Refusal{{Time: s.Now, Client: name, Listener: name, Host: name, Route: name, Outcome: admin.Outcome(name), Reason: name}}
}

func TestAPhoneNeedsNoSidewaysScrolling(t *testing.T) {
	b := openAny(t)
	for _, width := range []int64{320, 360, 412, 640, 800, 801, 1024} {
		b.size(width, 740, 1)
		b.checkWidth()
	}
	b.size(360, 740, 1)
	if *url == "" {
		// The header of a table becomes the buttons to sort it.
		b.sortBy("endpoints", "Claimed")
		if got := b.column("endpoints", "Claimed"); got[0] != "921,004" {
			t.Errorf("the first is %q", got[0])
		}
		if !eval[bool](b, `[...document.querySelectorAll("th button")].every((b) => b.checkVisibility() && b.getBoundingClientRect().height >= 24)`) {
			t.Error("a button of a header is missing, or too small for a finger")
		}
	}
}

// checkWidth fails where the page, or an element of it, is wider than the window.
func (b *tab) checkWidth() {
	b.t.Helper()
	b.await(`[...document.querySelectorAll(".plot")].every((p) => p.getAttribute("viewBox")?.split(" ")[2] === String(p.clientWidth))`)
	wide := eval[[]string](b, `[document.documentElement, ...document.body.querySelectorAll("*:not(.skip):not(.unseen)")]
		.filter((e) => !(e instanceof SVGElement) || e instanceof SVGSVGElement)
		.filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5 || e === document.documentElement && e.scrollWidth > e.clientWidth)
		.map((e) => e.tagName + "#" + e.id + "." + e.className + " of " + e.closest("[id]")?.id + ": " + e.getBoundingClientRect().right)`)
	if len(wide) > 0 {
		b.t.Errorf("at %d px these are too wide: %q", eval[int](b, "innerWidth"), wide[:min(len(wide), 8)])
	}
}

// The scripts' own mathematics is that of package admin.
func TestQuantilesAreThoseOfTheCommandLine(t *testing.T) {
	b := open(t, newDoor())
	random := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		h := admin.Histogram{Counts: make([]uint64, len(admin.Bounds)+1)}
		for range random.IntN(6) {
			h.Counts[random.IntN(len(h.Counts))] += random.Uint64N(1000)
		}
		q := random.Float64()
		got := eval[*float64](b, `import("/dashboard/history.js").then((m) => m.quantile($1, $2, $3))`, admin.Bounds, h.Counts, q)
		want := h.Quantile(q)
		if math.IsNaN(want) {
			if got != nil {
				t.Errorf("of %v it is %v; want none", h.Counts, *got)
			}
			continue
		}
		if got == nil || math.Abs(*got-want) > 1e-9*want {
			t.Fatalf("quantile %v of %v is %v; want %v", q, h.Counts, got, want)
		}
	}
}

func TestHistory(t *testing.T) {
	b := open(t, newDoor())
	// status is one at a second, of a process, with routes by name.
	const prelude = `import("/dashboard/history.js").then((m) => {
		const past = new m.History();
		const status = (at, pid, routes) => ({
			now: new Date(at * 1000).toISOString(), pid, started: "x", histogram_bounds: [1, 2], listeners: [],
			routes: Object.entries(routes).map(([name, n]) => ({ name, connections: [{ outcome: "handed_over", n }], received_bytes: 0, sent_bytes: 0, handover: {} })),
		});
		const handed = () => past.samples.map((s) => (s.gap ? "gap" : s.handed)).join(" ");
		`
	tests := []struct{ name, script, want string }{
		{"the first status has nothing to compare with", `past.add(status(1, 1, { a: 5 })); return handed()`, ""},
		{"a rate is by the door's clock", `past.add(status(1, 1, { a: 5 })); past.add(status(3, 1, { a: 15, b: 4 })); return handed()`, "7"},
		{"a route that has gone is no negative rate", `past.add(status(1, 1, { a: 5, b: 9 })); past.add(status(2, 1, { a: 6 })); return handed()`, "0"},
		{"the same instant twice is no sample", `past.add(status(1, 1, { a: 5 })); past.add(status(1, 1, { a: 5 })); return handed()`, ""},
		{"a clock set back is no sample", `past.add(status(9, 1, { a: 5 })); past.add(status(1, 1, { a: 6 })); past.add(status(2, 1, { a: 8 })); return handed()`, "2"},
		{"another process is a gap", `past.add(status(1, 1, { a: 5 })); const other = past.add(status(2, 2, { a: 1 })); past.add(status(3, 2, { a: 4 })); return other + " " + handed()`, "true gap 3"},
		{"a long silence is a gap", `past.add(status(1, 1, { a: 5 })); past.add(status(60, 1, { a: 500 })); past.add(status(61, 1, { a: 501 })); return handed()`, "gap 1"},
		{"five minutes are kept", `for (let i = 0; i < 1000; i++) past.add(status(i, 1, { a: i })); return past.samples.length + " " + past.samples[0].at`, "301 699"},
		{"a route's rate is over the last seconds", `for (let i = 0; i < 100; i++) past.add(status(i, 1, { a: i < 50 ? 0 : 3 * i })); return String(past.routeRate("a"))`, "3"},
		{"a route's rate is unknown at first", `past.add(status(1, 1, { a: 5 })); return String(past.routeRate("a"))`, "null"},
		{"a route's rate is unknown while it is new", `past.add(status(1, 1, {})); past.add(status(2, 1, { a: 5 })); return String(past.routeRate("a"))`, "null"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := eval[string](b, prelude+tt.script+"})"); got != tt.want {
				t.Errorf("got %q; want %q", got, tt.want)
			}
		})
	}
}

func TestNumbersInWords(t *testing.T) {
	b := open(t, newDoor())
	tests := []struct{ script, want string }{
		{"m.count(1234567)", "1,234,567"},
		{"m.rate(0)", "0/s"},
		{"m.rate(0.5)", "0.50/s"},
		{"m.rate(99.96)", "100.0/s"},
		{"m.rate(1234.4)", "1,234/s"},
		{"m.rate(null)", "–"},
		{"m.bytes(999)", "999 B"},
		{"m.bytes(999.7)", "1.00 kB"},
		{"m.bytes(1e15)", "1,000 TB"},
		{"m.byteRate(undefined)", "–"},
		{"m.seconds(0)", "0 s"},
		{"m.seconds(0.0000125)", "12.5 µs"},
		{"m.seconds(0.0099)", "9.90 ms"},
		{"m.seconds(3600)", "1.00 h"},
		{"m.seconds(null)", "–"},
		{"m.span(0)", "0 s"},
		{"m.span(-3)", "0 s"},
		{"m.span(3600)", "1 h"},
		{"m.span(93784)", "1 d 2 h"},
		{"m.clock(new Date(2026, 0, 2, 3, 4, 5), new Date(2026, 0, 2))", "03:04:05"},
		{"m.clock(new Date(2026, 0, 2, 3, 4, 5), new Date(2026, 0, 3))", "2026-01-02 03:04:05"},
	}
	for _, tt := range tests {
		if got := eval[string](b, `import("/dashboard/format.js").then((m) => `+tt.script+`)`); got != tt.want {
			t.Errorf("%s is %q; want %q", tt.script, got, tt.want)
		}
	}
}

// TestPictures writes the pictures of the documentation, of the make-believe door.
func TestPictures(t *testing.T) {
	if !*update {
		t.Skip("skipped: pictures are taken with -update")
	}
	b := open(t, newDoor())
	b.advance(152, 2*time.Second)
	b.size(1280, 1420, 2)
	b.checkWidth()
	b.screenshot(filepath.Join("..", "..", "doc", "dashboard.png"))
	b.prefer("prefers-color-scheme", "dark")
	b.size(360, 780, 2)
	b.checkWidth()
	b.screenshot(filepath.Join("..", "..", "doc", "dashboard-dark-phone.png"))
}
