"""What surrounds a session while it runs: signals, and what it is waiting for, once a second."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator

from cometbatch.commands.progress_line import Progress
from cometbatch.results.summary import cap_warning, count
from cometbatch.run_state.partition import SLOW_SYNC_S, Partitions
from cometbatch.runner.ports import Stop
from cometbatch.runner.turns import Runner

WAITING_SHOWN_EVERY_S = 1.0
STOPS = {
    signal.SIGINT: Stop("interrupted", "Interrupted."),
    signal.SIGTERM: Stop("terminated", "Terminated."),
    signal.SIGHUP: Stop("hung_up", "Hung up."),
}


async def show_waiting(runner: Runner, partitions: Partitions, shown: Progress, cap: int | None) -> None:
    """Say each second what is waited for, and once that the disk is slow, or that answers pass their cap (tokens)."""
    is_told = is_slow = False
    while True:
        await asyncio.sleep(WAITING_SHOWN_EVERY_S)
        shown.redraw(runner.in_flight, runner.waiting_for())
        shown.warn_of_cap(cap_warning(runner.largest_output_tokens, cap))
        if (silence := runner.silence()) and not is_told:
            shown.say(f"Warning: {silence}")
        is_told = bool(silence)
        if (seconds := partitions.slowest_sync_s) > SLOW_SYNC_S and not is_slow:
            shown.say(f"Warning: the disk took {seconds:.1f} s to sync: a power cut can lose what that long recorded.")
            is_slow = True


@contextlib.contextmanager
def signals_handled(runner: Runner, shown: Progress) -> Iterator[None]:
    """First Ctrl-C, SIGTERM or SIGHUP: finish what is in flight; a second: stop now. Only where signals reach us.

    A signal that the process ignores (`nohup`, a shell's background job) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in STOPS}
    kinds = {number: stop for number, stop in STOPS.items() if before[number] is not signal.SIG_IGN}
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
