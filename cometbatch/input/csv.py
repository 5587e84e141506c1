"""CSV and TSV: rows by the standard library's `csv.reader` in its strict mode, in bounded memory.

The dialect is RFC 4180's: cells may be quoted with `"`, a quote within a quoted cell is doubled, lines end with LF,
CR LF or CR. A quote inside an unquoted cell (5" pipe) is ordinary text. A line without a single character is skipped;
but in a table of one column it is a row with an empty cell, as polars and pandas write it, unless it is the last line.
Byte order marks at the start are skipped.

Guards: text stays text (`007` stays `007`, `NULL` stays `NULL`, an empty cell is ""), line breaks within cells
included; every row has as many cells as the header; a fault is reported with line and column, and a quote that is
never closed with the line where it opens.
"""

import codecs
import csv
import hashlib
import io
import itertools
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import pyarrow as pa
from msgspec import Struct

from cometbatch.input import files
from cometbatch.input.files import Identity, Measured, OpenFile, refuse, shown
from cometbatch.input.lines import MAX_RECORD_SIZE
from cometbatch.input.packed import Stream, coding_of, unpacked
from cometbatch.input.parquet import is_parquet

READ_SIZE = 1 << 20  # bytes read from the file at a time; a batch is about as large
BATCH_ROWS = 4_096  # rows of a batch at most: as Python lists, short rows take many times the memory of their text
MAX_HEADER_SIZE = 1 << 20  # bytes; a longer header is refused, as it comes from a quote that is never closed
MAX_ROW_SIZE = 1 << 30  # bytes; a longer row is refused. Arrow's text columns end at 2 GiB
MAX_CELL_LENGTH = (1 << 31) - 1  # characters, the csv module's limit while we read: MAX_ROW_SIZE is reached before
UTF8_BOM = codecs.BOM_UTF8
WIDE_MARKS = (  # the longest first: the mark of UTF-32-LE starts with that of UTF-16-LE
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_CELL_LIMIT = threading.Lock()  # held while the csv module's limit, which the whole process shares, is raised


class CsvLayout(Struct, frozen=True):
    """A CSV file whose header has been read."""

    path: pathlib.Path
    columns: tuple[str, ...]
    encoding: str
    delimiter: str
    warnings: tuple[str, ...]
    hint: str = ""

    @property
    def schema(self) -> pa.Schema:
        """Every column is text."""
        return pa.schema([(name, pa.string()) for name in self.columns])

    def measure(self, raw: io.BufferedReader) -> Measured:
        """Parse every row. Raises `InputError` at the first that can't be read."""
        sha256, text_size = hashlib.sha256(), 0

        def watch(chunk: bytes) -> None:
            nonlocal text_size
            sha256.update(chunk)
            text_size += len(chunk)

        with unpacked(self.path, raw) as stream:
            row_count = sum(len(rows) for rows in self._batches(stream, watch, is_packed=stream is not raw))
            is_packed = stream is not raw
        size, digest = files.digest(raw) if is_packed else (text_size, sha256.hexdigest())
        return Measured(row_count, size, digest, text_size)

    @contextmanager
    def feed(self, raw: io.BufferedReader, identity: Identity) -> Iterator["CsvFeed"]:  # noqa: ARG002  # Parquet needs it
        """Batches of about 1 MiB of text."""
        with unpacked(self.path, raw) as stream:
            yield CsvFeed(self._batches(stream, is_packed=stream is not raw), self.schema)

    def _batches(
        self, stream: Stream, watch: Callable[[bytes], None] | None = None, *, is_packed: bool
    ) -> Iterator[list[list[str]]]:
        rows = _Rows(self.path, stream, self.encoding, self.delimiter, watch, is_packed=is_packed)
        if rows.header() != self.columns:
            raise files.changed(self.path)
        while batch := rows.take(BATCH_ROWS):
            yield batch


class CsvFeed:
    """Text can't be skipped: rows before a wanted one are read and dropped."""

    def __init__(self, batches: Iterator[list[list[str]]], schema: pa.Schema) -> None:
        self._batches = batches
        self._schema = schema
        self._next = 0  # ordinal of the next row

    def next_batch(self, wanted: int) -> tuple[int, pa.RecordBatch] | None:
        """The next batch that reaches row `wanted`, with the ordinal of its first row; None at the end."""
        for rows in self._batches:
            first, self._next = self._next, self._next + len(rows)
            if wanted < self._next:
                columns = [pa.array(cells, pa.string()) for cells in zip(*rows, strict=True)]
                return first, pa.RecordBatch.from_arrays(columns, schema=self._schema)
        return None


def open_csv(file: OpenFile, encoding: str, delimiter: str) -> CsvLayout:
    """Read the header. Raises `InputError` for settings that make no sense, and for what is no text with a header."""
    path = file.path
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        found = shown(delimiter) or "nothing"
        refuse(path, f"input.delimiter must be one ASCII character other than a quote or line break, not {found}")
    try:
        " ".encode(encoding)  # also refuses the codecs that are not about text
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError):
        refuse(path, f"unknown input.encoding {shown(encoding)}; known are utf-8, utf-16, cp1252, latin-1 and others")
    head, tail = file.edges()
    is_packed = coding_of(path.name, head[:4]) is not None
    if is_packed:
        with unpacked(path, file.raw) as stream:
            head, tail = stream.read(len(head)), b""
    _refuse_unlike_text(path, head, tail, encoding)
    with unpacked(path, file.raw) as stream:
        columns = _Rows(path, stream, encoding, delimiter, is_packed=is_packed).header()
    if not columns:
        refuse(path, "has no header line: it holds nothing but blank lines")
    if any("\0" in name for name in columns):
        refuse(path, "the header holds NUL characters; is it utf-16 text? Then set input.encoding: utf-16-le", 1)
    warnings = tuple(_warnings(columns, encoding, delimiter, head))
    return CsvLayout(path, columns, encoding, delimiter, warnings, _delimiter_hint(columns, delimiter))


