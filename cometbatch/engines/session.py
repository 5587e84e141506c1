"""One session over the partitions of a run: journals, marks and budget are handed in, the loop sends the calls.

Guards: however the session ends, by its last call, a stop, an error or a cancel, every thread that can write has ended
when it returns.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from msgspec import Struct

from cometbatch.control.budget import Budget
from cometbatch.run_state.in_flight import InFlightMarks
from cometbatch.run_state.partition import Partitions
from cometbatch.runner.ports import Ended, Observer, OtherOwners, Policy, RateLimits, Service
from cometbatch.runner.queue_start import QueueStart
from cometbatch.runner.turns import Runner


class Ports(Struct, frozen=True):
    """What a session needs beside its partitions.

    `service`: how calls are sent, read, judged and priced. `limits`: requests and tokens per minute. `observer`: who is
    told. `now`: the wall clock; `jitter`: a random number from 0 to 1. `budget`: None is no cap; it holds already what
    earlier sessions may have spent. `queues`: what is known of each of the partitions' queues, in their order.
    `others`: who tells the other owners of the run; None where there are none.
    """

    service: Service
    policy: Policy
    limits: RateLimits
    observer: Observer
    now: Callable[[], datetime]
    jitter: Callable[[], float]
    budget: Budget | None = None
    queues: Sequence[QueueStart] = (QueueStart(),)
    others: OtherOwners | None = None


async def run_partitions(
    partitions: Partitions,
    marks: InFlightMarks,
    ports: Ports,
    *,
    watched: Callable[[Runner], AbstractContextManager[Callable[[], object] | None]] = lambda _: (
        contextlib.nullcontext()
    ),
) -> Ended:
    """Bring every call of these partitions to its outcome; returns what stopped before its last call.

    `watched`: what surrounds the loop while it runs, as the handling of signals does. It may yield what is called where
    the task is cancelled, as `Runner.run` takes it. Raises what reading the input or writing a record raised; what was
    in flight is recorded then.
    """
    runner = Runner(
        partitions.queues,
        partitions,
        ports.service,
        ports.policy,
        ports.limits,
        marks=marks,
        observer=ports.observer,
        now=ports.now,
        jitter=ports.jitter,
        budget=ports.budget,
        starts=ports.queues,
        others=ports.others,
    )
    syncing = asyncio.create_task(partitions.sync_forever(marks))
    try:
        with watched(runner) as cancelled:
            return await runner.run(cancelled)
    finally:
        syncing.cancel()
        try:
            await partitions.finish()
            marks.free(marks.take_recorded())  # all records are synced by now
        finally:
            marks.close()
