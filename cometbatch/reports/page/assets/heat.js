// Questions and cells: a map of mean scores, drawn on a canvas, and the same as a table.

const HEAT_CELL = 14; // CSS pixels, the least width of a question in the map
const HEAT_CELL_MOST = 26;
const HEAT_LINE = 17; // CSS pixels, the height of a line of the map
const HEAT_HEAD = 17; // CSS pixels above the lines of a strip: the number of its first question
const HEAT_GAP = 9; // CSS pixels between two strips
const HEAT_BOX = 440; // CSS pixels, the most that the map takes of the page's height; the rest is scrolled
const HEAT_SHADES = 48; // colours between the lowest and the highest score
const HEAT_TABLE_ROWS = 100; // questions that the table below the map shows at a time
const HEAT_ORDERS = { spread: "most disagreement first", ease: "hardest first", number: "by row" };

/** The mean scores by question and line: `mean(line, question)`, null for no answer; what questions are sorted by. */
function heatOf(board) {
  const { heat } = board.words;
  const bytes = bytesOfBase64(heat.scores);
  const levels = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  const size = heat.questions.length;
  const level = (line, question) => levels[line.place * size + question];
  const mean = (line, question) => (level(line, question) === heat.no_answer ? null : heat.low + (level(line, question) / heat.levels) * (heat.high - heat.low));
  const known = heat.questions.map((_, question) => board.lines.map((line) => mean(line, question)).filter((each) => each !== null));
  const spread = known.map((each) => Math.max(...each) - Math.min(...each));
  const ease = known.map((each) => each.reduce((sum, value) => sum + value, 0) / each.length);
  return { ...heat, level, mean, spread, ease, size };
}

/** The places of the questions in an order. */
function heatOrder(heat, order) {
  const places = Array.from({ length: heat.size }, (_, i) => i);
  const byNumber = (a, b) => heat.questions[a] - heat.questions[b];
  if (order === "number") return places.sort(byNumber);
  if (order === "ease") return places.sort((a, b) => heat.ease[a] - heat.ease[b] || byNumber(a, b));
  return places.sort((a, b) => heat.spread[b] - heat.spread[a] || heat.ease[a] - heat.ease[b] || byNumber(a, b));
}

/** A score with the digits that compare prints. */
function scoreWords(value) {
  if (isMissing(value)) return "no score";
  return Math.abs(value) < 1000 ? value.toFixed(3) : value.toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
}

/** A question in words: its row, and its name where a row of it is in the page. */
function questionWords(app, heat, question) {
  const row = questionRows(app, heat, question)[0];
  const name = row === undefined ? null : app.store.value("custom_id", row);
  return `row ${heat.questions[question]}${name === null ? "" : ` (${name})`}`;
}

/** The rows of the page with answers to a question, of all results. */
function questionRows({ store, meta }, heat, question) {
  const values = store.part(store.has("row") ? "row" : "ordinal")?.values ?? [];
  const wanted = meta.sources.map((_, source) => (heat.rows[source] ? heat.rows[source][question] : heat.questions[question]));
  const isAlike = wanted.every((each) => each === wanted[0]);
  const found = [];
  for (let row = 0; row < store.count; row += 1) {
    const isMet = isAlike ? values[row] === wanted[0] : values[row] === wanted[store.callOf(row).file];
    if (isMet) found.push(row);
  }
  return found;
}

/** Shows the rows of a question in the table; where results number them in other ways, the first call. */
function showQuestion(app, heat, question) {
  if (heat.rows.every((each) => each === null)) {
    app.showRows({ row: heat.questions[question] });
    return;
  }
  const [row] = questionRows(app, heat, question);
  if (row === undefined) app.announce("The page has no call of this question.");
  else app.openRow(row);
}

