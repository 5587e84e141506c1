// The drawer: all of one call, from its prompt to its cost.

const SAID_NOTHING = "—";

/** Roles of the four formats, for people. */
const ROLE_TITLES = { system: "System", developer: "Developer", user: "User", assistant: "Assistant", model: "Assistant", tool: "Tool" };

/** A number with all its digits and without an exponent, as far as it can be read by people; far ones keep theirs. */
function plainNumber(value) {
  const match = /^(-?)(\d)(?:\.(\d+))?e-(\d{1,2})$/.exec(String(value));
  if (!match) return String(value);
  const [, sign, first, rest = "", zeros] = match;
  return `${sign}0.${"0".repeat(Number(zeros) - 1)}${first}${rest}`;
}

/** A moment to the millisecond, in UTC, and by the reader's clock where that is another. */
function exactMoment(ms) {
  if (!(Math.abs(ms) <= 8.64e15)) return String(ms);
  const words = new Date(ms).toISOString().replace("T", " ").replace("Z", " UTC");
  return new Date(ms).getTimezoneOffset() === 0 ? words : `${words} (${formatMoment(ms)} here)`;
}

/** A number of a column with all its digits and its unit; `exact`: the stored text where a float can't hold it. */
function exactNumber(column, value, exact) {
  if (column.unit === "usd") return `$${exact ?? plainNumber(value)}`;
  if (column.unit === "s") return `${exact ?? plainNumber(value)} s`;
  if (column.unit === "ms") return exactMoment(value);
  if (column.unit === "tokens") return formatCount(value);
  return exact ?? plainNumber(value);
}

/** A piece of a JSON text: a string, a sign, or a number or word. */
const JSON_PIECE = /"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s[\]{},:"]+/g;
/** Levels of nesting after which lines move no further to the right. */
const DEEPEST = 40;

/** A JSON object or list written over several lines, each of its values as it stands there; null where the text is none. */
function prettyJson(text) {
  if (!/^\s*[[{]/.test(text)) return null;
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  return layOutJson(text.match(JSON_PIECE));
}

/** Pieces of JSON over several lines. */
function layOutJson(pieces) {
  let [out, depth] = ["", 0];
  const line = () => `\n${"  ".repeat(Math.min(depth, DEEPEST))}`;
  for (const [i, piece] of pieces.entries()) {
    const isEmpty = "[{".includes(pieces[i - 1]) && "]}".includes(piece);
    if ("]}".includes(piece)) {
      depth -= 1;
      out += isEmpty ? piece : line() + piece;
    } else if ("[{".includes(piece)) {
      depth += 1;
      out += "]}".includes(pieces[i + 1]) ? piece : piece + line();
    } else if (piece === ",") out += piece + line();
    else out += piece === ":" ? ": " : piece;
  }
  return out;
}

/** A visible mark of how much of a text is there; null where it is all of it. */
function cutMarkNode(cell) {
  if (!cell?.isCut) return null;
  return el("p", { class: "cut-mark" }, cutWords(cell.text, cell.length));
}

/** A text as it is stored, with a mark where it is cut, and a button that lays JSON out. */
function textBlock(cell, label) {
  if (cell.text === "") return el("p", { class: "muted" }, "(empty)");
  const box = el("div", { class: "drawer-text", dir: "auto" }, cell.text);
  const pretty = cell.isCut ? null : prettyJson(cell.text);
  const toggle = pretty === null || pretty === cell.text ? null : jsonToggle(box, cell.text, pretty, label);
  return el("div", { class: "drawer-block" }, toggle, box, cutMarkNode(cell));
}

/** A button that shows a text as it is, or laid out as JSON. */
function jsonToggle(box, text, pretty, label) {
  const button = el("button", { type: "button", class: "button quiet small drawer-toggle", "aria-pressed": "false" });
  button.append(textNode("Format JSON"), el("span", { class: "visually-hidden" }, ` of ${label}`));
  button.addEventListener("click", () => {
    const isOn = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(isOn));
    clear(box).append(textNode(isOn ? pretty : text));
    box.classList.toggle("mono", isOn);
  });
  return button;
}

/** A part of the drawer with a heading; null where there is nothing in it. */
function drawerSection(title, ...content) {
  const nodes = content.flat().filter(Boolean);
  if (!nodes.length) return null;
  return el("section", { class: "drawer-section" }, el("h3", {}, title), nodes);
}

/** A name that may be broken after each underscore and point. */
function breakableName(name) {
  return visibleText(name).split(/(?<=[_.])(?=\w)/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));
}

