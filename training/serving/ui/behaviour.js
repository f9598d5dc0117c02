// How answers behave: when a picture changes, and on pictures that are out of distribution.

import { h } from "./dom.js";
import { shareBar, table } from "./tables.js";
import { capital, count, percent, points } from "./words.js";

const CHANGES = { // as evaluation names them -> as the page does
  mirrored: "mirrored",
  brighter: "10 % brighter",
  darker: "10 % darker",
  more_contrast: "10 % more contrast",
  less_contrast: "10 % less contrast",
  encoded_again: "saved again as JPEG, quality 75",
  exif_rotated: "turned by EXIF, as phones do",
  cropped: "5 % cut off on each side",
  blurred: "blurred",
  noisy: "with noise",
};

/** The parts of the panel, or nothing where behaviour was not measured. `limits` are the gate's, where it judged. */
export function behaviour(found, limits = {}) {
  return [...invariance(found, limits.min_invariance), ...direction(found, limits.max_confidence_gain), ...minimum(found, limits.min_named)];
}

function invariance({ invariance: changes, harmless }, floor = null) {
  if (!changes || !Object.keys(changes).length) return [];
  const rows = Object.entries(changes).map(([name, { same_answer: same, mean_change: moved }]) => {
    const counts = !harmless || harmless.includes(name);
    return [
      counts ? said(name) : h("span", {}, said(name), h("span", { class: "muted" }, " (may matter here)")),
      shareBar(same.value, { interval: same.interval, floor: counts ? floor : null, look: counts ? "" : "aside" }),
      range(same.interval), moved === undefined ? "" : points(moved),
    ];
  });
  const mark = floor === null ? "" : ` The line marks the gate's floor, ${percent(floor)}; a change fails it when its whole interval lies below.`;
  return [
    h("h3", {}, "Changes that must not matter"),
    h("p", {}, `How often the answer stays the same, with the 95 % interval.${mark}`),
    table(["picture", "same answer", "95 % interval", "mean change of its probability"], rows, { numbers: [1, 2, 3], caption: null }),
  ];
}

function direction({ direction: changes }, most = null) {
  if (!changes || !Object.keys(changes).length) return [];
  const rows = Object.entries(changes).map(([name, { confidence_before: before, confidence_after: after, change }]) =>
    [said(name), shareBar(before, { look: "aside" }), shareBar(after), points(change.value, true), change.interval.map((each) => points(each, true)).join(" to ")]);
  const limit = most === null ? "" : ` The gate lets it rise by at most ${points(most)}.`;
  return [
    h("h3", {}, "Changes that must lower the confidence"),
    h("p", {}, `Mean confidence before and after the change.${limit}`),
    table(["picture", "before", "after", "change", "95 % interval"], rows, { numbers: [1, 2, 3, 4] }),
  ];
}

function minimum({ minimum: named }, floor = null) {
  if (!named?.pictures) return [];
  const share = named.right / named.pictures;
  const wrong = named.wrong?.length ? h("details", {}, h("summary", {}, `The ${count(named.wrong.length, "picture")} it gets wrong`),
    h("ul", {}, named.wrong.map((name) => h("li", {}, h("code", {}, name))))) : null;
  return [
    h("h3", {}, "Pictures that anyone recognises"),
    h("p", {}, `${named.right.toLocaleString("en")} of ${count(named.pictures, "picture")} are answered right.${floor === null ? "" : ` The line marks the gate's floor, ${percent(floor)}.`}`),
    h("div", { class: "alone" }, table(["pictures", "answered right"], [["named in data/named.txt", shareBar(share, { floor })]], { numbers: [1] })),
    wrong,
  ].filter(Boolean);
}

/** Kinds of pictures that show no class at all, and how many of them are caught: answered "not sure". */
export function outOfDistribution(kinds) {
  const rows = Object.entries(kinds).map(([kind, { pictures, not_sure: caught, auroc_novelty: novelty, auroc_confidence: confidence }]) => [
    kind === "all" ? h("strong", {}, "All kinds") : capital(kind.replaceAll("_", " ")), pictures.toLocaleString("en"),
    caught ? shareBar(caught.value, { interval: caught.interval }) : "", caught ? range(caught.interval) : "",
    area(novelty), area(confidence),
  ]);
  return table(["kind", "pictures", "caught", "95 % interval", "AUROC by novelty", "AUROC by confidence"], rows, { numbers: [1, 2, 3, 4, 5] });
}

function said(name) {
  return CHANGES[name] ?? name.replaceAll("_", " ");
}

function range(interval) {
  return interval.map((each) => percent(each)).join(" to ");
}

function area(found) {
  return found ? found.value.toFixed(3) : "";
}
