// Talking to the service: its errors in words, its API key, and what to do when it is away.

import { askForKey } from "./key.js";
import { sentence } from "./words.js";

const ROOT = new URL("../../", import.meta.url); // the service, also behind a proxy that adds a prefix
const KEY = "api-key";
const SENDABLE = /^[!-~]+$/; // in a header
const ATTEMPTS = 4; // when the service says that it is busy
const PATIENCE_S = 5; // a longer wait is left to people
const LOOK_AGAIN_MS = 1500;

/** What went wrong, in words. `away`: the service cannot be reached; `again`: another try may help. */
export class Problem extends Error {
  constructor(message, hint, code, { away = false, again = away, wait = 0 } = {}) {
    super(message);
    Object.assign(this, { hint, code, away, again, wait });
  }

  get words() {
    return [this.message, this.hint].filter(Boolean).map(sentence).join(" ");
  }
}

export const address = (path) => new URL(path, ROOT);

export async function getJson(path) {
  return (await ask(path)).json();
}

/** A picture of the service as a blob: address: it may need the API key, which an <img> cannot send. */
export async function getPicture(path) {
  return (await ask(path)).blob();
}

export async function postPicture(path, file) {
  return (await post(path, file)).json();
}

/** The same where the answer is a picture too. */
export async function postForPicture(path, file) {
  return (await post(path, file)).blob();
}

function post(path, file) {
  const body = new FormData();
  body.append("image", file, file.name || "picture");
  return ask(path, { method: "POST", body });
}

export async function postJson(path, values) {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", body: JSON.stringify(values), headers })).json();
}

/** Resolves when the service is ready again. */
export async function back() {
  for (;;) {
    await pause(LOOK_AGAIN_MS);
    const answer = await fetch(address("readyz"), { cache: "no-store" }).catch(() => null);
    if (answer?.ok) return;
  }
}

async function ask(path, options = {}) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await once(path, options);
    } catch (problem) {
      if (problem.code === "no_valid_key") await renewKey(options.key);
      else if (problem.wait && problem.wait <= PATIENCE_S && attempt < ATTEMPTS) await pause(problem.wait * 1000 * attempt);
      else throw problem;
    }
  }
}

async function once(path, options) {
  options.key = sessionStorage.getItem(KEY);
  if (options.key && !SENDABLE.test(options.key)) {
    throw new Problem("the key cannot be sent", "", "no_valid_key"); // which asks for another
  }
  const headers = { ...options.headers, ...(options.key ? { "X-API-Key": options.key } : {}) };
  const { key, ...rest } = options;
  const answer = await fetch(address(path), { ...rest, headers }).catch(() => {
    throw new Problem("the service cannot be reached", "the page tries again until it answers", "unreachable", { away: true });
  });
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

async function problemOf(answer) {
  const told = await answer.json().catch(() => null);
  const error = told?.error ?? { code: `status ${answer.status}`, message: `the service answers ${answer.status}`, hint: "" };
  const wait = [429, 503].includes(answer.status) ? Number(answer.headers.get("Retry-After")) || 1 : 0;
  return new Problem(error.message, error.hint, error.code, { again: answer.status >= 500 || wait > 0, wait });
}

/** Ask for a key once, however many requests find that they need one. */
let asking = null;
async function renewKey(refused) {
  if (sessionStorage.getItem(KEY) !== refused) return; // another request has got one meanwhile
  asking ??= askForKey(refused !== null).finally(() => (asking = null));
  const key = await asking;
  if (key === null) throw new Problem("this service needs an API key", "ask whoever runs it for one", "no_key", { again: true });
  sessionStorage.setItem(KEY, key);
}

function pause(ms) {
  return new Promise((done) => setTimeout(done, ms));
}
