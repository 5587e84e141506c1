// The rows of the page. Short values lie in one array per column, over all rows; long texts stay compressed until
// somebody reads or searches them.

/** In a chunk: this cell is null. */
const NULL_CELL = 0xffffffff;
/** In a text blob: this cell's text is a part of the stored prompt; `more.from` says which. */
const PART_OF_PROMPT = 0xfffffffe;
/** Bytes of decoded text that the page keeps, so that the next search and the table need not decompress again. */
const CACHE_BYTES = 64e6;
/** Milliseconds of work after which a search lets the browser handle keys and draw. */
const TURN_MS = 24;

/** The bytes of a script element that carries a blob. The element's text goes: it would take memory twice. */
function takeBlob(script) {
  const bytes = bytesOfBase64(script.textContent);
  script.textContent = "";
  return bytes;
}

/** What a gzip member holds. Its last four bytes are the length of what it holds. */
async function gunzip(bytes) {
  const size = new DataView(bytes.buffer, bytes.byteOffset).getUint32(bytes.length - 4, true);
  const { readable, writable } = new DecompressionStream("gzip");
  const writer = writable.getWriter();
  const written = Promise.all([writer.write(bytes), writer.close()]);
  written.catch(() => {}); // the reader below fails with the same error
  const whole = new Uint8Array(size);
  const reader = readable.getReader();
  let at = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    whole.set(part.value, at);
    at += part.value.length;
  }
  return whole;
}

/** The JSON header of a decompressed blob, and where its arrays begin. */
function readHeader(bytes) {
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return { header, begin: (4 + length + 7) & ~7 };
}

/** Lets the browser handle events before work goes on. */
function nextTurn() {
  if (globalThis.scheduler?.yield) return scheduler.yield();
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      resolve();
    };
    channel.port2.postMessage(null);
  });
}

/** The short values of one column for all rows. Words are codes into a list of words; a text's value is its length. */
class ColumnValues {
  constructor(kind, capacity) {
    this.kind = kind;
    this.words = [];
    this.codes = new Map();
    this.values = this.#empty(capacity);
  }

  /** Values for this many rows, all null. */
  #empty(capacity) {
    if (this.kind === "number") return new Float64Array(capacity).fill(NaN);
    if (this.kind === "word") return new Uint32Array(capacity);
    if (this.kind === "text") return new Uint32Array(capacity).fill(NULL_CELL);
    return [];
  }

  /** Makes room for this many rows. */
  reserve(count) {
    if (this.kind === "short") {
      while (this.values.length < count) this.values.push(null);
    } else if (this.values.length < count) {
      const larger = this.#empty(Math.max(count, Math.ceil(this.values.length * 1.5)));
      larger.set(this.values);
      this.values = larger;
    }
  }

  /** Puts a chunk's part of the column at its place. */
  put(start, rows, part, bytes, begin) {
    if (part.cells) {
      for (let i = 0; i < rows; i += 1) this.values[start + i] = part.cells[i];
      return;
    }
    for (const word of part.words ?? []) {
      this.words.push(word);
      this.codes.set(word, this.words.length);
    }
    const size = this.kind === "number" ? 8 : 4;
    const from = begin + (part.f64 ?? part.u32);
    const buffer = bytes.buffer.slice(from, from + rows * size);
    this.values.set(size === 8 ? new Float64Array(buffer) : new Uint32Array(buffer), start);
  }

  /** A row's value: number, word or short text; null for none and for long texts. */
  at(row) {
    const value = this.values[row];
    if (this.kind === "number") return Number.isNaN(value) ? null : value;
    if (this.kind === "word") return value === 0 ? null : this.words[value - 1];
    return this.kind === "short" ? (value ?? null) : null;
  }
}

