"""A staged input: the same rows as the input's own, whole or made anew, and never another's."""

import csv
import gzip
import io
import json
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import InputChangedError, InputError
from cometbatch.input import staging
from cometbatch.input.file_set import AnySource, open_input
from cometbatch.input.files import Identity
from cometbatch.input.staging import is_worth_staging, open_staged, stage
from cometbatch.input.table import partitions
from cometbatch.records import Partition
from cometbatch.store import local
from tests.test_values import every_type

RUN = "00000000-0000-4000-8000-000000000000"
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
csv_rows = st.lists(st.tuples(text, text), max_size=12)
json_values = st.one_of(
    text,
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.integers(1 << 64, 1 << 70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(text, max_size=2),
)
json_rows = st.lists(st.dictionaries(st.sampled_from(["a", "", "é.b"]), json_values), min_size=1, max_size=12).filter(
    any
)


def staged(source: AnySource, identity: Identity, folder: pathlib.Path, run: str = RUN, rows: int = 3) -> pathlib.Path:
    """The staged file of an input, made where it has to be."""
    return stage(source, identity, folder, run_id=run, partition_rows=rows, write_aside=local.write_aside)


def as_csv(rows: Sequence[tuple[str, str]]) -> bytes:
    """A table of two columns."""
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("a", ""), *rows])
    return file.getvalue().encode()


def as_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def all_same(one: AnySource, other: AnySource, identity: Identity, wanted: Sequence[Partition]) -> None:
    """Both deliver the same tables, in the same types, marks of columns included."""
    tables = zip(one.tables(identity, wanted), other.tables(identity, wanted), strict=True)
    for expected, found in tables:
        assert found.schema.equals(expected.schema, check_metadata=True)
        assert found.equals(expected)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), partition_rows=st.integers(1, 5))
def test_each_row_is_read_back_as_the_input_has_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, partition_rows: int
) -> None:
    """Law: whatever the input holds, whichever partitions are wanted: the same values in the same types."""
    folder = tmp_path_factory.mktemp("law")
    kind = data.draw(st.sampled_from(["csv", "csv.gz", "jsonl", "jsonl.gz"]))
    files = data.draw(st.integers(1, 2))
    (folder / "in").mkdir()
    for number in range(files):
        content = as_csv(data.draw(csv_rows)) if "csv" in kind else as_lines(data.draw(json_rows))
        (folder / "in" / f"{number}.{kind}").write_bytes(gzip.compress(content) if "gz" in kind else content)
    source = open_input(folder / "in" if files > 1 else folder / "in" / f"0.{kind}")
    identity = source.check()
    path = staged(source, identity, folder, rows=partition_rows)
    chosen = [each for each in partitions(identity.rows, partition_rows) if data.draw(st.booleans())]
    all_same(source, open_staged(path), identity, chosen)


def test_each_type_of_column_is_kept(tmp_path: pathlib.Path) -> None:
    """Nulls, dictionaries and nested values are what they were, wherever row groups end."""
    for number in range(2):
        pq.write_table(every_type(), tmp_path / f"{number}.parquet", row_group_size=2)
    source = open_input(tmp_path)
    identity = source.check()
    all_same(source, open_staged(staged(source, identity, tmp_path)), identity, partitions(identity.rows, 3))


def input_of(folder: pathlib.Path, rows: int = 100) -> tuple[AnySource, Identity]:
    """A table as a user has it."""
    path = folder / "in.csv"
    path.write_bytes(as_csv([(str(number), "x" * 50) for number in range(rows)]))
    source = open_input(path)
    return source, source.check()


def cut_short(path: pathlib.Path) -> None:
    """Lose the end of the file."""
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: pathlib.Path) -> None:
    """Change a byte in the middle of a page."""
    content = bytearray(path.read_bytes())
    place = pq.ParquetFile(path).metadata.row_group(0).column(0)
    start = place.dictionary_page_offset or place.data_page_offset
    content[start + place.total_compressed_size - 2] ^= 0x20
    path.write_bytes(content)


def lose_note(path: pathlib.Path) -> None:
    """Be as a crash leaves it between the two files."""
    path.with_name(staging.NOTE).unlink()


@pytest.mark.parametrize("damage", [cut_short, flip, lose_note])
def test_a_damaged_file_is_made_anew_and_never_read(
    tmp_path: pathlib.Path, damage: Callable[[pathlib.Path], None]
) -> None:
    """A worker that comes upon it refuses; the next session repairs it."""
    source, identity = input_of(tmp_path)
    path = staged(source, identity, tmp_path)
    whole = path.read_bytes()
    damage(path)
    with pytest.raises(InputError, match=r"rows\.staged"):
        list(open_staged(path).tables(identity, partitions(100, 10)))
    assert staged(source, identity, tmp_path).read_bytes() == whole
    all_same(source, open_staged(path), identity, partitions(100, 10))


