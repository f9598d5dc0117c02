// "Right" and "wrong, it is ...": what a reviewer knows goes to /feedback.

import { postJson } from "./api.js";
import { h } from "./dom.js";

const BUTTONS = 4; // classes that get a button each; more are a list to choose from

let made = 0;

export class Feedback {
  constructor(answer, say) {
    Object.assign(this, { answer, say, id: `feedback-${(made += 1)}` });
    this.outcome = h("p", { class: "outcome", tabindex: "-1", hidden: true });
    this.choices = h("div", { class: "row" }, this.buttons());
    this.element = h("fieldset", { class: "feedback" },
      h("legend", {}, answer.label === null ? "Do you know what it is?" : "Is that right?"), this.choices, this.outcome);
  }

  buttons() {
    const { label, probabilities } = this.answer;
    const others = Object.keys(probabilities).filter((name) => name !== label);
    const word = label === null ? "It is" : "Wrong, it is";
    const right = label === null ? [] : [this.button("Right", label)];
    if (others.length <= BUTTONS) return [...right, ...others.map((name) => this.button(`${word} ${name}`, name))];
    const list = h("select", { id: this.id }, others.sort().map((name) => h("option", { value: name }, name)));
    return [...right, h("span", { class: "row" }, h("label", { for: this.id }, word), list,
      h("button", { type: "button", class: "button small", onclick: () => this.send(list.value) }, "Send"))];
  }

  button(words, label) {
    return h("button", { type: "button", class: "button small", onclick: () => this.send(label) }, words);
  }

  async send(label) {
    this.choices.inert = true;
    try {
      await postJson("feedback", { request_id: this.answer.request_id, label });
      this.told(`Thank you. Saved as ${label}.`, "Change it");
    } catch (problem) {
      this.told(`Not saved. ${problem.words ?? problem.message}`, "Try again");
    }
    this.choices.inert = false;
  }

  /** Show what came of it in place of the buttons, with a way back to them. */
  told(words, again) {
    const change = h("button", { type: "button", class: "quiet", onclick: () => this.reopen() }, again);
    this.outcome.replaceChildren(words, " ", change);
    this.outcome.hidden = false;
    this.choices.hidden = true;
    this.outcome.focus();
    this.say(words);
  }

  reopen() {
    this.outcome.hidden = true;
    this.choices.hidden = false;
    this.choices.querySelector("button").focus();
  }
}
