// The leaderboard: its table with a dot and an interval in each line, differences from the baseline, score against cost.

const PLOT_WIDTH = 148; // CSS pixels of the plot in a line of the leaderboard
const PLOT_HEIGHT = 26;
const PLOT_PAD = 8; // CSS pixels between the scale's ends and the edges, so that no dot is cut
const LOG_FROM = 20; // costs that span more than this many times are drawn on a logarithmic axis
const LABEL_HEIGHT = 15; // CSS pixels of a point's name
const MAX_SENTENCES = 5; // comparisons that are told in words below the picture; the table has all
const LINE_COLORS = 8; // --c1 to --c8 of page.css
const DOT_SHAPES = ["circle", "square", "diamond", "triangle"];

/** A number of the figures as a text for sorting; the cells that are shown are compare's own texts. */
const numberOr = (value) => (value === null || value === undefined || value === "" ? NaN : Number(value));

/** One board with all that its parts need: figures at full precision, and their words by line. */
function boardOf(evaluation, place) {
  const figures = evaluation.figures.boards[place];
  const words = evaluation.boards[place];
  const lines = figures.lines.map((score, i) => {
    const cells = words.cells[i];
    return { place: cells.line, cells, score, spent: evaluation.figures.lines[cells.line], ...evaluation.lines[cells.line] };
  });
  return { figures, words, lines, evaluation };
}

/** A line by its place in the figures. */
function lineAt(board, place) {
  return board.lines.find((line) => line.place === place);
}

/** The colour token of a line. */
function lineColor(line) {
  return `c${(line.place % LINE_COLORS) + 1}`;
}

/** The shape that goes with a line's colour, so that lines are told apart without it. */
function lineShape(line) {
  return DOT_SHAPES[line.place % DOT_SHAPES.length];
}

/** A dot of a line at a place of a picture: shape and colour are the line's own everywhere. */
function lineDot(line, x, y, size = 5) {
  const dot = svg("path", { class: "line-dot", d: dotPath(lineShape(line), x, y, size) });
  dot.style.fill = `var(--${lineColor(line)})`;
  return dot;
}

/** The outline of a shape around a place. */
function dotPath(shape, x, y, size) {
  if (shape === "square") return `M${x - size * 0.9} ${y - size * 0.9}h${size * 1.8}v${size * 1.8}h${-size * 1.8}z`;
  if (shape === "diamond") return `M${x} ${y - size * 1.25}L${x + size * 1.25} ${y}L${x} ${y + size * 1.25}L${x - size * 1.25} ${y}z`;
  if (shape === "triangle") return `M${x} ${y - size * 1.15}L${x + size * 1.15} ${y + size}H${x - size * 1.15}z`;
  return `M${x - size} ${y}a${size} ${size} 0 1 0 ${size * 2} 0a${size} ${size} 0 1 0 ${-size * 2} 0z`;
}

/** The sign of a line beside its name. */
function lineSign(line) {
  return svg("svg", { class: "line-sign", viewBox: "0 0 14 14", width: "14", height: "14", "aria-hidden": "true" }, lineDot(line, 7, 7));
}

// ---- the table

