"""How a run is asked to stop, by whomever: a signal, an event, a cancel; and how long it has from then on.

The first request finishes what is in flight. SIGTERM, SIGHUP, an event and a cancel leave it `limits.stop_within_s`
seconds for that, Ctrl-C as long as it takes. Then, or at a second request, it is given up. Its marks stay where they
are: so the summary counts each as a possible charge, and the next session counts it once.

Guards: each run in this process hears a signal; the caller's own handlers are back once the last run has ended.
"""

import asyncio
import contextlib
import functools
import math
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, Protocol, TypeVar

from cometbatch.commands.progress_line import Progress
from cometbatch.results.summary_words import count
from cometbatch.runner.ports import Stop

Returned = TypeVar("Returned")

LOOK_S: Final = 0.05  # seconds between two looks at an event, which calls nobody when it is set
STOPS: Final = {
    signal.SIGINT: Stop("interrupted", "Interrupted."),
    signal.SIGTERM: Stop("terminated", "Terminated."),
    signal.SIGHUP: Stop("hung_up", "Hung up."),
}
TERMINATED: Final = STOPS[signal.SIGTERM]
AT_ONCE: Final = " (a second signal stops at once)"
SENT_TOGETHER: Final = {"terminated", "hung_up"}  # the end of a login session sends both: neither is a second request
NOT_PUBLISHED: Final = "Each row has its outcome; what is left to do is to publish the result, which sends nothing."


class Event(Protocol):
    """What a caller sets to stop a run: `threading.Event` and its like."""

    def is_set(self) -> bool:
        """Whether the run is to stop. Asked from the run's own thread."""


class Loop(Protocol):
    """What sends: a runner, or whoever drives the runners of several processes."""

    @property
    def in_flight(self) -> int:
        """How many requests are being sent right now."""

    def stop(self, stop: Stop) -> None:
        """Send no more; what is in flight is finished and recorded. The first reason given stands."""

    def stop_now(self, stop: Stop) -> None:
        """Send no more and give up what is in flight, unrecorded."""


class StoppedBeforeError(Exception):
    """The event was set before the run's first request."""


def ended_by() -> SystemExit | None:
    """What ends the process where a signal came to the command's own handler, and to no run; None else."""
    handlers = [signal.getsignal(number) for number in STOPS]
    codes = [code for handler in handlers if (code := getattr(handler, "ended_with", None)) is not None]
    return SystemExit(codes[0]) if codes else None


class NotPublishedError(Exception):
    """Publishing was given up."""