/** Names and values one below the other; null where there are none. */
function factList(facts) {
  const rows = facts.map(([name, value]) => el("div", {}, el("dt", { dir: "auto" }, breakableName(name)), el("dd", {}, value)));
  return rows.length ? el("dl", { class: "facts" }, rows) : null;
}

/** One call: its row, its texts and how its request is made. It knows how to show each of its cells. */
class CallView {
  constructor(app, row, texts, frame) {
    this.app = app;
    this.store = app.store;
    this.row = row;
    this.texts = texts;
    this.frame = frame;
    this.source = app.meta.sources[app.store.callOf(row).file];
  }

  /** A value in its short form. */
  value(name) {
    return this.store.has(name) ? this.store.value(name, this.row) : null;
  }

  /** The stored text of a number or a short cell, where its short form is not all of it. */
  exact(name) {
    return this.texts.more?.full?.[name];
  }

  /** A cell as a text: `{text, length, isCut}`, or null. */
  cell(name) {
    const column = this.store.column(name);
    if (!column) return null;
    if (column.kind === "text") return this.texts[name] ?? null;
    const value = this.value(name);
    const text = column.kind === "number" && value !== null ? exactNumber(column, value, this.exact(name)) : this.exact(name) ?? value;
    if (isMissing(text)) return null;
    const length = this.texts.more?.lengths?.[name] ?? String(text).length;
    return { text: String(text), length, isCut: length > String(text).length };
  }

  /** A cell as a node: long texts in a block, short ones in the line. */
  cellNode(name, label) {
    const cell = this.cell(name);
    if (!cell) return el("span", { class: "muted" }, SAID_NOTHING);
    const column = this.store.column(name);
    const isNumber = column.kind === "number";
    if (cell.text.length > 60 || cell.isCut || /\n/.test(cell.text) || cell.text === "") return textBlock(cell, label);
    return el("span", { class: isNumber ? "fact-number" : "fact-text", dir: isNumber ? null : "auto" }, cell.text);
  }

  /** The columns of a group that have something for this row; with `all`, empty ones too. */
  columnsOf(group, all = false) {
    return this.store.columns.filter((column) => column.group === group && (all || this.cell(column.name) !== null));
  }

  /** Facts of columns, by their titles. */
  facts(columns) {
    return columns.map((column) => [columnTitle(column), this.cellNode(column.name, column.title)]);
  }

  /** A section with one long text. */
  textSection(title, name) {
    const cell = this.cell(name);
    return cell && drawerSection(title, textBlock(cell, title.toLowerCase()));
  }

  /** What went wrong: the message, then kind, HTTP status, request id, attempts. */
  errorSection() {
    const message = this.cell("error_message");
    if (!this.cell("error_kind") && !message) return null;
    const titles = { error_kind: "Kind", http_status: "HTTP status", request_id: "Request ID", attempts: "Attempts" };
    const facts = Object.entries(titles).filter(([name]) => this.cell(name)).map(([name, title]) => [title, this.cellNode(name, title)]);
    const section = drawerSection("Error", message && textBlock(message, "the error"), factList(facts), this.retry());
    section.classList.add("drawer-error");
    return section;
  }

