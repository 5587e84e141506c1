// The first screen: what this is, how it went, what went wrong, how it went over time, and which rows stand out.

const OUTCOMES = ["succeeded", "incomplete", "failed", "remaining"];
const STATE_CLASS = { finished: "badge good", running: "badge", stopped: "badge warn" };
const COPIED_MS = 1600; // how long a button says that it has copied

/** Builds the first screen into `root`; of a page without an overview, its sources alone. */
function mountOverview(root, app) {
  const builders = app.meta.overview ? [introPart, outcomesPart, failuresPart, chartsPart, extremesPart] : [introPart];
  const parts = builders.map((build) => ({
    build,
    node: el("section", { class: "overview-part" }),
    shown: null,
  }));
  const heading = el("h2", { class: "visually-hidden", tabindex: "-1" }, "Overview");
  root.append(el("div", { class: "overview" }, heading, ...parts.map((part) => part.node)));

  /** Builds the parts anew whose facts are others now; focus, opened tables and scroll positions stay. */
  function update() {
    for (const part of parts) {
      const { facts, children } = part.build(app);
      const now = JSON.stringify(facts);
      if (now === part.shown) continue;
      part.shown = now;
      keepingPlace(part.node, () => clear(part.node).append(...children()));
    }
    drawNewCharts();
  }

  update();
  return { update, focus: () => heading.focus() };
}

// ---- 1: what this is

/** The sources, their state, when and how many rows; notes; which rows are in the page. */
function introPart({ meta }) {
  const { sources, selection, overview } = meta;
  const figures = overview?.sources ?? [];
  const facts = [sources, selection.words, figures.map((each) => each.time)];
  const children = () => [
    el("ul", { class: "overview-sources", role: "list" }, ...sources.map((each, i) => sourceLine(each, figures[i]))),
    ...(selection.words ? [el("p", { class: "notice overview-notice" }, textNode(selection.words))] : []),
  ];
  return { facts, children };
}

/** One source: name, state, rows, when, command, and its notes. */
function sourceLine(source, figures) {
  const rows = source.calls === null ? countOf(source.rows, "row") : `${formatCount(source.rows)} of ${countOf(source.calls, "row")}`;
  const when = spanWords(figures?.time);
  const notes = source.notes.map((each) => el("li", {}, textNode(each)));
  return el(
    "li",
    {},
    el("strong", {}, textNode(source.name)),
    " ",
    el("span", { class: STATE_CLASS[source.state] ?? "badge" }, textNode(source.state)),
    el("span", {}, ` ${rows}${when ? `, ${when}` : ""}`),
    source.command ? el("span", { class: "muted" }, source.state === "stopped" ? "; continue with: " : ", ", el("code", {}, textNode(source.command))) : null,
    notes.length ? el("ul", { class: "overview-notes" }, ...notes) : null,
  );
}

/** "2026-11-30 19:00:05 to 19:12:07 (12 min 02 s)"; "" where no moment is known. */
function spanWords(time) {
  if (!time || time.first_ms === null || time.last_ms === null) return "";
  const [first, last] = [formatMoment(time.first_ms), formatMoment(time.last_ms)];
  if (first === last) return first;
  const [day, hour] = [last.slice(0, 10), last.slice(11)];
  return `${first} to ${first.startsWith(day) ? hour : last} (${formatSeconds((time.last_ms - time.first_ms) / 1000)})`;
}

// ---- 2: outcomes, cost, tokens, time

/** The figures: of one source as panels, of several as a table with a column each. */
function outcomesPart(app) {
  const { meta } = app;
  const facts = [meta.overview.sources, meta.sources.map((each) => each.name)];
  const children = () => {
    const figures = meta.overview.sources.map((each, i) => figuresOf(each, i, app));
    return figures.length === 1 ? [figurePanels(figures[0], meta.overview.sources[0].outcomes)] : [figureTable(figures, app)];
  };
  return { facts, children };
}

/**
 * The figures of one source: `[{title, lines: [{label, value, note, exact, bound, open, sign}]}]`. `value` null: does not apply.
 * `exact`: the whole amount, which `bound` bounds. `open`: what a click on the value does. `sign`: the outcome whose pattern stands before it.
 */