class Interrupts:
    """Ctrl-C for a run in a thread: the caller who waits for it hands it on. For any thread.

    The first finishes what is in flight, a second stops now; one that comes before or after the loop cancels the run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[Stop], object] | None = None
        self._cancel: Callable[[], object] | None = None

    def interrupt(self) -> None:
        """Hand one Ctrl-C on."""
        with self._lock:
            loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._arrived)

    @contextlib.contextmanager
    def of_task(self) -> Iterator[None]:
        """Surrounds the task that is to be stopped."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - whoever enters is a coroutine of a running loop
        with self._lock:
            self._loop, self._cancel = asyncio.get_running_loop(), task.cancel
        try:
            yield
        finally:
            with self._lock:
                self._loop = None

    @contextlib.contextmanager
    def handled(self, stop: Callable[[Stop], object]) -> Iterator[None]:
        """While the loop runs, `stop` is called."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = None

    def _arrived(self) -> None:
        if self._stop is not None:
            self._stop(STOPS[signal.SIGINT])
        elif self._cancel is not None:
            self._cancel()


class Stopping:
    """The requests to stop one run, and what each means for the phase that the run is in. For the run's own thread.

    `within_s`: seconds as `limits.stop_within_s` says. `event`: stops the run when it is set, as SIGTERM does.
    `interrupts`: what stands for Ctrl-C where no signal arrives, in a thread.
    """

    def __init__(self, within_s: float, event: Event | None = None, interrupts: Interrupts | None = None) -> None:
        self.is_given_up = False
        """Whether the time of what is under way is over. Read by a thread that publishes."""
        self._within_s = within_s
        self._event = event
        self._interrupts = interrupts
        self._phase: Literal["before", "heard", "over"] = "before"
        self._asked: Stop | None = None  # the first request
        self._task: asyncio.Task[Any] | None = None
        self._has_cancelled = False
        self._shown: Progress | None = None
        self._runner: Loop | None = None
        self._is_publishing = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def asked(self) -> Stop | None:
        """The first request to stop; None where there is none. Read by any thread."""
        return self._asked

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Surrounds the whole run. Raises `StoppedBeforeError` where the event ends it before its first request."""
        if self._event is not None and self._event.is_set():
            raise StoppedBeforeError
        self._task = task = asyncio.current_task()
        assert task is not None  # noqa: S101 - whoever enters is a coroutine of a running loop
        looking = None if self._event is None else asyncio.create_task(self._look(self._event))
        try:
            yield
        except asyncio.CancelledError:
            if not self._has_cancelled or task.uncancel() > 0:
                raise
            raise StoppedBeforeError from None
        finally:
            self._phase = "over"
            if looking is not None:
                looking.cancel()

    @contextlib.contextmanager
    def heard(self, shown: Progress) -> Iterator[None]:
        """From the loop's start until the result is published: signals, and what stands for them, are heard."""
        self._phase, self._shown = "heard", shown
        is_main = threading.current_thread() is threading.main_thread()
        with contextlib.ExitStack() as stack:
            if self._interrupts is not None:
                stack.enter_context(self._interrupts.handled(self.ask))
            elif is_main:
                stack.enter_context(_signals_heard(functools.partial(self.ask, words=AT_ONCE)))
            try:
                yield
            finally:
                self._phase = "over"
                self._end_timer()

    @contextlib.contextmanager
    def of_loop(self, runner: Loop) -> Iterator[Callable[[], object]]:
        """While this runner sends. Yields what is called each time that its task is cancelled."""
        self._runner = runner
        if self._asked is not None:
            self._stop_runner(runner, self._asked, "")
        try:
            yield functools.partial(self.ask, TERMINATED)
        finally:
            self._runner = None
            self._end_timer()

    async def publish(self, files: ThreadPoolExecutor, work: Callable[[], object]) -> Stop | None:
        """Do the work that publishes, in a thread; returns why it was given up, if it was.

        The work looks at `is_given_up` and raises `NotPublishedError` then. What it has renamed by then is there: a run
        that was asked to stop meanwhile has finished. Where the caller is cancelled, the work has the same time, and
        `CancelledError` is raised once it has ended.
        """
        self._is_publishing = True
        if self._asked is not None:
            self._begin_timer(self._asked)
        publishing = asyncio.get_running_loop().run_in_executor(files, work)
        is_cancelled = False
        while not publishing.done():
            try:
                await asyncio.wait([publishing])
            except asyncio.CancelledError:
                is_cancelled = True
                self.ask(TERMINATED)
        self._is_publishing = False
        error = publishing.exception()
        if is_cancelled:
            raise asyncio.CancelledError
        if isinstance(error, NotPublishedError) and self._asked is not None:
            return Stop(self._asked.kind, self._asked.message, NOT_PUBLISHED)
        if error is not None:
            raise error
        return None

    def ask(self, stop: Stop, *, words: str = "") -> float:
        """Take one request. `words`: what a person may do next. Returns in how many seconds the run ends at the latest.

        Infinite: when everything in flight is answered.
        """
        if self._asked is not None and {self._asked.kind, stop.kind} == SENT_TOGETHER:
            return self._within_s
        is_first, self._asked = self._asked is None, self._asked or stop
        runner = self._runner
        if self._phase == "before":
            if self._task is not None and is_first:
                self._has_cancelled = self._task.cancel()
            return 0.0
        if runner is not None and is_first:
            self._stop_runner(runner, stop, words)
        elif runner is not None:
            self._give_up(runner, stop, "")
        elif not is_first:
            self.is_given_up = True
        elif self._is_publishing:
            self._say(f"Stopping: the result is published first{self._how_long(stop)}{words}.")
            self._begin_timer(stop)
        return self._seconds(stop) if is_first else 0.0

    async def _look(self, event: Event) -> None:
        """An event calls nobody, and one of a thread must not be waited for in a loop."""
        while not event.is_set():  # noqa: ASYNC110 - see above
            await asyncio.sleep(LOOK_S)
        self.ask(TERMINATED)

    def _stop_runner(self, runner: Loop, stop: Stop, words: str) -> None:
        flying = count(runner.in_flight, "request")
        self._say(f"Stopping: finishing {flying} in flight{self._how_long(stop)}{words}.")
        runner.stop(stop)
        self._begin_timer(stop)

    def _begin_timer(self, stop: Stop) -> None:
        if self._timer is None and self._seconds(stop) < math.inf:
            self._timer = asyncio.get_running_loop().call_later(self._within_s, self._time_is_over, stop)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_over(self, stop: Stop) -> None:
        if self._runner is not None:
            self._give_up(self._runner, stop, f" after {self._within_s:g} s")
        else:
            self.is_given_up = True

    def _give_up(self, runner: Loop, stop: Stop, when: str) -> None:
        if flying := runner.in_flight:
            those = "It may be billed, and counts" if flying == 1 else "They may be billed, and each counts"
            self._say(
                f"Stopping now: {count(flying, 'request')} in flight {'is' if flying == 1 else 'are'} given up{when}. "
                f"{those} as a possible extra charge; the next run sends what they asked again."
            )
        runner.stop_now(stop)

    def _seconds(self, stop: Stop) -> float:
        """How long a first request leaves."""
        return math.inf if stop.kind == "interrupted" else self._within_s

    def _how_long(self, stop: Stop) -> str:
        seconds = self._seconds(stop)
        return "" if seconds == math.inf else f", for at most {seconds:g} s"

    def _say(self, line: str) -> None:
        if self._shown is not None:
            self._shown.say(line)


