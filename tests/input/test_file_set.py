"""Several files as one table: the same rows as of one file, in the order of the names, and which file is at fault."""

import errno
import gzip
import json
import os
import pathlib
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import InputChangedError, InputError
from cometbatch.input import file_set
from cometbatch.input.file_set import AnySource, FileSet, is_several, is_there, open_input, would_take
from cometbatch.input.files import Identity
from cometbatch.input.table import open_source, partitions
from cometbatch.input.values import row_values
from cometbatch.records import Partition

KINDS = ("csv", "tsv", "csv.gz", "jsonl", "jsonl.zst", "parquet")


def write(path: pathlib.Path, numbers: Sequence[int]) -> None:
    """A table with these numbers, as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"n": pa.array(map(str, numbers), pa.string()), "m": numbers}), path, row_group_size=2)
        return
    mark = "\t" if ".tsv" in path.name else ","
    content = f"n{mark}m\n" + "".join(f"{number}{mark}{number}\n" for number in numbers)
    if ".jsonl" in path.name:
        content = "".join(json.dumps({"n": str(number), "m": number}) + "\n" for number in numbers)
    if path.suffix == ".zst":
        path.write_bytes(pa.compress(content.encode(), codec="zstd", asbytes=True))
    else:
        path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())


def rows(opened: AnySource, wanted: Sequence[Partition] | None = None) -> list[int]:
    """The numbers of these partitions, or of the whole table."""
    identity = opened.check()
    wanted = partitions(identity.rows, 3) if wanted is None else wanted
    return [int(str(row["n"])) for table in opened.tables(identity, wanted) for row in row_values(table, ["n"])]


def refusal(path: pathlib.Path) -> str:
    """Why an input is refused."""
    with pytest.raises(InputError) as caught:
        open_input(path).check()
    return str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    partition_rows=st.integers(1, 7),
    data=st.data(),
)
def test_rows_are_those_of_the_files_one_after_the_other(
    tmp_path_factory: pytest.TempPathFactory, kind: str, sizes: list[int], partition_rows: int, data: st.DataObject
) -> None:
    """Law: wherever files and partitions end, and whichever partitions are left, each ordinal has its row."""
    folder, first = tmp_path_factory.mktemp("law"), 0
    if "json" in kind:
        sizes.append(1)  # no row of all has no names, which no table can be
    for number, size in enumerate(sizes):
        write(folder / f"part-{number}.{kind}", range(first, first + size))
        first += size
    opened = open_input(data.draw(st.sampled_from([folder, folder / f"part-*.{kind}"])))
    identity = opened.check()
    assert (identity.rows, [each.rows for each in identity.files]) == (first, sizes)
    assert (identity.size, identity.sha256) == opened.digest()
    chosen = [each for each in partitions(first, partition_rows) if data.draw(st.booleans())]
    due = [row for each in chosen for row in range(each.first_row, each.first_row + each.row_count)]
    assert rows(opened, chosen) == due
    assert [table.num_rows for table in opened.tables(identity, chosen)] == [each.row_count for each in chosen]


def test_names_decide_the_order_and_hidden_ones_are_passed_over(tmp_path: pathlib.Path) -> None:
    """The order is that of the letters, so 10 is before 2; `_` and `.` at the start hide a file; others are told."""
    for number, name in enumerate(("b.csv", "10.csv", "2.csv", "é.csv", "B.csv")):
        write(tmp_path / name, [number])
    for name in ("_SUCCESS", "_x.csv", ".hidden.csv", ".b.csv.crc"):
        (tmp_path / name).write_text("?", encoding="utf-8")
    assert rows(open_input(tmp_path)) == [1, 2, 4, 0, 3]
    assert open_input(tmp_path).warnings == ()
    (tmp_path / "notes.txt").write_text("?", encoding="utf-8")
    write(tmp_path / "folder" / "c.csv", [9])
    write(tmp_path / "_run" / "d.csv", [9])
    told = open_input(tmp_path).warnings
    assert [re.sub(r".* holds a ", "", words) for words in told] == [
        "folder that is passed over: folder",
        "file of another kind that is passed over: notes.txt",
    ]


@pytest.mark.parametrize(
    ("pattern", "due"),
    [
        ("*.csv", [0, 1]),
        ("?.csv", [0, 1]),
        ("[b].csv", [1]),
        ("*/*.csv", [2, 3]),
        ("**/*.csv", [0, 1, 2, 4, 3]),
        ("x/**", [2, 4]),
        ("[xz]/*.csv", [2, 3]),
        ("x/**/c.csv", [2, 4]),
        ("_y/*.csv", [5]),
        ("a[1].csv", [6]),
    ],
)
def test_a_pattern_names_files(tmp_path: pathlib.Path, pattern: str, due: list[int]) -> None:
    """Folders on the way are hidden by `_`, too; a part of the path that exists as it is written is no pattern."""
    names = ("a.csv", "b.csv", "x/c.csv", "z/c.csv", "x/y/c.csv", "_y/c.csv")
    for number, name in enumerate(names):
        write(tmp_path / name, [number])
    if "[1]" in pattern:
        write(tmp_path / "a[1].csv", [6])
    assert rows(open_input(tmp_path / pattern)) == due
    assert is_there(tmp_path / pattern)
    assert not is_there(tmp_path / "gone" / "*.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_can_not_be_read_is_not_empty(tmp_path: pathlib.Path) -> None:
    """Its rows would be missing without a word."""
    write(tmp_path / "x" / "a.csv", [1])
    write(tmp_path / "y" / "b.csv", [1])
    (tmp_path / "y").chmod(0)
    assert os.strerror(errno.EACCES) in refusal(tmp_path / "**" / "*.csv")
    (tmp_path / "y").chmod(0o700)


def test_a_link_to_a_folder_is_no_loop(tmp_path: pathlib.Path) -> None:
    """`**` passes through none, `*` does."""
    write(tmp_path / "x" / "a.csv", [1])
    (tmp_path / "x" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert rows(open_input(tmp_path / "**" / "*.csv")) == [1]
    assert rows(open_input(tmp_path / "x" / "*" / "*" / "*.csv")) == [1]


NAMES = st.sampled_from(["a", "b", "_a", ".a", "ab", "[a]"])
PARTS = st.sampled_from(["*", "**", "a", "?", "a*", "[ab]", "[!a]", "_*", "a**"])


@settings(max_examples=150, deadline=None)
@given(folders=st.lists(NAMES, max_size=2), name=NAMES, pattern=st.lists(PARTS, max_size=3), last=PARTS)
def test_a_result_is_known_to_be_among_the_inputs_files_before_it_is_there(
    tmp_path_factory: pytest.TempPathFactory, folders: list[str], name: str, pattern: list[str], last: str
) -> None:
    """Law: `would_take` says of a file that does not exist what the pattern names once it does."""
    root = tmp_path_factory.mktemp("law")
    path = root.joinpath(*pattern, last if last == "**" else f"{last}.parquet")
    place = root.joinpath(*folders, f"{name}.parquet")
    foreseen = would_take(path, place)
    write(place, [1])
    if is_several(path):
        assert foreseen == (place in set(file_set._matching(path)))


def test_a_folder_takes_its_own_tables_alone(tmp_path: pathlib.Path) -> None:
    """A result below a folder of the input, or with a hidden name, is none of its files."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    assert would_take(tmp_path, tmp_path / "r.parquet")
    assert would_take(tmp_path, link / "r.parquet")
    assert would_take(link, tmp_path / "r.parquet")
    assert not would_take(tmp_path, tmp_path / "out" / "r.parquet")
    assert not would_take(tmp_path, tmp_path / "_r.parquet")
    assert not would_take(tmp_path / "a.csv", tmp_path / "a.csv")


