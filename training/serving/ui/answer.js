// One picture and what the model says about it.

import { postForPicture, postPicture } from "./api.js";
import { h } from "./dom.js";
import { Feedback } from "./feedback.js";
import { draw, square } from "./heat.js";
import { called, capital, percent } from "./words.js";

const SHOWN = 5; // classes that have a bar of their own
const FADE = 85; // of the heat map at first, in percent
const WHOLE = { left: 0, top: 0, width: 1, height: 1 };

let made = 0;

export class Answer {
  /** `model`: a promise of the card; `enqueue` sends the picture (again), `say` tells those who listen, `note` is told
   * what becomes of it. */
  constructor(file, model, { enqueue, say, note }) {
    Object.assign(this, { file, model, enqueue, say, note, id: `answer-${(made += 1)}` });
    this.picture = h("img", { alt: `Your picture ${file.name}` });
    this.shown = new Promise((done) => {
      this.picture.addEventListener("load", () => done(true), { once: true });
      this.picture.addEventListener("error", () => done(false), { once: true });
    });
    this.heat = h("canvas", { class: "heat", hidden: true, "aria-hidden": "true" });
    this.frame = h("div", { class: "frame" }, this.picture, this.heat, h("span", { class: "tag" }, "With the heat map"));
    this.figure = h("figure", {}, this.frame);
    this.body = h("div", { class: "answer" });
    this.picture.src = URL.createObjectURL(file);
    this.element = h("li", { class: "result" },
      h("article", { "aria-labelledby": this.id }, this.figure, this.body));
    this.wait();
    this.shown.then((fine) => (fine ? this.fitFrame() : this.hidePicture()));
  }

  /** Take up the room of the answer before it is there, so that nothing moves when it comes. */
  wait() {
    this.element.className = "result waiting";
    this.fill(h("div", { class: "verdict" }, h("h3", { id: this.id }, "Looking…"), h("p", { class: "share" }, "\u00a0")), this.fileName());
    this.body.setAttribute("aria-busy", "true");
    this.note(this, { file: this.file.name });
    this.model.then((card) => {
      if (this.element.className !== "result waiting") return;
      this.body.append(h("div", { class: "ghost", inert: true, "aria-hidden": "true" }, ...this.parts(likely(card), card, 10)));
    });
  }

  /** Send the picture and show what comes back. Throws only when the service is away. */
  async ask() {
    const start = performance.now();
    try {
      const answer = await postPicture("predict", this.file);
      this.show(answer, await this.model, performance.now() - start);
      this.note(this, { file: this.file.name, answer });
    } catch (problem) {
      if (problem.away || !problem.words) throw problem;
      this.showProblem(problem);
      this.note(this, { file: this.file.name, problem });
    }
  }

  show(answer, card, ms) {
    const title = answer.label === null ? "Not sure" : capital(answer.label);
    this.element.className = answer.label === null ? "result unsure" : "result";
    this.fill(
      h("div", { class: "verdict" },
        h("h3", { id: this.id }, title),
        h("p", { class: "share" }, h("span", { class: "unseen" }, "confidence "), percent(answer.confidence))),
      this.fileName(),
      ...this.parts(answer, card, ms));
    this.say(`${this.file.name}: ${title}, ${percent(answer.confidence)}.`);
    this.explain(card);
  }

  /** What stands below label and file name. */
  parts(answer, card, ms) {
    const [best] = ranked(answer.probabilities);
    this.why = h("div", { class: "why" }, this.fader(best[0]));
    return [
      answer.label === null ? h("p", { class: "reason" }, reason(answer, best, card)) : null,
      bars(answer, card),
      this.why,
      new Feedback(answer, this.say).element,
      h("p", { class: "facts" }, `Answered in ${Math.round(ms)}\u00a0ms by `,
        h("a", { href: "ui/model" }, called(answer.model, card.model_sha256)), ". ",
        h("a", { href: "ui/model#lineage" }, "Where it comes from")),
    ].filter(Boolean);
  }

