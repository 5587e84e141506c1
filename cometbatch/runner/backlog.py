"""Calls that wait for another attempt, in the order in which they are due."""

import heapq
import itertools

from cometbatch.runner.slots import OpenCall


class Backlog:
    """A heap of calls by the time at which each is due, in seconds on the loop's clock.

    `long_waits`: how many of them wait for long because the service asked them to. They don't keep others from being
    sent.
    """

    def __init__(self) -> None:
        self.long_waits = 0
        self._heap: list[tuple[float, int, bool, OpenCall]] = []
        self._order = itertools.count()  # of calls that are due at the same time, the first to come goes first

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def due(self) -> float:
        """When the first call is due. There has to be one."""
        return self._heap[0][0]

    @property
    def is_asked_to_wait(self) -> bool:
        """Whether the first call waits because the service asked it to."""
        return bool(self._heap) and self._heap[0][-1].is_asked_to_wait

    def put(self, call: OpenCall, due: float, *, is_asked: bool = False, is_long: bool = False) -> None:
        """Send the call again, not before this time. `is_asked`: the service asked for this wait."""
        call.is_asked_to_wait = is_asked
        self.long_waits += is_long
        heapq.heappush(self._heap, (due, next(self._order), is_long, call))

    def pop(self) -> OpenCall:
        """The call that is due first. There has to be one."""
        _, _, is_long, call = heapq.heappop(self._heap)
        self.long_waits -= is_long
        return call
