"""What each owner may use of the run's limits on requests, tokens and requests in flight. Pure, told the time."""

import math
from collections.abc import Collection
from typing import Final

from msgspec import Struct

from cometbatch.control.coordination.messages import Report, lease_s
from cometbatch.control.coordination.pace import REPORTS_PER_S, report_s
from cometbatch.control.coordination.settings import Settings
from cometbatch.control.coordination.shares import Demand, Divided, divide, total_sent
from cometbatch.control.coordination.turns import BELOW_PER_S, Turns

CONFIRM_S: Final = 0.05
"""Seconds after which an owner asks again whose share has changed, or waits for others' to change: until it says that
it has its new lease, nobody else gets what it gave up."""

SAME: Final = 0.01
"""Share of a share. A smaller change is none."""

JOIN_S: Final = 5.0
"""Seconds in which owners are expected that are not there: at the beginning, and after one was lost. Their part of the
requests in flight is kept free meanwhile, and who is there asks again soon, so that they need not wait for theirs of
the rate."""


class RateShare(Struct, frozen=True):
    """What a lease says of the limits; as in `messages.Lease`."""

    requests_per_s: float | None
    turns: int | None
    tokens_per_s: float | None
    ceiling: int
    ask_again_s: float


class _Asked(Struct):
    """One owner's renewal: its lease, and when it should ask again."""

    owner: int
    number: int
    ends_at: float
    now: float
    again_s: list[float]


class Rates:
    """The limits of the whole run."""

    def __init__(self, settings: Settings) -> None:
        requests, tokens = settings.requests_per_minute, settings.tokens_per_minute
        is_low = requests is not None and requests / 60 < BELOW_PER_S
        self._turns = Turns(requests / 60) if requests is not None and is_low else None
        self._requests = None if requests is None or is_low else Divided(requests / 60)
        self._tokens = None if tokens is None else Divided(tokens / 60)
        self._slots = Divided(settings.concurrency)
        self._settings = settings
        self._demands: dict[int, Demand] = {}
        self._waiting: dict[int, int] = {}
        self._in_flight: dict[int, int] = {}
        self._all_until = -math.inf  # until when as many owners as there are meant to be are expected

    def join(self, owner: int, now: float) -> None:
        """An owner begins."""
        self._demands[owner] = Demand(now)

    def expect_all(self, now: float) -> None:
        """Owners begin, or one was lost and another will come in its place."""
        self._all_until = now + JOIN_S

    def heard(self, owner: int, report: Report, now: float) -> None:
        """An owner's word, later than its last one."""
        self._waiting[owner] = sum(each.waiting for each in report.queues)
        self._in_flight[owner] = sum(each.in_flight for each in report.queues)
        sent = total_sent(report)
        self._demands.setdefault(owner, Demand(now, sent)).heard(sent, self._waiting[owner], now)

    def confirm(self, owner: int, number: int, now: float) -> None:
        """The owner has the lease of this number."""
        for each in self._divided():
            each.confirm(owner, number, now)

    def drop(self, owner: int) -> None:
        """The owner sends no more."""
        for each in self._divided():
            each.drop(owner)
        for kept in (self._demands, self._waiting, self._in_flight):
            kept.pop(owner, None)
        if self._turns is not None:
            self._turns.drop(owner)

    def share(self, owner: int, number: int, ends_at: float, now: float, living: Collection[int]) -> RateShare:
        """What an owner may use with the lease of this number. `living`: who has a lease, this one included."""
        demands = {each: self._demands.setdefault(each, Demand(now)) for each in living}
        asked = _Asked(owner, number, ends_at, now, [lease_s(len(living)) / 3])
        if self._settings.adaptive:
            asked.again_s.append(report_s(len(living)))
        if now < self._all_until and len(living) < self._settings.owners:
            asked.again_s.append(max(CONFIRM_S, len(living) / REPORTS_PER_S))
        requests = _lend(self._requests, asked, {each: demand.per_s for each, demand in demands.items()})
        tokens = _lend(self._tokens, asked, self._wanted_tokens(demands))
        turns = None
        if self._turns is not None:
            is_waiting = self._waiting.get(owner, 1) > 0
            turns, wait_s = self._turns.ask(owner, demands[owner].sent, now, is_waiting=is_waiting)
            asked.again_s.append(wait_s)
        ceiling = self._ceiling(asked, living)
        return RateShare(requests, turns, tokens, ceiling, min(asked.again_s))

    def _wanted_tokens(self, demands: dict[int, Demand]) -> dict[int, float]:
        """Tokens a second that owners can use, as if what is sent took the whole limit."""
        sent_per_s = math.fsum(each.sent_per_s for each in demands.values())
        if self._tokens is None or not sent_per_s:
            return dict.fromkeys(demands, math.inf)
        return {owner: each.per_s * self._tokens.total / sent_per_s for owner, each in demands.items()}

    def _ceiling(self, asked: _Asked, living: Collection[int]) -> int:
        """Requests that an owner may have in flight, by how many it has and wants."""
        owner, now, concurrency = asked.owner, asked.now, self._settings.concurrency
        wanted = {each: self._wanted_slots(each, now) for each in living}
        if now < self._all_until:  # others are on their way
            wanted |= dict.fromkeys(range(-1, len(living) - self._settings.owners - 1, -1), math.inf)
        shares = {each: int(share + 1e-9) for each, share in divide(concurrency, wanted).items()}
        over = sorted(shares, reverse=True)[: concurrency - sum(shares.values())]  # that no whole share is left of
        target = shares[owner] + (owner in over)
        others = sum(
            max(int(self._slots.held(each, now)), self._in_flight.get(each, 0)) for each in living if each != owner
        )
        ceiling = max(0, min(target, concurrency - others))
        is_less = ceiling < self._slots.held(owner, now)
        self._slots.give(owner, asked.number, ceiling, asked.ends_at)
        if ceiling < target or is_less:
            asked.again_s.append(max(CONFIRM_S, len(living) / REPORTS_PER_S))
        return ceiling

    def _wanted_slots(self, owner: int, now: float) -> float:
        """How many requests an owner could have in flight; infinite where it has as many as it may."""
        in_flight = self._in_flight.get(owner)
        if in_flight is None or in_flight >= self._slots.held(owner, now):
            return math.inf
        return max(1, in_flight + self._waiting[owner])

    def _divided(self) -> list[Divided]:
        return [each for each in (self._requests, self._tokens, self._slots) if each is not None]


def _lend(amount: Divided | None, asked: _Asked, demands: dict[int, float]) -> float | None:
    """A share of an amount, by what each owner can use of it."""
    if amount is None:
        return None
    target, held = divide(amount.total, demands)[asked.owner], amount.held(asked.owner, asked.now)
    share = min(target, amount.free_for(asked.owner, asked.now))
    amount.give(asked.owner, asked.number, share, asked.ends_at)
    if share < target * (1 - SAME) or share < held * (1 - SAME):
        asked.again_s.append(max(CONFIRM_S, len(demands) / REPORTS_PER_S))
    return share
