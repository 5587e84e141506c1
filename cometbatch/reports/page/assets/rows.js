// The view of rows: search, filters, chosen columns, the table, and what is shown of how many.

/** Words that a chip names. */
const CHIP_WORDS = 3;
/** Scores among the columns shown at first. */
const FIRST_SCORES = 3;
/** Milliseconds without a change before the count of rows is said. */
const SAY_AFTER_MS = 600;
const NARROW = "(max-width: 600px)";

/** Puts the view of rows into its section. */
function mountRows(root, app) {
  const view = new RowsView(root, app);
  app.onChange(() => view.changed());
  view.update();
  return view;
}

/** The running search: one at a time, the last query wins. */
class Searching {
  constructor(app, onProgress) {
    this.app = app;
    this.onProgress = onProgress;
    this.query = "";
    this.flags = null;
    this.chunks = 0;
    this.controller = null;
  }

  /** Whether the flags in use are not those of the query in use, or rows have come since. */
  isDue() {
    const { filters, store } = this.app;
    if (filters.query !== this.query) return true;
    if (!this.query.trim() || this.controller) return false;
    return this.chunks < store.starts.length;
  }

  /** Searches for the query of the filters, then filters again. Rows that came since are searched alone. */
  async run() {
    const { filters, store } = this.app;
    this.controller?.abort();
    const isSame = filters.query === this.query && this.flags !== null;
    const fromChunk = isSame ? this.chunks : 0;
    const [query, chunks, earlier] = [filters.query, store.starts.length, isSame ? this.flags : null];
    Object.assign(this, { query, controller: null, flags: earlier });
    if (!query.trim()) {
      this.#finish(null, 0);
      return;
    }
    const controller = new AbortController();
    this.controller = controller;
    this.onProgress(0);
    const onProgress = (done, total) => this.onProgress(done / total);
    try {
      const flags = await store.search(query, { signal: controller.signal, onProgress, fromChunk });
      if (controller.signal.aborted) return;
      earlier?.forEach((flag, row) => (flags[row] |= flag));
      this.#finish(flags, chunks);
    } catch (problem) {
      if (!controller.signal.aborted) throw problem;
    }
  }

  #finish(flags, chunks) {
    Object.assign(this, { flags, chunks, controller: null });
    this.app.filters.rowsOnly = flags;
    this.onProgress(null);
    this.app.refresh();
  }
}

/** The view of rows. */
class RowsView {
  constructor(root, app) {
    this.app = app;
    this.table = new RowTable(app);
    this.searching = new Searching(app, (part) => this.#showProgress(part));
    this.rowCount = 0;
    this.chosen = null; // the reader's own columns, else null
    this.shown = "";
    this.facets = new FacetBar(app, this);
    this.field = el("input", {
      class: "field grid-search", type: "search", id: "grid-search", autocomplete: "off", spellcheck: "false",
      placeholder: "Search all text", "aria-describedby": "grid-hint", "aria-keyshortcuts": "/",
      on: { input: () => this.#typed() },
    });
    this.progress = el("progress", { class: "grid-progress", max: "1", "aria-label": "Searching", hidden: true });
    this.count = el("p", { class: "grid-count", id: "grid-count" });
    this.chips = el("div", { class: "grid-chips", role: "group", "aria-label": "Filters in use" });
    this.notice = el("p", { class: "grid-selection muted" });
    this.empty = el("div", { class: "empty", hidden: true });
    const onPaper = el("p", { class: "grid-print-note muted" }, "These are the rows that were on screen. The CSV file has all of them.");
    root.append(this.#head(), this.facets.node, this.chips, this.notice, onPaper, this.table.box, this.empty);
    window.matchMedia(NARROW).addEventListener("change", () => this.setColumns(this.chosen));
  }

  #head() {
    const hint = 'All words, anywhere in a row. "In quotes": exactly this phrase.';
    return el(
      "div", { class: "grid-top" },
      el("h2", { class: "visually-hidden" }, "Rows"),
      el("div", { class: "grid-find", role: "search" },
        el("label", { class: "visually-hidden", for: "grid-search" }, "Search all text of the rows"), this.field, this.progress,
        el("p", { class: "muted grid-hint", id: "grid-hint" }, hint)),
      this.count,
    );
  }

  #typed() {
    this.app.filters.query = this.field.value;
    this.searching.run();
  }

  #showProgress(part) {
    this.progress.hidden = part === null;
    if (part !== null) this.progress.value = part;
  }