  /** The heat map comes by a request of its own: the answer need not wait for it. */
  async explain(card) {
    const { why } = this;
    try {
      const found = await postPicture("heatmap?abstain=false", this.file);
      const whole = (await this.shown) ? square(this.picture.naturalWidth, this.picture.naturalHeight, card.preprocessing) : WHOLE;
      if (!(await this.shown)) await this.preview();
      draw(found.heat, this.heat, whole, this.picture.naturalWidth / this.picture.naturalHeight);
      this.heat.hidden = false;
      for (const control of why.querySelectorAll("[disabled]")) control.disabled = false;
    } catch (problem) {
      why.replaceChildren(h("p", { class: "muted" }, `No heat map: ${problem.words ?? problem.message}`));
    }
  }

  /** Of a format that the browser cannot show: what the network sees, as the service draws it. */
  async preview() {
    const blob = await postForPicture("explain?heat=false", this.file);
    this.picture.src = URL.createObjectURL(blob);
    await this.picture.decode();
    this.frame.querySelector(".muted")?.remove();
    this.picture.hidden = false;
    this.fitFrame();
    this.figure.append(h("figcaption", { class: "muted" }, "This browser cannot show the file. You see what the network sees of it."));
  }

  /** Controls of the heat map; they work once it is drawn. */
  fader(explained) {
    const id = `${this.id}-fade`;
    const fade = h("input", { id, type: "range", min: 0, max: 100, value: FADE, disabled: true });
    const set = () => (this.heat.style.opacity = fade.value / 100);
    fade.addEventListener("input", set);
    set();
    const both = h("button", { type: "button", class: "button small", "aria-pressed": "false", disabled: true,
      onclick: () => both.setAttribute("aria-pressed", String(this.toggleBoth())) }, "Side by side");
    return h("div", { class: "fade" },
      h("label", { for: id }, "Heat map: what spoke for ", h("strong", {}, explained)), fade, both);
  }

  /** Show the picture beside itself without the map, or no longer; whether it is there now. */
  toggleBoth() {
    this.before ??= h("div", { class: "frame", hidden: true },
      h("img", { src: this.picture.src, alt: "", class: this.picture.className }), h("span", { class: "tag" }, "Your picture"));
    if (!this.before.isConnected) this.figure.prepend(this.before);
    this.before.style.setProperty("--ratio", this.frame.style.getPropertyValue("--ratio"));
    this.before.hidden = !this.before.hidden;
    return this.figure.classList.toggle("two", !this.before.hidden);
  }

  showProblem(problem) {
    this.element.className = "result failed";
    this.fill(
      h("div", { class: "verdict" }, h("h3", { id: this.id }, "No answer")),
      this.fileName(),
      h("p", { class: "reason" }, problem.words),
      problem.again ? h("button", { type: "button", class: "button", onclick: () => { this.wait(); this.enqueue(this); } }, "Try again") : null,
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
    this.picture.hidden = true;
    this.frame.prepend(h("p", { class: "muted" }, "This browser cannot show the file."));
  }
}

/** An answer as long as most: its room is kept while the real one is under way. */
function likely(card) {
  const probabilities = Object.fromEntries(card.classes.map((name) => [name, 1 / card.classes.length]));
  return { label: card.classes[0], probabilities, model: card.model };
}

function ranked(probabilities) {
  return Object.entries(probabilities).sort(([, a], [, b]) => b - a);
}

function reason(answer, [name, share], card) {
  const guess = `${name} at ${percent(share)}`;
  if (answer.reason === "unfamiliar") {
    return `This picture is out of distribution: unlike those the model learnt from. Its best guess, ${guess}, may mean nothing.`;
  }
  return `The best guess is ${guess}. The model names a class from ${percent(card.abstention.confidence_threshold)} up.`;
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