  /** What asks all rows again that went wrong as this one did; null where no command is known. */
  retry() {
    const [status, file] = [this.value("status"), this.app.store.callOf(this.row).file];
    const kind = this.value(status === "failed" ? "error_kind" : "finish_reason") ?? status;
    const failure = this.app.meta.overview?.failures.find((each) => each.status === status && each.kind === kind);
    const known = failure?.commands.find((each) => each.file === file);
    if (!known?.command) return null;
    const words = known.rows === 1 ? "To ask it again:" : `To ask all ${formatCount(known.rows)} rows of this kind again:`;
    const advice = failure.advice ? el("p", {}, textNode(failure.advice)) : null;
    return el("div", { class: "drawer-retry" }, advice, el("p", { class: "muted" }, words), commandLine(known, this.app, "drawer retry"));
  }

  /** The answer; where there is none and no error, a word about it. */
  answerSection() {
    const section = this.textSection("Answer", "response");
    if (section || this.cell("error_kind") || this.cell("tool_calls")) return section;
    return drawerSection("Answer", el("p", { class: "muted" }, "There is no answer text."));
  }

  /** The scores: extracted answer and gold side by side, with the reason. */
  scoreSection() {
    const scores = this.store.columns.filter((column) => column.group === "score" && column.kind === "number" && this.cell(column.name));
    const inCards = new Set(scores.flatMap(({ name }) => [name, `${name}_answer`, `${name}_why`]));
    const others = this.columnsOf("score").filter(({ name }) => !inCards.has(name));
    return drawerSection("Score", scores.map((column) => this.scoreCard(column)), factList(this.facts(others)));
  }

  /** One score. */
  scoreCard(column) {
    const value = this.value(column.name);
    const tone = value === 1 ? "good" : value === 0 ? "bad" : "";
    const words = this.app.meta.evaluation?.boards?.find(({ score }) => column.name === `score:${score}`);
    const gold = this.app.meta.golds[column.name.slice("score:".length)];
    const right = words?.choices && gold ? this.cell(gold) : null;
    const choice = right ? choiceWords(words.choices, right.text, this.app, this.row, this.texts) : "";
    const pair = [["Extracted answer", `${column.name}_answer`], ["Gold", gold]].filter(([, name]) => name && this.store.has(name));
    const why = this.cell(`${column.name}_why`);
    const badge = el("span", { class: `badge ${tone}` }, this.cell(column.name).text);
    const cells = pair.map(([title, name]) => el("div", {}, el("dt", {}, title), el("dd", {}, this.cellNode(name, title), name === gold ? choice : "")));
    return el(
      "div",
      { class: "score" },
      el("h4", {}, columnTitle(column), " ", badge),
      cells.length ? el("dl", { class: "score-pair" }, cells) : null,
      why ? factList([["Why", this.cellNode(`${column.name}_why`, "why")]]) : null,
    );
  }

  /** Tokens and money. */
  usageSection() {
    return drawerSection("Usage and cost", factList(this.facts(this.columnsOf("usage"))));
  }

  /** How the request went. */
  sendingSection() {
    const columns = this.columnsOf("sending").filter(({ name }) => name !== "frame");
    return drawerSection("Sending", factList(this.facts(columns)));
  }

  /** The columns of the input. */
  inputSection() {
    return drawerSection("Input columns", factList(this.facts(this.columnsOf("input", true))));
  }

  /** Why this call has no prompt here, of a call without one. */
  get whyNoPrompt() {
    return this.source?.no_prompts ?? this.texts.more?.why ?? "The prompt of this row could not be rendered again.";
  }

  /** The prompt by messages, and how it was come by. */
  promptSection(request) {
    if (!this.frame) {
      return drawerSection("Prompt", el("p", { class: "muted" }, this.whyNoPrompt));
    }
    const messages = requestParts(this.frame, request.slots).map(({ role, parts }) => this.message(role, parts));
    const origin = el("p", { class: "muted drawer-origin" }, "Rendered again from the input columns.");
    this.tellOrigin(origin, request);
    return drawerSection("Prompt", messages, cutMarkNode(this.texts.prompt), origin);
  }

