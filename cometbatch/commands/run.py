"""The composition root: `run` checks what can be checked, puts the pieces together and starts a session."""

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from cometbatch.commands.checked import Checked
from cometbatch.commands.checks import (
    check,
    check_session,
    describe_replaced,
    goes_on,
    refuse_limit,
    refuse_other_job,
)
from cometbatch.commands.clock import now
from cometbatch.commands.connection import NO_KEY, api_key, describe_connection, simulator_behaviour, tls_settings
from cometbatch.commands.engine_choice import choose_engine
from cometbatch.commands.fencing import fenced
from cometbatch.commands.growth import grown, new_cells
from cometbatch.commands.locking import locked, refuse_wait
from cometbatch.commands.manifests import new_manifest, priced, with_cells
from cometbatch.commands.options import Asked, Options, options_of
from cometbatch.commands.progress_line import Progress
from cometbatch.commands.score_publishing import counts_of, is_scored
from cometbatch.commands.session import STOPPED, RunSession, publish_for, summary_of
from cometbatch.commands.session_start import SessionStart, in_thread
from cometbatch.commands.stopping import Interrupts, StoppedBeforeError, Stopping, ended_by
from cometbatch.commands.tables import JobSource, as_job, kept
from cometbatch.commands.targets import added_targets, asked_number
from cometbatch.commands.telemetry import Telemetry
from cometbatch.commands.updating import Chosen, as_begun, choose, refuse_with_update
from cometbatch.engines import event_loop
from cometbatch.errors import CometbatchError, UsageError
from cometbatch.input.files import Identity
from cometbatch.job import Job
from cometbatch.limiting.shared import Limits
from cometbatch.records import PriceBook, Tally
from cometbatch.results.retry_words import RetryWords, read_words
from cometbatch.results.scored import ScoreCounts
from cometbatch.results.summary import RunStoppedError, RunSummary, TerminatedRunError
from cometbatch.run_state import reopen
from cometbatch.run_state.begin import begin_anew, first_session, next_session, remove_leftovers
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.manifest import Manifest, encode_manifest
from cometbatch.run_state.progress import look
from cometbatch.run_state.recorded_rows import look_below
from cometbatch.run_state.reopen import Matching
from cometbatch.run_state.run import Run, directory_of_job, find, home_of_job, with_manifest
from cometbatch.run_state.sessions import Who
from cometbatch.run_state.succession import clear, forget_earlier, give_up, looked_at, settle
from cometbatch.simulator.process import SimulatorProcess
from cometbatch.transport import Transport, raise_open_files
from cometbatch.version import VERSION

if TYPE_CHECKING:
    import httpx


def run(
    job: JobSource,
    *,
    input: object | None = None,  # noqa: A002 - the section of a job that it stands for
    **asked: Unpack[Asked],
) -> RunSummary:
    """Run a job, or resume one that was interrupted, to its last row.

    `job`: a job, or what `load_job` takes. `input`: a table (polars, pandas, Arrow) in place of `input.path`. It is
    kept beside the run, so that the same call resumes it. `fresh` deletes an earlier run of the same output. `retry`
    names kinds of rows (`failed`, `incomplete`, an error kind or a finish reason) that are to be answered again; every
    other row stays as it is. `set_aside` names damaged or lost files of the run whose losses are to count as charges.
    `limit`: answer only the first rows of the input, this many; nothing is published then, and a later run goes on from
    there. `accept`: how many rows may have no whole answer, as {"failed": "1%", "incomplete": 5}, in place of what the
    job says of it; the summary's `ended_well` tells whether there are more. `update`: where job or input changed since
    the run began, answer only the rows that this changes, in a run of its own that takes the other answers and then the
    place of this run; else the same as without. `forget_earlier`: at the end of a finished run, remove the runs that
    stood in its place before. `progress` forces the progress line on or off; by default it follows the terminal or the
    notebook, and where there is none a line is printed at 10 s and at each minute. `events`: is called with each event
    of the run (docs/logs.md), a dict as JSON has it, in the thread that runs it. Then no line goes to standard error,
    no warning either, and `progress=False` leaves out the events of progress. `metrics_file`: a file for the textfile
    collector of Prometheus; its name ends in .prom. `http` replaces the network: any httpx transport does. `stop`: a
    `threading.Event`, or its like; when any thread sets it, the run ends as by SIGTERM: what is in flight has
    `limits.stop_within_s` seconds, then `TerminatedRunError` is raised. `wait_s`: how many seconds to wait for another
    process that has the run. `limits`: a rate and a budget that this run shares with others of this process. `workers`:
    how many processes send the rows, with one rate and one budget; "auto" is one for each core. `engine`: "local", or
    "ray" for workers that are actors of a cluster of Ray. Both are in place of what the job's `engine` says.

    Where an event loop is running already (a notebook), the run has a thread of its own, and a Ctrl-C or a notebook's
    stop button stops it as it stops the command: the first finishes what is in flight.

    Raises `UsageError` before anything is sent where job, input or key are wrong, `RunLockedError` where another
    process has the run, `RunStoppedError` (with the summary so far) where it ended early and can be resumed.
    """
    options = options_of(**asked)
    with kept(as_job(job, input), input) as over:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return event_loop.run(_run(over, options))
        return _beside_a_loop(over, options)


