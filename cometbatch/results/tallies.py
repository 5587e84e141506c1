"""Totals over records. Guards: totals of two sets of calls add up to the total of both, whatever fields there are."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

from cometbatch.money.exact import EXACT
from cometbatch.records import (
    CONTRADICTION,
    Answered,
    Failed,
    PossibleCharge,
    Record,
    RejectedAsk,
    Tally,
    Usage,
)
from cometbatch.results.columns import int64s

ROUNDED_TO_USD: Final = Decimal("0.000001")  # US dollars: services round the cost of an answer to about this
ROUNDED_SHARE: Final = Decimal("0.001")  # share of a cost: or they round it to some digits

LONG_INPUT_TOKENS: Final = 200_000
"""Input tokens of one answer above which many models have other prices; for some it is 272,000."""

STEPS: Final = 16
"""Steps of a cost for each doubling of it: the middle of a step is within 3.2 % of each cost in it. A run has some
hundred of them at most, however many rows it has."""

FREE: Final = -1_000_000
"""The step of a cost of exactly nothing, far below that of the smallest cost (1e-18 US dollars, step -960)."""

_USAGE: Final = Usage.__struct_fields__
_COUNTERS: Final = ("failures", "incompletes", "row_costs", "excluded")


def tally(records: Iterable[Record]) -> Tally:
    """Counts and sums over records. Unknown token counts add nothing; unknown costs are counted as unpriced.

    An ask that was not accepted counts by itself: leave out those whose call has an outcome, which includes them.
    """
    kinds: dict[type, list[Any]] = {Answered: [], Failed: [], RejectedAsk: [], PossibleCharge: []}
    for record in records:
        kinds[type(record)].append(record)
    failed: list[Failed] = kinds[Failed]
    billed = [outcome for outcome in failed if outcome.asks > 1]  # for the asks that were rejected before
    asks: list[RejectedAsk] = kinds[RejectedAsk]
    reused = [outcome for outcome in kinds[Answered] if outcome.reused_from is not None]
    paid = kinds[Answered] if not reused else [outcome for outcome in kinds[Answered] if outcome.reused_from is None]
    answers = _answers(paid, billed)
    for ask in asks:
        answers["largest_output_tokens"] = max(answers["largest_output_tokens"], ask.usage.output_tokens or 0)
        above = max(answers["largest_input_above_bytes"], ask.input_above_bytes)
        answers["largest_input_above_bytes"] = above
        answers["unpriced"] += ask.cost_usd is None
        for name in _USAGE:
            answers[name] += sum(filter(None, int64s([getattr(ask.usage, name)])))
    if reused:
        _add_reused(answers, reused)
    return Tally(
        failed=len(failed),
        attempts=sum([outcome.attempts for outcome in kinds[Answered] + failed]),
        failures=dict(Counter([outcome.failure.kind for outcome in failed])),
        rejected=len(asks),
        rejected_cost_usd=_money(ask.cost_usd for ask in asks),
        **answers,
        **_charges(kinds),
    )


def _answers(answered: list[Answered], billed: list[Failed]) -> dict[str, Any]:
    usages = [outcome.completion.usage for outcome in answered] + [outcome.usage for outcome in billed]
    costs = [outcome.cost_usd for outcome in answered + billed if outcome.cost_usd is not None]
    told = [outcome for outcome in answered if outcome.completion.reported_cost_usd is not None]
    differing = [outcome for outcome in told if _differs(outcome)]
    counts = {name: int64s([getattr(usage, name) for usage in usages]) for name in _USAGE}
    inputs, outputs = counts["input_tokens"], counts["output_tokens"]
    longest, largest = inputs, outputs
    if billed or sum([outcome.asks for outcome in answered]) > len(answered):  # counts that are sums over answers
        longest, largest = _of_one_answer(answered, billed)
    left_out = [outcome.completion.cost_excludes for outcome in answered if outcome.completion.cost_excludes]
    excludes = [words.split(", ") for words in left_out if not words.startswith(CONTRADICTION)]
    succeeded = sum([outcome.status == "succeeded" for outcome in answered])
    return {
        "succeeded": succeeded,
        "incomplete": len(answered) - succeeded,
        "incompletes": {} if succeeded == len(answered) else _reasons(answered),
        **{name: sum(filter(None, counts[name])) for name in _USAGE},
        "cost_usd": _money(costs),
        "unpriced": len(usages) - len(costs),
        "uncounted": sum([a is None or b is None for a, b in zip(inputs, outputs, strict=True)]),
        "at_cap": sum([outcome.at_cap for outcome in answered]),
        "reported": len(told),
        "reported_cost_usd": _money(outcome.completion.reported_cost_usd for outcome in told),
        "differing": len(differing),
        "differing_reported_usd": _money(outcome.completion.reported_cost_usd for outcome in differing),
        "differing_cost_usd": _money(outcome.cost_usd for outcome in differing),
        "excluding": len(excludes),
        "excluded": dict(
            Counter(itertools.chain.from_iterable({each.split("=")[0] for each in row} for row in excludes))
        ),
        "contradictory": len(left_out) - len(excludes),
        "long_inputs": sum([number is not None and number > LONG_INPUT_TOKENS for number in longest]),
        "largest_output_tokens": max(filter(None, largest), default=0),
        "largest_input_above_bytes": max([outcome.input_above_bytes for outcome in answered], default=0),
        "largest_cost_usd": max(costs, default=Decimal(0)),
        "row_costs": dict(Counter([cost_step(cost) for cost in costs])),
        "reasked": sum([outcome.asks - 1 for outcome in answered]) + sum([outcome.asks - 1 for outcome in billed]),
        "reasked_cost_usd": _money(outcome.rejected_cost_usd for outcome in answered + billed if outcome.asks > 1),
    }


def _add_reused(answers: dict[str, Any], reused: list[Answered]) -> None:
    """Count answers that were taken from earlier calls among the others: by status, and what they had cost."""
    succeeded = sum([outcome.status == "succeeded" for outcome in reused])
    answers["succeeded"] += succeeded
    answers["incomplete"] += len(reused) - succeeded
    answers["incompletes"] = dict(Counter(answers["incompletes"]) + Counter(_reasons(reused)))
    answers["reused"] = len(reused)
    answers["reused_incomplete"] = len(reused) - succeeded
    answers["reused_cost_usd"] = _money(outcome.reused_cost_usd for outcome in reused)
    answers["reused_unpriced"] = sum([outcome.reused_cost_usd is None for outcome in reused])


def _of_one_answer(answered: list[Answered], billed: list[Failed]) -> tuple[list[int | None], list[int | None]]:
    """The most input and the most output tokens of one answer, for each outcome."""
    pairs: list[tuple[int | None, int | None]] = [outcome.largest_tokens for outcome in billed]
    for outcome in answered:
        usage = outcome.completion.usage
        is_one = outcome.asks == 1
        pairs.append((usage.input_tokens, usage.output_tokens) if is_one else outcome.largest_tokens)
    return int64s([inputs for inputs, _ in pairs]), int64s([outputs for _, outputs in pairs])


def _reasons(answered: list[Answered]) -> dict[str, int]:
    """Incomplete answers by finish reason."""
    return dict(Counter([each.completion.finish_reason for each in answered if each.status == "incomplete"]))


def _charges(kinds: dict[type, list[Any]]) -> dict[str, Any]:
    """Of charges by themselves, and of answers whose cost is unknown and bounded."""
    charges: list[PossibleCharge] = kinds[PossibleCharge]
    unpriced = [record for kind in (Answered, Failed, RejectedAsk) for record in kinds[kind] if record.cost_usd is None]
    bounds = [record.max_cost_usd for record in unpriced + charges if record.max_cost_usd is not None]
    unknown = sum([charge.max_cost_usd is None for charge in charges])
    return {
        "charges": len(bounds) + unknown,
        "charges_usd": _money(bounds),
        "charges_unknown": unknown,
        "charges_in_flight": sum([charge.reason == "in_flight" for charge in charges]),
    }


def cost_step(cost: Decimal) -> int:
    """The step that a cost from 0 is counted in: `STEPS` for each doubling, equally wide within it."""
    mantissa, exponent = math.frexp(cost)
    return exponent * STEPS + int(mantissa * 2 * STEPS) - STEPS if mantissa else FREE


def median_cost(tally: Tally) -> Decimal | None:
    """What a row cost in the median, within 3.2 %, in US dollars; None where no row has a cost."""
    left = (sum(tally.row_costs.values()) + 1) // 2
    for step, rows in sorted(tally.row_costs.items()):
        left -= rows
        if left <= 0:
            doublings, part = divmod(step, STEPS)
            middle = math.ldexp((2 * (STEPS + part) + 1) / (4 * STEPS), doublings) if step != FREE else 0.0
            return min(Decimal(f"{middle:.3g}"), tally.largest_cost_usd)
    return None


def add(left: Tally, right: Tally) -> Tally:
    """The tally of both tallies' calls together."""
    return Tally(**{name: adder(getattr(left, name), getattr(right, name)) for name, adder in _ADDERS.items()})


