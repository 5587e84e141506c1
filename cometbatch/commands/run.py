"""The composition root: `run` checks what can be checked, puts the pieces together and carries rows to a result."""

import asyncio
import contextlib
import functools
import os
import random
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from cometbatch.commands.checks import Checked, check, check_budget, refuse_clashes
from cometbatch.commands.clock import now
from cometbatch.commands.connection import NO_KEY, api_key, describe_connection, simulator_behaviour, tls_settings
from cometbatch.commands.progress_line import Progress
from cometbatch.control.acceptance import accept_all
from cometbatch.control.bounds import describe_unbounded
from cometbatch.control.budget import Budget
from cometbatch.control.classify import classify
from cometbatch.engines import event_loop as loop
from cometbatch.engines.session import Ports, run_partitions
from cometbatch.errors import InputError, InputLostError, UsageError
from cometbatch.input.files import Identity
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
from cometbatch.run_state import manifest as manifests
from cometbatch.run_state import reopen
from cometbatch.run_state.begin import begin_anew, first_session, next_session, remove_leftovers
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest, PricedTarget
from cometbatch.run_state.partition import SLOW_SYNC_S, Partitions
from cometbatch.run_state.partition_size import suggest_partition_rows
from cometbatch.run_state.progress import look
from cometbatch.run_state.reopen import Matching
from cometbatch.run_state.run import Run, directory_of, find
from cometbatch.run_state.sessions import Who
from cometbatch.runner.ports import Policy, Service, Stop
from cometbatch.runner.reply_reader import Reader
from cometbatch.runner.turns import Runner
from cometbatch.service.catalog import find_prices
from cometbatch.simulator.process import SimulatorProcess
from cometbatch.store.local import write_aside
from cometbatch.transport import Transport
from cometbatch.version import VERSION
from cometbatch.wire.envelope import request_id_of

if TYPE_CHECKING:
    import httpx

Returned = TypeVar("Returned")

WAITING_SHOWN_EVERY_S = 1.0
STOPPED = {
    "budget": BudgetReachedError,
    "refused": ServiceRefusedError,
    "hung_up": HungUpRunError,
    "interrupted": InterruptedRunError,
    "terminated": TerminatedRunError,
}


def run(
    job: Job,
    *,
    fresh: bool = False,
    retry: str | Iterable[str] = (),
    set_aside: Collection[str] = (),
    progress: bool | None = None,
    http: "httpx.AsyncBaseTransport | None" = None,
) -> RunSummary:
    """Run a job, or resume one that was interrupted, to its last row.

    `fresh` deletes an earlier run of the same output. `retry` names kinds of rows (`failed`, `incomplete`, an error
    kind or a finish reason) that are to be answered again; every other row stays as it is. `set_aside` names damaged
    journals whose lost lines are to count as charges. `progress` forces the progress line on or off (by default it
    follows the terminal). `http` replaces the network: any httpx transport will do.

    Raises `UsageError` before anything is sent where job, input or key are wrong, `RunLockedError` where another
    process has the run, `RunStoppedError` (with the summary so far) where it ended early and can be resumed.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return loop.run(run_async(job, fresh=fresh, retry=retry, set_aside=set_aside, progress=progress, http=http))
    raise UsageError("An event loop is running here (a notebook?): use `await cometbatch.run_async(job)`.")


async def run_async(
    job: Job,
    *,
    fresh: bool = False,
    retry: str | Iterable[str] = (),
    set_aside: Collection[str] = (),
    progress: bool | None = None,
    http: "httpx.AsyncBaseTransport | None" = None,
) -> RunSummary:
    """The same as `run`, for callers that have an event loop already."""
    words = _retry_words(retry, fresh=fresh)
    checked = check(job)
    directory = directory_of(job.output.path, is_dataset=job.output.is_dataset)
    identity: Identity | None = None
    if fresh or directory.read_manifest() is None:  # told before a folder is made
        _check_start(checked, directory, fresh=fresh, http=http)
        identity = await asyncio.to_thread(checked.source.check)
    with _locked(directory):
        files = directory.lock.thread()
        found = None if fresh else await _in_thread(files, find, directory, job.output.path, set_aside)
        turn = _Turn(checked, directory, files, http)
        if found is not None and found.is_begun:
            await _in_thread(files, _refuse_drift, found, checked)
            return await _resume(turn, found, words, progress)
        asked = 0 if words else None  # there is nothing that could match
        return await _start(turn, found, identity, asked, fresh=fresh, progress=progress)


class _Turn(Struct, frozen=True):
    """What a session has from its first step on: the job, the run's place, a thread for files, the way out."""

    checked: Checked
    directory: RunDirectory
    files: ThreadPoolExecutor
    http: "httpx.AsyncBaseTransport | None"