async def run_async(
    job: JobSource,
    *,
    input: object | None = None,  # noqa: A002
    **asked: Unpack[Asked],
) -> RunSummary:
    """The same as `run`, for callers that have an event loop already.

    Cancelled, it ends as by SIGTERM: what is in flight has `limits.stop_within_s` seconds, then `CancelledError` goes
    on. A second cancel meanwhile gives up at once what is in flight. All that was answered is recorded either way.
    """
    options = options_of(**asked)
    with kept(as_job(job, input), input) as over:
        return await _run(over, options)


def _beside_a_loop(job: Job, options: Options) -> RunSummary:
    """Carry out a run in a thread, while the caller, whose own event loop stands still, waits for its end."""
    interrupts = Interrupts()

    async def main() -> RunSummary:
        with interrupts.of_task():
            return await _run(job, msgspec.structs.replace(options, interrupts=interrupts))

    with ThreadPoolExecutor(max_workers=1) as thread:
        done = thread.submit(event_loop.run, main())
        while True:
            try:
                return done.result()
            except KeyboardInterrupt:
                interrupts.interrupt()
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None  # it came before the first request, or after the last


async def _run(job: Job, options: Options) -> RunSummary:
    """Carry out a run, and tell those who listen of its end, whatever it is."""
    telemetry = None if job.telemetry is None else Telemetry()
    if telemetry is not None:
        options = msgspec.structs.replace(options, observers=options.observers.joined(telemetry))
    try:
        summary = await _with_leaderboard(job, await _stoppable(job, options))
    except BaseException as error:
        await _end(options, telemetry, *_as_told(error))
        raise
    await _end(options, telemetry, summary, None)
    return summary


async def _with_leaderboard(job: Job, summary: RunSummary) -> RunSummary:
    """The summary of a finished run with the figures of its scores."""
    if not job.scores or not summary.finished:
        return summary
    from cometbatch.commands.leaderboard import leaderboard_of  # noqa: PLC0415 - loads the reports

    return msgspec.structs.replace(summary, leaderboard=await asyncio.to_thread(leaderboard_of, summary.output, job))


def _as_told(error: BaseException) -> tuple[RunSummary | None, BaseException | None]:
    """How a run ended that raises this, for those who listen; of a cancelled one, what it has come to all the same."""
    if isinstance(error, asyncio.CancelledError):
        error = error.__cause__ or ended_by() or error
    if not isinstance(error, RunStoppedError):
        return None, error
    return error.summary, None if error.summary.finished else error


async def _end(
    options: Options, telemetry: Telemetry | None, summary: RunSummary | None, error: BaseException | None
) -> None:
    """Tell those who listen of the end, telemetry first: it may have to say that nobody takes it."""
    try:
        if telemetry is not None:
            await telemetry.finish(summary, error)
    finally:  # a cancel while a collector is waited for
        options.observers.ended(summary, error)


