"""Whether the coordinator itself, and the driver, were there of late: else silence says nothing of owners. Pure."""

import math
from collections import deque
from typing import Final

from cometbatch.control.coordination.messages import DRIVER_S, LEASE_S, MARGIN

ANSWERS: Final = 64
"""Answers to the driver that are remembered. Its next word names one of the last few, or it comes too late to count."""

PAUSE_S: Final = LEASE_S / 2
"""Seconds between two looks at the clock. A longer gap means that the coordinator stood still, and that owners could
not renew what they had."""


class Presence:
    """`quiet_s`: seconds from the beginning in which nothing is granted: leases of an earlier coordinator may last."""

    def __init__(self, quiet_s: float = 0.0) -> None:
        self._quiet_s = quiet_s
        self._quiet_until = math.inf
        self._seen_at = -math.inf
        self._awake_since = math.inf
        self._driver_at = -math.inf
        self._answers = deque[float](maxlen=ANSWERS)  # when the driver was answered

    def look(self, now: float) -> bool:
        """The coordinator does something; returns whether it is the first time."""
        is_first = self._quiet_until == math.inf
        if is_first:
            self._quiet_until = self._awake_since = now + self._quiet_s
        elif now - self._seen_at > PAUSE_S:
            self._awake_since = max(self._awake_since, now)
        self._seen_at = now
        return is_first

    def driver_spoke(self, heard: float | None, now: float) -> None:
        """The driver was there after the answer that it has `heard` was said; None is now.

        While it was not there, nobody could renew anything. What an earlier coordinator said tells nothing.
        """
        if heard is not None and heard not in self._answers:
            return
        was_there_at = now if heard is None else heard
        if now - self._driver_at >= DRIVER_S:
            self._awake_since = max(self._awake_since, now)
        self._driver_at = max(self._driver_at, was_there_at)

    def answered_driver(self, now: float) -> None:
        """The driver gets an answer."""
        self._answers.append(now)

    def may_grant(self, now: float) -> bool:
        """Whether leases are given out."""
        return now >= self._quiet_until and now - self._driver_at < DRIVER_S

    def may_judge(self, now: float, lease_s: float) -> bool:
        """Whether an owner that is silent had the chance to speak, for as long as a lease lasts."""
        return self.may_grant(now) and now - self._awake_since >= MARGIN * lease_s
