"""How many requests a second the service lets pass, learned from where it refuses. A pure control law, told the time.

A refusal says at once what answers say only a round trip later. Each refusal takes a little off the rate, and the rate
grows all the while: slowly after a refusal, faster the longer nothing is refused (a service that came back), and faster
where it is far below what was sustained lately. So the rate stays where a percent or two is refused, whether the
service counts in buckets, windows or requests in flight, and it comes down quickly where most is refused.

Some services refuse a few of a hundred requests at any rate: background errors, against which sending more slowly does
not help. A limit refuses a share that rises steeply with the rate. So as long as few are refused while the rate grows
quickly, refusals are forgiven: at the start, and again after some time, which is short where refusals went on although
they had cost much of the rate.

All times are seconds of sending, which leave out pauses: a service is not slow because nobody asked it.
"""

import math
from collections import deque
from typing import Final

# -- cuts: the share of the rate that a refusal leaves ---------------------------------------------------------------

CUT: Final = 0.985
"""Share of the rate that is left by a refusal. A smaller share wastes more of a limit; a larger one lets more be
refused before the rate is right."""

MARGIN: Final = 0.97
"""Share of what passed lately. A refusal never cuts below it: it may be the end of a used-up window."""

FAR_ABOVE: Final = 0.5
"""Share of the rate. Where less than this passed lately, the rate is far above the limit."""

FAR_ABOVE_CUT: Final = 0.93
"""Share of the rate that a refusal leaves far above the limit. A larger one lets many more be refused before the rate
is right, above all where few are sent."""

FIRST_CUT: Final = 0.9
"""Share that the first refusal leaves of the rate of sending, which until then nothing had bounded."""

FIRST_TIMES: Final = 3.0
"""Times the mean rate of sending until the first refusal. A higher rate of sending was one of a moment only."""

MIN_PER_S: Final = 0.1
"""Requests per second. A lower rate can't be told from an outage, which is probed more often than that."""

# -- background errors: refusals that are forgiven -------------------------------------------------------------------

BACKGROUND_SHARE: Final = 0.075
"""Share of what is sent that may be refused for other reasons than the rate. A higher share is a limit."""

BACKGROUND_BURST: Final = 5.0
"""Refusals beyond `BACKGROUND_SHARE` that may be chance. More of them mean that the rate is too high."""

FORGIVING_GROWTH: Final = 0.5
"""Growth of the rate per second while refusals are forgiven, as a share of it. So quick that a limit shows at once."""

STRICT_S: Final = 15.0
"""Seconds after the rate was found too high, in which every refusal counts."""

MIN_STRICT_S: Final = 2.0
"""Seconds after the rate was found too high, in which every refusal counts, where the rate has fallen much since then.
It is shorter than `STRICT_S`, because at so much lower a rate a limit would refuse no more."""

FELL: Final = 0.85
"""Share of the rate a second after it was found too high. At or below it, refusals have cost much of the rate."""

# -- what was sent and passed ----------------------------------------------------------------------------------------

SPAN_S: Final = 1.0
"""Seconds over which requests that passed are counted. Services count by the second, too."""

MIN_SENT: Final = 8
"""Requests that this span holds at least; it is longer where fewer were sent."""

MAX_SPAN_S: Final = 10.0
"""Seconds: the longest span, however few were sent."""

MIN_SPAN_S: Final = 0.25
"""Seconds: the shortest span that a rate is told from. A few requests at once are no rate."""

BIN_S: Final = 0.05
"""Seconds: requests that leave within it are counted together. A larger bin blurs the span."""

# -- growth ----------------------------------------------------------------------------------------------------------

CALM_S: Final = 1.0
"""Seconds after a refusal in which the rate grows by `GROWTH`. After them growth rises by as much each second."""

GROWTH: Final = 0.03
"""Growth of the rate per second in the calm, as a share of it. More is refused more often; less takes longer to use
what a service can do."""

MAX_GROWTH: Final = 1.0
"""Growth of the rate per second, at most, as a share of it: a service that came back is found within seconds."""

