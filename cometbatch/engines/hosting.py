"""The coordinator's shell: messages as bytes, long polls, the clock, and what is written down before it is answered."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cometbatch.control.coordination.coordinator import Coordinator
from cometbatch.control.coordination.messages import LEASE_S, Drive, Driven, News, Watch, decode_request, encode

TICK_S: Final = 0.1
"""Seconds between two looks at the clock: the coordinator takes a longer gap for a pause of its own."""


class Host:
    """A coordinator on the running event loop: behind a socket, in an actor, or on virtual time."""

    def __init__(
        self, coordinator: Coordinator, clock: Callable[[], float], *, grants_file: Path | None = None
    ) -> None:
        """`clock`: seconds, suspends included. `grants_file`: for a coordinator that takes this one's place, if any."""
        self._coordinator = coordinator
        self._clock = clock
        self._log = None if grants_file is None else _Log(grants_file)
        self._watching: set[asyncio.Future[None]] = set()
        self._news = coordinator.news
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def handle(self, content: bytes) -> bytes:
        """Answer an owner's message.

        Raises `msgspec.MsgspecError` where it is none, and `OSError` where what was promised can't be written down.
        """
        self._begin()
        request = decode_request(content)
        if isinstance(request, Watch):
            return encode(await self._watch(request))
        reply = self._coordinator.handle(request, self._clock())
        await self._settle()
        return encode(reply)

    async def drive(self, word: Drive) -> Driven:
        """Answer the driver. Raises `OSError`, as `handle` does."""
        self._begin()
        driven = self._coordinator.drive(word, self._clock())
        await self._settle()
        return driven

    async def aclose(self) -> None:
        """Answer who still waits, and stop the clock's work."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake()
        if self._log is not None:
            await self._log.aclose()

    async def _watch(self, request: Watch) -> News:
        """Wait for news beyond what an owner has seen, for as long as a lease lasts."""
        loop = asyncio.get_running_loop()
        seen = self._coordinator.news_beyond(request.seen, request.owner, self._clock())
        if seen is not None or self._is_closed:
            return seen or News(request.seen)
        waiting: asyncio.Future[None] = loop.create_future()
        self._watching.add(waiting)
        timer = loop.call_later(LEASE_S, _resolve, waiting)
        try:
            await waiting
        finally:
            timer.cancel()
            self._watching.discard(waiting)
        news = self._coordinator.news_beyond(request.seen, request.owner, self._clock())
        return News(request.seen) if news is None else news

    async def _settle(self) -> None:
        """Wake who waits for news, and write down what was promised."""
        if self._coordinator.news != self._news:
            self._news = self._coordinator.news
            self._wake()
        lines = self._coordinator.unwritten()
        if self._log is not None:
            await self._log.write(lines)

    def _begin(self) -> None:
        """Have the coordinator look at the clock from now on."""
        if self._timer is None and not self._is_closed:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._coordinator.tick(self._clock())
        if self._coordinator.news != self._news:
            self._news = self._coordinator.news
            self._wake()
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _wake(self) -> None:
        for waiting in self._watching:
            _resolve(waiting)


class _Log:
    """A file that lines are added to, in order; each is on the disk before whoever waits for it is answered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[bytes] = []
        self._lock = asyncio.Lock()

    async def write(self, lines: list[bytes]) -> None:
        """Add lines, together with those that others wait for. Where that fails they are kept for the next time."""
        self._pending.extend(lines)
        if not lines:
            return
        async with self._lock:
            if self._pending:
                content = b"".join(self._pending)
                count = len(self._pending)
                await asyncio.get_running_loop().run_in_executor(None, _append, self._path, content)
                del self._pending[:count]

    async def aclose(self) -> None:
        """Wait for what is being written."""
        async with self._lock:
            return


def _append(path: Path, content: bytes) -> None:
    """Add to a file and wait until a power cut can't take it back. Where that fails, nothing is added.

    Each addition begins a new line, as the last one may be cut short by the end of a process.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        try:
            rest = b"\n" + content
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _resolve(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
