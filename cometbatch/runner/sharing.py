"""What the queues of a run share, above all its slots, which they take in turn.

Guards: at no time are more requests in flight than there are slots. No model waits for another: each queue is sure of
its share, an equal part of the slots and one at least. What a queue may want of its share before long is kept free for
it, so a model that hangs holds no more than its own share and what no other wanted. What another has taken beyond its
share comes back as its requests end.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from cometbatch.control.attribution import Account
from cometbatch.control.budget import Budget
from cometbatch.runner.ports import (
    ExchangeResult,
    Marks,
    Observer,
    OtherOwners,
    Policy,
    RateLimits,
    Records,
    Service,
    Stop,
)
from cometbatch.runner.slots import Slot

BlockedBy: TypeAlias = Literal["", "budget", "limit", "first answers"]
"""Why a queue can't send its next call: the budget has no room for it, it does not fit yet into a limit of the run, or
none of the queue's answers was JSON yet."""


class Taker(Protocol):
    """A queue as the slots see it. `kept`: slots of its share that are kept free for it."""

    blocked_by: BlockedBy
    kept: int

    @property
    def in_flight(self) -> Collection[Slot]:
        """The slots that it has."""

    def wanted(self, now: float) -> int:
        """How many more requests it may send before long, as far as it is known now."""

    def send_next(self, now: float) -> bool:
        """Send one call, if there is one that may leave now. There has to be a free slot."""


class Shared(Struct, frozen=True):
    """What all queues of a run use.

    `in_flight_from`: how many requests of all queues are in flight that were sent from one time to another. `advance`
    is called when what a queue waits for is there. `stop` stops the run. `ended` is told when a queue has stopped by
    itself. `fail` takes the error of a source that has no more calls because of it.
    """

    service: Service
    policy: Policy
    limits: RateLimits
    budget: Budget | None
    records: Records
    marks: Marks
    observer: Observer
    others: OtherOwners
    now: Callable[[], datetime]
    jitter: Callable[[], float]
    slots: "SharedSlots"
    account: Account
    in_flight_from: Callable[[float, float], int]
    advance: Callable[[], None]
    stop: Callable[[Stop], None]
    ended: Callable[[], None]
    fail: Callable[[Exception], None]


class SharedSlots:
    """Hands out the slots. `advance` is called when what a queue waits for is there, and has to call `send_ready`."""

    def __init__(
        self, concurrency: int, arrive: Callable[[Slot, ExchangeResult], None], advance: Callable[[], None]
    ) -> None:
        self.free = [Slot(arrive) for _ in range(concurrency)]
        self.takers: list[Taker] = []  # those that still send; the turn is the first one's
        self._concurrency = self._ceiling = concurrency
        self._put_by: list[Slot] = []  # that are above the ceiling
        self._kept = 0  # free slots that are kept, of all shares
        self._advance = advance
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    @property
    def in_flight(self) -> int:
        """How many requests are in flight, of all queues."""
        return self._concurrency - len(self.free)

    def set_ceiling(self, ceiling: int) -> None:
        """How many requests may be in flight from now on, as far as there are slots. What is in flight is finished."""
        self._ceiling = min(ceiling, self._concurrency + len(self._put_by))
        while self._put_by and self._concurrency < self._ceiling:
            self.free.append(self._put_by.pop())
            self._concurrency += 1
        self._lower()

    def _lower(self) -> None:
        """Put by what is free above the ceiling."""
        while self.free and self._concurrency > self._ceiling:
            self._put_by.append(self.free.pop())
            self._concurrency -= 1

    def add(self, taker: Taker) -> None:
        """A queue that begins to send."""
        self.takers.append(taker)

    def remove(self, taker: Taker) -> None:
        """A queue that sends no more. Once the last one is gone, nobody is called any more."""
        self.takers = [each for each in self.takers if each is not taker]
        self._kept = 0
        for each in self.takers:
            each.kept = 0
        if not self.takers:
            self._end_timer()

    def send_ready(self, now: float) -> None:
        """Send what may leave now, one call of each queue in turn.

        A queue whose next call does not fit into a limit of the run keeps its turn: a large call, or a queue with few,
        would wait for ever if others took what had come together for it.
        """
        self._begin_round()
        takers, free, last = self.takers, self.free, None
        if len(takers) > 1:
            self._keep(now)
        for taker in takers:
            taker.blocked_by = ""
        if len(takers) == 1:  # the usual run: nobody to share with
            only = takers[0]
            while free and only.send_next(now):
                pass
            return
        ready = deque(takers)
        while free and ready:
            taker = ready[0]
            if self._kept and not self._may_take(taker):
                ready.popleft()
            elif taker.send_next(now):
                ready.rotate(-1)
                last = taker
                if taker.kept:
                    taker.kept -= 1
                    self._kept -= 1
            elif taker.blocked_by == "limit":
                for waiting in ready:
                    waiting.blocked_by = "limit"
                break
            else:
                ready.popleft()
        if len(self.takers) > 1:
            self._pass_turn(ready[0] if ready else None, last)

    def wake_in(self, wait_s: float) -> None:
        """Advance the run in this time, or sooner where somebody else waits for less. Infinite: nothing is waited for.

        What is waited for without a time tells of itself.
        """
        if wait_s == math.inf or not self.takers:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + wait_s
        if at < self._timer_at:
            self._end_timer()
            self._timer, self._timer_at = loop.call_later(wait_s, self._advance), at

    def _begin_round(self) -> None:
        if self._concurrency > self._ceiling:
            self._lower()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf

    @property
    def _share(self) -> int:
        return max(1, self._concurrency // max(1, len(self.takers)))

    def _keep(self, now: float) -> None:
        """See what each queue may want of its share."""
        share = self._share
        for taker in self.takers:
            taker.kept = max(0, min(share - len(taker.in_flight), taker.wanted(now)))
        self._kept = sum([taker.kept for taker in self.takers])

    def _may_take(self, taker: Taker) -> bool:
        """Whether a queue is within its share, or nobody else may want the slot."""
        return len(taker.in_flight) < self._share or len(self.free) > self._kept

    def _pass_turn(self, following: Taker | None, last: Taker | None) -> None:
        """The turn is the next one's; where nobody is left to send, it is that of the one after the last that has."""
        takers = self.takers
        if following in takers:
            first = takers.index(following)
        elif last in takers:
            first = takers.index(last) + 1
        else:
            return
        self.takers = takers[first:] + takers[:first]
