"""JSON Lines: what a line says is what a template gets, exactly; types, places of faults, compressed files."""

import gzip
import io
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import InputChangedError, InputError
from cometbatch.input import jsonl
from cometbatch.input import lines as line_reading
from cometbatch.input.table import Source, open_source, partitions
from cometbatch.input.values import is_json, row_values
from tests.workbench import peak_bytes


def pack_zstd(content: bytes) -> bytes:
    """One frame."""
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".jsonl": bytes,
    ".ndjson": bytes,
    ".jsonl.gz": gzip.compress,
    ".jsonl.zst": pack_zstd,
}


def written(folder: pathlib.Path, content: bytes | str, name: str = "in.jsonl") -> pathlib.Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(opened: Source, partition_rows: int = 1_000) -> list[dict[str, object]]:
    """Every row, as templates get it."""
    identity = opened.check()
    tables = opened.tables(identity, partitions(identity.rows, partition_rows))
    return [row for table in tables for row in row_values(table, opened.columns)]


def same(one: object, other: object) -> bool:
    """Whether two values are the same to the type and the sign of a zero."""
    return repr(one) == repr(other)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
ROWS = st.lists(
    st.dictionaries(st.sampled_from(["a", "é", "b c", ""]) | TEXTS, VALUES | SCALARS, max_size=4), max_size=8
)


