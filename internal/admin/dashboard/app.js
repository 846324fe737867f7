// The dashboard: asks the door for its status once a second and shows it.

import { Chart } from "./chart.js";
import { el, icon, setText } from "./dom.js";
import * as format from "./format.js";
import { History, connections, quantile } from "./history.js";
import { Table } from "./table.js";

const INTERVAL = 1000; // ms
const TIMEOUT = 5000; // ms; a door that has not answered by then is taken for gone

const byId = (id) => document.getElementById(id);

// outcomes are those of package admin in words. It is a Map, as are the others of its kind below, since what is
// looked up comes from outside and an object knows more names than its own.
const outcomes = new Map([
  ["rejected", "Rejected by its route"],
  ["no_route", "No route"],
  ["unavailable", "No taker or backend"],
  ["malformed", "Malformed"],
  ["too_long", "Too many first bytes"],
  ["timeout", "Too slow to say"],
  ["gone", "Client left"],
  ["limited", "Over a limit"],
  ["evicted", "Made room"],
  ["failed", "Door failed"],
  ["shut_down", "Door ended"],
]);
const clock = (time) => format.clock(new Date(time), new Date(status.now));
const outcomeInWords = (outcome) => outcomes.get(outcome) ?? outcome;

// muted is a part of a cell that matters less; an empty one is left out.
const muted = (text) => (text ? [{ text, style: "muted" }] : []);
const number = (title, value, show = format.count) => ({ title, isNumeric: true, value, cell: (row) => [show(value(row))] });

const listeners = new Table(byId("listeners"), {
  key: (l) => l.name,
  search: (l) => l.name,
  noun: "listeners",
  empty: "There are no listeners.",
  columns: [
    { title: "Listener", value: (l) => l.name, cell: (l) => [l.name] },
    {
      title: "State",
      value: (l) => l.error ?? "",
      cell: (l) => (l.error ? [{ icon: "bad", text: "Does not listen" }, ...muted(l.error)] : [{ icon: "good", text: "Listens" }]),
    },
    { title: "Address", value: (l) => l.address, cell: (l) => [{ text: l.address, style: "code" }] },
    { title: "Sniff", value: (l) => l.sniff, cell: (l) => [l.sniff] },
    number("Accepted", (l) => l.accepted),
    number("Accept errors", (l) => l.accept_errors),
    number("Peeking", (l) => l.peeking),
    number("Open", (l) => l.open),
    number("Peek p99", (l) => quantile(bounds, l.peek.counts ?? [], 0.99), format.seconds),
  ],
});

// What the two routes without a match are for.
const specialRoutes = new Map([
  ["auto", "hosts with an endpoint of their own name"],
  ["none", "connections that never had a route"],
]);
const routeMatch = (r) => r.match || specialRoutes.get(r.name) || "everything else";

const routes = new Table(byId("routes"), {
  key: (r) => r.name,
  search: (r) => `${r.name} ${r.match} ${r.target}`,
  noun: "routes",
  empty: "There are no routes.",
  columns: [
    { title: "Route", value: (r) => r.name, cell: (r) => [r.name, ...muted(routeMatch(r) === r.name ? "" : routeMatch(r))] },
    { title: "Target", value: (r) => r.target, cell: (r) => [r.target || format.none] },
    number("Rate", (r) => past.routeRate(r.name), format.rate),
    number("Handed over", (r) => connections(r).handed),
    number("Proxied", (r) => connections(r).proxied),
    number("Refused", (r) => connections(r).refused),
    number("Handover p99", (r) => quantile(bounds, r.handover.counts ?? [], 0.99), format.seconds),
    number("Received", (r) => r.received_bytes, format.bytes),
    number("Sent", (r) => r.sent_bytes, format.bytes),
  ],
});

