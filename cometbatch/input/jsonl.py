"""JSON Lines: one object a line, the types of its columns known only once every line was read.

Guards: text stays text, whole numbers stay exact, and nothing is taken for a date. The columns are the names of all
objects, in the order in which they first come; what a line lacks is null, and so is null. A column of one type has that
type. One that holds lists or objects, several types, or whole numbers beyond 64 bits is JSON text as the file has it,
marked so (`values.JSON_MARK`) that templates get its values here and in any later read of the result.
"""

import io
import json
import pathlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import msgspec
import pyarrow as pa
from msgspec import Struct

from cometbatch.errors import InputError
from cometbatch.input import files
from cometbatch.input.files import Identity, Measured, OpenFile, Stamp, refuse, shown
from cometbatch.input.lines import Line, lines
from cometbatch.input.packed import Stream, unpacked
from cometbatch.input.parquet import MARK
from cometbatch.input.values import JSON_MARK, is_json

BATCH_BYTES: Final = 1 << 20  # of the lines of a batch, about
BATCH_ROWS: Final = 4_096  # rows of a batch at most
BATCH_CELLS: Final = 1 << 18  # of a batch at most, or one row: lines may lack most of many columns
CELL_BYTES: Final = 8  # that a cell takes in memory at least, also where its line lacks it
MAX_COLUMNS: Final = 10_000  # names in all lines together; above it names are surely data, and would fill the memory
_UTF8_BOM: Final = b"\xef\xbb\xbf"
_WIDE_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_TEXT, _TRUTH, _FRACTION, _WHOLE, _NEGATIVE, _UNSIGNED, _OTHER = (1 << bit for bit in range(7))
_FLAGS: Final[dict[type, int]] = {str: _TEXT, bool: _TRUTH, float: _FRACTION, list: _OTHER, dict: _OTHER, type(None): 0}
_TYPES: Final = {
    0: pa.string(),
    _TEXT: pa.string(),
    _TRUTH: pa.bool_(),
    _FRACTION: pa.float64(),
    _WHOLE: pa.int64(),
    _NEGATIVE: pa.int64(),
    _WHOLE | _NEGATIVE: pa.int64(),
    _UNSIGNED: pa.uint64(),
    _WHOLE | _UNSIGNED: pa.uint64(),
}
"""The types of columns whose values are all of these kinds; every other column is JSON text."""
_RAW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_HALF: Final = r"a \u escape is half of a surrogate pair, which is no text"
_ONE_A_LINE: Final = "a line holds one JSON object"


class Scan(Struct, frozen=True):
    """What a read of every line found: kinds of values by column, in order; rows; bytes of text, unpacked."""

    kinds: dict[str, int]
    rows: int
    size: int


class JsonlLayout(Struct, frozen=True):
    """A JSON Lines file of which every line has been read.

    `scan`, `stamp`: what was found, and the file's stamp before that. `schema` may have more columns, and wider ones,
    than the file itself, where it is one of several.
    """

    path: pathlib.Path
    schema: pa.Schema
    scan: Scan
    stamp: Stamp
    warnings: tuple[str, ...] = ()
    hint: str = ""

    def measure(self, raw: io.BufferedReader) -> Measured:
        """Sum up the file, and read every line again if it may have changed. Raises `InputError`."""
        size, sha256 = files.digest(raw)
        if OpenFile(self.path, raw).stamp() != self.stamp and _scan(self.path, raw) != self.scan:
            raise files.changed(self.path)
        decoded = max(self.scan.size, self.scan.rows * len(self.schema) * CELL_BYTES)
        return Measured(self.scan.rows, size, sha256, decoded)

    @contextmanager
    def feed(self, raw: io.BufferedReader, identity: Identity) -> Iterator["JsonlFeed"]:  # noqa: ARG002  # Parquet needs it
        """Batches of about 1 MiB of text."""
        with unpacked(self.path, raw) as stream:
            yield JsonlFeed(self.path, _records(self.path, stream), self.schema)