def _refuse_unlike_text(path: pathlib.Path, head: bytes, tail: bytes, encoding: str) -> None:
    if is_parquet(head, tail):
        refuse(path, "is a Parquet file, not text; name it .parquet")
    files.refuse_packed(path, head)
    if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32", "utf16", "utf32", "u16", "u32")):
        return
    for mark, wide in WIDE_MARKS:
        if head.startswith(mark):
            refuse(path, f"is {wide} text and can't be read as {shown(encoding)}; set input.encoding: {wide}")


def _warnings(columns: Sequence[str], encoding: str, delimiter: str, head: bytes) -> Iterator[str]:
    others = [mark for mark in ";\t|," if mark in columns[0] and mark != delimiter]
    if len(columns) == 1 and others:
        yield (
            f'the table has a single column, "{shown(columns[0])}"; '
            f"if {others[0]!r} separates its columns, set input.delimiter: {others[0]!r}"
        )
    if head.startswith(UTF8_BOM) and not codecs.lookup(encoding).name.startswith("utf-8"):
        yield f"the file says that it is utf-8 (byte order mark) but is read as {shown(encoding)}"


def _delimiter_hint(columns: Sequence[str], delimiter: str) -> str:
    """Why a header may lack a column that is meant: JSON, or another delimiter, by its marks or Excel's first line."""
    first = columns[0]
    if first.startswith(('{"', "{'")):
        return "The first line looks like JSON and no header: a file with one JSON object a line must end in .jsonl."
    if first.casefold().startswith("sep="):
        mark = first[len("sep=") :][:1] or delimiter
        setting = "" if mark == delimiter else f" and set input.delimiter: {mark!r}"
        return f"The first line, sep={shown(mark)}, is Excel's note of the delimiter and no header: delete it{setting}."
    counts = {mark: sum(name.count(mark) for name in columns) for mark in ";\t|," if mark != delimiter}
    mark = max(counts, key=counts.__getitem__)
    if not counts[mark]:
        return ""
    return f"The header has {shown(mark)} in it: if that separates the columns, set input.delimiter: {mark!r}."


# ---------------------------------------------------------------- rows


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Raise the csv module's limit on cells (131,072 characters by default), and put it back."""
    with _CELL_LIMIT:
        before = csv.field_size_limit(MAX_CELL_LENGTH)
        try:
            yield
        finally:
            csv.field_size_limit(before)


