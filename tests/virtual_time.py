"""An event loop whose clock jumps to the next timer, so that hours of waiting take no time.

While work runs in threads the clock stands still: what a thread does takes no virtual time.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")
THREAD_POLL_S = 0.001


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits for a timer: tells the loop how long it would have waited instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.threads:
            return super().select(THREAD_POLL_S)
        ready = super().select(0)
        if not ready:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual seconds since the loop was made."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def run_in_executor(  # type: ignore[override] # the stub's generic form can't be restated without TypeVarTuple noise
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        self._jumping.threads += 1
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncio has it
        """From Python 3.12 on, asyncio waits 300 s at most, which are over at once on this clock."""
        await super().shutdown_default_executor()

    def _thread_ended(self, _: object) -> None:
        self._jumping.threads -= 1


def run(main: Awaitable[T]) -> T:
    """Run a coroutine to its end on virtual time."""

    async def body() -> T:
        return await main

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_as_coroutine(body()))


def _as_coroutine(coroutine: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    return coroutine