/** The columns of the leaderboard; `sort`: the number that a line is sorted by. */
function boardColumns(board) {
  const { figures, words, evaluation } = board;
  const hasIntervals = !evaluation.figures.needs_extra;
  const text = (name) => (line) => line.cells[name];
  const count = (name) => (line) => formatCount(line.score[name]);
  const columns = [
    { name: "score", title: "Score", text: text("score"), sort: (line) => numberOr(line.score.score), most: true },
    hasIntervals && { name: "interval", title: "95 %", text: text("interval"), sort: (line) => numberOr(line.score.precision?.interval?.low), most: true },
    hasIntervals && { name: "se", title: "SE", hint: "standard error, clustered", text: text("se"), sort: (line) => numberOr(line.score.precision?.se) },
    { name: "answered", title: "Answered", hint: "the score of the rows that have an answer", text: text("answered"), sort: (line) => numberOr(line.score.answered), most: true },
    { name: "unscored", title: "Unscored", hint: "rows without a score, and why", text: text("unscored"), sort: (line) => unscoredRows(line.score) },
    ...["failed", "incomplete", "scorer_errors"].map((name) => ({ name, title: name === "scorer_errors" ? "Scorer errors" : sentenceCase(name), text: count(name), sort: (line) => line.score[name], isOptional: true })),
    { name: "cost", title: "Cost", text: text("cost"), sort: (line) => numberOr(line.spent.cost_usd) },
    { name: "cost_of_right", title: words.cost_title, text: text("cost_of_right"), sort: (line) => numberOr(line.score.cost_of_right_usd) },
    { name: "tokens", title: "Tokens each", hint: "input and output tokens of an answer", text: text("tokens"), sort: (line) => numberOr(line.spent.tokens_each) },
    { name: "p50_s", title: "p50\u00a0s", hint: "seconds within which half of the rows had their last reply", text: text("p50_s"), sort: (line) => numberOr(line.spent.p50_s) },
    { name: "p95_s", title: "p95\u00a0s", hint: "seconds within which 95 % of the rows had their last reply", text: text("p95_s"), sort: (line) => numberOr(line.spent.p95_s) },
  ];
  return columns.filter((column) => column && (!column.isOptional || figures.lines.some((line) => line[column.name] > 0)));
}

/** How many rows of a line have no score of their own. */
function unscoredRows(score) {
  return score.failed + score.incomplete + score.scorer_errors;
}

/** The leaderboard as a table that is sorted by any column; `state.sort` stays over updates. */
function leaderboard(board, state, rebuild) {
  const columns = boardColumns(board);
  const scale = boardScale(board);
  const sorted = sortedLines(board.lines, columns, state.sort);
  const head = el(
    "tr",
    {},
    el("th", { scope: "col", class: "board-name" }, textNode(board.evaluation.figures.by.join(", ") || "line")),
    columnHead(columns[0], state, rebuild),
    el("th", { scope: "col", class: "board-plot" }, el("span", { class: "visually-hidden" }, "Score with its interval"), scale ? scaleHead(scale) : null),
    ...columns.slice(1).map((column) => columnHead(column, state, rebuild)),
  );
  const box = { class: "scroll-box board-box", role: "region", tabindex: "0", "aria-label": "Leaderboard", "data-keep": "leaderboard" };
  const caption = el("caption", { class: "visually-hidden" }, "Leaderboard");
  const body = sorted.map((line) => boardRow(board, line, columns, scale));
  return el("div", box, el("table", { class: "plain-table board-table" }, caption, el("thead", {}, head), el("tbody", {}, ...body)));
}

/** The head of a column: a button that sorts by it, and turns the order when it does already. */
function columnHead(column, state, rebuild) {
  const isSorted = state.sort?.name === column.name;
  const sort = () => {
    state.sort = { name: column.name, descending: isSorted ? !state.sort.descending : Boolean(column.most) };
    rebuild();
  };
  const mark = isSorted ? (state.sort.descending ? " ↓" : " ↑") : "";
  const order = isSorted ? (state.sort.descending ? "descending" : "ascending") : "none";
  const button = { type: "button", class: "sort-button", title: column.hint ?? null, "data-keep": `sort ${column.name}`, on: { click: sort } };
  return el("th", { scope: "col", class: "number", "aria-sort": order }, el("button", button, column.title, el("span", { "aria-hidden": "true" }, mark)));
}

