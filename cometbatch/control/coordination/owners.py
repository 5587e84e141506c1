"""Each owner of a session as the coordinator knows it, and what all of them have told. Pure."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec import Struct

from cometbatch.control.coordination.messages import Drive, Driven, ErrorWords, OwnerState, Report
from cometbatch.records import Tally

MAX_WORDS: Final = 1000
"""Sentences that are kept for a driver that does not come. Further ones are dropped."""


class Owner(Struct):
    """One owner. `renewed`: number of its newest renewal; `heard_at`: when it said anything last.

    `idle_from`: the number of its newest renewal when a claim got nothing, as all those since then.
    """

    number: int
    heard_at: float
    renewed: int = 0
    report: Report = Report()
    idle_from: int | None = None
    is_lost: bool = False
    has_left: bool = False
    is_known_gone: bool = False  # its process has ended, by the driver's word

    @property
    def is_gone(self) -> bool:
        """Whether it may never send again."""
        return self.is_lost or self.has_left

    @property
    def is_at_rest(self) -> bool:
        """Whether it has nothing to send, by a word that it said since it found no range.

        One whose process has ended may have died before it made a part of what it had: that is for others to do.
        """
        if self.is_known_gone or self.idle_from is None or self.renewed <= self.idle_from:
            return False
        return not any(each.in_flight or each.waiting for each in self.report.queues)


class Owners:
    """All of them. `add`: of two tallies."""

    def __init__(self, add: Callable[[Tally, Tally], Tally]) -> None:
        self._add = add
        self._owners: dict[int, Owner] = {}
        self._gone = Tally()  # of all that are no more
        self._outcomes: list[bytes] = []
        self._taken = 0  # outcomes that the driver has, and that are kept no longer
        self._words: list[str] = []
        self._committed: list[int] = []
        self.errors: list[ErrorWords] = []

    def __getitem__(self, number: int) -> Owner:
        return self._owners[number]

    def __contains__(self, number: int) -> bool:
        return number in self._owners

    def here(self) -> Iterator[Owner]:
        """Those that are not gone."""
        return (each for each in self._owners.values() if not each.is_gone)

    @property
    def are_at_rest(self) -> bool:
        """Whether none of those that are here has anything to send: what they still hold needs no further range."""
        return all(each.is_at_rest for each in self.here())

    def join(self, number: int, now: float) -> Owner:
        """An owner begins."""
        return self._owners.setdefault(number, Owner(number, now))

    def heard(self, owner: Owner, report: Report) -> None:
        """An owner's word, later than its last one."""
        owner.report = report
        self._outcomes.extend(report.outcomes)
        self._words.extend(report.words[: MAX_WORDS - len(self._words)])
        self._committed.extend(report.committed)

    def end(self, owner: Owner, *, is_lost: bool) -> None:
        """An owner is no more."""
        self._gone = self._add(self._gone, owner.report.recorded)
        owner.is_lost, owner.has_left = is_lost, not is_lost

    def known_gone(self, numbers: Iterable[int]) -> None:
        """Their processes have ended, as the driver says."""
        for each in numbers:
            if each in self._owners:
                self._owners[each].is_known_gone = True

    def drive(self, word: Drive, now: float) -> Driven:
        """What the driver is told of owners."""
        seen = max(0, word.seen_outcomes - self._taken)
        del self._outcomes[:seen]
        self._taken += seen
        words, self._words = tuple(self._words), []
        committed, self._committed = tuple(self._committed), []
        all_owners, here = list(self._owners.values()), list(self.here())
        recorded = self._gone
        for each in here:
            recorded = self._add(recorded, each.report.recorded)
        return Driven(
            owners=tuple(
                OwnerState(each.number, max(0.0, now - each.heard_at), each.is_lost, each.has_left)
                for each in all_owners
            ),
            recorded=recorded,
            outcomes=tuple(self._outcomes),
            in_flight=sum(map(_in_flight, here)),
            retries=sum(each.report.retries for each in all_owners),
            pushbacks=sum(each.report.pushbacks for each in all_owners),
            words=words,
            waiting_for=next((each.report.waiting_for for each in here if each.report.waiting_for), ""),
            largest_output_tokens=max((each.report.largest_output_tokens for each in all_owners), default=0),
            errors=tuple(self.errors),
            committed=committed,
            unanswered_s=max((each.report.unanswered_s for each in here), default=0.0),
        )


def _in_flight(owner: Owner) -> int:
    return sum(each.in_flight for each in owner.report.queues)
