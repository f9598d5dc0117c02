// The page /ui/model: the model card drawn.

import { back, getJson, getPicture } from "./api.js";
import { behaviour, outOfDistribution } from "./behaviour.js";
import * as charts from "./charts.js";
import { byId, h } from "./dom.js";
import { table } from "./tables.js";
import { called, count, day, either, overruled, percent, points } from "./words.js";

const DRAWN = new Set(["pictures", "accuracy", "accuracy_interval", "log_loss", "roc_auc", "calibration_error",
  "calibration_error_before_temperature", "per_class", "confusion_matrix", "confused",
  "balanced_accuracy", "macro_f1", "top_5_accuracy", "weak_classes",
  "reliability", "reliability_before_temperature", "abstention", "behaviour", "other_things", "quantisation",
  "precision", "glance"]);

const SHADE = 40; // percent at most of a cell's colour, so that its text stays legible

start();

async function start() {
  const card = await cardWhenBack();
  byId("title").textContent = called(card.model, card.model_sha256);
  document.title = `${card.model.name}: the model`;
  document.querySelector("[data-name]").textContent = card.model.name;
  byId("summary").replaceChildren(...summary(card));
  const panels = [tiles, live, confusion, calibration, classes, behaves, strange, int8, further, mistakes, verdict, lineage, versions];
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
    `Right on ${percent(metrics.accuracy)} of ${count(metrics.pictures, "test picture")} that it was not trained on. `,
    `The 95 % interval is ${percent(low)} to ${percent(high)}.`,
    metrics.precision ? ` It computes in ${metrics.precision.serves}: ${metrics.precision.why}.` : "",
    metrics.glance?.serves ? ` A first look answers easy pictures: ${metrics.glance.why}.` : "",
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

function tiles({ metrics, abstention }) {
  const measured = metrics.abstention ?? {};
  const rows = [
    ["Accuracy", percent(metrics.accuracy), `95 % interval ${metrics.accuracy_interval.map((share) => percent(share)).join(" to ")}`],
    ["Balanced accuracy", shareOr(metrics.balanced_accuracy), "mean recall: rare classes count as much as frequent ones"],
    ["Top-5 accuracy", shareOr(metrics.top_5_accuracy), "the class is among the five likeliest"],
    ["Macro F1", figureOr(metrics.macro_f1), "mean F1: rare classes count as much as frequent ones"],
    ["Answered", shareOr(measured.answered), `the rest are “not sure”: confidence below ${percent(abstention.confidence_threshold)}, or out of distribution`],
    ["Accuracy of answers", shareOr(measured.accuracy_of_answers), "“not sure” left out"],
    ["ROC-AUC", figureOr(metrics.roc_auc), "1 is perfect, 0.5 is chance"],
    ["Log-loss", figureOr(metrics.log_loss), "in nats, lower is better"],
    ["Calibration error", shareOr(metrics.calibration_error), `${shareOr(metrics.calibration_error_before_temperature)} before temperature scaling`],
  ];
  return h("dl", { class: "tiles" }, rows.filter(([, value]) => value).map(([name, value, note]) =>
    h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, h("div", { class: "big" }, value), h("div", { class: "small" }, note)))));
}

function behaves({ metrics, promotion }) {
  const found = metrics.behaviour;
  if (!found) return null;
  const parts = behaviour(found, promotion?.verdict?.limits);
  const lead = found.pictures ? `Measured on ${count(found.pictures, "test picture")}, each changed in every way.` : "";
  return parts.length ? panel("behaviour", "How it behaves when a picture changes", lead, ...parts) : null;
}

function strange({ metrics }) {
  if (!metrics.other_things) return null;
  return panel("ood", "Out-of-distribution pictures",
    "They show none of the classes. One is caught when the answer is “not sure”. AUROC: 1 tells them all from test pictures, 0.5 none.",
    outOfDistribution(metrics.other_things));
}

/** An int8 model beside the same weights in fp32. */
function int8({ metrics }) {
  const found = metrics.quantisation;
  if (!found) return null;
  const rows = Object.entries(found).filter(([, value]) => typeof value === "number").map(([name, value]) => [said(name), figure(name, value)]);
  return panel("int8", "In int8, beside the same weights in fp32", "", table(["figure", "measured"], rows, { numbers: [1], sorts: false }));
}

