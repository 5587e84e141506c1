// Which rows are shown: the choice of words, ranges and one row of the input, and the search over all text.

/** Terms beyond this many of a query are not searched. */
const MOST_TERMS = 16;

/** What the reader has chosen. All parts must hold for a row; an empty choice holds for all rows. */
class Filters {
  constructor() {
    this.clear();
  }

  /** Shows all rows again. */
  clear() {
    this.query = "";
    this.words = new Map(); // column -> the words of which one must be there; null stands for no word
    this.ranges = new Map(); // column -> [least, most], either may be null
    this.row = null; // a row of the input
    this.rowsOnly = null; // flags by row: what the search has found
  }

  /** Whether any row could be left out. */
  get isActive() {
    return Boolean(this.query.trim() || this.words.size || this.ranges.size || this.row !== null || this.rowsOnly);
  }

  /** The rows that are shown, in the order of the page. `except`: a column whose own filter does not count. */
  matches(store, except = null) {
    const keep = new Uint8Array(store.count).fill(1);
    for (const [name, chosen] of this.words) if (name !== except) keepWords(keep, store, name, chosen);
    for (const [name, range] of this.ranges) if (name !== except) keepRange(keep, store, name, range);
    if (this.row !== null) keepRange(keep, store, "row", [this.row, this.row]);
    const found = this.rowsOnly;
    if (found) for (let row = 0; row < keep.length; row += 1) keep[row] &= found[row] ?? 0;
    return flaggedRows(keep);
  }
}

/** The rows whose flag is set. */
function flaggedRows(flags) {
  const rows = new Uint32Array(flags.length);
  let count = 0;
  for (let row = 0; row < flags.length; row += 1) {
    rows[count] = row;
    count += flags[row];
  }
  return rows.slice(0, count);
}

/** Takes the flag from rows whose word is not among the chosen. */
function keepWords(keep, store, name, chosen) {
  const { values, words } = store.part(name) ?? { values: [], words: [] };
  const allowed = new Uint8Array(words.length + 1);
  allowed[0] = chosen.has(null) ? 1 : 0;
  for (const [index, word] of words.entries()) allowed[index + 1] = chosen.has(word) ? 1 : 0;
  for (let row = 0; row < keep.length; row += 1) keep[row] &= allowed[values[row] ?? 0];
}

/** Takes the flag from rows whose number is outside the range; rows without a number are outside. */
function keepRange(keep, store, name, [least, most]) {
  const values = store.part(name)?.values ?? [];
  const low = least ?? -Infinity;
  const high = most ?? Infinity;
  for (let row = 0; row < keep.length; row += 1) keep[row] &= values[row] >= low && values[row] <= high ? 1 : 0;
}

/** The terms of a query: words between blanks, and phrases in double quotes as they are. */
function queryTerms(query) {
  const found = [...query.matchAll(/"([^"]+)"?|([^\s"]+)/gu)].map(([, phrase, word]) => phrase ?? word);
  const terms = found.filter((term) => term.trim());
  if (!terms.length && query.trim()) terms.push(query.trim());
  return [...new Set(terms)].slice(0, MOST_TERMS);
}

/** A pattern that finds a term as it is, in upper and lower case of any script. */
function termPattern(term) {
  return new RegExp(term.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "giu");
}

/** The constant texts of a frame: those of the job's own templates. */
function frameTexts(frame) {
  return (frame?.messages ?? []).flatMap((message) => message.parts.flatMap(({ text }) => (text ? [text] : [])));
}

/**
 * One search. A row is found where each term is in one of its texts, short values or words, or in a constant text of
 * its prompt, without regard to case, as the page holds them. A number also finds rows that have exactly this number
 * as row, input or typed answer. A hit lies within one cell.
 */
class RowSearch {
  constructor(store, query) {
    this.store = store;
    this.count = store.count;
    this.chunks = store.starts.length;
    this.terms = queryTerms(query).map((term) => ({
      pattern: termPattern(term),
      number: /^[-+]?[\d.]+(e[-+]?\d+)?$/i.test(term) ? Number(term) : NaN,
      hits: new Uint8Array(this.count),
    }));
  }

