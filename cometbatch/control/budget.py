"""Spending that can't pass its cap: what may be spent is set aside before it is, and settled after. Pure.

The law: spent + reserved <= cap, whatever happens to what is in flight, as long as no reservation is less than the
bill that comes of it.

A cost that a reply reports of itself is not booked, even where it is the higher one: nothing documents its currency,
and it may pass every reservation, so that one bad number would end the run, where it may spoil no more than its row.
Where the two differ, the summary says so.
"""

from decimal import Decimal

from cometbatch.money.exact import EXACT, ROUNDING


class Budget:
    """US dollars under one cap. `spent` is what earlier sessions came to, answers thrown away included."""

    def __init__(self, cap: Decimal, spent: Decimal) -> None:
        self._cap = cap
        self._taken = spent  # or set aside

    @property
    def left(self) -> Decimal:
        """What is neither spent nor set aside; below 0 where the cap was lowered since it was spent."""
        return ROUNDING.subtract(self._cap, self._taken)  # a cap can have any number of decimals

    def reserve(self, amount: Decimal) -> bool:
        """Set an amount aside, or return False and set nothing aside where that would pass the cap."""
        taken = EXACT.add(self._taken, amount)
        if taken > self._cap:
            return False
        self._taken = taken
        return True

    def settle(self, reserved: Decimal, actual: Decimal) -> None:
        """Give back a reservation and book what it really came to."""
        self._taken = EXACT.add(EXACT.subtract(self._taken, reserved), actual)
