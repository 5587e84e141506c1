"""How an owner talks to the coordinator: each message until it is answered, unless the owner may not go on."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from cometbatch.control.coordination.messages import Claimed, Lease, News, Reply, Request, Verdict
from cometbatch.engines.line import Line, LineClosedError, LineError
from cometbatch.run_state.ownership import LostOwnerError

Told = TypeVar("Told", Lease, Claimed, Verdict, News)

FIRST_RETRY_S: Final = 0.05
"""Seconds until a message that was not answered is sent again; each further failure doubles them."""

LAST_RETRY_S: Final = 0.4
"""Seconds between two tries at most. Above a third of a lease, a coordinator that is back would be noticed too late."""

LOST: Final = "What this worker worked on was given to another one, since it could not renew its lease in time."


class Asking:
    """A line that is asked again and again. `on_end`: called once, where the owner may neither send nor commit."""

    def __init__(self, line: Line) -> None:
        self.error: Exception | None = None
        """Why the owner may not go on; None where it may."""
        self.on_end: Callable[[], None] = lambda: None
        self._line = line
        self._over = asyncio.Event()
        self._in_order = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._said: set[asyncio.Task[None]] = set()

    async def ask(self, request: Request, kind: type[Told]) -> Told:
        """Send a message until it is answered. Raises `LostOwnerError`, `LineClosedError`: it never will be."""
        tries = 0
        while True:
            try:
                return await self.ask_once(request, kind)
            except LineClosedError:
                raise
            except LineError:
                await self.unless_over(retry_s(tries))
                tries += 1

    async def ask_once(self, request: Request, kind: type[Told]) -> Told:
        """Send a message. Raises `LineError`, and what `ask` raises."""
        self.raise_if_over()
        try:
            reply = await self._answer(request)
        except LineClosedError as error:
            self.end(error)
            raise
        if reply.is_lost:
            self.end(LostOwnerError(LOST))
            self.raise_if_over()
        if not isinstance(reply, kind):
            raise LineError(f"{type(request).__name__} was answered by {type(reply).__name__}")
        return reply

    def say(self, message: Request) -> None:
        """Send a message in the background; one after the other, in the order in which they are said."""
        self._start(self._say(message), self._said)

    def go_on(self, work: Coroutine[Any, Any, None]) -> None:
        """Do work in the background until `aclose`. An error of it ends the owner."""
        self._start(work, self._background)

    async def all_said(self) -> None:
        """Wait until what was said is answered."""
        if self._said:
            await asyncio.wait(self._said)

    async def stop_background(self) -> None:
        """End what is done in the background; what was said is still on its way."""
        await _cancelled(self._background)

    async def aclose(self) -> None:
        """End all that is done."""
        await _cancelled({*self._background, *self._said})

    def end(self, error: Exception) -> None:
        """The owner may not go on. The first reason stands."""
        if self.error is None:
            self.error = error
            self._over.set()
            self.on_end()

    def raise_if_over(self) -> None:
        """Raise why the owner may not go on, if so it is."""
        if self.error is not None:
            raise self.error

    async def unless_over(self, wait_s: float) -> None:
        """Wait this long, or until the owner may not go on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._over.wait()

    async def _answer(self, request: Request) -> Reply:
        """The answer, unless the owner ends meanwhile: nothing may wait for a line that never answers then."""
        answer = asyncio.ensure_future(self._line.ask(request))
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({answer, over}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                self.raise_if_over()
            return await answer
        finally:
            answer.cancel()
            over.cancel()

    async def _say(self, message: Request) -> None:
        async with self._in_order:
            await self.ask(message, Verdict)

    def _start(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self.end(error)


async def _cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    if ending:
        await asyncio.wait(ending)


def retry_s(tries: int) -> float:
    """Seconds until a message that failed is sent again; `tries`: how often it failed before."""
    return min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(tries, 8))