/** The map with its legend, its reader and its table. `lead(question)` shows the answers to a question side by side. */
function heatPart(board, heat, app, state, lead) {
  const gist = `Mean score of each question (across) in each cell (down). ${heat.words}${board.lines.length > 1 ? ` On ${countOf(heat.disagreeing, "question")} cells disagree.` : ""}`;
  const title = el("div", { class: "part-head" }, el("h3", {}, "Questions and cells"), orderChoice(state, () => map.arrange()));
  const map = new HeatMap(board, heat, app, state, gist, lead);
  return el("section", { class: "card evaluation-card heat" }, title, el("p", { class: "muted" }, textNode(gist)), heatLegend(heat), map.node, map.readout, heatTable(board, heat, app, state, lead));
}

/** The choice of the order of questions. */
function orderChoice(state, arrange) {
  const options = Object.entries(HEAT_ORDERS).map(([value, words]) => el("option", { value, selected: value === state.order }, words));
  const change = (event) => {
    state.order = event.target.value;
    state.cursor = 0;
    arrange();
  };
  return el("label", { class: "choice" }, "Questions ", el("select", { class: "field", "aria-label": "Order of questions", "data-keep": "heat order", on: { change } }, ...options));
}

/** What the colours of the map mean. */
function heatLegend(heat) {
  const bar = el("span", { class: "heat-scale", "aria-hidden": "true" });
  return el("p", { class: "heat-legend muted" }, scoreWords(heat.low), bar, scoreWords(heat.high), el("span", { class: "heat-none" }, el("span", { "aria-hidden": "true" }, "× "), "no answer"));
}

/** The places of strips, lines and questions in a map of this width. */
function heatLayout(board, heat, width) {
  const longest = Math.max(...board.lines.map((line) => visibleText(line.name).length));
  const names = Math.min(width < 560 ? 108 : 220, longest * 7 + 34);
  const room = Math.max(HEAT_CELL, width - names - 4);
  const cell = Math.min(HEAT_CELL_MOST, Math.max(HEAT_CELL, Math.floor(room / heat.size)));
  const across = Math.max(1, Math.floor(room / cell));
  const strip = HEAT_HEAD + board.lines.length * HEAT_LINE + HEAT_GAP;
  return { width, names, cell, across, strip, height: Math.ceil(heat.size / across) * strip };
}

/** The map on a canvas as large as its box, drawn anew as the box is scrolled. */
class HeatMap {
  constructor(board, heat, app, state, gist, lead) {
    Object.assign(this, { board, heat, app, state, lead });
    const hint = "Arrow keys move from question to question. Enter shows the rows of one, the space bar its answers side by side.";
    const label = `Map of questions and cells. ${hint}`;
    this.canvas = el("canvas", { class: "heat-canvas", role: "img", "aria-label": visibleText(gist) });
    this.space = el("div", { class: "heat-space" }, this.canvas);
    this.node = el("div", { class: "heat-box", tabindex: "0", role: "application", "aria-label": label, "data-keep": "heat map", on: this.listeners() }, this.space);
    this.readout = el("p", { class: "heat-readout" }, el("span", {}), el("span", { class: "muted" }, ` ${hint}`));
    this.places = heatOrder(heat, state.order);
    this.layout = heatLayout(board, heat, 0);
    watchDrawing(this.node, () => this.draw());
    this.tell();
  }

  /** What the box hears. */
  listeners() {
    return {
      keydown: (event) => this.key(event),
      pointermove: (event) => this.point(event),
      pointerleave: () => this.tell(),
      click: (event) => this.click(event),
      scroll: () => this.draw(),
      focus: () => this.tell(),
    };
  }

  /** Draws what the box shows. */
  draw() {
    const { board, heat, node, places } = this;
    if (node.clientWidth === 0) return;
    if (this.layout.width !== node.clientWidth) {
      this.layout = heatLayout(board, heat, node.clientWidth);
      this.space.style.height = `${this.layout.height}px`;
      node.style.height = `${Math.min(HEAT_BOX, this.layout.height) + 2}px`;
    }
    drawHeat(this.canvas, board, heat, places, this.layout, { top: node.scrollTop, height: node.clientHeight, cursor: this.state.cursor });
  }

