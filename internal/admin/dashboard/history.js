// What happened in the last five minutes, from the differences of what the door has counted.

export const MINUTES = 5;
const KEEP = MINUTES * 60; // s

// With no answer for so long, there is a gap in the charts, not a line across it.
const GAP = 5; // s

// A route's rate is that of the last few seconds: of one second it would jump about.
const RATE_OVER = 10; // s

// quantile estimates as Histogram.Quantile of package admin does. It is null if there are no durations.
export function quantile(bounds, counts, q) {
  const total = counts.reduce((sum, n) => sum + n, 0);
  if (total === 0) return null;
  const rank = q * total;
  let lower = 0;
  let below = 0;
  for (let i = 0; i < bounds.length; i++) {
    const n = counts[i] ?? 0;
    if (n > 0 && below + n >= rank) return lower + ((bounds[i] - lower) * (rank - below)) / n;
    lower = bounds[i];
    below += n;
  }
  return bounds.at(-1);
}

// connections adds up what became of a route's connections.
export function connections(route) {
  const sums = { handed: 0, proxied: 0, refused: 0 };
  for (const c of route.connections ?? []) {
    if (c.outcome === "handed_over") sums.handed += c.n;
    else if (c.outcome === "proxied") sums.proxied += c.n;
    else if (c.outcome !== "idle") sums.refused += c.n;
  }
  return sums;
}

function totals(status) {
  const sums = { handed: 0, proxied: 0, refused: 0, received: 0, sent: 0, open: 0, peeking: 0, handover: [] };
  for (const route of status.routes) {
    const c = connections(route);
    sums.handed += c.handed;
    sums.proxied += c.proxied;
    sums.refused += c.refused;
    sums.received += route.received_bytes;
    sums.sent += route.sent_bytes;
    (route.handover.counts ?? []).forEach((n, i) => (sums.handover[i] = (sums.handover[i] ?? 0) + n));
  }
  for (const listener of status.listeners) {
    sums.open += listener.open;
    sums.peeking += listener.peeking;
  }
  return sums;
}

export class History {
  // samples have the time at, in seconds of the door's clock, and the values that charts show; one with gap
  // set has no values.
  samples = [];
  #previous = null; // { at, process, totals }
  #routes = []; // { at, sums: by name }, the oldest first

  // add takes a status in. It returns whether the process is another one than before.
  add(status) {
    const now = { at: Date.parse(status.now) / 1000, process: `${status.pid} ${status.started}`, totals: totals(status) };
    const previous = this.#previous;
    this.#previous = now;
    const isOther = previous !== null && previous.process !== now.process;
    if (isOther) this.#routes = [];
    this.#addRoutes(now.at, status.routes);
    if (previous === null || now.at <= previous.at) return isOther;
    if (isOther || now.at - previous.at > GAP) {
      this.samples.push({ at: now.at, gap: true });
    } else {
      this.samples.push(difference(previous, now, status.histogram_bounds));
    }
    while (this.samples[0].at < now.at - KEEP) this.samples.shift();
    return isOther;
  }

  #addRoutes(at, routes) {
    const sums = new Map();
    for (const route of routes) {
      const c = connections(route);
      sums.set(route.name, c.handed + c.proxied + c.refused);
    }
    this.#routes.push({ at, sums });
    while (this.#routes.length > 2 && this.#routes[0].at < at - RATE_OVER) this.#routes.shift();
  }

  // routeRate is the connections of a route a second, null while that is unknown.
  routeRate(name) {
    const first = this.#routes[0];
    const last = this.#routes.at(-1);
    const before = first?.sums.get(name);
    if (before === undefined || last.at <= first.at) return null;
    return Math.max(0, last.sums.get(name) - before) / (last.at - first.at);
  }
}

// difference never is below zero: a route that a reload has removed takes its counts with it.
function difference(before, after, bounds) {
  const dt = after.at - before.at;
  const perSecond = (name) => Math.max(0, after.totals[name] - before.totals[name]) / dt;
  const handover = after.totals.handover.map((n, i) => Math.max(0, n - (before.totals.handover[i] ?? 0)));
  return {
    at: after.at,
    handed: perSecond("handed"),
    proxied: perSecond("proxied"),
    refused: perSecond("refused"),
    received: perSecond("received"),
    sent: perSecond("sent"),
    open: after.totals.open,
    peeking: after.totals.peeking,
    p50: quantile(bounds, handover, 0.5),
    p99: quantile(bounds, handover, 0.99),
  };
}
