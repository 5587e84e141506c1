"""Keeps the processes of a session's owners alive, whatever engine starts them.

Guards: an owner whose process has ended is never started again: another one with a number of its own goes on.
"""

from typing import Protocol

from cometbatch.control.coordination.messages import Driven
from cometbatch.engines.line import Launcher


class Driving(Protocol):
    """The driver's talk with the coordinator, as far as processes are concerned."""

    def gone(self, owner: int) -> None:
        """The process of an owner is known to have ended: a hint, which each later word of the driver has."""

    async def drive(self) -> Driven:
        """Say the driver's word now, and return the answer."""


async def supervise(launcher: Launcher, workers: int, driving: Driving) -> None:
    """Keep this number of owners alive until all is done or the session stops, and all of them have ended.

    Owners are numbered from 1; where the process of one ends and it has not left in order, the next number goes on.
    Those that give up nothing in flight (`StopOrder.is_now`) are killed after `END_S`. Raises `CometbatchError` where
    processes end again and again before they have done anything, and what `launch` raises.
    """
    raise NotImplementedError
