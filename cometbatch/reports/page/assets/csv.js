// The filtered rows as CSV (RFC 4180), safe to open in a spreadsheet.

const CSV_BUFFER = 1 << 20; // bytes in which lines are collected; a longer line gets a buffer of its own
const CSV_PIECE = 4096; // lines that are joined to a blob at a time
const CSV_PAUSE = 500; // rows after which the page may draw and take keys

/** How a text begins that some spreadsheet calculates; signs of full width are those of East Asian ones. */
const CSV_FORMULA = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;
/** What needs quotes: also a semicolon and a tab, at which spreadsheets may part a line as they do at commas. */
const CSV_QUOTED = /[",;\t\r\n]|^\s|\s$/;

/** A text as a field: an apostrophe before what a spreadsheet would calculate, quotes where commas or lines need them. */
function csvText(text) {
  const inert = CSV_FORMULA.test(text) ? `'${text}` : text;
  return inert === "" || CSV_QUOTED.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
}

/** A number as a field: all its digits; a moment in ISO 8601. `exact` is the stored text where a float can't hold it. */
function csvNumber(column, value, exact) {
  if (exact !== undefined) return /^-?[0-9.]+([eE][-+]?[0-9]+)?$/.test(exact) ? exact : csvText(exact);
  if (isMissing(value)) return "";
  if (column.unit === "ms" && Math.abs(value) <= 8.64e15) return new Date(value).toISOString();
  return String(value);
}

/** How much of a text the page holds, of one that it holds in part. */
function cutWords(text, length) {
  return `cut here: ${formatCount(text.length)} of ${formatCount(length)} characters`;
}

/** A text that the page holds in part, with a mark at its end. */
function markedAsCut(text, length) {
  return `${text} [${cutWords(text, length)}]`;
}

/** One field of a row; `texts` are the row's texts from the store. */
function csvField(store, column, row, texts) {
  const { name, kind } = column;
  const exact = texts.more?.full?.[name];
  if (kind === "number") return csvNumber(column, store.value(name, row), exact);
  const text = kind === "text" ? texts[name]?.text : exact ?? store.value(name, row);
  if (isMissing(text)) return "";
  const length = texts[name]?.length ?? texts.more?.lengths?.[name] ?? text.length;
  return csvText(length > text.length ? markedAsCut(text, length) : text);
}

/** Lines as UTF-8 bytes in a few large buffers: each line once, taken out in any order. */
class CsvLines {
  constructor(count) {
    this.buffers = [];
    this.used = 0;
    this.count = 0;
    this.buffer = new Uint32Array(count);
    this.begin = new Uint32Array(count);
    this.end = new Uint32Array(count);
    this.encoder = new TextEncoder();
  }

  /** Adds a line at the end. */
  add(line) {
    const most = line.length * 3;
    if (!this.buffers.length || this.used + most > this.buffers.at(-1).length) {
      this.buffers.push(new Uint8Array(Math.max(CSV_BUFFER, most)));
      this.used = 0;
    }
    const { written } = this.encoder.encodeInto(line, this.buffers.at(-1).subarray(this.used));
    this.buffer[this.count] = this.buffers.length - 1;
    this.begin[this.count] = this.used;
    this.used += written;
    this.end[this.count++] = this.used;
  }

  /** The bytes of the n-th line. */
  line(n) {
    return this.buffers[this.buffer[n]].subarray(this.begin[n], this.end[n]);
  }
}

/** The lines of rows that are sorted by their place in the page, so that each block of texts is read once. */
async function csvLines(store, columns, rows) {
  const lines = new CsvLines(rows.length);
  for (let i = 0; i < rows.length; i++) {
    const texts = await store.texts(rows[i]);
    lines.add(`${columns.map((column) => csvField(store, column, rows[i], texts)).join(",")}\r\n`);
    if (i % CSV_PAUSE === CSV_PAUSE - 1) await nextTurn();
  }
  return lines;
}

/** The CSV of rows, in their order, as a blob: UTF-8 with a byte order mark, by which Excel knows it. */
async function csvBlob(store, columns, rows) {
  const sorted = Uint32Array.from(rows).sort();
  const lines = await csvLines(store, columns, sorted);
  const place = new Uint32Array(store.count);
  sorted.forEach((row, n) => (place[row] = n));
  const pieces = [`\uFEFF${columns.map((column) => csvText(column.title)).join(",")}\r\n`];
  for (let from = 0; from < rows.length; from += CSV_PIECE) {
    pieces.push(new Blob(Array.from(rows.subarray(from, from + CSV_PIECE), (row) => lines.line(place[row]))));
    await nextTurn();
  }
  return new Blob(pieces, { type: "text/csv;charset=utf-8" });
}

/** The name of the CSV file, made of the sources' names. */
function csvName(title) {
  const stem = title.replace(/\.(parquet|csv|jsonl|html|ya?ml)$/i, "").replace(/[^\p{L}\p{N}._-]+/gu, "_").replace(/^[._]+|_+$/g, "");
  return `${stem.slice(0, 80) || "report"}-rows.csv`;
}

/** Hands a blob to the browser as a file. */
function saveBlob(blob, name) {
  const link = el("a", { download: name });
  const address = URL.createObjectURL(blob);
  link.href = address;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Saves the rows of the table, as filtered and sorted, as a CSV file; `names`: the columns, all where it is left out. */
async function downloadCsv(app, names) {
  const { store } = app;
  const rows = app.visible.slice();
  const columns = names ? names.map((name) => store.column(name)) : store.columns.filter(({ name }) => name !== "frame"); // a number of the page's own
  if (!rows.length) {
    app.announce("There are no rows to save: no row matches the filters.");
    return;
  }
  app.announce(`Writing ${countOf(rows.length, "row")} as CSV.`);
  const name = csvName(shortTitle(app.meta));
  saveBlob(await csvBlob(store, columns, rows), name);
  app.announce(`Saved ${countOf(rows.length, "row")} with ${countOf(columns.length, "column")} as ${name}.`);
}
