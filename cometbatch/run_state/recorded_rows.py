"""The rows of a run that have an outcome by now, from parts and journals, in the order of the result; changes nothing.

Guards: also while another process goes on with the run. A partition whose journals go while they are read has its part
then, and the rest comes from there. Law: the rows are those that its progress counts, however many more there are by
the time of reading, so that every reading of one `Run` has the same rows, and as many as its tally.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from cometbatch.errors import CheckpointError
from cometbatch.records import Partition
from cometbatch.results import columns, parts
from cometbatch.results.columns import outcomes_in
from cometbatch.results.lines import Joined
from cometbatch.results.rows import Piece, Rows
from cometbatch.results.summary import Limited
from cometbatch.results.target_column import with_target
from cometbatch.run_state.manifest import metadata_of
from cometbatch.run_state.open_partition import PIECE_BYTES, PartitionRecords
from cometbatch.run_state.open_records import OpenRecords
from cometbatch.run_state.progress import has_part
from cometbatch.run_state.published import lines_of, result_partitions, state_of
from cometbatch.run_state.run import Run

Tables = Callable[[Iterable[Partition]], Iterator[pa.Table]]
"""Reads partitions of the input, in the order given."""
Walk = Callable[[Run, Tables | None, columns.Further | None], Iterator[tuple[int, Partition, Piece]]]
"""Goes through rows of a run that have an outcome: some at a time, with their partition and the place of its slice."""


def all_pieces(
    run: Run, tables: Tables | None, further: columns.Further | None
) -> Iterator[tuple[int, Partition, Piece]]:
    """All rows of a run that have an outcome, in the order of the result; as `Walk` has it."""
    inputs = None if tables is None else _Inputs(tables)
    records = OpenRecords(run)

    def table_of(partition: Partition) -> pa.Table | None:
        return None if inputs is None else inputs.table(partition)

    for place, partition in result_partitions(run.manifest):
        for piece in rows_of(run, partition, table_of, further, records):
            yield place, partition, piece


def recorded_rows(
    run: Run,
    tables: Tables | None,
    notes: tuple[str, ...] = (),
    files: tuple[Path, ...] = (),
    further: columns.Further | None = None,
    *,
    joined: Sequence[Joined] = (),
    walk: Walk = all_pieces,
) -> Rows:
    """The rows of a run that have an outcome, in the order of the result, as lines of it.

    `tables`: None where the input can't be had; then the input columns of rows without a part are null. `further`: what
    makes the run's own columns; without it they are left out. `joined`: makes columns that no part has. `walk`: which
    rows are read. Reading raises `CheckpointError` where a file of the run is damaged, and what `tables` raises.
    """
    output, lines = columns.columns_of(run.columns), lines_of(run.manifest, run.columns, joined)
    own = {} if further is None else {field.name: field.type for field in further.fields}
    names = (*run.manifest.input.columns, *(run.prefix + column.name for column in output), *own)
    others = own | {field.name: field.type for field in (*lines.slice_fields, *lines.joined_fields)}
    metadata = metadata_of(run.manifest) | state_of(run) | lines.metadata

    def pieces() -> Iterator[Piece]:
        for place, partition, piece in walk(run, tables, further):
            begin = partition.slice * run.rows
            rows = [ordinal - begin for ordinal in piece.ordinals]
            yield Piece(piece.ordinals, lines.table(piece.table.select(names), place, rows))

    return Rows(lines.names(names), run.prefix, output, pieces, notes, (run.result, *files), others, metadata)


def look_below(run: Run, limit: int | None) -> Limited | None:
    """What became of the rows below a limit, in each slice; None without one. Raises `CheckpointError`."""
    if limit is None:
        return None
    rows, tally = min(limit, run.rows) * len(run.manifest.active), run.tally
    done = rows - run.calls_due(limit)
    if not tally.incomplete and not tally.failed:
        return Limited(limit, rows, done, succeeded=done)
    due = (each for _, each in result_partitions(run.manifest) if each.first_row < limit)
    found = [_answered(run, each, limit) for each in due]
    succeeded, incomplete = (sum(each[kind] for each in found) for kind in (0, 1))
    return Limited(limit, rows, done, succeeded, incomplete)


def _answered(run: Run, partition: Partition, limit: int) -> tuple[int, int]:
    """How many rows of a partition below the limit have a whole answer, and how many one that is not whole."""
    if partition.index in run.progress.committed and partition.first_row + partition.row_count <= limit:
        path = run.directory.parts.path(partition.index)
        tally = parts.read_info(path, run.manifest.run_id, partition.index).tally
        return tally.succeeded, tally.incomplete
    end = run.manifest.first_ordinal(partition) + limit - partition.first_row
    status = f"{run.prefix}status"
    found = Counter[str]()
    for piece in rows_of(run, partition, lambda _: None):
        statuses = piece.table.column(status).to_pylist()
        found.update(word for ordinal, word in zip(piece.ordinals, statuses, strict=True) if ordinal < end)
    return found["succeeded"], found["incomplete"]


class _Inputs:
    """The input's rows, for partitions that are asked for one by one, ascending within each slice."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._wanted: Partition | None = None
        self._read: Iterator[pa.Table] = iter(())

    def table(self, partition: Partition) -> pa.Table:
        """The rows of a partition. Raises `InputError` where they are not there any more."""
        is_new_slice = self._wanted is None or partition.slice != self._wanted.slice
        self._wanted = partition
        if is_new_slice:
            self._read = self._tables(self._asked())
        return next(self._read)

    def _asked(self) -> Iterator[Partition]:
        while self._wanted is not None:
            yield self._wanted


