// Small line charts, drawn as SVG.

import { el, svg, setText } from "./dom.js";
import { MINUTES } from "./history.js";

const HEIGHT = 150;
const TOP = 8;
const BOTTOM = 20; // for the words below the time axis
const LEFT = 58; // for those beside the other
const RIGHT = 6;
const SPAN = MINUTES * 60;

// niceTop is the least number with one digit and zeros behind it that is not below max, and that has a half
// which is easy to read.
function niceTop(max) {
  const power = 10 ** Math.floor(Math.log10(max));
  return [1, 2, 3, 4, 6, 8, 10].map((n) => n * power).find((top) => top >= max * 0.9999);
}

// Chart shows some series of a History. Lines differ by pattern as well as by colour; their names and values
// stand above as text.
export class Chart {
  #title;
  #series;
  #format;
  #least;
  #svg;
  #plot = svg("g");
  #values = [];
  #seen = null; // what draw was given last, for a change of width

  // series is a list of { key, label }; format puts a value into words; least is the smallest top of the
  // value axis.
  constructor(parent, { title, series, format, least }) {
    this.#title = title;
    this.#series = series;
    this.#format = format;
    this.#least = least;
    this.#svg = svg("svg", { role: "img", height: HEIGHT, class: "plot" }, this.#plot);
    const legend = el("ul", { class: "legend" });
    series.forEach(({ label }, i) => {
      const value = el("span", { class: "value" });
      this.#values.push(value);
      const swatch = svg("svg", { width: 24, height: 10, "aria-hidden": "true" }, svg("path", { class: `line s${i}`, d: "M1 5h22" }));
      legend.append(el("li", {}, swatch, el("span", {}, label), value));
    });
    parent.append(el("figure", {}, el("figcaption", {}, title), legend, this.#svg));
    new ResizeObserver(() => this.#seen && this.draw(...this.#seen)).observe(this.#svg);
  }

  // onPoint calls back with the seconds before now (0 or negative) that a pointer is over, and null when it leaves.
  onPoint(callback) {
    this.#svg.addEventListener("pointermove", (event) => {
      const box = this.#svg.getBoundingClientRect();
      const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
      callback(Math.round((Math.min(Math.max(share, 0), 1) - 1) * SPAN));
    });
    this.#svg.addEventListener("pointerleave", () => callback(null));
  }

  // draw shows the samples up to now, in the door's seconds. at is the one to read values from, marked is
  // whether to mark it.
  draw(samples, now, at, marked) {
    this.#seen = [samples, now, at, marked];
    this.#series.forEach(({ key }, i) => setText(this.#values[i], this.#format(at?.[key])));

    const width = this.#svg.clientWidth;
    if (width <= LEFT + RIGHT) return;
    const highest = Math.max(this.#least, ...samples.flatMap((s) => this.#series.map(({ key }) => s[key] ?? 0)));
    const top = niceTop(highest);
    const x = (t) => LEFT + (1 - (now - t) / SPAN) * (width - LEFT - RIGHT);
    const y = (v) => TOP + (1 - v / top) * (HEIGHT - TOP - BOTTOM);

    this.#svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.#svg.setAttribute("aria-label", this.#inWords(samples, at));
    this.#plot.replaceChildren(
      ...this.#valueAxis(top, y, width),
      ...timeAxis(x, now),
      svg("path", { class: "area", d: area(samples, this.#series[0].key, x, y) }),
      ...this.#series.map(({ key }, i) => svg("path", { class: `line s${i}`, d: path(samples, key, x, y) })),
      ...(marked && at ? this.#mark(at, x, y) : []),
    );
  }

  #valueAxis(top, y, width) {
    return [0, top / 2, top].flatMap((v) => [
      svg("path", { class: v === 0 ? "axis" : "grid", d: `M${LEFT} ${y(v).toFixed(1)}H${width - RIGHT}` }),
      svg("text", { x: LEFT - 8, y: (y(v) + 4).toFixed(1), class: "tick end" }, this.#format(v).replace(/\.0+(?=\D)/, "")),
    ]);
  }

  #mark(at, x, y) {
    const line = svg("path", { class: "mark", d: `M${x(at.at).toFixed(1)} ${TOP}V${HEIGHT - BOTTOM}` });
    const dots = this.#series
      .map(({ key }, i) => [at[key], i])
      .filter(([v]) => v != null)
      .map(([v, i]) => svg("circle", { class: `dot s${i}`, cx: x(at.at).toFixed(1), cy: y(v).toFixed(1), r: 3.5 }));
    return [line, ...dots];
  }

  // inWords is the chart for those who cannot see it.
  #inWords(samples, at) {
    const series = this.#series.map(({ key, label }) => {
      const known = samples.map((s) => s[key]).filter((v) => v != null);
      if (known.length === 0) return `${label}: no values yet`;
      return `${label}: ${this.#format(at?.[key])}, highest ${this.#format(Math.max(...known))}`;
    });
    return `${this.#title}, last ${MINUTES} minutes. ${series.join(". ")}.`;
  }
}

function timeAxis(x, now) {
  const nodes = [];
  for (let minute = 0; minute <= MINUTES; minute++) {
    const at = x(now - minute * 60).toFixed(1);
    nodes.push(svg("path", { class: "grid", d: `M${at} ${TOP}V${HEIGHT - BOTTOM}` }));
  }
  nodes.push(svg("text", { x: x(now - SPAN).toFixed(1), y: HEIGHT - 5, class: "tick" }, `${MINUTES} min ago`));
  nodes.push(svg("text", { x: x(now).toFixed(1), y: HEIGHT - 5, class: "tick end" }, "now"));
  return nodes;
}

// runs are the stretches of samples without a gap.
function runs(samples, key) {
  const all = [];
  let run = null;
  for (const s of samples) {
    if (s[key] == null) {
      run = null;
      continue;
    }
    if (run === null) all.push((run = []));
    run.push(s);
  }
  return all;
}

// path draws a sample that stands alone as a line of no length: its round ends make it a dot.
function path(samples, key, x, y) {
  const point = (s) => `${x(s.at).toFixed(1)} ${y(s[key]).toFixed(1)}`;
  return runs(samples, key).map((run) => (run.length === 1 ? `M${point(run[0])}h0` : `M${run.map(point).join("L")}`)).join("");
}

// area is what is below the line.
function area(samples, key, x, y) {
  const point = (s) => `${x(s.at).toFixed(1)} ${y(s[key]).toFixed(1)}`;
  const ground = y(0).toFixed(1);
  return runs(samples, key)
    .map((run) => `M${x(run[0].at).toFixed(1)} ${ground}L${run.map(point).join("L")}L${x(run.at(-1).at).toFixed(1)} ${ground}z`)
    .join("");
}