const endpointStates = new Map([
  ["up", { icon: "good", text: "Up" }],
  ["idle", { icon: "idle", text: "Idle" }],
  ["absent", { icon: "warn", text: "Absent" }],
  ["refused", { icon: "bad", text: "Refused" }],
]);
const endpointState = (e) => endpointStates.get(e.state) ?? { icon: "warn", text: e.state };
const openOffers = (e) => (e.takers ?? []).reduce((sum, t) => sum + t.open, 0);
const takerInWords = (t) => `process ${t.pid}, ${t.user}` + (t.open > 0 ? `, ${format.count(t.open)} open` : "");

const endpoints = new Table(byId("endpoints"), {
  key: (e) => e.path + e.name,
  search: (e) => `${e.name} ${e.path} ${e.state} ${(e.takers ?? []).map(takerInWords).join(" ")}`,
  noun: "endpoints",
  empty: "There are no endpoints: no route hands over.",
  columns: [
    { title: "Endpoint", value: (e) => e.name, cell: (e) => [e.name, { text: e.path, style: "muted code" }] },
    { title: "State", value: (e) => e.state, cell: (e) => [endpointState(e), ...muted(e.error)] },
    {
      title: "Takers",
      value: (e) => (e.takers ?? []).length,
      cell: (e) => (e.takers?.length ? e.takers.map(takerInWords) : [format.none]),
    },
    number("Open offers", openOffers),
    number("Claimed", (e) => e.claimed),
    number("Declined", (e) => e.declined),
    number("Withdrawn", (e) => e.withdrawn),
    number("Given back", (e) => e.returned),
  ],
});

const upstreams = new Table(byId("upstreams"), {
  key: (u) => `${u.route}\n${u.address}`,
  search: (u) => `${u.route} ${u.address}`,
  noun: "upstreams",
  empty: "There are no upstreams: no route proxies.",
  columns: [
    { title: "Upstream", value: (u) => u.address, cell: (u) => [{ text: u.address, style: "code" }] },
    {
      title: "Health",
      value: (u) => (u.healthy ? "healthy" : "unfit"),
      cell: (u) => [u.healthy ? { icon: "good", text: "Healthy" } : { icon: "bad", text: "Unfit" }, ...muted(u.error)],
    },
    { title: "Route", value: (u) => u.route, cell: (u) => [u.route] },
    number("Open", (u) => u.open),
    number("Connections", (u) => u.connections),
    number("Failures", (u) => u.failures),
    number("Checks", (u) => u.checks),
    number("Failed checks", (u) => u.failed_checks),
  ],
});

const refusals = new Table(byId("refusals"), {
  key: (r) => JSON.stringify(r),
  search: (r) => `${r.client} ${r.host ?? ""} ${r.listener} ${r.route ?? ""} ${r.outcome} ${outcomeInWords(r.outcome)} ${r.reason}`,
  noun: "refusals",
  empty: "No connection was refused.",
  columns: [
    { title: "Time", value: (r) => Date.parse(r.time), cell: (r) => [clock(r.time)] },
    { title: "Outcome", value: (r) => outcomeInWords(r.outcome), cell: (r) => [outcomeInWords(r.outcome)] },
    { title: "Client", value: (r) => r.client, cell: (r) => [{ text: r.client, style: "code" }] },
    { title: "Host", value: (r) => r.host ?? null, cell: (r) => [r.host || format.none] },
    { title: "Listener, route", value: (r) => r.listener, cell: (r) => [r.listener, ...muted(r.route)] },
    { title: "Reason", value: (r) => r.reason, cell: (r) => [r.reason] },
  ],
});

const charts = [
  {
    title: "Connections a second",
    format: format.rate,
    least: 1,
    series: [{ key: "handed", label: "Handed over" }, { key: "proxied", label: "Proxied" }, { key: "refused", label: "Refused" }],
  },
  {
    title: "Time to hand over",
    format: format.seconds,
    least: 1e-5,
    series: [{ key: "p50", label: "Median" }, { key: "p99", label: "99th percentile" }],
  },
  {
    title: "Connections at the door now",
    format: (n) => (n == null ? format.none : Number.isInteger(n) ? format.count(n) : String(n)),
    least: 2,
    series: [{ key: "open", label: "Open" }, { key: "peeking", label: "Peeking" }],
  },
  {
    title: "Bytes a second, of ended connections",
    format: format.byteRate,
    least: 1000,
    series: [{ key: "received", label: "Received" }, { key: "sent", label: "Sent" }],
  },
].map((options) => new Chart(byId("chart-grid"), options));

