// Tables as CSV that spreadsheets open well: UTF-8 with its mark, CRLF, and no cell that is taken for a formula.

const FORMULA = /^[\s\u0000-\u001f]*[=+\-@＝＋－＠]/; // what spreadsheets compute, also behind blanks and in full width

/** `rows` of text, numbers and nulls as a file for download. */
export function csv(rows) {
  const lines = rows.map((row) => row.map(cell).join(","));
  return new Blob([`\ufeff${lines.join("\r\n")}\r\n`], { type: "text/csv;charset=utf-8" });
}

/** Text is always in quotes; one that a spreadsheet would compute gets an apostrophe in front. */
export function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const safe = FORMULA.test(value) ? `'${value}` : value;
  return `"${safe.replaceAll('"', '""')}"`;
}