  /** One message of the prompt. */
  message(role, parts) {
    const shown = parts.map((part) => {
      if (part.image !== undefined) return this.image(part);
      return part.text === "" ? null : textBlock({ text: part.text, length: part.text.length, isCut: false }, `the ${role} message`);
    });
    const kind = Object.hasOwn(ROLE_TITLES, role) ? role : "other";
    return el("div", { class: `message role-${kind}` }, el("h4", { class: "message-role" }, kind === "other" ? role : ROLE_TITLES[role]), shown);
  }

  /** An image, by its reference: the page holds no images and loads none. */
  image(part) {
    const more = [part.kind, part.detail].filter(Boolean).join(", ");
    const name = el("span", { class: "mono", dir: "auto" }, String(part.image));
    const badge = el("span", { class: "badge" }, "image");
    return el("p", { class: "image-part" }, badge, " ", name, more ? el("span", { class: "muted" }, ` ${more}`) : null);
  }

  /** Says whether the prompt is what was sent, once the hash is known. */
  async tellOrigin(node, { slots, why }) {
    const verdict = await requestVerdict(this.frame, slots, this.cell("request_hash")?.text ?? null, why);
    clear(node).append(textNode(verdict.words));
    node.classList.toggle("warn", verdict.is === "differs");
  }

  /** All cells as JSON, in the order of the columns; a number that a float can't hold stays as it is stored. */
  json() {
    const columns = this.store.columns.filter(({ name }) => name !== "frame");
    const lines = columns.map((column) => `  ${JSON.stringify(column.title)}: ${this.jsonValue(column)}`);
    return `{\n${lines.join(",\n")}\n}\n`;
  }

  /** One cell as JSON. */
  jsonValue(column) {
    const value = this.value(column.name);
    if (column.kind === "number") {
      const exact = this.exact(column.name) ?? String(value);
      if (column.unit === "ms" && Math.abs(value) <= 8.64e15 && value !== null) return JSON.stringify(new Date(value).toISOString());
      return /^(null|-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?)$/.test(exact) ? exact : JSON.stringify(exact);
    }
    const cell = this.cell(column.name);
    return JSON.stringify(cell && (cell.isCut ? markedAsCut(cell.text, cell.length) : cell.text));
  }
}

/** Puts a text on the clipboard; where the browser does not let the page, the text is selected for the reader. */
async function copyText(app, text, what, place) {
  const button = document.activeElement;
  clear(place);
  try {
    await navigator.clipboard.writeText(text);
    sayCopied(app, what, place);
    return;
  } catch {
    // The older way works on pages from a disk, too.
  }
  const area = el("textarea", { class: "field copy-area", readonly: true, rows: 6, "aria-label": `${what}, to be copied` });
  area.value = text;
  place.append(area);
  area.select();
  if (document.execCommand("copy")) {
    sayCopied(app, what, place);
    button?.focus();
    return;
  }
  const words = `${what}: the browser does not let this page copy. The text is selected: press Ctrl+C or ⌘C.`;
  place.prepend(el("p", {}, words));
  app.announce(words);
}

/** Says that a text was copied, in sight and to screen readers. */
function sayCopied(app, what, place) {
  clear(place).append(el("p", {}, `${what} copied.`));
  app.announce(`${what} copied.`);
}

/** The drawer's nodes that stay from call to call, and what it shows. */
class Drawer {
  constructor(root, app) {
    this.root = root;
    this.app = app;
    this.isOpen = false;
    this.row = -1;
    this.call = null;
    this.ticket = 0;
    this.opener = null;
    this.narrow = matchMedia("(max-width: 700px)");
    this.narrow.addEventListener("change", () => this.shield());
    this.build();
    app.onChange(() => this.isOpen && this.showPlace());
  }

