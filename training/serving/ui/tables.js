// Tables with numbers, bars and sorting.

import { h } from "./dom.js";
import { percent } from "./words.js";

/** `rows`: arrays of cells, each text or an element; the first of a row names it. A cell sorts by its `data-value`, or by
 * its text. */
export function table(head, rows, { numbers = [], caption = null, look = "", sorts = true } = {}) {
  const kind = (index) => (numbers.includes(index) ? "number" : null);
  const title = (cell, index) => (sorts && rows.length > 1
    ? h("button", { type: "button", class: "sort", onclick: (event) => sort(event, index) }, cell) : cell);
  return h("div", { class: `scroll ${look}`, tabindex: "0", role: "region", "aria-label": caption ?? head.join(", ") }, h("table", {},
    caption ? h("caption", {}, caption) : null,
    h("thead", {}, h("tr", {}, head.map((cell, index) => h("th", { scope: "col", class: kind(index) }, title(cell, index))))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, index) =>
      index ? h("td", { class: kind(index) }, cell ?? "") : h("th", { scope: "row", class: kind(0) }, cell)))))));
}

/** A share as a number above a bar; `interval` is drawn over it, `floor` marked, `look` a class of its own. */
export function shareBar(value, { interval = null, floor = null, look = "" } = {}) {
  const full = h("span", { class: "full" });
  full.style.width = `${value * 100}%`;
  const below = floor !== null && value < floor;
  return h("span", { class: `${look}${below ? " below" : ""}`, "data-value": value }, percent(value),
    h("span", { class: "track", "aria-hidden": "true" }, full, interval ? span("whisker", ...interval) : null,
      floor === null ? null : span("tick", floor)));
}

function span(look, from, to = null) {
  const element = h("span", { class: look });
  element.style.left = `${from * 100}%`;
  if (to !== null) element.style.width = `${(to - from) * 100}%`;
  return element;
}

/** Sort the rows by a column, numbers by their value; once more turns the order. */
function sort(event, index) {
  const head = event.target.closest("th");
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = head.closest("table").tBodies[0];
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const text = (row) => row.children[index].textContent;
  const number = (row) => parseFloat(row.children[index].querySelector("[data-value]")?.dataset.value ?? text(row).replaceAll(",", "").replace("−", "-"));
  const numeric = head.classList.contains("number") || body.rows[0].children[index].querySelector("[data-value]");
  const order = numeric ? (a, b) => number(a) - number(b) : (a, b) => compare(text(a), text(b));
  body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
}
