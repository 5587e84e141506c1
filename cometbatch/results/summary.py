"""What a run came to, for a person and for a program. Pure: numbers in, words out."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import Struct

from cometbatch.errors import CometbatchError, UsageError
from cometbatch.money.exact import EXACT, format_amount, format_rounded
from cometbatch.records import Fix, PoolStats, PriceBook, Tally, Usage
from cometbatch.results.accepted import Accept, Accepted, judged
from cometbatch.results.cell_summary import CellSummary, LeftOut, described_cells
from cometbatch.results.notebook import html_of
from cometbatch.results.reuse_counts import ReuseCounts
from cometbatch.results.scored import Leaderboard, ScoreCounts
from cometbatch.results.summary_words import RUN_ALL, count, described, price_source
from cometbatch.results.tallies import LONG_INPUT_TOKENS, median_cost

if TYPE_CHECKING:
    import polars as pl


class Limited(Struct, frozen=True):
    """What a session did that was to answer only the first rows of each slice, `limit` of them.

    `rows`: how many these are in all slices. `done`: those of them with an outcome, whoever recorded it, `succeeded`:
    with a whole answer, and `incomplete`: with one that is not whole.
    """

    limit: int
    rows: int
    done: int
    succeeded: int
    incomplete: int = 0

    @property
    def failed(self) -> int:
        """Those of them without an answer."""
        return self.done - self.succeeded - self.incomplete

    def describe(self) -> str:
        """That each of these rows has its outcome."""
        first = "first row has" if self.limit == 1 else f"first {self.limit:,} rows have"
        return f"The {first} an outcome already"

    @property
    def is_reached(self) -> bool:
        """Whether each of these rows has its outcome."""
        return self.done == self.rows


class RowReader(Protocol):
    """What reads the rows of a run."""

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """Each row that has an outcome, as column -> value."""

    def to_polars(self) -> "pl.DataFrame":
        """The same in a frame."""


class RunSummary(Struct, frozen=True):
    """The state of a run after a session: what every row so far came to, whoever recorded it.

    `finished`: every row has an outcome and the result is published. `had_work`: False where that was so before this
    session, so that it sent and changed nothing. `elapsed_s` (seconds), `retries`, `pushbacks` (times that the service
    asked to slow down) and `pool` are of this session alone; `pool` counts the request for prices, too, and is `None`
    where nothing was sent, or not over our connections. `replaced`: earlier outcomes of rows that `--retry` reset, over
    all sessions; they may have been billed. `reopened`: how many rows this session reset; `None` without `--retry`.
    `prices` are those of the first target, `books` those of all; `targets` tells of further ones in words.
    `max_output_tokens`: the cap on an answer that the job sets. `has_own_caps`: rows bring their requests, and may have
    caps in them. `has_earlier_result`: not finished, and the result that was published before a `--retry` still stands.
    `updates`: of an update, the id of the run whose place it takes. `given_up`: what runs had cost that were given up
    for it, beyond the cost here. `forgotten`: earlier runs that this session removed, and how many bytes of files.
    `is_deduped`: rows take answers of rows of this run that ask the same; `is_reusing`: of earlier runs.
    `limited`: None where the session was for all rows. `accept`: how many of the rows that it was for may have no whole
    answer. `reuse`: how this session's calls met earlier answers; None where none were looked for. `reader`: what reads
    the run's rows; None where nobody can. `cells`: of a matrix, each in the job's order; then `rows` is how many the
    result has: those of the input in each cell and sample. `left_out`: of slices that the job does not name any more.
    `scores`: how the scoring of the result went, where this session did that; `leaderboard`: the figures of its scores.
    """

    run_id: str
    output: Path
    rows: int
    tally: Tally
    prices: PriceBook
    finished: bool
    had_work: bool = True
    elapsed_s: float = 0.0
    retries: int = 0
    pushbacks: int = 0
    replaced: Tally = Tally()
    reopened: int | None = None
    pool: PoolStats | None = None
    max_output_tokens: int | None = None
    has_own_caps: bool = False
    has_earlier_result: bool = False
    updates: str | None = None
    given_up: Tally | None = None
    forgotten: tuple[int, int] | None = None
    limited: Limited | None = None
    warnings: tuple[str, ...] = ()
    books: tuple[PriceBook, ...] = ()
    targets: tuple[str, ...] = ()
    is_deduped: bool = False
    is_reusing: bool = False
    reader: RowReader | None = None
    cells: tuple[CellSummary, ...] = ()
    left_out: LeftOut | None = None
    accept: Accept = Accept()
    reuse: ReuseCounts | None = None
    scores: ScoreCounts | None = None
    leaderboard: Leaderboard | None = None

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """Each row that has an outcome, in the order of the result, as column -> value; some in memory at a time.

        Raises `UsageError` where there is nothing to read, `CheckpointError` where a file of the run is damaged.
        """
        return self._reader().iter_rows()

    def to_polars(self) -> "pl.DataFrame":
        """The rows that have an outcome, in the order of the result, all in memory. Raises as `iter_rows` does."""
        return self._reader().to_polars()

    def _reader(self) -> RowReader:
        if self.reader is None:
            raise UsageError(f"{self.output}: the rows of this summary can't be read from here.")
        return self.reader

    def __str__(self) -> str:
        return self.describe()

    def _repr_html_(self) -> str:
        """What a notebook shows. Nothing in it is a link or a script, whatever stands in cells and messages."""
        return html_of(self.describe())

    @property
    def succeeded(self) -> int:
        """Rows with a whole answer."""
        return self.tally.succeeded

    @property
    def incomplete(self) -> int:
        """Rows that were billed but cut short, blocked, refused or empty."""
        return self.tally.incomplete

    @property
    def failed(self) -> int:
        """Rows without an answer."""
        return self.tally.failed

    @property
    def cost_usd(self) -> Decimal | None:
        """The exact sum over all priced answers; `None` where none that was, or may have been, billed has a price.

        Answers that did not fit are among them, also of rows that have no outcome yet.
        """
        billed = self.tally.new_answers + self.tally.rejected
        is_unknown = self.tally.unpriced == billed if billed else self.possible_charges.charges > 0
        return None if is_unknown else EXACT.add(self.tally.cost_usd, self.tally.rejected_cost_usd)

    @property
    def possible_charges(self) -> Tally:
        """Possible charges beyond the rows' cost, those from before a `--retry` included."""
        now, before = self.tally, self.replaced
        return Tally(
            charges=now.charges + before.charges,
            charges_usd=EXACT.add(now.charges_usd, before.charges_usd),
            charges_unknown=now.charges_unknown + before.charges_unknown,
            charges_in_flight=now.charges_in_flight + before.charges_in_flight,
        )

    @property
    def resent(self) -> int:
        """Rows in flight when a session ended, over all sessions. They are sent again; the service may charge twice."""
        return self.possible_charges.charges_in_flight

    @property
    def is_uncounted(self) -> bool:
        """Whether answers came, and none of them with token counts."""
        return 0 < self.tally.uncounted == self.tally.new_answers

    @property
    def all_succeeded(self) -> bool:
        """Whether there is a whole answer for every row, whatever is accepted."""
        return self.finished and self.succeeded == self.rows

    @property
    def ended_well(self) -> bool:
        """Whether every row that the session was for has its outcome, and as many a whole answer as `accept` wants.

        And that no scorer failed on more than a tenth of them.
        """
        is_scored = self.scores is None or not self.scores.has_too_many_errors
        return self.accepted.is_done and self.accepted.is_within and is_scored

    @property
    def accepted(self) -> Accepted:
        """How the rows that the session was for stand against what it accepts; without `accept`, each must succeed."""
        first = self.limited
        if first is None:
            failed, incomplete = self.failed, self.incomplete
            return judged(self.accept, self.rows, failed=failed, incomplete=incomplete, is_done=self.finished)
        failed, incomplete, is_done = first.failed, first.incomplete, first.is_reached
        return judged(self.accept, first.rows, failed=failed, incomplete=incomplete, is_limited=True, is_done=is_done)

    def cell_lines(self) -> Iterator[str]:
        """Of a matrix, a line for each cell; of many, one for each model."""
        return described_cells(self.cells)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; amounts of money are strings, so that they stay exact."""
        tally, cost = self.tally, self.cost_usd
        return {
            "run_id": self.run_id,
            "output": str(self.output),
            "finished": self.finished,
            "had_work": self.had_work,
            "ended_well": self.ended_well,
            "rows": self.rows,
            "limit": None if self.limited is None else self.limited.limit,
            "succeeded": tally.succeeded,
            "incomplete": tally.incomplete,
            "failed": tally.failed,
            "remaining": self.rows - tally.calls,
            "failures": dict(sorted(tally.failures.items())),
            "incompletes": dict(sorted(tally.incompletes.items())),
            "accepted": self.accepted.to_dict() if self.accept.is_used else None,
            "attempts": tally.attempts,
            "usage": {name: None if self.is_uncounted else getattr(tally, name) for name in Usage.__struct_fields__},
            "cost_usd": None if cost is None else format_amount(cost),
            "unpriced": tally.unpriced,
            "rejected": {
                "asks": tally.rejected + tally.reasked,
                "cost_usd": format_amount(EXACT.add(tally.rejected_cost_usd, tally.reasked_cost_usd)),
            },
            "reused": {
                "rows": tally.reused,
                "saved_usd": format_amount(tally.reused_cost_usd),
                "unpriced": tally.reused_unpriced,
                "not_taken": {} if self.reuse is None else self.reuse.reasons(is_deduped=self.is_deduped),
            },
            "cost_excludes": {"rows": tally.excluding, "kinds": dict(sorted(tally.excluded.items()))},
            "reported": _reported(tally),
            "thrown": self.possible_charges.charges,
            "thrown_cost_usd": format_amount(self.possible_charges.charges_usd),
            "thrown_unpriced": self.possible_charges.charges_unknown,
            "row_cost": {
                "median_usd": None if (median := median_cost(tally)) is None else format_amount(median),
                "highest_usd": None if median is None else format_amount(tally.largest_cost_usd),
            },
            "price_source": price_source((self.prices, *self.books)),
            "targets": list(self.targets),
            **_of_matrix(self),
            "resent": self.resent,
            **_of_what_it_replaces(self),
            "retries": self.retries,
            "pushbacks": self.pushbacks,
            "pool": msgspec.to_builtins(self.pool),
            "elapsed_s": round(self.elapsed_s, 3),
            "warnings": list(self.warnings),
            **({} if self.scores is None else {"scored": self.scores.to_dict()}),
            **({} if self.leaderboard is None else {"leaderboard": self.leaderboard.to_dict()}),
        }

    def describe(self, *, verbose: bool = False, command: str = RUN_ALL, width: int = 100) -> str:
        """A few lines for a person. Amounts are rounded; `to_dict` has the exact ones.

        `verbose`: connections, too. `command`: what runs all rows, for a session that was not for all. `width`: columns
        that a leaderboard at their end may have.
        """
        return described(self, verbose=verbose, command=command, width=width)


def _reported(tally: Tally) -> dict[str, Any]:
    """What the service itself says of costs, JSON-ready."""
    return {
        "answers": tally.reported,
        "cost_usd": format_amount(tally.reported_cost_usd),
        "differing": tally.differing,
        "differing_cost_usd": format_amount(tally.differing_reported_usd),
        "differing_priced_usd": format_amount(tally.differing_cost_usd),
    }


def _of_matrix(summary: RunSummary) -> dict[str, Any]:
    """What a summary tells of cells; nothing without a matrix."""
    if not summary.cells:
        return {}
    left_out = None if summary.left_out is None else summary.left_out.to_dict()
    return {"cells": [each.to_dict() for each in summary.cells], "left_out": left_out}


def _of_what_it_replaces(summary: RunSummary) -> dict[str, Any]:
    """What a summary tells of outcomes that `--retry` reset, and of runs that an update follows."""
    replaced, before, forgotten = summary.replaced, summary.given_up, summary.forgotten
    given_up = None if before is None else {
        "answers": before.new_answers,
        "cost_usd": format_amount(EXACT.add(before.cost_usd, before.rejected_cost_usd)),
        "unpriced": before.unpriced,
        "thrown_cost_usd": format_amount(before.charges_usd),
        "thrown_unpriced": before.charges_unknown,
    }  # fmt: skip
    return {
        "replaced": {
            "rows": replaced.calls,
            "cost_usd": format_amount(replaced.cost_usd),
            "unpriced": replaced.unpriced,
        },
        "reopened": summary.reopened,
        "updates": summary.updates,
        "given_up": given_up,
        "forgotten": None if forgotten is None else dict(zip(("runs", "bytes"), forgotten, strict=True)),
    }


def cap_warning(largest_output_tokens: int, cap: int | None) -> str:
    """What to say where an answer has more tokens than its cap; "" where none has."""
    if cap is None or largest_output_tokens <= cap:
        return ""
    return (
        f"an answer has {largest_output_tokens:,} output tokens, more than the token cap ({cap:,}): the service does "
        "not keep the cap. From now on a budget sets aside the largest answer seen for each row. In chat, another "
        "params.max_tokens_field may be obeyed."
    )


def late_warnings(tally: Tally, prices: PriceBook | Sequence[PriceBook], cap: int | None = None) -> Iterator[str]:
    """What only the answers could show. `prices`: of each target. `cap`: the most tokens that an answer was to have."""
    known = [book.rates for book in ([prices] if isinstance(prices, PriceBook) else prices) if book.rates is not None]
    by_request = [rates.per_request is not None for rates in known]
    if words := cap_warning(tally.largest_output_tokens, cap):
        yield words
    what = "token use" if by_request and all(by_request) else "cost"
    if (uncounted := tally.uncounted - tally.contradictory) > 0:
        yield f"{count(uncounted, 'answer')} came without token counts: {_whose(uncounted)} {what} is unknown"
    if tally.contradictory:
        answers, whose = count(tally.contradictory, "answer"), _whose(tally.contradictory)
        yield (
            f"{answers} came with token counts that contradict each other: {whose} {what} is unknown, and the column "
            "cost_excludes holds the counts as they came"
        )
    if tally.excluding:
        kinds = ", ".join(f"{kind} ({rows:,})" for kind, rows in sorted(tally.excluded.items()))
        answers, whose = count(tally.excluding, "answer"), _whose(tally.excluding)
        yield f"{answers} used what no price covers: {kinds}. {whose.capitalize()} cost is at least what is shown"
    if tally.long_inputs and any(rates.per_request is None and rates.above is None for rates in known):
        yield (
            f"{count(tally.long_inputs, 'answer')} took more than {LONG_INPUT_TOKENS:,} input tokens, above which many "
            "models cost more; prices.above sets what they cost then"
        )
    if above := tally.largest_input_above_bytes:
        tokens = count(above, "token")
        yield f"the service adds input: an answer was billed for {tokens} more than its request has bytes"
    if tally.at_cap:
        was, it_says = ("was", "it says that it") if tally.at_cap == 1 else ("were", "they say that they")
        yield (
            f"{count(tally.at_cap, 'answer')} took exactly params.max_output_tokens and {was} probably cut there, "
            f"although {it_says} ended normally. Raise params.max_output_tokens"
        )
    if tally.differing:
        sums = tally.differing_reported_usd, tally.differing_cost_usd
        theirs, ours = map(format_rounded, sums)
        if theirs == ours:  # they differ by less than is shown
            theirs, ours = (f"${format_amount(amount)}" for amount in sums)
        answers = count(tally.differing, "answer")
        yield f"the service reported {theirs} for {answers}; at this run's prices they cost {ours}"


class RunStoppedError(CometbatchError):
    """The run ended before its last row and can be resumed; `summary` holds what it came to so far.

    `fix`: what has to be mended before (`records.Fix`). `budget_to_finish`: where that is the budget, about the one in
    US dollars with which the run gets to its last row; None where nobody can tell.
    """

    def __init__(
        self, message: str, summary: RunSummary, fix: Fix = "nothing", budget_to_finish: Decimal | None = None
    ) -> None:
        super().__init__(message)
        self.summary = summary
        self.fix = fix
        self.budget_to_finish = budget_to_finish


class ServiceRefusedError(RunStoppedError):
    """The service refuses the job (key, credit, model, path), answers nothing, or ignores what `response` asks for."""

    exit_code = 5


class BudgetReachedError(RunStoppedError):
    """The next row could have passed the budget."""

    exit_code = 4


class HungUpRunError(RunStoppedError):
    """SIGHUP, as when a terminal is closed: what was in flight is finished."""

    exit_code = 129


class InterruptedRunError(RunStoppedError):
    """Ctrl-C (SIGINT): what was in flight is finished."""

    exit_code = 130


class TerminatedRunError(RunStoppedError):
    """SIGTERM: what was in flight is finished."""

    exit_code = 143


def _whose(answers: int) -> str:
    return "its" if answers == 1 else "their"
