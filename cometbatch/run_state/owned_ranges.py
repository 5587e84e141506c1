"""What one of several owners of a run knows of the ranges that it has claimed, and what it has booked in them."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from cometbatch.records import Record, RejectedAsk
from cometbatch.run_state.claims import ClaimedRange, Claims
from cometbatch.run_state.committer import Committer
from cometbatch.run_state.manifest import partitions_of
from cometbatch.run_state.open_partition import OpenPartition
from cometbatch.run_state.open_ranges import OpenRanges, outlast
from cometbatch.run_state.ownership import Claimed, Ownership
from cometbatch.run_state.run import lacking
from cometbatch.run_state.spending import NOTHING, Spending
from cometbatch.run_state.takeover import Lines, Taken, take


class OwnedRanges:
    """The ranges of one owner. `queues`: which slices each queue has. `limit`: only rows below it are due.

    `asks`: by ordinal, what is recorded of calls without an outcome in all ranges that were claimed so far. `on_asks`
    is told those of each range, before a call of it is handed out.
    """

    def __init__(
        self, ownership: Ownership, ranges: OpenRanges, queues: Sequence[Sequence[int]], limit: int | None
    ) -> None:
        self.asks: dict[int, Sequence[RejectedAsk]] = {}
        self.on_asks: Callable[[Mapping[int, Sequence[RejectedAsk]]], None] = lambda _: None
        self.claims = Claims(ownership, queues, self._look)
        self.committer = Committer(ranges.run, ranges.session, ownership.worker, ownership.is_current)
        self._ownership = ownership
        self._ranges = ranges
        self._limit = limit
        self._queue_of = {each: number for number, slices in enumerate(queues) for each in slices}
        self._charges: dict[int, Lines] = {}  # in this owner's own journals, of partitions that are not open yet
        self._spending = Spending()
        self._spent: dict[int, Decimal] = {}  # US dollars, by partition

    def queue_of(self, ordinal: int) -> int:
        """The number of the queue that has a call."""
        manifest = self._ranges.run.manifest
        return self._queue_of[manifest.partition(manifest.partition_of(ordinal)).slice]

    async def _look(self, claimed: Claimed) -> ClaimedRange:
        """Find out what is recorded of a range, and go on from there. Raises what `take` raises."""
        ranges, ownership, number = self._ranges, self._ownership, claimed.number
        run = ranges.run
        taken: Taken = await ranges.outliving(take, run, ranges.session, ownership.worker, claimed)
        found = taken.progress
        ranges.note_records(number, [*found.open, *taken.charges])
        if taken.journal is not None:
            ranges.adopt(number, taken.journal)
        self._charges.update(taken.charges)
        for worker, spent in taken.spent.items():
            ownership.found(number, worker, spent)
        if found.asks:
            self.asks.update(found.asks)
            self._spending.know(found.asks)
            self.on_asks(found.asks)
        indexes = (index for index in partitions_of(run.manifest, number) if index not in found.committed)
        due = [each for each in map(run.manifest.partition, indexes) if each.slice in self._queue_of]
        if self._limit is not None:
            due = [each for each in due if lacking(run, each, self._limit, found.recorded)]
        return ClaimedRange(number, tuple(due))

    def opened(self, opened: OpenPartition) -> None:
        """A partition is open: what the takeover wrote of it is among its records."""
        if (some := self._charges.pop(opened.partition.index, None)) is not None:
            opened.note(some.records, some.lines, some.offset)

    def note(self, index: int, records: Sequence[Record]) -> None:
        """These records of a partition were written."""
        self._spent[index] = self._spent.get(index, NOTHING) + self._spending.sum_of(records)

    async def may_commit(self, range_: int, index: int) -> None:
        """Return where this partition may become a part now. Raises `LostOwnerError`."""
        await self._ownership.may_commit(range_, index, self._spent.get(index, NOTHING))

    def closed(self, queue: int, opened: OpenPartition, *, is_through: bool) -> None:
        """A partition of a queue is committed, or set aside. `is_through`: the queue has no other one in its range."""
        index = opened.partition.index
        self._spent.pop(index, None)
        if is_through:
            self.claims.through(queue, self._ranges.run.manifest.range_of(index))

    async def close(self) -> bool:
        """Claim nothing more; returns whether the caller was cancelled meanwhile."""
        return await outlast(self.claims.cancelled())
