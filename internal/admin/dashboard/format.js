// Numbers and times in words.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

// none stands where there is no number.
export const none = "–";

export const count = (n) => whole.format(n);

// digits has about three significant ones and no exponent.
function digits(n) {
  if (n === 0 || n >= 100) return whole.format(n);
  return n.toFixed(n >= 10 ? 1 : 2);
}

function scaled(n, steps) {
  for (const [size, unit] of steps) {
    if (n >= size * 0.9995) return `${digits(n / size)} ${unit}`;
  }
  return `${digits(n)} ${steps.at(-1)[1]}`;
}

export const rate = (n) => (n == null ? none : `${digits(n)}/s`);

const sizes = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];
export const bytes = (n) => (n < 999.5 ? `${whole.format(n)} B` : scaled(n, sizes));
export const byteRate = (n) => (n == null ? none : `${bytes(n)}/s`);

const spans = [[3600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"], [1e-6, "µs"]];
export function seconds(s) {
  if (s == null) return none;
  return s === 0 ? "0 s" : scaled(s, spans);
}

// span is how long something has lasted, in the two largest units.
export function span(s) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  s = Math.max(0, Math.floor(s));
  let i = units.findIndex(([size]) => s >= size);
  if (i < 0) i = units.length - 1;
  const parts = [];
  for (const [size, unit] of units.slice(i, i + 2)) {
    const n = Math.floor(s / size);
    s -= n * size;
    if (n > 0 || parts.length === 0) parts.push(`${n} ${unit}`);
  }
  return parts.join(" ");
}

// clock is a time of the day, with the date if that is another day than the one given.
export function clock(date, day) {
  const time = date.toLocaleTimeString("en-GB");
  const isThatDay = date.toDateString() === day.toDateString();
  return isThatDay ? time : `${date.toLocaleDateString("sv-SE")} ${time}`; // the Swedish way is that of ISO 8601
}