/** The lines in the order of a column, those without a number last; null: the best first, as compare has them. */
function sortedLines(lines, columns, sort) {
  const column = columns.find((each) => each.name === sort?.name);
  if (!column) return lines;
  const sign = sort.descending ? -1 : 1;
  return [...lines].sort((a, b) => {
    const [x, y] = [column.sort(a), column.sort(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return sign * (x - y);
  });
}

/** One line of the leaderboard. */
function boardRow(board, line, columns, scale) {
  const isBaseline = board.words.baseline === line.place;
  const cell = (column) => el("td", { class: "number" }, textNode(column.text(line)));
  const badge = isBaseline ? el("span", { class: "badge", title: "The other lines are compared with this one" }, "baseline") : null;
  return el(
    "tr",
    { class: isBaseline ? "is-baseline" : null },
    el("th", { scope: "row", class: "board-name" }, el("span", { class: "line-name" }, lineSign(line), el("span", {}, textNode(line.name))), badge),
    cell(columns[0]),
    el("td", { class: "board-plot" }, scale ? intervalPlot(line, scale) : null),
    ...columns.slice(1).map(cell),
  );
}

/** The scale that all lines of the leaderboard share: round ends around all intervals; null where nothing has a score. */
function boardScale({ figures, lines }) {
  const values = lines.flatMap(({ score }) => [score.score, score.precision?.interval?.low, score.precision?.interval?.high]).filter((each) => !isMissing(each));
  if (!values.length) return null;
  const step = niceStep(Math.min(...values), Math.max(...values), 4);
  let [low, high] = [Math.floor(Math.min(...values) / step) * step, Math.ceil(Math.max(...values) / step) * step];
  if (figures.is_bounded) [low, high] = [Math.max(0, low), Math.min(1, high)];
  return { low, high: high > low ? high : low + step, step };
}

/** A round step that cuts a range into about this number of parts. */
function niceStep(low, high, parts) {
  const rough = (high - low || Math.abs(high) || 1) / parts;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5].find((each) => each * power >= rough) ?? 10);
}

/** The place of a value in the plot of a line. */
function plotPlace(value, { low, high }) {
  return PLOT_PAD + ((value - low) / (high - low)) * (PLOT_WIDTH - 2 * PLOT_PAD);
}

/** The ends of the scale, above the plots. */
function scaleHead(scale) {
  const digits = decimalsOf(scale.step);
  return el("span", { class: "scale-head", "aria-hidden": "true" }, el("span", {}, scale.low.toFixed(digits)), el("span", {}, scale.high.toFixed(digits)));
}

/** The dot of a line's score on its interval. */
function intervalPlot(line, scale) {
  const { score, precision } = line.score;
  if (score === null) return null;
  const words = line.cells.interval === "-" ? "" : `, 95 % interval ${line.cells.interval.replace(" ", " to ")}`;
  const middle = PLOT_HEIGHT / 2;
  const guides = [scale.low, (scale.low + scale.high) / 2, scale.high].map((value) => svg("path", { class: "plot-guide", d: `M${plotPlace(value, scale)} 0V${PLOT_HEIGHT}` }));
  const ends = precision?.interval ? [precision.interval.low, precision.interval.high].map((end) => plotPlace(end, scale)) : null;
  const bar = ends ? coloredInterval(line, ...ends, middle) : null;
  const box = { class: "interval-plot", role: "img", "aria-label": `score ${line.cells.score}${words}`, viewBox: `0 0 ${PLOT_WIDTH} ${PLOT_HEIGHT}`, width: PLOT_WIDTH, height: PLOT_HEIGHT };
  return svg("svg", box, ...guides, bar, lineDot(line, plotPlace(score, scale), middle));
}

/** A level line with a short stroke at each end, in the colour of a line of the board. */
function coloredInterval(line, left, right, y) {
  const bar = svg("path", { class: "plot-interval", d: `M${left} ${y}H${right}M${left} ${y - 4}V${y + 4}M${right} ${y - 4}V${y + 4}` });
  bar.style.stroke = `var(--${lineColor(line)})`;
  return bar;
}

// ---- differences from the baseline