function figuresOf(source, file, app) {
  return [
    { title: "Outcomes", lines: outcomeLines(source.outcomes, file, app) },
    { title: "Cost", lines: costLines(source.cost) },
    { title: "Tokens", lines: tokenLines(source.tokens) },
    { title: "Time", lines: timeLines(source.time, source.outcomes) },
  ];
}

/** How many rows came to each outcome, with their share of all. */
function outcomeLines(outcomes, file, app) {
  const total = OUTCOMES.reduce((sum, each) => sum + (outcomes[each] ?? 0), 0);
  return OUTCOMES.map((each) => {
    const rows = outcomes[each];
    const isShown = rows > 0 && each !== "remaining";
    return {
      label: sentenceCase(each),
      sign: each,
      value: rows === null ? "unknown" : formatCount(rows),
      note: rows === null || total === 0 ? "" : shareOf(rows, total),
      open: isShown ? () => app.showRows({ words: { status: [each], ...fileWords(file, app) } }) : null,
      action: `Show the ${each} rows${app.meta.sources.length > 1 ? ` of ${visibleText(app.meta.sources[file].name)}` : ""}`,
    };
  });
}

/** The filter of one source among several; none where there is one. */
function fileWords(file, app) {
  return app.meta.sources.length > 1 ? { file: [app.meta.sources[file].name] } : {};
}

/** A share of a whole, as a percentage; all and nothing are said only of all and nothing. */
function shareOf(part, whole) {
  if (part === 0) return "0%";
  if (part === whole) return "100%";
  const percent = (100 * part) / whole;
  if (percent < 0.1) return "<0.1%";
  if (percent > 99.9) return ">99.9%";
  return `${percent.toFixed(1).replace(/\.0$/, "")}%`;
}

/** What the rows cost, and what stands apart from it. */
function costLines(cost) {
  return [costLine(cost), possibleLine(cost), reusedLine(cost), rejectedLine(cost), replacedLine(cost), judgeLine(cost)];
}

/** The cost: unknown is never 0, and a sum that leaves something out says "at least". */
function costLine(cost) {
  const left = [
    cost.unpriced ? `${countOf(cost.unpriced, "row")} without a known cost` : "",
    cost.at_least ? `${countOf(cost.at_least, "row")} with more in use than is priced` : "",
  ].filter(Boolean);
  const bound = left.length && cost.usd !== null ? "at least " : "";
  return { label: "Cost", value: bound + usdText(cost.usd), bound, exact: cost.usd, note: left.join("; ") };
}

/** Whether an amount is known and not nothing. */
function isSome(usd) {
  return usd !== null && usd !== undefined && Number(usd) !== 0;
}

/** What may have been billed without an answer. A result without its run tells amounts, and not of how many requests. */
function possibleLine(cost) {
  const label = "Possible extra charge";
  const { possible_requests: requests, possible_unknown: unknown, possible_usd: usd } = cost;
  const hasBound = requests === null ? isSome(usd) : requests > unknown;
  if (!hasBound && !unknown) return { label, value: null };
  const words = [
    hasBound && requests !== null ? `for ${countOf(requests - unknown, "request")}` : "",
    unknown ? `${hasBound ? "and " : ""}an unknown amount for ${countOf(unknown, "request")}` : "",
  ];
  const note = [...words.filter(Boolean), "without an answer; not in the cost"].join(" ");
  if (!hasBound) return { label, value: "unknown", exact: null, note };
  return { label, value: `up to ${usdText(usd, "up")}`, bound: "up to ", exact: usd, note };
}

/** What answers of earlier runs or of equal rows saved. */
function reusedLine(cost) {
  const label = "Reused";
  if (!cost.reused_rows) return { label, value: null };
  const note = `${countOf(cost.reused_rows, "row")} took an answer that was paid for before`;
  return { label, value: `${usdText(cost.reused_saved_usd, "down")} saved`, exact: cost.reused_saved_usd, note };
}

