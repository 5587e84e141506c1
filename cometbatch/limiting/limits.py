"""How fast requests may leave: one first-come gate over requests and tokens per minute, and a pause for everyone.

Hides what aiolimiter does by default: it lets a whole period's quota out at once, serves the smallest waiter first,
refuses amounts above its capacity and can't be corrected afterwards. So the buckets here are small (the stated
burst), asked before they are entered, entered in slices, and only one caller is served at a time.

The law: over any window of T seconds, no more than ``rate * T + burst`` leaves, requests and tokens alike. Of tokens
there may be one request more where that request alone is larger than the burst: it leaves whole, once it is paid.
"""

import asyncio

BURST_S = 0.05  # seconds' worth of the rate that may leave at once, but at least one request or token
POLL_SHARE = 0.01  # how often a full bucket is asked again, as a share of the time in which it empties
SPARE_SHARE = 0.1  # or in which so much of what is left beside one request leaks: it can't run empty meanwhile
MIN_POLL_S = 0.001  # the resolution of the event loop's timers
SLICE_POLLS = 20  # looks that may be left out between slices of half a burst: the bucket can't run empty meanwhile
LEARNING_RATE = 0.1  # weight of the newest row in the running ratio of real to estimated tokens


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
        """Whether so much may pass right now; more than one burst never does."""
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
    """Requests and tokens per minute, and the service's own pushback, behind one verb.

    Tokens are charged by the caller's estimate times the ratio of real to estimated tokens seen so far, and settled
    when the truth is known: what was charged too little is paid by the next rows, what was charged too much is
    taken off the next row, and beyond that at most one burst of it is kept (more would leave at once after a lull).
    """

    def __init__(self, *, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._requests = None if requests_per_minute is None else _Bucket(requests_per_minute, has_equal_amounts=True)
        self._tokens = None if tokens_per_minute is None else _Bucket(tokens_per_minute)
        self._poll_s = min((bucket.poll_s for bucket in (self._requests, self._tokens) if bucket), default=0.0)
        self._turn = asyncio.Lock()
        self._paused_until = 0.0
        self._debt = 0.0
        self._actual = 0.0
        self._estimated = 0.0

    @property
    def paused_until(self) -> float:
        """Event-loop time until which nobody may send."""
        return self._paused_until

    def pause(self, seconds: float) -> None:
        """Nobody sends for so long; a longer pause that is under way stays as it is."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)

    async def acquire(self, estimated_tokens: int) -> float:
        """Wait until one more request of about so many tokens fits, and return what it was charged, in tokens.

        First come, first served: whoever waits here keeps everyone behind it waiting, so no size is ever starved.
        What a caller had paid when it was cancelled is credited to the next one.
        """
        async with self._turn:
            charge = self._charge_of(estimated_tokens)
            while (wait_s := await self._try_to_pass(charge)) > 0:  # noqa: ASYNC110 - aiolimiter offers no event
                await asyncio.sleep(wait_s)
            return charge

    def acquire_now(self, estimated_tokens: int) -> float | None:
        """The same where it fits at once; None where it must be waited for. Not while anybody waits."""
        charge = self._charge_of(estimated_tokens)
        return charge if self._passes(charge) else None

    @property
    def counts_tokens(self) -> bool:
        """Whether `settle` has anything to do."""
        return self._tokens is not None

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return self._requests is not None or self._tokens is not None

    def must_wait(self, now: float) -> bool:
        """Whether at this time of the event loop there is a pause, or somebody waits who is to go first."""
        return now < self._paused_until or self._turn.locked()

    def settle(self, charge: float, estimated_tokens: int, actual_tokens: int) -> None:
        """Correct a charge once the service has said how many tokens the request really took."""
        if self._tokens is None:
            return
        self._debt += actual_tokens - charge
        if self._estimated == 0.0:  # begin as if estimates had been right so far
            self._actual = self._estimated = estimated_tokens / LEARNING_RATE
        self._actual += actual_tokens - LEARNING_RATE * self._actual
        self._estimated += estimated_tokens - LEARNING_RATE * self._estimated

    def _ratio(self) -> float:
        """Real to estimated tokens, of sums: a mean of ratios would let the smallest rows decide for the largest."""
        return self._actual / self._estimated if self._estimated else 1.0

    def _charge_of(self, estimated_tokens: int) -> float:
        return estimated_tokens * self._ratio() if self._tokens is not None else 0.0

    async def _try_to_pass(self, charge: float) -> float:
        """Let the request pass and return 0, or return after how many seconds to try again."""
        await self._outlast_pause()
        if self._tokens is not None and charge + self._debt > self._tokens.burst:
            return self._pay_ahead(self._tokens)
        return 0.0 if self._passes(charge) else self._poll_s

    def _passes(self, charge: float) -> bool:
        """Let the request pass, if all of it fits."""
        due = max(0.0, charge + self._debt)
        passes = [(bucket, amount) for bucket, amount in ((self._tokens, due), (self._requests, 1.0)) if bucket]
        if not all(bucket.fits(amount) for bucket, amount in passes):
            return False
        for bucket, amount in passes:  # nothing else runs meanwhile
            bucket.enter(amount)
        self._book(charge)
        return True

    def _pay_ahead(self, bucket: _Bucket) -> float:
        """Pay half a burst of what is due, once that fits."""
        if bucket.fits(bucket.burst / 2):
            bucket.enter(bucket.burst / 2)
            self._debt -= bucket.burst / 2
        return SLICE_POLLS * POLL_SHARE * bucket.period_s

    def _book(self, charge: float) -> None:
        credit = min(0.0, charge + self._debt)
        self._debt = 0.0 if self._tokens is None else max(credit, -self._tokens.burst)

    async def _outlast_pause(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._paused_until - loop.time()) > 0:  # noqa: ASYNC110 - a pause may grow while it lasts
            await asyncio.sleep(left)
