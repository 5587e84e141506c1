"""Rows without a score: three ways to count them side by side, and what a right answer costs."""

from decimal import Decimal
from fractions import Fraction
from typing import Final

from msgspec import Struct

MONEY_DECIMALS: Final = 18  # of a cost in a result, and of an exact cost for each right answer


class Shares(Struct, frozen=True):
    """`score`: an answer that the model left incomplete counts 0, a failed row not at all.

    `answered`: scored rows only. `low`, `high`: with failed rows all 0, and all 1; None where no row failed, and for
    scores outside [0, 1]. Each is None where nothing counts.
    """

    score: float | None
    answered: float | None
    low: float | None
    high: float | None


def shares(total: float, scored: int, incomplete: int, failed: int, *, is_bounded: bool = True) -> Shares:
    """The conventions, from the sum of scores and the counts of rows."""
    counted, rows = scored + incomplete, scored + incomplete + failed
    has_bounds = failed > 0 and is_bounded
    return Shares(
        total / counted if counted else None,
        total / scored if scored else None,
        total / rows if has_bounds else None,
        (total + failed) / rows if has_bounds else None,
    )


def cost_of_right(cost_usd: Decimal | None, total: float, decimals: int = MONEY_DECIMALS) -> Decimal | None:
    """What one right answer cost, in US dollars: the cost of all rows over the sum of their scores.

    Computed exactly, then rounded half to even. None where a cost is unknown, or nothing is right.
    """
    if cost_usd is None or total <= 0:
        return None
    exact = Fraction(cost_usd) / Fraction(total)
    return Decimal((0, _digits(round(exact * 10**decimals)), -decimals))


def _digits(number: int) -> tuple[int, ...]:
    return tuple(map(int, str(number)))
