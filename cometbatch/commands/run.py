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
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from cometbatch.commands.preflight import (
    Checked,
    api_key,
    check,
    check_budget,
    now,
    price_book,
    refuse_clashes,
    run_directory,
    simulator_behaviour,
    suggested_rows,
    trust,
    way,
)
from cometbatch.commands.progress_line import Progress
from cometbatch.control.acceptance import accept_all
from cometbatch.control.bounds import describe_unbounded
from cometbatch.control.budget import Budget
from cometbatch.control.classify import classify
from cometbatch.engines import event_loop as loop
from cometbatch.errors import InputError, InputLostError, UsageError
from cometbatch.input import table as source
from cometbatch.job import Job
from cometbatch.limiting.limits import Limits
from cometbatch.money import prices as pricing
from cometbatch.money.exact import EXACT
from cometbatch.results import columns as output
from cometbatch.results import parts
from cometbatch.results import tally as tallies
from cometbatch.results.summary import (
    BudgetReachedError,
    InterruptedRunError,
    RunSummary,
    ServiceRefusedError,
    TerminatedRunError,
    late_warnings,
)
from cometbatch.run_state import manifest as manifests
from cometbatch.run_state import reopen, resume
from cometbatch.run_state.directory import Reopened, RunDirectory, Session, write_aside
from cometbatch.run_state.manifest import Manifest
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.reopen import Matching
from cometbatch.run_state.resume import Found, Progressed
from cometbatch.runner.ports import Policy, Service, Stop
from cometbatch.runner.reply_reader import Reader
from cometbatch.runner.turns import Runner
from cometbatch.simulator.process import SimulatorProcess
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
    "interrupted": InterruptedRunError,
    "terminated": TerminatedRunError,
}


def run(
    job: Job,
    *,
    fresh: bool = False,
    retry: str | Iterable[str] = (),
    progress: bool | None = None,
    http: "httpx.AsyncBaseTransport | None" = None,
) -> RunSummary:
    """Carry out a job, or carry on with one that was interrupted, to its last row.

    `fresh` forgets an earlier run of the same output. `retry` names kinds of rows (`failed`, `incomplete`, an error
    kind or a finish reason) that are to be answered again; every other row stays as it is. `progress` forces the
    progress line on or off (by default it follows the terminal). `http` replaces the network: any httpx transport will
    do.

    Raises `UsageError` before anything is sent where job, input or key are wrong, `RunLockedError` where another
    process has the run, `RunStoppedError` (with the summary so far) where it ended early and can be carried on.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return loop.run(run_async(job, fresh=fresh, retry=retry, progress=progress, http=http))
    raise UsageError("An event loop is running here (a notebook?): use `await cometbatch.run_async(job)`.")


async def run_async(
    job: Job,
    *,
    fresh: bool = False,
    retry: str | Iterable[str] = (),
    progress: bool | None = None,
    http: "httpx.AsyncBaseTransport | None" = None,
) -> RunSummary:
    """The same as `run`, for callers that have an event loop already."""
    words = _retry_words(retry, fresh=fresh)
    checked = check(job)
    directory = run_directory(job)
    identity: source.Identity | None = None
    if fresh or directory.read_manifest() is None:  # told before a folder is made
        _check_start(checked, directory, fresh=fresh, http=http)
        identity = await asyncio.to_thread(checked.source.check)
    with _locked(directory):
        found = None if fresh else await _in_thread(_known_run, directory, checked)
        if found is None:
            asked = 0 if words else None  # there is nothing that could match
            return await _start(checked, directory, identity, asked, fresh=fresh, http=http, progress=progress)
        return await _carry_on(checked, directory, found, words, http=http, progress=progress)


async def _start(
    checked: Checked,
    directory: RunDirectory,
    identity: source.Identity | None,
    asked: int | None,
    *,
    fresh: bool,
    http: "httpx.AsyncBaseTransport | None",
    progress: bool | None,
) -> RunSummary:
    """A new run, also where an earlier one recorded nothing: then prices and partitions are as the job has them now."""
    _check_start(checked, directory, fresh=fresh, http=http)
    measured = await _in_thread(checked.source.check) if identity is None else identity
    async with _connected(checked.job, http) as transport:
        manifest = await _begin(checked, measured, directory, transport, fresh=fresh)
        return await _Session(checked, directory, manifest, Progressed(), transport, asked).carry_out(progress)


async def _carry_on(
    checked: Checked,
    directory: RunDirectory,
    found: Found,
    words: frozenset[str],
    *,
    http: "httpx.AsyncBaseTransport | None",
    progress: bool | None,
) -> RunSummary:
    """A run that has outcomes: the rows that are missing, and those that match `words`."""
    job, matching = checked.job, Matching()
    known = found.manifest, found.progressed
    resume.refuse_foreign(job.output.path, found.manifest)
    if words:
        matching = await _in_thread(reopen.find, directory, *known, words, job.output.prefix)
    asked = matching.tally.calls if words else None
    if found.is_finished and not matching.partitions:
        resume.tidy(directory, found.progressed)  # what a retry left that was killed before it took anything back
        return _summary(job, directory, *known, finished=True, had_work=False, reopened=asked)
    directory.create()  # ways to copy a run leave out folders with nothing in them
    async with _connected(job, http) as transport:
        if matching.partitions:
            taken = reopen.take_back(directory, *known, words, found=matching, prefix=job.output.prefix)
            known = found.manifest, taken
        known = await _priced(checked, directory, *known, transport), known[1]
        return await _Session(checked, directory, *known, transport, asked).carry_out(progress)


async def _in_thread(work: Callable[..., Returned], *arguments: object) -> Returned:
    """Do work that reads and writes files while the caller's event loop goes on.

    It is waited for even where the caller was cancelled: the lock must not be let go while files are written.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
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
    way(job, http)
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
        directory.lock()
    except OSError as error:
        raise UsageError(f"output.path: can't write to {directory.path.parent} ({error.strerror}).") from error
    try:
        yield
    finally:
        directory.unlock()


