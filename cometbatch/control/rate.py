"""How many requests a second the service lets pass, learned from where it refuses. A pure control law, told the time.

A refusal says at once what answers say only a round trip later. Each one takes a little off the rate, which is raised
all the while: slowly at first, faster the longer nothing is refused (a service that came back), and faster where far
more was sustained lately. So the rate hovers where a percent or two is refused, whether the service counts in buckets,
windows or requests in flight, and it comes down quickly where most is refused.

Some services also refuse a few of a hundred whatever the rate, and to send more slowly is no help. A limit refuses a
share that rises steeply with the rate. So as long as few are refused while the rate grows quickly, that is forgiven: at
the start, and again after some time, which is short where refusals went on although they had cost much of the rate.

A refusal that asks for a long pause stops everyone. Then the rate is cut to less than what passed, and
is raised so slowly that the pauses stay a small part of the time.
"""

import math
from collections import deque

CUT = 0.985  # what a refusal leaves of the rate
MARGIN = 0.97  # of what passed lately: below that a refusal does not cut, for it may be the end of a used-up window
LONG_PAUSE_S = 0.5  # a pause from which on a refusal is long_pause
DEAR_CUT = 0.96  # what a long_pause refusal leaves of the rate at most,
DEAR_MARGIN = 0.95  # or of what passed lately, if that is less,
MOST_CUT = 0.3  # and at least
SOON_S = 1.2  # seconds of sending: where two refusals with a long pause are nearer than that, the rate is far too high
SOON_CUT = 0.9  # and leaves this of it
FIRST_CUT = 0.9  # what the first refusal leaves of the rate, which until then is only what happened to be sent
FIRST_TIMES = 3.0  # the mean rate until then: more than that was sent for a moment only
STRAYS = 0.075  # of what is sent: as much may be refused for other reasons than the rate,
STRAY_BURST = 5.0  # and so many more, by chance; beyond that the rate is too high
STRAY_GROWTH = 0.5  # of the rate per second while refusals are forgiven: so fast a limit shows at once
STRICT_S = 15.0  # of sending after the rate was too high, in which every refusal counts,
SHORTEST_STRICT_S = 2.0  # or this, where they
FELL = 0.85  # left that share of the rate as it was a second after, or less: a limit's refusals end before
LEAST_PER_S = 0.1  # a rate below that can't be told from an outage, which is probed more often

SPAN_S = 1.0  # of sending, over which is counted what passed; services count by the second, too
LEAST_SENT = 8  # requests in that span; it is longer where fewer were sent,
LONGEST_SPAN_S = 10.0  # up to this
SHORTEST_SPAN_S = 0.25  # a few requests at once are no rate
BIN_S = 0.05  # in which sends are counted together

CALM_S = 1.0  # of sending after a refusal, in which the rate grows least
GROWTH = 0.03  # of the rate per second, in the calm; after it, as much more each second
CALM_PER_PAUSE = 18.0  # seconds of calm for each second of a long_pause refusal's pause,
DEAR_GROWTH = 0.05  # over the whole of which the rate grows by this share
ALIKE = 0.85  # of the last cut: a refusal with a long pause at that height or above meets the same bound twice
MOST_GROWTH = 1.0  # of the rate per second
EAGER = 7.0  # times the growth, where the bound is not believed yet, or the rate is
FAR_BELOW = 0.7  # of the best one lately, or less
BEST_AFTER_S = 0.5  # of sending without a refusal, after which a rate counts as sustained
BEST_HALVES_S = 60.0  # of sending, after which half of the best rate is forgotten

BACK_TO = 0.9  # of the best rate: where sending is taken up again after an outage
SHORT_OUTAGE_S = 2.0  # below this, what looks like an outage may well be a used-up quota;
SHORT_SHARE = 8.0  # it is, where it was well before for less than so many times as long,
LONG_SHARE = 0.5  # and a longer one is, where that is less than this, and twice in a row


