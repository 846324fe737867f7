package browser_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/go-usher/usher/internal/admin"
)

// stops are the elements that the Tab key should come by, in the order of the page.
const stops = `[...document.querySelectorAll("a[href], button, input, select")].filter((e) => e.checkVisibility())`

func TestTheKeyboardReachesEverything(t *testing.T) {
	b := openAny(t)
	b.prefer("prefers-reduced-motion", "reduce") // so that nothing is still on its way when it is looked at
	b.run(`document.getElementById("pause").click(); document.getElementById("pause").blur(); getSelection().removeAllRanges(); window.stops = ` + stops)
	b.run(`document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute("tabindex")`)
	n := eval[int](b, `stops.length`)
	if n < 20 {
		t.Fatalf("there are only %d controls", n)
	}
	for i := range n {
		b.do(chromedp.KeyEvent(kb.Tab))
		got := eval[struct {
			Place                int
			Name                 string
			Outlined, Shown, Top bool
		}](b, `(() => {
			const e = document.activeElement;
			const style = getComputedStyle(e);
			const box = e.getBoundingClientRect();
			const seen = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
			return {
				place: stops.indexOf(e), name: e.tagName + " " + (e.textContent || e.id),
				outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
				shown: box.top >= 0 && box.bottom <= innerHeight && box.left >= 0 && box.right <= innerWidth,
				top: seen !== null && (e.contains(seen) || seen.contains(e)),
			};
		})()`)
		if got.Place != i {
			t.Fatalf("stop %d of %d is %s, number %d on the page", i, n, got.Name, got.Place)
		}
		if !got.Outlined || !got.Shown || !got.Top {
			t.Errorf("%s has the focus; outlined: %v, on the screen: %v, not hidden by another: %v", got.Name, got.Outlined, got.Shown, got.Top)
		}
	}
}

func TestTheKeyboardDoesEverything(t *testing.T) {
	b := open(t, newDoor())
	b.prefer("prefers-reduced-motion", "reduce")
	t.Run("the first stop skips to the content", func(t *testing.T) {
		b.do(chromedp.KeyEvent(kb.Tab))
		if got := eval[string](b, `document.activeElement.textContent`); got != "Skip to the content" {
			t.Fatalf("the first stop is %q", got)
		}
		b.do(chromedp.KeyEvent(kb.Enter))
		b.await(`document.activeElement.id === "main"`)
		b.do(chromedp.KeyEvent(kb.Tab))
		if got := eval[string](b, `document.activeElement.id`); got != "cursor" {
			t.Errorf("the stop after it is %q", got)
		}
	})
	t.Run("a link of the navigation moves the focus", func(t *testing.T) {
		b.run(`document.querySelector('nav a[href="#endpoints"]').focus()`)
		b.do(chromedp.KeyEvent(kb.Enter))
		b.await(`document.activeElement.id === "endpoints"`)
		b.do(chromedp.KeyEvent(kb.Tab))
		if got := eval[string](b, `document.activeElement.id`); got != "endpoints-search" {
			t.Errorf("the stop after it is %q", got)
		}
	})
	t.Run("Enter and space sort", func(t *testing.T) {
		b.run(`[...document.querySelectorAll("#endpoints th button")].find((h) => h.textContent === "Claimed").focus()`)
		b.do(chromedp.KeyEvent(kb.Enter))
		if got := b.ariaSort("endpoints", "Claimed"); got != "descending" {
			t.Errorf("after Enter it is sorted %s", got)
		}
		b.do(chromedp.KeyEvent(" "))
		if got := b.ariaSort("endpoints", "Claimed"); got != "ascending" {
			t.Errorf("after space it is sorted %s", got)
		}
		b.refresh()
		if got := eval[string](b, `document.activeElement.textContent`); got != "Claimed" {
			t.Errorf("after an update the focus is at %q", got)
		}
	})
	t.Run("space pauses", func(t *testing.T) {
		b.run(`document.getElementById("pause").focus()`)
		for _, want := range []string{"true", "false"} {
			b.do(chromedp.KeyEvent(" "))
			if got := eval[string](b, `document.getElementById("pause").getAttribute("aria-pressed")`); got != want {
				t.Errorf("it is pressed: %s; want %s", got, want)
			}
		}
	})
	t.Run("a letter chooses an outcome", func(t *testing.T) {
		b.run(`document.getElementById("refusals-outcome").focus()`)
		b.do(chromedp.KeyEvent("M"))
		b.await(`document.getElementById("refusals-outcome").selectedOptions[0].textContent.startsWith("M")`)
		if got := b.column("refusals", "Outcome"); !slices.Equal(got, []string{"Malformed"}) {
			t.Errorf("shown are %q", got)
		}
	})
}

