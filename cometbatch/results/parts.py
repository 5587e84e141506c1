"""Parquet parts: how a finished partition is written, trusted again later, and merged into the one result.

Guards: a part says which run and rows it holds, in its footer, so a foreign or damaged file is never taken for one.
Arrow gets open files, never names: it can't open a file whose name, or whose folder's name, is no UTF-8. And it gives
its own errors no number, so that they can be told from the system's: advice to remove a part is for damage alone.
"""

import contextlib
import io
import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.errors import CheckpointError
from cometbatch.records import Partition, Tally
from cometbatch.results.slices import SLICE_KEY

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

PART_KEY = b"cometbatch.part"
SUM_KEY = b"cometbatch.sum"
COMPRESSION = "zstd"
GROUP_BYTES = 8 * 1024 * 1024  # of a row group of the result, in memory, where it is not among many
LISTED_BYTES = 20_000  # that a row group of 23 columns takes in the list of them, until the end
WRITE_BYTES = 256 * 1024  # of a file at a time: a part has a hundred pages, and each write waits for the interpreter
READ_BYTES = 1024 * 1024  # of a file at a time: to sum it up, or of one column to decode its rows
PIECE_BYTES = 1024 * 1024  # of rows read at a time, by their size on the disk before compression
PIECE_ROWS = 64  # at a time at most: a long text that is repeated is stored once
# Read again by us alone, and soon: twice as large as zstd.
QUICK: dict[str, Any] = {"compression": "lz4", "write_statistics": False}


class PartInfo(Struct, frozen=True):
    """What a part says of itself. `round`: of `--retry`, in which the partition was answered; 0 is the first.

    `owners`: of a part that a worker made, the workers of its own session ("3-2") whose records are in it, the maker
    included; all journals of earlier sessions that count are in it, too. UNSET where a session alone on its run made
    it: then all of them are.
    """

    run_id: str
    partition: Partition
    tally: Tally
    round: int = 0
    owners: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


def write_part(
    file: IO[bytes],
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    info: Callable[[], PartInfo],
    *,
    is_result: bool = True,
    repeated: list[str] | bool = True,
) -> str:
    """Write one finished partition, with checksums that tell a damaged page from a good one; returns the file's sum.

    Each table becomes a row group, and is gone before the next is asked for. `info` is asked last. `is_result`: the
    part itself is what is asked for, so it is as small and as easy to query as the result of a run; one that is to be
    merged costs less. `repeated`: the columns whose values may repeat.
    """
    shape = _lasting(schema) if is_result else QUICK
    summed = _Summed(file)
    with (
        pa.output_stream(summed, buffer_size=WRITE_BYTES) as stream,
        pq.ParquetWriter(stream, schema, write_page_checksum=True, use_dictionary=repeated, **shape) as writer,
    ):
        for table in tables:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            del table
        stream.flush()
        found = summed.sum
        writer.add_key_value_metadata({PART_KEY: msgspec.json.encode(info()), SUM_KEY: found})
    return found.decode()


class _Summed(io.RawIOBase):
    """A file that sums up what is written to it: the checksums of pages leave out what stands around them."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._crc = self._size = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: "Buffer") -> int:
        """Write all of it."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += memoryview(data).nbytes
        return self._file.write(data)

    @property
    def sum(self) -> bytes:
        """Of everything so far."""
        return _sum(self._crc, self._size)


def _sum(crc: int, size: int) -> bytes:
    return b"%08x over %d bytes" % (crc, size)


