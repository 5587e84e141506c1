"""One rate and one budget for the runs of a process: for any thread and any event loop.

The law, over all runs together: in any window of T seconds no more than ``rate * T + burst`` is let pass (of tokens,
one request more where that request alone is larger than the burst, as for a single run), and what is spent and set
aside never passes the cap. A run keeps for itself what its estimates were wrong by, and what a large request of it has
paid ahead; so nobody lives on another's payments.

A pause that the service asks for (`Retry-After`) is not shared. It is an answer to one run's requests, of its model and
its route; runs that are asked to wait as well hear it themselves, by their next request.
"""

import itertools
import math
import threading
import time
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Final, NoReturn

from cometbatch.errors import UsageError
from cometbatch.limiting.limits import BURST_S, MIN_POLL_S, POLL_SHARE, SLICE_POLLS
from cometbatch.money.exact import EXACT, ROUNDING

PLACE_POLLS: Final = 3
"""A run that waits keeps its place in the queue for this many of its waits. One that stops asking then loses it."""

PLACE_S: Final = 0.05
"""Seconds that it keeps it in addition: an event loop may be that late. More would leave the rate unused for longer
after a run that has stopped asking."""

NOTHING: Final = Decimal(0)


class Limits:
    """Requests and tokens per minute, and US dollars, for all runs that this is given to: `run(job, limits=shared)`.

    Each job's own `limits` and `budget` hold as well. `max_cost_usd` counts what these runs spend from now on, in this
    process: answers, requests that may have been billed without one, and the possible charges that they find when they
    begin. Raises `UsageError` for a number that is no limit.
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        max_cost_usd: Decimal | float | str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: seconds, the same for all threads; a test may have another one."""
        requests = _per_minute("requests_per_minute", requests_per_minute)
        tokens = _per_minute("tokens_per_minute", tokens_per_minute)
        self.rate = None if requests is None and tokens is None else SharedRate(requests, tokens, clock)
        self.budget = None if max_cost_usd is None else SharedBudget(_amount(max_cost_usd))

    def __reduce__(self) -> NoReturn:
        """Runs of other processes know nothing of it: a copy would be a second rate and a second budget."""
        raise TypeError("cometbatch.Limits hold within one process, and can't be copied or sent to another one.")

    @property
    def left_usd(self) -> Decimal | None:
        """US dollars that are neither spent nor set aside by now; None where there is no cap."""
        return None if self.budget is None else self.budget.left