FEW_PER_S: Final = 40.0
"""Requests a second. Below it, the calm lasts longer and the growth in it is smaller, both in proportion: else a
service that can do little would refuse a large share of what is sent."""

EAGER: Final = 7.0
"""Times the growth after the calm, where the rate is far below the best one: the service may have come back."""

FAR_BELOW: Final = 0.7
"""Share of the best rate lately. Below it, the rate grows `EAGER` times as fast."""

BEST_AFTER_S: Final = 0.5
"""Seconds without a refusal, after which a rate counts as sustained and may be the best."""

BEST_HALVES_S: Final = 60.0
"""Seconds after which half of the best rate is forgotten: services change."""

# -- outages ---------------------------------------------------------------------------------------------------------

BACK_TO: Final = 0.9
"""Share of the best rate at which sending is taken up again after an outage that told nothing of what is sustained."""

SHORT_OUTAGE_S: Final = 2.0
"""Seconds. An outage below it is short: a quota for some seconds that was used up looks so."""

SHORT_TIMES: Final = 8.0
"""Multiple of a short outage's length. An outage is a quota where the service answered for less than this before it."""

LONG_TIMES: Final = 0.5
"""Multiple of a long outage's length. An outage is a quota where the service answered for less than this before it, and
before the outage before it: a single one may be chance."""


class AdaptiveRate:
    """The most requests per second that may be sent: `per_s`, infinite until something is refused.

    `now` is in seconds on one clock that never goes back. `is_told_late`: refusals are told some time after they came,
    several at a time, as where several processes send.
    """

    def __init__(self, *, is_told_late: bool = False) -> None:
        self.per_s = math.inf
        self._is_told_late = is_told_late
        self._sends = _Sends()
        self._background = BackgroundErrors()
        self._best = 0.0
        self._first_refusal_s = math.inf  # in seconds of sending
        self._since_refusal = 0.0
        self._well_since = self._outage_at = math.inf
        self._passed_since = 0
        self._quotas_met = 0

    def sent(self, now: float, *, is_binding: bool) -> None:
        """A request leaves; `is_binding`: this rate is what it had waited for."""
        self._well_since = min(self._well_since, now)
        self._passed_since += 1
        seconds = self._sends.add(now, self.per_s)
        self._background.sent(seconds, self.per_s)
        if self.per_s == math.inf:
            return
        self._since_refusal += seconds
        self._best *= 0.5 ** (seconds / BEST_HALVES_S)
        if self._since_refusal >= BEST_AFTER_S:
            self._best = max(self._best, self.per_s)
        if is_binding:
            self.per_s *= 1 + min(MAX_GROWTH, self._growth()) * seconds

    def refused(self, sending_per_s: float) -> None:
        """A request did not pass; `sending_per_s`: how fast requests were sent of late."""
        self._sends.count_refusal()
        self._passed_since -= 1
        self._first_refusal_s = min(self._first_refusal_s, self._sends.seconds)
        was_forgiving = self._background.are_forgiven
        if not self._background.forgive(self.per_s):
            self.per_s = max(MIN_PER_S, self._cut(sending_per_s, was_forgiving=was_forgiving))
        self._since_refusal = 0.0

    def outage_began(self, now: float) -> None:
        """Nothing passes any more."""
        self._outage_at = now

    def outage_ended(self, now: float) -> None:
        """Something passes again. An outage soon after the last one is a quota that was used up: its rate is known."""
        well, gone = self._outage_at - self._well_since, now - self._outage_at
        is_short = gone < SHORT_OUTAGE_S
        is_quota = self._passed_since >= MIN_SENT and well < (SHORT_TIMES if is_short else LONG_TIMES) * gone
        self._quotas_met = self._quotas_met + 1 if is_quota else 0
        if self._quotas_met >= (1 if is_short else 2):
            self.per_s = max(MIN_PER_S, min(self.per_s, self._passed_since / (well + gone)))
            self._background.be_strict()
        elif not is_short:  # it tells nothing of what the service sustains
            self.per_s = max(self.per_s, BACK_TO * self._best)
        self._well_since, self._passed_since = now, 0

    def _cut(self, sending_per_s: float, *, was_forgiving: bool) -> float:
        if self.per_s == math.inf:
            return FIRST_CUT * min(sending_per_s, FIRST_TIMES * self._sends.mean_per_s())
        passed = self._sends.passed_per_s()
        if was_forgiving:  # the rate has grown quickly, and is far above what passes
            return min(self.per_s, MARGIN * passed)
        # Requests that passed while the rate was still being found show how large a burst may be, not the rate. But
        # refusals that are told late would cut it again and again for what was sent before the first cut was known.
        is_known = self._is_told_late or self._sends.seconds > self._first_refusal_s + SPAN_S
        share = FAR_ABOVE_CUT if passed < FAR_ABOVE * self.per_s else CUT
        return max(share * self.per_s, min(self.per_s, MARGIN * passed if is_known else 0.0))

    def _growth(self) -> float:
        if self._background.are_forgiven:
            return FORGIVING_GROWTH
        slower = max(1.0, FEW_PER_S / self.per_s)
        beyond = self._since_refusal - CALM_S * slower
        if beyond < 0:
            return GROWTH / slower
        return GROWTH * (1 + beyond) * (EAGER if self.per_s < FAR_BELOW * self._best else 1.0)


