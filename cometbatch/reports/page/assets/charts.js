// Charts of the page: a box with a picture, its gist and its numbers, and series over time, drawn by uPlot.

const CHART_HEIGHT = 190; // CSS pixels, axes included
const FINE_TICK_SPACE = 88; // CSS pixels between two moments of an axis: room for "19:05:01.25"
const TICK_SPACE = 52; // the same where moments are whole minutes or days: room for "19:05" and "30 Nov"
const HATCH_TILE = 6; // CSS pixels, the side of the tile that hatched bars repeat
const BAR_GAP_FROM = 4; // CSS pixels; bars that are narrower touch each other
const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const SHORTEST_RATED_HOURS = 0.1; // a shorter run's cost per hour says nothing
const MOMENT_STEPS = [
  ...[1, 2, 5, 10, 20, 50, 100, 200, 500],
  ...[1, 2, 5, 10, 15, 30].map((n) => n * SECOND_MS),
  ...[1, 2, 5, 10, 15, 30].map((n) => n * MINUTE_MS),
  ...[1, 2, 3, 6, 12].map((n) => n * HOUR_MS),
  ...[1, 2, 7, 14, 30, 90, 365].map((n) => n * DAY_MS),
]; // ms between two moments of an axis
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** The boxes that are on the page, each put there in the turn in which it was made; those that were taken off leave at the next drawing. */
const liveCharts = new Set();

/** Draws at each change of a box's width, of theme and medium. */
function watchDrawing(node, draw) {
  const chart = { node, redraw: draw, end };
  const watcher = new ResizeObserver(() => (node.isConnected ? draw() : end()));
  /** Ends the watching. */
  function end() {
    watcher.disconnect();
    liveCharts.delete(chart);
  }
  watcher.observe(node);
  liveCharts.add(chart);
}

/** The colour that a token of the page has now, as a canvas takes it: `themeColor("c1")`, `themeColor("muted")`. */
function themeColor(name) {
  const probe = el("span", { hidden: true });
  if (!["text", "muted", "line"].includes(name)) probe.style.forcedColorAdjust = "none"; // the system's own colours can't tell series or scores apart
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}

/** Draws every chart of the page again: after a change of light and dark, which printing is, too. */
function redrawCharts() {
  for (const chart of liveCharts) {
    if (chart.node.isConnected) chart.redraw();
    else chart.end();
  }
}

/** Draws the charts that have just come onto the page, before the browser shows it, and forgets those that have left it. */
function drawNewCharts() {
  for (const chart of liveCharts) {
    if (!chart.node.isConnected) chart.end();
    else if (!chart.isDrawn()) chart.redraw();
  }
}

/**
 * A figure: title, one sentence, picture, and the numbers as a table that opens below it.
 * `gist`: what the picture shows, in a sentence; it is the picture's text for screen readers. `draw(host, width)` fills the empty
 * `host`, `width` CSS pixels wide, with the colours of now, and may return a function that ends what it made. It is called at
 * each change of width, theme or medium. `table`: `{columns: [texts], rows: () => [[texts], ..]}`, or null where the numbers stand elsewhere.
 * Returns `{node, redraw(), end(), isDrawn()}`; a node that is taken off the page needs no `end()`.
 */
function chartBox(title, gist, draw, table) {
  const host = el("div", { class: "chart-host", role: "img", "aria-label": visibleText(gist) });
  const node = el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el("h3", {}, textNode(title)), el("p", { class: "chart-gist", "aria-hidden": "true" }, textNode(gist))),
    host,
    table === null ? null : chartTable(title, table),
  );
  let finish = null;
  let width = 0;
  const chart = { node, redraw, end, isDrawn: () => width > 0 };

  /** Draws anew at the width that the host has; a host that is not shown waits until it is. */
  function redraw() {
    width = Math.floor(host.clientWidth);
    finish?.();
    finish = null;
    clear(host);
    if (width > 0) finish = draw(host, width) ?? null;
  }

  /** Ends the drawing and the watching of the width. */
  function end() {
    watcher.disconnect();
    liveCharts.delete(chart);
    finish?.();
    finish = null;
  }

  const watcher = new ResizeObserver(() => {
    if (!node.isConnected) end();
    else if (Math.floor(host.clientWidth) !== width) requestAnimationFrame(redraw);
  });
  watcher.observe(host);
  liveCharts.add(chart);
  return chart;
}