async def _start(
    turn: _Turn,
    found: Run | None,
    identity: Identity | None,
    asked: int | None,
    *,
    fresh: bool,
    progress: bool | None,
) -> RunSummary:
    """A new run, also where an earlier one recorded no outcome: prices and partitions are as the job has them now."""
    checked = turn.checked
    _check_start(checked, turn.directory, fresh=fresh, http=turn.http)
    measured = await _in_thread(turn.files, checked.source.check) if identity is None else identity
    async with _connected(checked.job, turn.http) as transport:
        manifest = await _new_manifest(turn, found, measured, transport, fresh=fresh)
        run = await _in_thread(turn.files, _begin, turn.directory, checked.job, found, manifest)
        return await _Session(turn, run, transport, asked).carry_out(progress)


def _begin(directory: RunDirectory, job: Job, found: Run | None, manifest: Manifest) -> Run:
    """Make place for a new run, and begin its first session; of a run without outcomes, its next one."""
    if found is not None:
        directory.create()
        return begin_anew(found, _who(), manifest)
    directory.clear()
    directory.create()
    first_session(directory, manifest.run_id, _who())
    directory.write_manifest(manifests.encode(manifest))
    return Run(directory, manifest, look(directory, manifest), job.output.path)


async def _resume(turn: _Turn, found: Run, words: frozenset[str], progress: bool | None) -> RunSummary:
    """A run that has outcomes: the calls that are missing, and those that match `words`."""
    found.refuse_foreign()
    matching = await _in_thread(turn.files, reopen.find, found, words) if words else Matching()
    asked = matching.calls if words else None
    if found.is_finished and not matching.partitions:
        await _in_thread(turn.files, remove_leftovers, found)
        return _summary(turn.checked.job, found, finished=True, had_work=False, reopened=asked)
    turn.directory.create()  # ways to copy a run leave out folders with nothing in them
    async with _connected(turn.checked.job, turn.http) as transport:
        run = await _in_thread(turn.files, _next_session, found, words, matching)
        run = await _priced(turn.checked, run, transport)
        return await _Session(turn, run, transport, asked).carry_out(progress)


def _next_session(found: Run, words: frozenset[str], matching: Matching) -> Run:
    """Count what earlier sessions left, then take back what is to be answered again."""
    run = next_session(found, _who())
    if not matching.partitions:
        return run
    reopen.take_back(run, words, matching)
    return run.looked_at_again()


def _who() -> Who:
    return Who(now().isoformat(timespec="seconds"), os.getpid(), socket.gethostname(), VERSION)