/** Figures that this page has no drawing for: whatever a later evaluation measures. */
function further({ metrics }) {
  const rows = Object.entries(metrics).filter(([name]) => !DRAWN.has(name)).flatMap(([name, value]) => flat(said(name), name, value));
  return rows.length ? panel("further", "Further figures", "", table(["figure", "measured"], rows, { numbers: [1] })) : null;
}

/** Numbers of nested objects, each under the names that lead to it. */
function flat(words, name, value) {
  if (typeof value === "number") return [[words, figure(name, value)]];
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [];
  return Object.entries(value).flatMap(([key, part]) => flat(`${words}, ${said(key)}`, key, part));
}

function said(name) {
  return name.replaceAll("_", " ");
}

/** A number with the unit that its name tells. */
function figure(name, value) {
  if (/_ms$/.test(name)) return `${value.toFixed(1)}\u00a0ms`;
  if (/_(mb|megabytes)$/.test(name)) return `${value.toFixed(1)}\u00a0MB`;
  if (/accuracy|recall|precision|share|changes$/.test(name) && value >= 0 && value <= 1) return percent(value);
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(4);
}

function shareOr(value) {
  return value === undefined ? null : percent(value);
}

function figureOr(value) {
  return value === undefined ? null : value.toFixed(4);
}

