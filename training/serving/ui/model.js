// The page /ui/model: the model card drawn.

import { back, getJson, getPicture } from "./api.js";
import * as charts from "./charts.js";
import { byId, h } from "./dom.js";
import { called, count, day, either, overruled, percent } from "./words.js";

const DRAWN = new Set(["pictures", "accuracy", "accuracy_interval", "log_loss", "roc_auc", "calibration_error",
  "calibration_error_before_temperature", "per_class", "confusion_matrix", "confused",
  "balanced_accuracy", "macro_f1", "top_5_accuracy", "weak_classes",
  "reliability", "reliability_before_temperature", "abstention"]);

const SHADE = 40; // percent at most of a cell's colour, so that its text stays legible

start();

async function start() {
  const card = await cardWhenBack();
  byId("title").textContent = called(card.model, card.model_sha256);
  document.title = `${card.model.name}: the model`;
  document.querySelector("[data-name]").textContent = card.model.name;
  byId("summary").replaceChildren(...summary(card));
  const panels = [tiles, live, confusion, calibration, classes, further, mistakes, verdict, lineage, former];
  byId("card").replaceChildren(...panels.map((draw) => draw(card)).filter(Boolean));
  if (location.hash) document.querySelector(location.hash)?.scrollIntoView();
}

async function cardWhenBack() {
  for (;;) {
    try {
      return await getJson("model");
    } catch (problem) {
      byId("notice").textContent = problem.words ?? problem.message;
      byId("notice").hidden = false;
      if (!problem.again) throw problem;
      await back();
      byId("notice").hidden = true;
    }
  }
}

function summary(card) {
  const { metrics, promotion } = card;
  const since = promotion?.champion.promoted;
  const why = overruled(promotion);
  const [low, high] = metrics.accuracy_interval;
  return [
    `Right on ${percent(metrics.accuracy)} of ${count(metrics.pictures, "test picture")} that it never learnt from, `,
    `with a 95 % interval from ${percent(low)} to ${percent(high)}.`,
    since ? ` Champion since ${day(since)}.` : "",
    why ? ` ${why}` : "",
  ];
}

/** A section of the page; `id` is its anchor. */
function panel(id, title, lead, ...children) {
  return h("section", { class: "panel", id, "aria-labelledby": `${id}-title` },
    h("h2", { id: `${id}-title` }, title), lead ? h("p", { class: "lead" }, lead) : null, ...children);
}

function half(section) {
  section.classList.add("half");
  return section;
}

/** `rows`: arrays of cells, each text or an element; the first of a row names it. */
function table(head, rows, { numbers = [], caption = null, look = "", sorts = false } = {}) {
  const kind = (index) => (numbers.includes(index) ? "number" : null);
  const title = (cell, index) => (sorts ? h("button", { type: "button", class: "sort", onclick: (event) => sort(event, index) }, cell) : cell);
  return h("div", { class: `scroll ${look}`, tabindex: "0", role: "region", "aria-label": caption ?? head.join(", ") }, h("table", {},
    caption ? h("caption", {}, caption) : null,
    h("thead", {}, h("tr", {}, head.map((cell, index) => h("th", { scope: "col", class: kind(index) }, title(cell, index))))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, index) =>
      index ? h("td", { class: kind(index) }, cell ?? "") : h("th", { scope: "row", class: kind(0) }, cell)))))));
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
  const number = (row) => parseFloat(text(row).replaceAll(",", ""));
  const order = head.classList.contains("number") ? (a, b) => number(a) - number(b) : (a, b) => compare(text(a), text(b));
  body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
}

function tiles({ metrics, abstention }) {
  const measured = metrics.abstention ?? {};
  const rows = [
    ["Accuracy", percent(metrics.accuracy), `95 % interval ${metrics.accuracy_interval.map((share) => percent(share)).join(" to ")}`],
    ["Balanced accuracy", shareOr(metrics.balanced_accuracy), "mean recall of the classes: a rare one counts as much"],
    ["Top-5 accuracy", shareOr(metrics.top_5_accuracy), "the class is among the five most probable ones"],
    ["Macro F1", figureOr(metrics.macro_f1), "mean F1 of the classes"],
    ["Answered", shareOr(measured.answered), `the rest is “not sure”: below ${percent(abstention.confidence_threshold)}, or unfamiliar`],
    ["Accuracy of answers", shareOr(measured.accuracy_of_answers), "without those that are “not sure”"],
    ["ROC-AUC", figureOr(metrics.roc_auc), "1 is perfect, 0.5 is chance"],
    ["Log-loss", figureOr(metrics.log_loss), "in nats, lower is better"],
    ["Calibration error", shareOr(metrics.calibration_error), `${shareOr(metrics.calibration_error_before_temperature)} before temperature scaling`],
  ];
  return h("dl", { class: "tiles" }, rows.filter(([, value]) => value).map(([name, value, note]) =>
    h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, h("div", { class: "big" }, value), h("div", { class: "small" }, note)))));
}