/** The numbers of a chart behind a summary; the table is built when it is first opened. */
function chartTable(title, table) {
  const label = `${visibleText(title)}: numbers`;
  const box = el("div", { class: "chart-numbers", role: "region", tabindex: "0", "aria-label": label, "data-keep": label });
  const details = el(
    "details",
    { "data-keep": `open ${label}` },
    el("summary", { "data-keep": `show ${label}` }, "The numbers as a table"),
    box,
  );
  details.addEventListener("toggle", () => {
    if (details.open && !box.firstChild) box.append(textTable(table.columns, table.rows()));
  });
  return details;
}

/** A plain table of texts; the first column heads its rows. */
function textTable(columns, rows) {
  const head = el("tr", {}, ...columns.map((each) => el("th", { scope: "col" }, textNode(each))));
  const body = rows.map(([first, ...rest]) =>
    el("tr", {}, el("th", { scope: "row" }, textNode(first)), ...rest.map((each) => el("td", {}, textNode(each)))),
  );
  return el("table", {}, el("thead", {}, head), el("tbody", {}, ...body));
}

/**
 * Draws series over time into `host`, with a legend that reads out the values under the pointer. Returns a function that ends it.
 * `spec`: `{x: [moments in ms], span: [first ms, last ms], step_ms, format(value) -> text, tick(value, decimals) -> text, series: [SERIES, ..]}`.
 * SERIES: `{name, values: [number|null, ..], color: token, kind: "line"|"area"|"bars", dashed, hatched, base: [..]|undefined}`;
 * `base`: where bars begin, of bars that stand on others.
 */
function timeChart(host, width, spec) {
  const readout = legendOf(spec);
  const field = el("div", { class: "chart-field" });
  host.append(readout.node, field);
  const options = {
    width,
    height: CHART_HEIGHT,
    padding: [8, spec.step_ms < SECOND_MS ? 36 : 24, 0, 0],
    ms: 1,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: spec.series[0].kind === "bars" ? { show: false } : { size: 7 } },
    scales: { x: { time: true, range: () => spec.span }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
    axes: [momentAxis(), valueAxis(spec.tick)],
    series: [{}, ...spec.series.map((each) => drawnSeries(each, spec.step_ms))],
    hooks: { setCursor: [(plot) => readout.show(plot.cursor.idx ?? null)] },
  };
  const tops = spec.series.map((each) => (each.base ? each.values.map((value, i) => value + each.base[i]) : each.values));
  const plot = new uPlot(options, [spec.x, ...tops], field);
  return () => plot.destroy();
}

/** How uPlot is to draw one series. */
function drawnSeries(series, stepMs) {
  const color = themeColor(series.color);
  if (series.kind === "bars") {
    const fill = series.hatched ? hatchOf(color) : color;
    return { stroke: color, width: 0, fill: () => fill, paths: barPaths(series.base, stepMs), points: { show: false } };
  }
  return {
    stroke: color,
    width: 2,
    dash: series.dashed ? [6, 4] : undefined,
    fill: series.kind === "area" ? faded(color) : undefined,
    points: { show: true, size: 6, width: 1, stroke: color, fill: color, filter: (plot, index) => lonelyPoints(plot.data[index]) },
  };
}

/** A colour, at a sixth of its strength. */
function faded(color) {
  return `color-mix(in srgb, ${color} 16%, transparent)`;
}

/** The places of the values without a neighbour, which no line shows. */
function lonelyPoints(values) {
  const isThere = (i) => values[i] !== null && values[i] !== undefined;
  return [...values.keys()].filter((i) => isThere(i) && !isThere(i - 1) && !isThere(i + 1));
}

