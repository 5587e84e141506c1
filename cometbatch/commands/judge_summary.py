"""What a judge was asked, cost and said: values for a program, and their words for a person."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from cometbatch.commands.judge_tables import JudgedCell, cell_dict
from cometbatch.commands.run_plan import RunPlan
from cometbatch.evaluation.statistics.interval import Interval
from cometbatch.job.settings import BudgetSettings
from cometbatch.money.exact import EXACT, format_amount, format_rounded
from cometbatch.reports.figures import MISSING_EXTRA
from cometbatch.reports.judging import PairLine, Rating, Strength
from cometbatch.reports.words import NAME_WIDTH, WIDTH, Rows, table
from cometbatch.results.notebook import html_of
from cometbatch.results.summary import RunSummary
from cometbatch.results.summary_words import count
from cometbatch.results.terminal import cut, visible

UNKNOWN: Final = "-"
PAIR_WIDTH: Final = 2 * NAME_WIDTH + len(" against ")  # columns of two names


class PairJudged(Struct, frozen=True):
    """A pair of cells with its figures. `summary`: of its run; None where no two answers could be compared."""

    x: JudgedCell
    y: JudgedCell
    line: PairLine
    output: Path
    summary: RunSummary | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, each number at full precision."""
        cells = {"x": cell_dict(self.x), "y": cell_dict(self.y)}
        return cells | {"output": str(self.output)} | self.line.to_dict() | _costs(self.summary)


class CellJudged(Struct, frozen=True):
    """A cell with what each criterion came to. `unanswered`: rows without an answer, of which nobody was asked."""

    cell: JudgedCell
    ratings: dict[str, Rating]
    unanswered: int
    output: Path
    summary: RunSummary | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, each number at full precision."""
        criteria = {name: rating.to_dict() for name, rating in self.ratings.items()}
        found = {"cell": cell_dict(self.cell), "output": str(self.output), "unanswered": self.unanswered}
        return found | {"criteria": criteria} | _costs(self.summary)


class JudgeSummary(Struct, frozen=True):
    """What a judge said of all pairs, or of all cells, and cost. `folder`: where its results are, a file for each.

    `spent_usd`: what the judge was ever paid for this result, at most. `strengths`: of cells that were all compared
    with each other. `needs_extra`: intervals lack, since numpy or scipy is not installed.
    """

    folder: Path
    model: str
    summaries: tuple[RunSummary, ...]
    spent_usd: Decimal
    pairs: tuple[PairJudged, ...] = ()
    cells: tuple[CellJudged, ...] = ()
    strengths: tuple[Strength, ...] = ()
    notes: tuple[str, ...] = ()
    needs_extra: bool = False

    @property
    def ended_well(self) -> bool:
        """Whether each call has a verdict, or as many as the section `judge.accept` wants."""
        return all(each.ended_well for each in self.summaries)

    @property
    def cost_usd(self) -> Decimal | None:
        """The exact sum over all verdicts that were paid for; None where one of them has no price."""
        amounts = [each.cost_usd for each in self.summaries]
        known = [amount for amount in amounts if amount is not None]
        return sum(known, Decimal(0)) if len(known) == len(amounts) else None

    @property
    def possible_charges_usd(self) -> Decimal:
        """What may have been billed for requests that got no answer."""
        return sum((each.possible_charges.charges_usd for each in self.summaries), Decimal(0))

    @property
    def calls(self) -> int:
        """How often the judge was asked."""
        return sum(each.tally.calls for each in self.summaries)

    @property
    def had_work(self) -> bool:
        """Whether something was sent or published."""
        return any(each.had_work for each in self.summaries)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; amounts of money are strings, so that they stay exact."""
        cost = self.cost_usd
        return {
            "output": str(self.folder),
            "model": self.model,
            "ended_well": self.ended_well,
            "calls": self.calls,
            "cost_usd": None if cost is None else format_amount(cost),
            "thrown_cost_usd": format_amount(self.possible_charges_usd),
            "spent_usd": format_amount(self.spent_usd),
            "pairs": [each.to_dict() for each in self.pairs],
            "cells": [each.to_dict() for each in self.cells],
            "strengths": [each.to_dict() for each in self.strengths],
            "notes": list(self.notes),
            "warnings": list(dict.fromkeys(words for each in self.summaries for words in each.warnings)),
        }

    @property
    def cost_words(self) -> str:
        """Who was asked, how often, and for how much."""
        more = self.possible_charges_usd
        charges = f" ({format_rounded(more, up=True)} more may have been billed)" if more else ""
        cost = "an unknown cost" if self.cost_usd is None else format_rounded(self.cost_usd)
        return f"judge {self.model}: {cost} for {count(self.calls, 'call')}{charges}"

    def tables(self) -> list[Rows]:
        """Pairs or cells, then strengths where there are such; the first row of each is its head."""
        found = [_pairs(self.pairs) if self.pairs else _cells(self.cells)]
        if self.strengths:
            rows = [["strength (log odds)", "value", "95 %", "SE"]]
            rows += [
                [each.words, f"{each.value:+z.3f}", _ends(each.interval), f"{each.se:.3f}"] for each in self.strengths
            ]
            found.append(rows)
        return found

    def __str__(self) -> str:
        return self.describe()

    def _repr_html_(self) -> str:
        return html_of(self.describe())

    def describe(self, width: int = WIDTH) -> str:
        """A table of pairs or cells, strengths, and what it cost, at most `width` columns wide where names allow it."""
        first, *others = self.tables()
        lines = [*table(first, width, PAIR_WIDTH)]
        for rows in others:
            lines += ["", *table(rows, width)]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"{MISSING_EXTRA}: without it there are no intervals"] if self.needs_extra else []
        asked = "" if self.had_work else "; nothing was sent now"
        lines += [
            f"{self.cost_words}{asked}",
            *self._earlier(),
            f"result: {self.folder}",
        ]
        return visible("\n".join(lines))

    def _earlier(self) -> Iterator[str]:
        """A line on verdicts that are paid for and not in the table above."""
        now = EXACT.add(self.cost_usd or Decimal(0), self.possible_charges_usd)
        if self.spent_usd > now:
            spent = format_rounded(self.spent_usd, up=True)
            yield f"in all, {spent} was spent on this judge: verdicts that were replaced, or are not asked for now, too"


