// The dialog that asks for the API key.

import { h } from "./dom.js";

/** The key that was typed, or null when the dialog was left. `refused`: the former one was wrong. */
export function askForKey(refused) {
  const field = h("input", {
    id: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "key-help",
    pattern: " *[!-~]+ *", title: "A key has ASCII letters, digits and punctuation, and no spaces.",
  });
  const help = refused ? "That key was not accepted." : "This service needs an API key.";
  const dialog = h("dialog", { "aria-labelledby": "key-title" },
    h("form", { onsubmit: (event) => { event.preventDefault(); dialog.close(field.value.trim()); } },
      h("h2", { id: "key-title" }, "API key"),
      h("p", { id: "key-help", role: refused ? "alert" : null }, `${help} It is kept until this tab is closed.`),
      h("label", { for: "key" }, "Key"),
      field,
      h("div", { class: "row" },
        h("button", { class: "button primary" }, "Use this key"),
        h("button", { class: "button", type: "button", onclick: () => dialog.close("") }, "Cancel"))));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue || null);
    });
  });
}