class _Rows:
    """The rows of a text in order, each a list of its cells; blank lines are left out where they are no rows.

    `watch` sees each block of bytes as it is read. `is_packed`: the file is compressed, and may unpack to anything, so
    that a row has the bound of a record. Raises `InputError` with line and column at the first fault.
    """

    def __init__(
        self,
        path: pathlib.Path,
        stream: Stream,
        encoding: str,
        delimiter: str,
        watch: Callable[[bytes], None] | None = None,
        *,
        is_packed: bool,
    ) -> None:
        self._path = path
        self._stream = stream
        self._is_packed = is_packed
        self._encoding = encoding
        self._delimiter = delimiter
        self._watch = watch
        self._columns: tuple[str, ...] = ()  # empty until the header is read
        self._size = 0  # bytes read since the last batch was complete
        self._line = 0  # on which the last row ended
        self._blank_line = 0  # the line of the row that is being handed out, if that is blank: a further one was read
        self._blocks: list[tuple[int, str]] = []  # the text since then, in blocks, each with the line before it
        self._begun: list[str] = []  # pieces of a line that is being read
        lines = itertools.chain.from_iterable(io.StringIO(block, newline="") for block in self._whole_lines())
        self._reader = csv.reader(lines, delimiter=delimiter, strict=True)
        self._rows: Iterator[list[str]] = filter(None, self._reader)

    def header(self) -> tuple[str, ...]:
        """The cells of the first line that is not blank; empty where there is none."""
        for row in self.take(1):
            self._columns = tuple(row)
        if len(self._columns) == 1:
            self._rows = self._with_blank_lines()
        return self._columns

    def _with_blank_lines(self) -> Iterator[list[str]]:
        """The rows of a table of one column. A blank line is a row when another line follows."""
        blank = 0
        for row in self._reader:
            if blank:
                self._blank_line = blank
                yield [""]
                self._blank_line = 0
            if row:
                blank = 0
                yield row
            else:
                blank = self._reader.line_num

    def take(self, count: int) -> list[list[str]]:
        """The next rows, `count` at most, and about a block of the file at most. Empty at the end."""
        width = len(self._columns)
        rows: list[list[str]] = []
        try:
            with _cells_of_any_length():
                for row in itertools.islice(self._rows, count):
                    if len(row) != width and width:
                        self._refuse_width(len(row))
                    if self._is_packed and self._size + READ_SIZE > MAX_RECORD_SIZE:
                        self._refuse_long_record()
                    rows.append(row)
                    self._line = self._blank_line or self._reader.line_num
                    if self._size and not self._blank_line:
                        self._size = 0
                        del self._blocks[:-1]
                        break
        except csv.Error:
            self._refuse_quote()
        except UnicodeError as exc:
            self._refuse_byte(exc)
        return rows

    # -------------------------------------------------------- from bytes to lines

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._stream.read(READ_SIZE):
            if self._watch is not None:
                self._watch(chunk)
            self._refuse_length()
            self._size += len(chunk)
            yield chunk

    def _text(self) -> Iterator[str]:
        """The text in blocks, without byte order marks at its start.

        Text before a byte that is not text is delivered before the `UnicodeError`.
        """
        at_start = True
        for block in _decoded(self._chunks(), self._encoding):
            text = block.lstrip("\ufeff") if at_start else block
            at_start = at_start and not text
            yield text

    def _whole_lines(self) -> Iterator[str]:
        """The text in blocks that end where a line ends; only the last one may lack a line break."""
        for text in self._text():
            end = max(text.rfind("\n"), text.rfind("\r")) + 1
            if end:
                yield self._block(text[:end])
            self._begun.append(text[end:])
        yield self._block("")

    def _block(self, end: str) -> str:
        block = "".join((*self._begun, end))
        self._begun.clear()
        self._blocks.append((self._reader.line_num, block))
        return block

    # -------------------------------------------------------- faults

    def _row_lines(self) -> list[str]:
        """The lines of the row in progress that the csv module has got, without blank lines before it."""
        before = self._blocks[0][0] if self._blocks else 0
        lines = io.StringIO("".join(block for _, block in self._blocks), newline="")
        since = itertools.islice(lines, self._line - before, self._reader.line_num - before)
        return list(itertools.dropwhile(lambda line: not line.strip("\r\n"), since))

    def _column(self, index: int) -> str:
        """A column as a reader would look for it."""
        name = f' ("{shown(self._columns[index])}")' if index < len(self._columns) else ""
        return f"column {index + 1}{name}"

    def _refuse_length(self) -> None:
        """Before a further block is read: those since the row began, but for the first one, are all of that row."""
        most = MAX_RECORD_SIZE if self._is_packed else MAX_ROW_SIZE
        if self._columns and self._size > most:
            self._refuse_long_row(most)
        if not self._columns and self._size >= MAX_HEADER_SIZE:
            what = f"the header is longer than {MAX_HEADER_SIZE:,} bytes; is a quote never closed there?"
            refuse(self._path, what, self._line + 1)

    def _refuse_long_record(self) -> None:
        """Look at the exact length of a row that began many blocks ago."""
        if len("".join(self._row_lines()).rstrip("\r\n").encode(self._encoding)) > MAX_RECORD_SIZE:
            self._refuse_long_row(MAX_RECORD_SIZE)

    def _refuse_long_row(self, most: int) -> NoReturn:
        what = f"a row is longer than {most:,} bytes; is a quote never closed there?"
        refuse(self._path, what, self._line + 1)

    def _refuse_width(self, found: int) -> NoReturn:
        lines = self._row_lines()
        start = shown("".join(lines).rstrip("\r\n"))
        refuse(
            self._path,
            f"expected {len(self._columns)} cells as in the header, found {found}; the row begins {start}; "
            f"put quotes around cells that contain {self._delimiter!r}, quotes or line breaks",
            self._reader.line_num - len(lines) + 1,
            quote=start,
        )

    def _refuse_quote(self) -> NoReturn:
        """Say which quote is wrong: the csv module only says that one is."""
        lines = self._row_lines()
        text, first = "".join(lines), self._reader.line_num - len(lines) + 1
        column, opened, closed = _wrong_quote(text, self._delimiter)
        if closed is None:
            what = 'the quote that opens here is never closed; close it, or double a quote that is text ("")'
        else:
            what = (
                f"the quoted cell that begins here closes on line {first + _line_breaks(text[:closed])}, but more text "
                'follows; a quote within a quoted cell must be doubled ("")'
            )
        refuse(self._path, f"{self._column(column)}: {what}", first + _line_breaks(text[:opened]))

    def _refuse_byte(self, cause: UnicodeError) -> NoReturn:
        """Say in which line and cell the byte lies that is not text."""
        begun = "".join(self._begun)
        with _cells_of_any_length():
            cells = next(csv.reader([*self._row_lines(), begun], delimiter=self._delimiter), [])
        place = self._column(max(len(cells), 1) - 1)
        found = "this"
        if isinstance(cause, UnicodeDecodeError) and cause.object:
            found = f"byte 0x{cause.object[cause.start]:02X}"
        refuse(
            self._path,
            f"{place}: {found} is not {shown(self._encoding)} text; "
            "set input.encoding to what the file is written in (often cp1252, latin-1 or utf-16)",
            self._reader.line_num + 1,
        )