async def _stoppable(job: Job, options: Options) -> RunSummary:
    job = msgspec.structs.replace(job, accept=options.accept.over(job.accept))
    if options.stop is not None and not callable(getattr(options.stop, "is_set", None)):
        raise UsageError("stop: give a threading.Event, or something else with is_set().")
    if options.limits is not None and not isinstance(options.limits, Limits):
        raise UsageError("limits: give a cometbatch.Limits, which runs share; a job's own limits are a section of it.")
    refuse_wait(options.wait_s)
    stopping = Stopping(job.limits.stop_within_s, options.stop, options.interrupts)
    try:
        async with stopping.watching():
            return await _carry_out(job, options, stopping)
    except StoppedBeforeError:
        so_far = await asyncio.to_thread(_so_far, job)
        raise TerminatedRunError("Terminated before the first request.", so_far) from None


def _so_far(job: Job) -> RunSummary:
    """What a run has come to that was stopped before it looked; a summary without a run where there is none."""
    with contextlib.suppress(CometbatchError):
        found = find(directory_of_job(job), job.output.path)
        if found is not None:
            return summary_of(job, found, finished=found.is_finished, had_work=False)
    prices = PriceBook(job.target.model or "", "none")
    return RunSummary("", job.output.path, 0, Tally(), prices, finished=False, had_work=False)


async def _carry_out(job: Job, options: Options, stopping: Stopping) -> RunSummary:
    again, fresh, http = _retry_words(options), options.fresh, options.http
    engine = choose_engine(job, options)
    checked = await asyncio.to_thread(check, job)  # every line of JSON Lines is read here
    home = home_of_job(job, fresh=fresh)
    identity: Identity | None = None
    if fresh or looked_at(home).read_manifest() is None:  # told before a folder is made
        if not fresh:
            find(home, job.output.path)  # refuses what is left of a run without its manifest
        checked = as_begun(checked, None, update=options.update)
        _check_key(job, http)
        check_session(checked, home, None, fresh=fresh, http=http)
        identity = await asyncio.to_thread(checked.source.check)
    async with locked(home, options.wait_s, options.observers) as has_waited:
        if has_waited:  # the input may be another one by now
            checked, identity = await asyncio.to_thread(check, job), None
        files = home.lock.thread()
        await fenced(home, files, options.observers)
        await in_thread(files, settle, home, job.output.path)
        chosen = Chosen(home, None) if fresh else await in_thread(files, _choose, checked, home, options)
        found = chosen.found
        checked = as_begun(checked, found, update=options.update)
        replaced = await in_thread(files, _replaced, found, job, again)
        if replaced is not None:
            found, fresh = None, True
        told = () if replaced is None else (replaced,)
        session: dict[str, Any] = {"fresh": fresh, "retry": bool(again.words), "updated": chosen.updated, "http": http}
        await in_thread(files, functools.partial(check_session, checked, chosen.directory, found, **session))
        if chosen.given_up is not None:
            await in_thread(files, give_up, home)
        start = SessionStart(checked, chosen.directory, files, options, stopping, told, chosen.updated, engine=engine)
        if found is not None and await in_thread(files, goes_on, found, checked):
            summary = await _resume(start, found, again)
        else:
            asked = 0 if again.words else None  # there is nothing that could match
            summary = await _start(start, found, identity, asked, fresh=fresh)
        if options.forget_earlier and summary.finished:
            forgotten = await in_thread(files, forget_earlier, home)
            return msgspec.structs.replace(summary, forgotten=forgotten)
        return summary


def _choose(checked: Checked, home: RunDirectory, options: Options) -> Chosen:
    return choose(checked, home, options.set_aside, update=options.update)


async def _start(
    start: SessionStart, found: Run | None, identity: Identity | None, asked: int | None, *, fresh: bool
) -> RunSummary:
    """A new run, also where an earlier one recorded no outcome: prices and partitions are as the job has them now."""
    checked = start.checked
    _check_key(checked.job, start.options.http)
    measured = await in_thread(start.files, checked.source.check) if identity is None else identity
    start = await in_thread(start.files, _with_scores, start, measured)
    async with _connected(start) as transport:
        manifest = await new_manifest(start, found, measured, transport, fresh=fresh)
        limit = _limit_within(start.options.limit, measured.rows)
        run = await in_thread(start.files, _begin, start, found, manifest, limit)
        charges = None if found is None else found.progress.charges
        return await RunSession(start, run, transport, asked, limit, charges).carry_out()


