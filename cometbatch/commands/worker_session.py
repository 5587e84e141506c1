"""The calls of a session that several owners send: what the driver does from the first of them to the last.

Guards: no owner starts before the lock says that there are some, and the lock says that there are none only once the
last of them has ended. Whatever ends the session, it comes to the same errors, exit codes and words as in one process.
"""

import asyncio
import pickle
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import msgspec

from cometbatch.commands.assignment import Assignment
from cometbatch.commands.driving import Driving
from cometbatch.commands.due_ranges import Owners
from cometbatch.commands.owner_session import carry_assigned
from cometbatch.commands.queue_starts import queue_starts
from cometbatch.commands.queue_stops import stop_of
from cometbatch.commands.session_start import Work, in_thread
from cometbatch.commands.session_watch import moment_of, show_waiting
from cometbatch.commands.stopping import TERMINATED
from cometbatch.commands.worker_engines import Engine, local_engine, ray_engine
from cometbatch.commands.worker_errors import error_of
from cometbatch.control.coordination.messages import fence_s
from cometbatch.control.coordination.settings import Settings
from cometbatch.engines.ray import RayJob
from cometbatch.engines.supervising import supervise
from cometbatch.input.file_set import contents_of
from cometbatch.input.staging import GivenUpError, is_worth_staging, stage
from cometbatch.job.variables import variables_in
from cometbatch.results import tallies
from cometbatch.run_state.sharing import grants_file, share, unshare
from cometbatch.runner.ports import Ended, Stop
from cometbatch.store import local

LOCAL_ENGINE: Final = "workers"
"""What the lock calls processes of this machine."""
RAY: Final = "ray"
"""What the lock calls actors of a cluster."""


async def send_by_owners(work: Work, owners: Owners) -> Stop | None:
    """Bring the missing calls to their outcomes by owners; returns why that ended before the last of them.

    Raises what ended the work of an owner, as it is raised in one process.
    """
    start = work.start
    run, nonce = await in_thread(start.files, share, work.run)
    work = msgspec.structs.replace(work, run=run)
    try:
        assignment = await in_thread(start.files, _assignment, work, owners.workers, nonce)
    except GivenUpError:
        assignment = None
    if assignment is None or start.stopping.asked is not None:
        await in_thread(start.files, unshare, run.directory)
        return start.stopping.asked
    carrying = asyncio.create_task(_carried(work, owners, assignment))
    is_cancelled = False
    while not carrying.done():
        try:
            await asyncio.wait([carrying])
        except asyncio.CancelledError:
            is_cancelled = True
            start.stopping.ask(TERMINATED)
    stop = stop_of(carrying.result(), run.manifest)
    if is_cancelled:
        raise asyncio.CancelledError
    return stop


async def _carried(work: Work, owners: Owners, assignment: Assignment) -> Ended:
    """From before the first owner starts until the last of them has ended: nobody cancels this."""
    files, directory = work.start.files, work.run.directory
    engine: Engine | None = None
    driving: Driving | None = None
    name = RAY if owners.engine.name == "ray" else LOCAL_ENGINE
    await in_thread(files, directory.epoch.open, work.session.number, name, fence_s(owners.workers))
    try:
        async with _engine(work, owners, assignment) as engine:
            driving = Driving(
                engine.line,
                work.shown,
                work.start.options.observers,
                work.run.manifest,
                workers=engine.workers,
                slots=work.slots,
            )
            await _driven(work, engine, driving)
    finally:
        if driving is None or driving.have_all_left or (engine is not None and engine.has_ended):
            await in_thread(files, directory.epoch.close)
        await in_thread(files, unshare, directory)
    if errors := driving.told.now.errors:
        raise error_of(errors[0])
    return driving.ended()


def _engine(work: Work, owners: Owners, assignment: Assignment) -> AbstractAsyncContextManager[Engine]:
    """What starts owners and reaches their coordinator."""
    settings, withheld = _settings(work, owners.workers), _secret_names(work)

    def assigned(owner: int) -> bytes:
        return pickle.dumps(msgspec.structs.replace(assignment, owner=owner))

    if owners.engine.name != "ray":
        return local_engine(settings, owners.ranges, assigned, withheld)
    grants = str(grants_file(work.run.directory, work.session.number))
    job = RayJob(settings, owners.ranges, grants, assigned, carry_assigned, work.shown.warn)
    return ray_engine(job, owners.engine.address, withheld)


# -- what owners are given ---------------------------------------------------------------------------------------------


def _assignment(work: Work, workers: int, nonce: str) -> Assignment:
    """What each owner is given; its number is still to be put in."""
    start, run = work.start, work.run
    directory, checked = run.directory, start.checked
    return Assignment(
        owner=0,
        session=work.session,
        job=checked.job,
        result=str(run.result),
        directory=str(directory.path),
        parts=str(directory.parts.folder) if directory.parts.is_dataset else None,
        slices=None if directory.slices is None else str(directory.slices),
        queues=queue_starts(checked, run, [None] * len(run.manifest.queues())),
        records=run.progress.by_slice,
        limit=work.limit,
        access=work.transport.access(),
        workers=workers,
        staged=_staged(work),
        contents=contents_of(checked.source),
        nonce=nonce,
        tells_outcomes=start.options.observers.any,
    )


def _staged(work: Work) -> str | None:
    """The path of the input's rows as Parquet; None where the input itself can be read from any row on."""
    source, run = work.start.checked.source, work.run
    if not is_worth_staging(source):
        return None
    folder = run.directory.input
    with local.naming(folder, "this folder can't be made"):
        local.make_folder(folder)
    path: Path = stage(
        source,
        run.manifest.input,
        folder,
        run_id=run.manifest.run_id,
        partition_rows=run.manifest.partition_rows,
        write_aside=local.write_aside,
        is_given_up=lambda: work.start.stopping.asked is not None,
    )
    return str(path)


def _settings(work: Work, workers: int) -> Settings:
    """What the coordinator is told: limits and money of the whole run."""
    job = work.start.checked.job
    return Settings(
        owners=workers,
        concurrency=work.slots,
        queues=len(work.run.manifest.queues()),
        requests_per_minute=job.limits.requests_per_minute,
        tokens_per_minute=job.limits.tokens_per_minute,
        adaptive=job.limits.adaptive,
        budget_usd=job.budget.max_cost_usd,
        spent_usd=tallies.spent(work.run.bill),
    )


def _secret_names(work: Work) -> frozenset[str]:
    """The names of variables that hold secrets: owners get their values in another way, if they need them."""
    target = work.start.checked.job.target
    return frozenset({target.key_env, *variables_in(target.headers.values())})


# -- while they work ---------------------------------------------------------------------------------------------------


async def _driven(work: Work, engine: Engine, driving: Driving) -> None:
    """Drive owners until all have ended."""
    observers, cap = work.start.options.observers, work.run.manifest.token_cap
    showing = asyncio.create_task(show_waiting(driving, work.shown, cap, observers, slowest_sync_s=lambda: 0.0))
    try:
        with work.start.stopping.of_loop(driving):
            await _supervised(driving, engine)
    finally:
        showing.cancel()
        observers.looked(moment_of(driving, observers))


async def _supervised(driving: Driving, engine: Engine) -> None:
    """Keep owners alive and the coordinator driven until all owners have ended."""
    tasks = {
        asyncio.create_task(supervise(engine.launcher, engine.workers, driving)),
        asyncio.create_task(driving.drive_forever()),
    }
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    await driving.drive()  # what the last of them has said
