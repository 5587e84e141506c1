"""How a limit is divided among owners, so that what they may use together never passes it. Pure, told the time.

What an owner was given counts until its lease has ended, or until it says that it has a newer one: only then another
owner gets it. A share follows what an owner can use: the rows that it could send, and how fast it has sent of late.
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from cometbatch.control.coordination.messages import Report

MORE: Final = 1.25
"""Times what an owner sends that it may want: so that one whose share holds it back shows that it does."""

ROWS_S: Final = 1.0
"""Seconds in which rows that wait could be sent."""

MIN_SPAN_S: Final = 0.05
"""Seconds between two reports, at least, that a rate is told from."""


class _Given(Struct):
    number: int
    amount: float
    ends_at: float


class Divided:
    """One amount, parts of which are lent to owners for a time."""

    def __init__(self, total: float) -> None:
        self.total = total
        self._given: dict[int, deque[_Given]] = {}

    def held(self, owner: int, now: float) -> float:
        """The most that an owner may use at this moment, whichever of its leases has reached it."""
        given = self._given.get(owner, ())
        return max((each.amount for each in given if each.ends_at > now), default=0.0)

    def free_for(self, owner: int, now: float) -> float:
        """What no other owner may use."""
        return max(0.0, self.total - math.fsum(self.held(each, now) for each in self._given if each != owner))

    def give(self, owner: int, number: int, amount: float, ends_at: float) -> None:
        """Lend a part with the lease of this number, in place of what was lent before."""
        given = self._given.setdefault(owner, deque())
        while given and given[0].amount <= amount and given[0].ends_at <= ends_at:
            given.popleft()  # the newer one counts for as much and as long
        given.append(_Given(number, amount, ends_at))

    def confirm(self, owner: int, number: int, now: float) -> None:
        """The owner has the lease of this number, and uses no older one."""
        given = self._given.get(owner, deque())
        while given and (given[0].number < number or given[0].ends_at <= now):
            given.popleft()

    def drop(self, owner: int) -> None:
        """The owner uses nothing any more."""
        self._given.pop(owner, None)


class Demand:
    """What an owner can use, in requests a second: infinite until it has said anything.

    `now`: when it began, or was first heard of; `sent`: what it had sent by then.
    """

    def __init__(self, now: float, sent: int = 0) -> None:
        self.per_s = math.inf
        self.sent_per_s = 0.0
        self.sent = self._sent_before = sent
        self._since = now

    def heard(self, sent: int, waiting: int, now: float) -> None:
        """The owner's word: requests that it has sent since it began, and calls that wait now."""
        self.sent = max(self.sent, sent)
        if now - self._since >= MIN_SPAN_S:
            self.sent_per_s = (self.sent - self._sent_before) / (now - self._since)
            self._since, self._sent_before = now, self.sent
        self.per_s = MORE * self.sent_per_s + waiting / ROWS_S


def divide(total: float, demands: Mapping[int, float]) -> dict[int, float]:
    """Shares of an amount: nobody gets more than it can use while another could use it, and what is left is for all."""
    shares: dict[int, float] = {}
    left = total
    rest = sorted(demands, key=lambda owner: (demands[owner], owner))
    while rest and demands[rest[0]] * len(rest) <= left:
        owner = rest.pop(0)
        shares[owner] = demands[owner]
        left -= demands[owner]
    if rest:
        return shares | dict.fromkeys(rest, left / len(rest))
    return {owner: share + left / len(shares) for owner, share in shares.items()}


def total_sent(report: Report) -> int:
    """Requests that an owner has sent, of all models."""
    return sum(each.sent for each in report.queues)
