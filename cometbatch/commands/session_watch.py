"""What is told of a session while it runs, once a second: what it waits for, a slow disk, a cap that is not kept."""

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Protocol

from cometbatch.commands.observers import Moment, Observers
from cometbatch.commands.progress_line import Progress
from cometbatch.results.summary import cap_warning
from cometbatch.run_state.group_commit import SLOW_SYNC_S, slow_disk
from cometbatch.runner.ports import Pace

WAITING_SHOWN_EVERY_S = 1.0


class Telling(Protocol):
    """How a session goes at this moment, as `runner.telling.Told` tells it of one process."""

    @property
    def pace(self) -> Pace:
        """How fast it may send at present."""

    @property
    def unanswered_s(self) -> float:
        """Seconds for which nothing was answered, although requests failed or hung."""

    @property
    def spent_usd(self) -> Decimal | None:
        """US dollars booked by now; None without a budget."""

    @property
    def largest_output_tokens(self) -> int:
        """The most tokens of any answer so far."""

    def waiting_for(self) -> str:
        """What keeps the next request back; "" where nothing does."""

    def silences(self) -> Mapping[int, str]:
        """What a person should know who waits for answers in vain, by the queue's number."""


class Watched(Protocol):
    """What sends: a runner, or whoever drives the runners of several processes."""

    @property
    def told(self) -> Telling:
        """How it goes."""

    @property
    def in_flight(self) -> int:
        """How many requests are being sent right now."""


async def show_waiting(
    runner: Watched, shown: Progress, cap: int | None, observers: Observers, *, slowest_sync_s: Callable[[], float]
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
        if (seconds := slowest_sync_s()) > SLOW_SYNC_S and not is_slow:
            shown.warn(slow_disk(seconds))
            is_slow = True


def moment_of(runner: Watched, observers: Observers) -> Moment:
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
