"""A session of `run`: from what earlier sessions left to the published result."""

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from cometbatch.commands.checks import Checked, check_budget, describe_extra, describe_missing_columns
from cometbatch.commands.clock import now
from cometbatch.commands.progress_line import Progress
from cometbatch.commands.session_watch import show_waiting, signals_handled
from cometbatch.control.acceptance import accept_all
from cometbatch.control.bounds import describe_unbounded
from cometbatch.control.budget import Budget
from cometbatch.control.classify import classify
from cometbatch.engines.session import Ports, run_partitions
from cometbatch.errors import InputError, InputLostError
from cometbatch.job import Job
from cometbatch.limiting.limits import Limits
from cometbatch.money import prices as pricing
from cometbatch.results import columns as output
from cometbatch.results import parts
from cometbatch.results import tally as tallies
from cometbatch.results.summary import (
    BudgetReachedError,
    HungUpRunError,
    InterruptedRunError,
    RunSummary,
    ServiceRefusedError,
    TerminatedRunError,
    late_warnings,
)
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest, metadata_of
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.run import Run
from cometbatch.runner.ports import Policy, Service, Stop
from cometbatch.runner.reply_reader import Reader
from cometbatch.runner.turns import Runner
from cometbatch.store.local import write_aside
from cometbatch.transport import Transport
from cometbatch.wire import Keep
from cometbatch.wire.envelope import request_id_of

if TYPE_CHECKING:
    import httpx

Returned = TypeVar("Returned")

STOPPED = {
    "budget": BudgetReachedError,
    "refused": ServiceRefusedError,
    "hung_up": HungUpRunError,
    "interrupted": InterruptedRunError,
    "terminated": TerminatedRunError,
}


class Turn(Struct, frozen=True):
    """What a session has from its start: job, run directory, a thread for files. `http` replaces the network."""

    checked: Checked
    directory: RunDirectory
    files: ThreadPoolExecutor
    http: "httpx.AsyncBaseTransport | None"


