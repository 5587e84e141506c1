// The table of rows: only those on screen are in the document, whatever the number of rows.

/** Pixels of a row; grid.css has the same number. */
const ROW_HEIGHT = 34;
/** Pixels of the tallest table. Browsers draw elements of up to some 17 million; above this, scrolling is scaled. */
const TALLEST = 8e6;
/** Rows drawn above and below those on screen, so that a short scroll shows no gap. */
const SPARE_ROWS = 8;
/** Characters of a long text in its cell; the rest is not visible at any width. */
const PREVIEW_CHARACTERS = 300;
/** Characters that a preview shows before the hit of a search. */
const BEFORE_HIT = 24;

/** Least widths in pixels by kind of column. */
const WIDTHS = { number: 104, word: 124, short: 148, text: 200 };
/** The same on a narrow screen. */
const NARROW_WIDTHS = { number: 84, word: 100, short: 96, text: 146 };
/** Least widths of columns that need less or more than their kind. */
const SPECIAL_WIDTHS = { row: 70, ordinal: 76, sample: 92, status: 116, finished_at: 168, request_id: 190 };

/** A column's least width in pixels. */
function columnWidth({ name, kind, unit }, isNarrow) {
  return SPECIAL_WIDTHS[name] ?? (unit === "ms" ? SPECIAL_WIDTHS.finished_at : (isNarrow ? NARROW_WIDTHS : WIDTHS)[kind]);
}

/** How wide a column may be: numbers as wide as they need, long texts share what is left. */
function columnTrack(column, width) {
  if (column.kind === "number") return `${width}px`;
  if (column.name === "response") return `minmax(${width}px, 1.4fr)`;
  return `minmax(${width}px, ${isLong(column) ? "1fr" : "0.15fr"})`;
}

/** A text on one line, without half of a character at its end. */
function oneLine(text) {
  return text.replace(/[\s\u2028\u2029]+/gu, " ").replace(/[\ud800-\udbff]$/, "");
}

/** Whether a column can hold something only readable after its chunk is decoded. */
function isLong(column) {
  return column.kind === "text";
}

