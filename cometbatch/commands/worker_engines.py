"""What starts the owners of a session and reaches their coordinator: for processes of this machine, or for Ray."""

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Final

from msgspec import Struct

from cometbatch.control.coordination.coordinator import Coordinator
from cometbatch.control.coordination.settings import Settings
from cometbatch.engines.hosting import Host
from cometbatch.engines.lease_clock import lease_clock
from cometbatch.engines.line import DriverLine, Launcher
from cometbatch.engines.local_workers import LocalLauncher, command_of
from cometbatch.engines.ray import RayJob, RayLauncher
from cometbatch.results import tallies

COMMAND: Final = command_of("cometbatch.commands.worker_process")
"""What runs a worker in a process of its own."""


class Engine(Struct):
    """How the driver reaches the coordinator, and what starts owners. `workers`: how many of them have room.

    `has_ended`: each process that it has started is known to be gone.
    """

    line: DriverLine
    launcher: Launcher
    workers: int
    has_ended: bool = False


@contextlib.asynccontextmanager
async def local_engine(
    settings: Settings, ranges: Sequence[int], assigned: Callable[[int], bytes], withheld: Collection[str]
) -> AsyncIterator[Engine]:
    """Processes of this machine, with the coordinator in this one. None of them is left when it ends.

    `ranges`: those that are due. `assigned`: what an owner is given, by its number. `withheld`: names of variables that
    hold secrets.
    """
    host = Host(Coordinator(settings, ranges, tallies.add), lease_clock)
    launcher = LocalLauncher(host.handle, assigned, COMMAND, withheld)
    engine = Engine(host, launcher, settings.owners)
    try:
        yield engine
    finally:
        try:
            await launcher.aclose()
            engine.has_ended = True
        finally:
            await host.aclose()


@contextlib.asynccontextmanager
async def ray_engine(job: RayJob, address: str, withheld: Collection[str]) -> AsyncIterator[Engine]:
    """Actors of the cluster of Ray at an address, the coordinator among them. None of them sends when it ends.

    `withheld`: as above. Raises `UsageError` where the cluster can't be reached, or has no room.
    """
    launcher = RayLauncher.start(job, address, withheld)
    try:
        yield Engine(launcher.line, launcher, launcher.workers)
    finally:
        await launcher.aclose()
