"""The answers of a run's own calls, found again by ordinal wherever they are recorded by now; changes nothing.

Guards: also while the run goes on. A partition whose journals go while they are read has its part then.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from cometbatch.errors import CheckpointError
from cometbatch.records import Answered
from cometbatch.results import columns, parts
from cometbatch.results.answered import HASH_DIGITS, AnsweredCalls, keys_of
from cometbatch.results.columns import answered_in
from cometbatch.results.target_column import with_target
from cometbatch.run_state import recorded
from cometbatch.run_state.open_partition import OpenPartition, PartitionRecords
from cometbatch.run_state.progress import journaled
from cometbatch.run_state.recorded_rows import MAX_KEPT_BYTES, is_committed
from cometbatch.run_state.run import Run

GROUPS_KEPT: Final = 4
"""Row groups of parts that stay in memory for the next call, some megabytes each."""


def answered_calls(run: Run) -> AnsweredCalls:
    """The calls of a run that have an answer, by what was asked. Raises `CheckpointError` where a file is damaged."""
    found, committed = AnsweredCalls(), frozenset(run.progress.committed)
    partitions = run.manifest.partitions()
    for index in run.progress.committed:
        path, prefix = run.directory.parts.path(index), run.prefix
        _add_part(found, path, prefix, run.manifest.first_ordinal(partitions[index]))
    in_journals = {file.range for file in run.directory.journals.all()} | run.directory.reopened().partitions.keys()
    for index in sorted(in_journals - committed):
        for records in journaled(run.directory, run.manifest, index, run.progress.last):
            for answer in answered_in(records):
                found.add(answer.request_hash, answer.ordinal)
    return found


def _add_part(found: AnsweredCalls, path: Path, prefix: str, first: int) -> None:
    statuses = parts.read_column(path, f"{prefix}status").to_pylist()
    hashes = parts.read_column(path, f"{prefix}request_hash").to_pylist()
    pairs = zip(hashes, statuses, strict=True)
    answered = [(each, ordinal) for ordinal, (each, status) in enumerate(pairs, first) if status != "failed"]
    texts = [each for each, _ in answered if each is not None and len(each) == HASH_DIGITS]
    try:
        keys = keys_of("".join(texts)) if len(texts) == len(answered) else None
    except ValueError:
        keys = None
    if keys is None:
        raise CheckpointError(f"{path}: an answer has no request_hash. Restore this part from a copy.")
    found.add_all(keys, (ordinal for _, ordinal in answered))


class RecordedAnswers:
    """Reads answers by ordinal, in a thread of its own. `opened`: the partition of an index, where it is open now."""

    def __init__(self, run: Run, opened: Callable[[int], OpenPartition | None] = lambda _index: None) -> None:
        self._run = run
        self._opened = opened
        self._columns = columns.columns_of(run.columns)
        self._partitions = run.manifest.partitions()
        self._committed = set(run.progress.committed)
        self._rows: dict[int, list[int]] = {}  # of each row group of a part
        self._groups = OrderedDict[tuple[int, int], pa.Table]()
        self._thread = ThreadPoolExecutor(1)

    async def calls(self) -> AnsweredCalls:
        """The calls that have an answer, read from parts and journals. Raises as `answered_calls` does."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, answered_calls, self._run)

    async def find(self, ordinals: Sequence[int]) -> Mapping[int, Answered]:
        """The answers of these calls, ascending; a call without one is left out. Raises `CheckpointError`."""
        found: Mapping[int, Answered] = await asyncio.get_running_loop().run_in_executor(
            self._thread, self.read, ordinals
        )
        return found

    def read(self, ordinals: Sequence[int]) -> dict[int, Answered]:
        """The same for a caller who waits."""
        found: dict[int, Answered] = {}
        for index, some in groupby(ordinals, self._run.manifest.partition_of):
            found |= self._in_partition(index, list(some))
        return found

    def close(self) -> None:
        """Wait for the thread's end."""
        self._thread.shutdown(wait=True)

    def _in_partition(self, index: int, ordinals: Sequence[int]) -> dict[int, Answered]:
        opened = self._opened(index)
        if opened is None and self._is_committed(index):
            return self._in_part(index, ordinals)
        try:
            if opened is not None:
                return opened.answers(ordinals)
            run = self._run
            files = recorded.sources(run.directory, run.manifest.run_id, index, run.progress.last)
            return PartitionRecords(files, None, MAX_KEPT_BYTES).answers(ordinals)
        except (CheckpointError, ValueError):  # of a file that was closed
            if not self._is_committed(index):
                raise
            return self._in_part(index, ordinals)

    def _is_committed(self, index: int) -> bool:
        if index not in self._committed and is_committed(self._run, index):
            self._committed.add(index)
        return index in self._committed

    def _in_part(self, index: int, ordinals: Sequence[int]) -> dict[int, Answered]:
        first = self._run.manifest.first_ordinal(self._partitions[index])
        found: dict[int, Answered] = {}
        for group, rows in self._by_group(index, [ordinal - first for ordinal in ordinals]):
            start = sum(self._rows[index][:group])
            table = self._group(index, group).take([row - start for row in rows])
            outcomes = columns.read_outcomes(table, 0, self._run.prefix, self._columns)
            for row, outcome in zip(rows, outcomes, strict=True):
                if isinstance(outcome, Answered):
                    found[first + row] = msgspec.structs.replace(outcome, ordinal=first + row)
        return found

    def _by_group(self, index: int, rows: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
        """Rows of a part by the row group that they are in."""
        if index not in self._rows:
            self._rows[index] = parts.rows_of_groups(self._run.directory.parts.path(index))
        left, group, end = list(rows), 0, 0
        for group, count in enumerate(self._rows[index]):
            end += count
            here = [row for row in left if row < end]
            if here:
                yield group, here
            left = left[len(here) :]

    def _group(self, index: int, group: int) -> pa.Table:
        """The output columns of a row group, kept for a while."""
        table = self._groups.pop((index, group), None)
        if table is None:
            names = [self._run.prefix + name for name in (*self._run.columns, columns.CUSTOM_ID)]
            table = parts.read_group(self._run.directory.parts.path(index), group, names)
            table = with_target(table, self._run.prefix, self._columns)
        self._groups[index, group] = table
        if len(self._groups) > GROUPS_KEPT:
            self._groups.popitem(last=False)
        return table