/** Answers that did not fit and were asked for again. */
function rejectedLine(cost) {
  const label = "Rejected answers";
  if (!cost.rejected_asks) return { label, value: null };
  const note = `${countOf(cost.rejected_asks, "answer")} did not fit; in the cost`;
  return { label, value: usdText(cost.rejected_usd), exact: cost.rejected_usd, note };
}

/** Earlier answers of rows that were answered again, or are to be. A result without its run tells what they cost alone. */
function replacedLine(cost) {
  const label = "Replaced answers";
  const { replaced_rows: rows, replaced_usd: usd } = cost;
  if (rows === null ? !isSome(usd) : rows === 0) return { label, value: null };
  const of = rows === null ? "" : ` of ${countOf(rows, "row")}`;
  return { label, value: usdText(usd), exact: usd, note: `earlier answers${of}; not in the cost` };
}

/** What the judge of the scores cost. */
function judgeLine(cost) {
  const label = "Judge";
  if (cost.judge_usd === null || cost.judge_usd === undefined) return { label, value: null };
  return { label, value: usdText(cost.judge_usd), exact: cost.judge_usd, note: "for scores; not in the cost" };
}

/** Tokens in and out, with those of the cache and of reasoning. */
function tokenLines(tokens) {
  const known = (n) => (n === null ? "unknown" : formatCount(n));
  const cache = [
    tokens.cache_read ? `${formatCount(tokens.cache_read)} read from cache` : "",
    tokens.cache_write ? `${formatCount(tokens.cache_write)} written to cache` : "",
  ].filter(Boolean);
  return [
    { label: "In", value: known(tokens.input), note: cache.join("; ") },
    { label: "Out", value: known(tokens.output), note: tokens.reasoning ? `${formatCount(tokens.reasoning)} spent on reasoning` : "" },
    { label: "Without counts", value: tokens.uncounted ? countOf(tokens.uncounted, "row") : null, note: "not in the sums" },
  ];
}

/** How long it took, how long an answer took, and how often was sent for a row. */
function timeLines(time, outcomes) {
  const known = (seconds) => (seconds === null ? "unknown" : formatSeconds(seconds));
  const hasSpan = time.first_ms !== null && time.last_ms !== null;
  const rows = outcomes.succeeded + outcomes.incomplete + outcomes.failed;
  const perRow = rows ? (time.attempts / rows).toFixed(2).replace(/\.?0+$/, "") : null;
  return [
    {
      label: "First to last answer",
      value: hasSpan ? formatSeconds((time.last_ms - time.first_ms) / 1000) : "unknown",
      note: spanNote(time),
    },
    { label: "Median latency", value: known(time.latency_p50_s), note: "" },
    { label: "95th percentile", value: known(time.latency_p95_s), note: "" },
    { label: "Attempts per row", value: perRow, note: countOf(time.attempts, "attempt") },
  ];
}

/** "19:00:05 to 19:12:07", with days where they differ. */
function spanNote(time) {
  return spanWords(time).replace(/ \([^)]*\)$/, "");
}

/** One source's figures, a panel for each group. */
function figurePanels(groups, outcomes) {
  const panels = groups.map((group) => {
    const lines = group.lines.filter((line) => line.value !== null);
    return el(
      "section",
      { class: `card figures figures-${group.title.toLowerCase()}` },
      el("h2", {}, group.title),
      group.title === "Outcomes" ? outcomeBar(outcomes) : null,
      el(
        "dl",
        {},
        ...lines.map((line) =>
          el("div", { class: "figure" }, el("dt", {}, ...figureLabel(line)), el("dd", {}, ...figureValue(line, group.title))),
        ),
      ),
      group.title === "Cost" ? exactAmounts([groups], ["Exact"]) : null,
    );
  });
  return el("div", { class: "figure-panels" }, ...panels);
}

