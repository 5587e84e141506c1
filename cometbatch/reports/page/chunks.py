"""Rows of results as chunks of a page: some thousand rows each, in two blobs, of which the second is read when needed.

The short blob has every cell that tables, filters and charts need: numbers, words, short texts, and lengths of long
ones. The text blob has the long texts, cut, and what the short cells leave out. Lengths are in UTF-16 units.

Each blob is a gzip member of: the length n of the header (u32); the header, n bytes of JSON; zeros up to a multiple of
8; arrays. All numbers are little-endian. Chunks come in order: words are numbered from the first one on.

The short header is `{"rows": 2000, "columns": {NAME: COLUMN}}`, without the columns that are null in all rows. `OFFSET`
is in bytes from the beginning of the arrays. `COLUMN` is, by the column's kind,

- number: `{"f64": OFFSET}`; NaN is null.
- word: `{"u32": OFFSET, "words": [those that no chunk before has]}`; 0 is null, k the k-th word of all chunks so far.
- short: `{"cells": [text or null]}`, cut at `page_columns.SHORT`.
- text: `{"u32": OFFSET}`: the lengths before any cut; `NULL` is null.

The text header is `{"rows": 2000, "cells": [names of the text columns, "more"]}`. After it: the lengths of what is kept
(u32), all rows of the first name, then of the next; then the texts as UTF-8, in the same order, with nothing between
them. `NULL` is a null. An `ELSEWHERE` has no text: the cell is the part of the row's prompt that `more.from` names. The
prompt's text is all slots of its frame, one after the other.

`more` is null or a JSON object of what the row's cells leave out, each key only where there is something to say:

- `slots`: the lengths of the prompt's slots, where there are not just one. `why`: a sentence, why there is no prompt.
- `frame`: the row's own frame (`requests.Frame`), where the column `frame` has no number.
- `full`: by column, the exact text of a number that a float can't hold, or a short text whole, but cut as all texts.
- `lengths`: by column, the length of such a short text, where it is cut. `from`: by column, `[start, length]`.
"""

import itertools
import math
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from cometbatch.job.matrix import MODEL
from cometbatch.reports.page import cells
from cometbatch.reports.page.page_columns import (
    FILE,
    FRAME,
    ORDINAL,
    PROMPT,
    REQUEST_HASH,
    SHORT,
    Columns,
    PageColumn,
    SourceColumns,
)
from cometbatch.results.slices import ROW

CHUNK_ROWS: Final = 2_000
CHUNK_BYTES: Final = 8 << 20  # of a chunk's texts, in UTF-8; a chunk that has more gets no further rows
CELL_CHARACTERS: Final = 2_000  # UTF-16 units that are kept of a text
HASH_CHARACTERS: Final = 8  # of a request's hash: enough to find a row by, and 16 would take 2 % of the file
WORTH_FINDING: Final = 24  # characters; a shorter cell is kept beside the prompt that holds it
GZIP_LEVEL: Final = 5  # a third of level 6's time for 2 % more; level 4 takes 0.6 s less for 55 MB, and 4 % more
MORE: Final = "more"
"""The last text of a row: JSON of what the others leave out."""
NULL: Final = 0xFFFF_FFFF  # the length of a null
ELSEWHERE: Final = 0xFFFF_FFFE  # the length of a cell that stands in the prompt
_NULLS: Final = {
    "number": struct.pack("<d", math.nan),
    "word": struct.pack("<I", 0),
    "text": struct.pack("<I", NULL),
}
"""A null, as arrays of each kind have it."""
_GZIP: Final = 31  # zlib's way to ask for a gzip member
_WORD: Final = 8  # bytes; arrays begin at multiples of it


class Chunk(Struct, frozen=True):
    """Some rows of a page, as gzip members. `rows`: how many."""

    rows: int
    short: bytes
    text: bytes


class StoredPrompt(Struct, frozen=True):
    """The prompt of a row, as a page keeps it.

    `texts`: of the frame's slots, in order. `frame`: the number of the frame in the page's meta; None where it is
    `own`, the frame of this row alone. `why`: for a reader, why the row has no prompt; None where it has one.
    """

    texts: Sequence[str]
    frame: int | None = None
    own: Mapping[str, Any] | None = None
    why: str | None = None


