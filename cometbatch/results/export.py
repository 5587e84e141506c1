"""Rows for other programs: CSV, JSON a line, and Parquet, with every cell whole; some rows in memory at a time.

- A number has all its digits; a decimal has no exponent and no zeros at its end.
- A moment is ISO 8601, `2026-09-01T12:00:00.5+00:00`, with its offset where it has one. So are dates, times of day and
  spans (`PT5S`).
- Binary data is base64, in every place and for every value, so that a reader need not guess.
- A null is an empty cell in CSV, and an empty text is `""`; in JSON it is null. So is a number that JSON lacks (NaN).
- In CSV what is nested is the JSON that it is in the other form: lists as lists, structures as objects, the entries of
  a map as a list of pairs.
- A cell of a column that is marked as JSON text (those of JSON Lines that nest or mix types, free objects of answers)
  is that JSON in both forms, digit for digit. A text in there that is no JSON is a text.
"""

import base64
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import IO, Any, Final, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.input.values import is_json, python_values
from cometbatch.money.exact import format_amount
from cometbatch.results.parts import COMPRESSION, GROUP_BYTES
from cometbatch.results.rows import JOB_KEY, Piece, Rows
from cometbatch.results.score_columns import SCORES_KEY
from cometbatch.results.slices import SLICES_KEY

Convert: TypeAlias = Callable[[Any], object]
_ENCODE: Final = msgspec.json.Encoder(decimal_format="number").encode
_NEEDS_QUOTES: Final = re.compile('[",\r\n]|^[ \t]|[ \t]$')
_UNPRINTED: Final = re.compile(r"(-?\d{4,}-\d\d-\d\d) (\d)")
"""A moment that Python's own type can't hold, as `python_values` writes it out."""


class Encoder(Struct, frozen=True):
    """A form of text. `head`: what comes before the first row. `lines`: of some rows, with their line ends."""

    head: bytes
    lines: Callable[[Piece], Iterable[bytes]]


def csv_encoder(names: Sequence[str]) -> Encoder:
    """RFC 4180 in UTF-8, with a line of names."""
    head = ",".join(_quoted(name) for name in names) + "\n"
    is_single = len(names) == 1  # then an empty line would be no row to most readers

    def lines(piece: Piece) -> Iterator[bytes]:
        columns = [[cell_text(value) for value in values(piece.table, name)] for name in names]
        for cells in zip(*columns, strict=True):
            line = ",".join("" if cell is None else _quoted(cell) for cell in cells)
            yield (line or '""' if is_single else line).encode() + b"\n"

    return Encoder(head.encode(), lines)


def jsonl_encoder(names: Sequence[str]) -> Encoder:
    """One JSON object a line, its members in the order of the columns."""

    def lines(piece: Piece) -> Iterator[bytes]:
        for cells in zip(*(values(piece.table, name) for name in names), strict=True):
            yield _ENCODE(dict(zip(names, cells, strict=True))) + b"\n"

    return Encoder(b"", lines)


ENCODERS: Final = {"csv": csv_encoder, "jsonl": jsonl_encoder}
PARQUET: Final = "parquet"
"""The form that is no text."""


def write_parquet(file: IO[bytes], rows: Rows, pieces: Iterable[Piece], names: Sequence[str]) -> int:
    """Write these columns as a Parquet file, a piece in memory at a time; returns how many rows there are.

    Its metadata say what a reader must know of them: the job, the slices, the scores. They name no run, since these may
    be some of its rows, or other columns.
    """
    kept = {key: rows.metadata[key] for key in (JOB_KEY, SLICES_KEY, SCORES_KEY) if key in rows.metadata}
    written, writer = 0, None
    try:
        for table in itertools.chain(pieces_of(pieces, names), [None]):
            if writer is None:
                schema = (rows.empty() if table is None else table).select(names).schema
                writer = pq.ParquetWriter(file, schema.remove_metadata(), compression=COMPRESSION)
            if table is not None:
                writer.write_table(table.select(names).cast(writer.schema))
                written += table.num_rows
        if writer is not None:
            writer.add_key_value_metadata(kept)
    finally:
        if writer is not None:
            writer.close()
    return written