def add_all(some: Sequence[Tally]) -> Tally:
    """The tally of all of these tallies' calls together: of many, in a fraction of the time that adding each takes."""
    if not some:
        return Tally()
    return Tally(**{name: total([getattr(each, name) for each in some]) for name, total in _TOTALS.items()})


def _adder(name: str) -> Callable[[Any, Any], Any]:
    """How two values of this field of a tally become one."""
    if name.startswith("largest_"):
        return max
    if name.endswith("_usd"):
        return EXACT.add
    return _counted_together if name in _COUNTERS else int.__add__


def _counted_together(left: dict[Any, int], right: dict[Any, int]) -> dict[Any, int]:
    return dict(Counter(left) + Counter(right)) if left and right else left or right


_ADDERS: Final = {name: _adder(name) for name in Tally.__struct_fields__}


def _total(name: str) -> Callable[[list[Any]], Any]:
    """How many values of this field of tallies become one."""
    if name.startswith("largest_"):
        return max
    if name.endswith("_usd"):
        return functools.partial(functools.reduce, EXACT.add)
    return _counted_in_all if name in _COUNTERS else sum


def _counted_in_all(counts: list[dict[Any, int]]) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for each in filter(None, counts):
        for key, count in each.items():
            found[key] = found.get(key, 0) + count
    return found


