"""How much may be in flight, and how fast it may leave: finds by itself what the service sustains. Pure, told the time.

There are three laws, one for each way in which a service shows its limit. It refuses: then the rate of sending is cut
to what passed (`rate`). It gets slower, or lets requests time out: then the window of requests in flight is cut to what
was really answered, at most once per round trip. It answers nothing any more: then a few probes at growing intervals
take the place of both, and the first answer opens the window again, quickly up to where it was.

Otherwise the window grows while it is used. Sends are spread over the round trip, so that a service that counts per
second sees no bursts.
"""

import math
from typing import Final, Protocol

from cometbatch.control.latency import Latencies
from cometbatch.control.rate import AdaptiveRate

# -- the start -------------------------------------------------------------------------------------------------------

START: Final = 8.0
"""Requests in flight before anything is known of the service. More may be refused at once; fewer start more slowly."""

START_SPACING_S: Final = 0.02
"""Seconds between two sends before the first answer."""

RAMP_S: Final = 0.5
"""Seconds without any reply, after which the window opens further: the first answer may take a minute to come."""

RAMP: Final = 2.0
"""Times the window, each time that it opens before the first answer."""

RAMP_TO: Final = 64.0
"""Requests in flight, at most, before the first answer. A higher bound risks more on an unknown service."""

# -- sending ---------------------------------------------------------------------------------------------------------

MIN_SPACING_S: Final = 1e-6
"""Seconds between two sends, at least, so that a spacing is never 0."""

AHEAD_S: Final = 0.005
"""Seconds by which a request may leave ahead of its time. Thousands a second then leave some at a time; with less,
each of them costs a timer, and with more, a service that counts sees bursts."""

# -- growth and cuts -------------------------------------------------------------------------------------------------

FAST_GROWTH: Final = 1.25
"""Requests by which the window grows per answer, below the threshold: it doubles each round trip, and each second of a
round trip that takes longer than one."""

MAX_ROUND_S: Final = 8.0
"""Seconds of a round trip that this growth makes up for. A longer one grows the window no faster."""

SLOW_GROWTH: Final = 0.02
"""Share of the window by which it grows per round trip above the threshold, for each round trip since the last cut."""

MAX_GROWTH: Final = 0.5
"""Share of the window by which it grows per round trip above the threshold, at most."""

CUT: Final = 0.9
"""Share of the window that a cut leaves at most: one that leaves more does not show whether it helps."""

HARD_CUT: Final = 0.7
"""Share of the window that a cut leaves at least. Between both, it leaves what was answered in the last round trip."""

INFLATED: Final = 3.0
"""Times the base latency. Above it, the window does not grow."""

FAR_INFLATED: Final = 6.0
"""Times the base latency. Above it, the window is cut: answers wait in a queue that we fill."""

# -- outages ---------------------------------------------------------------------------------------------------------

OUTAGE_FAILURES: Final = 4
"""Failures in a row. From this many on, where they last for a round trip, nothing answers."""

MIN_OUTAGE_S: Final = 0.2
"""Seconds that these failures last at least, however short a round trip is."""

MAX_OUTAGE_S: Final = 0.5
"""Seconds after which they are an outage, however long a round trip is."""

OUTAGE_PASSES: Final = 0.1
"""Share of what was sent since the failures began that may be without a reply. Where more is, it may still be answered,
and there is no outage: refusals come at once."""

LATE: Final = 2.0
"""Multiple of an answer's latency. An answer shows that failures are over where they began longer than this before it:
its request was sent after they began."""

STALL_S: Final = 2.0
"""Seconds without any reply while the window is full, at least, before what is in flight counts as stuck."""

STALL_TIMES: Final = 2.0
"""Times the longest of the last latencies, without any reply while the window is full, before what is in flight counts
as stuck. Then it is probed around."""

REOPEN: Final = 0.5
"""Share of the window before an outage that the first answer after it opens again. The rest grows quickly."""

FIRST_PROBE_S: Final = 0.25
"""Seconds to the first probe of an outage; each further failure doubles the interval."""

LAST_PROBE_S: Final = 1.0
"""Seconds between probes, at most: so the end of an outage is noticed soon enough."""


class Rate(Protocol):
    """How fast a window may send at most: found by itself (`AdaptiveRate`), or where all owners' refusals are known."""

    per_s: float

    def sent(self, now: float, *, is_binding: bool) -> None:
        """A request leaves; `is_binding`: this rate is what it had waited for."""

    def refused(self, sending_per_s: float) -> None:
        """A request did not pass; `sending_per_s`: how fast requests were sent of late."""

    def outage_began(self, now: float) -> None:
        """Nothing passes any more."""

    def outage_ended(self, now: float) -> None:
        """Something passes again."""