class _Heard:
    """Who hears signals in this process: its runs on the main thread's loop, and the handlers that they replaced."""

    def __init__(self) -> None:
        self.asks: list[Callable[[Stop], float]] = []
        self.before: dict[signal.Signals, Any] = {}

    def begin(self) -> None:
        """Take the signals over. One that the process ignores (`nohup`, a shell's background job) stays ignored."""
        self.before = {number: signal.getsignal(number) for number in STOPS}
        for number in STOPS:
            if self.before[number] is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, self._arrived, number)

    def end(self) -> None:
        """Give them back."""
        for number, handler in self.before.items():
            if handler is not signal.SIG_IGN:
                asyncio.get_running_loop().remove_signal_handler(number)
                if handler is not None:  # None: installed by no Python code, and so not ours to bring back
                    signal.signal(number, handler)

    def _arrived(self, number: signal.Signals) -> None:
        """Tell each run, and the handler that was replaced, if it wants to know when they end at the latest."""
        seconds = [ask(STOPS[number]) for ask in tuple(self.asks)]
        ends_within = getattr(self.before[number], "ends_within", None)
        if ends_within is not None:
            ends_within(max(seconds, default=0.0))


_heard = _Heard()


@contextlib.contextmanager
def _signals_heard(ask: Callable[[Stop], float]) -> Iterator[None]:
    """First Ctrl-C, SIGTERM or SIGHUP: finish what is in flight; a second: stop now. For the main thread."""
    if not _heard.asks:
        _heard.begin()
    _heard.asks.append(ask)
    try:
        yield
    finally:
        _heard.asks.remove(ask)
        if not _heard.asks:
            _heard.end()