@settings(max_examples=80, deadline=None)
@given(rows=ROWS.filter(any), data=st.data())
def test_each_value_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Law: whatever types are mixed, however it is spelt, compressed and cut; what a line lacks is null.

    The columns are the names in the order in which they first come. A later read of a Parquet file with these columns,
    as a result has them, gives the same values.
    """
    ending = data.draw(st.sampled_from([*PACKED]))
    spelling: dict[str, Any] = {"ensure_ascii": data.draw(st.booleans()), "indent": data.draw(st.none() | st.just(0))}
    end = data.draw(st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"]))
    text = (
        "\ufeff" * data.draw(st.booleans())
        + end.join(json.dumps(row, **spelling).replace("\n", " ") for row in rows)
        + end
    )
    path = written(tmp_path_factory.mktemp("law"), PACKED[ending](text.encode()), "in" + ending)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_reading, "READ_SIZE", data.draw(st.sampled_from([5, line_reading.READ_SIZE])))
        patch.setattr(jsonl, "BATCH_ROWS", data.draw(st.integers(1, 4)))
        opened = open_source(path)
        found = values(opened, data.draw(st.integers(1, 4)))
    names = list(dict.fromkeys(name for row in rows for name in row))
    due = [{name: row.get(name) for name in names} for row in rows]
    assert list(opened.columns) == names
    assert all(map(same, found, due)), (found, due)
    table = pa.concat_tables(opened.tables(opened.check(), partitions(len(rows), 3)))
    again = written(path.parent, b"", "in.parquet")
    pq.write_table(table, again)
    assert all(map(same, values(open_source(again)), due))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["2024-01-01T00:00:00Z", "007", None], pa.string()),
        ([None], pa.string()),
        ([True, None], pa.bool_()),
        ([1, -(2**63)], pa.int64()),
        ([12345678901234567890, 1], pa.uint64()),
        ([1.5, 1e300], pa.float64()),
        ([12345678901234567890, -1], "json"),
        ([2**64], "json"),
        ([1, 2.5], "json"),
        ([1, "x"], "json"),
        ([True, 1], "json"),
        ([[], None], "json"),
        ([{}], "json"),
    ],
)
def test_a_column_of_one_type_has_it_and_every_other_is_json_text(
    tmp_path: pathlib.Path, cells: Sequence[object], kind: pa.DataType | str
) -> None:
    """No text becomes a date, no number loses a digit, and marked JSON text is a text for every other reader."""
    path = written(tmp_path, "".join(json.dumps({"a": cell}) + "\n" for cell in cells))
    field = open_source(path).schema.field("a")
    assert (field.type, is_json(field)) == ((pa.string(), True) if kind == "json" else (kind, False))


def test_json_text_is_as_the_file_has_it(tmp_path: pathlib.Path) -> None:
    """Digits, spaces and escapes of a nested value go into the result untouched."""
    path = written(tmp_path, '{"a": {"p" : 1.10, "q":"\\u00e9"} }\n{"a":null}\n')
    opened = open_source(path)
    (table,) = opened.tables(opened.check(), partitions(2, 2))
    assert table["a"].to_pylist() == ['{"p" : 1.10, "q":"\\u00e9"}', None]


def test_marked_text_that_is_no_json_is_itself() -> None:
    """What others have put into a marked column is shown as it is, and nothing fails."""
    schema = pa.schema([pa.field("a", pa.string(), metadata={"cometbatch.type": "json"})])
    table = pa.table({"a": ["[1]", "", "[", None, "[" * 5_000]}, schema=schema)
    assert [row["a"] for row in row_values(table, ["a"])] == [[1], "", "[", None, "[" * 5_000]


REFUSED: dict[str, tuple[bytes, list[str]]] = {
    "nothing": (b"", ["is empty", "a row"]),
    "blank lines": (b"\n \n", ["has no columns"]),
    "no names": (b"{}\n{}\n", ["has no columns"]),
    "a list": (b'{"a":1}\n[1]\n', ["line 2", "one JSON object", "a list", "jq -c '.[]' in.jsonl"]),
    "a number": (b"1\n", ["line 1", "found a number"]),
    "a text": (b'"a"\n', ["line 1", "found a text"]),
    "null": (b'{"a":1}\n\nnull\n', ["line 3", "found null"]),
    "an array over lines": (b'[\n{"a":1},\n', ["line 1", "jq -c '.[]' in.jsonl"]),
    "an object over lines": (b'{\n  "a": 1\n}\n', ["line 1", "jq -c . in.jsonl"]),
    "two objects on a line": (b'{"a":1}{"a":2}\n', ["line 1", "column 8"]),
    "a comma at its end": (b'{"a":1}\n{"a":1},\n', ["line 2", "column 8"]),
    "cut off": (b'{"a":1}\n{"a":"x', ["line 2", "column 6"]),
    "NaN": (b'{"a":NaN}\n', ["line 1", "NaN is no value of JSON", "null"]),
    "Infinity in a list": (b'{"a":[-Infinity]}\n', ["line 1", "-Infinity is no value of JSON"]),
    "single quotes": (b"{'a':1}\n", ["line 1", "column 2"]),
    "half of a pair": (b'{"a":"\\ud800"}\n', ["line 1", "can't be read", "half of a surrogate pair"]),
    "half of a pair in a name": (b'{"a":{"\\udc00":1}}\n', ["line 1", "can't be read"]),
    "a number beyond all bounds": (b'{"a":1e400}\n', ["line 1", "can't be read", "out of range"]),
    "a number of 5,000 digits": (b'{"a":' + b"9" * 5_000 + b"}\n", ["line 1", "more digits"]),
    "nested 5,000 times": (b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}\n", ["line 1", "too deeply"]),
    "not UTF-8": (b'{"a":1}\n{"a":"caf\xe9"}\n', ["line 2", "0xE9 at 10", "UTF-8"]),
    "not UTF-8 within": (b'{"a":{"b":["\xff"]}}\n', ["line 1", "0xFF at 13"]),
    "UTF-16": ('{"a":1}\n'.encode("utf-16"), ["utf-16", "iconv"]),
    "a NUL in a name": (b'{"a\\u0000":1}\n', ["line 1", "NUL"]),
    "Parquet": (b"PAR1abc\nPAR1", ["Parquet", ".parquet"]),
    "Excel": (b"PK\x03\x04\x14\0\x06\0", ["Excel"]),
    "compressed twice": (gzip.compress(gzip.compress(b'{"a":1}\n')), ["gzip"]),
    "cut gzip": (gzip.compress(b'{"a":1}\n' * 9)[:-9], ["gzip", "cut short", "copy or write it again"]),
    "a control character": (b'{"a":"\x1b"}\n', ["line 1", "column 7"]),
    "CSV": (b"a,b\n1,2\n", ["line 1", "one JSON object"]),
}  # fmt: skip


@pytest.mark.parametrize(("content", "phrases"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_line_of_json_is_refused_with_its_place(
    tmp_path: pathlib.Path, content: bytes, phrases: list[str]
) -> None:
    """Before a run, in one line that says where, what and, where that is likely, how to make lines of it."""
    path = written(tmp_path, content)
    with pytest.raises(InputError) as caught:
        open_source(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert [phrase for phrase in phrases if phrase not in message] == []
    assert message.isprintable()
    assert len(message) < len(str(path)) + 350


def test_json_under_another_name_is_told_where_a_column_is_missed(tmp_path: pathlib.Path) -> None:
    """As CSV it has a header that nobody means."""
    opened = open_source(written(tmp_path, '{"a": "x"}\n', "in.csv"))
    assert "one JSON object a line must end in .jsonl" in opened.hint


def test_names_without_end_are_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are data would fill the memory: the bound is told with the line."""
    monkeypatch.setattr(jsonl, "MAX_COLUMNS", 3)
    open_source(written(tmp_path, '{"a":1,"b":1}\n{"c":1}\n'))
    with pytest.raises(InputError, match=r"line 2: with d the lines have more than 3 different names"):
        open_source(written(tmp_path, '{"a":1,"b":1}\n{"c":1,"d":1}\n'))