  /** The names of the columns shown. */
  get columnNames() {
    return this.table.columns.map(({ name }) => name);
  }

  /** Shows these columns; null: those that fit the screen and what the result has. */
  setColumns(names) {
    this.chosen = names;
    const { store } = this.app;
    const isNarrow = window.matchMedia(NARROW).matches;
    const wanted = new Set(names ?? firstColumns(store, isNarrow));
    this.table.setColumns(store.columns.filter(({ name }) => wanted.has(name)), isNarrow);
  }

  /** After new data or meta. */
  update() {
    this.notice.textContent = visibleText(this.app.meta.selection?.words ?? "");
    this.notice.hidden = !this.notice.textContent;
    this.#showLayout();
    this.changed();
  }

  /** Filters and columns that the present rows call for. */
  #showLayout() {
    this.rowCount = this.app.store.count;
    this.facets.update();
    this.setColumns(this.chosen);
  }

  /** After a change of filters, order, visible rows or open call. */
  changed() {
    const { app } = this;
    if (this.field.value !== app.filters.query) this.field.value = app.filters.query;
    if (this.searching.isDue()) this.searching.run();
    if (app.store.count !== this.rowCount) this.#showLayout();
    if (app.visible !== this.table.rows) this.#showRows();
    if (app.current >= 0 && app.current !== this.table.active) this.table.activate(app.current);
  }

  #showRows() {
    const { app } = this;
    const key = JSON.stringify([app.sort, describeFilters(app).map(({ words }) => words)]);
    const patterns = this.searching.flags ? queryTerms(this.searching.query).map(termPattern) : [];
    this.table.showSort();
    this.#showEmpty();
    this.table.setRows(patterns, key !== this.shown);
    this.shown = key;
    this.facets.sync();
    this.#showChips();
    this.#showCount();
  }

  #showCount() {
    const { app } = this;
    const [some, all] = [app.visible.length, app.store.count];
    const words = some === all ? countOf(all, "row") : `${formatCount(some)} of ${countOf(all, "row")}`;
    if (this.count.textContent === words) return;
    const isFirst = this.count.textContent === "";
    this.count.textContent = words;
    clearTimeout(this.saying);
    if (!isFirst && app.view === "rows") this.saying = setTimeout(() => app.announce(words), SAY_AFTER_MS);
  }

  #showEmpty() {
    const { app } = this;
    const isEmpty = app.visible.length === 0;
    this.table.box.hidden = isEmpty;
    this.empty.hidden = !isEmpty;
    clear(this.empty);
    if (!isEmpty) return;
    if (!app.filters.isActive) {
      this.empty.append(el("p", null, app.isLoaded ? "There are no rows yet." : "Reading the rows …"));
      return;
    }
    const button = el("button", { type: "button", class: "button", on: { click: () => this.clearFilters() } }, "Clear the filters");
    this.empty.append(el("p", null, "No row matches."), button);
  }

  #showChips() {
    const chips = describeFilters(this.app).map(({ words, remove }) =>
      el("button", { type: "button", class: "grid-chip", "aria-label": `Remove the filter ${visibleText(words)}`, on: { click: () => this.#removeFilter(remove) } },
        el("span", null, words), el("span", { "aria-hidden": "true" }, "×")));
    if (chips.length > 1) chips.push(el("button", { type: "button", class: "button quiet", on: { click: () => this.clearFilters() } }, "Clear all"));
    clear(this.chips).append(...chips);
    this.chips.hidden = !chips.length;
  }

  #removeFilter(remove) {
    remove();
    this.app.refresh();
    (this.chips.querySelector("button") ?? this.field).focus();
  }

  /** Shows all rows again. */
  clearFilters() {
    this.app.filters.clear();
    this.app.refresh();
    this.field.focus();
  }

  /** Puts the focus on the table. */
  focus() {
    this.table.box.focus({ preventScroll: true });
  }

  /** Puts the focus into the search field. */
  focusSearch() {
    this.field.focus();
    this.field.select();
  }

  /** Moves the active row. */
  move(by) {
    this.table.move(by);
  }

  /** Opens the active row. */
  open() {
    if (this.table.activePlace() >= 0) this.app.openRow(this.table.active);
  }

  /** Makes a row of the page the active one and puts the focus on the table. */
  focusRow(row) {
    if (row >= 0) this.table.activate(row);
    this.focus();
  }
}