class ConcurrencyWindow:
    """One run's window and rate. All times are seconds on one clock that never goes back; `ceiling` is never passed."""

    def __init__(self, ceiling: int, rate: Rate | None = None) -> None:
        self._ceiling = float(ceiling)
        self._window = _bounded(START, self._ceiling)
        self._threshold = self._ceiling
        self.rate: Rate = AdaptiveRate() if rate is None else rate
        self._latencies = Latencies()
        self._next_send = -math.inf
        self._spacing_s = START_SPACING_S
        self._last_cut = -math.inf
        self._was_full = False
        self._is_rate_bound = False
        self._ramped_at = math.inf
        self._proven = self._window
        self._failures = _Failures()
        self._probe_wait = 0.0
        self.probing_since = math.inf  # since when nothing is answered, and only probes are sent
        self._resumed_at = -math.inf  # the last time that probing ended
        self._replies = _Replies()
        self._rounds = _Rounds()

    @property
    def window(self) -> int:
        """How many requests may be in flight."""
        return 1 if self.is_probing else max(1, int(min(self._window, self._ceiling)))

    @property
    def is_probing(self) -> bool:
        """Whether nothing answers at present."""
        return self._probe_wait > 0

    def set_ceiling(self, ceiling: int) -> None:
        """From now on at most `ceiling` requests may be in flight."""
        if self._threshold >= self._ceiling:
            self._threshold = float(ceiling)
        self._ceiling = float(ceiling)

    def others_answered(self, now: float) -> None:
        """Somebody else is answered: where that tells that an outage is over, it is over here."""
        if self.is_probing and self._is_well_again(now, self._latencies.mean or 0.0):
            self._failures = _Failures()
            self._end_probing(now)

    def wait_s(self, now: float, in_flight: int) -> float:
        """Seconds until one more request may leave, should nothing else happen; infinite where a slot must free up."""
        if in_flight >= self._ceiling:
            self._was_full = True
            return math.inf
        if not self.is_probing and in_flight - self._replies.stuck >= self._window and not self._ramp(now):
            self._was_full = True
            return self._wait_for_slot_s(now, in_flight)
        if self._next_send > (now if self.is_probing else now + AHEAD_S):
            self._was_full = self._was_full or not self._is_rate_bound
            return self._next_send - now
        return 0.0

    def _wait_for_slot_s(self, now: float, in_flight: int) -> float:
        """Seconds until the window opens, or until the requests that fill it count as stuck, and are probed around."""
        if self._may_ramp():
            return self._ramped_at + RAMP_S - now
        left = self._replies.last_at + max(STALL_S, STALL_TIMES * self._latencies.longest) - now
        if left > 0:
            return left
        self._begin_probing(now)
        self._replies.stuck, self._replies.stuck_since = in_flight, now
        return self._probe_wait

    def sent(self, now: float) -> None:
        """A request leaves."""
        self.rate.sent(now, is_binding=self._is_rate_bound)
        self._ramped_at = min(self._ramped_at, now)
        self._failures.sent += 1
        if self.is_probing:
            self._next_send = now + self._probe_wait
            return
        spread = START_SPACING_S if self._latencies.spread is None else self._latencies.spread / self._window
        self._is_rate_bound = 1 / self.rate.per_s > spread
        self._spacing_s = max(spread, 1 / self.rate.per_s, MIN_SPACING_S)
        self._next_send = max(now, self._next_send) + self._spacing_s

    def answered(self, now: float, latency_s: float) -> None:
        """An answer came, this many seconds after its request."""
        self._failures.was_answered = True
        self._replies.add(now, now - latency_s)
        if self._is_well_again(now, latency_s):
            self._failures = _Failures()
        elif self.is_probing:
            return
        if self.is_probing:
            self._end_probing(now)
        self._proven = self._window
        self._latencies.add(latency_s)
        self._rounds.count(now, self._latencies.mean)
        if self._latencies.inflation > FAR_INFLATED:
            self._answer_inflation(now)
        elif self._was_full and self._latencies.inflation <= INFLATED:
            self._grow(now)

    def _answer_inflation(self, now: float) -> None:
        """Cut, and see whether that helps: where answers take as long afterwards, they are slow for another reason."""
        if self._latencies.is_lasting:
            self._latencies.accept()
        elif self._latencies.is_fresh:
            self._latencies.note()
            self._cut(now)

    def refused(self, now: float, sent_at: float) -> None:
        """The service refused for lack of capacity."""
        self.failed(now, sent_at)
        if not self.is_probing:
            self.rate.refused(1 / self._spacing_s)

    def timed_out(self, now: float, sent_at: float) -> None:
        """No answer came in time."""
        if sent_at >= max(self._last_cut, self._resumed_at):
            self._cut(now)
        self.failed(now, sent_at)

    def failed(self, now: float, sent_at: float) -> None:
        """An attempt brought no answer, whatever the reason."""
        self._replies.add(now, sent_at)
        self._failures.add(now)
        if self.is_probing:
            self._probe_wait = min(LAST_PROBE_S, 2 * self._probe_wait)
            self._next_send = now + self._probe_wait
        elif self._failures.are_outage(now, self._latencies.mean or 0.0):
            self._begin_probing(now)

    def _may_ramp(self) -> bool:
        return not self._latencies.any and not self._failures.count and self._window < min(RAMP_TO, self._ceiling)

    def _ramp(self, now: float) -> bool:
        """Open the window further before the first answer, which may take long to come."""
        if not self._may_ramp() or now < self._ramped_at + RAMP_S:
            return False
        self._window = _bounded(min(self._window * RAMP, RAMP_TO), self._ceiling)
        self._ramped_at = now
        return True

    def _is_well_again(self, now: float, latency_s: float) -> bool:
        """Whether an answer shows it: one that was under way when the failures began, and comes as usual, does not."""
        since = now - min(self._failures.since, self.probing_since)
        return latency_s <= since or since > LATE * latency_s

    def _begin_probing(self, now: float) -> None:
        self._threshold = max(self._proven, START)
        self.rate.outage_began(now)
        self.probing_since = now
        self._probe_wait = FIRST_PROBE_S
        self._next_send = now + self._probe_wait

    def _end_probing(self, now: float) -> None:
        self._probe_wait = 0.0
        self.probing_since = math.inf
        self._next_send = self._resumed_at = now
        self.rate.outage_ended(now)
        self._latencies.forget()
        self._window = _bounded(max(START, self._threshold * REOPEN), self._ceiling)

    def _grow(self, now: float) -> None:
        latency = self._latencies.mean or 1.0
        seconds = min(max(1.0, latency), MAX_ROUND_S)
        if self._window < self._threshold:
            self._window += FAST_GROWTH * seconds
        else:
            round_trips = (now - self._last_cut) / latency
            share = min(SLOW_GROWTH * round_trips * seconds, MAX_GROWTH * seconds)
            self._window += max(1.0, self._window * share) / self._window
        self._window = _bounded(self._window, self._ceiling)
        self._was_full = False

    def _cut(self, now: float) -> None:
        """Cut the window, at most once per round trip: requests sent before a cut tell nothing of what comes after."""
        latency = self._latencies.mean or 0.0
        if now - self._last_cut < latency:
            return
        answered = self._rounds.answers_per_s * latency
        self._window = max(1.0, min(CUT * self._window, max(HARD_CUT * self._window, answered)))
        self._threshold = self._window
        self._last_cut = now
        self._was_full = False


