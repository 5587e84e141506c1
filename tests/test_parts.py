"""A part says what it holds, a damaged one is never believed, and the merge changes nothing but the number of files."""

import datetime as dt
import io
import itertools
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.errors import CheckpointError
from cometbatch.records import Partition, Tally
from cometbatch.results import parts

RUN = "run-a"
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("order id", pa.large_string()),
        pa.field("label", pa.dictionary(pa.int32(), pa.string())),
        pa.field("cost", pa.decimal128(38, 18)),
        pa.field("at", pa.timestamp("us", tz="UTC")),
        pa.field("day", pa.date32()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("pair", pa.struct([("a", pa.int8()), ("b", pa.float64())])),
        pa.field("raw", pa.binary()),
    ],
    metadata={b"pandas": b"{}"},
)


def table(first: int, count: int) -> pa.Table:
    """Rows with every kind of column, and a null in each from time to time."""

    def cell(number: int, value: object) -> object:
        return None if number % 7 == 3 else value

    rows = [
        {
            "id": cell(n, f"{n:07d}"),
            "order id": cell(n, f"line one\nline two {n}"),
            "label": cell(n, "spam" if n % 2 else "ham"),
            "cost": cell(n, Decimal("0.000000000000000001") * n),
            "at": cell(n, dt.datetime(2026, 5, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=n)),
            "day": cell(n, dt.date(2026, 5, 1)),
            "tags": cell(n, ["x"] * (n % 3)),
            "pair": cell(n, {"a": n % 100, "b": n / 3}),
            "raw": cell(n, bytes([n % 256, 0, 255])),
        }
        for n in range(first, first + count)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def info(index: int, first: int, count: int) -> parts.PartInfo:
    """What the part of a partition says of itself."""
    tally = Tally(succeeded=count, cost_usd=Decimal("1.000000000000000001"), failures={"timeout": 2})
    return parts.PartInfo(RUN, Partition(index, first, count), tally)


def write_table(file: IO[bytes], table: pa.Table, info: parts.PartInfo) -> None:
    """A part of one piece."""
    parts.write_part(file, table.schema, [table], lambda: info)


def write(folder: Path, index: int, first: int, count: int) -> Path:
    """A good part on disk."""
    path = folder / f"{index:05d}.parquet"
    with path.open("wb") as file:
        write_table(file, table(first, count), info(index, first, count))
    return path


def read(path: Path) -> pa.Table:
    """A whole part."""
    return pa.concat_tables(parts.read_pieces(path))


def merged(paths: list[Path] | Iterator[Path], metadata: dict[str, str] | None = None) -> pq.ParquetFile:
    """The result of these parts."""
    buffer = io.BytesIO()
    parts.merge(buffer, paths, SCHEMA, metadata or {}, rows=600)
    return pq.ParquetFile(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_part_says_of_itself_what_was_said_when_it_was_written(tmp_path: Path, count: int) -> None:
    """Run, rows and exact sums survive in the footer, so that nobody has to read the rows again."""
    path = write(tmp_path, 3, 1_500, count)
    assert parts.read_info(path, RUN, 3) == info(3, 1_500, count)
    assert pq.read_table(path).equals(table(1_500, count))


def test_a_part_has_a_row_group_for_each_piece(tmp_path: Path) -> None:
    """A piece is written before the next one is made, so long answers need not be in memory together."""
    path = tmp_path / "00000.parquet"
    with path.open("wb") as file:
        parts.write_part(file, SCHEMA, (table(first, 100) for first in (0, 100, 200)), lambda: info(0, 0, 300))
    assert pq.read_metadata(path).num_row_groups == 3
    assert parts.read_info(path, RUN, 0) == info(0, 0, 300)
    assert read(path).equals(table(0, 300))
    assert merged([path]).read().equals(table(0, 300))


def foreign(path: Path) -> None:
    """Someone else's Parquet file."""
    pq.write_table(table(0, 10), path)


def of_another_run(path: Path) -> None:
    """Ours, from another run."""
    with path.open("wb") as file:
        write_table(file, table(0, 10), parts.PartInfo("run-b", Partition(4, 0, 10), Tally()))


def of_another_partition(path: Path) -> None:
    """Ours, copied over from another partition's name."""
    with path.open("wb") as file:
        write_table(file, table(0, 10), info(5, 0, 10))


def with_rows_missing(path: Path) -> None:
    """Fewer rows than the partition has."""
    with path.open("wb") as file:
        write_table(file, table(0, 9), info(4, 0, 10))


def with_notes_that_are_no_json(path: Path) -> None:
    """Our key in the footer, with nonsense behind it."""
    pq.write_table(table(0, 10).replace_schema_metadata({parts.PART_KEY: b'{"run_id": 1'}), path)


def empty(path: Path) -> None:
    """No bytes at all."""
    path.write_bytes(b"")


def no_parquet(path: Path) -> None:
    """The right first bytes, and no Parquet."""
    path.write_bytes(b"PAR1 is how it begins, but not how it goes on" * 10)


def missing(path: Path) -> None:
    """No file."""
    path.unlink(missing_ok=True)


def folder(path: Path) -> None:
    """A folder of that name."""
    path.mkdir()


@pytest.mark.parametrize(
    "make",
    [
        foreign,
        of_another_run,
        of_another_partition,
        with_rows_missing,
        with_notes_that_are_no_json,
        empty,
        no_parquet,
        missing,
        folder,
    ],
)
def test_a_file_that_is_not_this_part_is_refused_by_name(tmp_path: Path, make: object) -> None:
    """A foreign, renamed, shortened or absent file is never taken for the part; the error says which file."""
    path = tmp_path / "00004.parquet"
    assert callable(make)
    make(path)
    with pytest.raises(CheckpointError) as refused:
        parts.read_info(path, RUN, 4)
    assert str(path) in str(refused.value)


def loop_of_links(path: Path) -> None:
    """A name that leads to itself."""
    path.symlink_to(path)


@pytest.mark.parametrize("make", [missing, folder, loop_of_links])
def test_what_the_system_can_not_read_is_not_to_be_removed(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """The part may be whole, and its answers are paid for: only a damaged one is to be removed and sent again."""
    path = tmp_path / "00004.parquet"
    make(path)
    for look in (lambda: parts.read_info(path, RUN, 0), lambda: parts.check_part(path)):
        with pytest.raises(CheckpointError, match="do not remove it") as refused:
            look()
        assert "send its rows again" not in str(refused.value)


@pytest.mark.parametrize("make", [empty, no_parquet])
def test_a_damaged_part_may_be_removed(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """There is nothing in it that could be read."""
    path = tmp_path / "00004.parquet"
    make(path)
    with pytest.raises(CheckpointError, match="remove it to send its rows again"):
        parts.read_info(path, RUN, 0)


def test_a_part_cut_short_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    """Half a part is no part, wherever it ends."""
    path = write(tmp_path, 0, 0, 5)
    whole = path.read_bytes()
    for length in range(0, len(whole), 23):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"00000\.parquet"):
            parts.read_info(path, RUN, 0)
        with pytest.raises(CheckpointError, match=r"00000\.parquet"):
            merged([path])


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_among_the_rows_never_becomes_another_answer(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Disks and copies do flip bits: a merge refuses the part, also where no checksum of a page covers the bit."""
    path = write(tmp_path_factory.mktemp("parts"), 0, 0, 40)
    content = bytearray(path.read_bytes())
    footer_bytes = int.from_bytes(content[-8:-4], "little") + 8
    position = data.draw(st.integers(4, len(content) - footer_bytes - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"00000\.parquet: this part can't be read"):
        merged([path])


def test_no_flipped_bit_makes_a_part_of_an_older_version_shorter(tmp_path: Path) -> None:
    """It has no sum, and a header of a page no checksum: rows that come a few at a time could just end early."""
    path = tmp_path / "00000.parquet"
    piece = pa.table({"order id": list(range(20))})
    with pq.ParquetWriter(path, piece.schema, write_page_checksum=True, use_dictionary=False) as writer:
        writer.write_table(pa.concat_tables([piece, piece]), row_group_size=piece.num_rows)
    whole = path.read_bytes()
    told = 0
    for position, bit in itertools.product(range(4, 40), range(8)):  # the first header, after the file's first word
        content = bytearray(whole)
        content[position] ^= 1 << bit
        path.write_bytes(content)
        try:
            assert read(path).num_rows == 2 * piece.num_rows
        except CheckpointError:
            told += 1
    assert told > 0


@pytest.mark.parametrize("row_bytes", [10, 100_000])
def test_a_row_group_is_read_by_slices_where_it_is_large(tmp_path: Path, row_bytes: int) -> None:
    """A megabyte or so many rows at a time, in order; of no rows, before them, an empty table."""
    rows = 150
    whole = pa.table({"text": [f"{row:>{row_bytes}}" for row in range(rows)]})
    path = tmp_path / "00000.parquet"
    with path.open("wb") as file:
        parts.write_part(file, whole.schema, [whole], lambda: info(0, 0, rows), repeated=False)
    pieces = list(parts.read_pieces(path))
    assert pa.concat_tables(pieces).equals(whole)
    assert (pq.read_metadata(path).num_row_groups, pieces[0].num_rows) == (1, 0)
    assert max(piece.num_rows for piece in pieces) == min(parts.PIECE_ROWS, parts.PIECE_BYTES // row_bytes)


def test_a_part_of_several_pieces_is_read_whatever_its_columns_are(tmp_path: Path) -> None:
    """Lists of labels in more than one row group were more than pyarrow can read at once."""
    labels = pa.array([["a", "b"], None, ["a"]], pa.list_(pa.dictionary(pa.int32(), pa.string())))
    piece = pa.table({"labels": labels})
    path = tmp_path / "00000.parquet"
    with path.open("wb") as file:
        parts.write_part(file, piece.schema, [piece, piece], lambda: info(0, 0, 6))
    assert read(path).to_pylist() == 2 * piece.to_pylist()


def test_a_merge_keeps_rows_order_types_and_metadata(tmp_path: Path) -> None:
    """The result is the parts one after another: same rows, same types, the input's own notes and ours."""
    sizes = [300, 1, 0, 299]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    paths = [write(tmp_path, number, starts[number], size) for number, size in enumerate(sizes)]
    file = merged(paths, {"cometbatch.run_id": RUN, "note": "größer"})
    assert file.read().to_pylist() == table(0, 600).to_pylist()
    assert file.schema_arrow.equals(SCHEMA, check_metadata=False)
    assert file.schema_arrow.metadata[b"pandas"] == b"{}"
    assert file.metadata.metadata[b"cometbatch.run_id"] == RUN.encode()
    assert file.metadata.metadata[b"note"].decode() == "größer"
    assert parts.PART_KEY not in file.metadata.metadata


def test_a_merge_takes_the_order_that_it_is_given(tmp_path: Path) -> None:
    """Who calls decides the order; file names and what the parts say do not."""
    paths = [write(tmp_path, number, 10 * number, 10) for number in range(3)]
    assert merged(paths[::-1]).read().column("order id").to_pylist() == [
        value for first in (20, 10, 0) for value in table(first, 10).column("order id").to_pylist()
    ]


def test_no_parts_make_an_empty_file_with_the_schema() -> None:
    """A table of no rows has a result too, and its columns are there."""
    file = merged([], {"cometbatch.run_id": RUN})
    assert file.read().equals(table(0, 0))
    assert file.metadata.metadata[b"cometbatch.run_id"] == RUN.encode()


@given(st.floats(1e3, 1e12))
def test_a_row_group_and_the_list_of_them_take_little_together(total_bytes: float) -> None:
    """Ten million rows of 500 bytes: 14 MB, a hundred million 45, where groups of 8 MB each would take 20 and 130."""
    written, groups, most = 0.0, 0, 0.0
    while written < total_bytes:
        size = parts.enough_bytes(groups, total_bytes)
        most = max(most, size + groups * parts.LISTED_BYTES)
        written, groups = written + size, groups + 1
    assert most <= 1.2 * max(parts.GROUP_BYTES, (2 * parts.LISTED_BYTES * total_bytes) ** 0.5)


def test_a_merge_holds_about_a_row_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is gone before the next is read, so memory follows their size and not that of the result."""
    monkeypatch.setattr(parts, "GROUP_BYTES", 900_000)
    monkeypatch.setattr(parts, "LISTED_BYTES", 0)
    wide = pa.table({"text": [f"{number:09d}" * 100 for number in range(1_000)]})
    paths = [tmp_path / f"{index:05d}.parquet" for index in range(24)]
    for index, path in enumerate(paths):
        with path.open("wb") as file:
            write_table(file, wide, parts.PartInfo(RUN, Partition(index, 1_000 * index, 1_000), Tally()))
    before = pa.total_allocated_bytes()
    held: list[int] = []

    def watched() -> Iterator[Path]:
        for path in paths:
            held.append(pa.total_allocated_bytes() - before)
            yield path

    with (tmp_path / "result.parquet").open("wb") as out:
        parts.merge(out, watched(), wide.schema, {}, rows=24_000)
    assert max(held) < 1.5 * wide.nbytes  # pages of the writer, and not a second group
    assert pq.read_metadata(tmp_path / "result.parquet").num_row_groups == len(paths)


def test_a_merge_takes_the_same_time_for_each_part_however_small_they_are(tmp_path: Path) -> None:
    """A row group of thousands of tiny parts was counted from its beginning with each of them: hours for one."""
    path = write(tmp_path, 0, 0, 1)

    def calls(count: int) -> int:
        made = [0]

        def note(_frame: object, _event: str, _argument: object) -> None:
            made[0] += 1

        with (tmp_path / "result.parquet").open("wb") as out:
            sys.setprofile(note)
            try:
                parts.merge(out, [path] * count, table(0, 1).schema, {}, rows=count)
            finally:
                sys.setprofile(None)
        return made[0]

    calls(1)
    few, more, most = calls(20), calls(120), calls(220)
    assert most - more == pytest.approx(more - few, rel=0.05)


def test_small_parts_make_row_groups_of_many(tmp_path: Path) -> None:
    """A result of ten thousand tiny row groups would be slow to read, and its list of them large."""
    paths = [write(tmp_path, number, 10 * number, 10) for number in range(30)]
    metadata = merged(paths).metadata
    assert (metadata.num_row_groups, metadata.num_rows) == (1, 300)


def test_row_groups_tell_the_range_of_numbers_and_keep_no_texts(tmp_path: Path) -> None:
    """Texts of a thousand characters in thirty columns once made the list of row groups hundreds of megabytes long."""
    group = merged([write(tmp_path, 0, 0, 50)]).metadata.row_group(0)
    told = {group.column(n).path_in_schema for n in range(group.num_columns) if group.column(n).is_stats_set}
    assert told == {"cost", "at", "day"}


def test_a_damaged_part_is_named_by_the_merge(tmp_path: Path) -> None:
    """Of a thousand parts the message names the one to restore, and says what removing it would do."""
    paths = [write(tmp_path, number, 10 * number, 10) for number in range(3)]
    content = bytearray(paths[1].read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    paths[1].write_bytes(content)
    with pytest.raises(CheckpointError, match=r"00001\.parquet: .*send its rows again"):
        merged(paths)


def test_a_part_with_other_columns_is_named_by_the_merge(tmp_path: Path) -> None:
    """A part that does not fit the result is an error, not a column of nulls."""
    path = tmp_path / "00000.parquet"
    pq.write_table(pa.table({"else": [1]}), path)
    with pytest.raises(CheckpointError, match=r"00000\.parquet"):
        merged([path])


def test_what_the_disk_says_of_the_result_is_not_blamed_on_a_part(tmp_path: Path) -> None:
    """A full disk under the result is the result's trouble: no part is called damaged for it."""
    path = write(tmp_path, 0, 0, 5_000)
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb", buffering=0) as full:
        parts.merge(full, [path], SCHEMA, {}, rows=1)


def test_a_result_says_which_run_wrote_it(tmp_path: Path) -> None:
    """So that a finished run knows its own result again."""
    path = tmp_path / "answers.parquet"
    with path.open("wb") as file:
        parts.merge(file, [write(tmp_path, 0, 0, 3)], SCHEMA, {"cometbatch.run_id": RUN}, rows=3)
    assert (parts.result_metadata(path) or {})["cometbatch.run_id"] == RUN


@pytest.mark.parametrize("make", [foreign, empty, no_parquet, missing, folder])
def test_a_file_that_no_run_wrote_has_no_run(tmp_path: Path, make: object) -> None:
    """Nothing there, or someone else's file, is no result of ours; asking raises nothing."""
    path = tmp_path / "answers.parquet"
    assert callable(make)
    make(path)
    assert "cometbatch.run_id" not in (parts.result_metadata(path) or {})