def test_what_is_no_table_is_refused_by_its_file(tmp_path: pathlib.Path) -> None:
    """Each refusal names the file and the column, or says how the files are named that were meant."""
    assert "is a folder without a table" in refusal(tmp_path)
    assert "there is no such folder" in refusal(tmp_path / "nothing")
    assert "no file fits this pattern" in refusal(tmp_path / "*.csv")
    write(tmp_path / "sub" / "a.csv", [1])
    assert f"{tmp_path}/**/*.parquet" in refusal(tmp_path)
    write(tmp_path / "a.csv", [1])
    write(tmp_path / "b.jsonl", [1])
    assert re.search(r"holds \.csv and \.jsonl files \(a\.csv, b\.jsonl\).*such as \*\.csv", refusal(tmp_path))
    (tmp_path / "b.jsonl").unlink()
    for content, words in (
        ("n\n1\n", 'b.csv: column "m" is missing'),
        ("n,m,o\n1,1,1\n", 'b.csv: column "o" is not in the first file'),
        ("n,M\n1,1\n", 'b.csv: column "m" is missing and column "M" is not in the first file'),
        ("m,n\n1,1\n", 'b.csv: column 1 is "m", not "n"'),
        ("n,n\n1,1\n", "b.csv: column names must differ"),
        ("n,m\n1\n", "b.csv, line 2: expected 2 cells"),
        ("", "b.csv: is empty"),
    ):
        (tmp_path / "b.csv").write_text(content, encoding="utf-8")
        assert words in refusal(tmp_path)
    (tmp_path / "notes.txt").write_text("?", encoding="utf-8")
    assert "notes.txt: fits *, and its ending is none of" in refusal(tmp_path / "*")