const past = new History();
let bounds = [];
let status = null; // the last one
let isLost = false;
let timer = 0;
let pointed = null; // seconds before now that a pointer is over

const isPaused = () => byId("pause").getAttribute("aria-pressed") === "true";

async function poll() {
  clearTimeout(timer);
  try {
    const answer = await ask().catch(() => null);
    setLost(answer === null);
    if (answer) show(answer);
  } finally {
    schedule();
  }
}

function schedule() {
  clearTimeout(timer); // there may be one already, of a page that was hidden and shown during a request
  if (!isPaused() && !document.hidden) timer = setTimeout(poll, INTERVAL);
}

async function ask() {
  const response = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
  if (!response.ok) throw new Error(`the door answers ${response.status}`);
  const answer = await response.json();
  for (const list of ["listeners", "routes", "endpoints", "upstreams", "refusals"]) answer[list] ??= []; // Go's nil
  return answer;
}

// setLost is told after each try whether the door is out of reach.
function setLost(now) {
  const isNews = now !== isLost;
  isLost = now;
  showState();
  if (isNews) announce(now ? "The connection to the door is lost. Trying again." : "Connected again.");
}

function show(answer) {
  const before = status;
  status = answer;
  bounds = answer.histogram_bounds;
  const isOther = past.add(answer);
  announceChanges(before, answer, isOther);
  setText(byId("version"), answer.version);
  showState();
  showFacts();
  showProblems();
  for (const [name, table] of Object.entries({ listeners, routes, endpoints, upstreams, refusals })) {
    table.update(answer[name]);
    setText(byId(`${name}-count`), format.count(answer[name].length));
  }
  drawCharts();
}

// state is the door's in a word or two.
function state() {
  if (isLost) return { icon: "bad", text: "Connection lost" };
  if (!status) return { icon: "idle", text: "Connecting" };
  if (status.draining) return { icon: "warn", text: "Draining" };
  if (!status.ready) return { icon: "warn", text: "Not ready" };
  return { icon: "good", text: "Ready" };
}

function showState() {
  const { icon: kind, text } = state();
  const node = byId("state");
  if (node.dataset.kind === kind && node.textContent === text) return;
  node.dataset.kind = kind;
  node.replaceChildren(icon(kind), text);
  document.title = text === "Ready" ? "usher" : `${text}: usher`;
}

function showFacts() {
  const { config } = status;
  const now = Date.parse(status.now);
  const seconds = (time) => (now - Date.parse(time)) / 1000;
  const reloads = config.failures > 0 ? `${config.reloads} (${config.failures} failed)` : String(config.reloads);
  const facts = {
    "Up for": format.span(seconds(status.started)),
    Process: String(status.pid),
    Configuration: config.path || "none",
    Loaded: `${format.span(seconds(config.loaded))} ago`,
    Reloads: reloads,
    Updated: clock(status.now),
  };
  const list = byId("facts");
  for (const [name, value] of Object.entries(facts)) {
    let node = list.querySelector(`[data-fact="${name}"]`);
    if (!node) {
      node = el("dd", { "data-fact": name });
      list.append(el("div", {}, el("dt", {}, name), node));
    }
    setText(node, value);
  }
}