class Encoder:
    """Makes chunks of rows that come some at a time, in the order of the page; keeps no more than one chunk's rows.

    `columns`: of the page. Words are numbered over all chunks, so that they must reach the page in order.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._words: dict[str, dict[str, int]] = {each.name: {} for each in columns.described if each.kind == "word"}
        self._open = _OpenChunk(columns.described)

    def add(
        self, file: int, ordinals: Sequence[int], table: pa.Table, prompts: Sequence[StoredPrompt | None] | None = None
    ) -> Iterator[Chunk]:
        """Rows of a source, and each chunk that is full by now.

        `file`: the number of the source. `ordinals`: the rows' places in the result. `table`: at least the columns
        `Columns.read(file)`. `prompts`: of the same rows; None where they can't be had.
        """
        begin = 0
        while begin < table.num_rows:
            if self._open.is_full:
                yield self._take()
            end = min(table.num_rows, begin + CHUNK_ROWS - self._open.rows)
            some = prompts[begin:end] if prompts is not None else [None] * (end - begin)
            rows = _Rows(self._columns, file, ordinals[begin:end], table.slice(begin, end - begin), some)
            self._open.put(rows, self._words)
            begin = end
        if self._open.is_full:
            yield self._take()

    def rest(self) -> Iterator[Chunk]:
        """The rows that no chunk has yet, if there are some."""
        if self._open.rows:
            yield self._take()

    def _take(self) -> Chunk:
        """The open chunk as it is; the next row begins another one."""
        chunk, self._open = self._open.closed(), _OpenChunk(self._columns.described)
        return chunk


class _Rows:
    """Some rows of one source, with a column for each name of the page. `more`: by row, what else the page keeps."""

    def __init__(
        self,
        columns: Columns,
        file: int,
        ordinals: Sequence[int],
        table: pa.Table,
        prompts: Sequence[StoredPrompt | None],
    ) -> None:
        self.count = table.num_rows
        self.ordinals = ordinals
        self.source: SourceColumns = columns.sources[file]
        self.prompts = prompts
        self.more = _More()
        self._table = table
        self.prompt_texts = [
            None if each is None or each.why is not None else cells.well_formed("".join(each.texts)) for each in prompts
        ]

    def column(self, name: str) -> pa.ChunkedArray:
        """The cells of a column of the page."""
        named = self.source.found.get(name)
        if named is not None and named in self._table.column_names:
            return self._table.column(named)
        if name == FILE:
            return self._same(self.source.name)
        if name == MODEL:
            return self._models()
        found = pa.nulls(self.count)
        if name in (ORDINAL, ROW):
            found = pa.array(self.ordinals, pa.int64())
        elif name == PROMPT:
            found = pa.array(self.prompt_texts, cells.TEXT)
        elif name == FRAME:
            found = pa.array([None if each is None else each.frame for each in self.prompts], pa.int32())
        return pa.chunked_array([found])

    def _same(self, text: str) -> pa.ChunkedArray:
        places = pa.repeat(pa.scalar(0, pa.int32()), self.count)
        return pa.chunked_array([pa.DictionaryArray.from_arrays(places, pa.array([text], cells.TEXT))])

    def _models(self) -> pa.ChunkedArray:
        models, target = self.source.models, self.source.target
        if target is None or target not in self._table.column_names:
            return self._same(models[0])
        numbers = self._table.column(target).to_pylist()
        found = [models[at] if at is not None and at < len(models) else None for at in numbers]
        return pa.chunked_array([pa.array(found, cells.TEXT)])

    def note_prompts(self) -> None:
        """Keep the lengths of slots, the frames that are a row's own, and why a row has no prompt."""
        for row, prompt in enumerate(self.prompts):
            if prompt is None:
                continue
            if len(prompt.texts) > 1:
                self.more.note(row, "slots", _json(list(map(cells.units, prompt.texts))))
            if prompt.own is not None:
                self.more.note(row, "frame", _json(prompt.own))
            if prompt.why is not None:
                self.more.note(row, "why", _json(prompt.why))


