"""What a run came to, for a person and for a program. Pure: numbers in, words out."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from cometbatch.errors import CometbatchError
from cometbatch.money.exact import EXACT, format_amount
from cometbatch.records import Fix, PoolStats, PriceBook, Tally, Usage


class RunSummary(Struct, frozen=True):
    """The state of a run after a session: what every row so far came to, whoever recorded it.

    `finished`: every row has an outcome and the result is published. `had_work`: False where that was so before this
    session, so that it sent and changed nothing. `elapsed_s`, `retries`, `pushbacks` and `pool` are of this session
    alone; `pool` counts the request for prices, too, and is `None` where nothing was sent, or not over our connections.
    `replaced`: what was taken back to be answered again, over all sessions; it may have been billed too. `reopened`:
    how many rows this session took back; `None` where that was not asked for.
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
    warnings: tuple[str, ...] = ()

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
        """The exact sum over the priced rows; `None` where no row that was, or may have been, billed has a price."""
        billed = self.succeeded + self.incomplete
        is_unknown = self.tally.unpriced == billed if billed else self.all_thrown.charges > 0
        return None if is_unknown else self.tally.cost_usd

    @property
    def all_thrown(self) -> Tally:
        """The attempts that may have been billed beyond the rows' cost, those before a `--retry` included."""
        now, before = self.tally, self.replaced
        return Tally(
            charges=now.charges + before.charges,
            charges_usd=EXACT.add(now.charges_usd, before.charges_usd),
            charges_unknown=now.charges_unknown + before.charges_unknown,
            charges_in_flight=now.charges_in_flight + before.charges_in_flight,
        )

    @property
    def resent(self) -> int:
        """Rows sent again after a crash, over all sessions: what came of them before is not known."""
        return self.all_thrown.charges_in_flight

    @property
    def is_uncounted(self) -> bool:
        """Whether answers came, and none of them with token counts."""
        return 0 < self.tally.uncounted == self.succeeded + self.incomplete

    @property
    def all_succeeded(self) -> bool:
        """Whether there is a whole answer for every row."""
        return self.finished and self.succeeded == self.rows

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; amounts of money are strings, so that they stay exact."""
        tally, cost = self.tally, self.cost_usd
        return {
            "run_id": self.run_id,
            "output": str(self.output),
            "finished": self.finished,
            "had_work": self.had_work,
            "rows": self.rows,
            "succeeded": tally.succeeded,
            "incomplete": tally.incomplete,
            "failed": tally.failed,
            "remaining": self.rows - tally.calls,
            "failures": dict(sorted(tally.failures.items())),
            "attempts": tally.attempts,
            "usage": {name: None if self.is_uncounted else getattr(tally, name) for name in Usage.__struct_fields__},
            "cost_usd": None if cost is None else format_amount(cost),
            "unpriced": tally.unpriced,
            "reported": {
                "answers": tally.reported,
                "cost_usd": format_amount(tally.reported_cost_usd),
                "differing": tally.differing,
                "differing_cost_usd": format_amount(tally.differing_reported_usd),
                "differing_priced_usd": format_amount(tally.differing_cost_usd),
            },
            "thrown": self.all_thrown.charges,
            "thrown_cost_usd": format_amount(self.all_thrown.charges_usd),
            "thrown_unpriced": self.all_thrown.charges_unknown,
            "price_source": self.prices.source,
            "resent": self.resent,
            "replaced": {
                "rows": self.replaced.calls,
                "cost_usd": format_amount(self.replaced.cost_usd),
                "unpriced": self.replaced.unpriced,
            },
            "reopened": self.reopened,
            "retries": self.retries,
            "pushbacks": self.pushbacks,
            "pool": msgspec.to_builtins(self.pool),
            "elapsed_s": round(self.elapsed_s, 3),
            "warnings": list(self.warnings),
        }

    def describe(self) -> str:
        """A few lines for a person."""
        lines = [self._rows(), self._tokens(), self._bill(), *self._reported()]
        if session := "; ".join(self._session()):
            lines.append(f"this session: {session}")
        lines.extend(self._replaced())
        lines.extend(self._thrown())
        lines.append(f"result: {self.output}" if self.finished else "no result yet: the run is not finished")
        if not self.had_work:
            lines.append("it was finished before: nothing was sent, nothing was changed")
        return "\n".join(lines)

    def _session(self) -> Iterator[str]:
        if self.retries or self.pushbacks:
            yield f"{self.retries:,} retries, {self.pushbacks:,} times the service pushed back"
        if (pool := self.pool) is not None:
            most = f"at most {pool.most_open:,} open at once"
            yield f"connections: {pool.requests:,} requests over {pool.opened:,}, {most}"

    def _replaced(self) -> Iterator[str]:
        if self.replaced.calls:
            unpriced = f", {self.replaced.unpriced:,} without a price" if self.replaced.unpriced else ""
            spent = f"${format_amount(self.replaced.cost_usd)}{unpriced}, on top of the cost above"
            yield f"replaced answers: {self.replaced.calls:,}, {spent}"
        if self.reopened is not None:
            yield f"taken back by --retry: {self.reopened:,} rows" if self.reopened else "no row matches --retry"

    def _reported(self) -> Iterator[str]:
        """What the service itself says; the currency is presumed, so it is told apart and never added."""
        tally = self.tally
        if tally.reported:
            yield f"the service's own word: ${format_amount(tally.reported_cost_usd)} for {tally.reported:,} answers"

    def _thrown(self) -> Iterator[str]:
        """What may have been billed beyond the rows' cost, and why."""
        tally = self.all_thrown
        if not tally.charges:
            return
        unknown = f", {tally.charges_unknown:,} of them without a price" if tally.charges_unknown else ""
        resent = f", {self.resent:,} of them rows in flight when an earlier session died" if self.resent else ""
        yield (
            f"besides: {tally.charges:,} attempts may be billed that brought no answer{resent}: "
            f"at most ${format_amount(tally.charges_usd)}{unknown}"
        )

    def _rows(self) -> str:
        tally = self.tally
        return (
            f"{tally.calls:,} of {self.rows:,} rows: {tally.succeeded:,} succeeded, {tally.incomplete:,} incomplete, "
            f"{tally.failed:,} failed{_kinds(tally.failures)}"
        )

    def _tokens(self) -> str:
        tally = self.tally
        if self.is_uncounted:
            return "tokens: unknown"
        cached = _part(tally.cache_read_input_tokens, "read from cache")
        reasoning = _part(tally.reasoning_output_tokens, "spent on reasoning")
        return f"tokens: {tally.input_tokens:,} in{cached}, {tally.output_tokens:,} out{reasoning}"

    def _bill(self) -> str:
        cost = self.cost_usd
        known = "cost: unknown" if cost is None else f"cost: ${format_amount(cost)} (prices: {self.prices.source})"
        uncounted = min(self.tally.uncounted, self.tally.unpriced) if self.prices.rates is not None else 0
        rest = self.tally.unpriced - uncounted
        return known + _rows_without(uncounted, "token counts") + _rows_without(rest, "a price")