def pieces_of(pieces: Iterable[Piece], names: Sequence[str]) -> Iterator[pa.Table]:
    """Tables of these columns that are worth a row group, of pieces that are smaller."""
    held: list[pa.Table] = []
    size = 0
    for piece in pieces:
        held.append(piece.table.select(names))
        size += held[-1].nbytes
        if size >= GROUP_BYTES:
            yield pa.concat_tables(held)
            held, size = [], 0
    if held:
        yield pa.concat_tables(held)


def values(table: pa.Table, name: str) -> list[object]:
    """The cells of a column as values that JSON has: text, numbers (also `msgspec.Raw`), lists, objects, None."""
    column = table.column(name)
    convert = _json if is_json(table.schema.field(name)) else converter(column.type)
    found = python_values(column)
    return found if convert is None else [None if value is None else convert(value) for value in found]


def cell_text(value: object) -> str | None:
    """The text of a value that `values` gave, as it stands in a cell of a CSV; None for null."""
    match value:
        case None | str():
            return value
        case float():  # JSON lacks some
            return repr(value)
    return _ENCODE(value).decode()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if not text or _NEEDS_QUOTES.search(text) else text


def converter(kind: pa.DataType) -> Convert | None:
    """How Python values of an Arrow type become values that JSON has; None where they are that already."""
    if isinstance(kind, pa.BaseExtensionType):
        return str if kind.extension_name == "arrow.uuid" else converter(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return converter(kind.value_type)
    if kind.num_fields:
        return _any if pa.types.is_union(kind) else _nested(kind)
    told_by = ((pa.types.is_decimal, _number), (pa.types.is_temporal, _moment), (_is_binary, _base64))
    return next((convert for is_kind, convert in told_by if is_kind(kind)), None)


def _is_binary(kind: pa.DataType) -> bool:
    return "binary" in str(kind)


def _nested(kind: pa.DataType) -> Convert | None:
    """Lists of all sizes, structures and maps."""
    if pa.types.is_struct(kind):
        members = {field.name: converter(field.type) for field in kind}
        return lambda found: {name: _each(members[name], value) for name, value in found.items()}
    if pa.types.is_map(kind):
        key, item = converter(kind.key_type), converter(kind.item_type)
        return lambda pairs: [[_each(key, name), _each(item, value)] for name, value in pairs]
    inner = converter(kind.value_type)
    return None if inner is None else lambda items: [_each(inner, value) for value in items]


def _each(convert: Convert | None, value: object) -> object:
    return value if convert is None or value is None else convert(value)


def _any(value: object) -> object:
    """A value of which only its Python type is known."""
    match value:
        case Decimal():
            return _number(value)
        case bytes():
            return _base64(value)
        case datetime() | date() | time() | timedelta():
            return _moment(value)
        case dict():
            return {str(name): _any(item) for name, item in value.items()}
        case list() | tuple():
            return [_any(item) for item in value]
    return value


def _json(value: object) -> object:
    """What a JSON text stands for, as it is written, on one line."""
    if not isinstance(value, str):
        return value
    try:
        msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return value
    has_lines = "\n" in value or "\r" in value
    return msgspec.Raw((msgspec.json.format(value, indent=-1) if has_lines else value).encode())


def _number(value: Decimal) -> msgspec.Raw:
    return msgspec.Raw(format_amount(value).encode())


def _base64(value: str | bytes) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def _moment(value: object) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(msgspec.to_builtins(value))
    if isinstance(value, pa.MonthDayNano):
        return f"P{value.months}M{value.days}DT{Decimal(value.nanoseconds).scaleb(-9).normalize():f}S"
    return _UNPRINTED.sub(r"\1T\2", str(value))
