// Plots as SVG, each with a name for those who do not see it; the numbers stand beside them in a table.

import { s } from "./dom.js";
import { percent } from "./words.js";

const SIDE = 320;
const EDGE = { left: 44, right: 12, top: 12, bottom: 40 };

/** Share that is right against confidence: bins with their intervals, the line before temperature, the diagonal. */
export function reliability(bins, before, from) {
  const x = scale(from, 1, EDGE.left, SIDE - EDGE.right);
  const y = scale(0, 1, SIDE - EDGE.bottom, EDGE.top);
  const path = (points) => points.map((bin, i) => `${i ? "L" : "M"}${x(bin.confidence)} ${y(bin.accuracy)}`).join("");
  return plot(SIDE, SIDE, "Reliability: share of right answers against confidence; the table below has the numbers",
    ticks(from, 1).map((at) => [
      s("line", { class: "grid", x1: x(at), x2: x(at), y1: EDGE.top, y2: SIDE - EDGE.bottom }),
      s("text", { x: x(at), y: SIDE - EDGE.bottom + 18, "text-anchor": "middle" }, at.toFixed(2)),
    ]).flat(),
    ticks(0, 1).map((at) => [
      s("line", { class: "grid", x1: EDGE.left, x2: SIDE - EDGE.right, y1: y(at), y2: y(at) }),
      s("text", { x: EDGE.left - 8, y: y(at) + 4, "text-anchor": "end" }, at.toFixed(2)),
    ]).flat(),
    s("line", { class: "ideal", x1: x(from), y1: y(from), x2: x(1), y2: y(1) }),
    before ? s("path", { class: "before", d: path(before) }) : null,
    bins.map((bin) => s("line", {
      class: "whisker", x1: x(bin.confidence), x2: x(bin.confidence), y1: y(bin.interval[0]), y2: y(bin.interval[1]),
    })),
    s("path", { class: "line", d: path(bins) }),
    bins.map((bin) => s("circle", { class: "dot", cx: x(bin.confidence), cy: y(bin.accuracy), r: 4 })),
    s("text", { x: (EDGE.left + SIDE) / 2, y: SIDE - 4, "text-anchor": "middle" }, "confidence"),
    s("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(11 ${SIDE / 2 - 14}) rotate(-90)` }, "share that is right"));
}

/** Shares with their 95 % intervals, one below the other on one axis: [{name, value, low, high}]. */
export function intervals(rows) {
  const width = 640;
  const line = 44;
  const height = rows.length * line + 30;
  const lowest = Math.max(0, Math.floor((Math.min(...rows.map((row) => row.low)) - 0.02) * 20) / 20);
  const x = scale(lowest, 1, 190, width - 24);
  const words = rows.map((row) => `${row.name} ${percent(row.value)}, interval ${percent(row.low)} to ${percent(row.high)}`);
  return plot(width, height, words.join("; "),
    ticks(lowest, 1).map((at) => [
      s("line", { class: "grid", x1: x(at), x2: x(at), y1: 4, y2: height - 26 }),
      s("text", { x: x(at), y: height - 8, "text-anchor": "middle" }, percent(at, 0)),
    ]).flat(),
    rows.map((row, index) => {
      const middle = index * line + line / 2 + 4;
      return [
        s("text", { class: "name", x: 0, y: middle + 4 }, row.name),
        s("line", { class: "whisker", x1: x(row.low), x2: x(row.high), y1: middle, y2: middle }),
        s("circle", { class: "dot", cx: x(row.value), cy: middle, r: 6 }),
      ];
    }).flat());
}

function plot(width, height, name, ...parts) {
  return s("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name }, ...parts);
}

function scale(from, to, start, end) {
  return (value) => start + ((value - from) / (to - from)) * (end - start);
}

/** Five places from `from` to `to`. */
function ticks(from, to) {
  return [0, 1, 2, 3, 4].map((step) => from + ((to - from) * step) / 4);
}
