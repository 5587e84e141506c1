"""How fast one owner of a shared run may send: a share of the run's limits, for as long as its lease lasts.

Laws. After a lease's end nothing leaves, limit set or not: each request looks at the clock. Over any window of T
seconds, whatever leases come in it, no more than ``rate * T + burst`` leaves, where the rate is the share of each
moment, 0 without a lease, and the burst that of the largest share. A bucket keeps its level when its rate changes, so
that no lease opens a new burst; the first lease opens none either.
"""

import math
from collections.abc import Callable
from typing import Final

from cometbatch.control.coordination.messages import Lease
from cometbatch.limiting.limits import BURST_S, LEARNING_RATE, MIN_POLL_S, POLL_SHARE, SLICE_POLLS, SPARE_SHARE

NO_SHARE_S: Final = 0.25
"""Seconds after which a request without a lease, a share or a turn is tried again. The next lease has it tried at once,
so that this is only for one that is never told."""


class LeasedLimits:
    """A lease's share of requests and tokens, or its turns, with the verbs of `Limits`. For one caller.

    `clock`: seconds, on a clock that counts the time in which the machine is suspended.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.wait_s = 0.0
        """Seconds after which to try again, for a request that `take` did not let pass."""
        self.counts_tokens = False
        """Whether there is a limit on tokens."""
        self.sent = 0
        """Requests that were let pass since the owner began."""
        self.on_short: Callable[[], None] = lambda: None
        """Called where only another lease lets a request pass."""
        self._clock = clock
        self._number = 0
        self._until = -math.inf
        self._is_over = False
        self._turns: int | None = None
        self._requests: _Bucket | None = None
        self._tokens: _Bucket | None = None
        self._debt = 0.0
        self._actual = 0.0
        self._estimated = 0.0

    @property
    def is_valid(self) -> bool:
        """Whether a lease lasts at this moment. For any thread."""
        return self._clock() < self._until

    @property
    def number(self) -> int:
        """The number of the newest lease; 0 before the first."""
        return self._number

    def grant(self, lease: Lease, asked_at: float) -> bool:
        """Take a lease that was asked for at this time on the clock; returns False for one that is not the newest."""
        if lease.number <= self._number or self._is_over:
            return False
        now, before = self._clock(), self._until
        self._number, self._until, self._turns = lease.number, asked_at + lease.valid_s, lease.turns
        self._requests = _changed(self._requests, lease.requests_per_s, now, before, has_equal_amounts=True)
        self._tokens = _changed(self._tokens, lease.tokens_per_s, now, before)
        self.counts_tokens = self._tokens is not None
        return True

    def end(self) -> None:
        """Nothing leaves any more, whatever leases come."""
        self._is_over, self._until = True, -math.inf

    def take(self, estimated_tokens: int) -> float | None:
        """Let a request of about this many tokens pass, and return what it is charged, in tokens.

        `None` where it does not fit yet, or where there is no lease: then `wait_s` says when to try again, with the
        same request. What a large one has paid ahead is kept, for whoever comes next.
        """
        now = self._clock()
        if now >= self._until or (self._turns is not None and self.sent >= self._turns):
            self._need_lease()
            return None
        requests, tokens = self._requests, self._tokens
        if requests is not None and (wait_s := requests.wait_s(1.0, now)) > 0:
            self._wait(wait_s)
            return None
        charge = 0.0
        if tokens is not None:
            charge = estimated_tokens * (self._actual / self._estimated if self._estimated else 1.0)
            if (wait_s := self._wait_for_tokens(tokens, charge, now)) > 0:
                self._wait(wait_s)
                return None
        if requests is not None:
            requests.level += 1.0
        self.sent += 1
        return charge

    def settle(self, charge: float, estimated_tokens: int, actual_tokens: int) -> None:
        """Correct a charge once the service has said how many tokens the request really took."""
        if self._tokens is None:
            return
        self._debt += actual_tokens - charge
        if self._estimated == 0.0:  # begin as if estimates had been right so far
            self._actual = self._estimated = estimated_tokens / LEARNING_RATE
        self._actual += actual_tokens - LEARNING_RATE * self._actual
        self._estimated += estimated_tokens - LEARNING_RATE * self._estimated

    def _wait(self, wait_s: float) -> None:
        self.wait_s = wait_s
        if wait_s == math.inf:
            self._need_lease()

    def _need_lease(self) -> None:
        self.wait_s = NO_SHARE_S
        self.on_short()

    def _wait_for_tokens(self, tokens: "_Bucket", charge: float, now: float) -> float:
        """Take the tokens that are due, and return 0; or pay ahead what fits, and return when to try again."""
        due = max(0.0, charge + self._debt)
        if due <= tokens.burst:
            if (wait_s := tokens.wait_s(due, now)) > 0:
                return wait_s
            tokens.level += due
            self._debt = max(min(0.0, charge + self._debt), -tokens.burst)
            return 0.0
        half = tokens.burst / 2
        if (wait_s := tokens.wait_s(half, now)) > 0:
            return wait_s
        tokens.level += half
        self._debt -= half
        return max(MIN_POLL_S, SLICE_POLLS * POLL_SHARE * tokens.burst / tokens.per_s) if tokens.per_s > 0 else math.inf


class _Bucket:
    """Holds one burst, and empties at a rate that may change. It begins full."""

    def __init__(self, per_s: float, now: float, *, has_equal_amounts: bool) -> None:
        self._has_equal_amounts = has_equal_amounts
        self._looked_at = now
        self._until = math.inf
        self.per_s = per_s
        self.burst = self.level = max(1.0, per_s * BURST_S)
        self._spare_s = self._longest_poll_s()

    def change(self, per_s: float, now: float, lease_ended: float) -> None:
        """Go on at another rate. The last one held until its lease ended, and after that there was none."""
        self._leak(max(self._looked_at, min(now, lease_ended)))
        self._looked_at = now
        self.per_s, self.burst = per_s, max(1.0, per_s * BURST_S)
        self._spare_s = self._longest_poll_s()

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until this much fits, or somewhat longer where that wastes nothing; infinite without a rate."""
        self._leak(now)
        beyond = self.level + amount - self.burst
        if beyond <= 0:
            return 0.0
        return max(MIN_POLL_S, self._spare_s, beyond / self.per_s) if self.per_s > 0 else math.inf

    def _leak(self, now: float) -> None:
        if now > self._looked_at:
            self.level = max(0.0, self.level - (now - self._looked_at) * self.per_s)
            self._looked_at = now

    def _longest_poll_s(self) -> float:
        """Seconds for which what is in a large bucket keeps it from running empty."""
        if not self._has_equal_amounts or self.per_s <= 0:
            return 0.0
        return SPARE_SHARE * (self.burst - 1) / self.per_s


def _changed(
    bucket: _Bucket | None, per_s: float | None, now: float, lease_ended: float, *, has_equal_amounts: bool = False
) -> _Bucket | None:
    """The bucket at its new rate; None where there is no limit."""
    if per_s is None:
        return None
    if bucket is None:
        return _Bucket(per_s, now, has_equal_amounts=has_equal_amounts)
    bucket.change(per_s, now, lease_ended)
    return bucket
