"""Admission at a rate: hides the bucket behind one question."""

import math
from collections.abc import Callable


class Gate:
    """Lets `rate` requests a second pass on average, and up to a second's worth at once (one at least).

    `now` gives seconds from any start, and is first asked when the first request comes.
    """

    def __init__(self, rate: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate)
        self._level = self._capacity
        self._now = now
        self._last: float | None = None

    def admit(self) -> bool:
        """Take one place, if there is one."""
        now = self._now()
        self._level += self._rate * (now - (now if self._last is None else self._last))
        self._level = min(self._capacity, self._level)
        self._last = now
        admitted = self._level >= 1
        self._level -= admitted
        return admitted

    def retry_after_s(self) -> int:
        """Whole seconds, one at least, until the next place is free, as far as the gate can know."""
        return max(1, math.ceil((1 - self._level) / self._rate))
