// Elements and words: every node of the page is made here, and every text of data passes through visibleText.

/** What an element may not be given: markup, scripts and addresses have no way into the page. */
const FORBIDDEN_ATTRIBUTE = /^(on.+|style|src|srcset|srcdoc|action|formaction|data|ping|background|poster|xlink:href)$/i;

/** Letters that join: after them the zero-width (non-)joiner belongs to spelling, or to a composed emoji. */
const JOINS =
  "\\p{Extended_Pictographic}\\p{Emoji_Modifier}\\uFE0F\\p{Script=Arabic}\\p{Script=Syriac}\\p{Script=Nko}\\p{Script=Mongolian}" +
  "\\p{Script=Devanagari}\\p{Script=Bengali}\\p{Script=Gurmukhi}\\p{Script=Gujarati}\\p{Script=Oriya}\\p{Script=Tamil}" +
  "\\p{Script=Telugu}\\p{Script=Kannada}\\p{Script=Malayalam}\\p{Script=Sinhala}\\p{Script=Khmer}\\p{Script=Myanmar}";

/** Characters that nobody sees or that reorder others: controls, bidi marks, zero-width marks, fillers, tags, lone surrogates. */
const UNSEEN = new RegExp(
  "[\\u0000-\\u0008\\u000B\\u000C\\u000E-\\u001F\\u007F-\\u009F\\u00AD\\u034F\\u061C\\u115F\\u1160\\u17B4\\u17B5\\u180B-\\u180F" +
    "\\u200B\\u200E\\u200F\\u2028-\\u202E\\u2060-\\u206F\\u2800\\u3164\\uFEFF\\uFFA0\\uFFF0-\\uFFFB\\u{1BCA0}-\\u{1BCA3}" +
    "\\u{1D173}-\\u{1D17A}\\u{E0000}-\\u{E0FFF}\\p{Surrogate}]" +
    `|\\r(?!\\n)|(?<![${JOINS}])[\\u200C\\u200D]`,
  "gu",
);

/** Each date and time is that of the reader's clock, with the zone in the page's subtitle. */
const MOMENT = new Intl.DateTimeFormat("en-GB", {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

const COUNT = new Intl.NumberFormat("en-US");

/** A character as an escape that can be seen, like \u{202e}. */
function escapeCharacter(character) {
  return `\\u{${character.codePointAt(0).toString(16)}}`;
}

/** A text in which each unseen or reordering character is an escape; line breaks and tabs stay. */
function visibleText(text) {
  return String(text).replace(UNSEEN, escapeCharacter);
}

/** A text node of a text that comes from data. */
function textNode(text) {
  return document.createTextNode(visibleText(text));
}

/** Puts attributes on a node; refuses those that could run, load or style something. */
function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (FORBIDDEN_ATTRIBUTE.test(name) || (name === "href" && !String(value).startsWith("#"))) {
      throw new Error(`the attribute ${name} is not allowed`);
    } else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
}

/** Puts children into a node: nodes as they are, lists in order, all else as visible text; null and false are left out. */
function appendChildren(node, children) {
  for (const child of children) {
    if (Array.isArray(child)) appendChildren(node, child);
    else if (child instanceof Node) node.append(child);
    else if (child !== null && child !== undefined && child !== false) node.append(textNode(child));
  }
}

/** An HTML element with attributes, listeners (`on`) and children. */
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  setAttributes(node, attributes);
  appendChildren(node, children);
  return node;
}

/** An SVG element with attributes, listeners (`on`) and children. */
function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(node, attributes);
  appendChildren(node, children);
  return node;
}

/** Removes all children of a node, and gives the node. */
function clear(node) {
  node.replaceChildren();
  return node;
}

/** Whether a value is nothing: null, undefined, NaN. */
function isMissing(value) {
  return value === null || value === undefined || Number.isNaN(value);
}

/** A count for people: 1,234. */
function formatCount(n) {
  return isMissing(n) ? "" : COUNT.format(n);
}

