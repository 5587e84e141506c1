"""What each cell of a matrix came to, and the slices that the job does not name any more. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from cometbatch.money.exact import EXACT, format_amount, format_rounded
from cometbatch.records import PriceBook, Tally
from cometbatch.results import tallies
from cometbatch.results.slices import Label, words_of
from cometbatch.results.summary_words import count

LINES_SHOWN: Final = 24  # in the summary for a person: of more cells, it tells by model, and then how many there are


class CellSummary(Struct, frozen=True):
    """A cell, over all of its samples. `rows`: of the result. `labels`: by axis column. `book`: its prices."""

    labels: Mapping[str, Label]
    samples: int
    rows: int
    tally: Tally
    book: PriceBook

    @property
    def cost_usd(self) -> Decimal | None:
        """The exact sum over all priced answers; None where none that was billed has a price."""
        billed = self.tally.new_answers + self.tally.rejected
        if billed and self.tally.unpriced == billed:
            return None
        return EXACT.add(self.tally.cost_usd, self.tally.rejected_cost_usd)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; amounts of money are strings, so that they stay exact."""
        tally, cost = self.tally, self.cost_usd
        return {
            "labels": dict(self.labels),
            "samples": self.samples,
            "rows": self.rows,
            "succeeded": tally.succeeded,
            "incomplete": tally.incomplete,
            "failed": tally.failed,
            "remaining": self.rows - tally.calls,
            "failures": dict(sorted(tally.failures.items())),
            "incompletes": dict(sorted(tally.incompletes.items())),
            "input_tokens": tally.input_tokens,
            "output_tokens": tally.output_tokens,
            "cost_usd": None if cost is None else format_amount(cost),
            "unpriced": tally.unpriced,
            "reused": tally.reused,
            "price_source": self.book.source,
        }


class LeftOut(Struct, frozen=True):
    """Slices with answers that the job does not name any more, and what is recorded of them."""

    slices: int
    tally: Tally

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the amount of money is a string."""
        return {"slices": self.slices, "rows": self.tally.calls, "cost_usd": format_amount(_cost(self.tally))}

    def describe(self) -> str:
        """A line."""
        are = "is" if self.slices == 1 else "are"
        return (
            f"{count(self.slices, 'sample')} of cells that the matrix does not name {are} kept, and no part of the "
            f"result: {count(self.tally.calls, 'row')}, {format_rounded(_cost(self.tally))} (not in the cost above)"
        )


def _cost(tally: Tally) -> Decimal:
    return EXACT.add(tally.cost_usd, tally.rejected_cost_usd)


def described_cells(cells: Sequence[CellSummary]) -> Iterator[str]:
    """A line for each cell; of many, one for each model."""
    names = telling([each.labels for each in cells])
    shown: Sequence[tuple[str, int, Tally]] = [
        (words_of({name: each.labels[name] for name in names}), each.rows, each.tally) for each in cells
    ]
    if len(cells) > LINES_SHOWN:
        shown = _by_model(cells)
    width = max((len(words) for words, _, _ in shown[:LINES_SHOWN]), default=0)
    for words, rows, tally in shown[:LINES_SHOWN]:
        short = f", {tally.incomplete:,} incomplete" if tally.incomplete else ""
        short += f", {tally.failed:,} failed" if tally.failed else ""
        bound = "at least " if tally.unpriced or tally.excluding else ""
        of_all = f"{tally.calls:,} of {count(rows, 'row')}"
        yield f"  {words:<{width}}  {of_all}{short}, {bound}{format_rounded(_cost(tally))}"
    if (more := len(shown) - LINES_SHOWN) > 0:
        yield f"  and {more:,} more"


def telling(cells: Sequence[Mapping[str, Label]]) -> list[str]:
    """The axis columns that tell these cells from each other, and always the model's."""
    names = list(cells[0]) if cells else []
    return [name for name in names if name == "model" or len({repr(labels[name]) for labels in cells}) > 1]


def _by_model(cells: Sequence[CellSummary]) -> list[tuple[str, int, Tally]]:
    found: dict[str, tuple[int, Tally]] = {}
    for each in cells:
        rows, tally = found.get(each.book.model, (0, Tally()))
        found[each.book.model] = rows + each.rows, tallies.add(tally, each.tally)
    return [(f"model={model}", *sums) for model, sums in found.items()]