/** The columns that a reader sees first: what tells the rows apart, how it went, question and answer, scores and cost. */
function firstColumns(store, isNarrow) {
  const isVaried = (name) => store.has(name) && (store.column(name).kind === "word" ? store.words(name).length > 1 : hasSeveral(store.rangeOf(name)));
  const identity = store.has("custom_id") && store.part("custom_id").values.some((text) => text) ? "custom_id" : "row";
  const scores = store.columns.filter(({ name, kind }) => kind === "number" && name.startsWith("score:")).map(({ name }) => name);
  const input = store.columns.find(({ group, kind }) => group === "input" && (kind === "text" || kind === "short"));
  const prompt = store.has("prompt") ? "prompt" : input?.name;
  if (isNarrow) return [identity, "status", store.has("response") ? "response" : "error_message", ...scores.slice(0, 1)];
  const axes = store.columns.map(({ name }) => name).filter((name) => name.startsWith("axis:"));
  const apart = ["file", "model", ...axes, "sample"].filter(isVaried);
  const answer = store.has("response") ? "response" : "error_message";
  return [identity, ...apart, "status", prompt, answer, ...scores.slice(0, FIRST_SCORES), "cost_usd", "latency_s", "output_tokens"];
}

/** Whether a range has more than one number. */
function hasSeveral(range) {
  return range !== null && range[0] < range[1];
}

/** What is filtered, in words, each with the function that removes it. */
function describeFilters(app) {
  const { filters, store } = app;
  const titleOf = (name) => (store.has(name) ? columnTitle(store.column(name)) : name);
  const found = [];
  if (filters.query.trim()) found.push({ words: `Search: ${filters.query.trim()}`, remove: () => (filters.query = "") });
  if (filters.row !== null) found.push({ words: `Row: ${filters.row}`, remove: () => (filters.row = null) });
  for (const [name, chosen] of filters.words) {
    found.push({ words: `${titleOf(name)}: ${listWords([...chosen])}`, remove: () => filters.words.delete(name) });
  }
  for (const [name, range] of filters.ranges) {
    found.push({ words: `${titleOf(name)}: ${rangeWords(store.column(name), range)}`, remove: () => filters.ranges.delete(name) });
  }
  return found;
}

/** Some words, and how many more. */
function listWords(words) {
  const some = words.slice(0, CHIP_WORDS).map(wordName).join(", ");
  return words.length > CHIP_WORDS ? `${some} and ${words.length - CHIP_WORDS} more` : some;
}

/** A range in words. */
function rangeWords(column, [least, most]) {
  const show = (value) => (column ? formatCell(column, value) : String(value));
  if (least === null) return `at most ${show(most)}`;
  if (most === null) return `at least ${show(least)}`;
  return least === most ? show(least) : `${show(least)} to ${show(most)}`;
}