/** What the card holds beyond the figures that are drawn: behaviour, unfamiliar pictures and whatever comes. */
function further({ metrics }) {
  const rows = Object.entries(metrics).filter(([name]) => !DRAWN.has(name)).flatMap(([name, value]) => flat(name, value));
  return rows.length ? panel("further", "Further figures", "", table(["figure", "measured"], rows, { numbers: [1] })) : null;
}

/** Numbers of nested objects, each under the names that lead to it. */
function flat(name, value) {
  if (typeof value === "number") return [[name.replaceAll("_", " "), Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(4)]];
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [];
  return Object.entries(value).flatMap(([key, part]) => flat(`${name}: ${key}`, part));
}

function shareOr(value) {
  return value === undefined ? null : percent(value);
}

function figureOr(value) {
  return value === undefined ? null : value.toFixed(4);
}

/** What people said of its answers, beside what evaluation promised. */
function live({ live: found, metrics }) {
  const [low, high] = metrics.accuracy_interval;
  const promised = { name: `${count(metrics.pictures, "test picture")}`, value: metrics.accuracy, low, high };
  const lead = "How often its likeliest class is right, with 95 % intervals.";
  if (!found) {
    return panel("live", "Live accuracy", lead, charts.intervals([promised]),
      h("p", { class: "muted" }, "Nobody has told this service yet whether its answers are right: ",
        h("a", { href: "../ui" }, "try it"), " and say so."));
  }
  const said = {
    name: count(found.pictures, "answer people judged", "answers people judged"),
    value: found.right / found.pictures, low: found.low, high: found.high,
  };
  return panel("live", "Live accuracy", lead, charts.intervals([promised, said]));
}

/** Rows are what a picture is, columns what the model says; the shade is the share of the row. */
function confusion({ metrics, classes: names }) {
  const matrix = metrics.confusion_matrix;
  if (!matrix) return confused(metrics);
  const cells = (row) => {
    const sum = row.reduce((total, value) => total + value, 0) || 1;
    return row.map((value) => {
      const cell = h("td", {}, h("b", {}, value.toLocaleString("en")), percent(value / sum, 0));
      cell.style.background = `color-mix(in oklab, var(--accent) ${Math.round((value / sum) * SHADE)}%, var(--track))`;
      return cell;
    });
  };
  const head = h("tr", {}, h("td", { class: "corner" }), names.map((name) => h("th", { scope: "col" }, `says ${name}`)));
  const rows = names.map((name, index) => h("tr", {}, h("th", { scope: "row" }, `is ${name}`), cells(matrix[index])));
  return half(panel("confusion", "What it mixes up", `Test pictures by what they are and what the model says.`,
    h("div", { class: `scroll confusion${names.length > 4 ? " many" : ""}`, tabindex: "0", role: "region", "aria-label": "Confusion matrix" },
      h("table", {}, h("thead", {}, head), h("tbody", {}, rows)))));
}

/** Of many classes the pairs that are confused most. */
function confused({ confused: pairs }) {
  if (!pairs?.length) return null;
  const rows = pairs.map((one) => [one.is, one.says, one.pictures.toLocaleString("en"), percent(one.share)]);
  return half(panel("confusion", "What it mixes up", "The pairs of classes that are confused most.",
    table(["is", "taken for", "pictures", "share of its pictures"], rows, { numbers: [2, 3], sorts: true })));
}

function calibration({ metrics, classes: names }) {
  const bins = metrics.reliability;
  if (!bins) return null;
  const before = metrics.reliability_before_temperature;
  const from = names.length === 2 ? 0.5 : 0;
  const numbers = bins.map((bin) => [bin.confidence.toFixed(3), percent(bin.accuracy),
    bin.interval.map((share) => percent(share)).join(" to "), bin.pictures.toLocaleString("en")]);
  return half(panel("reliability", "Whether its confidence can be believed",
    "On the dashed line, confidence is how often it is right. The bars are 95 % intervals, a large dot stands for many pictures, grey is before temperature scaling.",
    charts.reliability(bins, before, from),
    h("details", {}, h("summary", {}, "The same as a table"),
      table(["confidence", "right", "95 % interval", "pictures"], numbers, { numbers: [1, 2, 3] }))));
}