_TOTALS: Final = {name: _total(name) for name in Tally.__struct_fields__}


def beyond(whole: Tally, part: Tally) -> Tally:
    """What a tally holds beyond another that it includes: together they are the whole again."""
    fields = Tally.__struct_fields__
    return Tally(**{name: _subtractor(name)(getattr(whole, name), getattr(part, name)) for name in fields})


def _subtractor(name: str) -> Callable[[Any, Any], Any]:
    if name.startswith("largest_"):
        return lambda whole, _part: whole
    if name.endswith("_usd"):
        return EXACT.subtract
    if name in _COUNTERS:
        return lambda whole, part: dict(Counter(whole) - Counter(part))
    return int.__sub__


def charges_of(tally: Tally) -> Tally:
    """The possible charges of a tally alone."""
    return Tally(**{name: getattr(tally, name) for name in Tally.__struct_fields__ if name.startswith("charges")})


def spent(tally: Tally) -> Decimal:
    """US dollars that may have been spent, at most: outcomes, asks that were not accepted, and possible charges."""
    return functools.reduce(EXACT.add, (tally.cost_usd, tally.rejected_cost_usd, tally.charges_usd))


def _differs(outcome: Answered) -> bool:
    """Whether the service's own figure for the cost differs from ours by more than rounding explains."""
    reported, cost = outcome.completion.reported_cost_usd, outcome.cost_usd
    if reported is None or cost is None:
        return False
    return EXACT.subtract(reported, cost).copy_abs() > max(ROUNDED_TO_USD, EXACT.multiply(ROUNDED_SHARE, cost))


def _money(amounts: Iterable[Decimal | None]) -> Decimal:
    return functools.reduce(EXACT.add, (amount for amount in amounts if amount is not None), Decimal(0))