class SharedRate:
    """Requests and tokens per minute over several callers, each of which asks for one request at a time.

    Who was refused first passes first. Else the one that happens to ask next after room has come would pass, which can
    be the same one each time.
    """

    def __init__(
        self, requests_per_minute: float | None, tokens_per_minute: float | None, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._requests = None if requests_per_minute is None else _Bucket(requests_per_minute)
        self._tokens = None if tokens_per_minute is None else _Bucket(tokens_per_minute)
        self._waiting: dict[object, tuple[int, float]] = {}  # its place in the queue, and until when that is kept
        self._tickets = itertools.count()
        both = [bucket for bucket in (self._requests, self._tokens) if bucket is not None]
        self._poll_s = min(max(MIN_POLL_S, POLL_SHARE * bucket.period_s) for bucket in both)
        self.token_burst = math.inf if self._tokens is None else self._tokens.burst
        """Tokens that one request may take at once; infinite where tokens are not counted."""

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a limit on tokens."""
        return self._tokens is not None

    def enter(self, who: object, tokens: float) -> float:
        """Let a request pass that takes this much: returns 0, or the seconds after which to ask again."""
        with self._lock:
            now = self._clock()
            is_free = self._is_turn_of(who, now)
            if is_free and _fits(self._requests, 1.0, now) and _fits(self._tokens, tokens, now):
                _enter(self._requests, 1.0)
                _enter(self._tokens, tokens)
                self._waiting.pop(who, None)
                return 0.0
            return self._queue(who, now, self._poll_s)

    def pay_ahead(self, who: object) -> tuple[float, float]:
        """Pay half a burst of tokens, if that fits; returns what was paid, and the seconds after which to ask again.

        The place in the queue stays until the request has passed.
        """
        with self._lock:
            now, half = self._clock(), self.token_burst / 2
            paid = half if self._is_turn_of(who, now) and _fits(self._tokens, half, now) else 0.0
            _enter(self._tokens, paid)
            period_s = 0.0 if self._tokens is None else self._tokens.period_s
            return paid, self._queue(who, now, max(MIN_POLL_S, SLICE_POLLS * POLL_SHARE * period_s))

    def _is_turn_of(self, who: object, now: float) -> bool:
        """Whether nobody waits for longer."""
        self._waiting = {each: (place, until) for each, (place, until) in self._waiting.items() if until >= now}
        first = min(self._waiting.values(), default=None)
        return first is None or self._waiting.get(who) == first

    def _queue(self, who: object, now: float, wait_s: float) -> float:
        place = self._waiting[who][0] if who in self._waiting else next(self._tickets)
        self._waiting[who] = (place, now + PLACE_POLLS * wait_s + PLACE_S)
        return wait_s


class _Bucket:
    """Holds one burst and leaks at the rate. aiolimiter's belongs to one event loop, and this one to none."""

    def __init__(self, per_minute: float) -> None:
        self._per_second = per_minute / 60
        self.burst = max(1.0, self._per_second * BURST_S)
        self.period_s = self.burst / self._per_second  # in which a full bucket empties
        self._looked_at = -math.inf
        self.level = 0.0

    def leak(self, now: float) -> None:
        """Let go what has leaked since the last look. Clocks of two loops may differ by a moment."""
        if now > self._looked_at:
            self.level = max(0.0, self.level - (now - self._looked_at) * self._per_second)
            self._looked_at = now


def _fits(bucket: _Bucket | None, amount: float, now: float) -> bool:
    if bucket is None:
        return True
    bucket.leak(now)
    return bucket.level + amount <= bucket.burst


def _enter(bucket: _Bucket | None, amount: float) -> None:
    if bucket is not None:
        bucket.level += amount


class SharedBudget:
    """US dollars under one cap, over several runs. For any thread."""

    def __init__(self, cap: Decimal) -> None:
        self._cap = cap
        self._lock = threading.Lock()
        self._taken = NOTHING  # spent, or set aside
        self._in_flight = 0
        self._left_behind: dict[tuple[str, int], Decimal] = {}

    @property
    def left(self) -> Decimal:
        """What is neither spent nor set aside; below 0 where a bill passed its reservation."""
        with self._lock:
            return ROUNDING.subtract(self._cap, self._taken)

    @property
    def is_any_in_flight(self) -> bool:
        """Whether a request of some run is under way, and so may turn out to cost less than was set aside for it."""
        with self._lock:
            return self._in_flight > 0

    def reserve(self, amount: Decimal) -> bool:
        """Set an amount aside, or return False and set nothing aside where that would pass the cap."""
        with self._lock:
            taken = EXACT.add(self._taken, amount)
            if taken > self._cap:
                return False
            self._taken = taken
            return True

    def settle(self, reserved: Decimal, actual: Decimal) -> None:
        """Give back a reservation and book what it really came to."""
        with self._lock:
            self._taken = EXACT.add(EXACT.subtract(self._taken, reserved), actual)

    def count_in_flight(self, change: int) -> None:
        """So many requests more are under way, or fewer."""
        with self._lock:
            self._in_flight += change

    def begin(self, run_id: str, session: int, found: Decimal) -> None:
        """A run begins the session of this number and has found these possible charges.

        Those that the session before left behind here count already.
        """
        with self._lock:
            known = self._left_behind.pop((run_id, session - 1), NOTHING)
            self._taken = EXACT.add(self._taken, max(NOTHING, EXACT.subtract(found, known)))

    def end(self, run_id: str, session: int, given_up: Decimal) -> None:
        """A run ends this session, with so much set aside for requests that it gave up: it stays booked."""
        with self._lock:
            self._left_behind[run_id, session] = given_up


def _per_minute(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UsageError(f"Limits: {name}: {value!r} is no limit; give a number above 0.")
    return float(value)


def _amount(value: Decimal | float | str) -> Decimal:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal("NaN")
    if isinstance(value, bool) or not amount.is_finite() or amount < 0:
        raise UsageError(f'Limits: max_cost_usd: {value!r} is no amount; give US dollars, such as 5 or "0.50".')
    return amount