MARKED = pa.field("n", pa.string(), metadata={"cometbatch.type": "json"})
NEVER_NULL = pa.field("n", pa.string(), nullable=False)
WHOLE = ("m", pa.int64())


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (pa.table({"n": ["1"], "m": ["1"]}), 'column "m" is string, not int64'),
        (pa.table({"n": ["1"]}), 'column "m" is missing'),
        (pa.table({"n": ["1"], "m": [1]}, pa.schema([MARKED, WHOLE])), 'column "n" is string (JSON), not string'),
        (pa.table({"n": ["1"], "m": [1]}, pa.schema([NEVER_NULL, WHOLE], {"pandas": "{}"})), None),
        (pa.table({"n": ["1"], "m": pa.nulls(1)}), None),
    ],
)
def test_parquet_files_differ_by_types_and_not_by_notes(
    tmp_path: pathlib.Path, other: pa.Table, words: str | None
) -> None:
    """A type is told with both; a schema's notes do not count, nor do columns without a value, which have no type."""
    write(tmp_path / "a.parquet", [1])
    pq.write_table(other, tmp_path / "b.parquet")
    if words is None:
        assert rows(open_input(tmp_path)) == [1, 1]
    else:
        assert f"b.parquet: {words}; all files" in refusal(tmp_path)


def test_json_lines_have_the_columns_of_all_files(tmp_path: pathlib.Path) -> None:
    """A name that one file lacks is null there, a type is one for all, and a file without a line is no fault."""
    (tmp_path / "a.jsonl").write_text('{"a":1}\n', encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "c.ndjson").write_text('{"b":[2],"a":"x"}\n', encoding="utf-8")
    opened = open_input(tmp_path)
    tables = list(opened.tables(opened.check(), partitions(2, 2)))
    assert [row for table in tables for row in row_values(table, opened.columns)] == [
        {"a": 1, "b": None},
        {"a": "x", "b": [2]},
    ]


def test_dictionaries_of_several_files_are_one(tmp_path: pathlib.Path) -> None:
    """Some readers of a table expect one dictionary for a column."""
    for name, word in (("a", "x"), ("b", "y")):
        pq.write_table(pa.table({"n": pa.array([word]).dictionary_encode()}), tmp_path / f"{name}.parquet")
    opened = open_input(tmp_path)
    (table,) = opened.tables(opened.check(), partitions(2, 2))
    assert [len(chunk.dictionary) for chunk in table["n"].chunks] == [2, 2]
    assert table["n"].to_pylist() == ["x", "y"]