def _begin(start: SessionStart, found: Run | None, manifest: Manifest, limit: int | None) -> Run:
    """Make place for a new run, and begin its first session; of a run without outcomes, its next one."""
    directory = start.directory
    if found is not None:
        directory.create()
        return begin_anew(found, _who(start, limit), manifest)
    clear(directory)
    directory.create()
    first_session(directory, manifest.run_id, _who(start, limit))
    directory.write_manifest(encode_manifest(manifest))
    return Run(directory, manifest, look(directory, manifest), start.checked.job.output.path)


async def _resume(start: SessionStart, found: Run, again: RetryWords) -> RunSummary:
    """A run that has outcomes: the calls that are missing, and those that match `again`."""
    limit, job = _limit_within(start.options.limit, found.rows), start.checked.job
    as_it_was = found.manifest
    found = msgspec.structs.replace(found, manifest=grown(as_it_was, job, {}))
    added_cells = new_cells(as_it_was, job)
    number, answers = asked_number(found.manifest, start.checked.target), start.checked.answers
    if again.words:
        reopen.late_column(found, number, [] if answers is None else answers.names)  # refuses what has no place
    matching = await in_thread(start.files, reopen.find, found, again, number) if again.words else Matching()
    asked = matching.calls if again.words else None
    is_finished = found.is_finished and not matching.partitions and not added_cells
    if is_finished:
        await in_thread(start.files, remove_leftovers, found)
        if not await in_thread(start.files, is_scored, found, start.checked.scoring):
            return await _scored_again(start, found)
    else:
        start = await in_thread(start.files, _with_scores, start, found.manifest.input)
    if is_finished or (_has_no_work(found, limit) and not added_cells):
        limited = await in_thread(start.files, look_below, found, limit)
        counts = await in_thread(start.files, _counts, start, found) if is_finished else None
        told: dict[str, Any] = {"reopened": asked, "limited": limited, "scores": counts}
        return summary_of(job, found, finished=is_finished, had_work=False, **told)
    if again.words and not matching.partitions:
        await in_thread(start.files, functools.partial(refuse_other_job, found, start.checked, retry=False))
    start.directory.create()  # ways to copy a run leave out folders with nothing in them
    async with _connected(start) as transport:
        added = await added_targets(start.checked, found.manifest, transport) if matching.partitions else ()
        manifest = await with_cells(start, as_it_was, added_cells, transport)
        manifest = manifest.with_targets(added) if added else manifest
        reset = functools.partial(_reset, again=again, matching=matching, checked=start.checked)
        before = msgspec.structs.replace(found, manifest=as_it_was)
        run = await in_thread(start.files, _next_session, before, manifest, _who(start, limit), reset)
        run = await priced(start.checked, run, transport)
        return await RunSession(start, run, transport, asked, limit, found.progress.charges).carry_out()


def _with_scores(start: SessionStart, identity: Identity) -> SessionStart:
    """The session with what scores its answers. Raises `UsageError` for a gold or a scorer that is none.

    Each Python scorer is told before it is imported.
    """
    checked = start.checked
    if checked.scoring is None:
        return start
    checked.scoring.check_golds(checked.source, identity)
    told = Progress(0, Tally(), on=False, observers=start.options.observers)
    try:
        return msgspec.structs.replace(start, scores=checked.scoring.load(told.say))
    finally:
        told.close()


def _counts(start: SessionStart, found: Run) -> ScoreCounts | None:
    """How the scoring of a finished run went: what ended badly before does so again."""
    scoring = start.checked.scoring
    return None if scoring is None else counts_of(found, scoring)


async def _scored_again(start: SessionStart, found: Run) -> RunSummary:
    """A finished run whose job asks for other scores by now: its result is published again, and nothing is sent."""
    start = await in_thread(start.files, _with_scores, start, found.manifest.input)
    publishing = functools.partial(publish_for, found, start)
    stop = await start.stopping.publish(start.files, publishing)
    counts = None if start.scores is None else start.scores.counts
    summary = summary_of(start.checked.job, found, finished=stop is None, had_work=False, scores=counts)
    if stop is not None:
        raise STOPPED[stop.kind](stop.message, summary, stop.fix, None)
    return summary


