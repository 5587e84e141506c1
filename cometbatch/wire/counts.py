"""Token counts and amounts as services report them. What is no count is unknown, and no part exceeds its total."""

from collections.abc import Mapping
from decimal import Decimal

from cometbatch.money.exact import ROUNDING
from cometbatch.records import Usage

MAX_COUNT = 2**63 - 1  # tokens: the largest integer of the output column; a larger count is unknown
MAX_COST = 10**9  # US dollars of one answer, as the output column holds them; a cost from here on is unknown
COST_DECIMALS = Decimal("1e-18")  # US dollars: the smallest step of the output column; costs are rounded to it


def count(value: object) -> int | None:
    """A count of tokens, or None for anything else: negative, fractional, boolean, text, or above `MAX_COUNT`."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and 0 <= value <= MAX_COUNT:  # a bool is an int to isinstance, and no count
        return value
    return None


def reported_cost(usage: Mapping[str, object]) -> Decimal | None:
    """`usage.cost`: what the service says the answer cost, presumably in US dollars. None if it is no number from 0.

    Some models report it (contract sheet, sections 2 and 8.3). The digits are those of the reply, not those of the
    float's binary value.
    """
    value = usage.get("cost")
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_COST:
        return None
    return ROUNDING.quantize(Decimal(repr(value)), COST_DECIMALS)


def total(*counts: int | None) -> int | None:
    """The sum; None if one of them is unknown, or if the sum is above `MAX_COUNT`."""
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
    """Usage from inclusive totals. A part larger than its total is unknown.

    If cache reads and writes together exceed the input, the reads are unknown, because they make the bill smaller.
    """
    if not cache_read and not cache_write and not reasoning:  # nothing that could contradict its total
        return Usage(input_tokens, output_tokens, cache_read, cache_write, reasoning)
    cache_read, cache_write = _within(cache_read, input_tokens), _within(cache_write, input_tokens)
    if input_tokens is not None and (cache_read or 0) + (cache_write or 0) > input_tokens:
        cache_read = None
    return Usage(input_tokens, output_tokens, cache_read, cache_write, _within(reasoning, output_tokens))


def _within(part: int | None, whole: int | None) -> int | None:
    return None if part is not None and whole is not None and part > whole else part
