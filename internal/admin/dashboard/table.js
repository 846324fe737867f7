// Tables that are sorted, searched and brought up to date in place.

import { el, icon, setText } from "./dom.js";
import { count } from "./format.js";

// Nobody reads more rows than these, and a page with 10,000 of them is slow.
const LIMIT = 100;

// Table has the columns { title, value, cell, isNumeric }: value(row) is what it sorts by, cell(row) what it
// shows, as a list of parts. A part is a string, or { text, icon, style } on a line of its own.
export class Table {
  #columns;
  #key;
  #search;
  #noun;
  #empty;
  #body = el("tbody", { role: "rowgroup" });
  #note = el("p", { class: "note", role: "status" });
  #table;
  #headers = [];
  #sorted = null; // { column, isDescending }
  #shown = new Map(); // key → { row, parts: what its cells show }
  #rows = [];
  #words = [];
  #accepts = () => true;

  // key(row) says which row of before this one is; search(row) is the text that it is found by; noun is what rows are called, many of
  // them; empty is said where there is none.
  constructor(section, { columns, key, search, noun, empty }) {
    this.#columns = columns;
    this.#key = key;
    this.#search = search;
    this.#noun = noun;
    this.#empty = empty;
    const head = el("tr", { role: "row" }, ...columns.map((column) => this.#header(column)));
    // The roles are said once more since browsers forget them where the style makes cards of rows.
    this.#table = el("table", { role: "table", "aria-labelledby": `${section.id}-title` },
      el("thead", { role: "rowgroup" }, head), this.#body);
    section.append(this.#table, this.#note);
  }

  #header(column) {
    const button = el("button", { type: "button" }, column.title);
    const th = el("th", { role: "columnheader", scope: "col", "aria-sort": "none" }, button);
    if (column.isNumeric) th.classList.add("number");
    button.addEventListener("click", () => this.#sortBy(column));
    this.#headers.push(th);
    return th;
  }

  // sortBy begins with the end that people look for: the first of names, the largest of numbers.
  #sortBy(column) {
    const isSame = this.#sorted?.column === column;
    this.#sorted = { column, isDescending: isSame ? !this.#sorted.isDescending : Boolean(column.isNumeric) };
    this.#headers.forEach((th, i) => {
      const direction = this.#sorted.isDescending ? "descending" : "ascending";
      th.setAttribute("aria-sort", this.#columns[i] === column ? direction : "none");
    });
    this.#render();
  }

  // searchWith follows a search box: every word in it must be in a row.
  searchWith(input) {
    input.addEventListener("input", () => {
      this.#words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.#render();
    });
  }

  // accept shows only rows for which test is true.
  accept(test) {
    this.#accepts = test;
    this.#render();
  }

  update(rows) {
    this.#rows = rows;
    this.#render();
  }

  #render() {
    const found = this.#rows.filter((row) => this.#accepts(row) && this.#matches(row));
    if (this.#sorted) sort(found, this.#sorted);
    const shown = found.slice(0, LIMIT);
    this.#table.hidden = shown.length === 0;
    setText(this.#note, this.#inWords(found.length, shown.length));
    this.#reconcile(shown);
  }

  #matches(row) {
    if (this.#words.length === 0) return true;
    const text = this.#search(row).toLowerCase();
    return this.#words.every((word) => text.includes(word));
  }

  #inWords(found, shown) {
    const all = this.#rows.length;
    if (all === 0) return this.#empty;
    if (found === 0) return `None of ${count(all)} ${this.#noun} matches.`;
    if (shown < found) return `The first ${count(shown)} of ${count(found)} ${this.#noun}. Search, or sort by another column, to see others.`;
    return found < all ? `${count(found)} of ${count(all)} ${this.#noun}.` : "";
  }

  // reconcile keeps the elements of rows that stay, so that a selection stays as well, and moves only those
  // that have to.
  #reconcile(rows) {
    const keys = this.#uniqueKeys(rows);
    for (const [key, { row }] of this.#shown) {
      if (keys.has(key)) continue;
      row.remove();
      this.#shown.delete(key);
    }
    let next = this.#body.firstChild;
    for (const [key, row] of keys) {
      if (!this.#shown.has(key)) this.#shown.set(key, this.#newRow());
      const entry = this.#shown.get(key);
      this.#fill(entry, row);
      if (entry.row === next) next = next.nextSibling;
      else this.#body.insertBefore(entry.row, next);
    }
  }

  // uniqueKeys tells rows apart that are the same in all that they show.
  #uniqueKeys(rows) {
    const keys = new Map();
    for (const row of rows) {
      let key = this.#key(row);
      while (keys.has(key)) key += "\n";
      keys.set(key, row);
    }
    return keys;
  }

  #newRow() {
    const cells = this.#columns.map((column) => {
      const td = el("td", { role: "cell", "data-title": column.title });
      if (column.isNumeric) td.classList.add("number");
      return td;
    });
    return { row: el("tr", { role: "row" }, ...cells), parts: [] };
  }

  #fill(entry, row) {
    this.#columns.forEach((column, i) => {
      const parts = column.cell(row);
      const signature = JSON.stringify(parts);
      if (entry.parts[i] === signature) return;
      entry.parts[i] = signature;
      entry.row.cells[i].replaceChildren(...parts.map(partNode));
    });
  }
}

function partNode(part) {
  if (typeof part === "string") return el("span", {}, part);
  const node = el("span", part.style ? { class: part.style } : {});
  if (part.icon) node.append(icon(part.icon));
  node.append(part.text);
  return node;
}

// sort compares numbers as such and anything else as text; what has no value comes last.
function sort(rows, { column, isDescending }) {
  const values = new Map(rows.map((row) => [row, column.value(row)]));
  const sign = isDescending ? -1 : 1;
  rows.sort((a, b) => {
    const [x, y] = [values.get(a), values.get(b)];
    if (x == null || y == null) return (x == null) - (y == null);
    if (typeof x === "number") return sign * (x - y);
    return sign * collator.compare(x, y);
  });
}

const collator = new Intl.Collator("en", { numeric: true });