def _limit_within(limit: int | None, rows: int) -> int | None:
    """None where a run is for all rows, because it has no limit or not more rows than that."""
    return None if limit is None or limit >= rows else limit


def _has_no_work(found: Run, limit: int | None) -> bool:
    """Whether each row below the limit has its outcome, and there is nothing to publish or to note either."""
    return limit is not None and not (found.calls_due(limit) or found.is_complete or found.progress.accepted.charges)


def _next_session(found: Run, manifest: Manifest, who: Who, reset: Callable[[Run], Run]) -> Run:
    """Count what earlier sessions left, then write the manifest, if it is another, and reset what is asked again."""
    run = next_session(found, who)
    if manifest != run.manifest:
        run = with_manifest(run, manifest)
    run = reset(run)
    reopen.widen_parts(run)
    return run


def _reset(run: Run, *, again: RetryWords, matching: Matching, checked: Checked) -> Run:
    """The run with what matches reset, to be asked as the job says."""
    if not matching.partitions:
        return run
    answers = [] if checked.answers is None else checked.answers.names
    number = asked_number(run.manifest, checked.target) or 0
    reopen.take_back(run, again, matching, number, reopen.late_column(run, number, answers))
    return run.looked_at_again()


def _who(start: SessionStart, limit: int | None) -> Who:
    started, accept = now().isoformat(timespec="seconds"), start.checked.job.accept
    process = os.getpid(), socket.gethostname(), VERSION
    return Who(started, *process, limit=limit, accept=accept, accept_option=start.options.accept)


# -- before the first request ------------------------------------------------------------------------------------


def _retry_words(options: Options) -> RetryWords:
    refuse_limit(options.limit)
    if options.update:
        refuse_with_update(fresh=options.fresh, retry=bool(options.retry), set_aside=bool(options.set_aside))
    again = read_words(options.retry) if options.retry else RetryWords()
    if again.words and options.fresh:
        raise UsageError("--retry and --fresh exclude each other: a fresh start leaves nothing to answer again.")
    if again.words and options.limit is not None:
        raise UsageError(
            "--retry and --limit exclude each other: --retry resets the rows of its kind wherever they are, and "
            "--limit sends only the first rows. Run --retry alone."
        )
    return again


def _replaced(found: Run | None, job: Job, again: RetryWords) -> str | None:
    """What is said of a run that the simulator answered and that the job's own replaces; None for any other."""
    said = describe_replaced(found, job)
    if said is not None and again.words:
        raise UsageError(
            "--retry: the run that is here asked the simulator, and this job names a service, which has answered "
            "nothing yet. Leave --retry out: all rows are then sent, and the simulator's answers are replaced."
        )
    return said


def _check_key(job: Job, http: "httpx.AsyncBaseTransport | None") -> None:
    """Raise `UsageError` where a run could not send its requests for want of a key."""
    if http is None:
        api_key(job)


@contextlib.asynccontextmanager
async def _connected(start: SessionStart) -> AsyncIterator[Transport]:
    """The connection to the service: the network, `http`, or a simulator that is started for the length of the run."""
    job, http = start.checked.job, start.options.http
    describe_connection(job, http)
    async with contextlib.AsyncExitStack() as stack:
        base_url, key = job.target.base_url, api_key(job) if http is None else NO_KEY
        if job.target.is_simulator:
            base_url = "http://127.0.0.1"
            if http is None:
                raise_open_files()  # the simulator has this process's limit, and takes a file for each connection, too
                base_url = await stack.enter_async_context(_simulated(start))
        options: dict[str, Any] = {"timeout_s": job.limits.timeout_s, "http": http, "tls": tls_settings(job)}
        transport = Transport(base_url, key, headers=job.target.headers, **options)
        try:
            yield transport
        finally:
            await transport.aclose()


@contextlib.asynccontextmanager
async def _simulated(start: SessionStart) -> AsyncIterator[str]:
    """The address of a simulator. It is started and ended in a thread: other runs of this loop go on meanwhile."""
    simulator = SimulatorProcess(simulator_behaviour(start.checked.job))
    try:
        await in_thread(start.files, simulator.__enter__)
        yield simulator.base_url
    finally:
        await in_thread(start.files, simulator.close)
