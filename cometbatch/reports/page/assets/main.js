// The app: reads the file's data, holds what all views share, and leads from the address to a view.

const VIEW_NAMES = ["overview", "rows", "evaluation"];

/** What an address asks for: `{view}`, `{call: {file, ordinal}}` or `{view: "rows", row}`. */
function readHash(hash) {
  const text = hash.replace(/^#/, "");
  const call = /^call=(\d+)\.(\d+)$/.exec(text);
  if (call) return { call: { file: Number(call[1]), ordinal: Number(call[2]) } };
  const row = /^row=(\d+)$/.exec(text);
  if (row) return { view: "rows", row: Number(row[1]) };
  return { view: VIEW_NAMES.includes(text) ? text : null };
}

/** What all views share: data, filters, the rows that the table shows, the open call, and the ways between views. */
class App {
  constructor(meta, store) {
    this.meta = meta;
    this.store = store;
    this.filters = new Filters();
    this.sort = null;
    this.visible = new Uint32Array(0);
    this.view = "overview";
    this.current = -1;
    this.views = {};
    this.drawer = null;
    this.chunkCount = 0;
    this.changeListeners = [];
    this.themeListeners = [];
    this.pushedCall = false;
    this.isLoaded = false;
  }

  /** Calls fn after each change of filters, order, visible rows or open call. */
  onChange(fn) {
    this.changeListeners.push(fn);
  }

  /** Calls fn after each change between light and dark. */
  onTheme(fn) {
    this.themeListeners.push(fn);
  }

  /** Says a sentence to screen readers; the same sentence twice is said twice. */
  announce(text) {
    const live = document.getElementById("live");
    live.textContent = "";
    requestAnimationFrame(() => live.append(textNode(text)));
  }

  /** Filters and sorts again, then tells the listeners. */
  refresh() {
    const rows = this.filters.matches(this.store);
    this.visible = this.sort ? this.store.order(this.sort.name, this.sort.descending, rows) : rows;
    this.tell();
  }

  /** Tells the listeners that something changed. */
  tell() {
    for (const fn of this.changeListeners) fn();
  }

  /** Sorts the rows by a column; null: in the order of the result. */
  sortBy(name, descending) {
    this.sort = name === null ? null : { name, descending: Boolean(descending) };
    this.refresh();
  }

  /** Shows the rows that a choice names; what the choice leaves out is not filtered. */
  showRows({ words, ranges, query, row, sort } = {}) {
    this.filters.words = new Map(Object.entries(words ?? {}).map(([name, chosen]) => [name, new Set(chosen)]));
    this.filters.ranges = new Map(Object.entries(ranges ?? {}));
    this.filters.query = query ?? "";
    this.filters.rowsOnly = null;
    this.filters.row = row ?? null;
    this.sort = sort ?? null;
    this.go(row === undefined || row === null ? "#rows" : `#row=${row}`);
    this.refresh();
  }

  /** Leads to an address of this page. */
  go(hash, replace = false) {
    if (location.hash === hash) return;
    if (replace) history.replaceState(null, "", hash);
    else history.pushState(null, "", hash);
    this.route();
  }

  /** Shows what the address asks for. */
  route() {
    const asked = readHash(location.hash);
    if (asked.call) {
      this.showView(this.views[this.view] ? this.view : "rows");
      this.showCall(asked.call.file, asked.call.ordinal);
      return;
    }
    this.hideDrawer();
    if (asked.row !== undefined && this.filters.row !== asked.row) {
      this.filters.row = asked.row;
      this.refresh();
    }
    this.showView(asked.view ?? "overview");
  }

  /** Shows a view, and mounts it the first time. */
  showView(name) {
    const shown = name === "evaluation" && !this.meta.evaluation ? "overview" : name;
    this.view = shown;
    document.body.dataset.view = shown;
    for (const each of VIEW_NAMES) document.getElementById(`view-${each}`).hidden = each !== shown;
    for (const link of document.querySelectorAll("#navigation a")) {
      if (link.dataset.view === shown) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (!this.views[shown]) this.views[shown] = mountView(shown, this);
  }

  /** Opens the drawer at a call by its file and ordinal, as a step that the browser's back button undoes. */
  openCall(file, ordinal) {
    const isOpen = readHash(location.hash).call !== undefined;
    this.pushedCall = this.pushedCall || !isOpen;
    this.go(`#call=${file}.${ordinal}`, isOpen);
  }

  /** Opens the drawer at a row of the page. */
  openRow(row) {
    this.openCall(...this.callOf(row));
  }

  /** The file and the ordinal of a row of the page. */
  callOf(row) {
    const file = this.meta.sources.findIndex((source) => source.name === this.store.value("file", row));
    return [file, this.store.value("ordinal", row)];
  }

  /** Opens the next (+1) or previous (-1) of the visible rows. */
  step(by) {
    const at = this.visible.indexOf(this.current);
    const next = at < 0 ? (by > 0 ? 0 : this.visible.length - 1) : at + by;
    if (next < 0 || next >= this.visible.length) this.announce(by > 0 ? "This is the last row." : "This is the first row.");
    else this.openRow(this.visible[next]);
  }

  /** Shows a call in the drawer; one that the page does not have is said to be missing. */
  showCall(file, ordinal) {
    this.current = this.store.place(file, ordinal);
    if (this.drawer) this.drawer.show(this.current, { file, ordinal });
    this.tell();
  }

  /** Closes the drawer: one step back where opening it was a step. */
  closeDrawer() {
    if (this.pushedCall) {
      this.pushedCall = false;
      history.back();
    } else {
      this.go(`#${this.view}`, true);
    }
  }

  /** Hides the drawer after the address has left its call. */
  hideDrawer() {
    this.pushedCall = false;
    if (this.current < 0 && !(this.drawer && this.drawer.isOpen)) return;
    this.current = -1;
    if (this.drawer) this.drawer.hide();
    this.tell();
  }

  /** Tells all views that data or meta have changed. */
  update() {
    showHeader(this);
    for (const view of Object.values(this.views)) view.update();
    if (this.drawer) this.drawer.update();
  }
}

/** Mounts a view into its section. */
function mountView(name, app) {
  const root = document.getElementById(`view-${name}`);
  const isThere = {
    overview: typeof mountOverview === "function",
    rows: typeof mountRows === "function",
    evaluation: typeof mountEvaluation === "function",
  };
  if (!isThere[name]) return { update() {}, focus() {} };
  if (name === "overview") return mountOverview(root, app);
  if (name === "rows") return mountRows(root, app);
  return mountEvaluation(root, app);
}

/** Writes title, subtitle and navigation. */
function showHeader(app) {
  const { meta } = app;
  clear(document.getElementById("title")).append(textNode(meta.title));
  const made = formatMoment(Date.parse(meta.made_at));
  clear(document.getElementById("subtitle")).append(textNode(`${meta.program} · ${made}`));
  document.querySelector('#navigation a[data-view="evaluation"]').hidden = !meta.evaluation;
}

/** Adds the file's chunks to the store, in order; the first rows are shown before the others are read. */
async function loadChunks(app) {
  const shorts = document.querySelectorAll("script.short");
  const texts = document.querySelectorAll("script.text");
  for (let i = 0; i < shorts.length; i++) {
    await app.store.addChunk(bytesOfBase64(shorts[i].textContent), () => bytesOfBase64(texts[i].textContent));
    app.chunkCount = i + 1;
    if (i === 0) app.refresh();
  }
  app.isLoaded = true;
  app.refresh();
  app.update();
}

/** Starts the page. */
async function start() {
  const meta = JSON.parse(document.getElementById("meta").textContent);
  const app = new App(meta, new Store(meta));
  if (typeof mountDrawer === "function") app.drawer = mountDrawer(document.getElementById("drawer"), app);
  showHeader(app);
  window.addEventListener("popstate", () => app.route());
  const isCall = readHash(location.hash).call !== undefined;
  if (!isCall) app.route();
  await loadChunks(app);
  if (isCall) app.route();
}

start();