/** The decoded texts of one chunk. */
class TextBlock {
  constructor(bytes) {
    const { header, begin } = readHeader(bytes);
    const cells = header.rows * header.cells.length;
    this.names = header.cells;
    this.rows = header.rows;
    this.lengths = new Uint32Array(bytes.buffer.slice(begin, begin + 4 * cells));
    this.starts = new Uint32Array(cells + 1);
    for (let i = 0; i < cells; i += 1) {
      this.starts[i + 1] = this.starts[i] + (this.lengths[i] >= PART_OF_PROMPT ? 0 : this.lengths[i]);
    }
    const encoded = bytes.subarray(begin + 4 * cells);
    this.text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(encoded);
    // A browser keeps one byte per character where all are Latin, else two.
    this.bytes = this.text.length * (encoded.length === this.text.length ? 1 : 2) + 8 * cells;
    const extras = this.starts[this.names.indexOf("more") * this.rows] ?? this.text.length;
    this.hasExtras = this.text.includes('"full":', extras) || this.text.includes('"frame":', extras);
  }

  /** A cell's stored text, or null. */
  cell(name, row) {
    const column = this.names.indexOf(name);
    if (column < 0) return null;
    const index = column * this.rows + row;
    if (this.lengths[index] === NULL_CELL) return null;
    if (this.lengths[index] === PART_OF_PROMPT) {
      const [start, length] = this.more(row).from[name];
      return (this.cell("prompt", row) ?? "").slice(start, start + length);
    }
    return this.text.slice(this.starts[index], this.starts[index + 1]);
  }

  /** What a row's JSON says of its texts, or null. */
  more(row) {
    const text = this.cell("more", row);
    return text === null ? null : JSON.parse(text);
  }
}

/** Chunks' texts: compressed ones as they came, and decoded ones within a bound of bytes. */
class TextBlocks {
  constructor() {
    this.takers = [];
    this.compressed = [];
    this.decoded = new Map(); // the block that was used last is last
    this.pending = new Map();
    this.bytes = 0;
  }

  /** Adds a chunk whose compressed bytes are taken when they are first needed. */
  push(take) {
    this.takers.push(take);
    this.compressed.push(null);
  }

  /** A chunk's texts if they are decoded already, else undefined. */
  peek(chunk) {
    return this.decoded.get(chunk);
  }

  /** A chunk's texts for a reader: they stay decoded, and those used longest ago go. */
  async get(chunk) {
    const block = this.peek(chunk) ?? (await this.#decode(chunk));
    this.#drop(chunk);
    while (this.bytes + block.bytes > CACHE_BYTES && this.decoded.size) this.#drop(this.decoded.keys().next().value);
    this.#keep(chunk, block);
    return block;
  }

  /** A chunk's texts for a search: they stay decoded only where there is room, so that a search drives nothing out. */
  async scan(chunk) {
    const known = this.peek(chunk);
    if (known) return known;
    const block = await this.#decode(chunk);
    if (!this.decoded.has(chunk) && this.bytes + block.bytes <= CACHE_BYTES) this.#keep(chunk, block);
    return block;
  }

  #keep(chunk, block) {
    this.decoded.set(chunk, block);
    this.bytes += block.bytes;
  }

  #drop(chunk) {
    this.bytes -= this.decoded.get(chunk)?.bytes ?? 0;
    this.decoded.delete(chunk);
  }

  /** Decompresses a chunk once, however many ask for it at the same time. */
  #decode(chunk) {
    if (!this.pending.has(chunk)) {
      this.compressed[chunk] ??= this.takers[chunk]();
      this.takers[chunk] = null;
      const decoding = gunzip(this.compressed[chunk]).then((bytes) => new TextBlock(bytes));
      this.pending.set(chunk, decoding.finally(() => this.pending.delete(chunk)));
    }
    return this.pending.get(chunk);
  }
}

/** All rows of the page, numbered from 0 in the order of the chunks. */
class Store {
  constructor(meta) {
    this.meta = meta;
    this.count = 0;
    this.columns = [];
    this.starts = []; // the first row of each chunk
    this.blocks = new TextBlocks();
    this.parts = new Map();
    this.adding = Promise.resolve();
    this.setMeta(meta);
  }

  /** Takes new meta data: sources, frames, and columns that were not there before. */
  setMeta(meta) {
    this.meta = { ...this.meta, ...meta };
    this.columns = this.meta.columns;
    for (const column of this.columns) {
      if (this.parts.has(column.name)) continue;
      const part = new ColumnValues(column.kind, Math.max(this.count, this.meta.selection?.rows ?? 0));
      part.reserve(this.count);
      this.parts.set(column.name, part);
    }
  }

