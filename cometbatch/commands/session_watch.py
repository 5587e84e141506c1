"""What is told of a session while it runs, once a second: what it waits for, a slow disk, a cap that is not kept."""

import asyncio

from cometbatch.commands.observers import Moment, Observers
from cometbatch.commands.progress_line import Progress
from cometbatch.results.summary import cap_warning
from cometbatch.run_state.group_commit import SLOW_SYNC_S
from cometbatch.run_state.partition import Partitions
from cometbatch.runner.turns import Runner

WAITING_SHOWN_EVERY_S = 1.0


async def show_waiting(
    runner: Runner, partitions: Partitions, shown: Progress, cap: int | None, observers: Observers
) -> None:
    """Say each second what is waited for, and once that the disk is slow, or that answers pass their cap (tokens)."""
    told: set[int] = set()  # queues whose silence was told, since it began
    is_slow = False
    while True:
        await asyncio.sleep(WAITING_SHOWN_EVERY_S)
        shown.redraw(runner.in_flight, runner.told.waiting_for())
        if observers.any:
            observers.looked(moment_of(runner, observers))
        shown.warn_of_cap(cap_warning(runner.told.largest_output_tokens, cap))
        silences = runner.told.silences()
        for queue in silences.keys() - told:
            shown.warn(silences[queue])
        told = set(silences)
        if (seconds := partitions.group_commit.slowest_s) > SLOW_SYNC_S and not is_slow:
            shown.warn(f"the disk took {seconds:.1f} s to sync: a power cut can lose what that long recorded.")
            is_slow = True


def moment_of(runner: Runner, observers: Observers) -> Moment:
    """The run as it is now."""
    return Moment(
        at=asyncio.get_running_loop().time(),
        tally=observers.tally,
        in_flight=runner.in_flight,
        waiting_for=runner.told.waiting_for(),
        pace=runner.told.pace,
        unanswered_s=runner.told.unanswered_s,
        spent_usd=runner.told.spent_usd,
    )
