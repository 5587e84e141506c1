"""What one owner of a shared run may spend: money that is granted to it, bit by bit, out of one cap. Pure.

The law: spent + reserved passes no grant, as long as no bill is higher than its reservation. A grant may be lowered:
then nothing is set aside until what is spent and reserved is below the new one.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Final

from cometbatch.money.exact import EXACT, ROUNDING

_NOTHING: Final = Decimal(0)


class GrantedAccount:
    """A shared account, as `Budget` takes it, whose cap is what was granted so far.

    `spent`: booked since the owner began; `reserved`: set aside now. `wanted`: what the next call can cost at most,
    where there is no room for it; None where there is. `in_flight`: requests under way. `on_short` is called when
    more is wanted than before.
    """

    def __init__(self) -> None:
        self.granted = _NOTHING
        self.spent = _NOTHING
        self.reserved = _NOTHING
        self.wanted: Decimal | None = None
        self.in_flight = 0
        self.on_short: Callable[[], None] = lambda: None

    @property
    def left(self) -> Decimal:
        """What is granted, and neither spent nor set aside; below 0 where a bill passed its reservation."""
        return ROUNDING.subtract(self.granted, EXACT.add(self.spent, self.reserved))

    @property
    def is_any_in_flight(self) -> bool:
        """Always: more may be granted, and whether the run has to stop is decided where all of its money is known."""
        return True

    @property
    def may_give_back(self) -> bool:
        """Whether something is set aside that may turn out to cost less."""
        return self.in_flight > 0 or self.reserved > 0

    def grant(self, granted: Decimal) -> None:
        """`granted`: in all since the owner began, in US dollars."""
        self.granted = granted

    def count_in_flight(self, change: int) -> None:
        """The number of requests under way changes by this."""
        self.in_flight += change

    def reserve(self, amount: Decimal) -> bool:
        """Set an amount aside, or return False and set nothing aside where that would pass what is granted."""
        reserved = EXACT.add(self.reserved, amount)
        if EXACT.add(self.spent, reserved) > self.granted:
            was_wanted, self.wanted = self.wanted, amount
            if was_wanted is None or was_wanted < amount:
                self.on_short()
            return False
        self.reserved, self.wanted = reserved, None
        return True

    def settle(self, reserved: Decimal, actual: Decimal) -> None:
        """Give back a reservation and book what it really came to."""
        self.reserved = EXACT.subtract(self.reserved, reserved)
        self.spent = EXACT.add(self.spent, actual)