def test_settings_of_other_text_are_told_to_be_unused(tmp_path: pathlib.Path) -> None:
    """JSON is UTF-8 and has no delimiter."""
    path = written(tmp_path, '{"a":"é"}\n')
    assert open_source(path).warnings == ()
    assert len(open_source(path, encoding="cp1252", delimiter=";").warnings) == len(["encoding", "delimiter"])


@pytest.mark.parametrize("ending", PACKED)
def test_only_other_content_is_a_change(tmp_path: pathlib.Path, ending: str) -> None:
    """A file that is written anew with the same bytes is the same, before the check and while rows are taken."""
    pack = PACKED[ending]
    content = pack(b'{"a":"x"}\n' * 9)
    path = written(tmp_path, content, "in" + ending)
    opened = open_source(path)
    path.write_bytes(content)
    identity = opened.check()
    tables = opened.tables(identity, partitions(9, 3))
    next(tables)
    path.write_bytes(content)
    next(tables)
    path.write_bytes(pack(b'{"a":"y"}\n' * 9))
    with pytest.raises(InputChangedError, match="changed while it was read"):
        next(tables)


def test_other_columns_before_the_check_are_a_change(tmp_path: pathlib.Path) -> None:
    """What was planned with is what is checked."""
    path = written(tmp_path, '{"a":"x"}\n')
    opened = open_source(path)
    path.write_text('{"a":1}\n', encoding="utf-8")
    with pytest.raises(InputChangedError):
        opened.check()


def test_lines_before_a_wanted_row_are_not_decoded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume reads from the start, and makes objects of the rows that are missing alone."""
    path = written(tmp_path, "".join(f'{{"a":{number}}}\n' for number in range(100)))
    opened = open_source(path)
    identity = opened.check()
    decoded = []
    real = jsonl._object

    def watched(path: pathlib.Path, line: line_reading.Line) -> dict[str, Any]:
        decoded.append(line.number)
        return real(path, line)

    monkeypatch.setattr(jsonl, "_object", watched)
    (table,) = opened.tables(identity, partitions(100, 10)[-1:])
    assert table["a"].to_pylist() == list(range(90, 100))
    assert decoded == list(range(91, 101))


def test_memory_does_not_grow_with_the_file(tmp_path: pathlib.Path) -> None:
    """Some MiB, whatever a compressed file unpacks to, also where each line has a name of its own."""
    text = b"".join(b'{"a":"%d","b":[%d],"n%d":null}\n' % (number, number, number % 300) for number in range(4_000))
    path = written(tmp_path, pack_zstd(text * 4), "in.jsonl.zst")

    def read() -> None:
        opened = open_source(path)
        identity = opened.check()
        size = identity.rows_within(1 << 18)
        for _ in opened.tables(identity, partitions(identity.rows, size)[:9]):
            pass

    assert peak_bytes(read) < 12 << 20


def test_a_line_that_is_being_written_is_a_change(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a line at the end of a file that somebody writes to is no fault to be mended."""
    path = written(tmp_path, '{"a":1}\n{"a":')
    real = jsonl._scan

    def meanwhile(path: pathlib.Path, raw: io.BufferedReader) -> jsonl.Scan:
        path.write_text('{"a":1}\n{"a":', encoding="utf-8")
        return real(path, raw)

    monkeypatch.setattr(jsonl, "_scan", meanwhile)
    with pytest.raises(InputChangedError, match="Run the same command again once nothing writes to it"):
        open_source(path)
