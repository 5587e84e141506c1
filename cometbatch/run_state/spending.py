"""What each record adds to what was booked: a call's outcome has the sums of its asks, which were recorded before."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from cometbatch.money.exact import EXACT
from cometbatch.records import Answered, PossibleCharge, Record, RejectedAsk

NOTHING: Final = Decimal(0)  # US dollars


class Spending:
    """Amounts of records that are told in the order in which they were written. `asks`: those told of before."""

    def __init__(self, asks: Mapping[int, Sequence[RejectedAsk]] | None = None) -> None:
        self._asked: dict[int, Decimal] = {}  # US dollars, by call
        self.know({} if asks is None else asks)

    def know(self, asks: Mapping[int, Sequence[RejectedAsk]]) -> None:
        """These asks were booked by others."""
        for some in asks.values():
            for ask in some:
                self.added(ask)

    def added(self, record: Record) -> Decimal | None:
        """US dollars that the record adds, at most where its cost is unknown; None where it has no bound."""
        if isinstance(record, PossibleCharge):
            return record.max_cost_usd
        most = record.max_cost_usd if record.cost_usd is None else record.cost_usd
        if isinstance(record, RejectedAsk):
            self._asked[record.ordinal] = EXACT.add(self._asked.get(record.ordinal, NOTHING), most or NOTHING)
            return most
        before = self._asked.pop(record.ordinal, NOTHING)
        if not isinstance(record, Answered) and record.asks == 1:  # it failed at its first ask, which cost nothing
            return NOTHING
        return None if most is None else max(EXACT.subtract(most, before), NOTHING)

    def sum_of(self, records: Iterable[Record]) -> Decimal:
        """What these records add; what has no bound adds nothing."""
        total = NOTHING
        for record in records:
            total = EXACT.add(total, self.added(record) or NOTHING)
        return total