// named are the roles that must have a name for those who hear the page.
var named = []string{"button", "link", "searchbox", "combobox", "slider", "image", "table", "navigation", "region", "list", "columnheader", "heading", "figure"}

// unnamed lists that may do without: their items say enough.
func mayBeUnnamed(role string) bool { return role == "list" || role == "figure" }

func TestEverythingHasAName(t *testing.T) {
	for _, width := range []int64{1280, 360} {
		b := openAny(t)
		b.size(width, 900, 1)
		seen := make(map[string]int)
		for _, n := range call(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
			if n.Ignored {
				continue
			}
			role := axText(t, n.Role)
			seen[role]++
			if slices.Contains(named, role) && !mayBeUnnamed(role) && strings.TrimSpace(axText(t, n.Name)) == "" {
				t.Errorf("at %d px a %s has no name", width, role)
			}
		}
		want := map[string]int{"banner": 1, "navigation": 1, "main": 1, "contentinfo": 1, "region": 6, "table": 5, "searchbox": 3, "combobox": 1, "slider": 1, "status": 6}
		if *url != "" {
			delete(want, "table") // an empty one is hidden
		}
		for role, n := range want {
			if seen[role] < n {
				t.Errorf("at %d px there are %d of %s; want %d", width, seen[role], role, n)
			}
		}
		if *url == "" && (seen["row"] < 20 || seen["cell"] < 100 || seen["columnheader"] < 30) {
			t.Errorf("at %d px tables have lost their roles: %v", width, seen)
		}
	}
}

func axText(t *testing.T, v *accessibility.Value) string {
	t.Helper()
	if v == nil || len(v.Value) == 0 {
		return ""
	}
	var s string
	if err := json.Unmarshal([]byte(v.Value), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheMarkupIsSound(t *testing.T) {
	b := openAny(t)
	for name, script := range map[string]string{
		"no id twice":                      `(() => { const ids = [...document.querySelectorAll("[id]")].map((e) => e.id); return new Set(ids).size === ids.length })()`,
		"a language":                       `document.documentElement.lang === "en"`,
		"a title":                          `document.title !== ""`,
		"one heading of the first rank":    `document.querySelectorAll("h1").length === 1`,
		"no heading that skips a rank":     `document.querySelectorAll("h3, h4, h5, h6").length === 0`,
		"a text, if empty, for each image": `[...document.images].every((i) => i.hasAttribute("alt"))`,
		"a label for each field":           `[...document.querySelectorAll("input, select")].every((i) => i.labels.length > 0)`,
		"references that lead somewhere":   `[...document.querySelectorAll("[aria-labelledby], label[for], output[for]")].every((e) => document.getElementById(e.getAttribute("aria-labelledby") ?? e.getAttribute("for")))`,
		"no positive tabindex":             `[...document.querySelectorAll("[tabindex]")].every((e) => e.tabIndex <= 0)`,
		"zooming that is not prevented":    `!/user-scalable|maximum-scale/.test(document.querySelector("meta[name=viewport]").content)`,
		"both color schemes":               `document.querySelector("meta[name=color-scheme]").content === "light dark"`,
		"no inline styles and handlers":    `[...document.querySelectorAll("*")].every((e) => [...e.attributes].every((a) => !/^on|^style$/.test(a.name)))`,
		"no inline scripts":                `[...document.scripts].every((s) => s.src !== "" && s.textContent === "")`,
		"links that work":                  `Promise.all([...document.querySelectorAll("a[href]:not([href^='#'])")].map((a) => fetch(a.href).then((r) => r.ok))).then((all) => all.every(Boolean))`,
	} {
		if !eval[bool](b, script) {
			t.Errorf("the page is without: %s", name)
		}
	}
}

// contrast finds texts, and lines that mean something, that are too pale for what is behind them (WCAG 2.2,
// 1.4.3 and 1.4.11). It returns how many it has looked at, and what is wrong.
const contrast = `(() => {
	const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const rgb = (color) => {
		canvas.clearRect(0, 0, 1, 1);
		canvas.fillStyle = color;
		canvas.fillRect(0, 0, 1, 1);
		return [...canvas.getImageData(0, 0, 1, 1).data];
	};
	const luminance = (color) => {
		const [r, g, b] = color.slice(0, 3).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const ratio = (a, b) => {
		const [x, y] = [luminance(a), luminance(b)].sort((x, y) => y - x);
		return (x + 0.05) / (y + 0.05);
	};
	const behind = (e) => {
		for (; e; e = e.parentElement) {
			const color = rgb(getComputedStyle(e).backgroundColor);
			if (color[3] === 255) return color;
		}
		return rgb("Canvas");
	};
	let looked = 0;
	const wrong = [];
	const check = (what, color, ground, least) => {
		looked++;
		const r = ratio(rgb(color), ground);
		if (r < least) wrong.push(what + ": " + r.toFixed(2));
	};
	const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (words.nextNode()) {
		const e = words.currentNode.parentElement;
		if (!words.currentNode.data.trim() || !e.checkVisibility() || e.closest(".unseen, noscript")) continue;
		const style = getComputedStyle(e);
		check(words.currentNode.data.trim().slice(0, 40), e instanceof SVGElement ? style.fill : style.color, behind(e), 4.5);
	}
	for (const e of document.querySelectorAll(".line")) check("line " + e.getAttribute("class"), getComputedStyle(e).stroke, behind(e), 3);
	for (const e of document.querySelectorAll(".icon")) check("icon " + e.getAttribute("class"), getComputedStyle(e).color, behind(e), 3);
	for (const e of document.querySelectorAll("input[type=search], select, #pause")) {
		const ground = behind(e.parentElement);
		check("edge of " + e.id, getComputedStyle(e).borderTopColor, ground, 3);
	}
	return { looked, wrong: [...new Set(wrong)] };
})()`

type contrastResult struct {
	Looked int
	Wrong  []string
}

func TestContrast(t *testing.T) {
	b := openAny(t)
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 360} {
			b.prefer("prefers-color-scheme", scheme)
			b.size(width, 900, 1)
			if b.door != nil { // so that every kind of state is on the page
				b.door.change(func(s *admin.Status) { s.Ready, s.NotReady, s.Endpoints[1].State = false, "for the test", "refused" })
				b.refresh()
			}
			got := eval[contrastResult](b, contrast)
			if got.Looked < 60 {
				t.Errorf("%s, %d px: only %d texts and lines were looked at", scheme, width, got.Looked)
			}
			if len(got.Wrong) > 0 {
				t.Errorf("%s, %d px: too little contrast: %q", scheme, width, got.Wrong)
			}
		}
	}
	light := func() bool {
		return eval[bool](b, `getComputedStyle(document.body).backgroundColor === "rgb(245, 246, 248)"`)
	}
	if light() {
		t.Error("the dark scheme is light")
	}
	b.prefer("prefers-color-scheme", "light")
	if !light() {
		t.Error("the light scheme is dark")
	}
}