function showProblems() {
  const problems = status.listeners.filter((l) => l.error).map((l) => `Listener ${l.name} does not listen: ${l.error}`);
  if (status.config.error) problems.unshift(`The configuration could not be loaded anew, the one before is in force: ${status.config.error}`);
  if (!status.ready) problems.unshift(`Not ready: ${status.not_ready || "no reason is given"}`);
  const list = byId("problems");
  list.hidden = problems.length === 0;
  while (list.children.length > problems.length) list.lastChild.remove();
  problems.forEach((text, i) => {
    if (!list.children[i]) list.append(el("li", { class: "problem" }, icon("warn"), el("span")));
    setText(list.children[i].lastChild, text);
  });
}

// drawCharts marks the moment that a pointer or the slider is at.
function drawCharts() {
  if (!status) return;
  const now = Date.parse(status.now) / 1000;
  const before = pointed ?? Number(byId("cursor").value);
  const at = nearest(past.samples, now + before);
  for (const chart of charts) chart.draw(past.samples, now, at, before !== 0);
  const time = before === 0 ? "now" : clock((now + before) * 1000);
  setText(byId("cursor-time"), time);
  byId("cursor").setAttribute("aria-valuetext", time);
}

// nearest is the sample at that time, undefined where there is none within two seconds.
function nearest(samples, at) {
  let best;
  for (const s of samples) {
    if (best === undefined || Math.abs(s.at - at) < Math.abs(best.at - at)) best = s;
  }
  return best && Math.abs(best.at - at) <= 2 ? best : undefined;
}

// announce tells those who do not see the page.
const announce = (text) => setText(byId("announcements"), text);

const MOST_ANNOUNCED = 3;

function announceChanges(before, after, isOther) {
  if (!before) return;
  const news = changes(before, after);
  if (isOther) news.unshift("Another process is the door now.");
  if (news.length === 0) return;
  const more = news.length - MOST_ANNOUNCED;
  announce(news.slice(0, MOST_ANNOUNCED).join(" ") + (more > 0 ? ` And ${more} more changes.` : ""));
}

function changes(before, after) {
  const news = [];
  if (before.ready !== after.ready) news.push(after.ready ? "The door is ready." : `The door is not ready: ${after.not_ready}.`);
  if (before.config.loaded !== after.config.loaded) news.push("A new configuration is in force.");
  if (after.config.error && before.config.failures !== after.config.failures) news.push("The configuration could not be loaded anew.");
  news.push(
    ...changed(before.listeners, after.listeners, (l) => l.name, (l) => (l.error ? "does not listen" : "listens"), "Listener"),
    ...changed(before.endpoints, after.endpoints, (e) => e.name, (e) => `is ${endpointState(e).text.toLowerCase()}`, "Endpoint"),
    ...changed(before.upstreams, after.upstreams, (u) => `${u.address} of ${u.route}`, (u) => (u.healthy ? "is healthy" : "is unfit"), "Upstream"),
  );
  return news;
}

function changed(before, after, name, inWords, noun) {
  const old = new Map(before.map((one) => [name(one), inWords(one)]));
  return after
    .filter((one) => old.has(name(one)) && old.get(name(one)) !== inWords(one))
    .map((one) => `${noun} ${name(one)} ${inWords(one)}.`);
}

function start() {
  routes.searchWith(byId("routes-search"));
  endpoints.searchWith(byId("endpoints-search"));
  refusals.searchWith(byId("refusals-search"));

  const outcome = byId("refusals-outcome");
  outcome.append(...Array.from(outcomes, ([value, words]) => el("option", { value }, words)));
  outcome.addEventListener("change", () => refusals.accept((r) => outcome.value === "" || r.outcome === outcome.value));

  byId("cursor").addEventListener("input", drawCharts);
  for (const chart of charts) {
    chart.onPoint((before) => {
      pointed = before;
      drawCharts();
    });
  }

  byId("pause").addEventListener("click", (event) => {
    event.target.setAttribute("aria-pressed", String(!isPaused()));
    isPaused() ? clearTimeout(timer) : poll();
  });
  document.addEventListener("visibilitychange", () => (document.hidden || isPaused() ? clearTimeout(timer) : poll()));

  showState();
  poll();
}

start();
