"""Owners as processes of this machine: how they are started, and the socket over which they reach the coordinator."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Self, TypeAlias

from cometbatch.control.coordination.messages import Reply, Request

Handle: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""Answers an encoded message of an owner: `Host.handle`."""


class SocketLine:
    """An owner's `Line` to the coordinator in the driver's process."""

    @classmethod
    async def connect(cls, path: str, token: str) -> Self:
        """Raises `LineClosedError` where nobody listens there any more."""
        raise NotImplementedError

    async def ask(self, request: Request) -> Reply:
        """Send a message and return its answer. Raises `LineError`, `LineClosedError`."""
        raise NotImplementedError


class LocalLauncher:
    """Starts owners' processes on this machine. `engines.line.Launcher`.

    `handle`: answers their messages. `assigned`: what an owner is given, as bytes, by its number. `withheld`: names of
    variables that their environment must not have, beside those that look like a key.
    """

    def __init__(
        self, handle: Handle, assigned: Callable[[int], bytes], command: Sequence[str], withheld: Collection[str] = ()
    ) -> None:
        raise NotImplementedError
