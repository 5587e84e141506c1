"""How fast requests may leave: one first-come gate over requests and tokens per minute, and a pause for everyone.

Hides what aiolimiter does by default: it lets a whole period's quota out at once, serves the smallest waiter first,
refuses amounts above its capacity and can't be corrected afterwards. So the buckets here are small (the stated
burst), asked before they are entered, entered in slices, and only one caller may wait at a time.

The law: over any window of T seconds, no more than ``rate * T + burst`` leaves, requests and tokens alike.
"""

import asyncio

from aiolimiter import AsyncLimiter

BURST_S = 0.05  # seconds' worth of the rate that may leave at once, but at least one request or token
POLL_S = 0.005  # how often a full bucket is asked again: half a percent at one request a second
LEARNING_RATE = 0.1  # weight of the newest row in the running ratio of real to estimated tokens


class _Bucket:
    """An aiolimiter bucket that holds one burst and is asked before it is entered, so that entering never blocks."""

    def __init__(self, per_minute: float) -> None:
        per_second = per_minute / 60
        self.burst = max(1.0, per_second * BURST_S)
        self._limiter = AsyncLimiter(self.burst, self.burst / per_second)

    async def take(self, amount: float) -> None:
        """Let `amount` through at the rate; an amount above the burst passes in slices, so that it never starves."""
        while amount > 0:
            part = min(amount, self.burst)
            while not self._limiter.has_capacity(part):  # noqa: ASYNC110 - aiolimiter offers no event to wait for
                await asyncio.sleep(POLL_S)
            await self._limiter.acquire(part)
            amount -= part


class Limits:
    """Requests and tokens per minute, and the service's own pushback, behind one verb.

    Tokens are charged by the caller's estimate times the ratio of real to estimated tokens seen so far, and settled
    when the truth is known: what was charged too little is paid by the next rows, what was charged too much is
    taken off theirs, up to one burst (a larger credit would let more than the burst leave at once).
    """

    def __init__(self, *, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._requests = None if requests_per_minute is None else _Bucket(requests_per_minute)
        self._tokens = None if tokens_per_minute is None else _Bucket(tokens_per_minute)
        self._paused_until = 0.0
        self._debt = 0.0
        self._ratio = 1.0

    @property
    def paused_until(self) -> float:
        """Event-loop time until which nobody may send."""
        return self._paused_until

    def pause(self, seconds: float) -> None:
        """Nobody sends for so long; a longer pause that is under way stays as it is."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)

    async def acquire(self, estimated_tokens: int) -> float:
        """Wait until one more request of about so many tokens fits, and return what it was charged, in tokens.

        One caller at a time: whoever waits here keeps everyone behind it waiting, which is what keeps the order.
        """
        charge = 0.0
        if self._tokens is not None:
            charge = estimated_tokens * self._ratio
            await self._pay(self._tokens, charge)
        if self._requests is not None:
            await self._requests.take(1)
        await self._outlast_pause()
        return charge

    def settle(self, charge: float, estimated_tokens: int, actual_tokens: int) -> None:
        """Correct a charge once the service has said how many tokens the request really took."""
        self._debt += actual_tokens - charge
        if estimated_tokens > 0:
            self._ratio += LEARNING_RATE * (actual_tokens / estimated_tokens - self._ratio)

    async def _pay(self, bucket: _Bucket, charge: float) -> None:
        due, self._debt = charge + self._debt, 0.0
        if due < 0:
            self._debt = max(due, -bucket.burst)
        await bucket.take(due)

    async def _outlast_pause(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._paused_until - loop.time()) > 0:  # noqa: ASYNC110 - a pause may grow while it lasts
            await asyncio.sleep(left)