/** Several sources' figures side by side: a column for each, in a box that scrolls. */
function figureTable(figures, app) {
  const names = app.meta.sources.map((each) => each.name);
  const heads = names.map((each) => el("th", { scope: "col" }, textNode(each)));
  const bars = app.meta.overview.sources.map((each) => el("td", {}, outcomeBar(each.outcomes)));
  const body = figures[0].map((group, g) => {
    const lines = group.lines
      .map((_, l) => figures.map((each) => each[g].lines[l]))
      .filter((line) => line.some((each) => each.value !== null));
    return el(
      "tbody",
      {},
      el(
        "tr",
        { class: "figure-group" },
        el("th", { scope: "rowgroup", colspan: g === 0 ? null : figures.length + 1 }, group.title),
        ...(g === 0 ? bars : []),
      ),
      ...lines.map((line) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, ...figureLabel(line[0])),
          ...line.map((each, i) => el("td", {}, ...figureValue(each, `${group.title} ${i}`))),
        ),
      ),
    );
  });
  const corner = el("td", {});
  const table = el("table", { class: "figure-table" }, el("thead", {}, el("tr", {}, corner, ...heads)), ...body);
  const box = { class: "card scroll-box", role: "region", tabindex: "0", "aria-label": "Figures of each source", "data-keep": "figures" };
  return el("div", box, table, exactAmounts(figures, names));
}

/** The whole amounts behind the rounded ones, as a table that opens; null where no amount is known. */
function exactAmounts(figures, names) {
  const costs = figures.map((groups) => groups.find(({ title }) => title === "Cost").lines);
  const places = costs[0].map((_, i) => i).filter((i) => costs.some((lines) => isSome(lines[i].exact)));
  if (!places.length) return null;
  const rows = places.map((i) => [costs[0][i].label, ...costs.map((lines) => exactText(lines[i]))]);
  const table = textTable(["US dollars", ...names], rows);
  return el(
    "details",
    { class: "exact-amounts", "data-keep": "exact amounts" },
    el("summary", { "data-keep": "show exact amounts" }, "Exact amounts"),
    table,
  );
}

/** The whole amount of a figure, with what bounds it. */
function exactText({ value, exact, bound = "" }) {
  if (value === null) return "none";
  return isMissing(exact) ? "unknown" : `${bound}${exact}`;
}

/** The name of a figure, after its sign. */
function figureLabel(line) {
  return [line.sign ? el("span", { class: `outcome-sign outcome-${line.sign}`, "aria-hidden": "true" }) : null, line.label];
}

/** The value of a figure with its note: a button where it leads somewhere, a quiet word where it does not apply. */
function figureValue(line, place) {
  if (line.value === null) return [el("span", { class: "muted" }, "none")];
  const title = line.exact === null || line.exact === undefined ? null : `$${visibleText(line.exact)} exactly`;
  const value = line.open
    ? el(
        "button",
        {
          type: "button",
          class: "figure-value",
          "aria-label": `${line.value}: ${line.action}`,
          title: line.action,
          "data-keep": `${place} ${line.label}`,
          on: { click: line.open },
        },
        line.value,
      )
    : el("span", { class: "figure-value", title }, line.value);
  return [value, line.note ? el("span", { class: "figure-note" }, ` ${line.note}`) : null];
}

/** The outcomes as one thin bar; each has a pattern of its own, and the counts stand beside it. */
function outcomeBar(outcomes) {
  const parts = OUTCOMES.filter((each) => outcomes[each] > 0).map((each) => {
    const part = el("span", { class: `outcome-${each}` });
    part.style.flexGrow = String(outcomes[each]);
    return part;
  });
  return el("div", { class: "outcome-bar", "aria-hidden": "true" }, ...parts);
}