def read_info(path: Path, run_id: str, index: int) -> PartInfo:
    """What a part says of itself, from its footer alone.

    Raises `CheckpointError` where the file is damaged, another run's, or under the name of another partition.
    """
    with _reading(path) as file:
        rows, metadata = file.metadata.num_rows, file.metadata.metadata or {}
    try:
        info = msgspec.json.decode(metadata.get(PART_KEY, b""), type=PartInfo)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{path}: this is no part that cometbatch wrote. Move it away and run again.") from error
    if info.run_id != run_id:
        raise CheckpointError(f"{path}: this part belongs to run {info.run_id}, not to {run_id}. Move it away.")
    if rows != info.partition.row_count or info.partition.index != index:
        raise CheckpointError(
            f"{path}: {rows} rows under this name, but the file was written as partition {info.partition.index} with "
            f"{info.partition.row_count} rows. Give it its own name again, or move it away to send its rows again."
        )
    return info


def foreign(folder: Path) -> list[Path]:
    """The tables in a folder that no run wrote: neither parts under their own names, nor slices."""
    return [path for path in sorted(folder.glob("*.parquet")) if not _is_ours(path)]


def _is_ours(path: Path) -> bool:
    try:
        with _reading(path) as file:
            metadata = file.metadata.metadata or {}
        if SLICE_KEY.encode() in metadata:
            return True
        info = msgspec.json.decode(metadata.get(PART_KEY, b""), type=PartInfo)
    except (CheckpointError, msgspec.MsgspecError):
        return False
    return path.stem == f"{info.partition.index:05d}"


def result_metadata(path: Path) -> dict[str, str] | None:
    """What a result file says of its run; `None` where there is no such file, or no Parquet file."""
    try:
        with path.open("rb") as file:
            metadata = pq.read_metadata(file).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}