def late_warnings(tally: Tally, prices: PriceBook) -> Iterator[str]:
    """What only the answers could show."""
    if tally.uncounted:
        what = "token use" if prices.rates is not None and prices.rates.per_request is not None else "cost"
        yield f"{tally.uncounted:,} answers came without token counts: their {what} is unknown"
    if tally.differing:
        theirs, ours = format_amount(tally.differing_reported_usd), format_amount(tally.differing_cost_usd)
        yield f"the service reported ${theirs} for {tally.differing:,} answers; at this run's prices they cost ${ours}"


class RunStoppedError(CometbatchError):
    """The run ended before its last row and can be carried on; `summary` holds what it came to so far.

    `fix`: what has to be mended before (`records.Fix`).
    """

    def __init__(self, message: str, summary: RunSummary, fix: Fix = "nothing") -> None:
        super().__init__(message)
        self.summary = summary
        self.fix = fix


class ServiceRefusedError(RunStoppedError):
    """The service refuses the job: key, credit, model, path, or nothing but pushback."""

    exit_code = 5


class BudgetReachedError(RunStoppedError):
    """The next row could have passed the budget."""

    exit_code = 4


class InterruptedRunError(RunStoppedError):
    """Ctrl-C (SIGINT): what was in flight is finished."""

    exit_code = 130


class TerminatedRunError(RunStoppedError):
    """SIGTERM: what was in flight is finished."""

    exit_code = 143


def _kinds(failures: dict[str, int]) -> str:
    return f" ({', '.join(f'{count:,} {kind}' for kind, count in sorted(failures.items()))})" if failures else ""


def _rows_without(count: int, what: str) -> str:
    return f"; {count:,} rows without {what}" if count else ""


def _part(tokens: int, words: str) -> str:
    return f" ({tokens:,} {words})" if tokens else ""
