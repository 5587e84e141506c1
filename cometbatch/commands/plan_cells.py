"""What the cells of a matrix come to, one by one, in a plan."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from cometbatch.commands.plan_costs import Requests, Sums, costs
from cometbatch.job import Job
from cometbatch.money.exact import format_amount, format_rounded
from cometbatch.records import PriceBook
from cometbatch.results.slices import Label, words_of
from cometbatch.results.summary_words import count
from cometbatch.run_state.manifest import Slice

LINES_SHOWN: Final = 40  # of more cells, a person is told how many there are, and a program has them all


class CellPlan(Struct, frozen=True):
    """What remains to be sent of a cell, over all samples, and what it costs: estimates as those of `RunPlan`.

    `labels`: by axis column.
    """

    labels: Mapping[str, Label]
    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal | None
    likely_cost_usd: Decimal | None
    price_source: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; amounts of money are strings, so that they stay exact."""
        return {
            "labels": dict(self.labels),
            "requests": self.requests,
            "estimated_input_tokens": self.input_tokens,
            "estimated_output_tokens": self.output_tokens,
            "estimated_cost_usd": None if self.cost_usd is None else format_amount(self.cost_usd),
            "likely_cost_usd": None if self.likely_cost_usd is None else format_amount(self.likely_cost_usd),
            "price_source": self.price_source,
        }


def cell_plans(
    slices: Sequence[Slice], named: Sequence[int], found: Requests, books: Sequence[PriceBook]
) -> tuple[CellPlan, ...]:
    """The cells that the job names, in its order; none without a matrix. `found`: what remains to be sent."""
    by_target = costs(found, books)
    labels = {slices[number].target: slices[number].labels for number in named if slices[number].labels}
    plans = []
    for target, words in labels.items():
        sums = found.by_target.get(target, Sums())
        cost, likely = by_target.get(target, (None if books[target].rates is None else Decimal(0), None))
        tokens = sums.input_tokens, sums.output_tokens
        plans.append(CellPlan(words, sums.requests, *tokens, cost, likely, books[target].source))
    return tuple(plans)


def cells_dict(job: Job, rows: int, cells: Sequence[CellPlan]) -> dict[str, Any]:
    """What a matrix adds to a plan as JSON; nothing without one. `rows`: of the input."""
    if job.matrix is None:
        return {}
    calls = rows * len(job.matrix.cells) * job.samples
    return {"calls": calls, "samples": job.samples, "cells": [each.to_dict() for each in cells]}


def describe_size(job: Job, rows: int) -> Iterator[str]:
    """A line on how many calls a matrix makes; none without one. `rows`: of the input."""
    if job.matrix is not None:
        cells = len(job.matrix.cells)
        made = f"{count(rows, 'row')} = {count(rows * cells * job.samples, 'call')}"
        yield f"matrix: {count(cells, 'cell')} x {count(job.samples, 'sample')} x {made}"


def describe_cells(cells: Sequence[CellPlan], bound: str) -> Iterator[str]:
    """A line for each cell. `bound`: before each cost."""
    shown = cells[:LINES_SHOWN]
    width = max((len(words_of(each.labels)) for each in shown), default=0)
    for each in shown:
        cost = "unknown cost"
        if each.cost_usd is not None:
            likely = "" if each.likely_cost_usd is None else f", likely {format_rounded(each.likely_cost_usd)}"
            cost = f"{bound} {format_rounded(each.cost_usd, up=True)}{likely}"
        requests = count(each.requests, "call")
        yield f"  {words_of(each.labels):<{width}}  {requests}, {cost if each.requests else 'nothing remains'}"
    if (more := len(cells) - len(shown)) > 0:
        yield f"  and {more:,} more cells (--json has all of them)"
