// Answers side by side: the questions on which cells disagree, one at a time, with the gold and what each cell said.

const RIGHT_FROM = 0.5; // a mean score from 0 to 1 counts as right from here on
const SAMPLES_SHOWN = 4; // answers of a cell to one question; the others open on demand
const FOUND_SHOWN = 160; // characters of what a scorer found in an answer; the drawer has it whole
const ANY_LINE = -1; // in the choice of the cell that is right, or wrong

/** The card with one question after the other: `{node, lead(question), step(by), update()}`. */
function answersPart(board, heat, app, state) {
  const counter = el("span", { class: "answers-place", role: "status" });
  const content = el("div", { class: "answers-content" });
  const isAlone = board.lines.length < 2;
  const title = el("h3", { tabindex: "-1" }, isAlone ? "Questions that were not answered right" : "Where cells disagree");
  const node = el("section", { class: "card evaluation-card answers" });
  let places = [];
  let turn = 0;

  /** Chooses the questions anew, and stays at the one that is shown where it is among them. */
  function choose() {
    places = chosenQuestions(board, heat, state);
    if (!places.includes(state.question)) state.question = places[0] ?? null;
    show();
  }

  /** Shows the question of the state. */
  async function show() {
    turn += 1;
    const [mine, question] = [turn, state.question];
    const at = places.indexOf(question);
    const few = at < 0 && question !== null ? "not among those chosen" : `${formatCount(at + 1)} of ${formatCount(places.length)}`;
    clear(counter).append(places.length || question !== null ? few : "none");
    if (question === null) {
      clear(content).append(el("p", { class: "empty" }, isAlone ? "Each question was answered right." : "There is no such question."));
      return;
    }
    const parts = await questionParts(board, heat, app, question, state);
    if (mine === turn) keepingPlace(content, () => clear(content).append(...parts));
  }

  /** Shows the next question, or the one before. */
  function step(by) {
    const at = places.indexOf(state.question);
    const next = at < 0 ? 0 : at + by;
    if (next < 0 || next >= places.length) {
      app.announce(by > 0 ? "This is the last question." : "This is the first question.");
      return;
    }
    state.question = places[next];
    show();
  }

  /** Shows a question of the map, and brings the card into view. */
  function lead(question) {
    state.question = question;
    show();
    title.focus({ preventScroll: true });
    node.scrollIntoView({ block: "start" });
  }

  const button = (words, by, key) => el("button", { type: "button", class: "button", title: `${words} (${key})`, "data-keep": `step ${by}`, on: { click: () => step(by) } }, words);
  const steps = el("div", { class: "answers-steps" }, button("Previous", -1, "p"), button("Next", 1, "n"), counter);
  node.append(el("div", { class: "part-head" }, title, steps), ...(isAlone ? [] : [pairChoice(board, state, choose)]), content);
  choose();
  return { node, lead, step, update: show };
}

/** The choice of the cells of which one is right, the other wrong. */
function pairChoice(board, state, choose) {
  const choice = (name, words) => {
    const change = (event) => {
      state[name] = Number(event.target.value);
      choose();
    };
    const options = [{ place: ANY_LINE, name: "any cell" }, ...board.lines].map((line) => el("option", { value: line.place, selected: line.place === state[name] }, textNode(line.name)));
    return el("label", { class: "choice" }, `${words} `, el("select", { class: "field", "aria-label": words, "data-keep": `choice ${name}`, on: { change } }, ...options));
  };
  const [first, second] = board.figures.is_bounded ? ["Right", "Wrong"] : ["Higher", "Lower"];
  return el("div", { class: "answers-choice" }, choice("first", first), choice("second", second));
}

/** The questions that are gone through, where cells differ most first; of one cell, those that it did not get right. */
function chosenQuestions(board, heat, state) {
  const places = heatOrder(heat, "spread");
  if (board.lines.length < 2) return places.filter((question) => heat.ease[question] < heat.high).sort((a, b) => heat.ease[a] - heat.ease[b]);
  const some = (place) => board.lines.filter((line) => place === ANY_LINE || line.place === place);
  const isAny = state.first === ANY_LINE && state.second === ANY_LINE;
  return places.filter((question) => heat.spread[question] > 0 && (isAny || some(state.first).some((a) => some(state.second).some((b) => isBetter(board, heat.mean(a, question), heat.mean(b, question))))));
}