class PlannedTable(Struct, frozen=True):
    """A pair, or a cell, and what asking about it would cost; None where nothing is to be compared."""

    words: str
    output: Path
    unanswered: int
    plan: RunPlan | None


class JudgePlan(Struct, frozen=True):
    """What a judge would be asked, and cost at most, under its budget. `spent_usd`: by all of its runs so far."""

    tables: tuple[PlannedTable, ...]
    model: str
    budget: BudgetSettings
    spent_usd: Decimal

    @property
    def calls(self) -> int:
        """How many calls remain."""
        return sum(each.plan.calls - each.plan.done for each in self.tables if each.plan is not None)

    @property
    def cost_usd(self) -> Decimal | None:
        """US dollars for these, at most, as `plan` estimates; None where there is no price."""
        costs = [each.plan.cost_usd for each in self.tables if each.plan is not None]
        known = [cost for cost in costs if cost is not None]
        return sum(known, Decimal(0)) if len(known) == len(costs) else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; amounts of money are strings."""
        cost, cap = self.cost_usd, self.budget.max_cost_usd
        tables = [
            {
                "table": each.words,
                "output": str(each.output),
                "unanswered": each.unanswered,
                "plan": None if each.plan is None else each.plan.to_dict(),
            }
            for each in self.tables
        ]
        warnings = [words for each in self.tables if each.plan is not None for words in each.plan.warnings]
        return {
            "model": self.model,
            "calls": self.calls,
            "estimated_cost_usd": None if cost is None else format_amount(cost),
            "spent_usd": format_amount(self.spent_usd),
            "max_cost_usd": None if cap is None else format_amount(cap),
            "tables": tables,
            "warnings": list(dict.fromkeys(warnings)),
        }

    def __str__(self) -> str:
        return self.describe()

    def describe(self) -> str:
        """A line for each pair or cell, and what all cost."""
        rows = [[each.words, *_planned(each)] for each in self.tables]
        cost = "an unknown cost" if self.cost_usd is None else f"at most about {format_rounded(self.cost_usd, up=True)}"
        lines = [*table(rows, WIDTH, PAIR_WIDTH), f"judge {self.model}: {count(self.calls, 'call')}, {cost}"]
        if (cap := self.budget.max_cost_usd) is not None:
            spent = f", {format_rounded(self.spent_usd, up=True)} of it spent" if self.spent_usd else ""
            is_known = self.cost_usd is not None
            needed = EXACT.add(self.spent_usd, self.cost_usd or Decimal(0))
            words = "enough" if needed <= cap else f"to finish, about {format_rounded(needed, up=True)} may be needed"
            lines.append(f"budget: {format_rounded(cap, down=True)}{spent}" + (f": {words}" if is_known else ""))
        return visible("\n".join(lines))


def _planned(each: PlannedTable) -> list[str]:
    lacking = f"{count(each.unanswered, 'pair')} without both answers" if each.unanswered else ""
    if each.plan is None:
        return ["nothing to ask", lacking]
    cost = (
        "unknown cost" if each.plan.cost_usd is None else f"at most about {format_rounded(each.plan.cost_usd, up=True)}"
    )
    return [f"{count(each.plan.calls - each.plan.done, 'call')}, {cost}", lacking]


def _costs(summary: RunSummary | None) -> dict[str, Any]:
    cost = None if summary is None else summary.cost_usd
    return {
        "calls": 0 if summary is None else summary.tally.calls,
        "cost_usd": None if cost is None else format_amount(cost),
    }


def _pairs(pairs: Sequence[PairJudged]) -> Rows:
    head = ["wins", "rate", "95 %", "pairs", "missing", "consistent", "flips", "first place", "equal length", "cost"]
    rows = [head]
    for each in pairs:
        line, figures = each.line, each.line.figures
        both = [str(figures.consistent), str(figures.flips), _share(figures.first_place)]
        rows.append([
            f"{cut(each.x.words, NAME_WIDTH)} against {cut(each.y.words, NAME_WIDTH)}",
            _share(figures.win_rate),
            _ends(line.interval),
            f"{figures.pairs:,}",
            _missing(figures.missing, line.unanswered),
            *(both if line.swap else [UNKNOWN] * 3),
            UNKNOWN if line.level is None else _share(line.level["win_rate"]),
            _cost(each.summary),
        ])  # fmt: skip
    return rows


def _cells(cells: Sequence[CellJudged]) -> Rows:
    rows = [["cell", "criterion", "mean", "95 %", "answers", "missing", "cost"]]
    for each in cells:
        for number, (name, rating) in enumerate(each.ratings.items()):
            missing = _missing(rating.missing, each.unanswered)
            mean = UNKNOWN if rating.mean is None else f"{rating.mean:.3f}"
            figures = [name, mean, _ends(rating.interval), f"{rating.answers:,}", missing]
            rows.append(["" if number else each.cell.words, *figures, "" if number else _cost(each.summary)])
    return rows


def _missing(verdicts: int, unanswered: int) -> str:
    """How many have no verdict, and of how many of these there was no answer to judge."""
    return f"{verdicts + unanswered:,}" + (f" ({unanswered:,} unanswered)" if unanswered else "")


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"


def _ends(interval: Interval | None) -> str:
    return UNKNOWN if interval is None else f"{interval.low:.3f} {interval.high:.3f}"


def _cost(summary: RunSummary | None) -> str:
    return UNKNOWN if summary is None or summary.cost_usd is None else format_rounded(summary.cost_usd)