def test_a_whole_file_is_kept(tmp_path: pathlib.Path) -> None:
    """A session that finds it writes nothing."""
    source, identity = input_of(tmp_path)
    before = staged(source, identity, tmp_path).stat()
    assert staged(source, identity, tmp_path).stat() == before


def test_the_rows_of_another_run_or_input_are_never_taken(tmp_path: pathlib.Path) -> None:
    """Another run may have read the same bytes in another way, as with another encoding."""
    source, identity = input_of(tmp_path)
    path = staged(source, identity, tmp_path)
    of_run = path.stat().st_ino
    assert staged(source, identity, tmp_path, run=RUN.replace("0", "1")).stat().st_ino != of_run
    other, of_other = input_of(tmp_path, 50)
    with pytest.raises(InputChangedError):
        list(open_staged(path).tables(of_other, partitions(50, 10)))
    staged(other, of_other, tmp_path)
    all_same(other, open_staged(path), of_other, partitions(50, 10))


def test_whoever_asks_takes_it_for_the_input(tmp_path: pathlib.Path) -> None:
    """Its columns, its identity and its digest are those of the input that the run began with."""
    source, identity = input_of(tmp_path)
    opened = open_staged(staged(source, identity, tmp_path))
    assert (opened.columns, opened.check(), opened.digest()) == (source.columns, identity, source.digest())
    assert opened.warnings == ()


def test_a_failed_write_leaves_what_was_there(tmp_path: pathlib.Path) -> None:
    """An input that changes while it is copied is refused, and no half of a copy is there."""
    source, identity = input_of(tmp_path)
    (tmp_path / "in.csv").write_bytes(as_csv([("other", "")] * 100))
    with pytest.raises(InputChangedError):
        staged(source, identity, tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.csv"]


def test_one_that_is_given_up_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """Before each group of rows it is asked whether anybody waits for them."""
    (tmp_path / "in.csv").write_bytes(as_csv([("a", "b")] * 5))
    (tmp_path / "made").mkdir()
    source = open_input(tmp_path / "in.csv")
    limits: dict[str, Any] = {"run_id": RUN, "partition_rows": 3, "write_aside": local.write_aside}
    with pytest.raises(staging.GivenUpError):
        stage(source, source.check(), tmp_path / "made", **limits, is_given_up=lambda: True)
    assert list((tmp_path / "made").iterdir()) == []


def test_groups_hold_whole_partitions_and_a_bounded_number_of_bytes(tmp_path: pathlib.Path) -> None:
    """2,048 rows of usual length; fewer of long ones, but never a part of a partition."""
    (tmp_path / "in.csv").write_bytes(as_csv([("x", "")] * 5_000))
    source = open_input(tmp_path / "in.csv")
    identity = source.check()

    def sizes(rows: int, of: Identity = identity) -> list[int]:
        return [each.row_count for each in staging._groups(of, rows)]

    assert sizes(100) == [2_000, 2_000, 1_000]
    assert sizes(4_096) == [4_096, 904]
    long = Identity("in.csv", 5_000_000_000, "", 5_000, ("a", ""))
    assert set(sizes(10, long)) == {30, 20}
    assert set(sizes(100, long)) == {100}


def test_memory_does_not_grow_with_the_input(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than some row groups of the table are in memory while it is copied."""
    monkeypatch.setattr(staging, "GROUP_BYTES", 2 << 20)
    (tmp_path / "in.csv").write_bytes(b"a,b\n" + (b"%b," % (b"xy" * 10_000) + b"1\n") * 2_000)
    source = open_input(tmp_path / "in.csv")
    identity = source.check()
    most, is_over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.wait(0.002):
            most = max(most, pa.total_allocated_bytes())

    watching = threading.Thread(target=watch)
    before = pa.total_allocated_bytes()
    watching.start()
    try:
        staged(source, identity, tmp_path, rows=100)
    finally:
        is_over.set()
        watching.join()
    assert most - before < 10 << 20 < source.path.stat().st_size


def test_a_parquet_input_is_read_as_it_is(tmp_path: pathlib.Path) -> None:
    """Its rows can be found without a copy."""
    source, _ = input_of(tmp_path)
    assert is_worth_staging(source)
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "set" / "0.parquet")
    assert not is_worth_staging(open_input(tmp_path / "set"))
    assert not is_worth_staging(open_input(tmp_path / "set" / "0.parquet"))
