"""Keeps the processes of a session's owners alive, whatever engine starts them.

Guards: an owner whose process has ended is never started again: another one with a number of its own goes on. Processes
that end before they have done anything end the run; they are not started for ever.
"""

import asyncio
import math
from collections.abc import Mapping
from typing import Final, Protocol

from cometbatch.control.coordination.messages import Driven, OwnerState
from cometbatch.engines.line import Launched, Launcher
from cometbatch.errors import CometbatchError

DRIVE_S: Final = 0.5  # seconds between two looks at the session where nothing ends
END_S: Final = 10.0  # seconds that processes get to end by themselves once nothing is left to do
END_NOW_S: Final = 1.0  # the same once they are to give up what is in flight; the command has `process.END_S` in all
MAX_STILLBORN: Final = 3  # processes in a row that ended before they had joined, and nothing was recorded meanwhile
MAX_FRUITLESS: Final = 3  # for each worker: processes in a row that ended, and nothing was recorded meanwhile
FIRST_PAUSE_S: Final = 0.25  # seconds to wait after the second process in a row that ended so; doubled from then on
MAX_PAUSE_S: Final = 8.0  # seconds to wait at most


class Driving(Protocol):
    """The driver's talk with the coordinator, as far as processes are concerned."""

    def gone(self, owner: int) -> None:
        """The process of an owner is known to have ended: a hint, which each later word of the driver has."""

    async def drive(self) -> Driven:
        """Say the driver's word now, and return the answer."""


async def supervise(launcher: Launcher, workers: int, driving: Driving) -> None:
    """Keep this number of owners alive until all is done or the session stops, and all of them have ended.

    Owners are numbered from 1; where the process of one ends and it has not left in order, the next number goes on.
    Those that do not end in time once they should are killed. Raises `CometbatchError` where processes end again
    and again before they have done anything, and what `launch` raises.
    """
    supervisor = _Supervisor(launcher, workers, driving)
    try:
        await supervisor.run()
    finally:
        await supervisor.aclose()


class _Supervisor:
    def __init__(self, launcher: Launcher, workers: int, driving: Driving) -> None:
        self._launcher, self._workers, self._driving = launcher, workers, driving
        self._now = asyncio.get_running_loop().time
        self._newest = 0
        self._launching: set[asyncio.Task[Launched]] = set()
        self._alive: dict[asyncio.Task[str], Launched] = {}
        self._missing, self._launch_at = workers, -math.inf
        self._recorded = 0  # calls, when a process ended last
        self._stillborn = self._fruitless = 0  # processes in a row
        self._kill_at = math.inf
        self._replaced: set[int] = set()  # owners that were lost, whose processes had not ended then

    async def run(self) -> None:
        """Start processes, and others in place of those that end, as `supervise` has it."""
        while self._alive or self._launching or self._missing:
            if self._now() >= self._launch_at:
                self._launch()
            over = await self._ended()
            for launched in over:
                self._driving.gone(launched.owner)
            driven = await self._driving.drive()
            if _should_end(driven):
                self._end_in_time(driven)
                continue
            states = {each.owner: each for each in driven.owners}
            for launched, words in over.items():
                self._note_end(launched, states.get(launched.owner), driven.recorded.calls, words)
            self._replace_lost(states)

    async def aclose(self) -> None:
        """Start and wait for nobody any more."""
        tasks = [*self._launching, *self._alive]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _launch(self) -> None:
        """Start the processes that are missing, all at once: some engines have room for one only after a while."""
        for _ in range(self._missing):
            self._newest += 1
            self._launching.add(asyncio.create_task(self._launcher.launch(self._newest)))
        self._missing = 0

    async def _ended(self) -> dict[Launched, str]:
        """The processes that have ended, and how; after a moment, none."""
        timeout = min(DRIVE_S, max(0.0, self._launch_at - self._now())) if self._missing else DRIVE_S
        some = {*self._launching, *self._alive}
        if not some:
            await asyncio.sleep(timeout)
            return {}
        await asyncio.wait(some, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in [each for each in self._launching if each.done()]:
            self._launching.discard(task)
            launched = task.result()
            self._alive[asyncio.create_task(launched.ended())] = launched
        return {self._alive.pop(task): task.result() for task in list(self._alive) if task.done()}

    def _note_end(self, ended: Launched, state: OwnerState | None, recorded: int, words: str) -> None:
        """An owner's process has ended: another one is needed, unless it had left in order.

        Raises `CometbatchError` where processes end so again and again.
        """
        if ended.owner in self._replaced or (state is not None and state.has_left and not state.is_lost):
            return
        if recorded > self._recorded:
            self._recorded, self._stillborn, self._fruitless = recorded, 0, 0
        self._fruitless += 1
        if not ended.was_killed:  # which says nothing of the next one
            self._stillborn = self._stillborn + 1 if state is None else 0
        if self._stillborn >= MAX_STILLBORN:
            raise CometbatchError(
                f"{self._stillborn} workers in a row ended before they had begun; the last one: {words}"
            )
        if self._fruitless >= MAX_FRUITLESS * self._workers:
            raise CometbatchError(
                f"{self._fruitless} workers in a row ended before any call had its outcome; the last one: {words}"
            )
        self._missing += 1
        pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self._fruitless - 2)) if self._fruitless > 1 else 0.0
        self._launch_at = self._now() + pause_s

    def _replace_lost(self, states: Mapping[int, OwnerState]) -> None:
        """Others go on at once for owners that may do nothing more, whether their processes notice it or not."""
        for launched in self._alive.values():
            state = states.get(launched.owner)
            if state is not None and state.is_lost and launched.owner not in self._replaced:
                self._replaced.add(launched.owner)
                self._missing += 1

    def _end_in_time(self, driven: Driven) -> None:
        """Start nothing more; kill what has not ended some seconds after it should have."""
        self._missing = 0
        for task in self._launching:
            task.cancel()
        self._launching.clear()
        is_now = any(each.is_now and each.queue is None for each in driven.stops)
        if is_now or driven.is_over:
            self._kill_at = min(self._kill_at, self._now() + (END_NOW_S if is_now else END_S))
        for launched in self._alive.values():
            if launched.owner in self._replaced or self._now() >= self._kill_at:
                launched.kill()


def _should_end(driven: Driven) -> bool:
    return driven.is_over or bool(driven.errors) or any(each.queue is None for each in driven.stops)