/** Stripes of a colour, so that bars are told apart without it. */
function hatchOf(color) {
  const side = Math.round(HATCH_TILE * devicePixelRatio);
  const tile = new OffscreenCanvas(side, side);
  const pen = tile.getContext("2d");
  pen.strokeStyle = color;
  pen.lineWidth = side / 3;
  for (const shift of [-side, 0, side]) {
    pen.moveTo(shift, side);
    pen.lineTo(shift + side, 0);
  }
  pen.stroke();
  return pen.createPattern(tile, "repeat");
}

/** Bars that fill their step of time; `base`: where each begins, 0 without. */
function barPaths(base, stepMs) {
  return (plot, index, from, to) => {
    const fill = new Path2D();
    const [moments, tops] = [plot.data[0], plot.data[index]];
    const across = (moment) => Math.round(plot.valToPos(moment, "x", true));
    const up = (value) => Math.round(plot.valToPos(value, "y", true));
    for (let i = from; i <= to; i++) {
      const low = base ? base[i] : 0;
      if (tops[i] === null || !(tops[i] > low)) continue;
      const [left, right, top] = [across(moments[i] - stepMs / 2), across(moments[i] + stepMs / 2), up(tops[i])];
      const gap = right - left >= BAR_GAP_FROM * devicePixelRatio ? devicePixelRatio : 0;
      fill.rect(left, top, Math.max(right - left - gap, 1), Math.max(up(low) - top, 1));
    }
    return { stroke: null, fill, clip: null, flags: 0 };
  };
}

/** The axis of moments, in the page's time. */
function momentAxis() {
  return { ...axisStyle(), space: momentSpace, incrs: MOMENT_STEPS, size: 44, values: (_, moments, __, ___, step) => momentTicks(moments, step) };
}

/** How many CSS pixels two moments of an axis need: few where the step that then fits is of whole minutes. */
function momentSpace(_plot, _axis, from, to, pixels) {
  const fitting = MOMENT_STEPS.find((step) => (step / (to - from)) * pixels >= TICK_SPACE);
  return fitting < MINUTE_MS ? FINE_TICK_SPACE : TICK_SPACE;
}

/** The axis of values; `tick` writes one with as many decimals as the step between two needs. */
function valueAxis(tick) {
  return {
    ...axisStyle(),
    space: 34,
    values: (_, values, __, ___, step) => values.map((value) => tick(value, decimalsOf(step))),
    size: (plot, texts) => Math.max(44, 14 + textWidth(plot, texts ?? [])),
  };
}

/** What both axes look like now. */
function axisStyle() {
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const line = { stroke: themeColor("line"), width: 1 };
  return { stroke: themeColor("muted"), font, grid: line, ticks: { ...line, size: 5 } };
}

/** The width of the widest of some texts, in CSS pixels. */
function textWidth(plot, texts) {
  plot.ctx.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  return Math.ceil(Math.max(0, ...texts.map((each) => plot.ctx.measureText(each).width)));
}

/** How many decimals a number needs to show steps of this size, like 0.25. */
function decimalsOf(step) {
  let decimals = 0;
  while (decimals < 15 && Math.abs(step - Number(step.toFixed(decimals))) > step * 1e-6) decimals++;
  return decimals;
}

/** Two digits of a number below 100. */
function twoDigits(number) {
  return String(number).padStart(2, "0");
}

/** The texts of an axis's moments: time of day as fine as the step; the day below the first and where it changes. */
function momentTicks(moments, step) {
  let lastDay = "";
  return moments.map((ms) => {
    const date = new Date(ms);
    const day = `${date.getDate()} ${MONTHS[date.getMonth()]}`;
    if (step >= DAY_MS) return lastDay === (lastDay = String(date.getFullYear())) ? day : `${day}\n${lastDay}`;
    const time = timeOfDay(date, step);
    return lastDay === (lastDay = day) ? time : `${time}\n${day}`;
  });
}

/** The time of day, as fine as the step between two (ms). */
function timeOfDay(date, step) {
  const minutes = `${twoDigits(date.getHours())}:${twoDigits(date.getMinutes())}`;
  if (step >= MINUTE_MS) return minutes;
  const seconds = `${minutes}:${twoDigits(date.getSeconds())}`;
  if (step >= SECOND_MS) return seconds;
  return `${seconds}.${String(date.getMilliseconds())
    .padStart(3, "0")
    .slice(0, decimalsOf(step / SECOND_MS))}`;
}

