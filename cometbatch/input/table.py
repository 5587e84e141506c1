"""The input table: CSV, TSV or Parquet in, the same rows in the same order out, however often it is read.

Hides what pyarrow's readers get wrong, or take without a word: a CR LF in a cell that falls on the edge of a block
(the LF is lost), a cell larger than a block, 32 blocks read ahead, a quote that never closes (it swallows the rest of
the file), text after a closing quote, guessed types, data that only fails in the middle of a run. So CSV is cut into
whole records here, and pyarrow parses one piece at a time.

Guards: same ordinal, same row; text stays text (`007` stays `007`, `NULL` stays `NULL`, an empty cell is ""); memory
does not grow with the input; what can't be read is refused by `open_source` or `Source.check`, before the first
request, as an `InputError` that names file, line, column, reason and what to do.

The CSV dialect is RFC 4180's: cells may be quoted with `"`, a quote within a quoted cell is doubled, lines end with
LF, CR LF or CR. A quote inside an unquoted cell (5" pipe) is ordinary text. A line without a single character is
skipped, also in a table of one column (write `""` for an empty cell there). A byte order mark is skipped.
"""

import codecs
import csv
import hashlib
import io
import itertools
import os
import pathlib
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any, NoReturn, Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.errors import InputError
from cometbatch.records import Partition

# pyarrow would catch Ctrl-C during a read in the main thread and report it as a damaged file, or lose it.
pa.enable_signal_handlers(False)

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARQUET_ENDING = ".parquet"
READ_SIZE = 1 << 20  # bytes
MAX_HEADER_SIZE = 1 << 20  # bytes; a longer header line is a mistake, such as a quote that never closes
MAX_ROW_SIZE = 1 << 30  # bytes of CSV; Arrow's text columns end at 2 GiB
MOST_SUGGESTED_ROWS = 2_048  # to a partition: more take no less CPU a row, and more memory
PARTITION_SIZE = 8 << 20  # bytes of input that a partition should hold at most
CHECK_ROWS = 256  # rows decoded at a time before the size of a row is known: a long text repeated is small only on disk
SLICE_ROWS = 256  # rows turned into Python values at a time
SHOWN = 80  # characters of foreign text in a message
FORMATS_IN_WORDS = ".csv, .tsv or .parquet"
# How often one match may step on: the pattern engine keeps memory for each step until the match ends.
REACH = 1_024  # quotes, or quoted cells
REACH_IN_CELL = 64  # doubled quotes in each of these cells
QUOTED_TEXT = re.compile(rb'[^"]*(?:""[^"]*){0,%d}' % REACH)  # towards the quote that closes the cell, or the end
UTF8_BOM = codecs.BOM_UTF8
# Longest first: the mark of UTF-32-LE starts with that of UTF-16-LE.
WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
PACKED_MARKS = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh9", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
PACKED_ENDINGS = frozenset({".gz", ".zst", ".bz2", ".xz", ".zip"})
PARQUET_MARK, ENCRYPTED_MARK = b"PAR1", b"PARE"
SMALLEST_PARQUET = 12  # bytes: a mark, the footer's length and a mark
CHANGED = "changed while it was read; start again when nothing writes to it any more"


class Identity(Struct, frozen=True):
    """What tells this input from any other, and how it was read.

    `size` is that of the file, `decoded_size` that of its rows in memory, which compression and repetition hide (for
    CSV the file's own), both in bytes.
    """

    name: str
    size: int
    sha256: str
    rows: int
    columns: tuple[str, ...]
    decoded_size: int = 0