/** What reviewers said of its answers, beside what evaluation promised. */
function live({ live: found, metrics }) {
  const [low, high] = metrics.accuracy_interval;
  const promised = { name: `${count(metrics.pictures, "test picture")}`, value: metrics.accuracy, low, high };
  const lead = "How often the likeliest class is right, with 95 % intervals.";
  if (!found) {
    return panel("live", "Live accuracy", lead, charts.intervals([promised]),
      h("p", { class: "muted" }, "No answer has been reviewed yet. ", h("a", { href: "../ui" }, "Try it"), " and be the first reviewer."));
  }
  const said = {
    name: count(found.pictures, "reviewed answer"),
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
  return half(panel("confusion", "What it confuses", "Test pictures by their class and by the answer. Shares are of a row.",
    h("div", { class: `scroll confusion${names.length > 4 ? " many" : ""}`, tabindex: "0", role: "region", "aria-label": "Confusion matrix" },
      h("table", {}, h("thead", {}, head), h("tbody", {}, rows)))));
}

/** Of many classes the pairs that are confused most. */
function confused({ confused: pairs }) {
  if (!pairs?.length) return null;
  const rows = pairs.map((one) => [one.is, one.says, one.pictures.toLocaleString("en"), percent(one.share)]);
  return half(panel("confusion", "What it confuses", "The pairs of classes that are confused most.",
    table(["is", "taken for", "pictures", "share of its pictures"], rows, { numbers: [2, 3] })));
}

function calibration({ metrics, classes: names }) {
  const bins = metrics.reliability;
  if (!bins) return null;
  const before = metrics.reliability_before_temperature;
  const from = names.length === 2 ? 0.5 : 0;
  const numbers = bins.map((bin) => [bin.confidence.toFixed(3), percent(bin.accuracy),
    bin.interval.map((share) => percent(share)).join(" to "), bin.pictures.toLocaleString("en")]);
  return half(panel("reliability", "Calibration",
    "On the dashed line, confidence equals the share that is right. Bars are 95 % intervals. Larger dots stand for more pictures. Grey is before temperature scaling.",
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
    h("li", {}, `${row.class}: recall ${percent(row.recall)} of ${count(row.pictures, "picture")}, most often taken for ${row.mistaken_for}`));
  return panel("classes", "Class by class", "Precision: the share of its answers that are right. Recall: the share of the pictures that it finds.",
    ...(weak.length ? [h("p", {}, "Significantly below the average class:"), h("ul", {}, weak)] : []),
    table(["class", "precision", "recall", "F1", "pictures"], rows, { numbers: [1, 2, 3, 4] }));
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
  return panel("mistakes", "Its worst mistakes", "Wrong answers on test pictures, the most confident first.", list);
}

function verdict({ promotion }) {
  if (!promotion) {
    return panel("verdict", "The gate", "The gate's verdict is not here: the model is served from a folder, or was pinned before verdicts were kept.");
  }
  const { verdict: judged, champion } = promotion;
  if (!judged) return panel("verdict", "The gate", "The gate has not judged this model. Its alias was moved by hand.");
  const against = judged.champion ? ` against version ${judged.champion.version}, then the champion` : "";
  const words = { pass: "passed", forced: "failed, and was overruled", fail: "failed" }[judged.gate];
  const rows = judged.checks.map((check) => [
    check.name, h("span", { class: `mark ${check.passed ? "pass" : "fail"}` }, check.passed ? "✓ pass" : "✗ fail"), check.figure, check.limit,
  ]);
  const because = champion.promoted_because && champion.promoted_because !== "passed the gate" ? ` Promoted because: ${champion.promoted_because}.` : "";
  return panel("verdict", `The gate: ${words}`,
    `Judged on ${day(judged.created)}${against}, on the test split and by the code that serves.${because}`,
    table(["check", "verdict", "found", "required"], rows, { look: "checks", sorts: false }));
}

/** From pictures to this answer: each link by the name under which it can be found again. */
function lineage(card) {
  const { lineage: origin, model, metrics } = card;
  const links = [
    ["Pictures", [`${either(card.classes)}; manifest `, code(origin.data_hash)]],
    ["Test split", [`${count(metrics.pictures, "picture")}; `, code(origin.test_hash)]],
    ["Code", ["commit ", code(origin.git_commit), origin.git_dirty ? " with uncommitted changes" : ""]],
    ["Parameters", [`${card.architecture}, seed ${origin.seed}; `, code(origin.params_hash)]],
    ["Training run", [day(origin.created), "; ", model.run_id ? ["MLflow run ", code(model.run_id)] : "no MLflow run"]],
    ["Network", ["model.onnx ", code(card.model_sha256), parity(card)]],
    ["Registered", [model.version ? `version ${model.version} of ${model.name} in MLflow, called champion by the gate` : "served from a folder, not from the registry"]],
    ["Shipped", [model.bento_tag ? ["BentoML model ", code(model.bento_tag)] : "not as a Bento"]],
    ["Answer", ["carries these names; ", code("python -m training.registry trace answer.json"), " walks back from it"]],
  ];
  return panel("lineage", "From pictures to answer", "Every link has a name that you can look it up by.",
    h("ol", { class: "chain" }, links.map(([name, told]) => h("li", {}, h("h3", {}, name), h("p", {}, ...told.flat())))));
}

function parity({ parity: found }) {
  return found ? `; answers like torch, within ${found.max_difference.toExponential(0)} on ${count(found.pictures, "picture")}` : "";
}

function code(text) {
  return h("code", {}, text);
}

/** The champions one after another, the present one first. */
function versions({ promotion }) {
  if (!promotion?.champion) return null;
  const { champion, former } = promotion;
  const all = [champion, ...former];
  const items = all.map((one, index) => {
    const since = day(one.promoted);
    const until = index ? ` to ${day(all[index - 1].promoted)}` : "";
    const fate = !index ? "the champion" : one.rolled_back ? "rolled back" : "replaced";
    const before = all[index + 1];
    return h("li", { class: !index ? "now" : one.rolled_back ? "fell" : "past" },
      h("h3", {}, `Version ${one.version}: ${fate}`),
      h("p", {}, [`Champion ${index ? "from" : "since"} ${since}${until}.`, accuracy(one, before),
        one.promoted_because ? ` Promoted because: ${one.promoted_because}.` : "", one.rolled_back && index ? ` Rolled back ${one.rolled_back}.` : ""].join("")));
  });
  return panel("versions", "Versions", "The champions, the present one first. Accuracies are of the test split at the time.", h("ol", { class: "chain" }, items));
}

function accuracy(one, before) {
  if (!one.accuracy) return "";
  const gain = before?.accuracy ? `, ${points(one.accuracy - before.accuracy, true)}` : "";
  return ` Accuracy ${percent(Number(one.accuracy))}${gain}.`;
}

addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
