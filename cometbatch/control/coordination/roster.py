"""The owners of a session, and all that is kept of each of them: it comes and goes as one. Pure, told the time."""

from collections.abc import Callable, Iterable, Sequence

from cometbatch.control.coordination import written
from cometbatch.control.coordination.claims import Claims
from cometbatch.control.coordination.grants import Grants
from cometbatch.control.coordination.hearing import Hearing
from cometbatch.control.coordination.leases import Leases
from cometbatch.control.coordination.messages import Leave, StopOrder
from cometbatch.control.coordination.owners import Owner, Owners
from cometbatch.control.coordination.rates import Rates
from cometbatch.control.coordination.replaying import replay
from cometbatch.control.coordination.settings import Settings
from cometbatch.money.exact import EXACT
from cometbatch.records import Tally


class Roster:
    """Who is here, with what. What must survive the coordinator is added to `lines`."""

    def __init__(
        self,
        settings: Settings,
        ranges: Sequence[int],
        add: Callable[[Tally, Tally], Tally],
        lines: Iterable[bytes] | None,
    ) -> None:
        """As `Coordinator` has them; `lines`: what an earlier coordinator wrote down."""
        cap = settings.budget_usd
        self.owners = Owners(add)
        self.claims = Claims(ranges, settings.owners)
        self.rates = Rates(settings)
        self.hearing = Hearing(settings)
        self.grants = None if cap is None else Grants(cap, settings.spent_usd, settings.owners)
        self.lines: list[bytes] = []
        before = replay(lines or (), self.owners, self.claims, self.grants, self.hearing)
        self.leases = Leases(before if lines is None else max(1, before))
        self.write(written.Began())

    def join(self, number: int, now: float) -> Owner:
        """An owner begins."""
        self.rates.join(number, now)
        self.hearing.join(number, now)
        if self.grants is not None:
            self.grants.join(number)
        self.write(written.Joined(number))
        return self.owners.join(number, now)

    def close(self, owner: Owner, ranges: Iterable[int]) -> None:
        """An owner is through with ranges; those that it does not have are passed over."""
        for each in self.claims.close(owner.number, ranges):
            if self.grants is not None:
                self.grants.close(owner.number, each)
            self.write(written.Closed(owner.number, each))

    def lose(self, owner: Owner, now: float) -> None:
        """An owner is refused from now on, and what it had is free."""
        ranges = self.claims.release(owner.number)
        if self.grants is not None:
            self.grants.lost(owner.number, ranges)
        self.rates.expect_all(now)
        self._end(owner, now, is_lost=True)
        self.write(written.Lost(owner.number))

    def leave(self, owner: Owner, request: Leave, now: float) -> None:
        """An owner has ended in order."""
        if request.error is not None and not owner.has_left:
            self.owners.errors.append(request.error)
        if owner.is_gone:
            return
        self.close(owner, request.closed)
        self.claims.release(owner.number)
        report = request.report
        self.owners.heard(owner, report)
        self.hearing.hear(owner.number, report, now)
        spent = EXACT.add(report.spent_usd, report.reserved_usd)
        if self.grants is not None:
            self.grants.left_by(owner.number, spent)
        self._end(owner, now, is_lost=False)
        self.hearing.stops.note_left(request.left)
        self.write(written.Left(owner.number, spent, request.left))

    def stop(self, order: StopOrder) -> None:
        """Order everybody to stop."""
        if self.hearing.stop(order):
            self.write(written.Stopped(order))
            if order.queue is not None and self.grants is not None:
                self.grants.be_inexact()

    def living(self, now: float) -> list[int]:
        """Who has a lease."""
        return [each.number for each in self.owners.here() if self.leases.is_valid(each.number, now)]

    def write(self, line: written.Line) -> None:
        """What must be on the disk before anybody is answered."""
        self.lines.append(written.encode_line(line))

    def _end(self, owner: Owner, now: float, *, is_lost: bool) -> None:
        self.owners.end(owner, is_lost=is_lost)
        self.leases.drop(owner.number)
        self.rates.drop(owner.number)
        self.hearing.drop(owner.number, now, is_lost=is_lost)