async def _in_thread(files: ThreadPoolExecutor, work: Callable[..., Returned], *arguments: object) -> Returned:
    """Do work that reads and writes files while the caller's event loop goes on.

    It is waited for even where the caller was cancelled: the lock must not be released while files are written.
    """
    task = asyncio.get_running_loop().run_in_executor(files, functools.partial(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


# -- before the first request ------------------------------------------------------------------------------------


def _retry_words(retry: str | Iterable[str], *, fresh: bool) -> frozenset[str]:
    words = reopen.read_words(retry) if retry else frozenset[str]()
    if words and fresh:
        raise UsageError("--retry and --fresh exclude each other: a fresh start leaves nothing to answer again.")
    return words


def _check_start(
    checked: Checked, directory: RunDirectory, *, fresh: bool, http: "httpx.AsyncBaseTransport | None"
) -> None:
    """Refuse what would be noticed late otherwise.

    Two columns of a name, no key, no way to the service, a result that is not this run's.
    """
    refuse_clashes(checked)
    job = checked.job
    if http is None:
        api_key(job)
    describe_connection(job, http)
    path = job.output.path
    exists = any(path.glob("*.parquet")) if job.output.is_dataset else path.exists()
    if exists and not fresh and _replaces(job, directory) is None:
        raise UsageError(
            f"output.path: {path} exists, and there is no run directory beside it to carry on from. Move it away, "
            "choose another name, or replace it with --fresh."
        )
    if job.output.is_dataset and fresh and (foreign := parts.foreign(path)):
        raise UsageError(
            f"output.path: {foreign[0]} is not a part that cometbatch wrote under this name, so --fresh does not "
            "remove it, and it would be read as answers. Move it away, or choose another folder."
        )


@contextlib.contextmanager
def _locked(directory: RunDirectory) -> Iterator[None]:
    try:
        directory.lock.acquire()
    except OSError as error:
        raise UsageError(f"output.path: can't write to {directory.path.parent} ({error.strerror}).") from error
    try:
        yield
    finally:
        directory.lock.release()


def _refuse_drift(found: Run, checked: Checked) -> None:
    manifests.refuse_drift(found.manifest, checked.job.fingerprint(), *checked.source.digest())


def _replaces(job: Job, directory: RunDirectory) -> str | None:
    """The stamp of the file that --fresh told an earlier session to replace, if that still stands there."""
    found = find(directory, job.output.path)
    is_it = found is not None and found.manifest.replaces is not None and found.place == "free"
    return parts.file_stamp(job.output.path) if is_it else None


async def _new_manifest(
    turn: _Turn, found: Run | None, identity: Identity, transport: Transport, *, fresh: bool
) -> Manifest:
    """What the run will be. Whatever can be refused is refused here, before anything is written."""
    job, target = turn.checked.job, turn.checked.target
    book, warnings = await find_prices(target.model, job.prices, transport)
    check_budget(job, target, book)
    replaces = parts.file_stamp(job.output.path) if fresh else _replaces(job, turn.directory)
    return Manifest(
        version=manifests.MANIFEST_VERSION,
        cometbatch=VERSION,
        run_id=os.urandom(16).hex() if found is None else found.manifest.run_id,
        created_at=now().isoformat(timespec="seconds"),
        fingerprint=job.fingerprint(),
        input=identity,
        partition_rows=job.output.partition_rows or suggest_partition_rows(identity, target.params.max_output_tokens),
        columns=tuple(column.name for column in output.COLUMNS),
        targets=(PricedTarget(target, book),),
        job=job.describe(),
        warnings=(*turn.checked.source.warnings, *warnings),
        replaces=None if job.output.is_dataset else replaces,
    )


async def _priced(checked: Checked, run: Run, transport: Transport) -> Run:
    """The run, with prices where it had none so far and they can be had now."""
    if run.manifest.prices.rates is not None or run.is_complete:
        return run
    book, warnings = await find_prices(checked.target.model, checked.job.prices, transport)
    if book.rates is None:
        return run
    late = f"prices were found after {run.progress.calls:,} rows were recorded: those without a cost stay so"
    priced = msgspec.structs.replace(
        run.manifest.with_prices(book), priced_late=True, warnings=(*checked.source.warnings, *warnings, late)
    )
    return run.with_manifest(priced)


@contextlib.asynccontextmanager
async def _connected(job: Job, http: "httpx.AsyncBaseTransport | None") -> AsyncIterator[Transport]:
    """The way to the service: over the network, through `http`, or to a simulator started for the length of the run."""
    describe_connection(job, http)
    with contextlib.ExitStack() as stack:
        base_url, key = job.target.base_url, api_key(job) if http is None else NO_KEY
        if job.target.is_simulator:
            base_url = "http://127.0.0.1"
            if http is None:
                base_url = stack.enter_context(SimulatorProcess.start(simulator_behaviour(job))).base_url
        transport = Transport(base_url, key, timeout_s=job.limits.timeout_s, http=http, trust=tls_settings(job))
        try:
            yield transport
        finally:
            await transport.aclose()


# -- the run itself ----------------------------------------------------------------------------------------------


class _Session(Struct, frozen=True):
    """One process's turn at a run, from what earlier ones left to the result. `reopened`: calls taken back by it."""

    turn: _Turn
    run: Run
    transport: Transport
    reopened: int | None = None

    async def carry_out(self, progress: bool | None) -> RunSummary:
        """Carry the missing calls to their outcomes and publish. Raises a `RunStoppedError` where that ends early."""
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
        ended = await _in_thread(self.turn.files, run.looked_at_again)
        if stop is None:
            await _in_thread(self.turn.files, _publish, ended, self.turn.checked)
        summary = _summary(
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
            showing = asyncio.create_task(_show_waiting(runner, partitions, shown))
            with _signals(runner, shown):
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
        meter = pricing.meter(run.manifest.prices.rates)
        service = Service(
            send=self.transport.send,
            read=Reader(self.turn.checked.format.parse_response, self.transport).read,
            classify=functools.partial(classify, now=now),
            accept=accept_all,
            price=lambda _call, usage: meter.cost(usage),
            max_cost=lambda _call, input_tokens, output_tokens: meter.max_cost(input_tokens, output_tokens),
            request_id=request_id_of,
            is_reached=self._is_reached,
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
            earlier=run.progress.tally,
            asks=run.progress.asks,
        )

    def _is_reached(self) -> bool:
        """Whether a connection was ever made; taken for granted where that is not ours to know."""
        stats = self.transport.pool_stats
        return stats is None or stats.opened > 0

    def _budget(self) -> Budget | None:
        """The cap, less everything that may have been spent: what `--retry` took back was paid all the same."""
        cap = self.turn.checked.job.budget.max_cost_usd
        bill = tallies.add(self.run.progress.tally, self.run.replaced)
        return None if cap is None else Budget(cap, tallies.spent(bill))


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
        metadata = manifests.metadata(run.manifest) | run.state()
        parts.merge(file, paths, schema, metadata, rows=run.manifest.calls, repeated=repeated)

    write_aside(run.result, write)


def _sentences(*said: str) -> str:
    """What several said, one after the other; a service's words often have no full stop."""
    return " ".join(words if words.endswith((".", "!", "?")) else f"{words}." for words in said if words)


async def _show_waiting(runner: Runner, partitions: Partitions, shown: Progress) -> None:
    """Say each second what is waited for, and once that the disk is slow."""
    is_told = is_slow = False
    while True:
        await asyncio.sleep(WAITING_SHOWN_EVERY_S)
        shown.redraw(runner.in_flight, runner.waiting_for())
        if (silence := runner.silence()) and not is_told:
            shown.say(f"Warning: {silence}")
        is_told = bool(silence)
        if (seconds := partitions.slowest_sync_s) > SLOW_SYNC_S and not is_slow:
            shown.say(f"Warning: the disk took {seconds:.1f} s to sync: a power cut can lose what that long recorded.")
            is_slow = True


@contextlib.contextmanager
def _signals(runner: Runner, shown: Progress) -> Iterator[None]:
    """First Ctrl-C, SIGTERM or SIGHUP: finish what is in flight; a second: stop now. Only where signals reach us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    kinds = {signal.SIGINT: Stop("interrupted", "Interrupted."), signal.SIGTERM: Stop("terminated", "Terminated.")}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored: `nohup`, to outlive the terminal
        kinds[signal.SIGHUP] = Stop("hung_up", "Hung up.")
    asked: list[Stop] = []

    def handle(stop: Stop) -> None:
        if asked:
            shown.say("Stopping now; what was in flight is not recorded and will be sent again.")
            runner.stop_now(stop)
        else:
            shown.say(f"Stopping: finishing {runner.in_flight} requests in flight (once more: stop now).")
            runner.stop(stop)
        asked.append(stop)

    before = {number: signal.getsignal(number) for number in kinds}
    for number, stop in kinds.items():
        loop.add_signal_handler(number, handle, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:  # None: installed by no Python code, and so not ours to bring back
                signal.signal(number, handler)


def _summary(job: Job, run: Run, *, finished: bool, **session: Any) -> RunSummary:
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
    if job.budget.max_cost_usd is not None and (added := describe_unbounded(job.params.extra)):
        yield f"the budget may be passed: the service may add input that is billed beyond what is sent, by {added}"
    if manifest.prices.rates is not None and not manifest.priced_late and _has_other_prices(job, manifest):
        yield "prices changed in the job; this run goes on with the ones that it began with"


def _has_other_prices(job: Job, manifest: Manifest) -> bool:
    return job.describe().get("prices") != manifest.job.get("prices")
