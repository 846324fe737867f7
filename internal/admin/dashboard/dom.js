// What the page is built with. Everything that comes from the door, and with it from its clients, becomes the
// text of a node here and never markup.

const SVG = "http://www.w3.org/2000/svg";

// el makes an HTML element. Children are nodes or strings.
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// svg does the same for SVG.
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// setText touches the page only if the text changes, so that a selection survives and a screen reader is not
// told the same again.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Each kind of state has a shape of its own, since colour alone tells some people nothing.
const shapes = {
  good: () => svg("circle", { cx: 6, cy: 6, r: 4.5 }),
  idle: () => svg("circle", { cx: 6, cy: 6, r: 3.75, class: "hollow" }),
  warn: () => svg("path", { d: "M6 1 11.500 11H.5z" }),
  bad: () => svg("path", { d: "M2 2l8 8M10 2l-8 8", class: "stroke" }),
};

// icon stands before a word that says the same, and is therefore hidden from screen readers.
export function icon(kind) {
  return svg("svg", { class: `icon ${kind}`, viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" }, shapes[kind]());
}
