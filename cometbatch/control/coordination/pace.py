"""One adaptive rate for each model of a run, learned from what all owners report, and shared among them. Pure."""

import math
from typing import Final

from cometbatch.control.coordination.messages import QueueReport
from cometbatch.control.coordination.shares import Demand, divide
from cometbatch.control.rate import AdaptiveRate

REPORT_S: Final = 0.1
"""Seconds between two reports of an owner, at least, where the rate is adaptive: what one meets reaches all others
within this time."""

REPORTS_PER_S: Final = 200.0
"""Reports a second of all owners together, at most."""

LEAST: Final = 1 / 8
"""Share of an equal share that an owner has at least, whatever it can use: the first rows that it gets should not wait
for a renewal. More would be missed by the others near the end."""


def report_s(owners: int) -> float:
    """Seconds after which an owner reports again, with this many of them."""
    return max(REPORT_S, owners / REPORTS_PER_S)


class Pace:
    """The rate of one model."""

    def __init__(self) -> None:
        self._rate = AdaptiveRate(is_told_late=True)
        self._fed_at = -math.inf
        self._is_out = False
        self._reports: dict[int, QueueReport] = {}
        self._heard_at: dict[int, float] = {}
        self._demands: dict[int, Demand] = {}

    @property
    def per_s(self) -> float | None:
        """Requests a second, of all owners; None where nothing was refused yet."""
        return None if self._rate.per_s == math.inf else self._rate.per_s

    def join(self, owner: int, now: float, sent: int = 0) -> None:
        """An owner begins, or is first heard of. `sent`: requests that it has sent by then."""
        self._heard_at[owner] = now
        self._demands[owner] = Demand(now, sent)

    def heard(self, owner: int, report: QueueReport, now: float) -> None:
        """An owner's word, later than its last one."""
        if owner not in self._demands:  # it has sent before this coordinator began, nobody knows when
            self.join(owner, now, report.sent)
            self._reports[owner] = report
        before = self._reports.get(owner, QueueReport(report.queue))
        self._reports[owner] = report
        self._demands[owner].heard(report.sent, report.waiting, now)
        since = max(self._fed_at, self._heard_at[owner])
        self._heard_at[owner], self._fed_at = now, now
        sent, bound = report.sent - before.sent, report.bound - before.bound
        refused = report.refused - before.refused
        per_s = report.sending_per_s + self._sending_per_s(owner, report.sending_per_s)
        for each in range(1, sent + 1):
            is_binding = each * bound // sent > (each - 1) * bound // sent
            self._rate.sent(since + (now - since) * each / sent, is_binding=is_binding)
            for _ in range(each * refused // sent - (each - 1) * refused // sent):
                self._rate.refused(per_s)
        for _ in range(0 if sent > 0 else refused):
            self._rate.refused(per_s)
        self._look(now)

    def shares(self) -> dict[int, float]:
        """What each owner may send, in requests a second; empty where nothing was refused yet."""
        if self.per_s is None or not self._demands:
            return {}
        least = LEAST * self.per_s / len(self._demands)
        return divide(self.per_s, {owner: max(least, demand.per_s) for owner, demand in self._demands.items()})

    def drop(self, owner: int) -> None:
        """The owner sends no more."""
        self._reports.pop(owner, None)
        self._demands.pop(owner, None)
        self._heard_at.pop(owner, None)

    def _sending_per_s(self, owner: int, otherwise: float) -> float:
        """How fast all other owners send: as this one does, where nothing was heard of them yet."""
        others = (number for number in self._demands if number != owner)
        return sum(self._demands[each].sent_per_s if each in self._reports else otherwise for each in others)

    def _look(self, now: float) -> None:
        """Tell whether anybody is answered at all."""
        busy = [each for each in self._reports.values() if each.in_flight or each.waiting]
        is_out = bool(busy) and all(each.is_out for each in busy)
        if is_out and not self._is_out:
            self._rate.outage_began(now)
        elif self._is_out and not is_out and busy:
            self._rate.outage_ended(now)
        self._is_out = is_out if busy else self._is_out