class BackgroundErrors:
    """Whether refusals are forgiven, since they may come at any rate."""

    def __init__(self) -> None:
        self.are_forgiven = True
        self._excess = 0.0  # refusals beyond the share that is forgiven
        self._strict_s = 0.0  # of sending since the rate was too high
        self._settled_per_s = 0.0  # the rate a second after that

    def sent(self, seconds: float, per_s: float) -> None:
        """A request leaves, this many seconds after the last one."""
        self._excess = max(0.0, self._excess - BACKGROUND_SHARE)
        self._strict_s += seconds
        if self._strict_s < SPAN_S:
            self._settled_per_s = per_s

    def forgive(self, per_s: float) -> bool:
        """Whether one more refusal is forgiven, at this rate."""
        self._excess += 1
        fell = per_s < FELL * self._settled_per_s
        if self._excess > BACKGROUND_BURST:
            self.be_strict()
        elif self._strict_s > (MIN_STRICT_S if fell else STRICT_S):
            self.are_forgiven = True
        return self.are_forgiven

    def be_strict(self) -> None:
        """The rate is known to be too high."""
        self.are_forgiven = False
        self._excess = self._strict_s = self._settled_per_s = 0.0


class _Bin:
    """Requests that left within `BIN_S` of sending."""

    __slots__ = ("passed", "seconds", "sent")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sent = self.passed = 0


class _Sends:
    """How many requests were sent lately, and how many of them passed, by time of sending."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._sent = 0
        self._last = math.inf
        self._bins: deque[_Bin] = deque(maxlen=round(MAX_SPAN_S / BIN_S))

    def add(self, now: float, per_s: float) -> float:
        """Count one, and return how many seconds of sending it took; a long gap before it was a pause."""
        gap = max(0.0, now - self._last)
        seconds = gap if gap <= max(MIN_SPAN_S, 3 / per_s) else 1 / per_s
        self._last = now
        self._sent += 1
        self.seconds += seconds
        if not self._bins or self._bins[-1].seconds + seconds > BIN_S:
            self._bins.append(_Bin())
        last = self._bins[-1]
        last.seconds += seconds
        last.sent += 1
        last.passed += 1
        return seconds

    def count_refusal(self) -> None:
        """A request that was sent lately did not pass: refusals come within milliseconds."""
        if self._bins:
            self._bins[-1].passed -= 1

    def mean_per_s(self) -> float:
        """Requests per second of sending, since the beginning."""
        return self._sent / max(self.seconds, MIN_SPAN_S)

    def passed_per_s(self) -> float:
        """Requests per second of sending that passed, lately."""
        seconds, sent, passed = 0.0, 0, 0
        for each in reversed(self._bins):
            seconds, sent, passed = seconds + each.seconds, sent + each.sent, passed + each.passed
            if seconds >= SPAN_S and sent >= MIN_SENT:
                break
        return max(passed, 1) / max(seconds, MIN_SPAN_S)