  /** Says what a question's scores are; without one, of the marked question. */
  tell(place = this.state.cursor) {
    const question = this.places[place];
    if (question === undefined) return "";
    const scores = this.board.lines.map((line) => `${line.name} ${scoreWords(this.heat.mean(line, question))}`);
    const words = `${sentenceCase(questionWords(this.app, this.heat, question))}: ${scores.join(", ")}.`;
    clear(this.readout.firstChild).append(textNode(words));
    return words;
  }

  /** Marks a question, and brings it into the box. */
  mark(place) {
    const { node, layout } = this;
    this.state.cursor = Math.max(0, Math.min(this.places.length - 1, place));
    const top = Math.floor(this.state.cursor / layout.across) * layout.strip;
    if (top < node.scrollTop) node.scrollTop = top;
    else if (top + layout.strip > node.scrollTop + node.clientHeight) node.scrollTop = top + layout.strip - node.clientHeight;
    this.draw();
    this.app.announce(this.tell());
  }

  /** Puts the questions into the order that was chosen. */
  arrange() {
    this.places = heatOrder(this.heat, this.state.order);
    this.node.scrollTop = 0;
    this.draw();
    this.tell();
  }

  /** The place of the question under the pointer, or undefined. */
  placeAt(event) {
    const { node, layout } = this;
    const { left, top } = node.getBoundingClientRect();
    const [x, y] = [event.clientX - left - node.clientLeft - layout.names, event.clientY - top - node.clientTop + node.scrollTop];
    const column = Math.floor(x / layout.cell);
    const place = Math.floor(y / layout.strip) * layout.across + column;
    return column >= 0 && column < layout.across && place < this.places.length ? place : undefined;
  }

  /** Moves the mark, or opens the marked question. */
  key(event) {
    const { across } = this.layout;
    const all = this.places.length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -all, End: all }[event.key];
    if (by === undefined && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (by !== undefined) this.mark(this.state.cursor + by);
    else if (event.key === "Enter") showQuestion(this.app, this.heat, this.places[this.state.cursor]);
    else this.lead(this.places[this.state.cursor]);
  }

  /** Tells of the question under the pointer. */
  point(event) {
    const place = this.placeAt(event);
    this.node.classList.toggle("is-pointed", place !== undefined);
    this.tell(place);
  }

  /** Shows the rows of the question under the pointer. */
  click(event) {
    const place = this.placeAt(event);
    if (place === undefined) return;
    this.state.cursor = place;
    showQuestion(this.app, this.heat, this.places[place]);
  }
}

/** Draws the strips that can be seen. `view`: `{top, height, cursor}`, of the box. */
function drawHeat(canvas, board, heat, places, layout, view) {
  const ratio = devicePixelRatio;
  canvas.width = Math.round(layout.width * ratio);
  canvas.height = Math.round(view.height * ratio);
  Object.assign(canvas.style, { width: `${layout.width}px`, height: `${view.height}px` });
  const pen = canvas.getContext("2d");
  const colors = heatColors(board);
  pen.scale(ratio, ratio);
  pen.translate(0, -view.top);
  const [from, to] = [Math.floor(view.top / layout.strip), Math.ceil((view.top + view.height) / layout.strip)];
  for (let strip = from; strip < to && strip * layout.across < places.length; strip += 1) {
    const shown = places.slice(strip * layout.across, (strip + 1) * layout.across);
    drawStrip(pen, board, heat, shown, layout, strip, colors);
  }
  drawCursor(pen, board, layout, view.cursor, colors);
}

/** The colours of the map as they are now. */
function heatColors(board) {
  const [low, high] = [themeColor("heat-low"), themeColor("heat-high")];
  const shades = Array.from({ length: HEAT_SHADES + 1 }, (_, i) => `color-mix(in oklab, ${high} ${(100 * i) / HEAT_SHADES}%, ${low})`);
  const lines = board.lines.map((line) => themeColor(lineColor(line)));
  return { shades, lines, text: themeColor("text"), muted: themeColor("muted"), font: `12px ${getComputedStyle(document.body).fontFamily}` };
}

