"""A session of `run`: from what earlier sessions left to the published result."""

import asyncio
import contextlib
import functools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any

import msgspec
from msgspec import Struct

from cometbatch.commands import plain_session
from cometbatch.commands.cell_summaries import cell_summaries, left_out, slices_by_target, sum_of
from cometbatch.commands.checks import describe_missing_columns
from cometbatch.commands.deduping import describe_late, is_deduped
from cometbatch.commands.due_ranges import Owners, describe_fewer, owners_of
from cometbatch.commands.looks import rest_of, tell_before
from cometbatch.commands.open_files import fitted
from cometbatch.commands.open_rows import RowsOf
from cometbatch.commands.progress_line import Progress
from cometbatch.commands.reusing import earlier_answers
from cometbatch.commands.score_publishing import publish_scored
from cometbatch.commands.session_start import SessionStart, Work, in_thread, sentences
from cometbatch.commands.targets import check_budgets
from cometbatch.control.bounds import describe_unbounded
from cometbatch.errors import CometbatchError
from cometbatch.job import Job
from cometbatch.money.exact import ROUNDING
from cometbatch.money.prices import price_book
from cometbatch.records import Tally
from cometbatch.results import tallies
from cometbatch.results.reuse import EarlierAnswers
from cometbatch.results.summary import (
    BudgetReachedError,
    HungUpRunError,
    InterruptedRunError,
    Limited,
    RunSummary,
    ServiceRefusedError,
    TerminatedRunError,
    cap_warning,
    late_warnings,
)
from cometbatch.run_state.begin import remove_leftovers
from cometbatch.run_state.directory import drop_caches
from cometbatch.run_state.drift import describe_targets
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.recorded_rows import look_below
from cometbatch.run_state.run import Run, counted, lacking
from cometbatch.run_state.succession import settle
from cometbatch.runner.ports import Stop
from cometbatch.transport import Transport

STOPPED = {
    "budget": BudgetReachedError,
    "refused": ServiceRefusedError,
    "hung_up": HungUpRunError,
    "interrupted": InterruptedRunError,
    "terminated": TerminatedRunError,
}

CANCELLED = "Cancelled."
"""Why a run stopped whose task was cancelled."""


