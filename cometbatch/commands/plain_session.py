"""The calls of a session that this process sends by itself."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from cometbatch.commands.clock import now
from cometbatch.commands.deduping import sent_once
from cometbatch.commands.queue_starts import queue_starts
from cometbatch.commands.queue_stops import stop_of
from cometbatch.commands.row_maker import sending_images
from cometbatch.commands.services import service_of
from cometbatch.commands.session_pieces import partitions_of, policy_of
from cometbatch.commands.session_start import Work, input_lost
from cometbatch.commands.session_watch import moment_of, show_waiting
from cometbatch.commands.targets import row_makers
from cometbatch.control.budget import Budget
from cometbatch.engines.session import Ports, run_partitions
from cometbatch.errors import InputError, InputLostError
from cometbatch.limiting.limits import Limits
from cometbatch.results import tallies
from cometbatch.runner.images import Send
from cometbatch.runner.ports import Stop
from cometbatch.runner.turns import Runner
from cometbatch.runner.twins import Twins


async def send_calls(work: Work) -> Stop | None:
    """Bring the missing calls to their outcomes; returns why that ended before the last of them.

    Raises `InputLostError` where the input changed meanwhile, and what writing a record raises.
    """
    start, run, shown = work.start, work.run, work.shown
    checked, observers = start.checked, start.options.observers
    asked = row_makers(checked, run.manifest.targets, run.manifest.slices)
    partitions = partitions_of(
        checked,
        run,
        asked,
        work.session.number,
        slots=work.slots,
        limit=work.limit,
        looks=work.looks,
        earlier=work.earlier,
    )
    marks = run.directory.new_marks(run.manifest.run_id, work.session.number, 2 * work.slots)
    showing: asyncio.Task[None] | None = None
    partitions.on_commit = observers.committed

    @contextlib.contextmanager
    def watched(runner: Runner) -> Iterator[Callable[[], object]]:
        nonlocal showing
        waiting = show_waiting(
            runner, shown, run.manifest.token_cap, observers, slowest_sync_s=lambda: partitions.group_commit.slowest_s
        )
        showing = asyncio.create_task(waiting)
        try:
            with start.stopping.of_loop(runner) as cancelled:
                yield cancelled
        finally:
            observers.looked(moment_of(runner, observers))

    try:
        async with (
            sent_once(checked.job, run, partitions) as twins,
            sending_images(work.transport.send, asked.images) as send,
        ):
            with _budgeted(work) as budget:
                ports = _ports(work, send, budget, twins)
                return stop_of(await run_partitions(partitions, marks, ports, watched=watched), run.manifest)
    except InputError as error:
        raise InputLostError(input_lost(checked.job.input.path, error)) from error
    finally:
        if showing is not None:
            showing.cancel()


def _ports(work: Work, send: Send, budget: Budget | None, twins: Sequence[Twins | None]) -> Ports:
    checked, run, options = work.start.checked, work.run, work.start.options
    limits = checked.job.limits
    return Ports(
        service=service_of(checked, run, work.transport, send),
        policy=policy_of(checked.job, work.slots),
        limits=Limits(
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            shared=options.rate,
        ),
        observer=options.observers.beside(work.shown),
        now=now,
        jitter=random.random,
        budget=budget,
        queues=queue_starts(checked, run, twins),
    )


@contextlib.contextmanager
def _budgeted(work: Work) -> Iterator[Budget | None]:
    """The cap, less everything that may have been spent: what `--retry` reset was paid all the same.

    Of a cap over several runs, the charges that this session found, and what it spends from now on.
    """
    options = work.start.options
    cap, bill, shared = work.start.checked.job.budget.max_cost_usd, work.run.bill, options.shared_budget
    if cap is None and shared is None:
        yield None
        return
    budget = Budget(cap, tallies.spent(bill), shared=shared)
    run_id, session = work.run.manifest.run_id, work.session
    if shared is not None:
        shared.begin(run_id, session.number, Decimal(0) if work.found is None else work.found.charges_usd)
    try:
        yield budget
    finally:
        given_up = budget.close()
        if shared is not None:
            shared.end(run_id, session.number, given_up)