def _known_run(directory: RunDirectory, checked: Checked) -> Found | None:
    """The run that this directory holds, found to be of the same job; `None` where a new one is to begin."""
    found = resume.find(directory, checked.job.output.path)
    if found is None or not found.is_begun:  # nothing was answered yet, so nothing can be mixed up
        return None
    manifests.refuse_drift(found.manifest, checked.job.fingerprint(), *checked.source.digest())
    return found


def _replaces(job: Job, directory: RunDirectory) -> str | None:
    """The mark of the file that --fresh told an earlier session to replace, if that still stands there."""
    found = resume.find(directory, job.output.path)
    is_it = found is not None and found.manifest.replaces is not None and found.place == "free"
    return parts.file_stamp(job.output.path) if is_it else None


async def _begin(
    checked: Checked, identity: source.Identity, directory: RunDirectory, transport: Transport, *, fresh: bool
) -> Manifest:
    """Whatever can be refused is refused first; then what an earlier run left makes place for the new one."""
    job = checked.job
    book, warnings = await price_book(job, transport)
    check_budget(job, book, warnings)
    replaces = parts.file_stamp(job.output.path) if fresh else _replaces(job, directory)
    manifest = Manifest(
        version=manifests.MANIFEST_VERSION,
        cometbatch=VERSION,
        run_id=os.urandom(16).hex(),
        created_at=now().isoformat(timespec="seconds"),
        fingerprint=job.fingerprint(),
        input=identity,
        partition_rows=job.output.partition_rows or suggested_rows(identity, job.params.max_output_tokens),
        prices=book,
        columns=tuple(column.name for column in output.COLUMNS),
        job=job.describe(),
        warnings=(*checked.source.warnings, *warnings),
        replaces=None if job.output.is_dataset else replaces,
    )
    _clear(job, directory, forget=fresh)
    directory.create()
    directory.write_manifest(manifests.encode(manifest))
    return manifest


async def _priced(
    checked: Checked, directory: RunDirectory, manifest: Manifest, progressed: Progressed, transport: Transport
) -> Manifest:
    """The manifest, with prices where the run had none so far and they can be had now."""
    is_complete = len(progressed.committed) == resume.partition_count(manifest)
    if manifest.prices.rates is not None or is_complete:
        return manifest
    book, warnings = await price_book(checked.job, transport)
    if book.rates is None:
        return manifest
    late = f"prices were found after {progressed.rows:,} rows were recorded: those without a cost stay so"
    priced = msgspec.structs.replace(
        manifest, prices=book, priced_late=True, warnings=(*checked.source.warnings, *warnings, late)
    )
    directory.write_manifest(manifests.encode(priced))
    return priced


