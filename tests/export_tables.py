"""How cells of a result come out as CSV and JSONL: examples for docs/answers.md, made by the code."""

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from cometbatch.input.values import JSON_MARK
from cometbatch.results.export import ENCODERS
from cometbatch.results.rows import Piece

MOMENT = datetime(2026, 9, 1, 12, 0, 0, 500_000, tzinfo=UTC)
EXAMPLES: Final[tuple[tuple[str, pa.DataType | str, Any], ...]] = (
    ("null", pa.string(), None),
    ("empty text", pa.string(), ""),
    ("text", pa.string(), 'a "b", c'),
    ("integer", pa.int64(), 2**63 - 1),
    ("decimal number", pa.decimal128(38, 18), Decimal("0.0000375")),
    ("number of 64 bits", pa.float64(), 0.1),
    ("number of 32 bits", pa.float32(), 0.1),
    ("not a number", pa.float64(), float("nan")),
    ("truth value", pa.bool_(), True),
    ("date", pa.date32(), date(2026, 9, 1)),
    ("moment with a zone", pa.timestamp("us", tz="UTC"), MOMENT),
    ("moment without one", pa.timestamp("us"), MOMENT.replace(tzinfo=None)),
    ("moment to the nanosecond", pa.timestamp("ns"), 1_700_000_000_000_000_001),
    ("time of day", pa.time64("us"), time(12, 30)),
    ("span", pa.duration("us"), timedelta(days=1, seconds=5)),
    ("binary data", pa.binary(), b"\xff\x00"),
    ("binary data that is text", pa.binary(), b"abc"),
    ("list", pa.list_(pa.int64()), [1, None]),
    ("empty list", pa.list_(pa.int64()), []),
    (
        "structure",
        pa.struct([("a", pa.decimal128(9, 2)), ("b", pa.binary())]),
        {"a": Decimal("1.50"), "b": b"\xff"},
    ),
    ("map", pa.map_(pa.string(), pa.int64()), [("a", 1)]),
    ("JSON of JSON Lines, or of an answer", "json", '{"n":1.10,"t":["a"]}'),
    ("a text of such a column", "json", '"a"'),
    ("a text there that is no JSON", "json", "{a"),
    ("category", pa.dictionary(pa.int32(), pa.string()), "red"),
    ("UUID", pa.uuid(), uuid.UUID(int=1).bytes),
)


def written(form: str, of: pa.DataType | str, value: Any) -> str:
    """A cell as a form writes it: what stands between the commas, or after the colon. "json": marked text."""
    kind, metadata = (pa.string(), JSON_MARK) if isinstance(of, str) else (of, None)
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    cells = pa.array([value], storage)
    column = pa.ExtensionArray.from_storage(kind, cells) if isinstance(kind, pa.BaseExtensionType) else cells
    schema = pa.schema([pa.field("cell", kind, metadata=metadata), ("end", pa.int64())])
    table = pa.Table.from_arrays([column, pa.array([0])], schema=schema)
    (line,) = ENCODERS[form](table.column_names).lines(Piece([0], table))
    text = line.decode().removesuffix("\n")
    return text.removesuffix(",0") if form == "csv" else text.removeprefix('{"cell":').removesuffix(',"end":0}')


def forms() -> Iterator[tuple[str, str, str]]:
    """Each example: what it is, its cell in CSV, its value in JSONL."""
    for words, kind, value in EXAMPLES:
        csv, json = (written(form, kind, value) for form in ("csv", "jsonl"))
        yield words, f"`{csv}`" if csv else "nothing", f"`{json}`"
