"""Admission of requests at a rate."""

import math
from collections.abc import Callable


class Gate:
    """A token bucket: `rate` requests a second pass on average, and up to those of one second (at least 1) at once.

    `now` gives seconds from any start; the first request asks it first.
    """

    def __init__(self, rate: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate)
        self._level = self._capacity
        self._now = now
        self._last: float | None = None

    def admit(self) -> bool:
        """Let a request pass, if the rate allows it now."""
        now = self._now()
        self._level += self._rate * (now - (now if self._last is None else self._last))
        self._level = min(self._capacity, self._level)
        self._last = now
        admitted = self._level >= 1
        self._level -= admitted
        return admitted

    def retry_after_s(self) -> int:
        """Whole seconds, at least 1, until the next request can pass, if no other one comes before."""
        return max(1, math.ceil((1 - self._level) / self._rate))
