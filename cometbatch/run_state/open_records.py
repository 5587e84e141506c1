"""What is recorded of partitions without a part, one after the other, while each journal is read once; read only."""

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from cometbatch.records import Record
from cometbatch.run_state import recorded
from cometbatch.run_state.manifest import partitions_of
from cometbatch.run_state.open_partition import PartitionRecords, Room, replayed
from cometbatch.run_state.progress import RECORDS_AT_ONCE, journaled
from cometbatch.run_state.run import Run

MAX_KEPT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of records that are kept in memory; the rest is read again."""
RANGES_KEPT: Final = 4
"""Ranges whose records can be found without another pass over their journals, at some 30 bytes a record."""


class OpenRecords:
    """The records of open partitions. In a range of several, those of the others are noted on the way."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._ranges = OrderedDict[int, dict[int, PartitionRecords]]()

    def of(self, index: int) -> PartitionRecords:
        """What is recorded of a partition. Raises `CheckpointError` where a file is damaged, or goes meanwhile."""
        run, manifest = self._run, self._run.manifest
        if len(manifest.slices) == 1:
            files = recorded.sources(run.directory, manifest, [index], run.progress.last)
            return replayed(manifest, [index], files, None, Room(MAX_KEPT_BYTES))[index]
        number = manifest.range_of(index)
        found = self._ranges.pop(number, None)
        if found is None or index not in found:
            done = frozenset(run.progress.committed)
            indexes = [each for each in partitions_of(manifest, number) if each not in done or each == index]
            files = recorded.sources(run.directory, manifest, indexes, run.progress.last)
            found = replayed(manifest, indexes, files, None, Room(MAX_KEPT_BYTES // RANGES_KEPT))
        self._ranges[number] = found
        if len(self._ranges) > RANGES_KEPT:
            self._ranges.popitem(last=False)
        return found[index]

    def some(self, index: int) -> Iterator[list[Record]]:
        """The same as they count, some at a time: answers can be long."""
        run = self._run
        if len(run.manifest.slices) == 1:
            yield from journaled(run.directory, run.manifest, index, run.progress.last)
            return
        records = self.of(index).as_they_came()
        while some := list(itertools.islice(records, RECORDS_AT_ONCE)):
            yield some
