// The view "Evaluation": the leaderboard and its pictures, a map of questions and cells, and answers side by side.

const FEW_REMARKS = 4; // sentences below the leaderboard that are shown without a click

/** Builds the view into `root`. */
function mountEvaluation(root, app) {
  const state = { board: 0, sort: null, order: "spread", cursor: 0, question: null, first: ANY_LINE, second: ANY_LINE };
  const heading = el("h2", { tabindex: "-1" }, "Evaluation");
  const body = el("div", { class: "evaluation" });
  let shown = null;
  let browser = null;
  root.append(body);

  /** Builds all parts anew. */
  function rebuild() {
    const { evaluation } = app.meta;
    browser = null;
    clear(body).append(el("div", { class: "evaluation-head" }, heading));
    if (!evaluation?.boards) {
      const problem = evaluation?.problem ?? (evaluation?.judged ? "" : "These results have no scores.");
      body.append(...(problem ? [el("p", { class: "notice" }, textNode(problem))] : []), ...judgedPart(evaluation?.judged));
      return;
    }
    state.board = Math.min(state.board, evaluation.boards.length - 1);
    const board = boardOf(evaluation, state.board);
    const heat = heatOf(board);
    browser = answersPart(board, heat, app, state);
    const lead = (question) => browser.lead(question);
    body.firstChild.append(...scoreChoice(evaluation, state, rebuildInPlace));
    body.append(...[...introOf(board), leaderboardPart(board, state), picturesPart(board)].filter(Boolean));
    body.append(...tablesPart(board), heatPart(board, heat, app, state, lead), browser.node);
  }

  /** Builds all parts anew; focus, opened tables and scroll positions stay. */
  function rebuildInPlace() {
    keepingPlace(body, rebuild);
  }

  /** Shows new figures, and answers that have come since. */
  function update() {
    const now = JSON.stringify(app.meta.evaluation);
    if (now !== shown) {
      shown = now;
      rebuildInPlace();
    } else {
      browser?.update();
    }
  }

  document.addEventListener("keydown", (event) => {
    const by = { n: 1, p: -1 }[event.key];
    const isFree = app.view === "evaluation" && !app.drawer.isOpen && hasLetterKeys() && !event.ctrlKey && !event.metaKey && !event.altKey;
    if (!by || !isFree || event.target.closest?.("input, select, textarea, dialog")) return;
    event.preventDefault();
    browser?.step(by);
  });
  update();
  return { update, focus: () => heading.focus() };
}

/** The choice of the score where there are several. */
function scoreChoice(evaluation, state, rebuild) {
  if (evaluation.boards.length < 2) return [];
  const options = evaluation.boards.map((board, i) => el("option", { value: i, selected: i === state.board }, textNode(board.score)));
  const change = (event) => {
    Object.assign(state, { board: Number(event.target.value), sort: null, cursor: 0, question: null });
    rebuild();
  };
  return [el("label", { class: "choice" }, "Score ", el("select", { class: "field", "aria-label": "Score", "data-keep": "score choice", on: { change } }, ...options))];
}

/** What the figures are about, and what a reader of them must know. */
function introOf({ words, evaluation }) {
  const notes = evaluation.notes.map((note) => el("li", {}, textNode(note)));
  return [
    el("p", { class: "evaluation-intro" }, textNode(`${words.head}.`), evaluation.judge_cost ? textNode(` The judge cost ${evaluation.judge_cost}.`) : null),
    evaluation.hint ? el("p", { class: "notice" }, textNode(evaluation.hint)) : null,
    notes.length ? el("ul", { class: "board-sentences" }, ...notes) : null,
  ];
}

/** The leaderboard with the sentences below it; a click on a column's head builds it anew. */
function leaderboardPart(board, state) {
  const part = el("section", { class: "card evaluation-card" });
  const build = () => {
    const table = leaderboard(board, state, () => keepingPlace(part, build));
    clear(part).append(el("h3", {}, "Leaderboard"), table, ...remarks(board.words.sentences));
  };
  build();
  return part;
}

/** What the scores do not rest on, in sentences; many of them are folded. */
function remarks(sentences) {
  if (!sentences.length) return [];
  const list = el("ul", { class: "board-sentences" }, ...sentences.map((each) => el("li", {}, textNode(each))));
  if (sentences.length <= FEW_REMARKS) return [list];
  return [el("details", { "data-keep": "remarks" }, el("summary", {}, `${formatCount(sentences.length)} remarks on failed rows and questions without an answer`), list)];
}

/** Differences and costs side by side. */
function picturesPart(board) {
  const parts = [differencePart(board), costPart(board)].filter(Boolean);
  return parts.length ? el("div", { class: "evaluation-pictures" }, ...parts) : null;
}

/** What a judge said, as `cometbatch judge` prints it. */
function judgedPart(judged) {
  if (!judged) return [];
  const [first, ...others] = judged.tables.map((rows, i) => wordsTable(`Verdicts of the judge, ${i + 1}`, rows));
  const notes = judged.notes.map((note) => el("li", {}, textNode(note)));
  const list = notes.length ? el("ul", { class: "board-sentences" }, ...notes) : null;
  return [el("section", { class: "card evaluation-card" }, el("h3", {}, "Verdicts of the judge"), first, ...others, el("p", { class: "muted" }, textNode(`${judged.words}.`)), list)];
}

/** pass@k and groups. */
function tablesPart({ words, evaluation }) {
  const { groups } = evaluation.figures;
  const parts = [foldedTable("pass@k and pass^k", words.pass_k), groups ? foldedTable(`Groups by ${visibleText(groups)}`, words.groups) : null];
  return parts.filter(Boolean);
}
