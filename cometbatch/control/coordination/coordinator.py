"""Who may work on what, how fast, for how long and for how much money: the one place where owners of a run agree.

A state machine that is told the time. It knows neither processes nor how messages travel.
"""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from cometbatch.control.coordination import written
from cometbatch.control.coordination.messages import (
    MARGIN,
    Claim,
    Claimed,
    Commit,
    Drive,
    Driven,
    Found,
    Join,
    Lease,
    Leave,
    News,
    Pushback,
    Renew,
    Reply,
    Request,
    Resume,
    StopOrder,
    Stopping,
    Verdict,
    Watch,
    lease_s,
)
from cometbatch.control.coordination.owners import Owner
from cometbatch.control.coordination.presence import Presence
from cometbatch.control.coordination.rates import RateShare
from cometbatch.control.coordination.roster import Roster
from cometbatch.control.coordination.settings import Settings
from cometbatch.records import Tally

ASK_AGAIN_S: Final = 0.1
"""Seconds after which an owner asks again that got nothing, since nothing is granted at present."""

IDLE_S: Final = 0.2
"""Seconds after which an owner asks for work again, while all that is left is others'."""

SILENT_LEASES: Final = 2.0
"""Lengths of a lease for which an owner is silent after its last one has ended, before its ranges go to others that
have other work. Where they have none, they need not wait: a process that stands still for a moment goes on later."""

IDLE_SILENT_S: Final = 10.0
"""Seconds after its last lease, from which on a silent owner that has no range is taken for lost."""

BUDGET: Final = "budget"
"""What a queue says that it waits for where its next call has no room in what is granted."""

NO_SHARE: Final = RateShare(0.0, None, 0.0, 0, ASK_AGAIN_S)
"""What a lease says that is not valid."""


