"""A pause of all rows, for a service that refuses everyone and says how long. Pure, told the time.

Such a word may be wrong, or about one route: so one request at a time probes whether the service answers again.
"""

import math
from typing import Final

MAX_PROBE_S: Final = 60.0
"""Seconds between two probes of a pause, at most. The end of an outage is noticed within this time."""


class SharedPause:
    """When the next request may leave, while everybody is refused. All times are seconds on one clock.

    `first_probe_s`: seconds to the first probe; each further one comes after double the wait, up to `MAX_PROBE_S`.
    """

    def __init__(self, first_probe_s: float) -> None:
        self._first_probe_s = min(first_probe_s, MAX_PROBE_S)
        self._began = -math.inf
        self._probe_s = 0.0
        self._probe_at = -math.inf
        self._deadline = math.inf
        self.until = -math.inf  # the end of the pause, as the service said it last

    def is_on(self, now: float) -> bool:
        """Whether everybody waits."""
        return now < self.until

    def extend(self, now: float, wait_s: float, deadline: float) -> None:
        """The service asks to wait for this long; its last word counts. At the deadline a probe leaves in any case."""
        if not self.is_on(now):
            self._began, self._probe_s, self._probe_at = now, self._first_probe_s, now + self._first_probe_s
        self._deadline = deadline if deadline > now else math.inf
        self.until = now + wait_s

    def wait_s(self, now: float) -> float:
        """Seconds until a request may leave: a probe, or any once the pause is over."""
        return max(0.0, min(self.until, self._probe_at, self._deadline) - now)

    def sent(self, now: float) -> None:
        """A probe leaves."""
        self._probe_s = min(2 * self._probe_s, MAX_PROBE_S)
        self._probe_at = now + self._probe_s
        if self._deadline <= now:
            self._deadline = math.inf

    def answered(self, sent_at: float) -> None:
        """A request that was sent at this time was answered. One from before the pause tells nothing of it."""
        if sent_at >= self._began:
            self.until = -math.inf