function classes({ metrics }) {
  if (!metrics.per_class) return null;
  const rows = Object.entries(metrics.per_class).map(([name, one]) => [
    name, percent(one.precision), percent(one.recall), one.f1.toFixed(3), one.pictures.toLocaleString("en"),
  ]);
  const weak = (metrics.weak_classes ?? []).map((row) =>
    h("li", {}, `${row.class}: ${percent(row.recall)} of ${row.pictures} pictures, most often taken for ${row.mistaken_for}`));
  return panel("classes", "Class by class", "Precision: of its answers, how many are right. Recall: of the pictures, how many it finds.",
    ...(weak.length ? [h("p", {}, "Surely below the average class:"), h("ul", {}, weak)] : []),
    table(["class", "precision", "recall", "F1", "pictures"], rows, { numbers: [1, 2, 3, 4], sorts: true }));
}

function mistakes({ mistakes: found }) {
  if (!found?.length) return null;
  const list = h("ul", { class: "mistakes" }, found.map((one) => {
    const picture = h("img", { alt: `A ${one.label} taken for ${one.predicted}`, width: 136, height: 136 });
    getPicture(`ui/mistakes/${one.file.split("/").at(-1)}`)
      .then((blob) => (picture.src = URL.createObjectURL(blob)))
      .catch((problem) => picture.replaceWith(h("p", { class: "muted" }, problem.words ?? problem.message)));
    return h("li", {}, h("figure", {}, picture, h("figcaption", {},
      `says ${one.predicted}, ${percent(one.confidence)}`, h("br"), h("span", { class: "muted" }, `is ${one.label}`))));
  }));
  return panel("mistakes", "Its worst mistakes", "The test pictures where it was surest and wrong.", list);
}

function verdict({ promotion }) {
  if (!promotion) {
    return panel("verdict", "The gate", "This service does not hold how the model was judged: it is served from a folder, or was pinned before that was kept.");
  }
  const { verdict: judged, champion } = promotion;
  if (!judged) return panel("verdict", "The gate", "The gate never judged this model: its alias was moved by hand.");
  const against = judged.champion ? ` against version ${judged.champion.version}, the champion then` : "";
  const words = { pass: "passed", forced: "failed, and was overruled", fail: "failed" }[judged.gate];
  const rows = judged.checks.map((check) => [
    check.name, h("span", { class: `mark ${check.passed ? "pass" : "fail"}` }, check.passed ? "✓ pass" : "✗ fail"), check.figure, check.limit,
  ]);
  const because = champion.promoted_because && champion.promoted_because !== "passed the gate" ? ` Promoted because: ${champion.promoted_because}.` : "";
  return panel("verdict", `The gate: ${words}`,
    `Judged on ${day(judged.created)}${against}, by the same test pictures and the code that serves.${because}`,
    table(["check", "verdict", "found", "wanted"], rows, { look: "checks" }));
}

/** From pictures to this answer: each link by the name under which it can be found again. */
function lineage(card) {
  const { lineage: origin, model, metrics } = card;
  const links = [
    ["Pictures", [`${either(card.classes)}; manifest `, code(origin.data_hash)]],
    ["Test pictures, kept apart", [`${count(metrics.pictures, "picture")}; `, code(origin.test_hash)]],
    ["Code", ["commit ", code(origin.git_commit), origin.git_dirty ? " with changes beside it" : ""]],
    ["Parameters", [`${card.architecture}, seed ${origin.seed}; `, code(origin.params_hash)]],
    ["Training run", [day(origin.created), "; ", model.run_id ? ["MLflow run ", code(model.run_id)] : "no run is known"]],
    ["Network", ["model.onnx ", code(card.model_sha256), parity(card)]],
    ["Registered", [model.version ? `version ${model.version} of ${model.name} in MLflow, called champion by the gate` : "served from a folder, not from the registry"]],
    ["Shipped", [model.bento_tag ? ["BentoML model ", code(model.bento_tag)] : "no Bento"]],
    ["Answer", ["every one carries these names; ", code("python -m training.registry trace answer.json"), " walks back"]],
  ];
  return panel("lineage", "From pictures to answer", "Each link by the name it can be found by.",
    h("ol", { class: "chain" }, links.map(([name, told]) => h("li", {}, h("h3", {}, name), h("p", {}, ...told.flat())))));
}

function parity({ parity: found }) {
  return found ? `; answers as in training, to ${found.max_difference.toExponential(0)} on ${count(found.pictures, "picture")}` : "";
}

function code(text) {
  return h("code", {}, text);
}

function former({ promotion }) {
  if (!promotion?.former.length) return null;
  const rows = promotion.former.map((one) => [
    `version ${one.version}`, day(one.promoted), one.accuracy ? percent(Number(one.accuracy)) : "", one.promoted_because,
    one.rolled_back ? `rolled back ${one.rolled_back}` : "replaced",
  ]);
  return panel("former", "Former champions", "", table(["model", "champion from", "accuracy", "because", "then"], rows, { look: "checks" }));
}