class _Replies:
    """When the last reply came, and which requests are not waited for; times in seconds.

    `stuck`: requests in flight since before `stuck_since`, whose answers nobody expects any more.
    """

    def __init__(self) -> None:
        self.last_at = math.inf
        self.stuck = 0
        self.stuck_since = math.inf

    def add(self, now: float, sent_at: float) -> None:
        """A reply of any kind, to a request that was sent at this time."""
        self.last_at = now
        if self.stuck and sent_at < self.stuck_since:
            self.stuck -= 1


class _Rounds:
    """How many answers a second came in the last round trip."""

    def __init__(self) -> None:
        self.answers_per_s = 0.0
        self._began = -math.inf
        self._answers = 0

    def count(self, now: float, latency_s: float | None) -> None:
        """One more; a round trip takes `latency_s`."""
        self._answers += 1
        span = now - self._began
        if span >= max(latency_s or 0.0, 0.1):
            self.answers_per_s = self._answers / span if span < math.inf else 0.0
            self._began, self._answers = now, 0


class _Failures:
    """Failures in a row, with no answer that shows that all is well; times in seconds."""

    def __init__(self) -> None:
        self.count = 0
        self.since = math.inf
        self.sent = 0  # requests since the first of them
        self.was_answered = False  # a request that was under way when they began

    def add(self, now: float) -> None:
        """One more."""
        if not self.count:
            self.since, self.sent, self.was_answered = now, 0, False
        self.count += 1

    def are_outage(self, now: float, latency_s: float) -> bool:
        """Whether nothing answers any more: not where some requests sent since are still under way."""
        round_trip = min(max(latency_s, MIN_OUTAGE_S), MAX_OUTAGE_S)
        if self.count < OUTAGE_FAILURES or now - self.since < round_trip:
            return False
        return not self.was_answered or self.sent - self.count <= max(1.0, OUTAGE_PASSES * self.sent)


def _bounded(window: float, ceiling: float) -> float:
    """A window as a ceiling allows it. A ceiling of 0 closes it for a moment only, and no window is 0."""
    return max(1.0, min(window, ceiling))