/** An exact amount for people, rounded as the commands do ("near": half to even, "up", "down"): $12.35, $0.0123, $0.000025. */
function usdText(text, mode = "near") {
  if (text === null || text === undefined) return "unknown";
  const [, sign, whole, fraction = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(String(text)) ?? [null, "", String(text)];
  if (!/^\d+$/.test(whole)) return formatUsd(text);
  const zeros = fraction.search(/[1-9]/);
  if (zeros < 0 && /^0+$/.test(whole)) return "$0";
  const decimals = /[1-9]/.test(whole) ? 2 : zeros < 4 ? 4 : zeros + 2;
  const digits = roundedDigits(whole + fraction.slice(0, decimals).padEnd(decimals, "0"), fraction.slice(decimals), mode);
  const padded = digits.padStart(decimals + 1, "0");
  return `${sign}$${formatCount(BigInt(padded.slice(0, -decimals)))}.${padded.slice(-decimals)}`;
}

/** The kept digits of an amount, after the rest was rounded away. */
function roundedDigits(kept, rest, mode) {
  const number = BigInt(kept);
  if (!/[1-9]/.test(rest) || mode === "down") return String(number);
  if (mode === "up") return String(number + 1n);
  const half = rest[0] === "5" && !/[1-9]/.test(rest.slice(1));
  const isUp = half ? number % 2n === 1n : rest[0] >= "5";
  return String(isUp ? number + 1n : number);
}

// ---- 3: what went wrong

/** A table of failures by kind, with an example and the next command; a quiet sentence where nothing went wrong. */
function failuresPart(app) {
  const { failures } = app.meta.overview;
  const hasRows = app.meta.overview.sources.some(({ outcomes }) => outcomes.succeeded + outcomes.incomplete + outcomes.failed > 0);
  const facts = [failures, hasRows, app.meta.sources.map((each) => each.state)];
  const children = () => {
    const isDone = app.meta.sources.every((each) => each.state === "finished");
    const quiet = !hasRows ? "No row has an outcome yet." : isDone ? "Nothing: every row has a whole answer." : "Nothing so far.";
    return [
      el(
        "div",
        { class: "card" },
        el("h2", {}, "What went wrong"),
        failures.length ? failureTable(failures, app) : el("p", { class: "muted" }, quiet),
      ),
    ];
  };
  return { facts, children };
}

/** The table by kind. Roles are named because on a narrow screen its rows are laid out as blocks. */
function failureTable(failures, app) {
  const columns = ["Kind", "Rows", "What it means", "An example", "What to do next"];
  const heads = columns.map((each) => el("th", { scope: "col", role: "columnheader" }, each));
  return el(
    "table",
    { class: "plain-table failures", role: "table" },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads)),
    el("tbody", { role: "rowgroup" }, ...failures.map((each) => failureRow(each, app))),
  );
}

/** One kind of failure. */
function failureRow(failure, app) {
  const show = () => app.showRows({ words: wordsOfKind(failure) });
  const action = `Show these rows: ${failure.status}, ${visibleText(failure.kind)}`;
  const keep = `${failure.status} ${failure.kind}`;
  const count = el(
    "button",
    {
      type: "button",
      class: "link-button",
      "aria-label": `${formatCount(failure.rows)}: ${action}`,
      title: action,
      "data-keep": keep,
      on: { click: show },
    },
    formatCount(failure.rows),
  );
  const sign = el("span", {
    class: `outcome-sign outcome-${failure.status === "failed" ? "failed" : "incomplete"}`,
    "aria-hidden": "true",
  });
  const name = el("span", {}, textNode(failure.kind), el("span", { class: "muted" }, ` ${failure.status}`));
  const cell = (column, ...content) => el("td", { role: "cell", class: `failure-${column}` }, ...content);
  return el(
    "tr",
    { role: "row" },
    el("th", { scope: "row", role: "rowheader", class: "failure-kind" }, el("div", {}, sign, name)),
    cell("rows", count),
    cell("words", textNode(failure.words)),
    cell("example", exampleButton(failure, app, keep)),
    cell("next", ...nextSteps(failure, app, keep)),
  );
}

/** The filter that shows the rows of one kind of failure; rows without a kind are listed by their status. */
function wordsOfKind({ status, kind }) {
  return { status: [status], [status === "failed" ? "error_kind" : "finish_reason"]: [kind === status ? null : kind] };
}

/** An example's message; a click opens its call. */
function exampleButton({ example }, app, keep) {
  if (!example) return el("span", { class: "muted" }, "none in the page");
  const open = () => app.openCall(example.file, example.ordinal);
  const words = example.message ? textNode(example.message) : "no message";
  return el(
    "button",
    { type: "button", class: "example", title: "Open this call", "data-keep": `${keep} example`, on: { click: open } },
    words,
  );
}