async def in_thread(files: ThreadPoolExecutor, work: Callable[..., Returned], *arguments: object) -> Returned:
    """Do work that reads and writes files while the caller's event loop goes on.

    It is waited for even where the caller was cancelled: the lock must not be released while files are written.
    """
    task = asyncio.get_running_loop().run_in_executor(files, functools.partial(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class RunSession(Struct, frozen=True):
    """The work of one process on a run, from what earlier ones left to the result. `reopened`: calls that it resets."""

    turn: Turn
    run: Run
    transport: Transport
    reopened: int | None = None

    async def carry_out(self, progress: bool | None) -> RunSummary:
        """Bring the missing calls to their outcomes and publish. Raises a `RunStoppedError` where that ends early."""
        run, job = self.run, self.turn.checked.job
        check_budget(job, self.turn.checked.target, run.manifest.prices)
        started = time.monotonic()
        run.directory.lock.sign()
        shown = Progress(run.rows, run.progress.tally, on=progress)
        for warning in _warnings(job, run.manifest):
            shown.say(f"Warning: {warning}")
        try:
            stop = await self._run_calls(shown)
        finally:
            shown.close()
        ended = await in_thread(self.turn.files, run.looked_at_again)
        if stop is None:
            await in_thread(self.turn.files, _publish, ended, self.turn.checked)
        summary = summary_of(
            job,
            ended,
            finished=stop is None,
            elapsed_s=time.monotonic() - started,
            retries=shown.retries,
            pushbacks=shown.pushbacks,
            reopened=self.reopened,
            pool=self.transport.pool_stats,
        )
        for warning in late_warnings(summary.tally, summary.prices):
            shown.say(f"Warning: {warning}")
        if stop is not None:
            raise STOPPED[stop.kind](_sentences(stop.message, stop.hint), summary, stop.fix)
        return summary

    async def _run_calls(self, shown: Progress) -> Stop | None:
        run, checked = self.run, self.turn.checked
        slots, session = checked.job.limits.concurrency, run.progress.last
        assert session is not None  # noqa: S101 - each run has begun a session before it comes here
        maker = checked.row_maker()
        partitions = Partitions(
            run,
            session.number,
            lambda wanted: checked.source.tables(run.manifest.input, wanted),
            maker.make,
            maker.columns,
            slots=slots,
        )
        marks = run.directory.new_marks(run.manifest.run_id, session.number, 2 * slots)
        showing: asyncio.Task[None] | None = None

        @contextlib.contextmanager
        def watched(runner: Runner) -> Iterator[None]:
            nonlocal showing
            showing = asyncio.create_task(show_waiting(runner, partitions, shown))
            with signals_handled(runner, shown):
                yield

        try:
            return await run_partitions(partitions, marks, self._ports(shown), watched=watched)
        except InputError as error:
            raise InputLostError(f"{error} What was in flight is recorded; nothing more was sent.") from error
        finally:
            if showing is not None:
                showing.cancel()

    def _ports(self, shown: Progress) -> Ports:
        run, limits, patience = self.run, self.turn.checked.job.limits, self.turn.checked.job.retry
        meter, columns = pricing.meter(run.manifest.prices.rates), run.manifest.columns
        keep = Keep(raw="raw" in columns, reasoning="reasoning" in columns)
        service = Service(
            send=self.transport.send,
            read=Reader(functools.partial(self.turn.checked.format.parse_response, keep=keep), self.transport).read,
            classify=functools.partial(classify, now=now),
            accept=accept_all,
            price=lambda _call, usage: meter.cost(usage),
            max_cost=lambda _call, input_tokens, output_tokens: meter.max_cost(input_tokens, output_tokens),
            request_id=request_id_of,
            is_reached=self._is_reached,
            status=functools.partial(output.status_of, keeps_calls=output.TOOL_CALLS in columns),
        )
        policy = Policy(
            concurrency=limits.concurrency,
            max_attempts=patience.max_attempts,
            max_wait_s=patience.max_wait_s,
            max_pushback_s=patience.max_pushback_s,
            adaptive=limits.adaptive,
            max_alike=patience.max_alike,
            max_row_s=patience.max_row_s,
        )
        return Ports(
            service=service,
            policy=policy,
            limits=Limits(requests_per_minute=limits.requests_per_minute, tokens_per_minute=limits.tokens_per_minute),
            observer=shown,
            now=now,
            jitter=random.random,
            budget=self._budget(),
            earlier=run.bill,
            asks=run.progress.asks,
        )

    def _is_reached(self) -> bool:
        """Whether a connection was ever made; taken for granted where that is not ours to know."""
        stats = self.transport.pool_stats
        return stats is None or stats.opened > 0

    def _budget(self) -> Budget | None:
        """The cap, less everything that may have been spent: what `--retry` reset was paid all the same."""
        cap = self.turn.checked.job.budget.max_cost_usd
        return None if cap is None else Budget(cap, tallies.spent(self.run.bill))


def _publish(run: Run, checked: Checked) -> None:
    """Make the result appear, whole. A data set needs nothing: its parts are the result."""
    if run.directory.parts.is_dataset:
        return
    run.refuse_foreign()
    columns = output.columns_of(run.manifest.columns)
    schema = output.joined_schema(checked.source.schema, run.prefix, {}, columns)
    paths = (run.directory.parts.path(index) for index in range(run.partition_count))

    def write(file: IO[bytes]) -> None:
        repeated = output.repeated(schema, run.prefix)
        metadata = metadata_of(run.manifest) | run.state()
        parts.merge(file, paths, schema, metadata, rows=run.manifest.calls, repeated=repeated)

    write_aside(run.result, write)


def _sentences(*said: str) -> str:
    """What several said, one after the other; a service's words often have no full stop."""
    return " ".join(words if words.endswith((".", "!", "?")) else f"{words}." for words in said if words)


def summary_of(job: Job, run: Run, *, finished: bool, **session: Any) -> RunSummary:
    """What a run has come to by now; `session` holds what this session alone knows."""
    return RunSummary(
        run_id=run.manifest.run_id,
        output=job.output.path,
        rows=run.rows,
        tally=run.progress.with_charges,
        prices=run.manifest.prices,
        finished=finished,
        replaced=run.replaced,
        warnings=(*_warnings(job, run.manifest), *late_warnings(run.progress.tally, run.manifest.prices)),
        **session,
    )


def _warnings(job: Job, manifest: Manifest) -> Iterator[str]:
    """What whoever pays should know before the first request."""
    yield from manifest.warnings
    yield from describe_extra(job)
    yield from describe_missing_columns(job, manifest.columns)
    if job.budget.max_cost_usd is not None and (added := describe_unbounded(job.params.extra)):
        yield f"the budget may be passed: the service may add input that is billed beyond what is sent, by {added}"
    if manifest.prices.rates is not None and not manifest.priced_late and _has_other_prices(job, manifest):
        yield "prices changed in the job; this run goes on with the ones that it began with"


def _has_other_prices(job: Job, manifest: Manifest) -> bool:
    return job.describe().get("prices") != manifest.job.get("prices")
