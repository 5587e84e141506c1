"""One owner's share of the adaptive rate, which is found where the refusals of all owners are known. Pure."""

import math
from collections.abc import Callable
from typing import Final

MIN_PER_S: Final = 0.02
"""Requests per second. A share of 0 is taken as this much: the window divides by it, and a share comes back."""


class LeasedRate:
    """What a window sends at, and what is told of it. Counts are sums since the owner began.

    `per_s`: infinite until something is refused. `bound`: requests that had waited for this rate. `refusals`: for lack
    of capacity; `sending_per_s`: how fast requests were sent before the last of them. `is_out`: nothing is answered at
    present. `on_change` is called at a refusal, and where `is_out` changes.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.per_s = math.inf
        self.bound = 0
        self.refusals = 0
        self.sending_per_s = 0.0
        self.is_out = False
        self._on_change = on_change

    def lease(self, per_s: float | None) -> None:
        """Go on at this share; None where nothing was refused yet."""
        self.per_s = math.inf if per_s is None else max(MIN_PER_S, per_s)

    def sent(self, _now: float, *, is_binding: bool) -> None:
        """A request leaves."""
        self.bound += is_binding

    def refused(self, sending_per_s: float) -> None:
        """A request did not pass."""
        self.refusals += 1
        self.sending_per_s = sending_per_s
        self._on_change()

    def outage_began(self, _now: float) -> None:
        """Nothing passes any more."""
        self.is_out = True
        self._on_change()

    def outage_ended(self, _now: float) -> None:
        """Something passes again."""
        self.is_out = False
        self._on_change()