/** The commands to run next, each with a button that copies it; or advice, or both. Of several sources, each by its name. */
function nextSteps({ commands, advice }, app, keep) {
  const words = advice ? el("p", {}, textNode(advice)) : null;
  const known = commands.filter(({ command }) => command);
  if (!known.length) return [words ?? el("span", { class: "muted" }, "Nothing to run.")];
  const isNamed = app.meta.sources.length > 1;
  const named = ({ file, rows }) => el("p", { class: "muted command-source" }, textNode(`${shortPath(app.meta.sources[file].name)}: ${countOf(rows, "row")}`));
  const shown = isNamed ? commands : known;
  return [words, ...shown.flatMap((each) => [isNamed ? named(each) : null, commandLine(each, app, `${keep} ${each.file}`)])];
}

/** A command with its button; where the job file is not known, a word that says so. */
function commandLine({ command }, app, keep) {
  if (!command) return el("p", { class: "muted" }, "Its job file is not known.");
  return el("div", { class: "command" }, el("code", {}, ...unbrokenWords(command)), copyButton(command, app, keep));
}

/** The words of a command, so that a line breaks between them: an option's hyphens would be a place to break, too. */
function unbrokenWords(command) {
  return command.split(" ").flatMap((word, i) => [i ? " " : null, el("span", { class: "command-word" }, textNode(word))]);
}

/** A button that copies a command, and says so. */
function copyButton(command, app, keep) {
  const button = el(
    "button",
    { type: "button", class: "button", "aria-label": `Copy: ${visibleText(command)}`, "data-keep": `${keep} copy` },
    "Copy",
  );
  button.addEventListener("click", async () => {
    const isCopied = await copiedText(command);
    button.textContent = isCopied ? "Copied" : "Not copied";
    app.announce(isCopied ? "The command is copied." : "The browser did not allow copying.");
    setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
  });
  return button;
}

/** Puts a text on the clipboard; false where the browser refuses. */
async function copiedText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

// ---- 4: over time

/** Throughput, latency and cost over time; a sentence where no row has a time. */
function chartsPart({ meta }) {
  const { series, sources } = meta.overview;
  const isPriced = sources.some((each) => each.cost.usd !== null);
  const children = () => [
    el("h2", {}, "Over time", meta.sources.length > 1 ? el("span", { class: "muted overview-aside" }, " all sources together") : null),
    series === null || series.succeeded.length === 0
      ? el("p", { class: "card muted" }, "No row says when it was answered, so there is nothing to draw over time.")
      : el(
          "div",
          { class: "charts" },
          throughputBox(series),
          latencyBox(series),
          isPriced ? costBox(series, sources) : absentBox("Cost", "No cost is known, so there is nothing to draw."),
        ),
  ];
  return { facts: [series, isPriced], children };
}

// ---- 5: rows that stand out

/** The slowest, dearest and longest rows, each a link to its call. */
function extremesPart({ meta }) {
  const { extremes } = meta.overview;
  const unit = extremes.length_unit === "tokens" ? "output tokens" : "characters of the answer";
  const lists = [
    ["Slowest", "seconds from sending to answer", extremes.slowest, formatSeconds],
    ["Dearest", "US dollars", extremes.dearest, threeDigitUsd],
    ["Longest", unit, extremes.longest, formatCount],
  ];
  const children = () => [
    el("h2", {}, "Rows that stand out"),
    el("div", { class: "extremes" }, ...lists.map(([title, unit, entries, words]) => extremeList(title, unit, entries, words, meta))),
  ];
  return { facts: [extremes, meta.sources.length], children };
}

/** One list of rows with their values. */
function extremeList(title, unit, entries, words, meta) {
  const items = entries.map((each) => {
    const source = meta.sources.length > 1 ? el("span", { class: "muted" }, ` ${visibleText(meta.sources[each.file].name)}`) : null;
    const call = `#call=${Number(each.file)}.${Number(each.ordinal)}`;
    return el(
      "li",
      {},
      el("a", { href: call, "data-keep": `${title} ${call}` }, textNode(each.label), source),
      el("span", { class: "extreme-value" }, words(each.value)),
    );
  });
  return el(
    "section",
    { class: "card" },
    el("h3", {}, title, el("span", { class: "muted" }, ` ${unit}`)),
    items.length ? el("ol", {}, ...items) : el("p", { class: "muted" }, "No row has a value."),
  );
}
