"""Publishing: the result of a run is made of its parts and appears whole, by one rename for each file."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import pyarrow as pa

from cometbatch.commands.stopping import NotPublishedError
from cometbatch.records import Partition
from cometbatch.results import columns, parts
from cometbatch.results.answer_columns import AnswerColumns
from cometbatch.results.lines import Joined, Lines
from cometbatch.run_state.manifest import metadata_of
from cometbatch.run_state.published import lines_of, result_files, result_partitions
from cometbatch.run_state.run import Run, refuse_foreign
from cometbatch.run_state.slice_files import slice_files
from cometbatch.store import local
from cometbatch.store.local import write_aside


def publish(
    run: Run,
    input_schema: pa.Schema,
    answers: AnswerColumns | None = None,
    joined: Sequence[Joined] = (),
    *,
    is_given_up: Callable[[], bool] = lambda: False,
) -> None:
    """Make the result of a complete run appear. A data set of one slice needs nothing: its parts are the result.

    `answers`: makes the columns of answers. `joined`: makes columns that no part has, in order. Raises
    `NotPublishedError` where it is given up before the last part of a file is read; then that file is as it was.
    Raises `UsageError` where another file stands in the result's place, `CheckpointError` where a part is damaged or
    the disk refuses.
    """
    if run.directory.parts.is_dataset:
        return
    refuse_foreign(run)
    lines, of_run = lines_of(run.manifest, run.columns, joined), columns.columns_of(run.columns)
    schema = lines.schema(columns.joined_schema(input_schema, run.prefix, {}, of_run, answers))
    said = metadata_of(run.manifest) | lines.metadata
    for path, partitions, state in _files(run):
        write = functools.partial(
            _write,
            run=run,
            partitions=partitions,
            lines=lines,
            schema=schema,
            metadata=said | state,
            is_given_up=is_given_up,
        )
        write_aside(path, write)
    if run.directory.slices is not None:
        for path in set(slice_files(run.directory.slices)).difference(result_files(run)):
            local.remove(path)


def _files(run: Run) -> Iterator[tuple[Path, list[tuple[int, Partition]], dict[str, str]]]:
    """Each file of the result with its partitions, in order, and what it says of the run's state."""
    partitions, size = list(result_partitions(run.manifest)), run.manifest.partitions_in_slice
    for number, (path, state) in enumerate(result_files(run).items()):
        own = partitions if run.directory.slices is None else partitions[number * size : (number + 1) * size]
        yield path, own, state


def _write(
    file: IO[bytes],
    *,
    run: Run,
    partitions: Sequence[tuple[int, Partition]],
    lines: Lines,
    schema: pa.Schema,
    metadata: Mapping[str, str],
    is_given_up: Callable[[], bool],
) -> None:
    def paths() -> Iterator[Path]:
        for _, partition in partitions:
            if is_given_up():
                raise NotPublishedError
            yield run.directory.parts.path(partition.index)

    def completed(number: int, first: int, table: pa.Table) -> pa.Table:
        place, partition = partitions[number]
        row = partition.first_row + first
        target = run.manifest.slices[partition.slice].target
        return lines.table(table, place, range(row, row + table.num_rows), target=target)

    rows, repeated = sum(each.row_count for _, each in partitions), lines.repeated(schema)
    parts.merge(file, paths(), schema, metadata, rows=rows, repeated=repeated, completed=completed)