  /** Adds a chunk after those before it; both blobs are gzip members. The texts are taken when they are needed. */
  addChunk(shortBytes, textBytes) {
    const unpacked = Promise.resolve(shortBytes).then(gunzip);
    this.adding = Promise.all([this.adding, unpacked]).then(([, bytes]) => this.#append(bytes, textBytes));
    return this.adding;
  }

  #append(bytes, textBytes) {
    const { header, begin } = readHeader(bytes);
    const count = this.count + header.rows;
    for (const [name, values] of this.parts) {
      values.reserve(count);
      const part = header.columns[name];
      if (part) values.put(this.count, header.rows, part, bytes, begin);
    }
    this.starts.push(this.count);
    this.blocks.push(textBytes);
    this.count = count;
  }

  /** The short values of a column over all rows, or undefined: for loops over many rows. */
  part(name) {
    return this.parts.get(name);
  }

  /** Whether the page has this column. */
  has(name) {
    return this.parts.has(name);
  }

  /** The description of a column: name, title, kind, group, unit. */
  column(name) {
    return this.columns.find((column) => column.name === name) ?? null;
  }

  /** A row's value in short form: number, word, short text, or null; long texts are read with `texts`. */
  value(name, row) {
    return this.parts.get(name)?.at(row) ?? null;
  }

  /** The full length of a long text in UTF-16 units, or null. */
  textLength(name, row) {
    const length = this.parts.get(name)?.values[row] ?? NULL_CELL;
    return length === NULL_CELL ? null : length;
  }

  /** The different words of a column, in the order of their first row. */
  words(name) {
    return this.parts.get(name)?.words ?? [];
  }

  /** How many rows have each word; null counts the rows without one. */
  counts(name) {
    return this.countsAmong(name, null);
  }

  /** How many of these rows have each word; null as rows means all. */
  countsAmong(name, rows) {
    const { values, words } = this.parts.get(name);
    const sums = new Uint32Array(words.length + 1);
    if (rows) for (const row of rows) sums[values[row]] += 1;
    else for (let row = 0; row < this.count; row += 1) sums[values[row]] += 1;
    const counts = new Map(words.map((word, index) => [word, sums[index + 1]]));
    if (sums[0]) counts.set(null, sums[0]);
    return counts;
  }

  /** The least and the largest number of a column, or null where no row has one. */
  rangeOf(name) {
    const { values } = this.parts.get(name);
    let [least, most] = [Infinity, -Infinity];
    for (let row = 0; row < this.count; row += 1) {
      if (values[row] < least) least = values[row];
      if (values[row] > most) most = values[row];
    }
    return least <= most ? [least, most] : null;
  }

  /** The row of a call: the source's index and the ordinal in it; -1 where it is not in the page. */
  place(file, ordinal) {
    const name = this.meta.sources[file]?.name;
    const code = this.parts.get("file")?.codes.get(name);
    const files = this.parts.get("file")?.values;
    const ordinals = this.parts.get("ordinal")?.values;
    if (!ordinals || (files ? code === undefined : file !== 0)) return -1;
    for (let row = 0; row < this.count; row += 1) {
      if (ordinals[row] === ordinal && (!files || files[row] === code)) return row;
    }
    return -1;
  }

  /** The call of a row: the source's index and the ordinal in it, for links. */
  callOf(row) {
    const name = this.value("file", row);
    const file = name === null ? 0 : this.meta.sources.findIndex((source) => source.name === name);
    return { file, ordinal: this.value("ordinal", row) };
  }