  /** Makes the head, with its buttons, and the body. */
  build() {
    const button = (sign, label, act, keys) => {
      const attributes = { type: "button", class: "button quiet icon-button", "aria-label": label, "aria-keyshortcuts": keys };
      return el("button", { ...attributes, title: `${label} (${keys})`, on: { click: act } }, sign);
    };
    this.heading = el("h2", { id: "drawer-heading", tabindex: "-1" });
    this.line = el("p", { class: "muted drawer-line" });
    this.place = el("span", { class: "muted drawer-place" });
    this.previous = button("↑", "Previous row", () => this.app.step(-1), "k");
    this.next = button("↓", "Next row", () => this.app.step(1), "j");
    this.close = button("✕", "Close", () => this.app.closeDrawer(), "Escape");
    this.body = el("div", { class: "drawer-body" });
    const buttons = el("div", { class: "drawer-buttons" }, this.place, this.previous, this.next, this.close);
    const title = el("div", { class: "drawer-title" }, this.heading, buttons);
    this.root.append(el("div", { class: "drawer-head" }, title, this.line), this.body);
  }

  /** Shows a row; row -1: says that the page does not have the call. */
  show(row, call) {
    const wasOpen = this.isOpen;
    if (!wasOpen) this.opener = document.activeElement;
    this.isOpen = true;
    this.row = row;
    this.call = call;
    this.root.hidden = false;
    document.body.dataset.drawer = "open";
    this.shield();
    this.showHead();
    if (row < 0) this.showMissing();
    else this.showCall();
    if (!wasOpen) this.heading.focus();
    else this.app.announce(`${this.heading.textContent}, ${this.place.textContent}`);
  }

  /** Hides the drawer, and gives the focus back to the row, or to where it was. */
  hide() {
    const row = this.row;
    const hadFocus = this.root.contains(document.activeElement);
    this.isOpen = false;
    this.ticket += 1;
    this.row = -1;
    this.root.hidden = true;
    delete document.body.dataset.drawer;
    this.shield();
    clear(this.body);
    if (!hadFocus) return;
    const rows = this.app.view === "rows" ? this.app.views.rows : null;
    if (rows && row >= 0) rows.focusRow(row);
    else if (this.opener?.isConnected && this.opener !== document.body) this.opener.focus();
    else document.getElementById("main").focus();
  }

  /** Shows the call again after data or meta have changed; one that was missing may have come. */
  update() {
    if (!this.isOpen) return;
    const row = this.app.store.place(this.call.file, this.call.ordinal);
    if (row !== this.row) this.show(row, this.call);
    else this.showPlace();
  }

  /** Where the drawer covers all, nothing behind it can be reached. */
  shield() {
    document.getElementById("page").inert = this.isOpen && this.narrow.matches;
  }

  /** Writes heading and line. */
  showHead() {
    const { store, meta } = this.app;
    const value = (name) => (this.row >= 0 && store.has(name) ? store.value(name, this.row) : null);
    const id = value("custom_id");
    const number = value("row");
    const name = id ?? (number === null ? `Call ${this.call.ordinal}` : `Row ${number}`);
    clear(this.heading).append(el("span", { dir: "auto" }, name));
    const status = value("status");
    if (status) this.heading.append(" ", statusBadge(status));
    const finish = value("finish_reason");
    if (finish && status !== "succeeded") this.heading.append(" ", el("span", { class: "badge" }, finish));
    const file = meta.sources[this.call.file]?.name;
    const words = [
      file && meta.sources.length === 1 ? shortPath(file) : file,
      id !== null && number !== null ? `row ${number}` : null,
      el("a", { href: `#call=${this.call.file}.${this.call.ordinal}` }, `call ${this.call.ordinal}`),
      value("model"),
    ];
    for (const { name: axis, title } of store.columns.filter((column) => column.name.startsWith("axis:"))) {
      if (value(axis) !== null) words.push(`${title}: ${value(axis)}`);
    }
    if (value("sample") !== null) words.push(`sample ${value("sample")}`);
    const shown = words.filter((word) => !isMissing(word)).flatMap((word, i) => [i ? " · " : null, el("bdi", {}, word)]);
    clear(this.line).append(...shown.filter(Boolean));
    this.showPlace();
  }

