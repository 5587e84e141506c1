"""The decimal contexts that amounts of money are computed in: never the caller's own, which may round or raise.

`a + b` on Decimals rounds to the precision that the calling thread has set, 28 digits by default; a sum can have more.
Comparing, `copy_abs` and formatting do not use that context.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation
from typing import Final

DIGITS: Final = 100
"""Enough for any sum: a row's cost stays below 1e20 US dollars and has 18 decimals."""

EXACT: Final = Context(prec=DIGITS, rounding=ROUND_HALF_EVEN, traps=[Inexact, InvalidOperation])
"""For costs and sums, which must not be rounded: rounding raises."""

HUNDREDTH_OF_A_CENT: Final = Decimal("0.0001")  # US dollars

ROUNDING: Final = Context(prec=DIGITS, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation])
"""For estimates, and for rounding to a column's decimals."""


def format_amount(amount: Decimal) -> str:
    """An amount in full, without exponent or trailing zeros."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_rounded(amount: Decimal, *, up: bool = False, down: bool = False) -> str:
    """An amount in US dollars for a person: $12.35, $0.0123, $0.000025; $0 is exactly nothing.

    Cents from a dollar on, four decimals below it, two digits below a hundredth of a cent. `up`: never less than the
    amount, for what is a bound; `down`: never more, for what is left.
    """
    if not amount:
        return "$0"
    size = amount.copy_abs()
    decimals = 2 if size >= 1 else 4 if size >= HUNDREDTH_OF_A_CENT else 1 - size.adjusted()
    rounding = ROUND_CEILING if up else ROUND_FLOOR if down else ROUND_HALF_EVEN
    return f"${amount.quantize(Decimal((0, (1,), -decimals)), rounding, ROUNDING):,f}"
