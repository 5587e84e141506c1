"""The rows of earlier results: what an index needs of all of them, and the whole of those that are taken.

Rows are mostly taken in the order in which they stand, so the row groups that were read last are kept in memory.
"""

import contextlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from cometbatch.errors import CheckpointError
from cometbatch.records import Answered
from cometbatch.results import parts
from cometbatch.results.columns import CUSTOM_ID, REUSED_COLUMNS, Column, columns_of, read_outcomes
from cometbatch.results.reuse_index import ORDINAL, Batch, SourceFile

READ_ROWS: Final = 32_768  # of a column, at a time, for the index
OPEN_FILES: Final = 8  # that are kept open
GROUPS: Final = 4  # row groups that are kept in memory, where they are not large
GROUP_BYTES: Final = 32 * 1024 * 1024  # in memory of those that are kept; the last one is kept, however large it is
_LEFT_OUT: Final = frozenset({CUSTOM_ID, "asks", "rejected_cost_usd", "target", "asked_target"})
"""Output columns that say nothing of an answer, or that are another call's."""


def batches(file: SourceFile) -> Iterator[Batch]:
    """What the index needs of the rows of a file. Raises `CheckpointError` where it can't be read."""
    named = [file.prefix + name for name in ("request_hash", *REUSED_COLUMNS[:2])]
    has_origins = set(REUSED_COLUMNS) <= set(file.columns)
    wanted = [*(named if has_origins else named[:1]), *([ORDINAL] if file.first_ordinal is None else [])]
    with reading(file, read_dictionary=named[1:2] if has_origins else []) as found:
        for batch in found.iter_batches(READ_ROWS, columns=wanted, use_threads=False):
            columns = {name: batch.column(name) for name in wanted}
            hashes, origins, ordinals = (columns.get(name) for name in named)
            yield Batch(hashes, origins, ordinals, columns.get(ORDINAL))


@contextlib.contextmanager
def reading(file: SourceFile, **options: Any) -> Iterator[pq.ParquetFile]:
    """Open a file of an earlier run. Raises `CheckpointError` where it changed, or can't be read."""
    with _naming(file), Path(file.path).open("rb") as raw:
        _refuse_changed(file)
        yield _opened(raw, **options)


def _opened(raw: IO[bytes], **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(raw, pre_buffer=False, page_checksum_verification=True, **options)


def _refuse_changed(file: SourceFile) -> None:
    if parts.file_stamp(Path(file.path)) != file.stamp:
        raise CheckpointError(
            f"{file.path}: this source of earlier answers changed while it was read. Run the same command again once "
            "nothing writes to it."
        )


@contextlib.contextmanager
def _naming(file: SourceFile) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise CheckpointError(
            f"{file.path}: this source of earlier answers can't be read ({words}). Restore it from a copy, or take it "
            "out of reuse.from: its answers are paid for again then."
        ) from error


class RowGroup:
    """Some rows of a file in memory, as far as an answer needs them. `first`: the row in the file of the first one."""

    def __init__(self, table: pa.Table, first: int, columns: Sequence[Column]) -> None:
        self.first = first
        self.size = table.nbytes
        self._table = table
        self._columns = columns
        self._at_hand: dict[str, pa.Array] = {}

    def cell(self, name: str, row: int) -> Any:
        """One cell of a column of texts, by its row in the file."""
        if name not in self._at_hand:
            self._at_hand[name] = self._table.column(name).combine_chunks()
        return self._at_hand[name][row - self.first].as_py()

    def moment(self, row: int) -> int | None:
        """When a row's outcome was known, in microseconds since 1970."""
        if "moments" not in self._at_hand:
            moments = self._table.column("finished_at").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            self._at_hand["moments"] = moments.combine_chunks()
        found: int | None = self._at_hand["moments"][row - self.first].as_py()
        return found

    def answers(self, rows: Sequence[int]) -> list[Answered]:
        """The answers in these rows of the file."""
        table = self._table.take(pa.array([row - self.first for row in rows], pa.int64()))
        table = table.append_column(CUSTOM_ID, pa.nulls(len(rows), pa.string()))
        found = read_outcomes(table, 0, "", self._columns)
        return [outcome for outcome in found if isinstance(outcome, Answered)]


class EarlierRows:
    """Reads rows of earlier results by file and row. `columns`: the names of the output columns that are wanted."""

    def __init__(self, files: Sequence[SourceFile], columns: Sequence[str]) -> None:
        self._files = files
        self._wanted = frozenset(columns).difference(_LEFT_OUT) | set(REUSED_COLUMNS)
        self._opened: OrderedDict[int, tuple[IO[bytes], pq.ParquetFile, list[int]]] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int], RowGroup] = OrderedDict()

    def close(self) -> None:
        """Close the files, and forget the rows."""
        self._groups.clear()
        while self._opened:
            self._opened.popitem()[1][0].close()

    def group(self, number: int, row: int) -> RowGroup:
        """The row group of a file that holds a row. Raises `CheckpointError` where it can't be read."""
        file = self._files[number]
        with _naming(file):
            _, opened, ends = self._file(number)
            index = bisect_right(ends, row)
            if index == len(ends):
                raise ValueError(f"it has no row {row}")
            if (number, index) in self._groups:
                self._groups.move_to_end((number, index))
                return self._groups[number, index]
            first = ends[index - 1] if index else 0
            columns = [each for each in columns_of(file.columns) if each.name in self._wanted]
            names = [each.name for each in columns]
            table = opened.read_row_group(index, columns=[file.prefix + name for name in names], use_threads=False)
            table = table.select([file.prefix + name for name in names]).rename_columns(names)
            group = RowGroup(table, first, columns)
        self._groups[number, index] = group
        while len(self._groups) > 1 and (
            len(self._groups) > GROUPS or sum(each.size for each in self._groups.values()) > GROUP_BYTES
        ):
            self._groups.popitem(last=False)
        return group

    def _file(self, number: int) -> tuple[IO[bytes], pq.ParquetFile, list[int]]:
        """An open file, and the row after the last of each of its row groups."""
        if number in self._opened:
            self._opened.move_to_end(number)
            return self._opened[number]
        file = self._files[number]
        raw = Path(file.path).open("rb")  # noqa: SIM115 - closed when others were used since
        try:
            _refuse_changed(file)
            found = _opened(raw)
            ends, end = [], 0
            for index in range(found.num_row_groups):
                end += found.metadata.row_group(index).num_rows
                ends.append(end)
        except BaseException:
            raw.close()
            raise
        self._opened[number] = raw, found, ends
        if len(self._opened) > OPEN_FILES:
            self._opened.popitem(last=False)[1][0].close()
        return self._opened[number]
