"""Rows as chunks: whatever the cells hold, the page's reader finds it, cut and marked, or exactly."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.reports.page.chunks import CELL_CHARACTERS, CHUNK_ROWS, WORTH_FINDING, Chunk, Encoder, StoredPrompt
from cometbatch.reports.page.page_columns import SHORT, Columns
from tests.page.memory_results import MemoryResult, encoded, result_table
from tests.page.reading import Row, read_chunks

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "",
        "\0",
        "\u202e</script><img onerror=alert(1)>",
        "😀" * 45,
        "a" * 2_001,
        "\ufeff",
        "x" * 1_999 + "😀",
        "naïve\r\n",
    ]
)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=-(10**19), max_value=10**19)
INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 0])
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "string": (pa.string(), TEXTS),
    "large_string": (pa.large_string(), TEXTS),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), TEXTS),
    "int64": (pa.int64(), INT64),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "float64": (pa.float64(), st.floats()),
    "decimal": (pa.decimal128(38, 18), DECIMALS),
    "bool": (pa.bool_(), st.booleans()),
}
STRUCT = pa.struct([("n", pa.int64()), ("t", pa.string()), ("b", pa.binary())])


def units(text: str) -> int:
    """The length as a browser counts it."""
    return len(text.encode("utf-16-le")) // 2


def beginning(text: str, most: int) -> str:
    """So many units of it at most."""
    return text.encode("utf-16-le")[: 2 * most].decode("utf-16-le", "ignore")


def shown(rows: Sequence[Row], name: str, kind: str) -> list[Any]:
    """Each cell of a column as a reader has it: the exact text or number."""
    return [_shown(row, name, kind) for row in rows]


def whole_length(row: Row, name: str, found: str) -> int:
    """The length of a text before it was cut."""
    cell = row.texts.get(name)
    return int(row.more.get("lengths", {}).get(name, units(found))) if cell is None else cell.length


def _shown(row: Row, name: str, kind: str) -> Any:
    if kind == "text":
        cell = row.texts[name]
        return None if cell is None else cell.text
    return row.more.get("full", {}).get(name, row.short[name])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_cell_is_found_again(kind: str, data: st.DataObject) -> None:
    """Of texts the first 2,000 units and the whole length; numbers exactly, as text where no float is the same."""
    arrow, cells = KINDS[kind]
    values = data.draw(st.lists(cells | st.none(), max_size=8))
    table = result_table(len(values), {"n": pa.array(values, arrow)})
    columns, rows = encoded([MemoryResult(table, batch_rows=3)])
    (column,) = (each for each in columns.described if each.name == "input:n")
    assert len(rows) == len(values)
    for value, row, found in zip(values, rows, shown(rows, column.name, column.kind), strict=True):
        if value is None:
            assert found is None
        elif isinstance(value, bool):
            assert found == str(value).lower()
        elif isinstance(value, str):
            assert found == beginning(value, CELL_CHARACTERS)
            assert whole_length(row, column.name, found) == units(value)
        elif isinstance(value, float) and math.isnan(value):
            assert found == "NaN"
        elif isinstance(value, float):
            assert found == value
        else:
            assert (Decimal(found) if isinstance(found, str) else Decimal(repr(found))) == value


@settings(max_examples=30, deadline=None)
@given(values=st.lists(TEXTS | st.none(), min_size=1, max_size=30))
def test_words_are_numbered_over_all_chunks(values: list[str | None]) -> None:
    """A word that came in an earlier chunk is not said again."""
    table = result_table(len(values), outputs={"response_model": values})
    source = MemoryResult(table)
    columns = Columns.of([source], has_prompts=False)
    encoder = Encoder(columns)
    chunks: list[Chunk] = []
    for at in range(len(values)):
        assert not list(encoder.add(0, [at], table.slice(at, 1)))
        chunks.extend(encoder.rest())
    rows = read_chunks(columns.to_list(), [(each.short, each.text) for each in chunks])
    expected = [None if value is None else beginning(value, CELL_CHARACTERS) for value in values]
    assert [row.short["response_model"] for row in rows] == expected


def test_thousands_of_words() -> None:
    """Words are counted over all chunks, however many there are."""
    words = [f"word {number % 5_000} 字" for number in range(7_000)]
    _, rows = encoded([MemoryResult(result_table(7_000, outputs={"response_model": words}))])
    assert [row.short["response_model"] for row in rows] == words


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pa.list_(pa.list_(pa.int64())), [[1, 2], [], None], "[[1,2],[],null]"),
        (STRUCT, {"n": 2**60, "t": "a\0😀", "b": b"\xff\x00"}, '{"n":1152921504606846976,"t":"a\\u0000😀","b":"ff00"}'),
        (pa.binary(), b"\xff\xfe\x00", "fffe00"),
        (pa.binary(), b"text", "text"),
        (pa.timestamp("us", tz="UTC"), datetime(2026, 9, 1, 12, tzinfo=UTC), "2026-09-01 12:00:00+00:00"),
        (pa.timestamp("ns"), pa.scalar(1, pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.duration("us"), timedelta(hours=26), "26:00:00"),
        (pa.date32(), pa.scalar(0, pa.date32()), "1970-01-01"),
        (pa.map_(pa.string(), pa.int64()), [("k", 1)], '[["k",1]]'),
        (pa.list_(pa.float64()), [1.5, math.nan], "[1.5,null]"),
        (pa.binary(2), b"\xff\x00", "ff00"),
    ],
)
def test_other_values_are_printed_as_in_a_prompt(kind: pa.DataType, value: object, text: str) -> None:
    """Structures as JSON, moments and spans as text, binary data that no prompt prints in hex."""
    plain = value.as_py() if isinstance(value, pa.Scalar) and not pa.types.is_timestamp(kind) else value
    column = (
        pa.array([plain, None], kind)
        if not isinstance(plain, pa.Scalar)
        else pa.array([1, None], pa.int64()).cast(kind)
    )
    columns, rows = encoded([MemoryResult(result_table(2, {"n": column}))])
    (found,) = (each for each in columns.described if each.name == "input:n")
    assert shown(rows, found.name, found.kind) == [text, None]


def test_columns_without_a_value() -> None:
    """A column of nulls, and a table without rows."""
    columns, rows = encoded([MemoryResult(result_table(3, {"n": pa.nulls(3)}))])
    assert shown(rows, "input:n", "text") == [None] * 3
    assert encoded([MemoryResult(result_table(0, {"n": pa.array([], pa.string())}))])[1] == []
    assert "input:n" in {each.name for each in columns.described}


def test_a_text_that_is_no_utf_8_is_shown() -> None:
    """Another program may have written anything into a column of texts."""
    raw = pa.array([b"a\xffb", b"\xc3\xa9", None], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    _, rows = encoded([MemoryResult(result_table(3, {"n": column}))])
    assert shown(rows, "input:n", "short") == ["a\ufffdb", "é", None]


def test_a_pair_of_surrogates_is_never_cut() -> None:
    """A character of two units at the end is left out whole."""
    texts = ["a" * at + "😀" * 1_001 for at in (0, 1)]
    _, rows = encoded([MemoryResult(result_table(2, outputs={"response": texts}))])
    cells = [row.texts["response"] for row in rows]
    assert [units(each.text) for each in cells if each] == [2_000, 1_999]
    assert [each.length for each in cells if each] == [2_002, 2_003]


def test_megabytes_in_a_cell_are_cut() -> None:
    """A chunk holds no more than the beginnings, and the whole lengths."""
    texts = ["x" * 1_000_000 + str(row) for row in range(5)]
    table = result_table(5, {"n": pa.array(texts)}, {"response": texts, "error_message": texts})
    _, rows = encoded([MemoryResult(table)])
    for row in rows:
        for name in ("input:n", "response", "error_message"):
            cell = row.texts[name]
            assert cell is not None
            assert (len(cell.text), cell.length) == (2_000, 1_000_001)


def test_chunks_have_a_bound() -> None:
    """No chunk has more than 2,000 rows; one with more than 8 MB of text gets no further rows."""
    source = MemoryResult(result_table(4_500, outputs={"response": ["字" * 2_000] * 4_500}), batch_rows=700)
    columns = Columns.of([source], has_prompts=False)
    encoder = Encoder(columns)
    chunks = [each for ordinals, table in source.tables(columns.read(0)) for each in encoder.add(0, ordinals, table)]
    chunks.extend(encoder.rest())
    assert sum(each.rows for each in chunks) == 4_500
    assert max(each.rows for each in chunks) <= CHUNK_ROWS
    assert len(chunks) > 3
    assert not list(encoder.rest())


def test_the_same_rows_make_the_same_chunks_in_whatever_pieces_they_come() -> None:
    """A page does not depend on how its result was read."""
    table = result_table(4_100, {"n": pa.array([f"row {row}" for row in range(4_100)])})

    def made(batch_rows: int) -> list[tuple[bytes, bytes]]:
        source = MemoryResult(table, batch_rows=batch_rows)
        columns = Columns.of([source], has_prompts=False)
        encoder = Encoder(columns)
        chunks = [each for some in source.tables(columns.read(0)) for each in encoder.add(0, *some)]
        return [(each.short, each.text) for each in (*chunks, *encoder.rest())]

    assert made(10_000) == made(64) == made(1_999)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_prompts_and_the_cells_that_stand_in_them(data: st.DataObject) -> None:
    """A cell that stands whole in the stored prompt is kept as a place in it, and read as if it were not."""
    long = st.sampled_from(
        ["A text of some length, in full.", "😀" * 13, "b" * 1_990, "c" * 3_000, "short", "", "é" * 30]
    )
    cells = data.draw(st.lists(long | st.none(), min_size=1, max_size=5))
    slots = [data.draw(st.lists(long | st.just(cell or ""), max_size=4)) for cell in cells]
    prompts = [data.draw(st.none() | st.just(StoredPrompt(some, 0))) for some in slots]
    table = result_table(len(cells), {"n": pa.array([*cells, "z" * 100], pa.string())[: len(cells)]})
    look = result_table(1, {"n": pa.array(["z" * 100])})
    columns, rows = encoded([MemoryResult(pa.concat_tables([look, table]))], [[None, *prompts]])
    for cell, prompt, row in zip(cells, prompts, rows[1:], strict=True):
        kept = row.texts["input:n"]
        assert (None if kept is None else (kept.text, kept.length)) == (
            None if cell is None else (beginning(cell, CELL_CHARACTERS), units(cell))
        )
        whole = None if prompt is None else "".join(prompt.texts)
        stored = row.texts["prompt"]
        assert (None if stored is None else stored.text) == (
            None if whole is None else beginning(whole, CELL_CHARACTERS)
        )
        assert row.short["frame"] == (None if prompt is None else 0)
        assert row.more.get("slots") == (list(map(units, prompt.texts)) if prompt and len(prompt.texts) > 1 else None)
        if prompt and cell in prompt.texts and cell == prompt.texts[0] and WORTH_FINDING <= len(cell) <= 1_990:
            assert row.more["from"]["input:n"] == [0, units(cell)]
    assert columns.golds == {}


def test_a_prompt_with_half_a_pair() -> None:
    """UTF-8 can't hold half of a pair of surrogates, which JSON can: the page shows that there was something."""
    _, rows = encoded([MemoryResult(result_table(1))], [[StoredPrompt(["a\ud800b", "\udfff😀"], own={"body": []})]])
    assert rows[0].texts["prompt"] is not None
    assert rows[0].texts["prompt"].text == "a\ufffdb\ufffd😀"
    assert rows[0].more == {"slots": [3, 3], "frame": {"body": []}}
    assert rows[0].short["frame"] is None


