"""A run's events, for whoever reads its log: made from what the run tells, and handed to a function.

What comes often is told seldom: pace and refusals every 10 s at most, failed rows one by one for the first of each kind
only. All of it is noticed at the look that is taken each second, so that rows cost next to nothing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

from cometbatch.commands.cell_summaries import told_labels
from cometbatch.commands.clock import now
from cometbatch.commands.observers import Listener, Moment
from cometbatch.control.failure_words import plain_word
from cometbatch.job import Job
from cometbatch.money.exact import EXACT
from cometbatch.records import Failed, Outcome, Partition
from cometbatch.results.events import Level, event_of
from cometbatch.results.summary import RunStoppedError, RunSummary
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.run import Run
from cometbatch.version import VERSION

EVERY_S: Final = 10.0
"""Seconds between two events of progress, and at least between two of the same kind that could come each second."""

OUTAGE_S: Final = 2.0
"""Seconds without an answer that are an outage. A quota that is used up within a second is none."""

PACE_FACTOR: Final = 1.5
"""Times that the pace is above or below the one told last, before it is told again."""

NEAR: Final = Decimal("0.8")
"""Share of the budget that is near."""

TOLD_OF_A_KIND: Final = 5
"""Failed rows of one kind that are told one by one."""

REASONS: Final = {4: "budget", 5: "refused", 129: "hung_up", 130: "interrupted", 143: "terminated"}
"""Why a run stopped, by its exit code."""

FELL_SHORT: Final = 3
"""The exit code of a run that is finished, with more rows without a whole answer than are accepted."""


class EventLog(Listener):
    """Hands a run's events to `emit`. `with_progress`: also one every 10 s that says how far it is."""

    takes_words = True

    def __init__(self, emit: Callable[[dict[str, Any]], object], *, with_progress: bool = True) -> None:
        self._emit = emit
        self._with_progress = with_progress
        self._rows = 0
        self._manifest: Manifest | None = None  # of a run with a matrix
        self._cap: Decimal | None = None
        self._is_near = False
        self._failed = Counter[str]()  # of this session, by kind
        self._untold = Counter[str]()  # those of them that are still to be told, as numbers
        self._retries = 0
        self._refusals, self._longest_wait_s = 0, 0.0
        self._unanswered_s = 0.0  # of the outage that is under way
        self._told_at: dict[str, float] = {}  # when each kind of event was last told
        self._last: Moment | None = None  # at which progress was last told
        self._pace_told: Moment | None = None

    def began(self, job: Job, run: Run, limit: int | None) -> None:
        """See `Listener`."""
        done = run.tally.calls
        self._rows = run.manifest.calls if limit is None else done + run.calls_due(limit)
        self._cap = job.budget.max_cost_usd
        matrix = job.matrix
        self._manifest = None if matrix is None else run.manifest
        of_matrix: dict[str, Any] = {} if matrix is None else {"cells": len(matrix.cells), "samples": matrix.samples}
        session = run.progress.last
        self._tell(
            "run_started",
            run_id=run.manifest.run_id,
            session=None if session is None else session.number,
            output=job.output.path,
            model=job.target.model,
            rows=run.manifest.calls,
            done=done,
            limit=limit,
            budget_usd=self._cap,
            version=VERSION,
            **of_matrix,
        )

    def recorded(self, outcomes: Sequence[Outcome], in_flight: int) -> None:  # noqa: ARG002 - as it is told
        """See `Listener`."""
        for outcome in outcomes:
            if type(outcome) is Failed:
                self._note_failed(outcome)

    def _note_failed(self, outcome: Failed) -> None:
        failure = outcome.failure
        self._failed[failure.kind] += 1
        if self._failed[failure.kind] > TOLD_OF_A_KIND:
            self._untold[failure.kind] += 1
            return
        self._tell(
            "row_failed",
            **self._place(outcome.ordinal),
            kind=failure.kind,
            status=failure.status,
            code=plain_word(failure.code),
            request_id=plain_word(failure.request_id),
            attempts=outcome.attempts,
        )

    def asked_to_slow_down(self, wait_s: float) -> None:
        """See `Listener`."""
        self._refusals += 1
        self._longest_wait_s = max(self._longest_wait_s, wait_s)

    def retried(self) -> None:
        """See `Listener`."""
        self._retries += 1

    def committed(self, partition: Partition) -> None:
        """See `Listener`."""
        first, rows = partition.first_row, partition.row_count
        where = self._slice(partition.slice)
        self._tell("part_committed", partition=partition.index, first_row=first, rows=rows, **where)

    def _place(self, ordinal: int) -> dict[str, Any]:
        """The row of a call; of a matrix, its cell and sample, too."""
        if self._manifest is None:
            return {"row": ordinal}
        number, row = divmod(ordinal, self._manifest.input.rows)
        return {"row": row, **self._slice(number)}

    def _slice(self, number: int) -> dict[str, Any]:
        if self._manifest is None:
            return {}
        found = self._manifest.slices[number]
        return {"cell": told_labels(self._manifest, found.labels), "sample": found.sample}

    def warned(self, words: str) -> None:
        """See `Listener`."""
        self._tell("warning", message=words)

    def noted(self, words: str) -> None:
        """See `Listener`."""
        self._tell("note", message=words)

    def looked(self, moment: Moment) -> None:
        """See `Listener`."""
        self._tell_outage(moment)
        self._tell_pace(moment)
        if self._refusals and self._is_due("rate_limited", moment):
            self._tell_refusals()
        if self._last is None:
            self._last = moment
        elif moment.at - self._last.at >= EVERY_S:
            self._tell_failed()
            self._tell_progress(moment, self._last)
            self._last = moment
        spent, cap = moment.spent_usd, self._cap
        if spent is not None and cap is not None and not self._is_near and spent >= EXACT.multiply(NEAR, cap):
            self._is_near = True
            self._tell("budget_near", spent_usd=spent, budget_usd=cap)

    def _tell_outage(self, moment: Moment) -> None:
        was, self._unanswered_s = self._unanswered_s, moment.unanswered_s if moment.unanswered_s >= OUTAGE_S else 0.0
        if self._unanswered_s and not was:
            self._tell("outage_began", unanswered_s=round(moment.unanswered_s, 1))
        elif was and not self._unanswered_s:
            self._tell("outage_ended", unanswered_s=round(was, 1))

    def _tell_pace(self, moment: Moment) -> None:
        told, pace = self._pace_told, moment.pace
        if told is None:
            self._pace_told = moment
            return
        was = told.pace
        pairs = ((pace.window, was.window), (pace.per_s or 0.0, was.per_s or 0.0))
        if any(_differ(one, other) for one, other in pairs) and self._is_due("pace_changed", moment):
            self._pace_told = moment
            per_s, was_per_s = (None if each is None else round(each, 2) for each in (pace.per_s, was.per_s))
            was_then = {"window": was.window, "per_s": was_per_s}
            self._tell("pace_changed", window=pace.window, per_s=per_s, was=was_then)

    def _is_due(self, name: str, moment: Moment) -> bool:
        """Whether an event of this kind may be told, which counts as told then."""
        if moment.at - self._told_at.get(name, -EVERY_S) < EVERY_S:
            return False
        self._told_at[name] = moment.at
        return True

    def _tell_refusals(self) -> None:
        times, longest, self._refusals, self._longest_wait_s = self._refusals, self._longest_wait_s, 0, 0.0
        self._tell("rate_limited", times=times, wait_s=round(longest, 1))

    def _tell_failed(self) -> None:
        untold, self._untold = self._untold, Counter()
        for kind, rows in sorted(untold.items()):
            self._tell("rows_failed", kind=kind, rows=rows, total=self._failed[kind])

    def _tell_progress(self, moment: Moment, last: Moment) -> None:
        if not self._with_progress:
            return
        tally = moment.tally
        rate = (tally.calls - last.tally.calls) / (moment.at - last.at)
        remaining = self._rows - tally.calls
        self._tell(
            "progress",
            rows=self._rows,
            succeeded=tally.succeeded,
            incomplete=tally.incomplete,
            failed=tally.failed,
            remaining=remaining,
            cost_usd=tally.cost_usd,
            unpriced=tally.unpriced,
            in_flight=moment.in_flight,
            retries=self._retries,
            rows_per_s=round(rate, 2),
            left_s=round(remaining / rate) if rate else None,
            waiting_for=moment.waiting_for or None,
        )

    def ended(self, summary: RunSummary | None, error: BaseException | None) -> None:
        """See `Listener`. What else than a stop ends a run is told by who called it, to whom it is raised."""
        if self._refusals:
            self._tell_refusals()
        self._tell_failed()
        if summary is None:
            return
        if isinstance(error, RunStoppedError):
            level: Level = "error" if error.exit_code in (4, 5) else "warning"  # the others are signals
            said = {"reason": REASONS.get(error.exit_code), "fix": error.fix, "message": error.args[0]}
            said |= {"exit_code": error.exit_code, "budget_to_finish_usd": error.budget_to_finish}
            self._tell("run_stopped", level, **said, **summary.to_dict())
        else:
            well = summary.ended_well
            exit_code = 0 if well else FELL_SHORT
            self._tell("run_finished", None if well else "warning", exit_code=exit_code, **summary.to_dict())

    def _tell(self, name: str, level: Level | None = None, **fields: Any) -> None:
        self._emit(event_of(name, now(), fields, level))


def _differ(pace: float, told: float) -> bool:
    return not told / PACE_FACTOR < pace < told * PACE_FACTOR if told else pace > 0