/** The legend of a chart: each series' sign and name, and the values at one place: `{node, show(place or null)}`. */
function legendOf(spec) {
  const moment = el("span", { class: "chart-moment" });
  const values = spec.series.map(() => el("span", { class: "chart-value" }));
  const entries = spec.series.map((each, i) =>
    el("span", { class: "chart-entry" }, seriesSign(each), el("span", { class: "chart-name" }, textNode(each.name)), values[i]),
  );
  const node = el("div", { class: "chart-legend", "aria-hidden": "true" }, ...entries, moment);
  /** Shows what the series are at a place of `x`; where there is little room, in place of their names. */
  const show = (place) => {
    node.classList.toggle("reading", place !== null);
    const step = spec.step_ms < SECOND_MS ? spec.step_ms : SECOND_MS;
    moment.textContent = place === null ? "" : timeOfDay(new Date(spec.x[place]), step);
    values.forEach((node, i) => {
      const value = place === null ? undefined : spec.series[i].values[place];
      node.textContent = value === undefined ? "" : value === null ? "none" : spec.format(value);
    });
  };
  return { node, show };
}

/** The sign of a series in a legend: a line, a dashed line, a field or a hatched field. */
function seriesSign(series) {
  const sign = svg("svg", { class: "chart-sign", viewBox: "0 0 22 10", width: "22", height: "10" });
  if (series.kind === "bars") {
    const field = svg("rect", { x: "1", y: "0", width: "20", height: "10" });
    field.style.fill = series.hatched ? "none" : `var(--${series.color})`;
    field.style.stroke = `var(--${series.color})`;
    const stripes = series.hatched ? svg("path", { d: "M2 10L12 0M8 10L18 0M14 10L21 3" }) : null;
    if (stripes) Object.assign(stripes.style, { stroke: `var(--${series.color})`, strokeWidth: "2" });
    sign.append(field, ...(stripes ? [stripes] : []));
    return sign;
  }
  const line = svg("path", { d: "M0 5H22" });
  Object.assign(line.style, { stroke: `var(--${series.color})`, strokeWidth: "2", strokeDasharray: series.dashed ? "6 4" : "none" });
  sign.append(line);
  return sign;
}

// ---- the run over time

/** A box that says why there is no chart. */
function absentBox(title, words) {
  return el("div", { class: "card" }, el("h3", {}, title), el("p", { class: "muted" }, words));
}

/** A chart in its card. */
function chartCard(title, gist, draw, table) {
  return el("div", { class: "card" }, chartBox(title, gist, draw, table).node);
}

/** The middle of each step of a series, in ms; the span of all. */
function stepsOf(series) {
  const step = series.step_s * 1000;
  const x = series.succeeded.map((_, i) => series.begin_ms + (i + 0.5) * step);
  return { x, step_ms: step, span: [series.begin_ms, series.begin_ms + x.length * step] };
}

/** When each step of a series begins, as text. */
function stepMoment(series, i) {
  const ms = series.begin_ms + i * series.step_s * 1000;
  return series.step_s < 1 ? `${formatMoment(ms)}.${String(Math.floor(ms % 1000)).padStart(3, "0")}` : formatMoment(ms);
}

/** The same without the day, where all steps are of one day. */
function stepTime(series, i) {
  const [first, last, words] = [0, series.succeeded.length, i].map((each) => stepMoment(series, each));
  return first.slice(0, 10) === last.slice(0, 10) ? words.slice(11) : words;
}

/** A rate in rows per second, for people. */
function rateText(rate) {
  const digits = rate < 100 ? { maximumSignificantDigits: 3 } : { maximumFractionDigits: 0 };
  return `${rate.toLocaleString("en-US", digits)} rows/s`;
}

