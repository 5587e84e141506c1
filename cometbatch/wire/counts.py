"""Counts and amounts as services report them, made lawful: what is none is unknown, no part exceeds its total."""

from collections.abc import Mapping
from decimal import Decimal

from cometbatch.money.exact import ROUNDING
from cometbatch.records import Usage

# A 64-bit integer is what a table's column holds; no real count comes near it.
MAX_COUNT = 2**63 - 1
# US dollars for one answer, and decimals: what fits the table's column; no real amount comes near either.
MAX_COST = 10**9
COST_DECIMALS = Decimal("1e-18")


def count(value: object) -> int | None:
    """A count of tokens, or None for anything else: negative, fractional, boolean, text, or beyond 64 bits."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and 0 <= value <= MAX_COUNT:  # a bool is an int to isinstance, and no count
        return value
    return None


def reported_cost(usage: Mapping[str, object]) -> Decimal | None:
    """What a reply's own usage says that it cost, `usage.cost`; None for anything but a finite number from 0.

    Seen for some models, presumably in US dollars (contract sheet, sections 2 and 8.3). As the number is written: a
    float's shortest digits, not its binary expansion.
    """
    value = usage.get("cost")
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_COST:
        return None
    return ROUNDING.quantize(Decimal(repr(value)), COST_DECIMALS)


def total(*counts: int | None) -> int | None:
    """The sum; None as soon as one of them is unknown."""
    known = [number for number in counts if number is not None]
    return count(sum(known)) if len(known) == len(counts) else None


def consistent_usage(
    *,
    input_tokens: int | None,
    output_tokens: int | None,
    cache_read: int | None = None,
    cache_write: int | None = None,
    reasoning: int | None = None,
) -> Usage:
    """Usage from inclusive totals; a part that contradicts its total is unknown.

    Where cache reads and writes exceed the input only together, the reads go: they would make the bill smaller.
    """
    if not cache_read and not cache_write and not reasoning:  # nothing that could contradict its total
        return Usage(input_tokens, output_tokens, cache_read, cache_write, reasoning)
    cache_read, cache_write = _within(cache_read, input_tokens), _within(cache_write, input_tokens)
    if input_tokens is not None and (cache_read or 0) + (cache_write or 0) > input_tokens:
        cache_read = None
    return Usage(input_tokens, output_tokens, cache_read, cache_write, _within(reasoning, output_tokens))


def _within(part: int | None, whole: int | None) -> int | None:
    return None if part is not None and whole is not None and part > whole else part