class Source(Struct, frozen=True):
    """An input table whose header (or footer) has been read, and nothing more.

    `schema`: every CSV column is a string; Parquet columns are of the types that the file says. `warnings` are
    sentences on what is readable but surely not meant.
    """

    path: pathlib.Path
    schema: pa.Schema
    layout: "_Csv | _Parquet"
    warnings: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The column names, in the file's order; no two are the same."""
        return tuple(self.schema.names)

    def check(self) -> Identity:
        """Read the whole input once: after this, every row is known to be readable.

        Raises `InputError` at the first thing that is not.
        """
        with _refusing(self.path), _opened(self.path) as file:
            measured = self.layout.measure(file.raw)
            file.refuse_changes()
        return Identity(name=_shown(self.path.name), columns=self.columns, **measured)

    def digest(self) -> tuple[int, str]:
        """Size in bytes and SHA-256 (hex) of the file as it is now: a cheap check that it is still the same.

        Raises `InputError` where the file can't be read.
        """
        with _refusing(self.path), _opened(self.path) as file:
            sha256 = hashlib.file_digest(file.raw, "sha256").hexdigest()
            return file.raw.tell(), sha256

    def tables(self, identity: Identity, partitions: Iterable[Partition]) -> Iterator[pa.Table]:
        """One table for each partition, of exactly its rows; partitions come ascending and don't overlap.

        Holds a partition and a piece of the file (1 MiB of CSV, 8 MiB of Parquet rows, or one longer row) at a time.
        Partitions are asked for one by one, as the tables are.
        Raises `InputError` where the file is not, or is no longer, what `identity` says.
        """
        with _opened(self.path) as file:
            if file.size != identity.size:
                _refuse(self.path, CHANGED)
            with self.layout.feed(file.raw, identity) as feed:
                cursor = _Cursor(feed)
                for partition in partitions:  # what fails in there is the caller's: not to be taken for the input's
                    yield self._table(file, cursor, partition)

    def _table(self, file: "_OpenFile", cursor: "_Cursor", partition: Partition) -> pa.Table:
        with _refusing(self.path):
            pieces = cursor.take(partition.first_row, partition.row_count)
            file.refuse_changes()
            if sum(piece.num_rows for piece in pieces) != partition.row_count:
                _refuse(self.path, CHANGED)
            return _joined(pieces, self.schema)


def open_source(path: pathlib.Path, *, encoding: str = "utf-8", delimiter: str | None = None) -> Source:
    """Look at the input's header or footer: cheap, whatever its size.

    `encoding` and `delimiter` are for CSV and TSV; the delimiter follows from the ending where none is given.
    Raises `InputError` for what is no readable table of a known kind, or has columns that can't be told apart.
    """
    ending = _ending(path)
    with _refusing(path), _opened(path) as file:
        if file.size == 0:
            _refuse(path, "is empty; a table needs at least a header line")
        if ending == PARQUET_ENDING:
            return _open_parquet(path, file, encoding, delimiter)
        return _open_csv(path, file, encoding, DELIMITERS[ending] if delimiter is None else delimiter)


def partitions(row_count: int, partition_rows: int) -> list[Partition]:
    """All rows in ranges of `partition_rows`, the last as long as is left. Raises ValueError below 1 row."""
    if partition_rows < 1:
        raise ValueError(f"a partition needs at least 1 row, not {partition_rows}")
    starts = range(0, row_count, partition_rows)
    return [Partition(index, first, min(partition_rows, row_count - first)) for index, first in enumerate(starts)]


