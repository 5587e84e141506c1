"""The calls of one queue: slices that wait for each other, and for no other queue.

Guards: what a queue holds open is bounded by its own share alone, so that none is held up by what another one holds.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

from cometbatch.records import CallRequest, Outcome, Partition
from cometbatch.run_state.open_partition import OpenPartition
from cometbatch.run_state.open_range import OpenRange

OPEN_PARTITIONS = 4  # ranges that a queue may have open while their slowest calls are waited for


class Ranges(Protocol):
    """What a queue needs of the run's partitions, which know all queues."""

    is_slow_to_make: bool

    @property
    def is_broken(self) -> bool:
        """Whether the run must not go on."""

    @property
    def open_bytes(self) -> int:
        """Bytes of input of all open ranges, unused columns included."""

    def raise_if_broken(self) -> None:
        """Raise why the run must not go on, if so it is."""

    async def in_reader(self, work: Callable[..., Any], *arguments: object) -> Any:
        """Do work in the thread that reads."""

    async def open(
        self, queue: "QueueCalls", number: int, partitions: Sequence[Partition]
    ) -> tuple[list[OpenPartition], Iterator[list[CallRequest | Outcome]]]:
        """Open a queue's partitions in a range. Raises what reading raised.

        Returns them with their calls without an outcome, some at a time, the last of these first.
        """

    def close_if_settled(self, opened: OpenPartition) -> None:
        """Commit a partition, or set it aside, where nothing more is recorded of it in this session."""

    def note_set_aside(self, queue: "QueueCalls") -> None:
        """A queue opens no further partition in this session."""


class QueueCalls:
    """Hands out the calls of some slices, range by range, as there is room for them.

    `ranges`: what is open of the whole run. `todo`: the ranges in which the queue has work, with its partitions there.
    `max_bytes`: of input of all open ranges, above which it opens no further one; but where its own take no more than
    `own_bytes`, what others hold does not count. What a range takes is shared by the queues that are in it.
    `min_open_rows`: below so many open calls it opens more ranges than usual.
    `more`: asked at the end of `todo`, which may go on where it returns True; None where the end is the end.
    """

    def __init__(
        self,
        ranges: Ranges,
        todo: Iterator[tuple[int, Sequence[Partition]]],
        *,
        max_bytes: int,
        own_bytes: int,
        min_open_rows: int,
        more: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.on_room: Callable[[], None] = lambda: None
        self.settling: set[asyncio.Task[None]] = set()
        self._ranges = ranges
        self._todo = todo
        self._following = next(todo, None)
        self._max_bytes, self._own_bytes = max_bytes, own_bytes
        self._min_open_rows = min_open_rows
        self._more = more
        self._making: Iterator[list[CallRequest | Outcome]] = iter(())
        self._made: list[CallRequest | Outcome] = []  # the next call is the last
        self._calls_left = 0
        self._open: dict[int, OpenPartition] = {}  # by index
        self._open_rows = 0
        self._open_in = Counter[OpenRange]()  # how many partitions are open in each range

    @property
    def next_range(self) -> int | None:
        """The range that it needs next; None after the last."""
        return None if self._following is None else self._following[0]

    @property
    def has_room(self) -> bool:
        """Whether a call of an open partition is left, or another range may be opened.

        Also where `next_call` has an error to raise: a run that waits for room would never hear of it.
        """
        if self._calls_left or self._ranges.is_broken or not self._open:
            return True
        own_bytes = sum(each.size // max(1, len(each.queues)) for each in self._open_in)
        if own_bytes >= self._own_bytes and self._ranges.open_bytes >= self._max_bytes:
            return False
        return len(self._open_in) < OPEN_PARTITIONS or self._open_rows < self._min_open_rows

    def ready_call(self) -> CallRequest | Outcome | None:
        """The next call of the range that is being handed out; None where `next_call` has more to do than that."""
        if not self._calls_left or self._ranges.is_broken:
            return None
        if not self._made:
            if self._ranges.is_slow_to_make:
                return None
            self._made = next(self._making)
        self._calls_left -= 1
        return self._made.pop()

    async def next_call(self) -> CallRequest | Outcome | None:
        """The next call without an outcome, in order; None after the last.

        Raises what reading the input or committing a part raised.
        """
        while True:
            self._ranges.raise_if_broken()
            if (call := self.ready_call()) is not None:
                return call
            if self._calls_left:
                self._made = await self._ranges.in_reader(next, self._making)
                continue
            if self._following is None and (self._more is None or not await self._has_more(self._more)):
                return None
            assert self._following is not None  # noqa: S101 - there is more
            (number, partitions), self._following = self._following, next(self._todo, None)
            opened, self._making = await self._ranges.open(self, number, partitions)
            self._calls_left = sum(each.partition.row_count - each.outcomes - each.left for each in opened)
            for each in opened:  # the last session may have died between its last outcome and its commit
                self._ranges.close_if_settled(each)

    async def _has_more(self, more: Callable[[], Awaitable[bool]]) -> bool:
        """Whether there is a range that it needs next, once that is known. Raises what `more` raises."""
        while (following := next(self._todo, None)) is None:
            if not await more():
                return False
        self._following = following
        return True

    def set_aside(self) -> None:
        """No open call gets an outcome in this session: what is open is closed, and nothing more is handed out."""
        self._calls_left, self._following, self._todo, self._more = 0, None, iter(()), None
        self._making, self._made = iter(()), []
        for opened in tuple(self._open.values()):
            if not opened.is_settled:
                opened.left = opened.partition.row_count - opened.outcomes
                self._ranges.close_if_settled(opened)
        self._ranges.note_set_aside(self)

    def note_open(self, opened: OpenPartition, range_: OpenRange) -> None:
        """One of its partitions is open."""
        self._open[opened.partition.index] = opened
        self._open_rows += opened.partition.row_count
        self._open_in[range_] += 1

    def note_closed(self, opened: OpenPartition, range_: OpenRange) -> None:
        """One of its partitions is closed."""
        del self._open[opened.partition.index]
        self._open_rows -= opened.partition.row_count
        self._open_in[range_] -= 1
        if not self._open_in[range_]:
            del self._open_in[range_]