/** A number of an axis, with the decimals that its steps need. */
function tickText(value, decimals) {
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

/** Rows per second: those that succeeded, and the others on top of them. */
function throughputBox(series) {
  const rates = (counts) => counts.map((n) => n / series.step_s);
  const [good, others] = [rates(series.succeeded), rates(series.others)];
  const totals = good.map((rate, i) => rate + others[i]);
  const rows = [...series.succeeded, ...series.others].reduce((sum, n) => sum + n, 0);
  const peak = totals.reduce((best, rate, i) => (rate > totals[best] ? i : best), 0);
  const mean = rows / (series.step_s * totals.length);
  const failed = series.others.reduce((sum, n) => sum + n, 0);
  const gist =
    `${countOf(rows, "row")}, ${failed ? formatCount(failed) : "none"} of them incomplete or failed; ` +
    `${rateText(mean)} on average, peak ${rateText(totals[peak])} at ${stepTime(series, peak)}.`;
  const drawn = [
    { name: "succeeded", values: good, color: "c1", kind: "bars" },
    ...(failed ? [{ name: "incomplete or failed", values: others, base: good, color: "c2", kind: "bars", hatched: true }] : []),
  ];
  const spec = { ...stepsOf(series), format: rateText, tick: (value, decimals) => `${tickText(value, decimals)}/s`, series: drawn };
  const lines = () =>
    totals.map((rate, i) => [stepMoment(series, i), formatCount(series.succeeded[i]), formatCount(series.others[i]), rateText(rate)]);
  return chartCard("Throughput", gist, (host, width) => timeChart(host, width, spec), {
    columns: ["From", "Succeeded", "Others", "Rows per second"],
    rows: lines,
  });
}

/** Seconds from sending to answer: the median, and what 95 of 100 stay below. */
function latencyBox(series) {
  const medians = series.p50_s.filter((value) => value !== null);
  if (medians.length === 0) return absentBox("Latency", "No row says how long it took, so there is nothing to draw.");
  const most = Math.max(...series.p95_s.filter((value) => value !== null), 0);
  const [low, high] = [Math.min(...medians), Math.max(...medians)].map(formatSeconds);
  const gist =
    `Median ${low === high ? low : `between ${low} and ${high}`}; ` +
    `95th percentile at most ${formatSeconds(most)}, at ${stepTime(series, series.p95_s.indexOf(most))}.`;
  const drawn = [
    { name: "median", values: series.p50_s, color: "c1", kind: "line" },
    { name: "95th percentile", values: series.p95_s, color: "c2", kind: "line", dashed: true },
  ];
  const spec = { ...stepsOf(series), format: formatSeconds, tick: (value, decimals) => `${tickText(value, decimals)} s`, series: drawn };
  const words = (value) => (value === null ? "none" : formatSeconds(value));
  const lines = () => series.p50_s.map((value, i) => [stepMoment(series, i), words(value), words(series.p95_s[i])]);
  return chartCard("Latency", gist, (host, width) => timeChart(host, width, spec), {
    columns: ["From", "Median", "95th percentile"],
    rows: lines,
  });
}

/** What had been spent at each moment. */
function costBox(series, sources) {
  const values = [0, ...series.cost_usd];
  const total = values.at(-1);
  const { step_ms, span } = stepsOf(series);
  const x = values.map((_, i) => series.begin_ms + i * step_ms);
  const bound = sources.some(({ cost }) => cost.usd === null || cost.unpriced || cost.at_least) ? "At least " : "";
  const hours = (span[1] - span[0]) / HOUR_MS;
  const hourly = hours >= SHORTEST_RATED_HOURS ? `, ${formatUsd(total / hours)} an hour on average` : "";
  const gist = `${bound}${formatUsd(total)} in all by ${stepTime(series, values.length - 1)}${hourly}.`;
  const drawn = [{ name: "cost so far", values, color: "c3", kind: "area" }];
  const spec = { x, span, step_ms, format: formatUsd, tick: (value, decimals) => `$${tickText(value, decimals)}`, series: drawn };
  const lines = () => series.cost_usd.map((value, i) => [stepMoment(series, i + 1), formatUsd(value)]);
  return chartCard("Cost", gist, (host, width) => timeChart(host, width, spec), { columns: ["By", "Cost so far"], rows: lines });
}