// The judge of contrast must find what is too pale.
func TestContrastIsJudged(t *testing.T) {
	b := open(t, newDoor())
	b.run(`const sheet = new CSSStyleSheet(); sheet.replaceSync(".muted { color: #999 !important }"); document.adoptedStyleSheets.push(sheet)`)
	if got := eval[contrastResult](b, contrast); !slices.Contains(got.Wrong, "shop.example.com: 2.85") {
		t.Errorf("found was only %q", got.Wrong)
	}
}

// Colour is never the only sign: with all colours taken away, lines and states still differ.
func TestColourIsNotTheOnlySign(t *testing.T) {
	b := open(t, newDoor())
	if dashes := eval[[]string](b, `[...document.querySelectorAll("#chart-grid figure:first-child .legend .line")].map((l) => getComputedStyle(l).strokeDasharray)`); len(dashes) != 3 ||
		dashes[0] == dashes[1] || dashes[1] == dashes[2] || dashes[0] == dashes[2] {
		t.Errorf("the lines are drawn as %q", dashes)
	}
	b.door.change(func(s *admin.Status) { s.Endpoints[1].State = "refused" })
	b.refresh()
	shapes := eval[[]string](b, `[...document.querySelectorAll("#endpoints .icon")].map((i) => i.innerHTML)`)
	slices.Sort(shapes)
	if len(slices.Compact(shapes)) != 4 {
		t.Errorf("the four states have the shapes %q", shapes)
	}
}

func TestReducedMotionIsRespected(t *testing.T) {
	b := openAny(t)
	if got := eval[string](b, `getComputedStyle(document.documentElement).scrollBehavior`); got != "smooth" {
		t.Errorf("else the page scrolls %s", got)
	}
	b.prefer("prefers-reduced-motion", "reduce")
	if got := eval[string](b, `getComputedStyle(document.documentElement).scrollBehavior`); got != "auto" {
		t.Errorf("the page scrolls %s", got)
	}
	if n := eval[int](b, `document.getAnimations().length`); n != 0 {
		t.Errorf("%d animations run", n)
	}
}