/** The differences from the baseline with their intervals, 0 marked; null where nothing is compared. */
function differencePart(board) {
  const { figures, words, evaluation } = board;
  if (!figures.comparisons.length) return null;
  const rows = figures.comparisons.map((each, i) => ({ each, said: words.comparisons[i], line: lineAt(board, words.comparisons[i].line) }));
  const table = {
    columns: ["line", "difference", "p", "Holm p", "test", "more questions", "in words"],
    rows: () => rows.map(({ said, line }) => [line.name, said.difference, said.p, said.p_holm, said.tested, said.needed, said.sentence]),
  };
  const told = rows.filter(({ each }) => each.p_holm !== null && each.p_holm < evaluation.significant).length;
  const gist = `${countOf(rows.length, "line")} against ${figures.baseline}: ${told ? `${told} ${told === 1 ? "differs" : "differ"} by more than chance explains` : "no difference is more than chance explains"} (Holm p below ${evaluation.significant}).`;
  const chart = chartBox(`Difference from ${visibleText(figures.baseline)}`, gist, (host, width) => host.append(differencePlot(rows, width)), table);
  const sentences = rows.slice(0, MAX_SENTENCES).map(({ said }) => el("li", {}, textNode(said.sentence)));
  if (rows.length > MAX_SENTENCES) sentences.push(el("li", { class: "muted" }, `${formatCount(rows.length - MAX_SENTENCES)} more in the table`));
  const power = words.precision ? el("p", { class: "muted" }, textNode(sentenceCase(`${words.precision}.`))) : null;
  return el("section", { class: "card evaluation-card" }, chart.node, el("ul", { class: "board-sentences" }, ...sentences), power);
}

/** A picture with a row for each comparison: name, interval around the difference, words. */
function differencePlot(rows, width) {
  const isNarrow = width < 420;
  const rowHeight = isNarrow ? 66 : 50;
  const [left, right] = [12, width - 12];
  const scale = differenceScale(rows, Math.max(2, Math.floor((right - left) / 80)));
  const at = (value) => left + ((value - scale.low) / (scale.high - scale.low)) * (right - left);
  const height = rows.length * rowHeight + 26;
  const picture = svg("svg", { class: "board-picture", viewBox: `0 0 ${width} ${height}`, width, height });
  for (const value of scale.ticks) {
    const isZero = Math.abs(value) < scale.step / 1e6;
    const pieces = rows.map((_, i) => `M${at(value)} ${(i + 1) * rowHeight - 30}v28`);
    picture.append(svg("path", { class: isZero ? "zero-line" : "plot-guide", d: pieces.join("") }));
    picture.append(axisText(at(value), height - 6, isZero ? "0" : signed(value, decimalsOf(scale.step)), width));
  }
  rows.forEach(({ each, said, line }, i) => {
    const top = i * rowHeight;
    const y = top + rowHeight - 16;
    const tested = `${said.difference}  ${each.p_holm === null ? "not tested" : `Holm p ${said.p_holm}`}`;
    const place = isNarrow ? { x: 2, y: top + 32 } : { x: width - 2, y: top + 15, "text-anchor": "end" };
    picture.append(svg("text", { class: "row-text halo", x: 20, y: top + 15 }, cutName(line.name, isNarrow ? width - 24 : width - 300)));
    picture.append(svg("text", { class: "row-text halo", ...place }, tested), lineDot(line, 8, top + 11));
    if (each.interval) picture.append(coloredInterval(line, at(each.interval.low), at(each.interval.high), y));
    picture.append(lineDot(line, at(each.difference), y));
  });
  return picture;
}

/** The scale of differences: 0 is always on it. */
function differenceScale(rows, parts) {
  const values = rows.flatMap(({ each }) => [each.difference, each.interval?.low, each.interval?.high]).filter((value) => !isMissing(value));
  const [least, most] = [Math.min(0, ...values), Math.max(0, ...values)];
  const step = niceStep(least, most, parts);
  const [low, high] = [Math.floor(least / step), Math.max(Math.ceil(most / step), Math.floor(least / step) + 1)];
  return { low: low * step, high: high * step, step, ticks: Array.from({ length: high - low + 1 }, (_, i) => (low + i) * step) };
}

/** A text below an axis, moved inwards where it would stand out of the picture. */
function axisText(x, y, text, width) {
  const half = text.length * 3.5 + 1;
  return svg("text", { class: "axis-text", x: Math.max(half, Math.min(width - half, x)), y, "text-anchor": "middle" }, text);
}

/** A number with its sign: +0.1, -0.2. */
function signed(value, digits) {
  return `${value > 0 ? "+" : ""}${value.toFixed(digits)}`;
}