class AdaptiveRate:
    """The most requests per second that may be sent: `per_s`, infinite as long as nothing was refused.

    Times are seconds on one clock that never goes back. Only time spent sending counts, and no pause: a service is not
    slow because nobody asked it.
    """

    def __init__(self) -> None:
        self.per_s = math.inf
        self.refused_at = -math.inf  # the last time
        self._sends = _Sends()
        self._strays = BackgroundErrors()
        self._best = 0.0
        self._last_cut = math.inf
        self._first_refusal_s = math.inf  # in seconds of sending
        self._since_refusal = 0.0
        self._calm_s = CALM_S
        self._calm_growth = GROWTH
        self._is_believed = True
        self._was_dear = False
        self._well_since = self._outage_at = math.inf
        self._passed_since = 0
        self._quotas_met = 0

    def sent(self, now: float, *, is_binding: bool) -> None:
        """A request leaves; `is_binding`: this rate is what it had waited for."""
        self._well_since = min(self._well_since, now)
        self._passed_since += 1
        seconds = self._sends.add(now, self.per_s)
        self._strays.sent(seconds, self.per_s)
        if self.per_s == math.inf:
            return
        self._since_refusal += seconds
        self._best *= 0.5 ** (seconds / BEST_HALVES_S)
        if self._since_refusal >= BEST_AFTER_S:
            self._best = max(self._best, self.per_s)
        if is_binding:
            self.per_s *= 1 + min(MOST_GROWTH, self._growth()) * seconds

    def refused(self, now: float, pause_s: float, sending_per_s: float) -> None:
        """A request did not pass, and everyone waits so long for it; so fast they were sent of late."""
        self._sends.take_back()
        self._passed_since -= 1
        self._first_refusal_s = min(self._first_refusal_s, self._sends.seconds)
        is_dear, was_forgiving = pause_s > LONG_PAUSE_S, self._strays.are_forgiven
        if not self._strays.forgive(self.per_s, is_paused=pause_s > 0):
            rate = self._cut(sending_per_s, is_dear=is_dear, was_forgiving=was_forgiving)
            self._lower(max(LEAST_PER_S, rate), pause_s if is_dear else 0.0)
        self._since_refusal = 0.0
        self.refused_at = now

    def _lower(self, per_s: float, dear_pause_s: float) -> None:
        self.per_s = per_s
        self._was_dear = dear_pause_s > 0
        self._is_believed = not self._was_dear or per_s >= ALIKE * self._last_cut
        self._last_cut = per_s
        self._calm_s, self._calm_growth = CALM_S, GROWTH
        if self._was_dear and self._is_believed:
            self._calm_s = self._dear_calm(dear_pause_s)
            self._calm_growth = DEAR_GROWTH / self._calm_s

    def outage_began(self, now: float) -> None:
        """Nothing passes any more."""
        self._outage_at = now

    def outage_ended(self, now: float) -> None:
        """Something passes again. What came soon after the last one is a quota that was used up: its rate is known."""
        well, gone = self._outage_at - self._well_since, now - self._outage_at
        is_short = gone < SHORT_OUTAGE_S
        is_quota = self._passed_since >= LEAST_SENT and well < (SHORT_SHARE if is_short else LONG_SHARE) * gone
        self._quotas_met = self._quotas_met + 1 if is_quota else 0
        if self._quotas_met >= (1 if is_short else 2):
            self.per_s = max(LEAST_PER_S, min(self.per_s, self._passed_since / (well + gone)))
            self._strays.be_strict()
        elif not is_short:  # it told nothing of what is sustained
            self.per_s = max(self.per_s, BACK_TO * self._best)
        self._well_since, self._passed_since = now, 0

    def _cut(self, sending_per_s: float, *, is_dear: bool, was_forgiving: bool) -> float:
        passed = self._sends.passed_per_s()
        if self.per_s == math.inf:
            rate = min(sending_per_s, FIRST_TIMES * self._sends.mean_per_s())
            return DEAR_MARGIN * passed if is_dear else FIRST_CUT * rate
        if is_dear:
            share = DEAR_CUT if self._since_refusal > SOON_S else SOON_CUT
            return max(MOST_CUT * self.per_s, min(share * self.per_s, DEAR_MARGIN * passed))
        if was_forgiving:  # the rate was let grow, and is far above what passes
            return min(self.per_s, MARGIN * passed)
        # What passed while the rate was still being found says how large a burst may be, and nothing of the rate.
        is_known = self._sends.seconds > self._first_refusal_s + SPAN_S
        return max(CUT * self.per_s, min(self.per_s, MARGIN * passed if is_known else 0.0))

    def _dear_calm(self, pause_s: float) -> float:
        """Far below what was sustained lately, to be refused costs little beside what may be gained."""
        share = min(1.0, self.per_s / self._best) if self._best else 1.0
        return max(CALM_S, CALM_PER_PAUSE * pause_s * share**2)

    def _growth(self) -> float:
        if self._strays.are_forgiven:
            return STRAY_GROWTH
        if self._was_dear and self._since_refusal < SOON_S:
            return 0.0
        beyond = self._since_refusal - self._calm_s
        growth = self._calm_growth if beyond < 0 else GROWTH * (1 + beyond)
        is_eager = not self._is_believed or self.per_s < FAR_BELOW * self._best
        return growth * EAGER if is_eager else growth


class BackgroundErrors:
    """Whether refusals are forgiven, since they may well come at any rate."""

    def __init__(self) -> None:
        self.are_forgiven = True
        self._excess = 0.0  # refusals beyond the share that is forgiven
        self._strict_s = 0.0  # of sending since the rate was too high
        self._settled_per_s = 0.0  # the rate a second after that

    def sent(self, seconds: float, per_s: float) -> None:
        """A request leaves, so long after the last one."""
        self._excess = max(0.0, self._excess - STRAYS)
        self._strict_s += seconds
        if self._strict_s < SPAN_S:
            self._settled_per_s = per_s

    def forgive(self, per_s: float, *, is_paused: bool) -> bool:
        """Whether one more is forgiven, at this rate."""
        self._excess += 1
        fell = per_s < FELL * self._settled_per_s
        if is_paused or self._excess > STRAY_BURST:
            self.be_strict()
        elif self._strict_s > (SHORTEST_STRICT_S if fell else STRICT_S):
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
    """What was sent lately, and how much of it passed, by time of sending."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._sent = 0
        self._last = math.inf
        self._bins: deque[_Bin] = deque(maxlen=round(LONGEST_SPAN_S / BIN_S))

    def add(self, now: float, per_s: float) -> float:
        """Count one, and return how many seconds of sending it took; a long gap before it was a pause."""
        gap = max(0.0, now - self._last)
        seconds = gap if gap <= max(SHORTEST_SPAN_S, 3 / per_s) else 1 / per_s
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

    def take_back(self) -> None:
        """One that was sent lately did not pass: refusals come within milliseconds."""
        if self._bins:
            self._bins[-1].passed -= 1

    def mean_per_s(self) -> float:
        """Requests per second of sending, since the beginning."""
        return self._sent / max(self.seconds, SHORTEST_SPAN_S)

    def passed_per_s(self) -> float:
        """Requests per second of sending that passed, lately."""
        seconds, sent, passed = 0.0, 0, 0
        for each in reversed(self._bins):
            seconds, sent, passed = seconds + each.seconds, sent + each.sent, passed + each.passed
            if seconds >= SPAN_S and sent >= LEAST_SENT:
                break
        return max(passed, 1) / max(seconds, SHORTEST_SPAN_S)