/** One strip: the numbers of its questions among all, and for each line its name and a field for each question. */
function drawStrip(pen, board, heat, shown, layout, strip, colors) {
  const top = strip * layout.strip;
  pen.font = colors.font;
  pen.textBaseline = "middle";
  pen.fillStyle = colors.muted;
  pen.fillText(`${formatCount(strip * layout.across + 1)}–${formatCount(strip * layout.across + shown.length)}`, layout.names, top + HEAT_HEAD / 2);
  board.lines.forEach((line, i) => {
    const y = top + HEAT_HEAD + i * HEAT_LINE;
    pen.fillStyle = colors.lines[i];
    pen.fill(new Path2D(dotPath(lineShape(line), 6, y + HEAT_LINE / 2, 4)));
    pen.fillStyle = colors.text;
    pen.fillText(cutName(line.name, layout.names - 22), 16, y + HEAT_LINE / 2);
    shown.forEach((question, column) => drawField(pen, heat.level(line, question) / heat.levels, layout.names + column * layout.cell, y, layout.cell, colors, heat.level(line, question) === heat.no_answer));
  });
}

/** The field of one question in one line. */
function drawField(pen, share, x, y, cell, colors, isEmpty) {
  if (isEmpty) {
    pen.fillStyle = colors.muted;
    pen.fillText("×", x + cell / 2 - 4, y + HEAT_LINE / 2);
    return;
  }
  pen.fillStyle = colors.shades[Math.round(share * HEAT_SHADES)];
  pen.fillRect(x, y, cell - 1, HEAT_LINE - 1);
}

/** A frame around the question that is marked. */
function drawCursor(pen, board, layout, cursor, colors) {
  const x = layout.names + (cursor % layout.across) * layout.cell;
  const y = Math.floor(cursor / layout.across) * layout.strip + HEAT_HEAD;
  pen.strokeStyle = colors.text;
  pen.lineWidth = 2;
  pen.strokeRect(x - 1, y - 1, layout.cell + 1, board.lines.length * HEAT_LINE + 1);
}

/** The map as a table, some questions at a time; each question leads to its rows and to its answers. */
function heatTable(board, heat, app, state, lead) {
  const box = el("div", { class: "scroll-box heat-numbers", role: "region", tabindex: "0", "aria-label": "Scores of questions", "data-keep": "heat numbers" });
  const details = el("details", { "data-keep": "heat table" }, el("summary", {}, "The scores as a table"), box);
  const fill = (count) => {
    const places = heatOrder(heat, state.order).slice(0, count);
    const head = el("tr", {}, ...["question", "answers", ...board.lines.map((line) => line.name)].map((each) => el("th", { scope: "col" }, textNode(each))));
    const rows = places.map((question) => heatRow(board, heat, app, question, lead));
    const more = heat.size > count ? el("button", { type: "button", class: "button", on: { click: () => keepingPlace(box, () => fill(count + HEAT_TABLE_ROWS)) } }, `Show ${HEAT_TABLE_ROWS} more of ${countOf(heat.size, "question")}`) : null;
    clear(box).append(el("table", { class: "plain-table" }, el("thead", {}, head), el("tbody", {}, ...rows)), ...(more ? [more] : []));
  };
  details.addEventListener("toggle", () => {
    if (details.open) fill(HEAT_TABLE_ROWS);
  });
  return details;
}

/** One question of the table. */
function heatRow(board, heat, app, question, lead) {
  const number = heat.questions[question];
  const show = el("button", { type: "button", class: "button quiet", title: "Show its rows", "data-keep": `rows ${number}`, on: { click: () => showQuestion(app, heat, question) } }, `row ${number}`);
  const compare = el("button", { type: "button", class: "button quiet", "aria-label": `Answers to row ${number} side by side`, "data-keep": `answers ${number}`, on: { click: () => lead(question) } }, "compare");
  const scores = board.lines.map((line) => heat.mean(line, question)).map((mean) => el("td", { class: "number" }, mean === null ? "no answer" : scoreWords(mean)));
  return el("tr", {}, el("th", { scope: "row" }, show), el("td", {}, compare), ...scores);
}
