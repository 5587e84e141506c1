"""Where the figures of a result come from: its files, read by the columns that are needed, or the rows of a run."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from cometbatch.errors import InputError
from cometbatch.results.rows import Piece, Rows, gathered

BATCH_ROWS: Final = 65_536  # read at a time
BATCH_BYTES: Final = 1 << 20  # of the columns that are read, at a time, about
READ_BYTES: Final = 1 << 18  # of a column, from the file
GATHERED_ROWS: Final = 4_096  # of a run, given at a time: its parts are read in pieces of some tens of rows
GATHERED_BYTES: Final = 4 << 20  # of the columns that are read of a run, in memory at a time, about
Tables: TypeAlias = Iterator[tuple[Sequence[int], pa.Table]]
"""Some lines at a time, with the place of each in the result, from 0."""


class Source(Protocol):
    """Lines of a result. `name`: how a person calls it. `is_whole`: each slice has all rows, in their order."""

    @property
    def name(self) -> str:
        """How a person calls it."""

    @property
    def is_whole(self) -> bool:
        """Whether each slice has all rows, in their order."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns, and what its metadata say. Raises `InputError` where it can't be read."""

    def tables(self, names: Sequence[str]) -> Tables:
        """These columns. Raises `InputError` where they can't be read."""


class ResultFiles(Struct, frozen=True):
    """A published result. `name`: how a person calls it. `files`: of the result, or of a data set in order.

    `scores`: files with the score columns of a data set, in the same order of lines; none where the result has them.
    """

    name: str
    files: tuple[Path, ...]
    scores: tuple[Path, ...] = ()

    @property
    def first(self) -> Path:
        """The file whose metadata tell of the scores."""
        return (self.scores or self.files)[0]

    @property
    def is_whole(self) -> bool:
        """It is: nothing else is published."""
        return True

    @property
    def schema(self) -> pa.Schema:
        """The columns of the first file, then those that only the scores have; metadata of both."""
        if not self.files:
            raise InputError(f"{self.name}: there is no Parquet file here, so no result of cometbatch.")
        found = _schema(self.files[0])
        if not self.scores:
            return found
        beside = _schema(self.scores[0])
        added = [field for field in beside if field.name not in found.names]
        return pa.schema([*found, *added], {**(found.metadata or {}), **(beside.metadata or {})})

    def tables(self, names: Sequence[str]) -> Tables:
        """These columns, some lines at a time; no other column is read."""
        if not self.scores:
            return _numbered(_tables(self.files, names))
        with reading(self.files[0]) as file:
            own = set(file.schema_arrow.names)
        there, beside = ([name for name in names if (name in own) == is_own] for is_own in (True, False))
        if not beside:
            return _numbered(_tables(self.files, there))
        first = _tables(self.files, there or sorted(own)[:1])
        return _numbered(_beside(first, _tables(self.scores, beside), self.name))


class RunRows(Struct, frozen=True):
    """The rows of a run that is not finished, as far as they have an outcome."""

    name: str
    rows: Rows

    @property
    def is_whole(self) -> bool:
        """It is not."""
        return False

    @property
    def schema(self) -> pa.Schema:
        """Of all columns of its rows."""
        first = next((piece.table for piece in self.rows.pieces()), None)
        found = self.rows.table().schema if first is None else first.schema
        return found.with_metadata({key.encode(): value.encode() for key, value in self.rows.metadata.items()})

    def tables(self, names: Sequence[str]) -> Tables:
        """These columns, some lines at a time."""
        wanted = list(names)
        pieces = (Piece(piece.ordinals, piece.table.select(wanted)) for piece in self.rows.pieces())
        for piece in gathered(pieces, GATHERED_ROWS, GATHERED_BYTES):
            yield piece.ordinals, piece.table


def _schema(path: Path) -> pa.Schema:
    """The columns of a file, with all that its metadata say."""
    with reading(path) as file:
        found = file.schema_arrow
        return found.with_metadata({**(found.metadata or {}), **(file.metadata.metadata or {})})


def _numbered(tables: Iterator[pa.Table]) -> Tables:
    first = 0
    for table in tables:
        yield range(first, first + table.num_rows), table
        first += table.num_rows


def _tables(files: Sequence[Path], names: Sequence[str]) -> Iterator[pa.Table]:
    for path in files:
        with reading(path) as file:
            if missing := [name for name in names if name not in file.schema_arrow.names]:
                raise InputError(
                    f"{path}: the column {missing[0]!r} is missing, which other files of this result have."
                )
            for index in range(file.num_row_groups):
                rows = _batch_rows(file.metadata.row_group(index), names)
                for batch in file.iter_batches(rows, row_groups=[index], columns=list(names), use_threads=False):
                    yield pa.Table.from_batches([batch])


def _batch_rows(group: pq.RowGroupMetaData, names: Sequence[str]) -> int:
    """How many rows of a row group to read at a time."""
    wanted, chunks = set(names), [group.column(at) for at in range(group.num_columns)]
    size = sum(each.total_uncompressed_size for each in chunks if each.path_in_schema.partition(".")[0] in wanted)
    most: int = BATCH_BYTES * group.num_rows // max(1, size)
    return max(1, min(BATCH_ROWS, most))


def _beside(first: Iterator[pa.Table], second: Iterator[pa.Table], name: str) -> Iterator[pa.Table]:
    """Lines of two tables, put side by side whatever pieces they come in. Raises `InputError` where one has more."""
    left, right = next(first, None), next(second, None)
    while left is not None and right is not None:
        rows = min(left.num_rows, right.num_rows)
        if rows:
            yield _joined(left.slice(0, rows), right.slice(0, rows))
        left = left.slice(rows) if left.num_rows > rows else next(first, None)
        right = right.slice(rows) if right.num_rows > rows else next(second, None)
    if left is not None or right is not None:
        raise InputError(f"{name}: it has other rows than its scores. Score it again: cometbatch score JOB_FILE")


def _joined(left: pa.Table, right: pa.Table) -> pa.Table:
    return pa.Table.from_arrays([*left.columns, *right.columns], names=[*left.column_names, *right.column_names])


@contextlib.contextmanager
def reading(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a file of a result. Raises `InputError` where it can't be read."""
    try:
        with path.open("rb") as raw, pq.ParquetFile(raw, buffer_size=READ_BYTES, pre_buffer=False) as file:
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise InputError(f"{path}: this can't be read as a result ({words}).") from error