  /** Writes the place among the filtered rows, and whether there is a next one. */
  showPlace() {
    const { visible } = this.app;
    const at = visible.indexOf(this.row);
    const count = formatCount(visible.length);
    const missing = this.row < 0 ? "" : `not among the ${count} rows shown`;
    clear(this.place).append(textNode(at < 0 ? missing : `${formatCount(at + 1)} of ${count}`));
    this.setEnabled(this.previous, at < 0 ? visible.length > 0 : at > 0);
    this.setEnabled(this.next, at < 0 ? visible.length > 0 : at < visible.length - 1);
  }

  /** Switches a button; one that can't go on keeps the focus and says so. */
  setEnabled(button, isEnabled) {
    button.setAttribute("aria-disabled", String(!isEnabled));
  }

  /** Says that the call is not in the page. */
  showMissing() {
    this.ticket += 1;
    const { meta } = this.app;
    const source = meta.sources[this.call.file];
    const files = meta.sources.length === 1 ? "one file, number 0" : `${formatCount(meta.sources.length)} files, from 0`;
    let words = `This report has no file ${this.call.file}: it is made of ${files}.`;
    if (source) {
      words = `Call ${this.call.ordinal} of ${shortPath(source.name)} is not in this report. It has `;
      words += source.in_page < source.rows
        ? `${formatCount(source.in_page)} of that file's ${formatCount(source.rows)} rows; one with more rows is made with --rows.`
        : `all of that file's rows, which are ${formatCount(source.rows)}.`;
    }
    clear(this.body).append(el("p", { class: "notice" }, words));
  }

  /** Reads the call's texts and shows them; a later call wins over an earlier one that is still being read. */
  async showCall() {
    const ticket = ++this.ticket;
    const { row } = this;
    this.root.setAttribute("aria-busy", "true");
    const [texts, frame] = await Promise.all([this.app.store.texts(row), this.app.store.frame(row)]);
    if (ticket !== this.ticket) return;
    this.root.removeAttribute("aria-busy");
    const view = new CallView(this.app, row, texts, frame);
    const request = frame ? promptSlots(frame, texts.prompt, texts.more) : { slots: [], why: "" };
    clear(this.body).append(...this.sections(view, request));
    this.body.scrollTop = 0;
  }

  /** All parts of a call, in the order in which they are read. */
  sections(view, request) {
    return [
      this.actions(view, request),
      view.errorSection(),
      view.promptSection(request),
      view.answerSection(),
      view.textSection("Reasoning", "reasoning"),
      view.textSection("Tool calls", "tool_calls"),
      drawerSection("Typed columns", factList(view.facts(view.columnsOf("typed", true)))),
      view.scoreSection(),
      view.usageSection(),
      view.sendingSection(),
      view.inputSection(),
      view.textSection("Raw reply", "raw"),
    ].filter(Boolean);
  }

  /** The buttons that copy, the call's link, and what happened. */
  actions(view, request) {
    const said = el("div", { class: "drawer-said" });
    const why = view.frame ? request.why : view.whyNoPrompt;
    const button = (words, what, make, needsBody) => {
      const off = needsBody && why !== "";
      const attributes = { type: "button", class: "button small", disabled: off, "aria-describedby": off ? "drawer-why" : null };
      return el("button", { ...attributes, on: { click: () => copyText(this.app, make(), what, said) } }, words);
    };
    const address = `#call=${this.call.file}.${this.call.ordinal}`;
    return el(
      "div",
      { class: "drawer-actions no-print" },
      el(
        "div",
        { class: "drawer-copy" },
        button("Copy request (JSON)", "Request", () => requestBody(view.frame, request.slots), true),
        button("Copy curl", "curl command", () => curlCommand(view.frame, request.slots), true),
        button("Copy row (JSON)", "Row", () => view.json(), false),
        button("Copy link", "Link", () => location.href.replace(/#.*$/, "") + address, false),
      ),
      why ? el("p", { id: "drawer-why", class: "muted" }, `No request to copy: ${why}`) : null,
      said,
    );
  }
}

/** Mounts the drawer: `{isOpen, show(row, call), hide(), update()}`. */
function mountDrawer(root, app) {
  return new Drawer(root, app);
}
