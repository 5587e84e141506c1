"""The tables of docs/input.md, worked out by the code: what is in a cell or a template, and what goes out."""

import tempfile
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from cometbatch.input.table import open_source, partitions
from cometbatch.input.values import is_json, row_values
from cometbatch.prompt.suspicions import suspicions
from cometbatch.prompt.template import TemplateError, compile_prompt
from cometbatch.records import Failure

NOON = datetime(2026, 5, 4, 12)  # noqa: DTZ001 - columns have their own zones
CELLS: tuple[tuple[str, str, pa.Array], ...] = (
    ("text", "`007`", pa.array(["007"])),
    ("null", "", pa.array([None], pa.string())),
    ("truth", "true", pa.array([True])),
    ("whole number", "-7", pa.array([-7])),
    ("64-bit number", "0.1", pa.array([0.1])),
    ("32-bit number", "0.1", pa.array([0.1], pa.float32())),
    ("decimal number", "0E-8", pa.array([Decimal("0E-8")], pa.decimal128(10, 8))),
    ("day", "2026-05-04", pa.array([date(2026, 5, 4)])),
    ("moment", "2026-05-04 12:00", pa.array([NOON])),
    ("moment of a named zone (Asia/Tokyo)", "2026-05-04 12:00 UTC", pa.array([NOON], pa.timestamp("us", "Asia/Tokyo"))),
    ("moment of an offset (+02:00)", "2026-05-04 12:00 UTC", pa.array([NOON], pa.timestamp("us", "+02:00"))),
    ("moment in nanoseconds", "one after 2026-05-04 12:00", pa.array([1_777_896_000_000_000_001], pa.timestamp("ns"))),
    ("time of day", "12:30", pa.array([time(12, 30)])),
    ("span", "one day, two hours and a half second", pa.array([timedelta(days=1, hours=2, milliseconds=500)])),
    ("span in nanoseconds", "minus one", pa.array([-1], pa.duration("ns"))),
    ("binary", "the UTF-8 bytes of `Zoé`", pa.array(["Zoé".encode()])),
    ("binary", "the bytes FF FE", pa.array([b"\xff\xfe"])),
    ("list", "`a`, null, `é`", pa.array([["a", None, "é"]])),
    ("structure", "`n` is 1.5, `ok` is true, `at` is a moment", pa.array([{"n": 1.5, "ok": True, "at": NOON}])),
    ("map", "`k` is 1", pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))),
)  # fmt: skip
NULLS = (
    "{{ note }}",
    "{{ note|trim }}",
    "{{ 'Note: ' ~ note }}",
    "{{ ['a', note, 'b']|join(', ') }}",
    "{{ '%s' % note }}",
    "{{ '{}'.format(note) }}",
    "{{ note|default('none given') }}",
    "{{ note|length }}",
    "{% for word in note %}{{ word }}{% endfor %}",
    "{{ row|tojson }}",
    "{{ note is none }}",
    "{{ note.year }}",
)
WRITTEN = (
    ("{{ 2024 }}", ("city", "2024")),
    ("{{ none }}", ("city", "none")),
    ("{{ order-id }}", ("city", "order-id")),
    ("{{ user.name }}", ("city", "user.name")),
    ("{{ order id }}", ("city", "order id")),
    ("{{ row }}", ("city", "row")),
    ("{{ City }}", ("city",)),
    ("{{ prénom }}", ("city", "pre\u0301nom")),
)
LINES = (
    ('"2026-05-04T12:00:00Z"', '"007"'),
    ("true", "null"),
    ("1", "-7"),
    ("12345678901234567890", "0"),
    ("123456789012345678901234567890", "0"),
    ("1.50", "2.0"),
    ("1", "2.5"),
    ("1", '"one"'),
    ('{"a": [1.10, null]}', '["\\u00e9"]'),
)
FROM_JSON = (
    ('{"label": "x", "tags": ["a", "b"]}', "{{ (x|fromjson).label }}"),
    ('{"label": "x", "tags": ["a", "b"]}', "{{ (x|fromjson).tags|join(' ') }}"),
    ("[1, 2.5, null]", "{{ x|fromjson }}"),
    ("12", "{{ (x|fromjson) + 1 }}"),
    (None, "{{ x|fromjson }}"),
    ("", "{{ x|fromjson }}"),
    ("{label: x}", "{{ (x|fromjson).label }}"),
)
TOLD = ("Where is {city}?", "Where is ${city}?", "Where is it?", r"Where is it?\n{{ city }}")


def cells() -> Iterator[tuple[str, ...]]:
    """Type, value and what `{{ x }}` prints."""
    for kind, value, array in CELLS:
        (row,) = row_values(pa.table({"x": array}), ["x"])
        yield kind, value, _out("{{ x }}", row)


def nulls() -> Iterator[tuple[str, ...]]:
    """Template and what it gives for a null cell."""
    return ((_code(source), _out(source, {"note": None})) for source in NULLS)


def written() -> Iterator[tuple[str, ...]]:
    """Template, columns, and why it is refused."""
    for source, columns in WRITTEN:
        try:
            compile_prompt([("user", source)]).check(columns)
        except TemplateError as error:
            yield _code(source), ", ".join(map(_code, columns)), f"{error.reason} ({error.hint})"


def lines() -> Iterator[tuple[str, ...]]:
    """Two cells of JSON Lines, the column that they make, and what `{{ x }}` prints of each."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.jsonl"
        for cells_ in LINES:
            path.write_text("".join(f'{{"x": {cell}}}\n' for cell in cells_), encoding="utf-8")
            opened = open_source(path)
            field, (table,) = opened.schema.field("x"), opened.tables(opened.check(), partitions(2, 2))
            kind = "JSON text" if is_json(field) else str(field.type)
            printed = ", ".join(_out("{{ x }}", row) for row in row_values(table, ["x"]))
            yield ", ".join(map(_code, cells_)), kind, printed


def from_json() -> Iterator[tuple[str, ...]]:
    """A cell, a template with the filter, and what it gives."""
    for cell, source in FROM_JSON:
        yield (
            "null" if cell is None else _code(cell) if cell else "an empty text",
            _code(source),
            _out(source, {"x": cell}),
        )


def told() -> Iterator[tuple[str, ...]]:
    """Template and the warning."""
    for source in TOLD:
        yield _code(source), "; ".join(suspicions(compile_prompt([("user", source)]), ["city"]))


def _out(source: str, row: dict[str, object]) -> str:
    found = compile_prompt([("user", source)]).render(row)
    if isinstance(found, Failure):
        return "the row fails, unsent: " + found.message.rpartition("template line 1: ")[2]
    return _code(found[0].text) if found[0].text else "nothing"


def _code(text: str) -> str:
    return f"`{text}`"
