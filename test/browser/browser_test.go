// Package browser_test uses the dashboard as people do, with a Chromium that has no window: by mouse and by
// keyboard, on screens of several sizes. It is a module of its own so that nobody else needs what drives the
// browser.
//
//	go test .                               # with a make-believe door
//	go test -url http://127.0.0.1:9901/ .   # and, where any door will do, with a running one
//	go test -run TestPictures -update .     # takes new pictures for doc/
package browser_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/go-usher/usher/internal/admin"
)

var (
	update = flag.Bool("update", false, "write the pictures of the dashboard into doc/")
	url    = flag.String("url", os.Getenv("USHER_DASHBOARD_URL"), "the dashboard of a running door, for the tests that any door passes")
)

// patience bounds every wait. Nothing is expected to take so long.
const patience = 30 * time.Second

// browser is shared by all tests; each has a tab, and a profile, of its own.
var browser context.Context

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	path := findBrowser()
	if path == "" {
		return m.Run() // each test says that it is skipped
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	defer stopAllocator()
	var stop context.CancelFunc
	browser, stop = chromedp.NewContext(allocator)
	defer stop()
	if err := chromedp.Do(browser); err != nil {
		fmt.Fprintf(os.Stderr, "cannot start %s: %v\n", path, err)
		return 1
	}
	return m.Run()
}

func findBrowser() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// server is an admin address that can go away and come back.
type server struct {
	addr    string
	handler http.Handler
	stop    context.CancelFunc
	ended   chan error
}

func startServer(t *testing.T, status func() *admin.Status) *server {
	t.Helper()
	s := &server{addr: "127.0.0.1:0", handler: admin.Handler(admin.Options{Status: status})}
	s.start(t)
	t.Cleanup(func() { s.end(t) })
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	l, err := admin.Listen(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().(*net.TCPAddr).String()
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	s.ended = make(chan error, 1)
	go func() { s.ended <- admin.Serve(ctx, l, s.handler) }()
}

func (s *server) end(t *testing.T) {
	t.Helper()
	if s.stop == nil {
		return
	}
	s.stop()
	s.stop = nil
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
}

// tab is a browser's tab that shows the dashboard.
type tab struct {
	t    *testing.T
	ctx  context.Context
	door *door // nil for a real one
	srv  *server

	mu       sync.Mutex
	mistakes []string
	isAlone  bool // the server is gone, and the browser may say so
}

// open shows a make-believe door.
func open(t *testing.T, d *door, before ...func(*tab)) *tab {
	t.Helper()
	srv := startServer(t, d.Status)
	b := visit(t, "http://"+srv.addr+"/", before...)
	b.door, b.srv = d, srv
	return b
}

// openAny shows the door that -url names, else a make-believe one.
func openAny(t *testing.T, before ...func(*tab)) *tab {
	t.Helper()
	if *url == "" {
		return open(t, newDoor(), before...)
	}
	return visit(t, *url, before...)
}

// visit opens an address in a new tab and waits for the first status. When the test ends, it fails if the page
// had anything to complain of.
func visit(t *testing.T, address string, before ...func(*tab)) *tab {
	t.Helper()
	if browser == nil {
		t.Skip("skipped: there is no Chromium here")
	}
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	b := &tab{t: t, ctx: ctx}
	t.Cleanup(func() {
		b.checkMistakes()
		cancel()
	})
	if err := chromedp.Listen(ctx, b.hear); err != nil { // starts the tab: its context has no deadline
		t.Fatal(err)
	}
	call(b, audits.Enable, struct{}{})
	call(b, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "UTC"})
	b.size(1280, 900, 1)
	for _, prepare := range before {
		prepare(b)
	}
	b.do(chromedp.Navigate(address))
	b.await(`document.querySelectorAll("#facts dd").length > 0`)
	return b
}

// hear notes what would be red in the browser's console.
func (b *tab) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		isNetwork := e.Entry.Source == log.EntrySourceNetwork
		if e.Entry.Level == log.EntryLevelError && !(isNetwork && b.isAlone) {
			b.mistakes = append(b.mistakes, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *runtime.EventConsoleAPICalled:
		b.mistakes = append(b.mistakes, fmt.Sprintf("console.%s was called", e.Type))
	case *runtime.EventExceptionThrown:
		b.mistakes = append(b.mistakes, "an exception: "+e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
	case *audits.EventIssueAdded:
		b.mistakes = append(b.mistakes, issueInWords(e.Issue))
	case *page.EventJavascriptDialogOpening:
		b.mistakes = append(b.mistakes, "a dialog was opened: "+e.Message)
	}
}

// alone says whether the server is away: what the browser says of that is no mistake of the page.
func (b *tab) alone(isAlone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.isAlone = isAlone
}

func issueInWords(i *audits.InspectorIssue) string {
	details, err := json.Marshal(i.Details)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s: %s", i.Code, details)
}

func (b *tab) checkMistakes() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.mistakes {
		b.t.Errorf("the browser complains: %s", m)
	}
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// call sends a command of the browser's protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	r, err := chromedp.Call(ctx, command, params)
	if err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
	return r
}

// eval runs a script in the tab and reads its value, or its promise's, into a T.
func eval[T any](b *tab, script string, args ...any) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](withArgs(script, args), chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%v in the script %s", err, script)
	}
	return v
}

// withArgs puts values in the place of $1 and so on, as JSON.
func withArgs(script string, args []any) string {
	for i, a := range args {
		j, err := json.Marshal(a)
		if err != nil {
			panic(err)
		}
		script = strings.ReplaceAll(script, fmt.Sprintf("$%d", i+1), string(j))
	}
	return script
}

// run is eval of a script without a value.
func (b *tab) run(script string, args ...any) {
	b.t.Helper()
	eval[bool](b, "(() => {"+withArgs(script, args)+"; return true })()")
}

// await waits until a condition holds in the tab.
func (b *tab) await(condition string, args ...any) {
	b.t.Helper()
	condition = withArgs(condition, args)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if eval[bool](b, "Boolean("+condition+")") {
			return
		}
	}
	b.t.Fatalf("this does not come true: %s", condition)
}

// text is what an element shows.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return eval[string](b, `document.querySelector($1).innerText`, selector)
}

// column is what the cells of a column of a section's table show, the header's place in the row given.
func (b *tab) column(section, title string) []string {
	b.t.Helper()
	return eval[[]string](b, `[...document.querySelectorAll("#" + $1 + " tbody td")].filter((td) => td.dataset.title === $2).map((td) => td.innerText)`,
		section, title)
}

// advance lets time pass at the make-believe door, a step at a time, and lets the page look after each, which
// it does when it comes into view.
func (b *tab) advance(steps int, step time.Duration) {
	b.t.Helper()
	for range steps {
		b.door.pass(step)
		b.refresh()
	}
}

// refresh makes the page ask now, and waits until it shows the answer.
func (b *tab) refresh() {
	b.t.Helper()
	eval[bool](b, `new Promise((done, fail) => {
		const original = window.fetch;
		window.fetch = async (...args) => {
			window.fetch = original;
			const response = await original(...args);
			const json = response.json.bind(response);
			response.json = async () => { const v = await json(); setTimeout(() => done(true)); return v; };
			return response;
		};
		document.dispatchEvent(new Event("visibilitychange"));
	})`)
}

func (b *tab) size(width, height int64, scale float64) {
	b.t.Helper()
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: scale, Mobile: width < 600,
	})
}

// prefer makes the browser prefer something, as prefers-color-scheme: dark.
func (b *tab) prefer(what, value string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: what, Value: value}},
	})
}

func (b *tab) screenshot(file string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(file, png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
