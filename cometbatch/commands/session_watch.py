"""What surrounds a session while it runs: signals, and what it is waiting for, once a second."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from cometbatch.commands.observers import Moment, Observers
from cometbatch.commands.progress_line import Progress
from cometbatch.results.summary import cap_warning
from cometbatch.results.summary_words import count
from cometbatch.run_state.partition import SLOW_SYNC_S, Partitions
from cometbatch.runner.ports import Stop
from cometbatch.runner.turns import Runner

WAITING_SHOWN_EVERY_S = 1.0
STOPS = {
    signal.SIGINT: Stop("interrupted", "Interrupted."),
    signal.SIGTERM: Stop("terminated", "Terminated."),
    signal.SIGHUP: Stop("hung_up", "Hung up."),
}


async def show_waiting(
    runner: Runner, partitions: Partitions, shown: Progress, cap: int | None, observers: Observers
) -> None:
    """Say each second what is waited for, and once that the disk is slow, or that answers pass their cap (tokens)."""
    is_told = is_slow = False
    while True:
        await asyncio.sleep(WAITING_SHOWN_EVERY_S)
        shown.redraw(runner.in_flight, runner.waiting_for())
        if observers.any:
            observers.looked(moment_of(runner, observers))
        shown.warn_of_cap(cap_warning(runner.largest_output_tokens, cap))
        if (silence := runner.silence()) and not is_told:
            shown.warn(silence)
        is_told = bool(silence)
        if (seconds := partitions.slowest_sync_s) > SLOW_SYNC_S and not is_slow:
            shown.warn(f"the disk took {seconds:.1f} s to sync: a power cut can lose what that long recorded.")
            is_slow = True


def moment_of(runner: Runner, observers: Observers) -> Moment:
    """The run as it is now."""
    return Moment(
        at=asyncio.get_running_loop().time(),
        tally=observers.tally,
        in_flight=runner.in_flight,
        waiting_for=runner.waiting_for(),
        pace=runner.pace,
        unanswered_s=runner.unanswered_s,
        spent_usd=runner.spent_usd,
    )


class Interrupts:
    """Ctrl-C for a run in a thread: the caller who waits for it hands it on. For any thread.

    The first finishes what is in flight, a second stops now; one that comes before or after the loop cancels the run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[Stop], None] | None = None
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
    def handled(self, stop: Callable[[Stop], None]) -> Iterator[None]:
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


@contextlib.contextmanager
def signals_handled(runner: Runner, shown: Progress, interrupts: Interrupts | None) -> Iterator[None]:
    """First Ctrl-C, SIGTERM or SIGHUP: finish what is in flight; a second: stop now. Only where signals reach us.

    `interrupts`: what stands for Ctrl-C where they don't, in a thread. A signal that the process ignores (`nohup`, a
    shell's background job) stays ignored.
    """
    asked: list[Stop] = []

    def handle(stop: Stop) -> None:
        if asked:
            shown.say("Stopping now; what was in flight is not recorded and will be sent again.")
            runner.stop_now(stop)
        else:
            shown.say(
                f"Stopping: finishing {count(runner.in_flight, 'request')} in flight (a second signal stops at once)."
            )
            runner.stop(stop)
        asked.append(stop)

    if interrupts is not None:
        with interrupts.handled(handle):
            yield
        return
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in STOPS}
    kinds = {number: stop for number, stop in STOPS.items() if before[number] is not signal.SIG_IGN}
    for number, stop in kinds.items():
        loop.add_signal_handler(number, handle, stop)
    try:
        yield
    finally:
        for number in kinds:
            loop.remove_signal_handler(number)
            handler = before[number]
            if handler is not None:  # None: installed by no Python code, and so not ours to bring back
                signal.signal(number, handler)