def shape_of(path: Path) -> tuple[pa.Schema, int]:
    """The columns of a Parquet file, and how many rows it has. Raises `CheckpointError` where it can't be read."""
    with _reading(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def file_stamp(path: Path) -> str | None:
    """What tells a file from one that was put in its place: its size and the time of its last change."""
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{found.st_size} bytes, {found.st_mtime_ns} ns"


def check_part(path: Path) -> pa.Schema:
    """Read a whole part, each page with its checksum, a piece in memory at a time.

    Returns its schema, with the footer's words. Raises `CheckpointError` where it is damaged.
    """
    rest = read_pieces(path)
    schema = next(rest).schema
    for _ in rest:
        pass
    return schema


def read_column(path: Path, name: str) -> pa.ChunkedArray:
    """One column of a part. Raises `CheckpointError` where it can't be read."""
    with _reading(path) as part:
        return part.read([name], use_threads=False).column(name)


def rows_of_groups(path: Path) -> list[int]:
    """How many rows each row group of a part has. Raises `CheckpointError` where it can't be read."""
    with _reading(path) as part:
        return [part.metadata.row_group(index).num_rows for index in range(part.num_row_groups)]


def read_group(path: Path, index: int, names: list[str]) -> pa.Table:
    """Those of these columns that a part has, of one row group. Raises `CheckpointError` where it can't be read."""
    with _reading(path) as part:
        there = set(part.schema_arrow.names)
        return part.read_row_group(index, [name for name in dict.fromkeys(names) if name in there], use_threads=False)


def read_pairs(path: Path, texts: str, numbers: str) -> Iterator[tuple[str, list[int]]]:
    """For each text in one column of a part, the numbers that stand beside it in another; rows with a null have none.

    Raises `CheckpointError` where the part can't be read.
    """
    with _reading(path) as part:
        table = part.read([texts, numbers], use_threads=False)
        words = table.column(texts).combine_chunks().dictionary_encode()
        beside = table.column(numbers).combine_chunks()
    for number, text in enumerate(words.dictionary.to_pylist()):
        yield text, [each for each in beside.filter(pc.equal(words.indices, number)).to_pylist() if each is not None]


def has_column(path: Path, name: str) -> bool:
    """Whether a part has a column of this name. Raises `CheckpointError` where it can't be read."""
    with _reading(path) as part:
        return name in part.schema_arrow.names


def rewrite(
    file: IO[bytes],
    path: Path,
    info: PartInfo,
    completed: Callable[[pa.Table], pa.Table],
    repeated: Callable[[pa.Schema], list[str] | bool],
) -> None:
    """Write a part of a data set once more, each row group as `completed` makes it; else it stays what it is.

    `repeated`: the columns of a table whose values may repeat. Raises `CheckpointError` where the part is damaged.
    """
    groups = _row_groups(path, lambda _first, table: completed(table))
    first = next(groups)
    kept = {key: value for key, value in (first.schema.metadata or {}).items() if key not in (PART_KEY, SUM_KEY)}
    tables = (table.replace_schema_metadata(kept) for table in itertools.chain([first], groups))
    write_part(file, first.schema.with_metadata(kept), tables, lambda: info, repeated=repeated(first.schema))


def _row_groups(path: Path, completed: Callable[[int, pa.Table], pa.Table]) -> Iterator[pa.Table]:
    """A part's row groups, one after the other, as `completed` makes them, which is told the first line of each."""
    first = 0
    with _reading(path) as part:
        _check_sum(path, part)
        for index in range(part.num_row_groups):
            yield completed(first, part.read_row_group(index, use_threads=False))
            first += part.metadata.row_group(index).num_rows


def read_pieces(path: Path) -> Iterator[pa.Table]:
    """A part's rows in order, a megabyte or so at a time; the first piece has no rows, so that there always is one.

    Raises `CheckpointError` where it is damaged: before the first piece where the sum over the file tells it, else
    before the piece whose page has another checksum.
    """
    with _reading(path, buffer_size=READ_BYTES) as part:
        _check_sum(path, part)
        yield from pieces(part)


def pieces(file: pq.ParquetFile) -> Iterator[pa.Table]:
    """An open file's rows in order, a megabyte or so at a time, after an empty table with its schema.

    To be flat in memory where a row group is large, the file must have been opened with a `buffer_size`. Raises
    `ValueError` where a row group holds fewer rows than the footer says, and what pyarrow raises of a damaged one.
    """
    yield file.read_row_groups([])
    for index in range(file.num_row_groups):
        group = file.metadata.row_group(index)
        rows = 0
        # One row group at a time: pyarrow can't put together what is nested and has a dictionary.
        for batch in file.iter_batches(_piece_rows(group), row_groups=[index], use_threads=False):
            rows += batch.num_rows
            yield pa.Table.from_batches([batch])
        if rows != group.num_rows:
            raise ValueError(f"row group {index} holds {rows} rows, not {group.num_rows}")


def _piece_rows(group: pq.RowGroupMetaData) -> int:
    """How many rows of a row group to read at a time."""
    return max(1, min(PIECE_ROWS, PIECE_BYTES * int(group.num_rows) // max(1, int(group.total_byte_size))))


def merge(
    file: IO[bytes],
    parts: Iterable[Path],
    schema: pa.Schema,
    metadata: Mapping[str, str],
    *,
    rows: int,
    repeated: list[str] | bool = True,
    completed: Callable[[int, int, pa.Table], pa.Table] = lambda _number, _first, table: table,
) -> None:
    """Write every part's rows, in the order given, as one Parquet file; a row group at a time in memory.

    `rows`: how many there are in all, about. `repeated`: the columns whose values may repeat. `completed`: makes the
    lines of the result of a part's lines; it is told which of the parts it is, and which of its lines is the first.

    Raises `CheckpointError`, naming the part, where one is damaged or does not fit the schema.
    """

    def lines(number: int, path: Path) -> Iterator[pa.Table]:
        return _row_groups(path, lambda first, table: _under(schema, completed(number, first, table)))

    with pq.ParquetWriter(file, schema, use_dictionary=repeated, **_lasting(schema)) as writer:
        groups = (lines(number, path) for number, path in enumerate(parts))
        for tables in _groups(itertools.chain.from_iterable(groups), rows):
            table = pa.concat_tables(tables)
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            del table
        writer.add_key_value_metadata(dict(metadata))


def _lasting(schema: pa.Schema) -> dict[str, Any]:
    """How a result is written: to be small, and to be queried by its numbers.

    The least and the greatest text of a row group help hardly anybody to find a row, and are all in memory until the
    end: 260 kB a group where 30 columns hold a thousand characters each.
    """
    numbers = [field.name for field in schema if pa.types.is_primitive(field.type) or pa.types.is_decimal(field.type)]
    return {"compression": COMPRESSION, "write_statistics": numbers or False}


def enough_bytes(groups: int, total_bytes: float) -> float:
    """How large a row group is to be, in memory, after this many of them, in a result of this many bytes.

    The group and the list of those before it take together what that list alone would take in the end, the least that
    is possible: it grows with the square root of the result. No group is less than a quarter of the first.
    """
    together = max(GROUP_BYTES, math.sqrt(2 * LISTED_BYTES * total_bytes))
    return max(together - groups * LISTED_BYTES, together / 4)


def _groups(tables: Iterable[pa.Table], total_rows: int) -> Iterator[list[pa.Table]]:
    """Row groups of whole parts: a file of many small ones is slower to read, and its list of them takes memory.

    Each is the same list, emptied before the next one is read: two of them in memory would be twice as much.
    """
    group: list[pa.Table] = []
    rows = size = 0  # so far, in all
    groups = begun_at = 0  # at how many bytes
    for table in tables:
        group.append(table)
        del table
        rows, size = rows + group[-1].num_rows, size + group[-1].nbytes
        if size - begun_at >= enough_bytes(groups, size / max(1, rows) * total_rows):
            release_memory()  # what reading took beyond the tables
            yield group
            group.clear()
            release_memory()
            groups, begun_at = groups + 1, size
    if group:
        yield group
        group.clear()
    release_memory()  # before the list of row groups is written, which takes memory of its own


def release_memory() -> None:
    """Let the system have the memory of tables that are gone: allocators keep tens of megabytes for the next ones.

    With the system's own allocator also what lies between the tables' places, which grows with every group otherwise.
    """
    pa.default_memory_pool().release_unused()


def _under(schema: pa.Schema, table: pa.Table) -> pa.Table:
    """Only what differs is cast: pyarrow loads half of itself to cast anything."""
    if table.schema.names == schema.names and table.schema.types == schema.types:
        return pa.Table.from_arrays(table.columns, schema=schema)
    return table.cast(schema)


def _check_sum(path: Path, part: pq.ParquetFile) -> None:
    """Raises `ValueError` where the part is not what was written. Parts of earlier versions have no sum."""
    told = (part.metadata.metadata or {}).get(SUM_KEY)
    if told is None:
        return
    crc, size, whole = 0, 0, int(told.split()[2])
    with path.open("rb") as file:
        while piece := file.read(min(whole - size, READ_BYTES)):
            crc, size = zlib.crc32(piece, crc), size + len(piece)
    if told != _sum(crc, size):
        raise ValueError("its checksum differs")


@contextlib.contextmanager
def _reading(path: Path, *, buffer_size: int = 0) -> Iterator[pq.ParquetFile]:
    """Open a part. Raises `CheckpointError` where the system can't read it, and where it is damaged.

    Whatever else reading meets inside the block is damage; Arrow has many words for it. `buffer_size`: bytes of a
    column that are read at a time; 0 for all that a row group has of it.
    """
    options: dict[str, Any] = {"pre_buffer": False, "page_checksum_verification": True}
    try:
        with path.open("rb") as raw, pq.ParquetFile(raw, buffer_size=buffer_size, **options) as file:
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise CheckpointError(
                f"{path}: the system can't read this part ({error.strerror}). It may be whole: do not remove it, put "
                "this right, then run the same command again."
            ) from error
        words = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: this part can't be read ({words}). Restore it from a copy, or remove it to send its rows again: "
            "what they have cost is no longer in the bill then."
        ) from error