def numbered(folder: pathlib.Path) -> FileSet:
    """Three files of four rows."""
    for number in range(3):
        write(folder / f"{number}.csv", range(4 * number, 4 * number + 4))
    opened = open_input(folder)
    assert isinstance(opened, FileSet)
    return opened


def test_files_that_changed_or_are_new_or_gone_are_named(tmp_path: pathlib.Path) -> None:
    """A touch is no change; the digest of the list differs exactly where something is named."""
    was = numbered(tmp_path).check()
    (tmp_path / "0.csv").touch()
    assert (open_input(tmp_path).changes(was), open_input(tmp_path).digest()) == ([], (was.size, was.sha256))
    write(tmp_path / "2.csv", [8, 9, 10, 12])
    write(tmp_path / "3.csv", [13])
    (tmp_path / "0.csv").unlink()
    now = open_input(tmp_path)
    assert [words[:16] for words in now.changes(was)] == ["0.csv is gone", "3.csv is new", "2.csv changed (w"]
    assert now.digest() != (was.size, was.sha256)
    with pytest.raises(InputChangedError):
        next(now.tables(was, partitions(was.rows, 5)))


def test_a_renamed_file_is_another(tmp_path: pathlib.Path) -> None:
    """The order of the rows is that of the names."""
    was = numbered(tmp_path).check()
    (tmp_path / "1.csv").rename(tmp_path / "9.csv")
    assert open_input(tmp_path).changes(was) == ["1.csv is gone", "9.csv is new"]
    assert open_input(tmp_path).digest() != (was.size, was.sha256)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_file_that_changes_while_rows_are_taken_is_named(tmp_path: pathlib.Path, number: int) -> None:
    """Also one that is not open yet, or that vanished; one that was taken wholly, or is new, makes no difference."""
    opened = numbered(tmp_path)
    tables = opened.tables(opened.check(), partitions(12, 3))
    next(tables), next(tables)  # rows 0 to 5, of the first two files
    write(tmp_path / "9.csv", [1])
    write(tmp_path / f"{number}.csv", [7])
    if number == 0:
        assert sum(table.num_rows for table in tables) == 12 - 6
    else:
        with pytest.raises(InputChangedError, match=rf"{number}\.csv: changed while it was read"):
            list(tables)


def test_a_file_that_vanished_is_named(tmp_path: pathlib.Path) -> None:
    """Before its turn came."""
    opened = numbered(tmp_path)
    tables = opened.tables(opened.check(), partitions(12, 3))
    next(tables)
    (tmp_path / "2.csv").unlink()
    with pytest.raises(InputError, match=r"2\.csv: can't be read"):
        list(tables)


def test_files_without_a_wanted_row_are_not_opened(tmp_path: pathlib.Path) -> None:
    """A resume opens what it needs: the others are known by their digests."""
    opened = numbered(tmp_path)
    identity = opened.check()
    (tmp_path / "0.csv").unlink()
    assert rows_of(opened, identity, partitions(12, 4)[1:]) == list(range(4, 12))


def rows_of(opened: FileSet, identity: Identity, wanted: Sequence[Partition]) -> list[int]:
    """The numbers of these partitions."""
    return [int(str(row["n"])) for table in opened.tables(identity, wanted) for row in row_values(table, ["n"])]


def test_rows_beyond_the_end_are_refused(tmp_path: pathlib.Path) -> None:
    """As of one file."""
    opened = numbered(tmp_path)
    with pytest.raises(InputChangedError):
        rows_of(opened, opened.check(), [Partition(0, 10, 5)])


def test_one_file_stays_one_file(tmp_path: pathlib.Path) -> None:
    """Its identity lists no files, and is that of `open_source`."""
    write(tmp_path / "a.csv", [1])
    assert open_input(tmp_path / "a.csv").check() == open_source(tmp_path / "a.csv").check()
    assert open_input(tmp_path / "a.csv").check().files == ()
