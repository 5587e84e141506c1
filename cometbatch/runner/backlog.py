"""Calls that wait for another attempt, in the order in which they are due."""

import heapq
import itertools

from cometbatch.runner.slots import OpenCall


class Backlog:
    """A heap of calls by the time at which each is due, in seconds on the loop's clock.

    `asked_to_wait`: how many of them wait because the service asked them to. They may wait for long, so that they don't
    keep others from being sent.
    """

    def __init__(self) -> None:
        self.asked_to_wait = 0
        self._heap: list[tuple[float, int, OpenCall]] = []
        self._order = itertools.count()  # of calls that are due at the same time, the first to come goes first

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def due(self) -> float:
        """When the first call is due. There has to be one."""
        return self._heap[0][0]

    def put(self, call: OpenCall, due: float, *, is_asked: bool = False) -> None:
        """Send the call again, not before this time. `is_asked`: the service asked for this wait."""
        call.is_asked_to_wait = is_asked
        self.asked_to_wait += is_asked
        heapq.heappush(self._heap, (due, next(self._order), call))

    def pop(self) -> OpenCall:
        """The call that is due first. There has to be one."""
        call = heapq.heappop(self._heap)[2]
        self.asked_to_wait -= call.is_asked_to_wait
        return call