class _More:
    """What a page keeps of rows beside their cells: JSON by key, or by key and column."""

    def __init__(self) -> None:
        self._whole: dict[str, dict[int, str]] = {}
        self._of_columns: dict[str, dict[str, dict[int, str]]] = {}

    def note(self, row: int, key: str, value: str) -> None:
        """Keep something of a row; `value`: JSON."""
        self._whole.setdefault(key, {})[row] = value

    def of_column(self, key: str, name: str) -> dict[int, str]:
        """What is kept of a column under a key: JSON by row, to be added to."""
        return self._of_columns.setdefault(key, {}).setdefault(name, {})

    def texts(self, count: int) -> pa.Array:
        """An object for each row, as JSON; null where there is nothing to say."""
        found: dict[str, dict[int, str]] = {}
        for key, columns in self._of_columns.items():
            found[key] = {row: f"{{{members}}}" for row, members in _members(columns).items()}
        members = _members({**self._whole, **found})
        return pa.array([f"{{{members[row]}}}" if row in members else None for row in range(count)], cells.TEXT)


def _members(parts: Mapping[str, Mapping[int, str]]) -> dict[int, str]:
    """The members of an object for each row that has some. `parts`: values by name and row, all JSON."""
    found: dict[int, str] = {}
    for name, values in parts.items():
        said = _json(name)
        for row, value in values.items():
            found[row] = f"{found[row]},{said}:{value}" if row in found else f"{said}:{value}"
    return found


class _OpenChunk:
    """A chunk that gets rows."""

    def __init__(self, described: Sequence[PageColumn]) -> None:
        self.rows = 0
        self._described = described
        self._texts = [each.name for each in described if each.kind == "text"]
        self._new_words: dict[str, list[str]] = {each.name: [] for each in described if each.kind == "word"}
        self._arrays: dict[str, list[bytes]] = {each.name: [] for each in described if each.kind != "short"}
        self._cells: dict[str, list[str | None]] = {each.name: [] for each in described if each.kind == "short"}
        self._lengths: dict[str, list[bytes]] = {name: [] for name in (*self._texts, MORE)}
        self._data: dict[str, list[bytes]] = {name: [] for name in (*self._texts, MORE)}
        self._valued = set[str]()  # columns that have a value: the others take no place in the short blob
        self._size = 0

    @property
    def is_full(self) -> bool:
        """Whether it gets no further rows."""
        return self.rows >= CHUNK_ROWS or self._size >= CHUNK_BYTES

    def put(self, rows: _Rows, words: dict[str, dict[str, int]]) -> None:
        """Further rows."""
        rows.note_prompts()
        for column in self._described:
            found = rows.column(column.name)
            if found.null_count == rows.count:
                self._put_nulls(column, rows.count)
                continue
            self._valued.add(column.name)
            if column.kind == "number":
                self._put_numbers(rows, column.name, found)
            elif column.kind == "word":
                self._put_words(column.name, found, words[column.name])
            elif column.kind == "short":
                self._put_short(rows, column.name, found)
            else:
                self._put_texts(rows, column, found)
        more = rows.more.texts(rows.count)
        self._put_cut(MORE, more, cells.lengths(more))
        self.rows += rows.count

    def _put_nulls(self, column: PageColumn, count: int) -> None:
        if column.kind == "short":
            self._cells[column.name].extend([None] * count)
            return
        self._arrays[column.name].append(_NULLS[column.kind] * count)
        if column.kind == "text":
            self._lengths[column.name].append(_NULLS["text"] * count)

    def _put_numbers(self, rows: _Rows, name: str, column: pa.ChunkedArray) -> None:
        data, exact = cells.numbers(column)
        self._arrays[name].append(data)
        if exact:
            rows.more.of_column("full", name).update({row: _json(text) for row, text in exact.items()})

    def _put_words(self, name: str, column: pa.ChunkedArray, codes: dict[str, int]) -> None:
        words = cells.words(column)
        found = []
        for word in words.dictionary.to_pylist():
            shown = cells.cut(word, CELL_CHARACTERS)
            if shown not in codes:
                codes[shown] = len(codes) + 1
                self._new_words[name].append(shown)
            found.append(codes[shown])
        taken = pa.array(found, cells.U32).take(words.indices).fill_null(0)
        self._arrays[name].append(cells.raw_bytes(taken))

    def _put_short(self, rows: _Rows, name: str, column: pa.ChunkedArray) -> None:
        texts = cells.texts(column)
        found: list[str | None] = texts.to_pylist()
        longest = pc.max(pc.utf8_length(texts)).as_py() or 0
        for row, text in enumerate(found) if longest > SHORT // 2 else ():
            if text is not None and (length := cells.units(text)) > SHORT:
                found[row] = cells.cut(text, SHORT)
                rows.more.of_column("full", name)[row] = _json(cells.cut(text, CELL_CHARACTERS))
                if length > CELL_CHARACTERS:
                    rows.more.of_column("lengths", name)[row] = str(length)
        self._cells[name].extend(found)

    def _put_texts(self, rows: _Rows, column: PageColumn, found: pa.ChunkedArray) -> None:
        """A column of texts: the whole lengths go into the short blob, what is kept of the texts into the other."""
        texts = cells.texts(found)
        if column.name == REQUEST_HASH:
            texts = pc.utf8_slice_codeunits(texts, 0, HASH_CHARACTERS)
        full = cells.lengths(texts)
        self._arrays[column.name].append(cells.raw_bytes(full.fill_null(NULL)))
        shown = cells.cut_texts(texts, full, CELL_CHARACTERS)
        kept = full if shown is texts else cells.lengths(shown)
        if column.group == "input":
            shown, kept = _without_those_in_the_prompt(rows, column, shown, kept)
        self._put_cut(column.name, shown, kept)

    def _put_cut(self, name: str, texts: pa.Array, lengths: pa.Array) -> None:
        """What the text blob has of a column."""
        self._lengths[name].append(cells.raw_bytes(lengths.fill_null(NULL)))
        data = cells.text_bytes(texts)
        self._data[name].append(data)
        self._size += len(data)

    def closed(self) -> Chunk:
        """The chunk of these rows."""
        header: dict[str, Any] = {}
        parts: list[bytes] = []
        offset = 0
        for column in sorted(self._described, key=lambda each: each.kind != "number"):  # those of 8 bytes stand first
            if column.name not in self._valued:
                continue
            if column.kind == "short":
                header[column.name] = {"cells": self._cells[column.name]}
                continue
            kind = "f64" if column.kind == "number" else "u32"
            words = {"words": self._new_words[column.name]} if column.kind == "word" else {}
            header[column.name] = {kind: offset} | words
            found = b"".join(self._arrays[column.name])
            parts.append(found)
            offset += len(found)
        short = _blob({"rows": self.rows, "columns": header}, parts)
        held = itertools.chain(*self._lengths.values(), *self._data.values())
        text = _blob({"rows": self.rows, "cells": [*self._texts, MORE]}, held)
        return Chunk(self.rows, short, text)