/** Whether one mean is right and the other wrong; of scores beyond 0 to 1, whether it is higher. */
function isBetter(board, a, b) {
  if (a === null || b === null || a <= b) return false;
  return !board.figures.is_bounded || (a >= RIGHT_FROM && b < RIGHT_FROM);
}

/** A question with its gold, and the answers of each cell. */
async function questionParts(board, heat, app, question, state) {
  const rows = questionRows(app, heat, question);
  const gold = goldColumn(board, app);
  const head = el(
    "p",
    { class: "answers-question" },
    el("strong", {}, textNode(sentenceCase(questionWords(app, heat, question)))),
    el("button", { type: "button", class: "button", "data-keep": "show rows", on: { click: () => showQuestion(app, heat, question) } }, "Show its rows"),
  );
  if (!rows.length) {
    const why = app.isLoaded ? "No call of this question is in the page, which holds a part of the rows." : "The rows are being read.";
    return [head, el("p", { class: "empty" }, why)];
  }
  const texts = await app.store.texts(rows[0]);
  const asked = texts.prompt ? textBox("Prompt", texts.prompt) : inputList(app, rows[0], texts, gold);
  const right = gold ? cellText(app, rows[0], texts, gold) : null;
  const choice = right ? choiceWords(board.words.choices, right.text, app, rows[0], texts) : "";
  const cards = await Promise.all(orderedLines(board, state).map((line) => lineCard(board, heat, app, line, question, rows)));
  return [head, asked, right ? el("p", { class: "answers-gold" }, el("span", { class: "muted" }, "Gold: "), el("span", { class: "mono" }, textNode(right.text), cutMark(right)), textNode(choice)) : null, el("div", { class: "answers-cards" }, ...cards)].filter(Boolean);
}

/** The page's column with the right answers of the score, or null. */
function goldColumn({ words }, { store }) {
  return store.has(words.gold) ? words.gold : null;
}

/** " (the choice 42)" for a gold that is a place in the list of choices, counted from 0, which a prompt may show in another order. */
function choiceWords(choices, gold, app, row, texts) {
  const list = choices ? cellText(app, row, texts, choices) : null;
  if (!list || list.isCut) return "";
  try {
    const choice = JSON.parse(list.text)[gold];
    return choice === undefined || choice === null ? "" : ` (the choice ${typeof choice === "string" ? choice : JSON.stringify(choice)})`;
  } catch {
    return "";
  }
}

/** The lines with the chosen ones first. */
function orderedLines(board, state) {
  const rank = (line) => (line.place === state.first ? 0 : line.place === state.second ? 1 : 2);
  return [...board.lines].sort((a, b) => rank(a) - rank(b));
}

/** A cell of any kind as `{text, length, isCut}`, or null. */
function cellText(app, row, texts, name) {
  if (texts[name]) return texts[name];
  const value = app.store.value(name, row);
  return value === null ? null : { text: formatCell(app.store.column(name), value), isCut: false };
}

/** Where a text of the page is shorter than the result's: how much of it is there. */
function cutMark(text) {
  return text.isCut ? el("span", { class: "muted" }, ` … (the first ${formatCount(text.text.length)} of ${countOf(text.length, "character")})`) : null;
}

/** A text in a box of limited height. */
function textBox(title, text) {
  return el("div", { class: "answers-text" }, el("div", { class: "muted" }, title), el("pre", { tabindex: "0", role: "group", "aria-label": title }, textNode(text.text), cutMark(text)));
}