/** A name without its middle, which fits into about this width in CSS pixels: its ends tell it apart. The table has it whole. */
function cutName(name, room) {
  const characters = Math.max(7, Math.floor(room / 7.2));
  const shown = visibleText(name);
  if (shown.length <= characters) return shown;
  const head = Math.ceil((characters - 1) * 0.55);
  return `${shown.slice(0, head)}…${shown.slice(shown.length - (characters - 1 - head))}`;
}

// ---- score against cost

/** Score against the cost of a row, with the front that no other line beats; null for fewer than two lines. */
function costPart(board) {
  if (board.lines.length < 2) return null;
  const points = board.lines
    .filter((line) => line.score.score !== null && line.spent.cost_usd !== null && line.spent.rows > 0)
    .map((line) => ({ line, x: Number(line.spent.cost_usd) / line.spent.rows, y: line.score.score, interval: line.score.precision?.interval ?? null }));
  const unknown = board.lines.length - points.length;
  if (!points.some((point) => point.x > 0)) return null;
  const front = paretoFront(points);
  const names = front.map((point) => visibleText(point.line.name)).join(", ");
  const gist = `On the front, where no other line is both cheaper and better: ${names}.${unknown ? ` ${countOf(unknown, "line")} without a known cost or score ${unknown === 1 ? "is" : "are"} not shown.` : ""}`;
  const table = {
    columns: ["line", "cost of a row", "cost", "score", "on the front"],
    rows: () => points.map(({ line, x }) => [line.name, formatUsd(x), line.cells.cost, line.cells.score, front.some((each) => each.line === line) ? "yes" : "no"]),
  };
  const chart = chartBox("Score against cost", gist, (host, width) => host.append(costPlot(board, points, front, width)), table);
  return el("section", { class: "card evaluation-card" }, chart.node);
}

/** The points that no other point beats in cost and score, the cheapest first. */
function paretoFront(points) {
  const ordered = [...points].sort((a, b) => a.x - b.x || b.y - a.y);
  let best = -Infinity;
  return ordered.filter((point) => point.y > best && ((best = point.y), true));
}

/** The picture of score against cost. */
function costPlot(board, points, front, width) {
  const height = width < 480 ? 300 : 340;
  const frame = { left: 52, right: width - 16, top: 12, bottom: height - 42 };
  const across = costAxis(points, frame);
  const scale = boardScale(board);
  const up = (value) => frame.bottom - ((value - scale.low) / (scale.high - scale.low)) * (frame.bottom - frame.top);
  const picture = svg("svg", { class: "board-picture", viewBox: `0 0 ${width} ${height}`, width, height });
  for (let i = 0; i <= Math.round((scale.high - scale.low) / scale.step); i++) {
    const value = scale.low + i * scale.step;
    picture.append(svg("path", { class: "plot-guide", d: `M${frame.left} ${up(value)}H${frame.right}` }));
    picture.append(svg("text", { class: "axis-text", x: frame.left - 8, y: up(value) + 4, "text-anchor": "end" }, value.toFixed(decimalsOf(scale.step))));
  }
  for (const value of across.ticks) {
    picture.append(svg("path", { class: "plot-guide", d: `M${across.at(value)} ${frame.top}V${frame.bottom}` }));
    picture.append(axisText(across.at(value), frame.bottom + 17, formatUsd(Number(value.toPrecision(6))), width));
  }
  picture.append(svg("text", { class: "axis-text", x: (frame.left + frame.right) / 2, y: height - 6, "text-anchor": "middle" }, `cost of a row${across.isLog ? " (logarithmic)" : ""}`));
  const placed = points.map((point) => ({ ...point, left: across.at(point.x), top: up(point.y) }));
  picture.append(frontLine(front, across.at, up, frame), ...placed.filter((point) => point.interval).map((point) => errorBar(point, up)));
  picture.append(...placed.map((point) => lineDot(point.line, point.left, point.top, 6)), ...pointLabels(placed, frame));
  return picture;
}

