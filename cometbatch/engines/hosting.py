"""The coordinator's shell: messages as bytes, long polls, the clock, and what is written down before it is answered."""

from collections.abc import Callable
from pathlib import Path

from cometbatch.control.coordination.coordinator import Coordinator
from cometbatch.control.coordination.messages import Drive, Driven


class Host:
    """A coordinator on the running event loop: behind a socket, in an actor, or on virtual time."""

    def __init__(
        self, coordinator: Coordinator, clock: Callable[[], float], *, grants_file: Path | None = None
    ) -> None:
        """`clock`: seconds, suspends included. `grants_file`: what a coordinator that begins anew needs; None: none can."""

    async def handle(self, content: bytes) -> bytes:
        """Answer an owner's message. Raises `msgspec.MsgspecError` where it is none."""
        raise NotImplementedError

    async def drive(self, word: Drive) -> Driven:
        """Answer the driver."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Answer who still waits, and stop the clock's work."""


def clock() -> float:
    """Seconds that count the time in which the machine was suspended, where there is such a clock."""
    raise NotImplementedError