/** The input's cells, where no prompt is in the page. */
function inputList(app, row, texts, gold) {
  const columns = app.store.columns.filter((column) => column.group === "input" && column.name !== gold);
  const pairs = columns.map((column) => [column, cellText(app, row, texts, column.name)]).filter(([, text]) => text);
  const items = pairs.map(([column, text]) => el("div", {}, el("dt", {}, textNode(column.title)), el("dd", {}, textNode(text.text), cutMark(text))));
  return el("dl", { class: "answers-inputs" }, ...items);
}

/** Whether a row of the page is of a line: it has the line's labels. */
function isOfLine({ store }, line, row) {
  return Object.entries(line.labels).every(([name, label]) => !store.has(name) || sameLabel(store.value(name, row), label));
}

/** Whether a cell holds a label. */
function sameLabel(value, label) {
  if (value === null || label === null) return value === label;
  return String(value) === label || (typeof value === "number" && value === Number(label));
}

/** What a line answered to a question: its mean score, and each sample. */
async function lineCard(board, heat, app, line, question, rows) {
  const own = rows.filter((row) => isOfLine(app, line, row));
  const texts = await Promise.all(own.map((row) => app.store.texts(row)));
  const samples = own.map((row, i) => sampleBlock(board, app, row, texts[i], own.length > 1));
  const later = samples.slice(SAMPLES_SHOWN);
  const more = later.length ? el("details", { "data-keep": `more of ${line.name}` }, el("summary", {}, countOf(later.length, "more answer")), ...later) : null;
  const mean = heat.mean(line, question);
  const head = el("h4", { class: "line-name" }, lineSign(line), el("span", {}, textNode(line.name)), el("span", { class: scoreClass(board, mean) }, mean === null ? "no answer" : scoreWords(mean)));
  const none = own.length ? null : el("p", { class: "muted" }, "The page has no call of it.");
  const card = el("article", { class: "answers-card" }, head, none, ...samples.slice(0, SAMPLES_SHOWN), more);
  card.style.borderTopColor = `var(--${lineColor(line)})`;
  return card;
}

/** The badge of a score. */
function scoreClass(board, value) {
  if (value === null || !board.figures.is_bounded) return "badge";
  return value >= 1 ? "badge good" : value <= 0 ? "badge bad" : "badge warn";
}

/** One answer: score, what was found in it, why it has none, and the text. */
function sampleBlock(board, app, row, texts, isOneOfMany) {
  const { store } = app;
  const name = `score:${board.figures.score}`;
  const value = store.value(name, row);
  const sample = store.value("sample", row);
  const found = cellText(app, row, texts, `${name}_answer`);
  const why = cellText(app, row, texts, `${name}_why`);
  const status = store.value("status", row);
  const facts = [
    isOneOfMany ? el("span", {}, sample === null ? "Answer" : `Sample ${formatCount(sample)}`) : null,
    isOneOfMany || value === null ? el("span", { class: scoreClass(board, value) }, scoreWords(value)) : null,
    found ? el("span", {}, el("span", { class: "muted" }, "found "), el("span", { class: "mono" }, textNode(shortened(found.text)))) : null,
    why ? el("span", { class: "badge warn" }, textNode(why.text.replaceAll("_", " "))) : null,
    status && status !== "succeeded" ? statusBadge(status) : null,
    el("button", { type: "button", class: "button quiet", "aria-label": `Open call ${row + 1} of the page`, "data-keep": `call ${row}`, on: { click: () => app.openRow(row) } }, "Open"),
  ];
  return el("div", { class: "answers-sample" }, el("div", { class: "answers-facts" }, ...facts), answerText(texts));
}

/** The beginning of a text, with a mark where it goes on. */
function shortened(text) {
  return text.length > FOUND_SHOWN ? `${text.slice(0, FOUND_SHOWN)}…` : text;
}

/** The text of an answer, or what stands in its place. */
function answerText(texts) {
  const text = [texts.response, texts.tool_calls, texts.raw, texts.error_message].find((each) => each?.text);
  return text ? el("pre", { tabindex: "0", role: "group", "aria-label": "Answer" }, textNode(text.text), cutMark(text)) : el("p", { class: "muted" }, "There is no text.");
}
