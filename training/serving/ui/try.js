// The page /ui: pictures in, answers out.

import { Answer } from "./answer.js";
import { back, getJson, getPicture } from "./api.js";
import { byId, h } from "./dom.js";
import { Summary } from "./summary.js";
import { called, capital, count, either, overruled } from "./words.js";

const AT_ONCE = 4; // requests under way: the service makes batches of them
const FEW = 4; // classes that the heading names

const results = byId("results");
const summary = new Summary(byId("summary"));
const note = (...told) => summary.note(...told);
const queue = [];
let running = 0;
let away = null;

const model = getModel();
listen();

async function getModel() {
  const card = await untilBack(() => getJson("model"));
  byId("classes").textContent = card.classes.length > FEW ? `It knows ${card.classes.length} classes.` : `${capital(either(card.classes))}?`;
  document.title = `${card.model.name}: try it`;
  document.querySelector("[data-name]").textContent = card.model.name;
  document.querySelector("[data-version]").textContent = called(card.model, card.model_sha256);
  summary.know(card.classes);
  const why = overruled(card.promotion);
  byId("forced").textContent = why;
  byId("forced").hidden = !why;
  showSamples(card.self_check.map((one) => `ui/samples/${one.file.split("/").at(-1)}`));
  return card;
}

/** The sample pictures as buttons; a picture that does not come leaves its button out. */
async function showSamples(paths) {
  const list = byId("samples").querySelector("ul");
  list.replaceChildren(...paths.map(() => h("li", {}))); // their room, before the first is there
  for (const [index, path] of paths.entries()) {
    const blob = await untilBack(() => getPicture(path)).catch(() => null);
    if (!blob) break; // no key was given: samples are part of what it protects
    const name = `Sample ${index + 1}`;
    const picture = h("img", { src: URL.createObjectURL(blob), alt: name, width: 72, height: 72 });
    const send = () => add([new File([blob], name, { type: blob.type })]);
    list.children[index].append(h("button", { type: "button", onclick: send }, picture));
    byId("samples").classList.remove("coming");
  }
  byId("samples").hidden = !list.querySelector("img");
}

function add(files) {
  if (!files.length) return;
  byId("answers").hidden = false;
  byId("drop").classList.add("asked");
  const answers = files.map((file) => new Answer(file, model, { enqueue, say, note }));
  results.prepend(...answers.map((answer) => answer.element));
  say(`${count(files.length, "picture")} sent.`);
  answers.forEach(enqueue);
}

function enqueue(answer) {
  queue.push(answer);
  work();
}

async function work() {
  while (running < AT_ONCE && queue.length) {
    running += 1;
    const answer = queue.shift();
    untilBack(() => answer.ask()).finally(() => {
      running -= 1;
      work();
    });
  }
}

/** The result of `task`; while the service is away a notice says so, and the task is done again once it is back. */
async function untilBack(task) {
  for (;;) {
    try {
      return await task();
    } catch (problem) {
      if (!problem.away) throw problem;
      away ??= waitUntilBack(problem);
      await away;
    }
  }
}

async function waitUntilBack(problem) {
  const notice = byId("notice");
  notice.textContent = problem.words;
  notice.hidden = false;
  await back();
  notice.hidden = true;
  away = null;
  say("The service is back.");
}

/** Told to those who listen to the page. */
function say(words) {
  byId("status").append(h("span", {}, `${words} `));
  while (byId("status").childElementCount > 20) byId("status").firstElementChild.remove();
}

function listen() {
  for (const id of ["picker", "camera"]) {
    byId(id).addEventListener("change", (event) => {
      add([...event.target.files]);
      event.target.value = ""; // the same picture may be chosen again
    });
  }
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) add([...event.clipboardData.files]);
  });
  listenForDrops();
  byId("clear").addEventListener("click", () => {
    results.replaceChildren();
    summary.clear();
    byId("answers").hidden = true;
    byId("drop").classList.remove("asked");
    byId("picker").focus();
  });
}

/** Anywhere on the page: a picture dropped beside the frame must not replace the page. */
function listenForDrops() {
  let inside = 0; // elements entered and not left
  const mark = (by) => {
    inside = Math.max(0, inside + by);
    byId("drop").classList.toggle("over", inside > 0);
  };
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => carriesFiles(event) && mark(1));
  document.addEventListener("dragleave", (event) => carriesFiles(event) && mark(-1));
  document.addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    mark(-inside);
    add([...event.dataTransfer.files]);
  });
}
