"""Threads of which exactly one runs at a time, and only when it is told to: so they are as repeatable as coroutines.

A strand runs a plain function in a real thread while whoever began it waits. Within the function, `pause` hands control
back, and `go_on` goes on from there.
"""

import threading
from collections.abc import Callable
from typing import Any


class RunOutError(BaseException):
    """The process of this strand is dead."""


class Strand:
    """One function on its way. `pause_s`: how long it pauses now. `is_over`: whether it has ended."""

    def __init__(self, thread: "_Thread", work: Callable[[], Any]) -> None:
        self.pause_s = 0.0
        self.is_over = False
        self._thread = thread
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self._is_run_out = False

    def go_on(self) -> None:
        """Let it run until it pauses or ends."""
        self._thread.turn(self)

    def run_out(self) -> None:
        """Have it end now: where it paused, an error is raised that its code does not know."""
        self._is_run_out = True
        while not self.is_over:
            self._thread.turn(self)
        self.take()

    def take(self) -> tuple[Any, BaseException | None]:
        """What the function returned or raised. Once; its thread is free then."""
        self._thread.free()
        return self._result, self._error

    def run(self) -> None:
        """In the thread."""
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - handed on
            self._error = error
        self.is_over = True

    def pause(self, seconds: float) -> None:
        """In the thread: let others run. Raises `RunOutError` where it must not go on."""
        if not self._is_run_out:
            self.pause_s = seconds
            self._thread.back()
        if self._is_run_out:
            raise RunOutError


class _Thread:
    def __init__(self, strands: "Strands") -> None:
        self._strands = strands
        self._strand: Strand | None = None
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self._go.acquire()
            if self._strand is None:
                return
            self._strands.running.strand = self._strand
            self._strand.run()
            self._back.release()

    def turn(self, strand: Strand) -> None:
        self._strand = strand
        self._go.release()
        self._back.acquire()

    def back(self) -> None:
        self._back.release()
        self._go.acquire()

    def free(self) -> None:
        self._strand = None
        self._strands.free.append(self)

    def end(self) -> None:
        self._strand = None
        self._go.release()
        self._thread.join()


class Strands:
    """The threads of a world, which are used again."""

    def __init__(self) -> None:
        self.free: list[_Thread] = []
        self.running = threading.local()

    def begin(self, work: Callable[[], Any]) -> Strand:
        """A function that runs once it is told to go on."""
        return Strand(self.free.pop() if self.free else _Thread(self), work)

    def pause(self, seconds: float) -> bool:
        """Pause the strand that runs in this thread; False where there is none."""
        strand: Strand | None = getattr(self.running, "strand", None)
        if strand is None or strand.is_over:
            return False
        strand.pause(seconds)
        return True

    def close(self) -> None:
        """End the threads."""
        while self.free:
            self.free.pop().end()