def test_why_a_row_has_no_prompt() -> None:
    """A sentence stands where the prompt would."""
    _, rows = encoded([MemoryResult(result_table(1))], [[StoredPrompt((), why="Its input is gone.")]])
    assert rows[0].texts["prompt"] is None
    assert rows[0].more == {"why": "Its input is gone."}


def test_a_short_column_keeps_what_is_longer() -> None:
    """What the first rows don't tell is kept beside, and cut as any other text."""
    texts = ["first"] * CHUNK_ROWS + ["😀" * 41, "y" * 5_000]
    _, rows = encoded([MemoryResult(result_table(len(texts), {"n": pa.array(texts)}))])
    smile, long = rows[-2:]
    assert smile.short["input:n"] == "😀" * (SHORT // 2)
    assert smile.more == {"full": {"input:n": "😀" * 41}}
    assert long.short["input:n"] == "y" * SHORT
    assert long.more == {"full": {"input:n": "y" * CELL_CHARACTERS}, "lengths": {"input:n": 5_000}}


def test_costs_are_exact() -> None:
    """A cost that no float shows is kept as text; a usual one takes no more than its float."""
    costs = [Decimal("0.000029850000000000"), Decimal("0.123456789012345678"), None]
    _, rows = encoded([MemoryResult(result_table(3, outputs={"cost_usd": costs}))])
    assert shown(rows, "cost_usd", "number") == [0.00002985, "0.123456789012345678", None]
    assert [row.more for row in rows] == [{}, {"full": {"cost_usd": "0.123456789012345678"}}, {}]


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), unique=True, max_size=4)
)
def test_hostile_column_names(names: list[str]) -> None:
    """Any name is only a name: of the input's columns, whatever ours are called."""
    table = result_table(1, {name: pa.array(["x"]) for name in names}, prefix="out_")
    taken = set(names) & {f"out_{each}" for each in ("status", "custom_id")}
    if not taken:
        columns, rows = encoded([MemoryResult(table)])
        assert [each.title for each in columns.described if each.group == "input"] == names
        assert all(rows[0].short[f"input:{name}"] == "x" for name in names)


def test_json_texts_are_kept_as_they_are() -> None:
    """A column that is marked as JSON shows its texts, also with half pairs written as escapes."""
    field = pa.field("n", pa.string(), metadata={b"cometbatch.type": b"json"})
    text = json.dumps({"a": "\ud800"})
    table = result_table(1, {"n": pa.array([text])})
    schema = pa.schema([field, *list(table.schema)[1:]])
    _, rows = encoded([MemoryResult(table.cast(schema))])
    assert shown(rows, "input:n", "text") == [text]
