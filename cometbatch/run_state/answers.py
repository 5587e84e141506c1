"""The answers of a run's own calls, found again by ordinal wherever they are recorded by now; changes nothing.

Guards: also while the run goes on. A partition whose journals go while they are read has its part then.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.open_partition import OpenPartition
from cometbatch.run_state.open_records import OpenRecords
from cometbatch.run_state.progress import journaled_in
from cometbatch.run_state.recorded_rows import is_committed
from cometbatch.run_state.run import Run, with_journals

GROUPS_KEPT: Final = 4
"""Row groups of parts that stay in memory for the next call, some megabytes each."""


def answered_calls(run: Run) -> AnsweredCalls:
    """The calls of a run that have an answer, by what was asked. Raises `CheckpointError` where a file is damaged."""
    found = AnsweredCalls()
    for index in run.progress.committed:
        path, prefix = run.directory.parts.path(index), run.prefix
        _add_part(found, path, prefix, run.manifest.first_ordinal(run.manifest.partition(index)))
    for indexes in with_journals(run):
        for records in journaled_in(run.directory, run.manifest, indexes, run.progress.last):
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


class PartRows:
    """Output columns of single rows, read from the parts of a run that hold them; some row groups stay in memory."""

    def __init__(self, directory: RunDirectory, manifest: Manifest, prefix: str, names: Sequence[str]) -> None:
        self.columns = columns.columns_of(names)
        self._directory, self._manifest, self._prefix = directory, manifest, prefix
        self._names = [prefix + name for name in (*names, columns.CUSTOM_ID)]
        self._sizes: dict[int, list[int]] = {}  # rows of each row group of a part
        self._groups = OrderedDict[tuple[int, int], pa.Table]()

    def take(self, ordinals: Sequence[int]) -> Iterator[tuple[list[int], pa.Table]]:
        """These calls of one partition, ascending, each beside its row, some at a time. Raises `CheckpointError`."""
        index = self._manifest.partition_of(ordinals[0])
        first, left = self._manifest.first_ordinal(self._manifest.partition(index)), list(ordinals)
        if index not in self._sizes:
            self._sizes[index] = parts.rows_of_groups(self._directory.parts.path(index))
        for group, size in enumerate(self._sizes[index]):
            here = [ordinal for ordinal in left if ordinal < first + size]
            if here:
                yield here, self._group(index, group).take([ordinal - first for ordinal in here])
            left, first = left[len(here) :], first + size

    def _group(self, index: int, group: int) -> pa.Table:
        table = self._groups.pop((index, group), None)
        if table is None:
            table = parts.read_group(self._directory.parts.path(index), group, self._names)
            table = with_target(table, self._prefix, self.columns)
        self._groups[index, group] = table
        if len(self._groups) > GROUPS_KEPT:
            self._groups.popitem(last=False)
        return table


class RecordedAnswers:
    """Reads answers by ordinal, in a thread of its own. `opened`: the partition of an index, where it is open now."""

    def __init__(self, run: Run, opened: Callable[[int], OpenPartition | None] = lambda _index: None) -> None:
        self._run = run
        self._opened = opened
        self._rows = PartRows(run.directory, run.manifest, run.prefix, run.columns)
        self._committed = set(run.progress.committed)
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
        opened, run = self._opened(index), self._run
        if opened is None and self._is_committed(index):
            return self._in_part(ordinals)
        try:
            if opened is not None:
                return opened.answers(ordinals)
            return OpenRecords(run).of(index).answers(ordinals)
        except (CheckpointError, ValueError):  # ValueError: of a file that was closed
            if not self._is_committed(index):
                raise
            return self._in_part(ordinals)

    def _is_committed(self, index: int) -> bool:
        if index not in self._committed and is_committed(self._run, index):
            self._committed.add(index)
        return index in self._committed

    def _in_part(self, ordinals: Sequence[int]) -> dict[int, Answered]:
        found: dict[int, Answered] = {}
        for some, table in self._rows.take(ordinals):
            outcomes = columns.read_outcomes(table, 0, self._run.prefix, self._rows.columns)
            for ordinal, outcome in zip(some, outcomes, strict=True):
                if isinstance(outcome, Answered):
                    found[ordinal] = msgspec.structs.replace(outcome, ordinal=ordinal)
        return found
