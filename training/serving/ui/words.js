// Numbers and names as people say them.

const DAY = new Intl.DateTimeFormat("en-GB", { dateStyle: "long" });

/** 0.9731 -> "97.3 %"; what is nearly all or nearly nothing says so instead of being rounded to it. */
export function percent(share, digits = 1) {
  const text = (share * 100).toFixed(digits);
  const step = 10 ** -digits;
  if (share < 1 && Number(text) === 100) return `over ${(100 - step).toFixed(digits)}\u00a0%`;
  if (share > 0 && Number(text) === 0) return `under ${step.toFixed(digits)}\u00a0%`;
  return `${text}\u00a0%`;
}

/** A difference of shares: 0.0473 -> "4.7 points", with its sign if `signed`. */
export function points(difference, signed = false) {
  const text = (Math.abs(difference) * 100).toFixed(1);
  const sign = difference < 0 ? "\u2212" : signed ? "+" : "";
  return `${sign}${text}\u00a0points`;
}

/** ["cat", "dog", "fox"] -> "cat, dog or fox" */
export function either(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
}

/** First letter large, and a full stop. */
export function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function day(iso) {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? iso : DAY.format(date);
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** The model by its name and version, as the page calls it. */
export function called(model, sha256) {
  return model.version ? `${model.name} version ${model.version}` : `${model.name} (${sha256.slice(0, 8)})`;
}

/** Why the gate was overruled, as a sentence; empty when the model passed it. */
export function overruled(promotion) {
  const judged = promotion?.verdict;
  return judged?.gate === "forced" ? sentence(`this model failed the gate and was promoted anyway: ${judged.forced}`) : "";
}
