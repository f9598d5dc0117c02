// What became of several pictures together, and the same as a file.

import { csv } from "./csv.js";
import { h } from "./dom.js";
import { capital, count, percent } from "./words.js";

const FEW = 8; // labels that are listed; the rest are counted together
const UNSURE = "not sure";
const FAILED = "no answer";

export class Summary {
  /** `place`: the element it fills, hidden while there are fewer than two pictures. */
  constructor(place) {
    this.place = place;
    this.rows = new Map(); // each picture -> what is known of it
    this.classes = [];
    this.words = h("p", {});
    this.list = h("ul", { class: "counts", "aria-label": "Pictures by answer" });
    this.save = h("button", { type: "button", class: "button small", onclick: () => this.download() }, "Download CSV");
    place.replaceChildren(h("div", { class: "heading" }, h("h3", {}, "Summary"), this.save), this.words, this.list);
  }

  /** The model's classes: with few of them all are listed from the start, so that nothing moves later. */
  know(classes) {
    this.classes = classes;
    this.draw();
  }

  /** Note a picture. `row`: {file, answer} or {file, problem}, without either while it waits. */
  note(picture, row) {
    this.rows.set(picture, row);
    this.draw();
  }

  clear() {
    this.rows.clear();
    this.draw();
  }

  draw() {
    const rows = [...this.rows.values()];
    this.place.hidden = rows.length < 2;
    const done = rows.filter((row) => row.answer || row.problem);
    const sure = done.filter((row) => row.answer && row.answer.label !== null);
    const mean = sure.reduce((sum, row) => sum + row.answer.confidence, 0) / sure.length;
    this.words.textContent = [
      `${count(rows.length, "picture")}, ${count(done.length - done.filter((row) => row.problem).length, "answer")}.`,
      sure.length ? `Mean confidence of the labels: ${percent(mean)}.` : "",
      rows.length > done.length ? `${count(rows.length - done.length, "picture")} under way.` : "",
    ].filter(Boolean).join(" ");
    this.list.replaceChildren(...this.counts(done).map(([name, number]) => {
      const bar = h("span", { class: "full" });
      bar.style.width = `${(number / rows.length) * 100}%`;
      return h("li", {}, h("span", {}, capital(name)), h("b", {}, number.toLocaleString("en")),
        h("span", { class: "track", "aria-hidden": "true" }, bar));
    }));
    this.save.disabled = rows.length > done.length;
  }

  /** [label, pictures], the most frequent first; what has no label comes last. */
  counts(done) {
    const found = new Map(this.classes.length <= FEW ? this.classes.map((name) => [name, 0]) : []);
    const last = { [UNSURE]: 0, [FAILED]: 0 };
    for (const { answer, problem } of done) {
      if (problem) last[FAILED] += 1;
      else if (answer.label === null) last[UNSURE] += 1;
      else found.set(answer.label, (found.get(answer.label) ?? 0) + 1);
    }
    const ranked = [...found].sort(([, a], [, b]) => b - a);
    const rest = ranked.slice(FEW);
    const together = rest.length ? [[count(rest.length, "other class", "other classes"), rest.reduce((sum, [, number]) => sum + number, 0)]] : [];
    return [...ranked.slice(0, FEW), ...together, ...Object.entries(last)];
  }

  download() {
    const link = h("a", { href: URL.createObjectURL(csv(this.table())), download: `answers-${stamp()}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  table() {
    const head = ["file", "label", "confidence", "reason", ...this.classes.map((name) => `probability of ${name}`), "error", "model", "version", "request id"];
    const rows = [...this.rows.values()].map(({ file, answer, problem }) => answer
      ? [file, answer.label, answer.confidence, answer.reason ?? null, ...this.classes.map((name) => answer.probabilities[name]),
        null, answer.model.name, answer.model.version, answer.request_id]
      : [file, null, null, null, ...this.classes.map(() => null), problem?.code ?? null, null, null, null]);
    return [head, ...rows];
  }
}

function stamp() {
  return new Date().toISOString().slice(0, 16).replace(":", "-");
}
