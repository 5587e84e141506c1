// The app: reads the file's data, holds what all views share, and leads from the address to a view.

const VIEW_NAMES = ["overview", "rows", "evaluation"];

/** What an address asks for: `{call: {file, ordinal}}`, `{view}`, `{view: "rows", row}`; `{view: null}` for anything else. */
function readHash(hash) {
  const text = hash.replace(/^#/, "");
  const call = /^call=(\d{1,15})\.(\d{1,15})$/.exec(text);
  if (call) return { call: { file: Number(call[1]), ordinal: Number(call[2]) } };
  const row = /^row=(\d{1,15})$/.exec(text);
  if (row) return { view: "rows", row: Number(row[1]) };
  return { view: VIEW_NAMES.includes(text) ? text : null };
}

/** What the reader chose earlier; null where the browser keeps nothing for a file. */
function readSetting(name) {
  try {
    return localStorage.getItem(`cometbatch-${name}`);
  } catch {
    return null;
  }
}

/** Keeps a choice for the next report, where the browser keeps anything for a file. */
function keepSetting(name, value) {
  try {
    localStorage.setItem(`cometbatch-${name}`, value);
  } catch {
    // The choice holds for this page alone.
  }
}

/** What all views share: data, filters, the rows that the table shows, the open call, and the ways between views. */
class App {
  constructor(meta) {
    this.meta = meta;
    this.store = new Store(meta);
    this.filters = new Filters();
    this.sort = null;
    this.visible = new Uint32Array(0);
    this.view = null;
    this.current = -1;
    this.views = {};
    this.isLoaded = false;
    this.chunkCount = 0;
    this.changeListeners = [];
    this.scrolls = {};
    this.hasPushedCall = false;
    this.drawer = mountDrawer(document.getElementById("drawer"), this);
  }

  /** Calls fn after each change of filters, order, visible rows, view or open call. */
  onChange(fn) {
    this.changeListeners.push(fn);
  }

  /** Says a sentence to screen readers; the same sentence again is said again. */
  announce(text) {
    const live = clear(document.getElementById("live"));
    requestAnimationFrame(() => clear(live).append(textNode(text)));
  }

  /** Filters and sorts again, and tells the listeners. */
  refresh() {
    const rows = this.filters.matches(this.store);
    this.visible = this.sort ? this.store.order(this.sort.name, this.sort.descending, rows) : rows;
    const hash = this.hashOf("rows");
    document.querySelector('#navigation a[data-view="rows"]').href = hash;
    if (readHash(location.hash).view === "rows" && location.hash !== hash) history.replaceState(null, "", hash);
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

  /** Shows the rows with these words (by column, a list of which a row has one), or of a row of the input. Other filters go. */
  showRows({ words = {}, row = null }) {
    this.filters.clear();
    this.filters.words = new Map(Object.entries(words).map(([name, chosen]) => [name, new Set(chosen)]));
    this.filters.row = row;
    this.sort = null;
    this.go(this.hashOf("rows"));
    this.refresh();
  }

  /** The address of a view; that of the rows names the row of the input to which they are limited. */
  hashOf(view) {
    return view === "rows" && this.filters.row !== null ? `#row=${this.filters.row}` : `#${view}`;
  }

  /** Leads to an address of this page, as a step that the back button undoes; with `replace`, in place of the current one. */
  go(hash, replace = false) {
    if (location.hash === hash) return;
    if (replace) history.replaceState(null, "", hash);
    else history.pushState(null, "", hash);
    this.route();
  }

  /** Shows what the address asks for; an address that is not known shows what was shown before. */
  route() {
    const asked = readHash(location.hash);
    if (asked.call) {
      this.showView(this.view ?? "rows");
      this.showCall(asked.call);
      return;
    }
    this.hideDrawer();
    const view = asked.view ?? (location.hash === "" ? null : this.view) ?? "overview";
    if (asked.view === "rows" && this.filters.row !== (asked.row ?? null)) {
      this.filters.row = asked.row ?? null;
      this.refresh();
    }
    this.showView(view);
  }

  /** Shows a view, and mounts it the first time. The focus comes along from what is hidden by that. */
  showView(name) {
    const shown = name === "evaluation" && !this.meta.evaluation ? "overview" : name;
    if (shown === this.view) return;
    const hadFocus = document.getElementById(`view-${this.view}`)?.contains(document.activeElement);
    if (this.view) this.scrolls[this.view] = scrollY;
    this.view = shown;
    document.body.dataset.view = shown;
    for (const each of VIEW_NAMES) document.getElementById(`view-${each}`).hidden = each !== shown;
    for (const link of document.querySelectorAll("#navigation a")) {
      if (link.dataset.view === shown) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.views[shown] ??= mountView(shown, this);
    if (hadFocus) this.views[shown].focus();
    scrollTo(0, this.scrolls[shown] ?? 0);
    this.tell();
  }

  /** Opens the drawer at a call by its file and ordinal; the browser's back button closes it. */
  openCall(file, ordinal) {
    const isOpen = readHash(location.hash).call !== undefined;
    this.hasPushedCall ||= !isOpen;
    this.go(`#call=${file}.${ordinal}`, isOpen);
  }

  /** Opens the drawer at a row of the page. */
  openRow(row) {
    const { file, ordinal } = this.store.callOf(row);
    this.openCall(file, ordinal);
  }

  /** Opens the next (+1) or previous (-1) of the visible rows; from a row that is filtered out, the first or last. */
  step(by) {
    const { visible } = this;
    const at = visible.indexOf(this.current);
    const next = at >= 0 ? at + by : by > 0 ? 0 : visible.length - 1;
    if (next >= 0 && next < visible.length) this.openRow(visible[next]);
    else if (visible.length === 0) this.announce("No row matches the filters.");
    else this.announce(by > 0 ? "This is the last row." : "This is the first row.");
  }

  /** Shows a call in the drawer; one that the page does not have is said to be missing. */
  showCall(call) {
    this.current = this.store.place(call.file, call.ordinal);
    this.drawer.show(this.current, call);
    this.tell();
  }

  /** Closes the drawer: one step back where opening it was a step. */
  closeDrawer() {
    if (this.hasPushedCall) history.back();
    else this.go(this.hashOf(this.view), true);
  }

  /** Leads to the search field of the rows. */
  search() {
    if (this.view !== "rows" || this.drawer.isOpen) this.go(this.hashOf("rows"));
    this.views.rows.focusSearch();
  }

  /** Hides the drawer, after the address has left its call. */
  hideDrawer() {
    this.hasPushedCall = false;
    if (!this.drawer.isOpen) return;
    this.current = -1;
    this.drawer.hide();
    this.tell();
  }

  /** Takes chunks (`{short, text}` in base64) and meta data that came later, and shows them. */
  async take(chunks, meta) {
    if (meta) {
      this.store.setMeta(meta);
      this.meta = this.store.meta;
    }
    for (const { short, text } of chunks) {
      await this.store.addChunk(bytesOfBase64(short), () => bytesOfBase64(text));
      this.chunkCount += 1;
    }
    this.refresh();
    this.update();
  }

  /** Tells all views that data or meta have changed. */
  update() {
    showHeader(this);
    for (const view of Object.values(this.views)) view.update();
    this.drawer.update();
  }
}

/** Mounts a view into its section. */
function mountView(name, app) {
  const mounts = { overview: mountOverview, rows: mountRows, evaluation: mountEvaluation };
  return mounts[name](document.getElementById(`view-${name}`), app);
}

/** Writes title, subtitle and navigation. */
function showHeader({ meta }) {
  const title = clear(document.getElementById("title"));
  title.append(el("bdi", {}, shortTitle(meta)));
  title.title = visibleText(meta.title);
  const { rows, of } = meta.selection;
  const count = rows < of ? `${formatCount(rows)} of ${formatCount(of)}` : formatCount(rows);
  const words = [`${count} ${of === 1 ? "row" : "rows"}`, `made ${formatMoment(Date.parse(meta.made_at))}`, meta.program];
  clear(document.getElementById("subtitle")).append(textNode(words.join(" · ")));
  document.querySelector('#navigation a[data-view="evaluation"]').hidden = !meta.evaluation;
}

/** Whether the page is dark now, by the reader's choice or by the system's. */
function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Puts a theme on the page ("system" follows the system); charts are drawn again where light and dark change. */
function putTheme(theme) {
  const before = isDark();
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  if (before !== isDark()) redrawCharts();
}

/** Connects the theme's switch. Paper is light: charts are drawn again for it. */
function setUpTheme() {
  const inputs = [...document.querySelectorAll('#theme input[name="theme"]')];
  const kept = readSetting("theme");
  const chosen = () => inputs.find((input) => input.checked)?.value ?? "system";
  for (const input of inputs) {
    input.checked = input.value === (["light", "dark"].includes(kept) ? kept : "system");
    input.addEventListener("change", () => {
      keepSetting("theme", chosen());
      putTheme(chosen());
    });
  }
  putTheme(chosen());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (chosen() === "system") redrawCharts();
  });
  addEventListener("beforeprint", () => putTheme("light"));
  addEventListener("afterprint", () => putTheme(chosen()));
}

/** Keys of the page: what is pressed, and what it does. */
const KEYS = [
  [["j"], "next row, in the table or in the open row"],
  [["k"], "previous row"],
  [["Home", "End"], "first and last row of the table"],
  [["Enter"], "open the row that is marked in the table"],
  [["Esc"], "close the open row, a menu or this help"],
  [["/"], "search"],
  [["?"], "show this help"],
  [["Tab", "Shift Tab"], "next and previous control"],
];

/** Keys of the evaluation, where there is one. */
const EVALUATION_KEYS = [[["n"], "next question on which cells disagree"], [["p"], "previous question"]];

/** Whether keys of one letter or sign do something: the reader may switch them off in the help. */
function hasLetterKeys() {
  return document.getElementById("letter-keys").checked;
}

/** Fills the help dialog and connects its button. */
function setUpHelp({ meta }) {
  const dialog = document.getElementById("help");
  const button = document.getElementById("help-button");
  const letters = el("input", { type: "checkbox", id: "letter-keys" });
  letters.checked = readSetting("letter-keys") !== "off";
  letters.addEventListener("change", () => keepSetting("letter-keys", letters.checked ? "on" : "off"));
  const rows = [...KEYS, ...(meta.evaluation ? EVALUATION_KEYS : [])].map(([keys, words]) =>
    el("tr", {}, el("th", { scope: "row" }, keys.map((key, i) => [i ? " " : null, el("kbd", {}, key)])), el("td", {}, words)),
  );
  const attributes = { type: "button", class: "button quiet icon-button", "aria-label": "Close" };
  const close = el("button", { ...attributes, on: { click: () => dialog.close() } }, "✕");
  dialog.append(
    el("div", { class: "help-head" }, el("h2", { id: "help-heading" }, "Keyboard"), close),
    el("table", { class: "plain-table" }, el("tbody", {}, rows)),
    el("p", { class: "help-choice" }, el("label", {}, letters, "Keys of one letter or sign are on")),
  );
  button.addEventListener("click", () => dialog.showModal());
}

/** Whether keys typed into this element are text. */
function takesText(element) {
  if (element instanceof HTMLInputElement) return !["checkbox", "radio", "button", "range", "submit"].includes(element.type);
  return element instanceof HTMLTextAreaElement || element instanceof HTMLSelectElement || element.isContentEditable;
}

/** Does what a key asks for; whether there was something to do. */
function pressKey(app, key, target) {
  const rows = app.view === "rows" ? app.views.rows : null;
  const step = { j: 1, k: -1 }[key];
  if (key === "Escape" && app.drawer.isOpen) app.closeDrawer();
  else if (step && app.drawer.isOpen) app.step(step);
  else if (step && rows) rows.move(step);
  else if (key === "Enter" && rows && !target.closest("a, button, input, select, summary, label, .drawer")) rows.open();
  else if (key === "/") app.search();
  else if (key === "?") document.getElementById("help").showModal();
  else return false;
  return true;
}

/** Connects the page's keys. They rest while somebody types, with a modifier, and while a dialog is open. */
function setUpKeys(app) {
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!(target instanceof Element) || document.querySelector("dialog[open]")) return;
    if (takesText(target) && !(key === "Escape" && target.closest(".drawer"))) return;
    if (key.length === 1 && !hasLetterKeys()) return;
    if (pressKey(app, key, target)) event.preventDefault();
  });
  document.querySelector(".skip-link").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
}

