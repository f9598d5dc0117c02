// One picture and what the model says about it.

import { postPicture } from "./api.js";
import { h } from "./dom.js";
import { Feedback } from "./feedback.js";
import { draw, square } from "./heat.js";
import { called, capital, percent } from "./words.js";

const SHOWN = 5; // classes that have a bar of their own
const FADE = 75; // of the heat map at first, in percent

let made = 0;

export class Answer {
  /** `model`: a promise of the card; `enqueue` sends the picture (again), `say` tells those who listen. */
  constructor(file, model, { enqueue, say }) {
    Object.assign(this, { file, model, enqueue, say, id: `answer-${(made += 1)}` });
    this.picture = h("img", { alt: `Your picture ${file.name}`, onerror: () => this.hidePicture() });
    this.heat = h("canvas", { class: "heat", hidden: true, "aria-hidden": "true" });
    this.frame = h("div", { class: "frame" }, this.picture, this.heat);
    this.body = h("div", { class: "answer", "aria-busy": "true" });
    this.picture.src = URL.createObjectURL(file);
    this.element = h("li", { class: "result waiting" },
      h("article", { "aria-labelledby": this.id }, h("figure", {}, this.frame), this.body));
    this.fill(h("h3", { id: this.id }, "Looking…"), this.fileName());
    this.picture.decode?.().then(() => this.fitFrame()).catch(() => {});
  }

  /** Send the picture and show what comes back. Throws only when the service is away. */
  async ask() {
    this.element.className = "result waiting";
    const start = performance.now();
    try {
      const answer = await postPicture("predict", this.file);
      this.show(answer, await this.model, performance.now() - start);
    } catch (problem) {
      if (problem.away || !problem.words) throw problem;
      this.showProblem(problem);
    }
  }

  show(answer, card, ms) {
    const [best] = ranked(answer.probabilities);
    const title = answer.label === null ? "Not sure" : capital(answer.label);
    this.element.className = answer.label === null ? "result unsure" : "result";
    this.why = h("div", { class: "why" });
    this.fill(
      h("div", { class: "verdict" },
        h("h3", { id: this.id }, title),
        h("p", { class: "share" }, h("span", { class: "unseen" }, "confidence "), percent(answer.confidence))),
      this.fileName(),
      answer.label === null ? h("p", { class: "reason" }, reason(answer, best, card)) : null,
      bars(answer, card),
      this.why,
      new Feedback(answer, this.say).element,
      h("p", { class: "facts" }, `Answered in ${Math.round(ms)}\u00a0ms by `,
        h("a", { href: "ui/model" }, called(answer.model, card.model_sha256)), ". ",
        h("a", { href: "ui/model#lineage" }, "Where it comes from")),
    );
    this.say(`${this.file.name}: ${title}, ${percent(answer.confidence)}.`);
    this.explain(card);
  }

  /** The heat map comes by a request of its own: the answer need not wait for it. */
  async explain(card) {
    try {
      const found = await postPicture("heatmap?abstain=false", this.file);
      draw(found.heat, this.heat);
      await this.placeHeat(card.preprocessing);
      this.why.append(this.fader(found.explained));
    } catch (problem) {
      if (this.picture.isConnected) this.why.append(h("p", { class: "muted" }, `No heat map: ${problem.words}`));
    }
  }

  async placeHeat(preprocessing) {
    await this.picture.decode();
    const place = square(this.picture.naturalWidth, this.picture.naturalHeight, preprocessing);
    for (const [side, share] of Object.entries(place)) this.heat.style[side] = `${share * 100}%`;
    this.heat.hidden = false;
  }

  fader(explained) {
    const id = `${this.id}-fade`;
    const fade = h("input", { id, type: "range", min: 0, max: 100, value: FADE });
    const set = () => (this.heat.style.opacity = fade.value / 100);
    fade.addEventListener("input", set);
    set();
    return h("p", { class: "fade" },
      h("label", { for: id }, "Heat map: what spoke for ", h("strong", {}, explained)), fade);
  }

  showProblem(problem) {
    this.element.className = "result failed";
    this.fill(
      h("div", { class: "verdict" }, h("h3", { id: this.id }, "No answer")),
      this.fileName(),
      h("p", { class: "reason" }, problem.words),
      problem.again ? h("button", { type: "button", class: "button", onclick: () => this.enqueue(this) }, "Try again") : null,
      h("p", { class: "facts" }, "Error ", h("code", {}, problem.code)),
    );
    this.say(`${this.file.name}: no answer. ${problem.words}`);
  }

  fill(...children) {
    this.body.replaceChildren(...children.filter(Boolean));
    this.body.removeAttribute("aria-busy");
  }

  fileName() {
    return h("p", { class: "file" }, this.file.name);
  }

  fitFrame() {
    this.frame.style.setProperty("--ratio", this.picture.naturalWidth / this.picture.naturalHeight);
    if (this.picture.naturalWidth < 100) this.picture.classList.add("tiny");
  }

  hidePicture() {
    this.frame.replaceChildren(h("p", { class: "muted" }, "This browser cannot show the file."));
  }
}

function ranked(probabilities) {
  return Object.entries(probabilities).sort(([, a], [, b]) => b - a);
}

function reason(answer, [name, share], card) {
  const guess = `${name} at ${percent(share)}`;
  if (answer.reason === "unfamiliar") {
    return `This picture is unlike those the model learnt from, so its best guess, ${guess}, may mean nothing.`;
  }
  return `The best guess is ${guess}. This model answers from ${percent(card.abstention.confidence_threshold)} on.`;
}

/** A bar for each class, the likeliest first; a tick marks the confidence from which the model answers. */
function bars(answer, card) {
  const rows = ranked(answer.probabilities);
  const rest = rows.slice(SHOWN);
  const list = h("ul", { class: "bars", "aria-label": "Probability of each class" }, rows.slice(0, SHOWN).map(([name, share]) => {
    const [full, tick] = [h("span", { class: "full" }), h("span", { class: "tick" })];
    full.style.width = `${share * 100}%`;
    tick.style.left = `${card.abstention.confidence_threshold * 100}%`;
    return h("li", {}, h("span", { class: "name" }, name), h("span", { class: "figure" }, percent(share)),
      h("span", { class: "track", "aria-hidden": "true" }, full, tick));
  }));
  if (!rest.length) return list;
  const share = rest.reduce((sum, [, part]) => sum + part, 0);
  list.append(h("li", { class: "muted" }, `${rest.length} other classes together ${percent(share)}`));
  return list;
}
