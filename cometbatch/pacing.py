"""How much may be in flight: finds by itself what the service sustains. A pure control law, told the time.

A window of requests in flight grows while it is used and nothing pushes back, and is cut to what was really answered
when something does, at most once per round trip. Sends are spread over the round trip, so that a service which
counts per second sees no bursts. When nothing answers any more, a few probes at growing intervals take the place of
the window, and the first answer opens it again, quickly up to where it was.
"""

import math

START = 8.0  # requests in flight before anything is known
FAST_GROWTH = 1.0  # per answer below the threshold: twice as much each round trip
SLOW_GROWTH = 0.02  # share of the window per round trip, times the round trips since the last cut
MOST_GROWTH = 0.5  # share of the window per round trip, at most, above the threshold
PACE_HEADROOM = 1.0  # sends may run this much ahead of window / round trip
CUT = 0.9  # what pushback leaves of the window at most, and
HARD_CUT = 0.7  # at least; in between it is what was answered in the last round trip
INFLATED = 2.0  # times the base latency, from which the window grows no more; it is cut at the square of this
SMOOTHING = 0.1  # weight of the newest answer in the running latency
BASE_DRIFT = 1.002  # per answer: the base latency forgets, since services change
OUTAGE_FAILURES = 4  # failures in a row, over at least a round trip, that mean nothing answers
REOPEN = 0.5  # share of the window before an outage that the first answer after it opens
FIRST_PROBE_S = 0.25
LAST_PROBE_S = 1.0  # probes this far apart notice soon enough that an outage is over


class Pace:
    """One run's window. All times are seconds on one clock that never goes back; `ceiling` is never passed."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = float(ceiling)
        self._window = min(START, self._ceiling)
        self._threshold = self._ceiling
        self._latency: float | None = None
        self._base = math.inf
        self._next_send = -math.inf
        self._last_cut = -math.inf
        self._was_full = False
        self._proven = self._window
        self._failures = 0
        self._failing_since = math.inf
        self._probe_wait = 0.0
        self._round_began = -math.inf
        self._round_answers = 0
        self._answer_rate = 0.0

    @property
    def window(self) -> int:
        """How many requests may be in flight."""
        return 1 if self.is_probing else max(1, int(self._window))

    @property
    def is_probing(self) -> bool:
        """Whether nothing answers at present."""
        return self._probe_wait > 0

    def wait_s(self, now: float, in_flight: int) -> float:
        """Seconds until one more request may leave, should nothing else happen; infinite where a slot must free up."""
        if in_flight >= self.window:
            self._was_full = True
            return math.inf
        if self._next_send > now:
            self._was_full = True
            return self._next_send - now
        return 0.0

    def sent(self, now: float) -> None:
        """A request leaves."""
        spacing = 0.0 if self._latency is None else self._latency / (self._window * PACE_HEADROOM)
        self._next_send = max(now, self._next_send) + spacing if not self.is_probing else now + self._probe_wait

    def answered(self, now: float, latency_s: float) -> None:
        """An answer came, after so many seconds."""
        self._failures, self._failing_since = 0, math.inf
        if self.is_probing:
            self._end_probing(now)
        self._proven = self._window
        self._learn(latency_s)
        self._count(now)
        if self._is_inflated(INFLATED**2):
            self._cut(now)
        elif self._was_full and not self._is_inflated(INFLATED):
            self._grow(now)

    def pushed_back(self, now: float, sent_at: float) -> None:
        """The service refused for lack of capacity."""
        if sent_at >= self._last_cut:
            self._cut(now)
        self.failed(now)

    def failed(self, now: float) -> None:
        """An attempt brought no answer, whatever the reason."""
        self._failures += 1
        self._failing_since = min(self._failing_since, now)
        if self.is_probing:
            self._probe_wait = min(LAST_PROBE_S, 2 * self._probe_wait)
            self._next_send = now + self._probe_wait
        elif self._is_outage(now):
            self._begin_probing(now)

    def _is_outage(self, now: float) -> bool:
        """Nothing answers any more; a service that never has is refused by its rows' attempts, not waited for."""
        if self._latency is None or self._failures < OUTAGE_FAILURES:
            return False
        return now - self._failing_since >= self._latency

    def _begin_probing(self, now: float) -> None:
        self._threshold = max(self._proven, START)
        self._probe_wait = FIRST_PROBE_S
        self._next_send = now + self._probe_wait

    def _end_probing(self, now: float) -> None:
        self._probe_wait = 0.0
        self._next_send = now
        self._window = max(START, self._threshold * REOPEN)

    def _learn(self, latency_s: float) -> None:
        known = latency_s if self._latency is None else self._latency
        self._latency = known + SMOOTHING * (latency_s - known)
        self._base = min(self._base * BASE_DRIFT, self._latency)

    def _count(self, now: float) -> None:
        self._round_answers += 1
        span = now - self._round_began
        if span >= max(self._latency or 0.0, 0.1):
            self._answer_rate = self._round_answers / span if span < math.inf else 0.0
            self._round_began, self._round_answers = now, 0

    def _is_inflated(self, times: float) -> bool:
        return self._latency is not None and self._latency > times * self._base

    def _grow(self, now: float) -> None:
        if self._window < self._threshold:
            self._window += FAST_GROWTH
        else:
            round_trips = (now - self._last_cut) / (self._latency or 1.0)
            share = min(SLOW_GROWTH * round_trips, MOST_GROWTH)
            self._window += max(1.0, self._window * share) / self._window
        self._window = min(self._window, self._ceiling)

    def _cut(self, now: float) -> None:
        """At most once per round trip: what was sent before a cut tells nothing of the window after it."""
        latency = self._latency or 0.0
        if now - self._last_cut < latency:
            return
        answered = self._answer_rate * latency
        self._window = max(1.0, min(CUT * self._window, max(HARD_CUT * self._window, answered)))
        self._threshold = self._window
        self._last_cut = now
        self._was_full = False