def _without_those_in_the_prompt(
    rows: _Rows, column: PageColumn, texts: pa.Array, lengths: pa.Array
) -> tuple[pa.Array, pa.Array]:
    """Cells of the input without those that stand whole in the prompt that is kept, whose place is noted instead."""
    found: dict[int, str] = {}
    for row, (prompt, text) in enumerate(zip(rows.prompt_texts, texts.to_pylist(), strict=True)):
        if prompt is None or text is None or len(text) < WORTH_FINDING:
            continue
        at = prompt.find(text, 0, CELL_CHARACTERS)
        if at < 0:
            continue
        start, length = (at, len(text)) if prompt.isascii() else (cells.units(prompt[:at]), cells.units(text))
        if start + length <= CELL_CHARACTERS:
            found[row] = f"[{start},{length}]"
    if not found:
        return texts, lengths
    rows.more.of_column("from", column.name).update(found)
    is_there = array("b", bytes(rows.count))
    for row in found:
        is_there[row] = 1
    mask = pa.Array.from_buffers(pa.int8(), rows.count, [None, pa.py_buffer(is_there)]).cast(pa.bool_())
    return pc.if_else(mask, pa.scalar("", cells.TEXT), texts), pc.if_else(
        mask, pa.scalar(ELSEWHERE, cells.U32), lengths
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _blob(header: Mapping[str, Any], parts: Iterable[bytes]) -> bytes:
    """A gzip member: the length of the header, the header, and, from a multiple of 8 on, the arrays."""
    said = msgspec.json.encode(header)
    padding = bytes(-(4 + len(said)) % _WORD)
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    packed = [packer.compress(part) for part in (len(said).to_bytes(4, "little"), said, padding, *parts)]
    return b"".join([*packed, packer.flush()])