  /** Flags by row, 1 where all terms are found. `fromChunk`: earlier chunks are left out, their flags are 0. */
  async run({ signal, onProgress, fromChunk = 0 } = {}) {
    let turn = performance.now();
    this.#searchShort(this.store.starts[fromChunk] ?? this.count);
    for (let chunk = fromChunk; chunk < this.chunks; chunk += 1) {
      const block = await this.store.blocks.scan(chunk);
      signal?.throwIfAborted();
      for (const term of this.terms) searchBlock(block, this.store.starts[chunk], term);
      if (performance.now() - turn > TURN_MS) {
        onProgress?.(chunk + 1, this.chunks);
        await nextTurn();
        signal?.throwIfAborted();
        turn = performance.now();
      }
    }
    return this.#inAll();
  }

  /** Searches what is there without decompressing: short texts, words, numbers, constant texts. */
  #searchShort(first) {
    for (const { name, kind, group } of this.store.columns) {
      const { values, words } = this.store.part(name);
      for (const { pattern, number, hits } of this.terms) {
        if (kind === "word") flagWords(values, words.map((word) => isFound(pattern, word)), first, hits);
        else if (kind === "short") flagShort(values, pattern, first, hits);
        else if (kind === "number" && (group === "input" || group === "typed" || name === "row")) {
          if (!Number.isNaN(number)) flagNumbers(values, number, first, hits);
        }
      }
    }
    const frames = this.store.part("frame")?.values;
    if (!frames) return;
    const texts = this.store.meta.frames.map(frameTexts);
    for (const { pattern, hits } of this.terms) {
      const has = texts.map((each) => each.some((text) => isFound(pattern, text)));
      for (let row = first; row < this.count; row += 1) if (has[frames[row]]) hits[row] = 1;
    }
  }

  #inAll() {
    const [first, ...others] = this.terms;
    const all = first ? first.hits : new Uint8Array(this.count).fill(1);
    for (const { hits } of others) for (let row = 0; row < this.count; row += 1) all[row] &= hits[row];
    return all;
  }
}

/** Whether a text has the pattern, from its beginning. */
function isFound(pattern, text) {
  pattern.lastIndex = 0;
  return pattern.test(text);
}

/** Flags the rows whose word is found. */
function flagWords(codes, isFoundWord, first, hits) {
  if (!isFoundWord.includes(true)) return;
  for (let row = first; row < hits.length; row += 1) if (isFoundWord[codes[row] - 1]) hits[row] = 1;
}

/** Flags the rows whose short text is found. */
function flagShort(values, pattern, first, hits) {
  for (let row = first; row < hits.length; row += 1) {
    if (!hits[row] && values[row] !== null && isFound(pattern, values[row])) hits[row] = 1;
  }
}

/** Flags the rows that have exactly this number. */
function flagNumbers(values, number, first, hits) {
  for (let row = first; row < hits.length; row += 1) if (values[row] === number) hits[row] = 1;
}

/** Flags the rows of a block with a hit that lies within one text; the block's first row is row `first` of the page. */
function searchBlock(block, first, { pattern, hits }) {
  const { text, starts, names } = block;
  const width = names.length;
  const extras = names.indexOf("more");
  let cell = 0;
  pattern.lastIndex = 0;
  for (let match = pattern.exec(text); match; match = pattern.exec(text)) {
    while (starts[cell + 1] <= match.index) cell += 1;
    const row = Math.floor(cell / width);
    if (cell % width !== extras && pattern.lastIndex <= starts[cell + 1]) {
      hits[first + row] = 1;
      pattern.lastIndex = starts[(row + 1) * width];
    } else {
      pattern.lastIndex = match.index + (text.codePointAt(match.index) > 0xffff ? 2 : 1);
    }
  }
  if (block.hasExtras) searchExtras(block, first, pattern, hits);
}

/** Flags the rows whose exact values or own frame have the pattern: their JSON is read, so that escapes don't hide it. */
function searchExtras(block, first, pattern, hits) {
  for (let row = 0; row < block.rows; row += 1) {
    const more = hits[first + row] ? null : block.more(row);
    if (!more) continue;
    const texts = [...Object.values(more.full ?? {}), ...frameTexts(more.frame)];
    if (texts.some((text) => isFound(pattern, text))) hits[first + row] = 1;
  }
}