class RunSession(Struct, frozen=True):
    """The work of one process on a run, from what earlier ones left to the result.

    `reopened`: calls that it resets. `limit`: it answers only the rows below, in each slice; None for all. `found`: the
    possible charges that it found when it began.
    """

    start: SessionStart
    run: Run
    transport: Transport
    reopened: int | None = None
    limit: int | None = None
    found: Tally | None = None

    async def carry_out(self) -> RunSummary:
        """Bring the missing calls to their outcomes, and publish once all have one.

        Raises a `RunStoppedError` where that ends early. It is the cause of a `CancelledError`, and its summary says
        whether the run has finished all the same.
        """
        run, job = self.run, self.start.checked.job
        shared = self.start.options.shared_budget
        asked = run.manifest.active_targets if run.manifest.has_matrix else run.targets
        check_budgets(self.start.checked, run.manifest.targets, asked, shared=shared is not None)
        size, queues = run.manifest.partition_rows, len(run.manifest.queues())
        most = job.limits.concurrency
        owners = await in_thread(self.start.files, owners_of, self.start.engine, run, self.limit, most)
        workers = 1 if owners is None else owners.workers
        with fitted(-(-most // workers), size, queues, workers=workers) as (each, connections, lowered):
            self.transport.limit_connections(connections)
            return await self._carry_out(min(most, each * workers), lowered, owners)

    async def _carry_out(self, concurrency: int, lowered: str, owners: Owners | None) -> RunSummary:
        run = self.run
        before = await in_thread(self.start.files, tell_before, self.start.checked, run, self.limit)
        told = [*self.start.told, *before]
        looks = rest_of(self.start.checked, run, self.limit) if owners is None else None
        started = time.monotonic()
        run.directory.lock.sign()
        shown = self._begin_to_show(owners, *filter(None, (lowered, *told)))
        cap = run.manifest.token_cap
        shown.warn_of_cap(cap_warning(run.bill.largest_output_tokens, cap))
        stopping, earlier = self.start.stopping, None
        summed = functools.partial(_summed, self, shown, started, is_alone=owners is None)
        try:
            with stopping.heard(shown):
                try:
                    async with self._earlier_answers() as earlier:
                        work = Work(
                            self.start,
                            run,
                            self.transport,
                            shown,
                            slots=concurrency,
                            limit=self.limit,
                            found=self.found,
                            looks=looks,
                            earlier=earlier,
                        )
                        stop = await _send_calls(work, owners)
                finally:
                    shown.close()
                ended = await in_thread(self.start.files, run.looked_at_again)
                is_finished = (
                    stop is None and ended.is_complete
                )  # also where rows beyond the limit were answered before
                if is_finished and owners is not None:  # killed workers' files, which no later session would remove
                    await in_thread(self.start.files, remove_leftovers, ended)
                if is_finished:
                    publishing = functools.partial(publish_for, ended, self.start)
                    stop = await stopping.publish(self.start.files, publishing)
                    is_finished = stop is None
        except asyncio.CancelledError as error:
            cut_short = functools.partial(_cancelled, run, functools.partial(summed, earlier=earlier, told=told))
            raise error from await in_thread(self.start.files, cut_short)
        if is_finished:
            await in_thread(self.start.files, drop_caches, run.directory)
            ended = await in_thread(self.start.files, _in_place, ended)
        limited = await in_thread(self.start.files, look_below, ended, self.limit)
        found = () if looks is None else tuple(words for words in looks.warnings() if words not in told)
        summary = summed(ended, earlier=earlier, told=(*told, *found), finished=is_finished, limited=limited)
        shown.warn_of_cap(cap_warning(summary.tally.largest_output_tokens, cap))
        for warning in (*late_warnings(summary.tally, summary.books), *found):
            shown.warn(warning)
        if stop is not None:
            needed = budget_to_finish(ended, stop.next_usd, self.limit) if stop.kind == "budget" else None
            raise STOPPED[stop.kind](sentences(stop.message, stop.hint), summary, stop.fix, needed)
        return summary

    def _begin_to_show(self, owners: Owners | None, *warnings: str) -> Progress:
        """The progress line, and whoever listens, once told what there is to know before the first request."""
        run, job, options = self.run, self.start.checked.job, self.start.options
        rows = run.manifest.calls if self.limit is None else run.tally.calls + run.calls_due(self.limit)
        on, name = False if options.observers.take_words else options.progress, job.output.path.name
        shown = Progress(rows, counted(run, is_dead=False), on=on, name=name, observers=options.observers)
        options.observers.began(job, run, self.limit)
        if words := describe_fewer(self.start.engine, owners, run, self.limit):
            shown.say(words)
        for warning in (*_warnings(job, run), *warnings):
            shown.warn(warning)
        return shown

    @contextlib.asynccontextmanager
    async def _earlier_answers(self) -> AsyncIterator[EarlierAnswers | None]:
        """The answers of earlier runs that this one may take. Raises `UsageError` where a source can't be read."""
        checked, run = self.start.checked, self.run
        if checked.job.reuse is None:
            yield None
            return
        opened = earlier_answers(checked, checked.job.reuse, run.directory, run)
        earlier = await in_thread(self.start.files, opened.__enter__)
        try:
            yield earlier
        finally:
            opened.__exit__(None, None, None)


async def _send_calls(work: Work, owners: Owners | None) -> Stop | None:
    if owners is None:
        return await plain_session.send_calls(work)
    from cometbatch.commands.worker_session import send_by_owners  # noqa: PLC0415 - a run of one process needs none

    return await send_by_owners(work, owners)


def _cancelled(run: Run, summed: Callable[..., RunSummary]) -> TerminatedRunError | None:
    """What became of the run whose task was cancelled; None where that can't be read: the cancel goes on."""
    with contextlib.suppress(CometbatchError):
        ended = run.looked_at_again()
        return TerminatedRunError(CANCELLED, summed(ended, finished=ended.is_finished))
    return None


def _summed(
    session: RunSession,
    shown: Progress,
    started: float,
    ended: Run,
    *,
    is_alone: bool,
    earlier: EarlierAnswers | None,
    told: Sequence[str],
    finished: bool,
    limited: Limited | None = None,
) -> RunSummary:
    """What the run has come to at the end of this session, which `started` then, by the monotonic clock.

    `is_alone`: this process has sent everything, so that it knows how connections were used.
    """
    return summary_of(
        session.start.checked.job,
        ended,
        told,
        finished=finished,
        limited=limited,
        elapsed_s=time.monotonic() - started,
        retries=shown.retries,
        pushbacks=shown.pushbacks,
        reopened=session.reopened,
        pool=session.transport.pool_stats if is_alone else None,
        reuse=None if earlier is None else earlier.counts,
        scores=None if session.start.scores is None or not finished else session.start.scores.counts,
    )


def publish_for(run: Run, start: SessionStart) -> None:
    """Make the result appear. Raises `NotPublishedError` where it is given up meanwhile."""
    checked, stopping = start.checked, start.stopping
    publish_scored(run, checked.source.schema, checked.answers, start.scores, is_given_up=lambda: stopping.is_given_up)


def _in_place(run: Run) -> Run:
    """A published run where it is from now on: an update has taken the place of the run before it."""
    if run.directory.parts.is_dataset:
        return run
    settle(run.directory.home, run.result)
    return msgspec.structs.replace(run, directory=run.directory.home)


def budget_to_finish(run: Run, next_usd: Decimal | None, limit: int | None = None) -> Decimal | None:
    """About the budget, in US dollars, with which a run gets to its last row; None where nothing is known of costs.

    With a `limit`, to the last row below it.

    The rows that are missing are taken to cost what those with an answer did, and a fifth more: of a matrix, those of
    the same cell. Before the first answer, they are taken to cost what the next one can cost at most. There is room for
    what is set aside for the next call.
    """
    if next_usd is None:
        return None
    rest = next_usd
    for tally, left in _left_by_cell(run, limit):
        priced = tally.new_answers - tally.unpriced
        mean = ROUNDING.divide(tally.cost_usd, Decimal(priced)) if priced > 0 else None
        each = next_usd if mean is None else ROUNDING.multiply(mean, Decimal("1.2"))
        rest = ROUNDING.add(ROUNDING.multiply(each, Decimal(left)), rest)
    total = ROUNDING.add(tallies.spent(run.bill), rest)
    return total.quantize(Decimal((0, (1,), total.adjusted() - 1)), ROUND_CEILING, ROUNDING)


def _left_by_cell(run: Run, limit: int | None) -> Iterator[tuple[Tally, int]]:
    """What each cell came to, and how many of its calls are missing."""
    if not run.manifest.has_matrix:
        yield run.progress.tally, run.calls_due(limit)
        return
    missing = Counter[int]()
    for each in run.due(limit):
        missing[each.slice] += lacking(run, each, run.rows if limit is None else limit)
    for slices in slices_by_target(run.manifest).values():
        yield sum_of(run.progress.by_slice, slices), sum(missing[each] for each in slices)


def summary_of(job: Job, run: Run, looked: Sequence[str] = (), *, finished: bool, **session: Any) -> RunSummary:
    """What a run has come to by now; `session` holds what this session alone knows, `looked` what its rows showed."""
    return RunSummary(
        run_id=run.manifest.run_id,
        output=job.output.path,
        rows=run.manifest.calls,
        tally=counted(run),
        prices=run.manifest.prices,
        books=run.manifest.books,
        targets=tuple(describe_targets(run.manifest)),
        cells=cell_summaries(run),
        left_out=left_out(run),
        finished=finished,
        replaced=run.replaced,
        accept=job.accept,
        updates=run.manifest.follows,
        given_up=run.manifest.given_up,
        max_output_tokens=run.manifest.token_cap,
        has_own_caps=run.manifest.has_whole_requests,
        has_earlier_result=not finished and run.has_earlier_result,
        is_deduped=is_deduped(job, run),
        is_reusing=job.reuse is not None or run.manifest.follows is not None,
        warnings=(
            *_warnings(job, run),
            *looked,
            *late_warnings(counted(run, is_dead=False), run.manifest.books, run.manifest.token_cap),
        ),
        reader=RowsOf(job),
        **session,
    )


def _warnings(job: Job, run: Run) -> Iterator[str]:
    """What whoever pays should know before the first request."""
    manifest = run.manifest
    yield from manifest.warnings
    yield from describe_missing_columns(job, run.columns)
    yield from describe_late(job, run)
    of_cells = dict.fromkeys(describe_unbounded(target.params.extra) for target in job.targets())
    for added in filter(None, () if job.budget.max_cost_usd is None else of_cells):
        yield f"the budget may be passed: the service may add input that is billed beyond what is sent, by {added}"
    if manifest.prices.rates is not None and not manifest.priced_late and _has_other_prices(job, manifest):
        yield "prices changed in the job; this run goes on with the ones that it began with"


def _has_other_prices(job: Job, manifest: Manifest) -> bool:
    """Whether the job says something else of prices than when the run began, in keys that are set."""
    if job.matrix is not None:
        books = {each.cell: manifest.books[each.target] for each in manifest.slices}
        own = (
            (cell.digest, price_book(cell.target.model, settings=cell.prices)[0])
            for cell in job.cells()
            if cell.prices.is_complete
        )
        return any(digest in books and books[digest].rates != book.rates for digest, book in own)
    if job.target.model != manifest.targets[0].target.model:  # whose prices the job has no place for then
        return False
    now, then = job.describe().get("prices"), manifest.job.get("prices")
    return _set(now) != _set(then)


def _set(prices: object) -> object:
    return {key: value for key, value in prices.items() if value is not None} if isinstance(prices, dict) else prices