class Coordinator:
    """All owners of one session of a run.

    `now` is in seconds, on one clock that never goes back and counts the time in which the machine was suspended.
    """

    def __init__(
        self,
        settings: Settings,
        ranges: Sequence[int],
        add: Callable[[Tally, Tally], Tally],
        *,
        lines: Iterable[bytes] | None = None,
    ) -> None:
        """`ranges`: those that are due, ascending; a `range` will do. `add`: `results.tallies.add`.

        `lines`: what an earlier coordinator of this session wrote down, where this one takes its place (there may be
        none); None where this one is the first.
        """
        self._roster = Roster(settings, ranges, add, lines)
        self._owners, self._claims, self._leases = self._roster.owners, self._roster.claims, self._roster.leases
        self._rates, self._hearing, self._grants = self._roster.rates, self._roster.hearing, self._roster.grants
        owners = max(settings.owners, len(list(self._owners.here())))
        self._presence = Presence(0.0 if lines is None else MARGIN * lease_s(owners))

    @property
    def news(self) -> int:
        """Number of the newest news."""
        return self._hearing.news

    def handle(self, request: Request, now: float) -> Reply:
        """Answer an owner."""
        self._look(now)
        owner = self._owners[request.owner] if request.owner in self._owners else self._roster.join(request.owner, now)
        owner.heard_at = now
        match request:
            case Join():
                return self._lease(owner, now)
            case Renew():
                return self._renew(owner, request, now)
            case Claim():
                return self._claim(owner, request, now)
            case Watch():
                return self._hearing.news_for(owner.number, now, is_lost=owner.is_gone)
            case Leave():
                self._roster.leave(owner, request, now)
                return Verdict(owner.is_lost)
            case _:
                return Verdict(not self._note(owner, request, now))

    def drive(self, word: Drive, now: float) -> Driven:
        """Answer the driver."""
        self._look(now)
        self._presence.driver_spoke(word.heard, now)
        self._presence.answered_driver(now)
        self._owners.known_gone(word.gone)
        for order in word.stops:
            self._roster.stop(order)
        self.tick(now)
        driven = self._owners.drive(word, now)
        is_over = self._claims.is_over and not any(self._owners.here())
        is_short = self._grants is not None and self._grants.is_any_short
        return msgspec.structs.replace(
            driven,
            waiting_for=driven.waiting_for if is_short else _beside_budget(driven.waiting_for),
            spent_usd=None if self._grants is None else self._grants.spent,
            per_s=self._hearing.per_s(),
            stops=self._hearing.stops.at_end if is_over else self._hearing.stops.orders,
            is_over=is_over,
            at=now,
        )

    def tick(self, now: float) -> None:
        """Notice what time alone changes. Called ten times a second: a longer gap is taken for a pause of ours."""
        self._look(now)
        living = self._roster.living(now)
        if self._presence.may_judge(now, lease_s(len(living))):
            for owner in list(self._owners.here()):
                is_over = owner.is_known_gone or now - self._leases.ends_at(owner.number) >= IDLE_SILENT_S
                if owner.number not in living and is_over and not self._claims.held(owner.number):
                    self._roster.lose(owner, now)
        if self._grants is not None and not self._hearing.stops.is_stopped:
            is_silent = any(each.number not in living and not each.is_known_gone for each in self._owners.here())
            words = self._grants.reason_to_stop(now, living, are_others_silent=is_silent)
            if words is not None:
                self._roster.stop(StopOrder(words))

    def news_beyond(self, seen: int, owner: int, now: float) -> News | None:
        """What an owner has not seen yet; None where that is nothing."""
        if seen >= self.news or owner not in self._owners:
            return None
        return self._hearing.news_for(owner, now, is_lost=self._owners[owner].is_gone)

    def unwritten(self) -> list[bytes]:
        """Lines to be written down, in order, before what was answered last is sent; each is returned once."""
        lines, self._roster.lines = self._roster.lines, []
        return lines

    def _look(self, now: float) -> None:
        if self._presence.look(now):
            self._rates.expect_all(now)

    def _renew(self, owner: Owner, request: Renew, now: float) -> Lease:
        if not owner.is_gone:
            if request.number > owner.renewed:
                owner.renewed = request.number
                self._owners.heard(owner, request.report)
                self._rates.heard(owner.number, request.report, now)
                self._hearing.hear(owner.number, request.report, now)
                if self._grants is not None:
                    self._grants.heard(owner.number, request.lease, request.report, now)
            self._leases.known(request.lease)
            self._rates.confirm(owner.number, request.lease, now)
            self._roster.close(owner, request.closed)
        return self._lease(owner, now)

    def _lease(self, owner: Owner, now: float) -> Lease:
        """What an owner may do from now on."""
        if owner.is_gone:
            return Lease(self._leases.issue(owner.number, now, 0.0), ceiling=0, is_lost=True)
        if self._presence.may_grant(now):
            living = {*self._roster.living(now), owner.number}
            valid_s = lease_s(len(living))
            number = self._leases.issue(owner.number, now, valid_s)
            share = self._rates.share(owner.number, number, self._leases.ends_at(owner.number), now, living)
            usd, is_short = self._granted(owner.number, number, len(living))
            ask_again_s = min(share.ask_again_s, ASK_AGAIN_S) if is_short else share.ask_again_s
        else:
            number, valid_s, share, ask_again_s = self._leases.issue(owner.number, now, 0.0), 0.0, NO_SHARE, ASK_AGAIN_S
            usd = None if self._grants is None else self._grants.told(owner.number)
        self.tick(now)
        return Lease(
            number,
            valid_s,
            share.requests_per_s,
            share.turns,
            share.tokens_per_s,
            ask_again_s,
            share.ceiling,
            usd,
            self._hearing.told(owner.number, now),
            self._hearing.stops.orders,
            owner.is_gone,
        )

    def _granted(self, owner: int, number: int, living: int) -> tuple[Decimal | None, bool]:
        """Money that a lease grants, which is written down; and whether it is less than the owner needs."""
        if self._grants is None:
            return None, False
        usd, is_short = self._grants.grant(owner, number, living)
        if (counted := self._grants.to_write(owner)) is not None:
            self._roster.write(written.Granted(owner, counted))
        return usd, is_short

    def _claim(self, owner: Owner, request: Claim, now: float) -> Claimed:
        if owner.is_gone:
            return Claimed(is_lost=True)
        self._roster.close(owner, request.closed)
        if self._claims.is_over or self._hearing.stops.is_stopped:
            return Claimed(is_over=True)
        if (again := self._claims.again(owner.number, request.after)) is not None:
            return Claimed((again,))
        if not self._presence.may_grant(now) or not self._leases.is_valid(owner.number, now):
            return Claimed(ask_again_s=ASK_AGAIN_S)
        self._take_over(now)
        assigned = self._claims.claim(owner.number, request.after, is_short=request.is_short)
        if assigned is None:
            if owner.idle_from is None and not request.is_short:
                owner.idle_from = owner.renewed
            return Claimed(is_over=self._owners.are_at_rest, ask_again_s=IDLE_S)
        owner.idle_from = None
        self._roster.write(written.Given(owner.number, assigned.range))
        return Claimed((assigned,))

    def _take_over(self, now: float) -> None:
        """Free what owners have whose leases have ended, where somebody needs work or they are silent for long."""
        length_s = lease_s(len(self._roster.living(now)))
        if not self._presence.may_judge(now, length_s):
            return
        silent = [each for each in self._owners.here() if self._claims.held(each.number)]
        for each in sorted(silent, key=lambda each: self._leases.ends_at(each.number)):
            for_s = now - self._leases.ends_at(each.number)
            is_over = each.is_known_gone or for_s >= SILENT_LEASES * length_s or not self._claims.has_free
            if for_s >= 0 and is_over:
                self._roster.lose(each, now)

    def _note(self, owner: Owner, request: Commit | Found | Pushback | Resume | Stopping, now: float) -> bool:
        """Take note of what an owner says; returns whether it may go on."""
        if owner.is_gone:
            return False
        match request:
            case Commit():
                holder = self._claims.holder(request.range)
                if holder not in (None, owner.number):
                    return False
                if self._grants is not None and holder is not None:  # else it was closed by now, and counts already
                    self._grants.commit(owner.number, request.range, request.index, request.spent_usd)
                    self._roster.write(written.Announced(owner.number, request.range, request.index, request.spent_usd))
            case Found():
                if self._grants is not None:
                    self._grants.found(request.earlier, request.range, request.spent_usd)
                    self._roster.write(written.Accounted(request.earlier, request.range, request.spent_usd))
            case Pushback():
                self._hearing.pushback(request, now)
            case Resume():
                self._hearing.resume(request, now)
            case _:
                self._roster.stop(request.order)
        return True


def _beside_budget(words: str) -> str:
    """What is waited for, without the next small grant, which comes in a moment."""
    return "; ".join(each for each in words.split("; ") if each != BUDGET and not each.endswith(f": {BUDGET}"))