def suggest_partition_rows(identity: Identity) -> int:
    """Rows to a partition: about 8 MiB of input, at least 1 row and at most 2,048; the same for the same input."""
    size = max(1, identity.size, identity.decoded_size)
    return max(1, min(MOST_SUGGESTED_ROWS, PARTITION_SIZE * max(1, identity.rows) // size))


def rows(table: pa.Table, columns: Sequence[str]) -> Iterator[dict[str, object]]:
    """Each row's values of just these columns, as Python has them; null is None.

    What Python can't hold (a timestamp with nanoseconds, a date in the year 20000) comes as text instead.
    Raises KeyError for a column that the table lacks.
    """
    names = list(dict.fromkeys(columns))
    chosen = table.select(names)
    for start in range(0, table.num_rows, SLICE_ROWS):
        values = [_values(column) for column in chosen.slice(start, SLICE_ROWS).columns]
        bare: Iterable[tuple[object, ...]] = itertools.repeat((), min(SLICE_ROWS, table.num_rows - start))
        cells = zip(*values, strict=True) if values else bare
        yield from (dict(zip(names, row)) for row in cells)  # noqa: B905 - of one length as made; to ask takes half as long


# ---------------------------------------------------------------- refusing


def _refuse(path: pathlib.Path, what: str, line: int | None = None) -> NoReturn:
    where = "" if line is None else f", line {line}"
    raise InputError(f"{_shown(str(path), limit=1_000)}{where}: {what}")


@contextmanager
def _refusing(path: pathlib.Path) -> Iterator[None]:
    """Whatever the system or pyarrow has against the file becomes an `InputError`."""
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or _shown(str(exc))
        raise InputError(f"{_shown(str(path), limit=1_000)}: can't be read: {reason}") from exc
    except (pa.ArrowException, UnicodeError) as exc:
        reason = _shown(str(exc), limit=300)
        raise InputError(
            f"{_shown(str(path), limit=1_000)}: can't be read: {reason}; if the file is damaged, write or copy it again"
        ) from exc


def _shown(text: str, *, limit: int = SHOWN) -> str:
    """Foreign text fit for a message: one line, no control or direction characters, not too long."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def _ending(path: pathlib.Path) -> str:
    ending = path.suffix.lower()
    if ending in PACKED_ENDINGS:
        _refuse(path, f"is compressed ({ending}); unpack it first, or convert it to Parquet")
    if ending != PARQUET_ENDING and ending not in DELIMITERS:
        _refuse(path, f"the ending must be {FORMATS_IN_WORDS}, not {_shown(path.suffix) or 'none at all'}")
    return ending


def _refuse_duplicates(path: pathlib.Path, columns: Sequence[str]) -> None:
    places: dict[str, list[int]] = {}
    for position, name in enumerate(columns, start=1):
        places.setdefault(name, []).append(position)
    same = [f'"{_shown(name)}" (columns {", ".join(map(str, at))})' for name, at in list(places.items()) if len(at) > 1]
    if same:
        _refuse(path, f"column names must differ, but these come more than once: {'; '.join(same[:10])}; rename them")


# ---------------------------------------------------------------- opening


class _OpenFile:
    """A file held open, and whether somebody writes to it meanwhile."""

    def __init__(self, path: pathlib.Path, raw: io.BufferedReader) -> None:
        self.path = path
        self.raw = raw
        status = os.fstat(raw.fileno())
        self.size = status.st_size
        self._written_ns = status.st_mtime_ns

    def refuse_changes(self) -> None:
        status = os.fstat(self.raw.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.size, self._written_ns):
            _refuse(self.path, CHANGED)

    def edges(self) -> tuple[bytes, bytes]:
        """The first and the last few bytes, where formats leave their marks."""
        head = self.raw.read(8)
        self.raw.seek(max(0, self.size - 4))
        tail = self.raw.read(4)
        self.raw.seek(0)
        return head, tail


@contextmanager
def _opened(path: pathlib.Path) -> Iterator[_OpenFile]:
    with _refusing(path):
        _refuse_irregular(path)
        raw = path.open("rb")
    with raw:
        yield _OpenFile(path, raw)


def _refuse_irregular(path: pathlib.Path) -> None:
    try:
        mode = path.stat().st_mode
    except ValueError as exc:  # a NUL in the path
        raise InputError(f"{_shown(str(path))}: is no possible file name") from exc
    if stat.S_ISDIR(mode):
        _refuse(path, f"is a directory; name one {FORMATS_IN_WORDS} file")
    if not stat.S_ISREG(mode):  # opening a pipe would wait, and it can't be read twice
        _refuse(path, "is not a regular file but a pipe or device, which can't be read twice; save it as a file first")


def _open_parquet(path: pathlib.Path, file: _OpenFile, encoding: str, delimiter: str | None) -> Source:
    _refuse_unlike_parquet(path, file)
    with _parquet(file.raw) as parquet:
        schema = parquet.schema_arrow
    if not schema.names:
        _refuse(path, "has no columns")
    _refuse_duplicates(path, schema.names)
    unused = [] if encoding.lower() in {"utf-8", "utf8"} else ["input.encoding"]
    unused += [] if delimiter is None else ["input.delimiter"]
    warnings = tuple(f"{key} has no meaning for a Parquet file and is not used" for key in unused)
    return Source(path, schema, _Parquet(path), warnings)


def _refuse_unlike_parquet(path: pathlib.Path, file: _OpenFile) -> None:
    head, tail = file.edges()
    if head[:4] == ENCRYPTED_MARK or tail == ENCRYPTED_MARK:
        _refuse(path, "is encrypted Parquet, which is not supported; decrypt it first")
    if head[:4] != PARQUET_MARK:
        _refuse(path, f"is not a Parquet file, whatever its ending says; is it CSV? Name it so ({FORMATS_IN_WORDS})")
    if tail != PARQUET_MARK or file.size < SMALLEST_PARQUET:
        _refuse(path, "is a Parquet file that was cut short: its end is missing; copy or write it again")


def _open_csv(path: pathlib.Path, file: _OpenFile, encoding: str, delimiter: str) -> Source:
    _refuse_bad_delimiter(path, delimiter)
    _refuse_bad_encoding(path, encoding)
    head, tail = file.edges()
    _refuse_unlike_text(path, head, tail, encoding)
    layout = _Csv(path, _header(path, file.raw, encoding, delimiter), encoding, delimiter)
    _refuse_duplicates(path, layout.columns)
    schema = pa.schema([(name, pa.string()) for name in layout.columns])
    return Source(path, schema, layout, tuple(_csv_warnings(layout, head)))


def _refuse_bad_delimiter(path: pathlib.Path, delimiter: str) -> None:
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        found = _shown(delimiter) or "nothing"
        _refuse(path, f"input.delimiter must be one ASCII character other than a quote or line break, not {found}")


def _refuse_bad_encoding(path: pathlib.Path, encoding: str) -> None:
    try:
        " ".encode(encoding)  # also refuses the codecs that are not about text
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError):
        _refuse(path, f"unknown input.encoding {_shown(encoding)}; known are utf-8, utf-16, cp1252, latin-1 and others")


def _refuse_unlike_text(path: pathlib.Path, head: bytes, tail: bytes, encoding: str) -> None:
    if head.startswith(PARQUET_MARK) and tail == PARQUET_MARK:
        _refuse(path, f"is a Parquet file, not text; name it {PARQUET_ENDING}")
    for mark, kind in PACKED_MARKS:
        if head.startswith(mark):
            _refuse(path, f"is {kind}, not text; unpack or export it to {FORMATS_IN_WORDS} first")
    if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32", "utf16", "utf32", "u16", "u32")):
        return
    for mark, wide in WIDE_MARKS:
        if head.startswith(mark):
            _refuse(path, f"is {wide} text and can't be read as {_shown(encoding)}; set input.encoding: {wide}")


def _header(path: pathlib.Path, raw: io.BufferedReader, encoding: str, delimiter: str) -> tuple[str, ...]:
    """The cells of the first line that is not blank."""
    blocks = _utf8_blocks(_chunks(raw), encoding)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(next(blocks)[:MAX_HEADER_SIZE])
        lines = io.StringIO(text, newline="")
        columns = next((cells for cells in csv.reader(lines, delimiter=delimiter, strict=True) if cells), None)
        is_at_end = lines.tell() == len(text) and not text.endswith(("\r", "\n"))
        is_cut_off = is_at_end and next(blocks) != b"\n"
    except csv.Error as exc:
        raise _located(_Csv(path, (), encoding, delimiter), raw, _Malformed(f"the header: {exc}", 1)) from exc
    except UnicodeError as exc:
        raise _located(_Csv(path, (), encoding, delimiter), raw, exc) from exc
    if columns is None:
        _refuse(path, "has no header line: it holds nothing but blank lines")
    if is_cut_off:
        _refuse(path, f"the header is longer than {MAX_HEADER_SIZE:,} bytes; is a quote never closed there?", 1)
    if any("\0" in name for name in columns):
        _refuse(path, "the header holds NUL characters; is it utf-16 text? Then set input.encoding: utf-16-le", 1)
    return tuple(columns)


def _csv_warnings(layout: "_Csv", head: bytes) -> Iterator[str]:
    others = [mark for mark in ";\t|," if mark in layout.columns[0] and mark != layout.delimiter]
    if len(layout.columns) == 1 and others:
        yield (
            f'the table has a single column, "{_shown(layout.columns[0])}"; '
            f"if {others[0]!r} separates its columns, set input.delimiter: {others[0]!r}"
        )
    if head.startswith(UTF8_BOM) and not codecs.lookup(layout.encoding).name.startswith("utf-8"):
        yield f"the file says that it is utf-8 (byte order mark) but is read as {_shown(layout.encoding)}"


# ---------------------------------------------------------------- rows of a file, cut where they are wanted


class _Feed(Protocol):
    """Batches in file order, each with the ordinal of its first row; None at the end."""

    def next_batch(self, wanted: int) -> tuple[int, pa.RecordBatch] | None:
        """The next batch; those that lie wholly before row `wanted` may be left out."""


class _Cursor:
    """Takes ranges of rows, in ascending order, out of batches that are cut anyhow."""

    def __init__(self, feed: _Feed) -> None:
        self._feed = feed
        self._taken = 0  # rows before this one are gone
        self._first = 0  # ordinal of the first row held
        self._held: pa.RecordBatch | None = None

    def take(self, first: int, count: int) -> list[pa.RecordBatch]:
        """The rows from `first` on, `count` of them, or fewer where the file ends before."""
        if first < self._taken:
            raise ValueError(f"partitions must come in ascending order, but row {first} was passed already")
        pieces = []
        while count and self._fill(first):
            piece = self._held.slice(first - self._first, count)  # type: ignore[union-attr]  # _fill has seen to it
            pieces.append(piece)
            first, count = first + piece.num_rows, count - piece.num_rows
        self._taken = first
        return pieces

    def _fill(self, wanted: int) -> bool:
        while self._held is None or wanted >= self._first + self._held.num_rows:
            following = self._feed.next_batch(wanted)
            if following is None:
                return False
            self._first, self._held = following
        return True


def _joined(pieces: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    table = pa.Table.from_batches(pieces, schema=schema)
    # Each batch brings its own dictionary; some readers of a table expect one for a column.
    return table.unify_dictionaries() if any(pa.types.is_dictionary(kind) for kind in schema.types) else table


# ---------------------------------------------------------------- Parquet


def _parquet(raw: io.BufferedReader, *, verify: bool = False) -> pq.ParquetFile:
    # With pre_buffer, or without buffer_size, whole row groups are held in memory.
    return pq.ParquetFile(raw, pre_buffer=False, buffer_size=READ_SIZE, page_checksum_verification=verify)


class _Parquet(Struct, frozen=True):
    """How to read a Parquet file, row group by row group."""

    path: pathlib.Path

    def measure(self, raw: io.BufferedReader) -> dict[str, Any]:
        """Decode every page; what is known of the file afterwards."""
        sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
        size = raw.tell()
        row_count = decoded = 0
        with _parquet(raw, verify=True) as parquet:
            for batch in parquet.iter_batches(CHECK_ROWS, use_threads=False):
                self._refuse_bad_text(batch, row_count)
                row_count += batch.num_rows
                decoded += batch.nbytes
            if row_count != parquet.metadata.num_rows:
                _refuse(self.path, f"holds {row_count} rows, but its footer says {parquet.metadata.num_rows}")
        return {"size": size, "sha256": sha256, "rows": row_count, "decoded_size": decoded}

    def _refuse_bad_text(self, batch: pa.RecordBatch, first_row: int) -> None:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as exc:
                span = f"rows {first_row} to {first_row + batch.num_rows - 1}"
                _refuse(self.path, f'column "{_shown(name)}", {span}: {_shown(str(exc), limit=200)}; write it again')

    @contextmanager
    def feed(self, raw: io.BufferedReader, identity: Identity) -> Iterator[_Feed]:
        """Batches of about 8 MiB at most."""
        with _refusing(self.path):
            parquet = _parquet(raw)
        with parquet:
            yield _ParquetFeed(parquet, suggest_partition_rows(identity))


class _ParquetFeed:
    """Row groups that hold no wanted row are not even read."""

    def __init__(self, parquet: pq.ParquetFile, batch_rows: int) -> None:
        self._parquet = parquet
        self._batch_rows = batch_rows
        self._group = -1  # the row group being read
        self._next = self._end = 0  # ordinals of the next row, and of the first row after the group
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def next_batch(self, wanted: int) -> tuple[int, pa.RecordBatch] | None:
        if wanted >= self._end and not self._open_group(wanted):
            return None
        batch = next(self._batches, None)
        if batch is None:
            return None
        first, self._next = self._next, self._next + batch.num_rows
        return first, batch

    def _open_group(self, wanted: int) -> bool:
        metadata = self._parquet.metadata
        while wanted >= self._end:
            self._group += 1
            if self._group >= metadata.num_row_groups:
                return False
            self._next, self._end = self._end, self._end + metadata.row_group(self._group).num_rows
        self._batches = self._parquet.iter_batches(self._batch_rows, row_groups=[self._group], use_threads=False)
        return True


# ---------------------------------------------------------------- CSV


class _Malformed(Exception):  # noqa: N818  # never leaves this module
    """Something is wrong with the text; `line` and the words are only known on the slow way."""

    def __init__(self, what: str = "", line: int | None = None) -> None:
        super().__init__(what)
        self.line = line


class _Csv(Struct, frozen=True):
    """How to read a CSV file, and what its header says."""

    path: pathlib.Path
    columns: tuple[str, ...]
    encoding: str
    delimiter: str

    def measure(self, raw: io.BufferedReader) -> dict[str, Any]:
        """Parse every row; what is known of the file afterwards."""
        sha256 = hashlib.sha256()
        try:
            row_count = sum(batch.num_rows for batch in self._batches(_chunks(raw, sha256.update)))
        except (pa.ArrowInvalid, UnicodeError, _Malformed) as exc:
            raise _located(self, raw, exc) from exc
        size = raw.tell()
        return {"size": size, "sha256": sha256.hexdigest(), "rows": row_count, "decoded_size": size}

    @contextmanager
    def feed(self, raw: io.BufferedReader, identity: Identity) -> Iterator[_Feed]:  # noqa: ARG002  # Parquet needs it
        """Batches of about 1 MiB of text."""
        yield _CsvFeed(self._batches(_chunks(raw)))

    def _batches(self, chunks: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
        names = None  # those in the first piece
        for piece in _whole_records(_utf8_blocks(chunks, self.encoding), self.delimiter.encode()):
            table = self._parsed(piece, names)
            names = list(self.columns)
            if table.column_names != names:
                _refuse(self.path, CHANGED)
            yield from table.to_batches()

    def _parsed(self, piece: bytes, names: list[str] | None) -> pa.Table:
        return pacsv.read_csv(
            pa.BufferReader(piece),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=len(piece) + 1, column_names=names),
            parse_options=pacsv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in self.columns},
                check_utf8=False,  # it was decoded a moment ago
            ),
        )


class _CsvFeed:
    """Text can't be skipped: what comes before a wanted row is read and dropped."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._next = 0  # ordinal of the next row

    def next_batch(self, wanted: int) -> tuple[int, pa.RecordBatch] | None:  # noqa: ARG002  # the protocol's
        batch = next(self._batches, None)
        if batch is None:
            return None
        first, self._next = self._next, self._next + batch.num_rows
        return first, batch


def _chunks(raw: io.BufferedReader, watch: Callable[[bytes], None] | None = None) -> Iterator[bytes]:
    while chunk := raw.read(READ_SIZE):
        if watch is not None:
            watch(chunk)
        yield chunk


def _utf8_blocks(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The text as UTF-8, without byte order marks, and with a line break at its end.

    All that comes before a byte that is not text is delivered before the UnicodeError. One line break too many is a
    blank line.
    """
    at_start = True
    for block in _decoded(chunks, encoding):
        text = block
        while at_start and text.startswith(UTF8_BOM):
            text = text.removeprefix(UTF8_BOM)
        at_start = at_start and not text
        if text:
            yield text
    yield b"\n"


def _decoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    for chunk in chunks:
        state = decoder.getstate()
        try:
            text, fault = decoder.decode(chunk).encode(), None
        except UnicodeError:
            decoder.setstate(state)
            text, fault = _up_to_fault(decoder, chunk)
        yield text
        if fault is not None:
            raise fault
    yield decoder.decode(b"", final=True).encode()


def _up_to_fault(decoder: codecs.IncrementalDecoder, chunk: bytes) -> tuple[bytes, UnicodeError | None]:
    """Byte by byte: the end of the good text is the place of the fault."""
    good = bytearray()
    for byte in chunk:
        try:
            good += decoder.decode(bytes((byte,))).encode()
        except UnicodeError as exc:
            return bytes(good), exc
    return bytes(good), None


def _whole_records(blocks: Iterable[bytes], delimiter: bytes) -> Iterator[bytes]:
    """The text in pieces of about a block that end where a record ends; none is blank.

    Each begins with a line break, because pyarrow takes a byte order mark off whatever it is given, and after the
    first piece that would be text. Raises `_Malformed` for quotes that pyarrow would take as it likes.
    """
    grammar = _Grammar.of(delimiter)
    rest = bytearray()
    enough = 0  # bytes worth another look: twice as many each time, so that a long record costs no square of time
    for block in blocks:
        rest += block
        if len(rest) < min(enough, MAX_ROW_SIZE):
            continue
        end, well_formed = grammar.records(rest)
        yield from _piece(rest[:end])
        del rest[:end]
        if not well_formed:
            raise _Malformed
        if len(rest) > MAX_ROW_SIZE:
            raise _Malformed(f"a row is longer than {MAX_ROW_SIZE:,} bytes")
        enough = 2 * len(rest)
    end, _ = grammar.records(rest)
    if end < len(rest):
        raise _Malformed
    yield from _piece(rest)


def _piece(records: bytearray) -> Iterator[bytes]:
    if records.strip(b"\r\n"):
        yield b"\n" + records


class _Grammar(Struct, frozen=True):
    """The dialect, as steps from quote to quote through text outside of quoted cells.

    Both patterns step over whole quoted cells and over quotes that are ordinary text, and may start anywhere outside
    of a quoted cell: the byte before a quote tells whether it opens a cell. `lines` ends at a line break, the last
    one in reach or nearly so; `cells` goes as far as it can. A text can be read in one way only, so a pattern that
    steps back never reads it differently; and mostly one certain byte follows the repetition of a class, where the
    engine steps back fast.

    Without possessive quantifiers and atomic groups, though they would fit: Python before 3.11.5 matches them wrongly
    (python/cpython#106052), and this decides where rows end.
    """

    lines: re.Pattern[bytes]
    cells: re.Pattern[bytes]
    marks: bytes  # what may follow a quoted cell

    @staticmethod
    def of(delimiter: bytes) -> "_Grammar":
        """The grammar with `delimiter`, one ASCII character, between cells."""
        mark = re.escape(delimiter)
        in_text = rb'(?<=[^%b\r\n]")[^%b\r\n]*(?![^%b\r\n])' % (mark, mark, mark)
        in_front = rb'(?<![^%b\r\n]")' % mark  # of a cell; also at the very beginning, with no byte before the quote
        quoted = rb'%b[^"]*"(?:"[^"]*"){0,%d}(?=[%b\r\n])' % (in_front, REACH_IN_CELL, mark)
        steps = rb'(?:[^"]*"(?:%b|%b)){0,%d}' % (in_text, quoted, REACH)
        lines = rb'%b(?:[^"]*\n|[^"]*\r)' % steps
        return _Grammar(re.compile(lines), re.compile(rb'%b[^"]*' % steps), delimiter + b"\r\n")

    def records(self, text: bytearray) -> tuple[int, bool]:
        """How far whole records reach in `text`, and whether a record may begin like what follows them."""
        if b'"' not in text:  # as in most tables; then every line is a record
            return max(text.rfind(b"\n"), text.rfind(b"\r")) + 1, True
        end = at = 0
        while at < len(text):
            if found := self.lines.match(text, at):
                end = at = found.end()
                continue
            start, at = at, self.cells.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty text, too
            if at == start:  # in front of a quoted cell that ends out of reach, not at all, or badly
                at = _after_quoted(text, start)
                if at < len(text) and text[at] not in self.marks:
                    return end, False
        return end, True


def _after_quoted(text: bytearray, start: int) -> int:
    """The place after the quoted cell at `start`; where it has no end (yet), that lies beyond the text's."""
    at, following = start, start + 1
    while following > at:
        at, following = following, QUOTED_TEXT.match(text, following).end()  # type: ignore[union-attr]  # see above
    return at + 1


# ---------------------------------------------------------------- CSV, the slow way: where it is wrong


def _located(layout: _Csv, raw: io.BufferedReader, cause: Exception) -> InputError:
    """What is wrong with the text and where, found by a second, slower look from the start."""
    raw.seek(0)
    walker = _Walker(layout)
    what, line = _shown(str(cause), limit=300), cause.line if isinstance(cause, _Malformed) else None
    try:
        for block in _utf8_blocks(_chunks(raw), layout.encoding):
            walker.feed(block)
        walker.finish()
    except _Malformed as exc:
        what, line = str(exc), exc.line
    except UnicodeError as exc:
        what, line = f"{walker.place()}: {_bad_byte(exc, layout.encoding)}", walker.line
    where = "" if line is None else f", line {line}"
    return InputError(f"{_shown(str(layout.path), limit=1_000)}{where}: {what}")


def _bad_byte(exc: UnicodeError, encoding: str) -> str:
    found = f"byte 0x{exc.object[exc.start]:02X}" if isinstance(exc, UnicodeDecodeError) and exc.object else "this"
    return (
        f"{found} is not {_shown(encoding)} text; "
        f"set input.encoding to what the file is written in (often cp1252, latin-1 or utf-16)"
    )


class _State(Enum):
    CELL_START = auto()
    UNQUOTED = auto()
    QUOTED = auto()
    CLOSED = auto()  # after a quote in a quoted cell: another one makes it text


class _Walker:
    """Follows the dialect mark by mark, and knows line, row and cell at each. Holds no more than a row's first bytes.

    Raises `_Malformed` at the first row with too many or too few cells, and at the first bad quote.
    """

    _HEAD_SIZE = 4 * SHOWN  # bytes; a character has up to four

    def __init__(self, layout: _Csv) -> None:
        self.line = 1  # of the next byte, as editors count
        self._columns = layout.columns
        self._delimiter = layout.delimiter.encode()
        self._unmarked = re.compile(b'[^"\r\n' + re.escape(self._delimiter) + b"]*")
        self._expected: int | None = None  # cells in a row; the header's
        self._row_line = self._quote_line = 1
        self._cell = 0
        self._state = _State.CELL_START
        self._after_cr = False
        self._head = bytearray()

    def feed(self, block: bytes) -> None:
        at = 0
        while at < len(block):
            plain = QUOTED_TEXT if self._state is _State.QUOTED else self._unmarked
            end = plain.match(block, at).end()  # type: ignore[union-attr]  # it matches the empty text, too
            if end > at:
                self._text(block[at:end])
            else:
                self._mark(block[at : at + 1])
            at = max(end, at + 1)

    def finish(self) -> None:
        if self._state is _State.QUOTED:
            self._fail('the quote that opens here is never closed; close it, or double a quote that is text ("")')

    def place(self) -> str:
        """The cell, as a reader would look for it."""
        name = f' ("{_shown(self._columns[self._cell])}")' if self._cell < len(self._columns) else ""
        return f"column {self._cell + 1}{name}"

    def _fail(self, what: str) -> NoReturn:
        raise _Malformed(f"{self.place()}: {what}", self._quote_line)

    def _text(self, text: bytes) -> None:
        self._keep(text)
        if self._state is _State.CLOSED:
            self._fail(
                f"the quoted cell that begins here closes on line {self.line}, but more text follows; "
                f'a quote within a quoted cell must be doubled ("")'
            )
        if self._state is _State.QUOTED:
            self.line += text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")
            self.line -= self._after_cr and text.startswith(b"\n")
        else:
            self._state = _State.UNQUOTED
        self._after_cr = text.endswith(b"\r")

    def _mark(self, mark: bytes) -> None:
        if mark in b"\r\n":
            self._line_break(mark)
            return
        self._after_cr = False
        self._keep(mark)
        if mark == b'"':
            self._quote()
        else:
            self._cell += 1
            self._state = _State.CELL_START

    def _quote(self) -> None:
        if self._state is _State.CELL_START:
            self._quote_line = self.line
            self._state = _State.QUOTED
        elif self._state is not _State.UNQUOTED:
            self._state = _State.CLOSED if self._state is _State.QUOTED else _State.QUOTED

    def _line_break(self, mark: bytes) -> None:
        second_half = mark == b"\n" and self._after_cr
        self._after_cr = mark == b"\r"
        if not second_half:
            self.line += 1
            self._end_row()

    def _end_row(self) -> None:
        blank = self._cell == 0 and self._state is _State.CELL_START
        found = self._cell + 1
        if not blank and self._expected is None:
            self._expected = found
        if not blank and found != self._expected:
            start = _shown(self._head.decode(errors="replace"))
            raise _Malformed(
                f"expected {self._expected} cells as in the header, found {found}; the row begins {start}; "
                f"put quotes around cells that contain {self._delimiter.decode()!r}, quotes or line breaks",
                self._row_line,
            )
        self._row_line, self._cell, self._state = self.line, 0, _State.CELL_START
        self._head.clear()

    def _keep(self, text: bytes) -> None:
        if len(self._head) < self._HEAD_SIZE:
            self._head += text[: self._HEAD_SIZE]


# ---------------------------------------------------------------- Python values


def _values(column: pa.ChunkedArray) -> list[object]:
    try:
        values: list[object] = column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        return [_value(scalar) for chunk in column.chunks for scalar in chunk]
    return values


def _value(scalar: Any) -> object:
    """One value, so that what it becomes does not depend on its neighbours."""
    try:
        value: object = scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return _without_python(scalar)
    return value


def _without_python(scalar: Any) -> object:
    kind = scalar.type
    if pa.types.is_dictionary(kind):
        return _value(scalar.value)
    if pa.types.is_struct(kind):
        return {field.name: _value(scalar[index]) for index, field in enumerate(kind)}
    if pa.types.is_map(kind):
        return [(_value(entry[0]), _value(entry[1])) for entry in scalar.values]
    if pa.types.is_nested(kind):
        return [_value(item) for item in scalar.values]
    return _as_text(scalar)


def _as_text(scalar: Any) -> str:
    """ISO form where there is one, otherwise the plain number that the file holds."""
    try:
        text = str(scalar.cast(pa.string()).as_py())
    except pa.ArrowException:
        return str(scalar.value)
    return str(scalar.value) if text.startswith("<") else text  # "<value out of range: …>"
