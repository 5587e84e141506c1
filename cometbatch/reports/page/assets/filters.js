// Which rows are shown: the choice of words, ranges and one row of the input, and the search over all text.

/** Terms beyond this many of a query are not searched. */
const MOST_TERMS = 16;
/** Columns whose numbers can be bounded by the reader, after the scores. */
const RANGED = ["latency_s", "cost_usd", "output_tokens", "attempts", "http_status", "sample"];
/** Word columns with a button of their own; all others share one. */
const MAIN_FACETS = ["file", "status", "error_kind", "finish_reason", "model"];
/** Words that one filter lists; the search finds the others. */
const MOST_WORDS = 200;
/** Groups of columns, in the order in which they are offered. */
const GROUP_TITLES = {
  call: "Call", outcome: "Outcome", text: "Texts", score: "Scores", typed: "Typed answer", input: "Input", usage: "Tokens and cost", sending: "Sending",
};

/** What the reader has chosen. All parts must hold for a row; an empty choice holds for all rows. */
class Filters {
  constructor() {
    this.clear();
  }

  /** Shows all rows again. */
  clear() {
    this.query = "";
    this.words = new Map(); // column -> the words of which one must be there; null stands for no word
    this.ranges = new Map(); // column -> [least, most], either may be null
    this.row = null; // a row of the input
    this.rowsOnly = null; // flags by row: what the search has found
  }

  /** Whether any row could be left out. */
  get isActive() {
    return Boolean(this.query.trim() || this.words.size || this.ranges.size || this.row !== null || this.rowsOnly);
  }

  /** The rows that are shown, in the order of the page. `except`: a column whose own filter does not count. */
  matches(store, except = null) {
    const keep = new Uint8Array(store.count).fill(1);
    for (const [name, chosen] of this.words) if (name !== except) keepWords(keep, store, name, chosen);
    for (const [name, range] of this.ranges) if (name !== except) keepRange(keep, store, name, range);
    if (this.row !== null) keepRange(keep, store, "row", [this.row, this.row]);
    const found = this.rowsOnly;
    if (found) for (let row = 0; row < keep.length; row += 1) keep[row] &= found[row] ?? 0;
    return flaggedRows(keep);
  }
}

/** The rows whose flag is set. */
function flaggedRows(flags) {
  const rows = new Uint32Array(flags.length);
  let count = 0;
  for (let row = 0; row < flags.length; row += 1) {
    rows[count] = row;
    count += flags[row];
  }
  return rows.slice(0, count);
}

/** Takes the flag from rows whose word is not among the chosen. */
function keepWords(keep, store, name, chosen) {
  const { values, words } = store.part(name) ?? { values: [], words: [] };
  const allowed = new Uint8Array(words.length + 1);
  allowed[0] = chosen.has(null) ? 1 : 0;
  for (const [index, word] of words.entries()) allowed[index + 1] = chosen.has(word) ? 1 : 0;
  for (let row = 0; row < keep.length; row += 1) keep[row] &= allowed[values[row] ?? 0];
}

/** Takes the flag from rows whose number is outside the range; rows without a number are outside. */
function keepRange(keep, store, name, [least, most]) {
  const values = store.part(name)?.values ?? [];
  const low = least ?? -Infinity;
  const high = most ?? Infinity;
  for (let row = 0; row < keep.length; row += 1) keep[row] &= values[row] >= low && values[row] <= high ? 1 : 0;
}

/** The terms of a query: words between blanks, and phrases in double quotes as they are. */
function queryTerms(query) {
  const found = [...query.matchAll(/"([^"]+)"?|([^\s"]+)/gu)].map(([, phrase, word]) => phrase ?? word);
  const terms = found.filter((term) => term.trim());
  if (!terms.length && query.trim()) terms.push(query.trim());
  return [...new Set(terms)].slice(0, MOST_TERMS);
}

/** A pattern that finds a term as it is, in upper and lower case of any script. */
function termPattern(term) {
  return new RegExp(term.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "giu");
}