def _clear(job: Job, directory: RunDirectory, *, forget: bool) -> None:
    """Remove an earlier run, but not what is known of its bill: rows in flight, attempts that brought no answer."""
    found = None if forget else resume.find(directory, job.output.path)
    if found is None:
        directory.clear()
        return
    marks, replaced = directory.marks(), tallies.add(directory.reopened().replaced, found.progressed.tally)
    directory.clear()
    directory.write_marks(marks)
    directory.write_reopened(Reopened(replaced=replaced))


@contextlib.asynccontextmanager
async def _connected(job: Job, http: "httpx.AsyncBaseTransport | None") -> AsyncIterator[Transport]:
    """The way to the service: over the network, through `http`, or to a simulator started for the length of the run."""
    way(job, http)
    with contextlib.ExitStack() as stack:
        base_url, key = job.target.base_url, api_key(job) if http is None else "sk-not-needed-here"
        if job.target.is_simulator:
            base_url = "http://127.0.0.1"
            if http is None:
                base_url = stack.enter_context(SimulatorProcess.start(simulator_behaviour(job))).base_url
        transport = Transport(base_url, key, timeout_s=job.limits.timeout_s, http=http, trust=trust(job))
        try:
            yield transport
        finally:
            await transport.aclose()


# -- the run itself ----------------------------------------------------------------------------------------------