class JsonlFeed:
    """Lines can't be found by their number: those before a wanted one are read and dropped."""

    def __init__(self, path: pathlib.Path, records: Iterator[Line], schema: pa.Schema) -> None:
        self._path = path
        self._records = enumerate(records)
        self._schema = schema
        self._has_json = any(map(is_json, schema))
        self._most_rows = max(1, min(BATCH_ROWS, BATCH_CELLS // len(schema)))

    def next_batch(self, wanted: int) -> tuple[int, pa.RecordBatch] | None:
        """The next batch, from row `wanted` on, with the ordinal of its first row; None at the end."""
        first, size = wanted, 0
        rows: list[Line] = []
        for ordinal, line in self._records:
            if ordinal < wanted:
                continue
            first = first if rows else ordinal
            rows.append(line)
            size += len(line.data)
            if len(rows) >= self._most_rows or size >= BATCH_BYTES:
                break
        return (first, self._batch(rows)) if rows else None

    def _batch(self, rows: list[Line]) -> pa.RecordBatch:
        values = [_object(self._path, line) for line in rows]
        raws = [_RAW.decode(line.data) for line in rows] if self._has_json else []
        columns = []
        for field in self._schema:
            cells: list[Any] = [each.get(field.name) for each in values]
            if is_json(field):
                cells = [
                    None if cell is None else bytes(raw[field.name]).decode()
                    for cell, raw in zip(cells, raws, strict=True)
                ]
            columns.append(pa.array(cells, field.type))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def open_jsonl(file: OpenFile, encoding: str, delimiter: str | None) -> JsonlLayout:
    """Read every line. Raises `InputError` with the first that is no JSON object.

    `encoding` and `delimiter` are for other text: where they are set, there is a warning that they are not used.
    """
    stamp = file.stamp()
    try:
        scan = _scan(file.path, file.raw)
    except InputError:
        if file.stamp() != stamp:  # half of a line that is being written is no fault of the file
            raise files.changed(file.path) from None
        raise
    unused = files.unused(encoding, delimiter)
    warnings = tuple(f"{key} has no meaning for JSON Lines and is not used" for key in unused)
    return JsonlLayout(file.path, schema_of([scan]), scan, stamp, warnings)


def schema_of(scans: Iterable[Scan]) -> pa.Schema:
    """The columns of these files together, in the order in which their names first come."""
    kinds: dict[str, int] = {}
    for scan in scans:
        for name, flags in scan.kinds.items():
            kinds[name] = kinds.get(name, 0) | flags
    return pa.schema([_field(name, flags) for name, flags in kinds.items()])


def _field(name: str, flags: int) -> pa.Field:
    kind = _TYPES.get(flags)
    return pa.field(name, pa.string(), metadata=JSON_MARK) if kind is None else pa.field(name, kind)


def _scan(path: pathlib.Path, raw: io.BufferedReader) -> Scan:
    kinds: dict[str, int] = {}
    rows = size = 0
    with unpacked(path, raw) as stream:
        for line in _records(path, stream):
            rows, size = rows + 1, line.offset + len(line.data) + 1
            for name, value in _object(path, line).items():
                flags = _FLAGS.get(type(value))
                if flags is None:
                    flags = _flags_of_whole(value)
                try:
                    kinds[name] |= flags
                except KeyError:
                    _refuse_name(path, line, name, len(kinds))
                    kinds[name] = flags
    return Scan(kinds, rows, size)


def _flags_of_whole(value: int) -> int:
    if value < 0:
        return _NEGATIVE if value >= -(1 << 63) else _OTHER
    return _WHOLE if value < 1 << 63 else _UNSIGNED if value < 1 << 64 else _OTHER


def _refuse_name(path: pathlib.Path, line: Line, name: str, known: int) -> None:
    if known >= MAX_COLUMNS:
        what = f"more than {MAX_COLUMNS:,} different names, so these are data: put them into one object, under one name"
        refuse(path, f"with {shown(name)} the lines have {what}", line.number)
    if "\0" in name:
        refuse(path, f"the name {shown(name)} holds a NUL character", line.number)


def _records(path: pathlib.Path, stream: Stream) -> Iterator[Line]:
    """The lines that are not blank, without a byte order mark. Raises `InputError` for other text than UTF-8."""
    for line in lines(path, stream):
        data = line.data
        if line.number == 1:
            if data.startswith(_WIDE_MARKS):
                refuse(path, "is utf-16 text, and JSON Lines are UTF-8: convert it with iconv -f utf-16 -t utf-8")
            files.refuse_packed(path, data[:8])
            if data.startswith(MARK):
                refuse(path, "is a Parquet file, not text; name it .parquet")
            if data.startswith(_UTF8_BOM):
                line = Line(1, line.offset, data.removeprefix(_UTF8_BOM))  # noqa: PLW2901
        if line.data and not line.data.isspace():
            yield line


def _object(path: pathlib.Path, line: Line) -> dict[str, Any]:
    """The object of a line. Raises `InputError` where there is none."""
    try:
        value = msgspec.json.decode(line.data)
    except (msgspec.MsgspecError, RecursionError) as error:
        _refuse_json(path, line, error)
    if type(value) is not dict:
        found = {list: "a list", str: "a text", type(None): "null", bool: "a truth value"}.get(type(value), "a number")
        hint = _hint_at_array(path) if type(value) is list else ""
        refuse(path, f"{_ONE_A_LINE}, found {found}{hint}", line.number)
    return value


def _refuse_json(path: pathlib.Path, line: Line, error: Exception) -> NoReturn:
    """Say where a line stops being JSON, and what else it may be."""
    if isinstance(error, RecursionError):
        refuse(path, "lists and objects are nested too deeply to be read", line.number)
    try:
        json.loads(line.data.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as wrong:
        what = f"byte 0x{line.data[wrong.start]:02X} at {wrong.start + 1} is not UTF-8 text, which JSON Lines are"
    except json.JSONDecodeError as wrong:
        text = wrong.doc.strip()
        hint = _hint_at_array(path) if text.startswith("[") else ""
        if text == "{":
            hint = f"; to put each object on one line: jq -c . {shown(path.name)}"
        what = f"column {wrong.colno}: {_ONE_A_LINE}, and this is none ({wrong.msg}){hint}"
    except ValueError as wrong:  # a constant that JSON lacks, or a number of thousands of digits
        what = "a number has more digits than can be read" if "digits" in str(wrong) else f"this is no JSON: {wrong}"
    except RecursionError:
        what = f"this is no JSON: {error}"
    else:
        is_number = "out of range" in str(error)  # else it is what is no Unicode text, or nothing that is known
        what = f"this can't be read: {error}" if is_number else f"this can't be read: {_HALF} ({error})"
    refuse(path, what, line.number)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value of JSON; write null")


def _hint_at_array(path: pathlib.Path) -> str:
    return f"; to make lines of an array: jq -c '.[]' {shown(path.name)}"