/** Digits of a decimal number that no two floats share; with more, another number may have the same float. */
const SURE_DIGITS = 15;

/** The number that a term names, NaN for none. Where a float rounds it, only its text finds it. */
function searchedNumber(term) {
  const [, digits] = /^[-+]?([\d.]+)(?:e[-+]?\d+)?$/i.exec(term) ?? [];
  if (digits === undefined) return NaN;
  const number = Number(term);
  return digits.replace(/^[0.]+|\./g, "").length <= SURE_DIGITS || String(number) === term ? number : NaN;
}

/** The constant texts of a frame: those of the job's own templates. */
function frameTexts(frame) {
  return (frame?.messages ?? []).flatMap((message) => message.parts.flatMap(({ text }) => (text ? [text] : [])));
}

/**
 * One search. A row is found where each term is in one of its texts, short values or words, or in a constant text of
 * its prompt, without regard to case, as the page holds them. A number also finds rows that have exactly this number
 * as row, input or typed answer. A hit lies within one cell.
 */
class RowSearch {
  constructor(store, query) {
    this.store = store;
    this.count = store.count;
    this.chunks = store.starts.length;
    this.terms = queryTerms(query).map((term) => ({
      pattern: termPattern(term),
      number: searchedNumber(term),
      hits: new Uint8Array(this.count),
    }));
  }

  /** Flags by row, 1 where all terms are found. `fromChunk`: earlier chunks are left out, their flags are 0. */
  async run({ signal, onProgress, fromChunk = 0 } = {}) {
    let turn = performance.now();
    this.#searchShort(this.store.starts[fromChunk] ?? this.count);
    for (let chunk = fromChunk; chunk < this.chunks; chunk += 1) {
      const block = await this.store.blocks.scan(chunk);
      signal?.throwIfAborted();
      for (const term of this.terms) searchBlock(block, this.store.starts[chunk], term);
      if (performance.now() - turn > TURN_MS) {
        onProgress?.(chunk + 1, this.chunks);
        await nextTurn();
        signal?.throwIfAborted();
        turn = performance.now();
      }
    }
    return this.#inAll();
  }

  /** Searches what is there without decompressing: short texts, words, numbers, constant texts. */
  #searchShort(first) {
    for (const { name, kind, group } of this.store.columns) {
      const { values, words } = this.store.part(name);
      for (const { pattern, number, hits } of this.terms) {
        if (kind === "word") flagWords(values, words.map((word) => isFound(pattern, word)), first, hits);
        else if (kind === "short") flagShort(values, pattern, first, hits);
        else if (kind === "number" && (group === "input" || group === "typed" || name === "row")) {
          if (!Number.isNaN(number)) flagNumbers(values, number, first, hits);
        }
      }
    }
    const frames = this.store.part("frame")?.values;
    if (!frames) return;
    const texts = this.store.meta.frames.map(frameTexts);
    for (const { pattern, hits } of this.terms) {
      const has = texts.map((each) => each.some((text) => isFound(pattern, text)));
      for (let row = first; row < this.count; row += 1) if (has[frames[row]]) hits[row] = 1;
    }
  }

  #inAll() {
    const [first, ...others] = this.terms;
    const all = first ? first.hits : new Uint8Array(this.count).fill(1);
    for (const { hits } of others) for (let row = 0; row < this.count; row += 1) all[row] &= hits[row];
    return all;
  }
}

/** Whether a text has the pattern, from its beginning. */
function isFound(pattern, text) {
  pattern.lastIndex = 0;
  return pattern.test(text);
}

/** Flags the rows whose word is found. */
function flagWords(codes, isFoundWord, first, hits) {
  if (!isFoundWord.includes(true)) return;
  for (let row = first; row < hits.length; row += 1) if (isFoundWord[codes[row] - 1]) hits[row] = 1;
}

/** Flags the rows whose short text is found. */
function flagShort(values, pattern, first, hits) {
  for (let row = first; row < hits.length; row += 1) {
    if (!hits[row] && values[row] !== null && isFound(pattern, values[row])) hits[row] = 1;
  }
}

