"""Money that owners may spend: granted little by little, so that all of them together never pass the cap. Pure.

The law: what was spent, and what may still be spent under grants, never passes the cap. A grant is a sum since the
owner joined; what it has spent and set aside stays below it. A grant counts at its largest until the owner says that it
has a smaller one: its word says, too, what it had taken by then, and it can't have taken more since.

What an owner that is lost could have spent counts as spent, until each range that it had is accounted for: by whoever
reads its journal there, or by the parts that it had announced.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from cometbatch.control.budget import Budget
from cometbatch.control.coordination.messages import Report, StopWords
from cometbatch.money.exact import EXACT, ROUNDING

AHEAD_S: Final = 2.0
"""Seconds of spending that a grant is large enough for. More ties up money that others need near the cap; less has
owners wait for an answer."""

ACCOUNT_S: Final = 10.0
"""Seconds for which a run that is out of money waits for what lost owners did not spend."""

MIN_SPAN_S: Final = 0.2
"""Seconds between two reports, at least, that the speed of spending is told from."""

NO_RANGE: Final = -1
"""In the place of a range that is never accounted for."""

_NOTHING: Final = Decimal(0)
_STEP: Final = Decimal("1e-12")
"""US dollars: amounts that are no sums of costs are rounded down to whole ones of these."""


class _Purse:
    """What one owner may spend and has spent, in US dollars, since it joined."""

    def __init__(self) -> None:
        self.granted: dict[int, Decimal] = {0: _NOTHING}  # by number of the lease that told it; none is older than
        # the one that the owner is known to have
        self.written = _NOTHING  # what is known of it to a coordinator that takes this one's place
        self.report = Report()
        self.per_s = _NOTHING  # speed of spending
        self.heard_at = math.inf
        self.is_short = False
        self.final: Decimal | None = None  # what it has spent, once that is known for good
        self.ranges: frozenset[int] = frozenset()  # that it had when it was lost
        self.open: set[int] | None = None  # of these, those that are not accounted for
        self.parts: dict[int, dict[int, Decimal]] = {}  # booked for parts: by range and number
        self.closed = _NOTHING  # booked for parts of ranges that it has closed
        self.found: dict[int, Decimal] = {}

    @property
    def taken(self) -> Decimal:
        """Spent or set aside, by its own last word."""
        return EXACT.add(self.report.spent_usd, self.report.reserved_usd)

    @property
    def counted(self) -> Decimal:
        """What counts towards the cap: as much as it could spend, until it is known what it has spent."""
        if self.final is not None:
            return self.final
        if self.open or self.open is None:
            return max(self.taken, *self.granted.values())
        return EXACT.add(self.closed, EXACT.add(_sum(self.found), _sum_of_parts(self.parts)))

    @property
    def newest(self) -> Decimal:
        """What it was told last."""
        return self.granted[max(self.granted)]

    @property
    def is_known(self) -> bool:
        """Whether it is known for good what it has spent."""
        return self.final is not None or (self.open is not None and not self.open)


class Grants:
    """Who may spend how much. `cap`, `spent`: US dollars, of the run; `spent` by earlier sessions.

    `owners`: how many there are meant to be at a time.
    """

    def __init__(self, cap: Decimal, spent: Decimal, owners: int) -> None:
        self._cap = cap
        self._before = spent
        self._owners = owners
        self._purses: dict[int, _Purse] = {}
        self._blocked_at = math.inf
        self._is_exact = True

    @property
    def left(self) -> Decimal:
        """Neither spent nor granted; below 0 where bills passed what was set aside for them."""
        return ROUNDING.subtract(self._cap, self._counted())

    @property
    def spent(self) -> Decimal:
        """By all owners of this session: by their word, and of lost ones what they can have spent at most."""
        return _sum(
            {
                owner: purse.counted if purse.is_known or purse.open else purse.report.spent_usd
                for owner, purse in self._purses.items()
            }
        )

    @property
    def is_any_short(self) -> bool:
        """Whether an owner needs more than can be granted now, so that the budget holds calls back."""
        return any(each.is_short for each in self._purses.values())

    def join(self, owner: int) -> None:
        """An owner begins."""
        self._purses.setdefault(owner, _Purse())

    def restore(self, owner: int, usd: Decimal) -> None:
        """What counts of an owner, as an earlier coordinator wrote it down, in US dollars."""
        purse = self._purses[owner]
        purse.granted, purse.written = {0: usd}, usd

    def heard(self, owner: int, lease: int, report: Report, now: float) -> None:
        """An owner's word: what it has taken, by the lease of this number."""
        purse = self._purses[owner]
        span = now - purse.heard_at
        if span >= MIN_SPAN_S:
            spent = ROUNDING.subtract(report.spent_usd, purse.report.spent_usd)
            purse.per_s = ROUNDING.divide(max(spent, _NOTHING), Decimal(span))
        if span >= MIN_SPAN_S or purse.heard_at == math.inf:
            purse.heard_at = now
        purse.report = report
        newest = max((number for number in purse.granted if number <= lease), default=0)
        purse.granted = {number: usd for number, usd in purse.granted.items() if number >= newest}

    def told(self, owner: int) -> Decimal:
        """What an owner was told last that it is granted."""
        return self._purses[owner].newest

    def to_write(self, owner: int) -> Decimal | None:
        """What counts towards the cap of an owner, to be written down; None where it is what was written last."""
        purse = self._purses[owner]
        if purse.counted == purse.written:
            return None
        purse.written = purse.counted
        return purse.written

    def grant(self, owner: int, number: int, living: int) -> tuple[Decimal, bool]:
        """What the lease of this number grants, since the owner joined; and whether it gets less than it needs."""
        purse = self._purses[owner]
        wanted = purse.report.wanted_usd or _NOTHING
        most = EXACT.add(purse.counted, max(_NOTHING, self.left).quantize(_STEP, ROUND_FLOOR, ROUNDING))
        room = ROUNDING.subtract(most, purse.taken)
        purse.is_short = room < wanted
        ahead = _NOTHING if purse.is_short else min(room, self._ahead(purse, wanted, living))
        usd = max(_NOTHING, EXACT.add(purse.taken, ahead))
        if usd != purse.newest:
            purse.granted[number] = usd
        return usd, purse.is_short

    def commit(self, owner: int, range_: int, index: int, usd: Decimal) -> None:
        """An owner announces a part, with what it has booked for it, in US dollars.

        What another owner announced of the same partition counts no more: its part was never made.
        """
        for other, purse in self._purses.items():
            if other != owner and range_ in purse.parts:
                purse.parts[range_].pop(index, None)
        self._purses[owner].parts.setdefault(range_, {})[index] = usd

    def close(self, owner: int, range_: int) -> None:
        """An owner is through with a range; so is whoever had it before."""
        for each, purse in self._purses.items():
            if each == owner:
                purse.closed = EXACT.add(purse.closed, _sum(purse.parts.pop(range_, {})))
            elif purse.open and range_ in purse.open:
                purse.open.discard(range_)

    def found(self, owner: int, range_: int, usd: Decimal) -> None:
        """What a lost owner had booked in a range, without its parts, marks at their most. The last word counts."""
        purse = self._purses.get(owner)
        if purse is not None and purse.open is not None and range_ in purse.ranges:
            purse.found[range_] = usd
            purse.open.discard(range_)

    def lost(self, owner: int, ranges: Collection[int]) -> None:
        """An owner is lost, and had these ranges."""
        purse = self._purses[owner]
        purse.ranges, purse.is_short = frozenset(ranges), False
        purse.open = set(ranges) if self._is_exact else {*ranges, NO_RANGE}

    def left_by(self, owner: int, spent: Decimal) -> None:
        """An owner has ended in order; `spent`: by then, in US dollars."""
        purse = self._purses[owner]
        purse.final, purse.is_short = spent, False
        purse.parts.clear()

    def be_inexact(self) -> None:
        """A model's calls were set aside: no part tells what they cost, so a lost owner's grant stays spent."""
        self._is_exact = False
        for purse in self._purses.values():
            if purse.open:
                purse.open.add(NO_RANGE)

    def reason_to_stop(self, now: float, living: Collection[int], *, are_others_silent: bool) -> StopWords | None:
        """Why the run stops, where nobody can send its next call, and nothing that is under way gives money back.

        `are_others_silent`: there are owners that are neither living nor known to have ended.
        """
        short = [self._purses[each].report.wanted_usd or _NOTHING for each in living if self._purses[each].is_short]
        if not short or self.left >= (smallest := min(short)) or _may_get_back(self._purses[each] for each in living):
            self._blocked_at = math.inf
            return None
        self._blocked_at = min(self._blocked_at, now)
        unaccounted = _sum(dict(enumerate(self._unaccounted(living))))
        may_wait = are_others_silent or EXACT.add(self.left, unaccounted) >= smallest
        if unaccounted and may_wait and now - self._blocked_at < ACCOUNT_S:
            return None
        words = Budget(self._cap, self._counted()).describe(smallest)
        return StopWords("budget", words, words, "Raise budget.max_cost_usd to resume.", "budget", smallest)

    def _unaccounted(self, living: Collection[int]) -> Iterator[Decimal]:
        """What owners may not have spent of their grants that are lost, or silent."""
        for owner, purse in self._purses.items():
            if owner not in living and not purse.is_known:
                yield ROUNDING.subtract(purse.counted, purse.report.spent_usd)

    def _ahead(self, purse: _Purse, wanted: Decimal, living: int) -> Decimal:
        """What an owner is granted beyond what it has taken."""
        if self.is_any_short:
            return wanted  # nobody keeps what another needs
        own = EXACT.subtract(purse.counted, purse.taken)
        share = ROUNDING.divide(max(_NOTHING, ROUNDING.add(self.left, own)), Decimal(2 * max(living, self._owners)))
        busy = max(ROUNDING.multiply(Decimal(AHEAD_S), purse.per_s), purse.report.reserved_usd if wanted else _NOTHING)
        ahead = max(wanted, min(share, busy).quantize(_STEP, ROUND_FLOOR, ROUNDING))
        has = ROUNDING.subtract(purse.newest, purse.taken)
        return has if max(wanted, ROUNDING.divide(ahead, Decimal(2))) <= has <= 2 * ahead else ahead

    def _counted(self) -> Decimal:
        return ROUNDING.add(self._before, _sum({owner: purse.counted for owner, purse in self._purses.items()}))


def _may_get_back(purses: Iterable[_Purse]) -> bool:
    return any(each.report.is_money_in_flight or each.counted > each.taken for each in purses)


def _sum(amounts: Mapping[int, Decimal]) -> Decimal:
    total = _NOTHING
    for each in amounts.values():
        total = EXACT.add(total, each)
    return total


def _sum_of_parts(parts: Mapping[int, Mapping[int, Decimal]]) -> Decimal:
    total = _NOTHING
    for each in parts.values():
        total = EXACT.add(total, _sum(each))
    return total
