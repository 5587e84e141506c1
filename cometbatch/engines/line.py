"""How an owner reaches the coordinator, whatever lies between: a socket, an actor, or a simulated net."""

from typing import Protocol

from cometbatch.control.coordination.messages import Drive, Driven, Reply, Request


class LineError(Exception):
    """The coordinator can't be reached just now, or did not answer. It may have taken the message all the same."""


class LineClosedError(LineError):
    """There is no way to the coordinator any more, and never will be: whoever started this process has ended."""


class Line(Protocol):
    """An owner's way to the coordinator. Several messages may be on their way at a time."""

    async def ask(self, request: Request) -> Reply:
        """Send a message and return its answer. Raises `LineError`, `LineClosedError`."""


class DriverLine(Protocol):
    """The driver's way to the coordinator."""

    async def drive(self, word: Drive) -> Driven:
        """Send the driver's word and return how the session goes. Raises `LineError`."""


class Launched(Protocol):
    """An owner's process, as the engine that started it knows it.

    `was_killed`: once it has ended, whether something beside it ended it, so that another one may go on.
    """

    owner: int
    was_killed: bool

    async def ended(self) -> str:
        """Wait until the process is known to be gone; how it ended, in a few words: a hint, and never proof."""

    def kill(self) -> None:
        """End it by force, if it is there."""


class Launcher(Protocol):
    """What starts owners' processes: one for `--workers`, one for Ray."""

    async def launch(self, owner: int) -> Launched:
        """Start the process of an owner. Raises `CometbatchError` where that can't be done at all."""

    async def aclose(self) -> None:
        """End whatever is left."""
