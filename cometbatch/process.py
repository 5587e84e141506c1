"""What only the command does to its process. A program that calls `cometbatch.run` keeps its own settings.

Guards: descriptors 0, 1 and 2 never belong to a file of ours; a signal that ends the process says how to continue, and
ends it in time; a character that the terminal can't show never ends a run.
"""

import atexit
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from cometbatch.engines.allocators import ALLOCATORS
from cometbatch.errors import WRONG_SYSTEM, UsageError

ENDED_BY_SIGNAL = 128  # a shell adds this to a signal's number to get the exit code
ENDING_SIGNALS = ("SIGTERM", "SIGHUP")
END_S = 1.8
"""Seconds to end in, once there is nothing left to finish. What takes longer is not waited for: a look-up of a name, a
pass over the input, a disk that hangs. A run directory is made to be left at any moment, as by a kill."""
CUT = "Ended without waiting for what still was under way; nothing recorded is lost."


def say_plainly(_code: int, words: str) -> bytes:
    """Words as a line for a person."""
    return f"{words}\n".encode()


def prepare(end: Callable[[int], object], last_line: Callable[[int, str], bytes] = say_plainly) -> None:
    """Settle everything that must be settled before the command opens a file or loads a library.

    `end` is called with the exit code when SIGTERM or SIGHUP comes while no run handles signals itself; Ctrl-C raises
    `KeyboardInterrupt`. A signal that the process was started to ignore (by `nohup`, or as a shell's background job)
    stays ignored. `last_line`: how standard error says these words at the end with this exit code; called in a thread.
    """
    _open_standard_descriptors()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ENDING_SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _Ending(ENDED_BY_SIGNAL + number, end, last_line))
    for variable, value in ALLOCATORS.items():
        os.environ.setdefault(variable, value)


class _Ending:
    """Handles a signal that ends the process. A run that handles it instead says within how many seconds it ends."""

    def __init__(self, code: int, end: Callable[[int], object], last_line: Callable[[int, str], bytes]) -> None:
        self._code = code
        self._end = end
        self._last_line = last_line
        self.ended_with: int | None = None
        """The exit code, once the signal has come here."""

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.ended_with = self._code
        self.ends_within(0.0)
        self._end(self._code)

    def ends_within(self, seconds: float) -> None:
        """End the process at the latest `END_S` after these seconds, whatever it does then; infinite: leave it."""
        if seconds <= threading.TIMEOUT_MAX - END_S:
            timer = threading.Timer(seconds + END_S, self._cut)
            timer.daemon = True
            timer.start()

    def _cut(self) -> None:
        try:
            if select.select([], [2], [], 0)[1]:  # who reads a pipe may be what is waited for
                os.write(2, self._last_line(self._code, CUT))  # a stream may be locked by who is waited for
        finally:
            os._exit(self._code)


def settle(code: int) -> None:
    """The command has ended with this exit code, whatever signal comes from now on: it ends the process at once.

    Tearing the interpreter down takes a moment. A signal would raise there where nobody catches it, or kill the process
    as if it had not ended by itself.
    """
    numbers = [getattr(signal, name) for name in ("SIGINT", *ENDING_SIGNALS) if hasattr(signal, name)]
    handled = [each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN]

    def ignore() -> None:  # what comes after the interpreter's own handlers are gone
        for each in handled:
            signal.signal(each, signal.SIG_IGN)

    atexit.register(ignore)
    for each in handled:
        signal.signal(each, lambda _number, _frame: os._exit(code))


def check_system() -> None:
    """Raises `UsageError` where the operating system lacks what a run needs."""
    if sys.platform == "win32":
        raise UsageError(WRONG_SYSTEM)


def discard_output() -> None:
    """Let standard output go nowhere from now on: whoever read it is gone, and what is left in it can't be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_standard_descriptors() -> None:
    """Open what is closed of descriptors 0, 1 and 2 on the null device, and let all of them take any character.

    The system gives a new file the lowest free number. Without this, a journal or a connection would get the number of
    standard output: libraries would write into it, and Python aborts at its end when such a number is taken away.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets this number, since all lower ones are open
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the end
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold bytes that are no text
