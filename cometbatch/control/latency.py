"""How long answers take, and whether they take longer because of us. Pure.

Latencies of models have long tails and differ from row to row, so a mean says little. A slow service is told by the
median of the last answers, and only while a smaller window is found to help.
"""

import math
from collections import deque
from collections.abc import Collection
from typing import Final

TICK_S: Final = 0.001
"""Seconds: the resolution of uvloop's clock. A shorter latency counts as one tick."""

SMOOTHING: Final = 0.1
"""Weight of the newest answer in the mean latency. A larger weight follows single answers; a smaller one is slower to
notice a change."""

TYPICAL_OF: Final = 32
"""Answers whose median is the typical latency. Fewer jump about; more notice a slow service later."""

TYPICAL_EVERY: Final = 8
"""Answers from one look at the typical latency to the next. Fewer cost more CPU."""

BASE_DRIFT: Final = 1.016
"""Factor by which the base latency rises at each look, so that it is forgotten in time: services change. A larger one
mistakes a long queue for the usual latency."""

HELPED: Final = 0.9
"""Share of the latency before a cut of the window. Where the latency stays above it, the cut has not helped: the
service is slow for another reason than our requests."""


class Latencies:
    """How long answers take, in seconds: on average, typically, and typically when nothing was crowded (the base)."""

    def __init__(self) -> None:
        self.mean: float | None = None
        self.inflation = 1.0  # the typical latency as a multiple of the base
        self._typical: float | None = None
        self._base = math.inf
        self._last: deque[float] = deque(maxlen=TYPICAL_OF)
        self._count = 0
        self._noted: float | None = None  # the typical latency at the last cut; None where its latency is accepted
        self._noted_at = -TYPICAL_OF  # the number of answers at the last cut

    @property
    def any(self) -> bool:
        """Whether anything was answered yet."""
        return self.mean is not None

    @property
    def longest(self) -> float:
        """The longest latency of the last answers, in seconds."""
        return max(self._last, default=self.mean or 0.0)

    @property
    def spread(self) -> float | None:
        """Seconds over which a window of sends is spread: a few long answers must not hold back the others."""
        if self.mean is None or self._typical is None:
            return self.mean
        return min(self.mean, self._typical)

    @property
    def is_fresh(self) -> bool:
        """Whether all of the last answers came after the last cut."""
        return self._count - self._noted_at >= TYPICAL_OF

    @property
    def is_lasting(self) -> bool:
        """Whether a cut has not helped."""
        return self.is_fresh and self._noted is not None and (self._typical or 0.0) > HELPED * self._noted

    def note(self) -> None:
        """The window is cut because of the latency as it is now."""
        self._noted, self._noted_at = self._typical, self._count

    def accept(self) -> None:
        """The latency as it is now is the base."""
        self._noted, self._base, self.inflation = None, self._typical or math.inf, 1.0

    def forget(self) -> None:
        """The last answers are no measure of the next ones; the base stays."""
        self._last.clear()
        self.inflation = 1.0

    def add(self, latency_s: float) -> None:
        """One more answer. A latency that the clock can't tell counts as a tick: a base of 0 would tell nothing."""
        latency_s = max(latency_s, TICK_S)
        known = latency_s if self.mean is None else self.mean
        self.mean = known + SMOOTHING * (latency_s - known)
        self._last.append(latency_s)
        self._count += 1
        if self._count % TYPICAL_EVERY == 0 and len(self._last) == TYPICAL_OF:  # the first to come are the fastest
            self._typical = _median(self._last)
            self._base = min(self._base * BASE_DRIFT, self._typical)
            self.inflation = self._typical / self._base


def _median(values: Collection[float]) -> float:
    """That of the standard library takes 5 ms to load."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