/** Flags the rows that have exactly this number. */
function flagNumbers(values, number, first, hits) {
  for (let row = first; row < hits.length; row += 1) if (values[row] === number) hits[row] = 1;
}

/** Flags the rows of a block with a hit that lies within one text; the block's first row is row `first` of the page. */
function searchBlock(block, first, { pattern, hits }) {
  const { text, starts, names, rows } = block;
  const end = starts[names.indexOf("more") * rows] ?? text.length; // what follows is JSON
  let cell = 0;
  pattern.lastIndex = 0;
  for (let match = pattern.exec(text); match && match.index < end; match = pattern.exec(text)) {
    while (starts[cell + 1] <= match.index) cell += 1;
    if (pattern.lastIndex <= starts[cell + 1]) {
      hits[first + (cell % rows)] = 1;
      pattern.lastIndex = starts[cell + 1];
    } else {
      pattern.lastIndex = match.index + (text.codePointAt(match.index) > 0xffff ? 2 : 1);
    }
  }
  if (block.hasExtras) searchExtras(block, first, pattern, hits);
}

/** Flags the rows whose exact values or own frame have the pattern: their JSON is read, so that escapes don't hide it. */
function searchExtras(block, first, pattern, hits) {
  for (let row = 0; row < block.rows; row += 1) {
    const more = hits[first + row] ? null : block.more(row);
    if (!more) continue;
    const texts = [...Object.values(more.full ?? {}), ...frameTexts(more.frame)];
    if (texts.some((text) => isFound(pattern, text))) hits[first + row] = 1;
  }
}

/** The name of a word in a filter; null stands for rows without one. */
function wordName(word) {
  return word === null ? "(none)" : word === "" ? "(empty)" : word;
}

/** A button that opens a panel below itself; one panel is open at a time, Escape and a click elsewhere close it. */
class Disclosure {
  constructor(label, onOpen) {
    this.label = el("span", null, label);
    // A press on a label moves the focus to what can have it around the label: that must be the panel, which stays open.
    this.panel = el("div", { class: "grid-panel", role: "group", tabindex: "-1", "aria-label": visibleText(label) });
    this.summary = el("summary", { class: "button" }, this.label);
    this.node = el("details", { class: "grid-filter" }, this.summary, this.panel);
    this.node.addEventListener("toggle", () => {
      if (!this.node.open) return;
      onOpen();
      this.#stayOnScreen();
    });
    this.node.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.node.open) return;
      event.preventDefault(); // this key closes the panel alone
      this.close();
      this.summary.focus();
    });
    document.addEventListener("pointerdown", (event) => this.node.contains(event.target) || this.close());
    this.node.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !this.node.contains(event.relatedTarget)) this.close();
    });
  }

  /** Closes the panel. */
  close() {
    this.node.open = false;
  }

  /** Shows in the label how many choices are in use. */
  showChosen(words, count) {
    this.label.textContent = visibleText(count ? `${words} (${count})` : words);
    this.summary.classList.toggle("is-chosen", count > 0);
  }

  /** Opens the panel to the other side where it would leave the window. */
  #stayOnScreen() {
    this.panel.classList.remove("to-start");
    if (this.panel.getBoundingClientRect().right > document.documentElement.clientWidth) this.panel.classList.add("to-start");
  }
}

/** The words of a column as checkboxes, each with the number of its rows among those that the other filters leave. */
class WordChoice {
  constructor(app, column) {
    this.app = app;
    this.name = column.name;
    this.title = columnTitle(column);
    this.options = new Map();
    this.list = el("div", { class: "grid-options" });
    this.rest = el("p", { class: "muted", hidden: true });
    this.node = el("fieldset", null, el("legend", null, this.title), this.list, this.rest);
  }

  /** How many words are chosen. */
  get chosenCount() {
    return this.app.filters.words.get(this.name)?.size ?? 0;
  }

