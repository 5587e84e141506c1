"""Standard error as JSON lines: whatever is written there becomes an event, one line each.

Guards: each line is whole, whichever threads write; what is no event of ours (Python's warnings, a library's log, a
traceback, a stray `print`) becomes one. An exception's own words may quote a row: they are left out, but where
`COMETBATCH_TRACEBACK` asks for them.
"""

import atexit
import contextlib
import datetime as dt
import io
import logging
import os
import sys
import threading
import traceback
import warnings
from types import TracebackType
from typing import Any, Final

from cometbatch.cli.printing import TRACEBACK
from cometbatch.results.events import Level, event_of, line_of

FRAMES: Final = 20
"""Places in the code that are told of an exception, the innermost last."""

MAX_HELD: Final = 8_000
"""Characters of a line that is not ended yet; more of them are told as they are."""


class JsonLog:
    """Writes events to a descriptor. For any thread, and for a signal's handler in the midst of a writing."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._lock = threading.RLock()

    def emit(self, event: dict[str, Any]) -> None:
        """Write an event as one line. Standard error may be gone: the exit code still says how the command ended."""
        line = line_of(event)
        with self._lock, contextlib.suppress(OSError):
            while line:
                line = line[os.write(self._descriptor, line) :]

    def tell(self, name: str, level: Level | None = None, **fields: Any) -> None:
        """Write an event that is made of these fields."""
        self.emit(event_of(name, dt.datetime.now(dt.UTC), fields, level))

    def line(self, name: str, **fields: Any) -> bytes:
        """The line of such an event, for whoever can't wait until others have written."""
        return line_of(event_of(name, dt.datetime.now(dt.UTC), fields))

    def tell_unexpected(self, error: BaseException, name: str = "error", words: str = "", **fields: Any) -> None:
        """Write what happened and where in the code, in no words that may quote a row."""
        if isinstance(error, OSError) and error.strerror:
            said = f"{type(error).__name__}: {error.strerror}" + (f": {error.filename}" if error.filename else "")
        else:
            said = f"{type(error).__name__}: {error}" if TRACEBACK in os.environ else type(error).__name__
        where = _places(error.__traceback__)
        self.tell(name, message=f"{words}{said}", type=type(error).__name__, where=where, **fields)

    def install(self) -> None:
        """Have everything told so that Python code of this process writes to standard error."""
        sys.stderr = stream = _Stream(self)
        atexit.register(stream.close)
        sys.excepthook = lambda _kind, error, _trace: self.tell_unexpected(error)
        sys.unraisablehook = lambda found: self.tell_unexpected(found.exc_value or RuntimeError(), "warning")
        threading.excepthook = lambda found: self.tell_unexpected(found.exc_value or RuntimeError())
        warnings.showwarning = self._show_warning
        logging.getLogger().addHandler(_Handler(self))

    def _show_warning(  # noqa: PLR0917 - as Python calls it
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: object = None,  # noqa: ARG002 - as Python calls it
        line: object = None,  # noqa: ARG002 - the same
    ) -> None:
        self.tell("warning", message=str(message), type=category.__name__, where=[f"{filename}:{lineno}"])


class _Handler(logging.Handler):
    """Tells what libraries log."""

    def __init__(self, log: JsonLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """One record, as one event."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            self._log.tell("warning", message=record.getMessage(), logger=record.name)
        else:  # its words may hold what was at work
            self._log.tell_unexpected(error, "warning", logger=record.name)


class _Stream(io.TextIOBase):
    """Stands for `sys.stderr`: whole lines become events."""

    def __init__(self, log: JsonLog) -> None:
        self._log = log
        self._lock = threading.RLock()
        self._held = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a property is enough: nobody sets it
        """As a file of texts has it."""
        return "utf-8"

    def writable(self) -> bool:
        """As a file has it."""
        return True

    def fileno(self) -> int:
        """As a file has it."""
        return 2

    def write(self, text: str) -> int:
        """Keep a text until its line is ended; several lines that are written at once are one event."""
        with self._lock:
            self._held += text
            if self._held.endswith("\n") or len(self._held) > MAX_HELD:
                self._tell()
        return len(text)

    def flush(self) -> None:
        """Nothing: who flushes may go on with the line."""

    def close(self) -> None:
        """Tell what is left."""
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            held, self._held = self._held.strip(), ""
        if held:
            self._log.tell("warning", message=held)


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
