"""A range that is open: its rows, its journal of this session, and its open partitions, of whichever slices."""

import asyncio
from collections.abc import Hashable, Mapping, Sequence

import pyarrow as pa

from cometbatch.records import Record
from cometbatch.results import codec
from cometbatch.run_state.journal import LINE_EXTRA_BYTES, Journal
from cometbatch.run_state.open_partition import OpenPartition


class OpenRange:
    """A range from the first queue that needs it to the last partition that is closed.

    `loading`: its rows, as they are being read. `queues`: those that have partitions of it open, or are about to.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.loading: asyncio.Future[pa.Table] | None = None
        self.table: pa.Table | None = None
        self.size = 0  # bytes of input, unused columns included; once it is read
        self.journal: Journal | None = None
        self.partitions: dict[int, OpenPartition] = {}  # by index
        self.queues: dict[Hashable, int] = {}  # how many partitions each has open, those that it is opening included
        self.closing: asyncio.Future[None] | None = None

    def begin(self, table: pa.Table, journal: Journal) -> None:
        """The rows are there, and the journal is open."""
        self.table, self.size, self.journal = table, table.nbytes, journal

    def record(self, groups: Mapping[int, Sequence[Record]]) -> None:
        """Write records of its open partitions, by index, in one go. Raises `CheckpointError` where the disk won't."""
        assert self.journal is not None  # noqa: S101 - no partition is open before its journal
        lines = [list(map(codec.encode_record, some)) for some in groups.values()]
        offset = self.journal.append(lines[0] if len(lines) == 1 else [line for some in lines for line in some])
        for (index, records), own in zip(groups.items(), lines, strict=True):
            self.partitions[index].note(records, own, offset)
            offset += sum(map(len, own)) + LINE_EXTRA_BYTES * len(own)

    def close(self) -> None:
        """Sync and close the journal, which stays for the next session; no work where it is closed already.

        So it is where closing came to its end and the task that waited for it was cancelled before it could say so.
        """
        journal = self.journal
        if journal is None or journal.is_closed:
            return
        try:
            journal.sync()
            journal.note()
        finally:
            journal.close()