class _Session(Struct, frozen=True):
    """One process's turn at a run, from what earlier ones left to the result."""

    checked: Checked
    directory: RunDirectory
    manifest: Manifest
    progressed: Progressed
    transport: Transport
    reopened: int | None = None

    async def carry_out(self, progress: bool | None) -> RunSummary:
        """Carry the missing rows to their outcomes and publish. Raises a `RunStoppedError` where that ends early."""
        check_budget(self.checked.job, self.manifest.prices, self.manifest.warnings)
        started = time.monotonic()
        self.directory.sign_lock()
        resume.tidy(self.directory, self.progressed)
        shown = Progress(self.manifest.input.rows, self.progressed.tally, on=progress)
        for warning in _warnings(self.checked.job, self.manifest):
            shown.say(f"Warning: {warning}")
        try:
            stop = await self._run_rows(shown)
        finally:
            shown.close()
        if stop is None:
            await _in_thread(self._publish)
            reopen.settle(self.directory)
        summary = _summary(
            self.checked.job,
            self.directory,
            self.manifest,
            await _in_thread(resume.look, self.directory, self.manifest),
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

    async def _run_rows(self, shown: Progress) -> Stop | None:
        slots = self.checked.job.limits.concurrency
        rows = self._partitions(slots)
        marks = self.directory.in_flight_marks(slots)
        resent = resume.unrecorded(marks.left_over, self.manifest, self.progressed)
        self._note_session(len(resent))
        runner = Runner(
            rows,
            self._service(),
            self._policy(),
            self._limits(),
            marks=marks,
            observer=shown,
            now=now,
            jitter=random.random,
            earlier=self.progressed.tally,
            budget=self._budget(),
        )
        syncing = asyncio.create_task(rows.sync_forever())
        showing = asyncio.create_task(_show_waiting(runner, shown))
        try:
            with _signals(runner, shown):
                return await runner.run()
        except InputError as error:
            raise InputLostError(f"{error} What was in flight is recorded; nothing more was sent.") from error
        finally:
            syncing.cancel()
            showing.cancel()
            await asyncio.wait([syncing, showing])
            await rows.finish()
            marks.close()

    def _partitions(self, slots: int) -> Partitions:
        committed = set(self.progressed.committed)
        todo = [each for each in resume.partitions(self.manifest) if each.index not in committed]
        return Partitions(
            self.directory,
            self.manifest.run_id,
            todo,
            lambda wanted: self.checked.source.tables(self.manifest.input, wanted),
            self.checked.row_maker(),
            partition_rows=self.manifest.partition_rows,
            prefix=self.checked.job.output.prefix,
            metadata=manifests.metadata(self.manifest),
            columns=output.columns_of(self.manifest.columns),
            slots=slots,
        )

    def _service(self) -> Service:
        meter = pricing.meter(self.manifest.prices.rates)
        return Service(
            send=self.transport.send,
            read=Reader(self.checked.format.parse_response, self.transport).read,
            classify=functools.partial(classify, now=now),
            accept=accept_all,
            price=lambda _request, usage: meter.cost(usage),
            max_cost=lambda _request, input_tokens, output_tokens: meter.max_cost(input_tokens, output_tokens),
            request_id=request_id_of,
            is_reached=self._is_reached,
        )

    def _is_reached(self) -> bool:
        """Whether a connection was ever made; taken for granted where that is not ours to know."""
        stats = self.transport.pool_stats
        return stats is None or stats.opened > 0

    def _policy(self) -> Policy:
        limits, patience = self.checked.job.limits, self.checked.job.retry
        return Policy(
            concurrency=limits.concurrency,
            max_attempts=patience.max_attempts,
            max_wait_s=patience.max_wait_s,
            max_pushback_s=patience.max_pushback_s,
            adaptive=limits.adaptive,
            max_alike=patience.max_alike,
            max_row_s=patience.max_row_s,
        )

    def _budget(self) -> Budget | None:
        cap = self.checked.job.budget.max_cost_usd
        bill = tallies.add(self.progressed.tally, self.directory.reopened().replaced)  # --retry took back what was paid
        return None if cap is None else Budget(cap, EXACT.add(bill.cost_usd, bill.charges_usd))

    def _limits(self) -> Limits:
        limits = self.checked.job.limits
        return Limits(requests_per_minute=limits.requests_per_minute, tokens_per_minute=limits.tokens_per_minute)

    def _note_session(self, resent: int) -> None:
        session = Session(
            started_at=now().isoformat(timespec="seconds"),
            pid=os.getpid(),
            host=socket.gethostname(),
            version=VERSION,
            resent=resent,
        )
        self.directory.add_session(session)

    def _publish(self) -> None:
        """Make the result appear, whole. A data set needs nothing: its parts are the result."""
        job = self.checked.job
        if job.output.is_dataset:
            return
        resume.refuse_foreign(job.output.path, self.manifest)
        columns = output.columns_of(self.manifest.columns)
        schema = output.joined_schema(self.checked.source.schema, job.output.prefix, {}, columns)
        paths = (self.directory.part_path(index) for index in range(resume.partition_count(self.manifest)))

        def write(file: IO[bytes]) -> None:
            repeated = output.repeated(schema, job.output.prefix)
            metadata = manifests.metadata(self.manifest)
            parts.merge(file, paths, schema, metadata, rows=self.manifest.input.rows, repeated=repeated)

        write_aside(job.output.path, write)


def _sentences(*said: str) -> str:
    """What several said, one after the other; a service's words often have no full stop."""
    return " ".join(words if words.endswith((".", "!", "?")) else f"{words}." for words in said if words)


async def _show_waiting(runner: Runner, shown: Progress) -> None:
    is_told = False
    while True:
        await asyncio.sleep(WAITING_SHOWN_EVERY_S)
        shown.waiting(runner.waiting_for())
        if (silence := runner.silence()) and not is_told:
            shown.say(f"Warning: {silence}")
        is_told = bool(silence)


@contextlib.contextmanager
def _signals(runner: Runner, shown: Progress) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: finish what is in flight; a second: stop now. Only where signals reach us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    kinds = {signal.SIGINT: Stop("interrupted", "Interrupted."), signal.SIGTERM: Stop("terminated", "Terminated.")}
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


def _summary(
    job: Job, directory: RunDirectory, manifest: Manifest, progressed: Progressed, *, finished: bool, **session: Any
) -> RunSummary:
    return RunSummary(
        run_id=manifest.run_id,
        output=job.output.path,
        rows=manifest.input.rows,
        tally=progressed.tally,
        prices=manifest.prices,
        finished=finished,
        replaced=directory.reopened().replaced,
        warnings=(*_warnings(job, manifest), *late_warnings(progressed.tally, manifest.prices)),
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
