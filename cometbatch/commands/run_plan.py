"""What `plan` finds, as a value: what a run would do and cost, for a program and for a person."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from cometbatch.commands.deduping import DedupePlan
from cometbatch.commands.plan_budget import BudgetPlan
from cometbatch.commands.plan_cells import CellPlan, cells_dict, describe_cells, describe_size
from cometbatch.commands.row_changes import UpdatePlan
from cometbatch.input.files import Identity
from cometbatch.job import Job
from cometbatch.money.exact import format_amount, format_rounded
from cometbatch.records import PriceBook
from cometbatch.results.accepted import Accepted, judged
from cometbatch.results.notebook import html_of
from cometbatch.results.reuse_counts import ReuseCounts
from cometbatch.results.summary_words import count, price_source
from cometbatch.results.terminal import visible
from cometbatch.runner.row_maker import ASSUMED_OUTPUT_TOKENS
from cometbatch.wire import output_cap


class LimitedPlan(Struct, frozen=True):
    """What `run --limit` would send and cost: of the first rows of the input, those that have no outcome yet.

    The numbers are estimates as of all rows (`RunPlan`).
    """

    limit: int
    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal | None
    likely_cost_usd: Decimal | None


class RunPlan(Struct, frozen=True):
    """What a run of this job would do and cost.

    `first_request` is that of the first row without an outcome, without the key; None where no row is left or none can
    be rendered. Token counts are the documented estimate (contract sheet, section 8.3): a quarter of the characters
    in, `max_output_tokens` out. `cost_usd` is in US dollars at list price and a ceiling under that estimate, of what
    has a price; None where nothing has. Where an earlier answer of the run was longer than the cap, all are estimated
    as long as it. `worst_cost_usd`: the same where every row is asked `max_asks` times, with its last answer in each
    further ask; equal to `cost_usd` where rows are asked once.
    `done` counts the rows that have outcomes already; the estimates are for the others. `connection` says how requests
    get to the service. `finished`: every row has its outcome and the result is there. `running`: a run of this job is
    going on. `update`: None where the plan is of no update that is to begin. `budget`: None where the job has none, or
    nothing remains. `limited`: the first rows alone; None where these are all that remain. `uncapped`: requests whose
    answer has no cap. `prices` are those of the first target, `other_prices` those of further ones. `reuse`: how the
    rows that remain meet answers of earlier runs; None where none are looked for, or there is no such run. `dedupe`:
    None where rows that ask the same are all sent. The estimates are for those alone that are sent. `slices`: how often
    the rows are passed over, which is cells times samples; `cells`: of a matrix, each by itself.
    """

    job: Job
    input: Identity
    partition_rows: int
    first_request: dict[str, Any] | None
    unrenderable: int
    first_problem: str | None
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal | None
    likely_cost_usd: Decimal | None
    prices: PriceBook
    done: int
    connection: str
    finished: bool = False
    running: bool = False
    update: UpdatePlan | None = None
    warnings: tuple[str, ...] = ()
    budget: BudgetPlan | None = None
    limited: LimitedPlan | None = None
    uncapped: int = 0
    max_asks: int = 1
    worst_cost_usd: Decimal | None = None
    other_prices: tuple[PriceBook, ...] = ()
    reuse: ReuseCounts | None = None
    dedupe: DedupePlan | None = None
    slices: int = 1
    cells: tuple[CellPlan, ...] = ()

    @property
    def price_source(self) -> str:
        """Where the prices come from, of all targets that have some."""
        return price_source((self.prices, *self.other_prices))

    @property
    def rows(self) -> int:
        """How many rows the input has."""
        return self.input.rows

    @property
    def calls(self) -> int:
        """How many calls the run has: each row in each slice."""
        return self.rows * self.slices

    @property
    def accepted(self) -> Accepted:
        """What the run may come to, and still ends with exit code 0: rows that surely fail are counted already."""
        return judged(self.job.accept, self.calls, failed=self.unrenderable, incomplete=0, is_done=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; amounts of money are strings, so that they stay exact."""
        return {
            "input": msgspec.to_builtins(self.input),
            "output": str(self.job.output.path),
            "way": self.connection,
            "rows": self.rows,
            "done": self.done,
            "finished": self.finished,
            "running": self.running,
            "update": msgspec.to_builtins(self.update),
            "partition_rows": self.partition_rows,
            "first_request": self.first_request,
            "unrenderable": self.unrenderable,
            "first_problem": self.first_problem,
            "accepted": self.accepted.to_dict() if self.job.accept.is_used else None,
            "estimated_input_tokens": self.input_tokens,
            "estimated_output_tokens": self.output_tokens,
            "estimated_cost_usd": _amount(self.cost_usd),
            "likely_cost_usd": _amount(self.likely_cost_usd),
            "limited": _limited_dict(self.limited),
            "reused": None if self.reuse is None else self.reuse.to_dict(requests=self._requests),
            "dedupe": None if self.dedupe is None else self.dedupe.to_dict(),
            "max_asks": self.max_asks,
            "worst_cost_usd": _amount(self.worst_cost_usd),
            "budget": None if self.budget is None else self.budget.to_dict(),
            "price_source": self.price_source,
            "warnings": list(self.warnings),
            **cells_dict(self.job, self.rows, self.cells),
        }

    def __str__(self) -> str:
        return self.describe()

    def _repr_html_(self) -> str:
        return html_of(self.describe())

    def describe(self) -> str:
        """A page for a person, in which no character of a cell is hidden or does anything on a terminal."""
        lines = [
            f"input: {self.job.input.path} ({self.rows:,} rows, {len(self.input.columns)} columns{self._files()})",
            f"output: {self.job.output.path}",
            f"connection: {self.connection}",
            *describe_size(self.job, self.rows),
            *self._state(),
            *(() if self.reuse is None else self.reuse.planned_words(is_deduped=self.dedupe is not None)),
            "first request:",
            *_indented(self.first_request),
            *(self.dedupe.describe() if self.dedupe is not None else ()),
            f"{self._estimated()}: {self.input_tokens:,} tokens in, {self._out()}",
            f"cost: {self._cost(self.cost_usd, self.likely_cost_usd)}{self._prices()}",
            *(() if self.finished else describe_cells(self.cells, self._bound)),
            *self._worst_cost(),
            *self._limited(),
            *(self.budget.describe() if self.budget is not None else ()),
        ]
        return visible("\n".join(lines))

    @property
    def _noun(self) -> str:
        """What is counted: a row of a matrix is several calls."""
        return "row" if self.job.matrix is None else "call"

    def _files(self) -> str:
        return f", {count(len(self.input.files), 'file')}" if self.input.files else ""

    def _state(self) -> Iterator[str]:
        noun = self._noun
        if self.running:
            yield f"running: a run of this job is going on; {self.done:,} of {count(self.calls, noun)} are done"
        elif self.finished:
            yield f"finished: {self.done:,} of {count(self.calls, noun)} have an outcome; a run would send nothing"
        elif self.done:
            yield f"resumes: {self.done:,} {noun}s are done, {self.calls - self.done:,} remain"
        elif self.update is not None:
            yield self.update.describe()
        if self.unrenderable:
            more = ", more than accepted" if self.job.accept.is_used and not self.accepted.is_within else ""
            what = f"{self.unrenderable:,} {noun}s can't be rendered and will fail{more}"
            yield f"{what}; the first: {self.first_problem}"
        if self.job.accept.is_used:
            yield f"accepted: {self.accepted.bounds()}"

    @property
    def _requests(self) -> int | None:
        """How many different requests are sent, where rows that ask the same are sent once."""
        return None if self.dedupe is None else self.dedupe.requests

    def _estimated(self) -> str:
        if self._requests is not None:
            return f"estimate for {count(self._requests, 'request')}"
        if self.reuse is not None and self.reuse.taken:
            return f"estimate for the {count(self.reuse.sent, self._noun)} to be sent"
        remain = f"{self.calls - self.done:,} {self._noun}s that remain"
        return f"estimate for the {remain}" if self.done else "estimate"

    def _out(self) -> str:
        tokens = f"{self.output_tokens:,} tokens out"
        if self._is_capped:
            return f"{tokens} at most"
        if self.job.batch is not None:
            return f"{tokens} ({ASSUMED_OUTPUT_TOKENS} for each of {self.uncapped:,} without a cap)"
        return f"{tokens} ({ASSUMED_OUTPUT_TOKENS} a row assumed: params.max_output_tokens is not set)"

    @property
    def _is_capped(self) -> bool:
        if self.job.batch is not None:
            return not self.uncapped
        return all(output_cap(target.format, target.params) is not None for target in self.job.targets())

    @property
    def _bound(self) -> str:
        return "at most about" if self._is_capped else "about"

    def _cost(self, cost_usd: Decimal | None, likely_usd: Decimal | None) -> str:
        if cost_usd is None:
            return "unknown"
        likely = "" if likely_usd is None else f", likely {format_rounded(likely_usd)}"
        return f"{self._bound} {format_rounded(cost_usd, up=True)}{likely}"

    def _prices(self) -> str:
        return ": there is no price (set prices)" if self.cost_usd is None else f" (prices: {self.price_source})"

    def _limited(self) -> Iterator[str]:
        if (first := self.limited) is not None:
            cost = self._cost(first.cost_usd, first.likely_cost_usd)
            told = f"costs {cost}" if first.cost_usd is not None else "has an unknown cost"
            told = told if first.requests else "would send nothing: each of these rows has its outcome"
            yield f"a try of the first {count(first.limit, 'row')} (run --limit {first.limit}) {told}"

    def _worst_cost(self) -> Iterator[str]:
        if self.max_asks > 1 and self.worst_cost_usd is not None:
            worst = format_rounded(self.worst_cost_usd, up=True)
            yield f"  if every row is asked {self.max_asks} times (response.max_asks): up to about {worst}"


def _limited_dict(limited: LimitedPlan | None) -> dict[str, Any] | None:
    if limited is None:
        return None
    return {
        "limit": limited.limit,
        "requests": limited.requests,
        "estimated_input_tokens": limited.input_tokens,
        "estimated_output_tokens": limited.output_tokens,
        "estimated_cost_usd": _amount(limited.cost_usd),
        "likely_cost_usd": _amount(limited.likely_cost_usd),
    }


def _indented(request: dict[str, Any] | None) -> Iterator[str]:
    if request is None:
        yield "  none: no row is left, or can be rendered"
        return
    yield f"  {request['method']} {request['url']}"
    yield from (f"  {name}: {value}" for name, value in request["headers"].items())
    body = msgspec.json.format(msgspec.json.encode(request["body"]), indent=2).decode()
    yield from (f"  {line}" for line in body.splitlines())


def _amount(amount: Decimal | None) -> str | None:
    return None if amount is None else format_amount(amount)