  /** Brings words, counts and ticks up to date. */
  sync() {
    const { filters, store } = this.app;
    const counts = store.countsAmong(this.name, filters.matches(store, this.name));
    const chosen = filters.words.get(this.name);
    if (store.counts(this.name).has(null) && !counts.has(null)) counts.set(null, 0);
    for (const word of chosen ?? []) if (!counts.has(word)) counts.set(word, 0);
    const known = this.options.size;
    const sorted = [...counts].sort(([, a], [, b]) => b - a);
    for (const [word] of sorted.slice(0, MOST_WORDS)) if (!this.options.has(word)) this.options.set(word, this.#option(word));
    for (const [word, { box, count }] of this.options) {
      box.checked = chosen?.has(word) ?? false;
      count.textContent = formatCount(counts.get(word) ?? 0);
    }
    if (known !== this.options.size) this.list.append(...[...this.options.values()].map(({ node }) => node));
    const left = counts.size - this.options.size;
    this.rest.hidden = left <= 0;
    this.rest.textContent = `${formatCount(left)} more: use the search.`;
  }

  #option(word) {
    const box = el("input", { type: "checkbox", on: { change: () => this.#choose(word, box.checked) } });
    const count = el("span", { class: "grid-option-count muted" });
    return { box, count, node: el("label", { class: "grid-option" }, box, el("span", { class: "grid-option-name" }, wordName(word)), count) };
  }

  #choose(word, isChosen) {
    const { filters } = this.app;
    const chosen = new Set(filters.words.get(this.name));
    if (isChosen) chosen.add(word);
    else chosen.delete(word);
    if (chosen.size) filters.words.set(this.name, chosen);
    else filters.words.delete(this.name);
    this.app.refresh();
  }
}

/** The least and the largest number of a column as two fields. */
class RangeChoice {
  constructor(app, column) {
    this.app = app;
    this.name = column.name;
    const unit = { usd: "US dollars", s: "seconds", tokens: "tokens" }[column.unit];
    const title = unit ? `${columnTitle(column)}, ${unit}` : columnTitle(column);
    this.fields = ["from", "to"].map((word) =>
      el("input", { class: "field", type: "number", step: "any", "aria-label": visibleText(`${title}, ${word}`), on: { input: () => this.#choose() } }));
    this.node = el("fieldset", { class: "grid-range" }, el("legend", null, title), this.fields[0], el("span", { "aria-hidden": "true" }, "to"), this.fields[1]);
  }

  /** Whether a bound is set. */
  get chosenCount() {
    return this.app.filters.ranges.has(this.name) ? 1 : 0;
  }

  /** Brings the fields up to date, but not the one that the reader writes into. */
  sync() {
    const { filters, store } = this.app;
    const range = filters.ranges.get(this.name) ?? [null, null];
    const whole = store.rangeOf(this.name) ?? ["", ""];
    for (const [index, field] of this.fields.entries()) {
      field.placeholder = whole[index] === "" ? "" : String(Number(whole[index].toPrecision(4)));
      if (field !== document.activeElement) field.value = range[index] ?? "";
    }
  }

  #choose() {
    const range = this.fields.map((field) => (field.value === "" ? null : Number(field.value)));
    if (range.some((bound) => bound !== null)) this.app.filters.ranges.set(this.name, range);
    else this.app.filters.ranges.delete(this.name);
    this.app.refresh();
  }
}

/** The line of filters, with the choice of columns and the download. */
class FacetBar {
  constructor(app, view) {
    this.app = app;
    this.view = view;
    this.groups = new Map(); // title -> {disclosure, choices by column}
    this.filters = el("div", { class: "grid-facets", role: "group", "aria-label": "Filters" });
    this.columns = new Disclosure("Columns", () => this.#showColumns());
    this.download = new Disclosure("Download CSV", () => {});
    this.#fillDownload();
    this.node = el("div", { class: "grid-tools no-print" }, this.filters, el("div", { class: "grid-facets" }, this.columns.node, this.download.node));
  }

  /** Adds filters for columns and words that are new. */
  update() {
    const { store } = this.app;
    const isMain = (name) => MAIN_FACETS.includes(name) || name.startsWith("axis:");
    for (const column of store.columns) {
      const { name, kind, group } = column;
      if (kind === "word" && this.#hasChoice(name)) this.#add(isMain(name) ? columnTitle(column) : "More", column, WordChoice);
      if (kind !== "number" || !store.rangeOf(name)) continue;
      if (group === "score") this.#add("Scores", column, RangeChoice);
      else if (RANGED.includes(name) || group === "typed") this.#add("Numbers", column, RangeChoice);
    }
    const last = ["Scores", "Numbers", "More"];
    const titles = [...this.groups.keys()].sort((a, b) => last.indexOf(a) - last.indexOf(b));
    const nodes = titles.map((title) => this.groups.get(title).disclosure.node);
    if (nodes.some((node, index) => this.filters.children[index] !== node)) this.filters.replaceChildren(...nodes);
    this.sync();
  }

  /** Whether filtering by a column can tell rows apart. */
  #hasChoice(name) {
    if (name === "status") return true;
    const words = this.app.store.words(name).length;
    return words > 1 || (words === 1 && this.app.store.counts(name).has(null));
  }

  #add(title, column, Choice) {
    if (!this.groups.has(title)) {
      const disclosure = new Disclosure(title, () => this.#syncGroup(title));
      this.groups.set(title, { disclosure, choices: new Map() });
    }
    const { disclosure, choices } = this.groups.get(title);
    if (choices.has(column.name)) return;
    const choice = new Choice(this.app, column);
    choices.set(column.name, choice);
    disclosure.panel.append(choice.node);
  }

  #syncGroup(title) {
    for (const choice of this.groups.get(title).choices.values()) choice.sync();
  }

  /** Brings the labels and the open panel up to date. */
  sync() {
    for (const [title, { disclosure, choices }] of this.groups) {
      let chosen = 0;
      for (const choice of choices.values()) chosen += choice.chosenCount;
      disclosure.showChosen(title, chosen);
      if (disclosure.node.open) this.#syncGroup(title);
    }
  }

  #fillDownload() {
    const save = (names) => {
      this.download.close();
      this.download.summary.focus();
      downloadCsv(this.app, names);
    };
    this.download.panel.append(
      el("p", { class: "muted" }, "The rows that are shown, in this order."),
      el("button", { type: "button", class: "button", on: { click: () => save(this.view.columnNames) } }, "The columns shown"),
      el("button", { type: "button", class: "button", on: { click: () => save(undefined) } }, "All columns"),
    );
  }

  /** Fills the panel of columns: a checkbox for each, by group, in the order of the table. */
  #showColumns() {
    const shown = new Set(this.view.columnNames);
    const groups = Object.entries(GROUP_TITLES).map(([group, title]) => {
      const columns = this.app.store.columns.filter((column) => column.group === group);
      return columns.length ? el("fieldset", null, el("legend", null, title), columns.map((column) => this.#columnOption(column, shown))) : null;
    });
    const reset = () => {
      this.view.setColumns(null);
      this.#showColumns();
      this.columns.panel.querySelector("button").focus();
    };
    const button = el("button", { type: "button", class: "button", on: { click: reset } }, "The usual columns");
    clear(this.columns.panel).append(...groups.filter(Boolean), button);
  }

  #columnOption(column, shown) {
    const choose = () => {
      if (box.checked) shown.add(column.name);
      else shown.delete(column.name);
      if (shown.size) this.view.setColumns([...shown]);
      else box.checked = Boolean(shown.add(column.name)); // a table without columns shows nothing
    };
    const box = el("input", { type: "checkbox", on: { change: choose } });
    box.checked = shown.has(column.name);
    return el("label", { class: "grid-option" }, box, el("span", { class: "grid-option-name" }, columnTitle(column)));
  }
}