/** Adds the file's chunks to the store; the first rows are shown before the others are read. */
async function loadChunks(app) {
  const shorts = document.querySelectorAll("script.short");
  const texts = document.querySelectorAll("script.text");
  let last = null;
  for (let i = 0; i < shorts.length; i++) {
    last = app.store.addChunk(takeBlob(shorts[i]), () => takeBlob(texts[i]));
    if (i > 0) continue;
    await last;
    app.refresh();
    await nextTurn();
  }
  await last;
  app.chunkCount = shorts.length;
  app.isLoaded = true;
  app.refresh();
  app.update();
}

/** Says in the page why the report can't be shown. */
function showProblem(error) {
  const needs = "It needs Chrome or Edge 111, Firefox 113, Safari 16.4, or a newer one.";
  const words = `This report can't be shown: ${error.message}. ${needs}`;
  clear(document.getElementById("problem")).append(textNode(words));
  document.getElementById("problem").hidden = false;
}

/** Starts the page. */
async function start() {
  const meta = JSON.parse(document.getElementById("meta").textContent);
  const app = new App(meta);
  showHeader(app);
  setUpTheme();
  setUpHelp(app);
  setUpKeys(app);
  addEventListener("popstate", () => app.route());
  const isCall = readHash(location.hash).call !== undefined;
  if (isCall) app.showView("rows");
  else app.route();
  document.getElementById("loading").remove();
  await loadChunks(app);
  if (isCall) app.route();
  if (meta.watch) startWatch(app);
}

start().catch((error) => {
  showProblem(error);
  throw error;
});
