"""The ranges that an owner has claimed so far: one claim for all of its queues, each of which walks through them.

Guards: a range is claimed when the first queue needs another one, and no queue has a range claimed twice. An owner is
through with a range once each of its queues is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

from msgspec import Struct

from cometbatch.records import Partition
from cometbatch.run_state.ownership import Claimed, Ownership

CLAIMED_AHEAD: Final = 8
"""Ranges that are claimed and open, from which on a queue without work in them claims no further one. With more of
them, an owner would hold what others could work on."""


class ClaimedRange(Struct, frozen=True):
    """A range as it was found when it was claimed. `due`: its partitions with work, in the order of the slices."""

    number: int
    due: tuple[Partition, ...]


class Claims:
    """What an owner has claimed. `queues`: the slices of each. `look`: makes a range this owner's own."""

    def __init__(
        self,
        ownership: Ownership,
        queues: Sequence[Sequence[int]],
        look: Callable[[Claimed], Awaitable[ClaimedRange]],
    ) -> None:
        self._ownership = ownership
        self._look = look
        self._slices = {queue: frozenset(slices) for queue, slices in enumerate(queues)}
        self._ranges: list[ClaimedRange | None] = []  # in the order of the claims; None once all are through with it
        self._last = -1
        self._waiting: dict[int, set[int]] = {}  # of each range, the queues that are not through with it
        self._places: dict[int, int] = {}  # of these ranges, in the order of the claims
        self._is_over = False
        self._error: BaseException | None = None  # of a claim that nobody waited for
        self._asking: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()  # set, and another one put in its place, as a range is closed

    def todo(self, queue: int) -> Iterator[tuple[int, Sequence[Partition]]]:
        """The claimed ranges in which a queue has work, with its partitions there. It goes on after its end."""
        return _Todo(self._ranges, self._slices[queue])

    async def more(self, queue: int) -> bool:
        """Claim a further range for a queue that is at the end of its own; False where no range is left.

        Raises what the claim raises.
        """
        while not any(queue in each for each in self._waiting.values()) and len(self._waiting) >= CLAIMED_AHEAD:
            await self._closing.wait()
        if self._error is not None:
            raise self._error
        if self._is_over:
            return False
        await asyncio.shield(self._asking or self._begin(self._ask()))
        return not self._is_over

    def claim_of_others(self) -> None:
        """Claim ranges that lost owners had, though no queue needs one: what is found there tells what they spent."""
        if self._asking is None and not self._is_over:
            self._begin(self._ask_for_others())

    def _begin(self, asking: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._asking = asyncio.get_running_loop().create_task(asking)
        self._asking.add_done_callback(self._has_asked)
        return self._asking

    async def _ask(self) -> None:
        found = await self._ownership.more(self._last)
        if found is None:
            self._is_over = True
        else:
            await self._take(found)

    async def _ask_for_others(self) -> None:
        try:
            await self._take(await self._ownership.of_others(self._last))
        except Exception as error:  # noqa: BLE001 - whoever asks for more next has it
            self._error = error

    async def _take(self, found: Sequence[Claimed]) -> None:
        for claimed in found:
            self._last = claimed.number
            looked = await self._look(claimed)
            of_slices = {each.slice for each in looked.due}
            self._places[looked.number] = len(self._ranges)
            self._ranges.append(looked)
            self._waiting[looked.number] = {queue for queue, own in self._slices.items() if own & of_slices}
            self._close_if_through(looked.number)

    def _has_asked(self, asking: asyncio.Task[None]) -> None:
        self._asking = None
        if not asking.cancelled():
            asking.exception()  # whoever waits has it

    def through(self, queue: int, range_: int) -> None:
        """Nothing more is recorded by a queue in a range."""
        if range_ in self._waiting:
            self._waiting[range_].discard(queue)
            self._close_if_through(range_)

    def stop(self, queue: int, open_ones: set[int]) -> None:
        """A queue has no more work in this session, but for what is open: it is through with all other ranges."""
        self._slices.pop(queue, None)
        for range_ in [range_ for range_, queues in self._waiting.items() if queue in queues]:
            if range_ not in open_ones:
                self.through(queue, range_)

    def _close_if_through(self, range_: int) -> None:
        if not self._waiting[range_]:
            del self._waiting[range_]
            self._ranges[self._places.pop(range_)] = None
            self._ownership.closed(range_)
            self._closing.set()
            self._closing = asyncio.Event()

    def cancelled(self) -> list[asyncio.Task[None]]:
        """Claim nothing more; returns what is under way still, which ends soon."""
        self._is_over = True
        if self._asking is None:
            return []
        self._asking.cancel()
        return [self._asking]


class _Todo(Iterator[tuple[int, Sequence[Partition]]]):
    """Walks through what is claimed by now, as far as a queue's own slices have work there."""

    def __init__(self, ranges: Sequence[ClaimedRange | None], slices: frozenset[int]) -> None:
        self._ranges, self._slices = ranges, slices
        self._at = 0

    def __next__(self) -> tuple[int, Sequence[Partition]]:
        while self._at < len(self._ranges):
            found = self._ranges[self._at]
            self._at += 1
            if found and (partitions := [each for each in found.due if each.slice in self._slices]):
                return found.number, partitions
        raise StopIteration