def _wrong_quote(text: str, delimiter: str) -> tuple[int, int, int | None]:
    """In a row that `csv.reader` refuses: the column of the cell at fault, and where that opens and closes."""
    column = at = 0
    while True:
        if text.startswith('"', at):
            opened = at
            at = text.find('"', at + 1)
            while at >= 0 and text.startswith('""', at):
                at = text.find('"', at + 2)
            if at < 0:
                return column, opened, None
            if text[at + 1] not in (delimiter, "\r", "\n"):
                return column, opened, at
        at = text.index(delimiter, at) + 1
        column += 1


def _line_breaks(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _decoded(chunks: Iterator[bytes], encoding: str) -> Iterator[str]:
    """The text in blocks, none of which ends between CR and LF."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=False)
    for chunk in itertools.chain(chunks, [b""]):
        state = decoder.getstate()
        try:
            text, fault = decoder.decode(chunk, final=not chunk), None
            text.encode()  # lone surrogates, which some encodings have, are not text
        except UnicodeError as exc:
            decoder.setstate(state)
            text, fault = _up_to_fault(decoder, chunk, exc)
        yield text
        if fault is not None:
            raise fault


def _up_to_fault(
    decoder: io.IncrementalNewlineDecoder, chunk: bytes, fault: UnicodeError
) -> tuple[str, UnicodeError | None]:
    """The text before the fault, found byte by byte."""
    good: list[str] = []
    for byte in chunk:
        try:
            text = decoder.decode(bytes((byte,)))
            text.encode()
        except UnicodeError as exc:
            fault = exc
            break
        good.append(text)
    has_cr = decoder.getstate()[1] & 1  # held back, as its LF might have followed
    return "".join(good) + "\r" * has_cr, fault