def rows_of(
    run: Run,
    partition: Partition,
    table_of: Callable[[Partition], pa.Table | None],
    further: columns.Further | None = None,
    open_records: OpenRecords | None = None,
    *,
    calls: Collection[int] | None = None,
) -> Iterator[Piece]:
    """The rows of a partition that have an outcome, in order. `table_of`: its input; None where that can't be had.

    `open_records`: of a caller who asks for several partitions. `calls`: those that are wanted of a partition without
    a part, by ordinal; all that the run's progress counts by default.
    """
    due = first = run.manifest.first_ordinal(partition)
    is_open = partition.index not in run.progress.committed
    wanted = run.progress.recorded if calls is None else calls
    if is_open:
        try:
            records = (OpenRecords(run) if open_records is None else open_records).of(partition.index)
            if not is_committed(run, partition.index):
                for piece in _open_pieces(run, records, partition, table_of, wanted):
                    table = piece.table if further is None else columns.extended(piece.table, run.prefix, further)
                    yield Piece(piece.ordinals, table)
                    due = piece.ordinals[-1] + 1
                return
        except CheckpointError:
            if not is_committed(run, partition.index):
                raise
    path, ordinal, output = run.directory.parts.path(partition.index), first, columns.columns_of(run.columns)
    for written in parts.read_pieces(path):
        table = with_target(written, run.prefix, output, run.manifest.slices[partition.slice].target)
        rest = table.slice(max(0, due - ordinal))
        ordinal += table.num_rows
        piece = Piece(range(ordinal - rest.num_rows, ordinal), rest)
        if is_open:
            piece = piece.only([at for at, each in enumerate(piece.ordinals) if each in wanted])
        if piece.ordinals:
            yield piece


def is_committed(run: Run, index: int) -> bool:
    """Whether a partition has its part by now."""
    return has_part(run.directory, run.manifest, index)


def _open_pieces(
    run: Run,
    records: PartitionRecords,
    partition: Partition,
    table_of: Callable[[Partition], pa.Table | None],
    wanted: Collection[int],
) -> Iterator[Piece]:
    """The wanted rows of an open partition, each beside its outcome. The input is read where there are some."""
    output, first = columns.columns_of(run.columns), run.manifest.first_ordinal(partition)
    identity = run.manifest.input
    row_bytes = max(identity.size, identity.decoded_size) // max(1, identity.rows)
    table: pa.Table | None = None
    recorded = map(outcomes_in, records.in_order(row_bytes, PIECE_BYTES))
    found = ([outcome for outcome in some if outcome.ordinal in wanted] for some in recorded)
    for number, some in enumerate(filter(None, found)):
        table = table_of(partition) if number == 0 else table
        ordinals = [outcome.ordinal for outcome in some]
        if table is None:
            rows = pa.table({name: pa.nulls(len(ordinals)) for name in identity.columns})
        else:
            rows = table.take([ordinal - first for ordinal in ordinals])
        yield Piece(ordinals, columns.beside(rows, some, run.prefix, {}, output))
