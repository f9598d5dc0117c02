// Plots as SVG, each with a name for those who do not see it; the numbers stand beside them in a table.

import { h, s } from "./dom.js";
import { percent } from "./words.js";

const SIDE = 320;
const EDGE = { left: 58, right: 12, top: 12, bottom: 40 };

/** Share that is right against confidence: bins with their intervals, the larger the more pictures; the line before temperature, the diagonal. */
export function reliability(bins, before, from) {
  const x = scale(from, 1, EDGE.left, SIDE - EDGE.right);
  const y = scale(0, 1, SIDE - EDGE.bottom, EDGE.top);
  const most = Math.max(...bins.map((bin) => bin.pictures));
  const path = (points) => points.map((bin, i) => `${i ? "L" : "M"}${x(bin.confidence)} ${y(bin.accuracy)}`).join("");
  return plot(SIDE, SIDE, "Reliability: share of right answers against confidence; the table below has the numbers",
    ticks(from, 1).map((at) => [
      s("line", { class: "grid", x1: x(at), x2: x(at), y1: EDGE.top, y2: SIDE - EDGE.bottom }),
      s("text", { x: x(at), y: SIDE - EDGE.bottom + 18, "text-anchor": "middle" }, at.toFixed(1)),
    ]).flat(),
    ticks(0, 1).map((at) => [
      s("line", { class: "grid", x1: EDGE.left, x2: SIDE - EDGE.right, y1: y(at), y2: y(at) }),
      s("text", { x: EDGE.left - 8, y: y(at) + 4, "text-anchor": "end" }, at.toFixed(1)),
    ]).flat(),
    s("line", { class: "ideal", x1: x(from), y1: y(from), x2: x(1), y2: y(1) }),
    before ? s("path", { class: "before", d: path(before) }) : null,
    bins.map((bin) => s("line", {
      class: "whisker", x1: x(bin.confidence), x2: x(bin.confidence), y1: y(bin.interval[0]), y2: y(bin.interval[1]),
    })),
    s("path", { class: "line", d: path(bins) }),
    bins.map((bin) => s("circle", { class: "dot", cx: x(bin.confidence), cy: y(bin.accuracy), r: 3 + 6 * Math.sqrt(bin.pictures / most) })),
    s("text", { x: (EDGE.left + SIDE) / 2, y: SIDE - 4, "text-anchor": "middle" }, "confidence"),
    s("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(12 ${SIDE / 2 - 14}) rotate(-90)` }, "share that is right"));
}

/** Shares with their 95 % intervals, one below the other on one axis: [{name, value, low, high}]. */
export function intervals(rows) {
  const from = Math.max(0, Math.floor((Math.min(...rows.map((row) => row.low)) - 0.01) * 20) / 20);
  const x = scale(from, 1, 0, 100);
  return h("ul", { class: "intervals" },
    rows.map((row) => {
      const [whisker, dot] = [h("span", { class: "whisker" }), h("span", { class: "dot" })];
      whisker.style.left = `${x(row.low)}%`;
      whisker.style.width = `${x(row.high) - x(row.low)}%`;
      dot.style.left = `${x(row.value)}%`;
      return h("li", {}, h("span", {}, row.name), h("strong", {}, percent(row.value)),
        h("span", { class: "muted" }, `${percent(row.low)} to ${percent(row.high)}`),
        h("span", { class: "axis", "aria-hidden": "true" }, whisker, dot));
    }),
    h("li", { class: "ends muted", "aria-hidden": "true" }, h("span", {}, percent(from, 0)), h("span", {}, percent(1, 0))));
}

function plot(width, height, name, ...parts) {
  return s("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name }, ...parts);
}

function scale(from, to, start, end) {
  return (value) => start + ((value - from) / (to - from)) * (end - start);
}

function ticks(from, to) {
  return [0, 1, 2, 3, 4, 5].map((step) => from + ((to - from) * step) / 5);
}
