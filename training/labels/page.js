"use strict";
const cell = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
const who = document.getElementById("who"), lines = document.getElementById("lines");
const state = document.getElementById("state");

function said() {
  const rows = new Map(), missing = [];
  for (const card of document.querySelectorAll(".card")) {
    const label = card.querySelector(".label").value, why = card.querySelector(".why").value.trim();
    card.classList.toggle("said", label !== "");
    if (label === "") continue;
    if (card.dataset.test && why === "") missing.push(card);
    for (const sha of card.dataset.sha.split(" "))
      rows.set(sha, [sha, label, who.value.trim(), why, card.dataset.test].map(cell).join(","));
  }
  lines.value = [COLUMNS, ...rows.values(), ""].join("\n");
  const faults = [];
  if (rows.size && who.value.trim() === "") faults.push("your name is missing");
  if (missing.length) faults.push(`${missing.length} test pictures lack a reason`);
  state.textContent = [`${rows.size} lines`, ...faults].join("; ");
  for (const name of ["download", "copy"]) document.getElementById(name).disabled = !rows.size || faults.length > 0;
}

document.addEventListener("input", said);
document.addEventListener("click", ({ target }) => {
  if (!target.matches(".card button")) return;
  const field = target.closest(".card").querySelector(".label");
  field.value = field.value === target.value ? "" : target.value;
  said();
});
document.getElementById("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(lines.value);
  state.textContent += ", copied";
});
document.getElementById("download").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.value], { type: "text/csv" }));
  link.download = "corrections.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});
said();