/** The axis of costs: `at(cost)` is a place, `ticks` are costs; logarithmic where they span much. */
function costAxis(points, frame) {
  const costs = points.map((point) => point.x);
  const [least, most] = [Math.min(...costs), Math.max(...costs)];
  const [begin, room] = [frame.left + 26, frame.right - frame.left - 52];
  if (least > 0 && most / least > LOG_FROM) {
    const [low, high] = [Math.log10(least), Math.log10(most)];
    const powers = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, i) => 10 ** (Math.floor(low) + i));
    const at = (cost) => begin + ((Math.log10(cost) - low) / (high - low)) * room;
    const ticks = (powers.length > 4 ? powers : powers.flatMap((each) => [each, 3 * each])).filter((each) => at(each) >= frame.left && at(each) <= frame.right);
    return { at, ticks: thinned(ticks, at), isLog: true };
  }
  const step = niceStep(0, most, Math.max(2, Math.floor(room / 110)));
  const high = Math.ceil(most / step) * step;
  const at = (cost) => frame.left + (cost / high) * (frame.right - frame.left - 26);
  return { at, ticks: Array.from({ length: Math.round(high / step) + 1 }, (_, i) => i * step), isLog: false };
}

/** Ticks of which each has room for its text. */
function thinned(ticks, at) {
  let last = -Infinity;
  return ticks.filter((tick) => at(tick) - last >= 72 && ((last = at(tick)), true));
}

/** The front as steps: up to each cost, the best score that it buys. */
function frontLine(front, across, up, frame) {
  const steps = front.map((point, i) => (i ? `H${across(point.x)}V${up(point.y)}` : `M${across(point.x)} ${up(point.y)}`));
  return svg("path", { class: "front-line", d: `${steps.join("")}H${frame.right}` });
}

/** The interval of a point, upright. */
function errorBar(point, up) {
  const bar = svg("path", { class: "plot-interval thin", d: `M${point.left} ${up(point.interval.low)}V${up(point.interval.high)}` });
  bar.style.stroke = `var(--${lineColor(point.line)})`;
  return bar;
}

/** A name for each point, where there is room beside it: right, left, above, below, or a little away from it. */
function pointLabels(points, frame) {
  const taken = points.map((point) => ({ left: point.left - 7, right: point.left + 7, top: point.top - 7, bottom: point.top + 7 }));
  return points.map((point) => {
    const name = cutName(point.line.name, Math.min(190, (frame.right - frame.left) * 0.55));
    const size = name.length * 7 + 4;
    const places = [-13, 13, 0, -28, 28, -42, 42].flatMap((away) => [
      { left: point.left + 11, top: point.top - LABEL_HEIGHT / 2 + away },
      { left: point.left - 11 - size, top: point.top - LABEL_HEIGHT / 2 + away },
    ]);
    const boxes = places.map((each) => ({ ...each, right: each.left + size, bottom: each.top + LABEL_HEIGHT }));
    const inside = boxes.filter((box) => box.left >= frame.left - 40 && box.right <= frame.right + 14 && box.top >= 0 && box.bottom <= frame.bottom);
    const free = inside.find((box) => !taken.some((other) => box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top));
    const box = free ?? inside[0] ?? boxes[0];
    taken.push(box);
    return svg("text", { class: "row-text halo", x: box.left, y: box.top + LABEL_HEIGHT - 4 }, name);
  });
}

// ---- tables

/** A table of texts, the first row of which is its head, in a box of its own. */
function wordsTable(title, rows) {
  const [columns, ...body] = rows;
  const filled = body.map((row) => [...row, ...Array(columns.length - row.length).fill("")]);
  const table = textTable(columns.map((each) => each || "line"), filled);
  table.className = "plain-table words-table";
  return el("div", { class: "scroll-box", role: "region", tabindex: "0", "aria-label": title, "data-keep": `box ${title}` }, table);
}

/** Such a table that opens below its title; null where it has no rows. */
function foldedTable(title, rows) {
  if (!rows.length) return null;
  return el("details", { class: "card evaluation-card", "data-keep": `folded ${title}` }, el("summary", {}, el("h3", {}, title)), wordsTable(title, rows));
}