/** A grid of the rows that `app.visible` names, with one active row that keys move. */
class RowTable {
  constructor(app) {
    this.app = app;
    this.columns = [];
    this.layout = "";
    this.drawn = new Map(); // place in app.visible -> {node, row, isWaiting}
    this.rows = new Uint32Array(0); // those of the app are taken by setRows, with all that goes with them
    this.active = -1; // a row of the page
    this.patterns = [];
    this.isFilling = false;
    this.frame = 0;
    this.head = el("div", { class: "grid-head", role: "rowgroup" });
    this.body = el("div", { class: "grid-body", role: "rowgroup", on: { click: (event) => this.#click(event) } });
    this.box = el("div", { class: "grid-box", role: "grid", tabindex: "0", "aria-label": "Rows" }, this.head, this.body);
    this.box.addEventListener("scroll", () => this.#schedule(), { passive: true });
    this.box.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#schedule()).observe(this.box);
  }

  /** Shows these columns, in this order. */
  setColumns(columns, isNarrow) {
    const layout = JSON.stringify([isNarrow, ...columns]);
    if (layout === this.layout) return;
    this.layout = layout;
    this.columns = columns;
    const widths = columns.map((column) => columnWidth(column, isNarrow));
    const tracks = columns.map((column, index) => columnTrack(column, widths[index]));
    this.box.style.setProperty("--grid-columns", tracks.join(" "));
    this.box.style.setProperty("--grid-width", `${widths.reduce((sum, width) => sum + width, 0)}px`);
    this.box.setAttribute("aria-colcount", String(columns.length));
    this.showSort();
    this.#redraw();
  }

  /** Writes the header with the present order. */
  showSort() {
    const focused = this.head.contains(document.activeElement) ? document.activeElement.dataset.column : null;
    const cells = this.columns.map((column) => headerCell(this.app, column));
    clear(this.head).append(el("div", { class: "grid-row", role: "row", "aria-rowindex": "1" }, cells));
    if (focused !== null) this.head.querySelectorAll("button")[this.#columnIndex(focused)]?.focus();
  }

  #columnIndex(name) {
    return this.columns.findIndex((column) => column.name === name);
  }

  /** Takes the rows of `app.visible`; `patterns`: what to mark in the texts. `toTop`: begin at the first row. */
  setRows(patterns, toTop) {
    this.rows = this.app.visible;
    this.patterns = patterns;
    this.anyPattern = new RegExp(patterns.map((pattern) => pattern.source).join("|"), "giu");
    this.box.setAttribute("aria-rowcount", String(this.rows.length + 1));
    this.body.style.height = `${this.#height()}px`;
    if (toTop) this.box.scrollTop = 0;
    this.#redraw();
  }

  #height() {
    return Math.min(this.rows.length * ROW_HEIGHT, TALLEST);
  }

  /** Pixels of the box below its header; on paper the box is as tall as its rows, and would call for ever more of them. */
  #viewHeight() {
    return Math.max(0, Math.min(this.box.clientHeight, window.innerHeight) - this.head.offsetHeight);
  }

  /** Where the view is in pixels of the whole table, which may be taller than the scrolled element. */
  #position() {
    const [whole, height, view] = [this.rows.length * ROW_HEIGHT, this.#height(), this.#viewHeight()];
    const top = Math.max(0, Math.min(this.box.scrollTop, height - view));
    return whole <= height ? top : (top / (height - view)) * (whole - view);
  }

  /** Scrolls so that the view begins at this pixel of the whole table. */
  #scrollTo(position) {
    const [whole, height, view] = [this.rows.length * ROW_HEIGHT, this.#height(), this.#viewHeight()];
    this.box.scrollTop = whole <= height ? position : (position / (whole - view)) * (height - view);
  }

  #schedule() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.render();
    });
  }

  #redraw() {
    for (const { node } of this.drawn.values()) node.remove();
    this.drawn.clear();
    this.render();
  }

  /** Draws the rows that are on screen, and removes the others. */
  render() {
    const position = this.#position();
    const first = Math.max(0, Math.floor(position / ROW_HEIGHT) - SPARE_ROWS);
    const last = Math.min(this.rows.length, Math.ceil((position + this.#viewHeight()) / ROW_HEIGHT) + SPARE_ROWS);
    const shift = this.box.scrollTop - position;
    for (const [place, { node }] of this.drawn) {
      if (place >= first && place < last) continue;
      node.remove();
      this.drawn.delete(place);
    }
    for (let place = first; place < last; place += 1) {
      if (!this.drawn.has(place)) this.#draw(place);
      this.drawn.get(place).node.style.transform = `translateY(${place * ROW_HEIGHT + shift}px)`;
    }
    this.#showActive();
    this.#fillTexts();
  }

  /** Adds a row's element; rows stay in order for readers of the document. */
  #draw(place) {
    const row = this.rows[place];
    const node = el("div", { class: "grid-row", role: "row", id: `grid-row-${place}`, "aria-rowindex": place + 2, "aria-selected": "false" });
    const drawn = { node, row, isWaiting: false };
    this.#fill(drawn);
    const next = this.drawn.get(place + 1)?.node ?? (this.drawn.has(place - 1) ? this.drawn.get(place - 1).node.nextSibling : null);
    this.body.insertBefore(node, next);
    this.drawn.set(place, drawn);
  }

  #fill(drawn) {
    drawn.isWaiting = false;
    const cells = this.columns.map((column, index) => {
      const [content, extra] = this.#content(column, drawn.row);
      if (content === undefined) drawn.isWaiting = true;
      const kind = column.kind === "number" ? "grid-cell number" : "grid-cell";
      return el("div", { class: extra ? `${kind} ${extra}` : kind, role: index ? "gridcell" : "rowheader" }, content === undefined ? "…" : content);
    });
    clear(drawn.node).append(...cells);
  }

  /** What a cell shows, and its class; undefined while its text is still compressed. */
  #content(column, row) {
    const { store } = this.app;
    const value = store.value(column.name, row);
    if (column.name === "status" && value !== null) return [statusBadge(value), ""];
    if (!isLong(column)) return [value === null ? "" : this.#marked(oneLine(formatCell(column, value)), column), ""];
    if (store.textLength(column.name, row) !== null) return [this.#preview(column, row), ""];
    const shows = column.name === "response" && this.#columnIndex("error_message") < 0 && store.textLength("error_message", row) !== null;
    return shows ? [this.#preview(store.column("error_message"), row), "bad"] : ["", ""];
  }

  /** The beginning of a long text, or what surrounds a hit. */
  #preview(column, row) {
    const text = this.app.store.preview(column.name, row, this.patterns.length ? Infinity : PREVIEW_CHARACTERS);
    if (text === undefined) return undefined;
    if (text === null) return "";
    const hit = Math.max(...this.patterns.map((pattern) => text.search(pattern))); // of the word that comes last
    const start = hit > 2 * BEFORE_HIT ? hit - BEFORE_HIT : 0;
    const part = oneLine(text.slice(start, start + PREVIEW_CHARACTERS)).replace(/^[\udc00-\udfff]/, "");
    return this.#marked(start ? `…${part}` : part, column);
  }

  /** A text in which what was searched is marked. */
  #marked(text, column) {
    if (!this.patterns.length || column.kind === "number") return text;
    const parts = [];
    let at = 0;
    for (const match of text.matchAll(this.anyPattern)) {
      parts.push(text.slice(at, match.index), el("mark", null, match[0]));
      at = match.index + match[0].length;
    }
    return at ? [...parts, text.slice(at)] : text;
  }

  /** Decodes the chunks of the rows on screen, one after the other; rows that left the screen meanwhile are passed over. */
  async #fillTexts() {
    if (this.isFilling) return;
    this.isFilling = true;
    try {
      for (let next = this.#waiting(); next; next = this.#waiting()) {
        await this.app.store.decode(next.row);
        const chunk = this.app.store.chunkOf(next.row);
        for (const each of this.drawn.values()) {
          if (each.isWaiting && this.app.store.chunkOf(each.row) === chunk) this.#fill(each);
        }
        await nextTurn();
      }
    } finally {
      this.isFilling = false;
    }
  }

  #waiting() {
    for (const each of this.drawn.values()) if (each.isWaiting) return each;
    return null;
  }

  /** The place of the active row among the visible ones, or -1. */
  activePlace() {
    return this.active < 0 ? -1 : this.rows.indexOf(this.active);
  }

  #showActive() {
    const active = this.activePlace();
    for (const [place, { node }] of this.drawn) {
      const isActive = place === active;
      node.classList.toggle("is-active", isActive);
      node.setAttribute("aria-selected", String(isActive));
    }
    if (this.drawn.has(active)) this.box.setAttribute("aria-activedescendant", `grid-row-${active}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  /** Makes a row of the page the active one, and scrolls to it if it is visible. */
  activate(row) {
    this.active = row;
    const place = this.activePlace();
    if (place >= 0) {
      const [top, view, position] = [place * ROW_HEIGHT, this.#viewHeight(), this.#position()];
      if (top < position) this.#scrollTo(top);
      else if (top + ROW_HEIGHT > position + view) this.#scrollTo(top + ROW_HEIGHT - view);
    }
    this.render();
  }

  /** Moves the active row by some rows; without an active row, the first or last one on screen becomes it. */
  move(by) {
    if (!this.rows.length) return;
    const from = this.activePlace();
    const onScreen = Math.ceil(this.#position() / ROW_HEIGHT);
    this.moveTo(from < 0 ? onScreen : from + by);
  }

  /** Makes the row at a place among the visible ones the active one. */
  moveTo(place) {
    if (!this.rows.length) return;
    this.box.focus({ preventScroll: true });
    this.activate(this.rows[Math.max(0, Math.min(place, this.rows.length - 1))]);
  }

  #key(event) {
    if (event.target !== this.box || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.#viewHeight() / ROW_HEIGHT) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    if (event.key in steps) this.move(steps[event.key]);
    else if (event.key === "Home") this.moveTo(0);
    else if (event.key === "End") this.moveTo(this.rows.length - 1);
    else return;
    event.preventDefault();
  }

  #click(event) {
    for (const { node, row } of this.drawn.values()) {
      if (!node.contains(event.target)) continue;
      this.activate(row);
      this.app.openRow(row);
      return;
    }
  }
}

/** The header of a column, which sorts: numbers from the largest first, all else from the first letter. */
function headerCell(app, column) {
  const isSorted = app.sort?.name === column.name;
  const direction = isSorted ? (app.sort.descending ? "descending" : "ascending") : "none";
  const arrow = el("span", { class: "grid-arrow", "aria-hidden": "true" }, { descending: "▼", ascending: "▲", none: "" }[direction]);
  const words = `${columnTitle(column)}${isLong(column) ? ", by length" : ""}`;
  const button = el("button", { type: "button", class: "grid-sort", title: `Sort by ${visibleText(words)}` }, el("span", null, columnTitle(column)), arrow);
  button.dataset.column = column.name;
  button.addEventListener("click", () => app.sortBy(...nextSort(app.sort, column)));
  return el("div", { class: column.kind === "number" ? "grid-cell number" : "grid-cell", role: "columnheader", "aria-sort": direction }, button);
}

/** The order after one more click: first direction, the other, the result's own. */
function nextSort(sort, { name, kind }) {
  const beginsDescending = kind === "number" || kind === "text";
  if (sort?.name !== name) return [name, beginsDescending];
  return sort.descending === beginsDescending ? [name, !beginsDescending] : [null, false];
}

/** Units that a column's header names; moments and dollars say it in each cell. */
const HEADER_UNITS = { tokens: "tokens" };

/** A column's title for people: our own columns in words, the user's columns by their own name. */
function columnTitle({ name, title, group, unit }) {
  const words = OUR_TITLES[name];
  if (words) return words;
  if (group === "score" && /^score:[^:]+$/.test(name)) return name.slice(6);
  return HEADER_UNITS[unit] && !title.includes("token") ? `${title} (${HEADER_UNITS[unit]})` : title;
}

/** Names in words of the columns that every report has. */
const OUR_TITLES = {
  file: "File", ordinal: "Call", row: "Row", custom_id: "ID", model: "Model", sample: "Sample", status: "Status", finish_reason: "Finish reason",
  error_kind: "Error kind", error_message: "Error", http_status: "HTTP status", prompt: "Prompt", response: "Response", reasoning: "Reasoning",
  tool_calls: "Tool calls", raw: "Raw reply", input_tokens: "Tokens in", output_tokens: "Tokens out", cost_usd: "Cost", latency_s: "Latency",
  cache_read_input_tokens: "Cache read", cache_write_input_tokens: "Cache write", cache_write_1h_input_tokens: "Cache write, 1 h",
  reasoning_output_tokens: "Reasoning tokens", rejected_cost_usd: "Rejected cost", reported_cost_usd: "Reported cost", reused_cost_usd: "Reused cost",
  cost_excludes: "Cost excludes", attempts: "Attempts", asks: "Asks", finished_at: "Finished", request_id: "Request ID", response_model: "Answered by",
  reused_from: "Reused from", frame: "Prompt template", request_hash: "Request hash",
};