/** An amount in US dollars for people, rounded like the commands do: $12.35, $0.0123, $0.000025; $0 is exactly nothing. */
function formatUsd(amount) {
  if (isMissing(amount) || amount === "") return "";
  const value = Number(amount);
  if (value === 0) return "$0";
  const size = Math.abs(value);
  let decimals = 2;
  if (size < 1) decimals = size >= 0.0001 ? 4 : 1 - Math.floor(Math.log10(size));
  const options = { minimumFractionDigits: Math.min(decimals, 20), maximumFractionDigits: Math.min(decimals, 20) };
  return `${value < 0 ? "-" : ""}$${size.toLocaleString("en-US", options)}`;
}

/** The cost of a row, with three digits at least, so that rows differ where they do: $12.35, $0.0123, $0.000198. */
function threeDigitUsd(amount) {
  if (!amount) return formatUsd(amount);
  const size = Math.abs(amount);
  const decimals = Math.min(20, Math.max(2, 2 - Math.floor(Math.log10(size))));
  return `${amount < 0 ? "-" : ""}$${size.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals })}`;
}

/** A duration in seconds for people: 85 ms, 1.24 s, 12.3 s, 4 min 05 s, 2 h 03 min. */
function formatSeconds(seconds) {
  if (isMissing(seconds)) return "";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 99.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const pad = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${COUNT.format(Math.floor(whole / 3600))} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

/** A moment (ms since 1970) by the reader's clock: 2026-11-30 19:05:13. */
function formatMoment(ms) {
  if (isMissing(ms) || Number.isNaN(new Date(ms).getTime())) return "";
  const part = Object.fromEntries(MOMENT.formatToParts(ms).map(({ type, value }) => [type, value]));
  return `${part.year}-${part.month}-${part.day} ${part.hour}:${part.minute}:${part.second}`;
}

/** The short form of a cell for a table, by its column's kind and unit; "" for nothing. Give it to textContent or el. */
function formatCell(column, value) {
  if (isMissing(value)) return "";
  if (typeof value !== "number") return visibleText(value);
  if (column.unit === "usd") return threeDigitUsd(value);
  if (column.unit === "s") return formatSeconds(value);
  if (column.unit === "ms") return formatMoment(value);
  if (column.unit === "tokens") return formatCount(value);
  return String(value);
}

/** "1 row", "2 rows". */
function countOf(n, noun) {
  return `${formatCount(n)} ${noun}${n === 1 ? "" : "s"}`;
}

/** A word with a capital. */
function sentenceCase(word) {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

const STATUS_TONES = new Map([["succeeded", "good"], ["incomplete", "warn"], ["failed", "bad"]]);

/** The status of a call. */
function statusBadge(status) {
  return el("span", { class: `badge ${STATUS_TONES.get(status) ?? ""}` }, status);
}

/** Changes a node's content; what had the focus, was open or was scrolled is so again, known by its data-keep. */
function keepingPlace(node, change) {
  const kept = (inside) => inside.dataset.keep;
  const focused = node.contains(document.activeElement) ? kept(document.activeElement) : undefined;
  const opened = new Set([...node.querySelectorAll("details[open]")].map(kept));
  const places = [...node.querySelectorAll("[data-keep]")].map((each) => [kept(each), each.scrollLeft, each.scrollTop]);
  const scrolled = new Map(places.filter(([, left, top]) => left || top).map(([name, left, top]) => [name, { left, top }]));
  change();
  for (const each of node.querySelectorAll("[data-keep]")) {
    if (opened.has(kept(each))) {
      each.open = true;
      each.dispatchEvent(new Event("toggle")); // the browser's own comes too late: what it fills can't be scrolled yet
    }
    if (scrolled.has(kept(each))) each.scrollTo(scrolled.get(kept(each)));
    if (focused !== undefined && kept(each) === focused) each.focus({ preventScroll: true });
  }
}

/** The bytes of a base64 text. */
function bytesOfBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** The last name of a path, for lines with little room; a text that is no path as it is. */
function shortPath(path) {
  return /[^/\\]+(?=[/\\]?$)/.exec(path)?.[0] ?? path;
}

/** The names of the report's sources without their folders. */
function shortTitle({ sources, title }) {
  return sources.map(({ name }) => shortPath(name)).join(", ") || title;
}
