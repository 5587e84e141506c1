"""How fast requests may leave: requests and tokens per minute, behind one verb.

Hides what aiolimiter does by default: it lets a whole period's quota out at once, serves the smallest waiter first,
refuses amounts above its capacity and can't be corrected afterwards. So the buckets here are small (the stated
burst), asked before they are entered, and entered in slices. There is one caller, who asks for one request at a time.
A rate that several runs share (`limiting.shared`) is asked last, when everything else has let the request pass.

The law: over any window of T seconds, no more than ``rate * T + burst`` leaves, requests and tokens alike. Of tokens
there may be one request more where that request alone is larger than the burst: it leaves whole, once it is paid.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cometbatch.limiting.shared import SharedRate

BURST_S = 0.05
"""Seconds. This much of the rate may leave at once, but at least one request or token. More would be a burst that a
service may refuse; less would need a timer for each request of a fast run."""

POLL_SHARE = 0.01
"""Share of the time in which a full bucket empties, after which it is asked again. A larger share wastes as much of the
rate; a smaller one wakes the loop more often."""

SPARE_SHARE = 0.1
"""Share of a burst beside one request. A bucket whose requests are all equal is asked again only when this much has
leaked, since what is left keeps it from running empty meanwhile."""

MIN_POLL_S = 0.001
"""Seconds: the resolution of the event loop's timers. A bucket is never asked again sooner."""

SLICE_POLLS = 20
"""Polls between two slices of half a burst, in which a large request pays ahead. At 50 or more the bucket could run
empty in between, and the rate would not be used."""

LEARNING_RATE = 0.1
"""Weight of the newest request in the running ratio of real to estimated tokens. A larger one follows noise; a smaller
one takes longer to learn that the estimates are wrong."""


class _Bucket:
    """An aiolimiter bucket that holds one burst and is asked before it is entered, so that entering never blocks."""

    def __init__(self, per_minute: float, *, has_equal_amounts: bool = False) -> None:
        """`has_equal_amounts`: what enters is always 1, so that a look too late wastes nothing in a large bucket."""
        from aiolimiter import AsyncLimiter  # noqa: PLC0415 - which a run without limits need not load

        per_second = per_minute / 60
        self.burst = max(1.0, per_second * BURST_S)
        self.period_s = self.burst / per_second  # in which a full bucket empties
        spare_s = SPARE_SHARE * (self.burst - 1) / per_second if has_equal_amounts else 0.0
        self.poll_s = max(MIN_POLL_S, POLL_SHARE * self.period_s, spare_s)
        self._limiter = AsyncLimiter(self.burst, self.period_s)

    def fits(self, amount: float) -> bool:
        """Whether this much may pass right now; more than one burst never does."""
        return self._limiter.has_capacity(amount)

    def enter(self, amount: float) -> None:
        """Let pass what was found to fit: then aiolimiter's coroutine ends without waiting, and needs no task."""
        passing = self._limiter.acquire(amount)
        try:
            passing.send(None)
        except StopIteration:
            return
        passing.close()
        raise RuntimeError(f"aiolimiter waits although {amount:g} fit")


class Limits:
    """Requests and tokens per minute, behind one verb. For one caller.

    Tokens are charged by the caller's estimate times the ratio of real to estimated tokens seen so far, and settled
    when the truth is known: what was charged too little is paid by the next requests, what was charged too much is
    taken off the next one, and beyond that at most one burst of it is kept (more would leave at once after a lull).
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        shared: "SharedRate | None" = None,
    ) -> None:
        """`shared`: the rate of several runs, which has to let each request pass as well."""
        self._requests = None if requests_per_minute is None else _Bucket(requests_per_minute, has_equal_amounts=True)
        self._tokens = None if tokens_per_minute is None else _Bucket(tokens_per_minute)
        self._poll_s = min((bucket.poll_s for bucket in (self._requests, self._tokens) if bucket), default=0.0)
        self._shared = shared
        self._debt = 0.0
        self._shared_debt = 0.0
        self.counts_tokens = self._tokens is not None or (shared is not None and shared.counts_tokens)
        """Whether `settle` has anything to do."""
        self._actual = 0.0
        self._estimated = 0.0
        self.wait_s = 0.0
        """Seconds after which to try again, for a request that `take` did not let pass."""

    def take(self, estimated_tokens: int) -> float | None:
        """Let a request of about this many tokens pass, and return what it is charged, in tokens.

        `None` where it does not fit yet: then `wait_s` says when to try again, with the same request, so that none of
        any size is overtaken for ever. What a large one has paid ahead is kept, for whoever comes next.
        """
        self.wait_s = self._poll_s
        tokens, requests = self._tokens, self._requests
        charge = estimated_tokens * self._ratio() if self.counts_tokens else 0.0
        due = 0.0
        if tokens is not None:
            due = max(0.0, charge + self._debt)
            if due > tokens.burst:
                self._pay_ahead(tokens)
                return None
            if not tokens.fits(due):
                return None
        if requests is not None and not requests.fits(1.0):
            return None
        if self._shared is not None and not self._passes(self._shared, charge):
            return None
        if requests is not None:
            requests.enter(1.0)
        if tokens is not None:
            tokens.enter(due)
            self._debt = max(min(0.0, charge + self._debt), -tokens.burst)
        return charge

    def settle(self, charge: float, estimated_tokens: int, actual_tokens: int) -> None:
        """Correct a charge once the service has said how many tokens the request really took."""
        if not self.counts_tokens:
            return
        self._debt += actual_tokens - charge
        self._shared_debt += actual_tokens - charge
        if self._estimated == 0.0:  # begin as if estimates had been right so far
            self._actual = self._estimated = estimated_tokens / LEARNING_RATE
        self._actual += actual_tokens - LEARNING_RATE * self._actual
        self._estimated += estimated_tokens - LEARNING_RATE * self._estimated

    def _ratio(self) -> float:
        """Real to estimated tokens, of sums: a mean of ratios would let the smallest rows decide for the largest."""
        return self._actual / self._estimated if self._estimated else 1.0

    def _passes(self, shared: "SharedRate", charge: float) -> bool:
        """Pass the rate that several runs share. What is paid ahead there, or charged wrongly, is this run's own."""
        due = max(0.0, charge + self._shared_debt) if shared.counts_tokens else 0.0
        if due > shared.token_burst:
            paid, self.wait_s = shared.pay_ahead(self)
            self._shared_debt -= paid
            return False
        if (wait_s := shared.enter(self, due)) > 0:
            self.wait_s = wait_s
            return False
        self._shared_debt = max(min(0.0, charge + self._shared_debt), -shared.token_burst)
        return True

    def _pay_ahead(self, bucket: _Bucket) -> None:
        """Pay half a burst of what is due, once that fits."""
        if bucket.fits(bucket.burst / 2):
            bucket.enter(bucket.burst / 2)
            self._debt -= bucket.burst / 2
        self.wait_s = SLICE_POLLS * POLL_SHARE * bucket.period_s