  /** The chunk in which a row lies. */
  chunkOf(row) {
    let [low, high] = [0, this.starts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= row) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The beginning of a long text for the table: null for none, undefined where its chunk is still compressed. */
  preview(name, row, characters) {
    const chunk = this.chunkOf(row);
    const text = this.blocks.peek(chunk)?.cell(name, row - this.starts[chunk]);
    return text?.slice(0, characters) ?? text;
  }

  /** Decodes the chunk of a row, so that `preview` knows its texts. */
  async decode(row) {
    await this.blocks.get(this.chunkOf(row));
  }

  /** The stored long texts of a row by column, each `{text, length, isCut}` or null, and `more`. */
  async texts(row) {
    const chunk = this.chunkOf(row);
    const block = await this.blocks.get(chunk);
    const place = row - this.starts[chunk];
    const found = { more: block.more(place) };
    for (const name of block.names) {
      if (name === "more") continue;
      const text = block.cell(name, place);
      const length = this.textLength(name, row) ?? text?.length;
      found[name] = text === null ? null : { text, length, isCut: length > text.length };
    }
    return found;
  }

  /** How the request of a row is made of its texts, or null where no prompt could be rendered. */
  async frame(row) {
    const index = this.value("frame", row);
    if (index !== null) return this.meta.frames[index] ?? null;
    const { more } = await this.texts(row);
    return more?.frame ?? null;
  }

  /** Flags by row: 1 where all terms of the query are found. See `RowSearch` for the rules. */
  search(query, options = {}) {
    return new RowSearch(this, query).run(options);
  }

  /** The rows in the order of a column; rows without a value come last, equal ones stay as they are. */
  order(name, descending, rows) {
    return orderRows(this.parts.get(name), descending, rows);
  }
}

/** Rows in the order of a column's values: by number, by words without regard to case, long texts by their length. */
function orderRows(column, descending, rows) {
  const { keys, texts } = sortKeys(column, rows);
  const known = rows.filter((row) => !Number.isNaN(keys[row]));
  const compare = texts
    ? (a, b) => keys[a] - keys[b] || (texts[a] < texts[b] ? -1 : texts[a] > texts[b] ? 1 : 0)
    : (a, b) => keys[a] - keys[b];
  known.sort(descending ? (a, b) => compare(b, a) : compare);
  const ordered = new Uint32Array(rows.length);
  ordered.set(known);
  ordered.set(rows.filter((row) => Number.isNaN(keys[row])), known.length);
  return ordered;
}

/** What rows are compared by: numbers for all, and texts where numbers are equal. NaN: no value. */
function sortKeys(column, rows) {
  const { kind, values, words } = column;
  if (kind === "number") return { keys: values };
  const keys = new Float64Array(values.length).fill(NaN);
  if (kind === "text") {
    for (const row of rows) if (values[row] !== NULL_CELL) keys[row] = values[row];
    return { keys };
  }
  const few = kind === "word" ? words : fewTexts(values, rows);
  if (!few) return shortKeys(values, rows);
  const places = alphabetPlaces(few);
  const codes = kind === "word" ? Float64Array.from([NaN, ...words.map((word) => places.get(word))]) : null;
  for (const row of rows) keys[row] = codes ? codes[values[row]] : (places.get(values[row]) ?? NaN);
  return { keys };
}

/** Different texts up to which each gets a place in the alphabet; above, sorting them takes longer than comparing rows. */
const MOST_PLACES = 4096;

/** The different texts of some rows, or null where there are many. */
function fewTexts(values, rows) {
  const found = new Set();
  for (const row of rows) {
    if (values[row] !== null) found.add(values[row]);
    if (found.size > MOST_PLACES) return null;
  }
  return [...found];
}

/** The place of each text in the alphabet; upper and lower case have the same. */
function alphabetPlaces(texts) {
  const lower = [...new Set(texts.map((text) => text.toLowerCase()))].sort();
  const places = new Map(lower.map((text, place) => [text, place]));
  return new Map(texts.map((text) => [text, places.get(text.toLowerCase())]));
}

/** Short texts' keys: the characters after what all of them begin with, as a number; and the texts themselves. */
function shortKeys(values, rows) {
  const texts = new Array(values.length);
  let common = null;
  let isAscii = true;
  for (const row of rows) {
    if (values[row] === null) continue;
    texts[row] = values[row].toLowerCase();
    common ??= texts[row];
    while (!texts[row].startsWith(common)) common = common.slice(0, -1);
    isAscii &&= !/[^\0-\x7f]/.test(texts[row]);
  }
  const [characters, base] = isAscii ? [7, 128] : [3, 65536]; // what a number holds exactly: 49 or 48 bits
  const keys = new Float64Array(values.length).fill(NaN);
  for (const row of rows) {
    if (texts[row] === undefined) continue;
    let key = 0;
    for (let at = common.length; at < common.length + characters; at += 1) {
      key = key * base + (at < texts[row].length ? texts[row].charCodeAt(at) : 0);
    }
    keys[row] = key;
  }
  return { keys, texts };
}
