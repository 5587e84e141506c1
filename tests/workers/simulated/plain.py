"""A session of one process, as `cometbatch run` has it without workers."""

import asyncio
import math
from collections.abc import Callable
from decimal import Decimal

from msgspec import Struct

from cometbatch.control.budget import Budget
from cometbatch.engines.session import Ports, run_partitions
from cometbatch.limiting.limits import Limits
from cometbatch.results import tallies
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.partition import Partitions
from cometbatch.run_state.run import Run
from cometbatch.runner.ports import Ended, Policy
from cometbatch.runner.queue_start import QueueStart
from tests.run_on_disk import session_of
from tests.scripted_run import NOW, RUN_ID, Watcher
from tests.workers.simulated.service import Sender, SimulatedService
from tests.workers.simulated.table import Table
from tests.workers.simulated.world import Process


class Settings(Struct, frozen=True):
    """What a user sets, the same for all sessions of a life."""

    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    adaptive: bool = False
    max_attempts: int = 4
    max_cost_usd: Decimal | None = None


def policy(settings: Settings) -> Policy:
    """How the loop goes about it."""
    return Policy(
        concurrency=settings.concurrency,
        max_attempts=settings.max_attempts,
        adaptive=settings.adaptive,
        max_pushback_s=120.0,
    )


async def begun(table: Table, directory: RunDirectory, now: Callable[[], float]) -> Run:
    """A session begins, under the lock, once no owner of an earlier one may send any more. `now`: the world's time."""
    epoch = directory.epoch.unfenced()
    if epoch is not None:
        await asyncio.sleep(epoch.fence_s)
    directory.epoch.forget()
    run = table.begin(directory)
    table.began.append((session_of(run), now()))
    return run


async def plain_session(process: Process, table: Table, service: SimulatedService, settings: Settings) -> Ended:
    """Everything that one process does for a run, from the lock to its last part."""
    directory = table.directory()
    with directory.locked():
        run = await begun(table, directory, lambda: process.world.now)
        number, slots = session_of(run), settings.concurrency
        partitions = Partitions(run, number, table.tables, [table.make], ("n",), slots=slots, queues=table.queues)
        marks = directory.new_marks(RUN_ID, number, 2 * slots)
        cap = settings.max_cost_usd
        ports = Ports(
            service=service.as_service(Sender(process, number, 0, lambda: math.inf)),
            policy=policy(settings),
            limits=Limits(
                requests_per_minute=settings.requests_per_minute, tokens_per_minute=settings.tokens_per_minute
            ),
            observer=Watcher(),
            now=lambda: NOW,
            jitter=process.world.chance.random,
            budget=None if cap is None else Budget(cap, tallies.spent(table.bill(run))),
            queues=[QueueStart(earlier=run.progress.tally, rejected=run.progress.asks) for _ in table.queues],
        )
        return await run_partitions(partitions, marks, ports)
