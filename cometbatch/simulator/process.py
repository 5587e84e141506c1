"""The simulator as a child process: hides its start, its announcement and its end.

Guards that no child is left behind (its stdin is a pipe from here, and it ends when that closes, however we end) and
that Ctrl-C in a terminal does not end it before the run has drained.
"""

import contextlib
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, NoReturn, Self

from cometbatch.errors import CometbatchError
from cometbatch.simulator.behaviour import Behaviour

COMMAND = (sys.executable, "-m", "cometbatch", "simulate", "--port", "0", "--until-stdin-closes")
KEY_SHAPE = re.compile(r"\bsk-[A-Za-z0-9_-]{8,}")  # contract sheet, section 1
START_LIMIT_S = 30.0
END_LIMIT_S = 10.0
_ANNOUNCED = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")
_COMPLAINT_BYTES = 2_000
_READ_BYTES = 4096
_LAST_WORDS_S = 1.0  # for a child that has just closed its stdout to end, too


class SimulatorError(CometbatchError):
    """The simulator's process did not start, or did not say where it listens."""


class SimulatorProcess:
    """A simulator that runs for the length of a `with` block. `base_url` is where it listens, from entry on.

    Entry raises `SimulatorError` if it does not listen within `start_limit_s` seconds.
    """

    def __init__(
        self, behaviour: Behaviour, *, command: Sequence[str] = COMMAND, start_limit_s: float = START_LIMIT_S
    ) -> None:
        self._command = (*command, *behaviour.to_options())
        self._start_limit_s = start_limit_s
        self._child: subprocess.Popen[bytes] | None = None
        self.base_url = ""

    @classmethod
    def start(cls, behaviour: Behaviour) -> Self:
        """One that already runs; the caller ends it with `close`, or by using it in a `with` block."""
        return cls(behaviour).__enter__()

    def __enter__(self) -> Self:
        if self._child is None:
            self._child, self.base_url = _started(self._command, self._start_limit_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it: ask by closing its stdin, and kill it if it does not listen. Again is harmless."""
        if self._child is not None:
            _end(self._child)
            self._child = None


def _started(command: Sequence[str], limit_s: float) -> tuple[subprocess.Popen[bytes], str]:
    with tempfile.TemporaryFile() as complaints:  # not a pipe, which a talkative child could fill and wait on
        child = _spawn(command, complaints)
        try:
            return child, _announced(child, limit_s) or _complain(child, complaints, limit_s)
        except BaseException:
            _end(child)
            raise


def _spawn(command: Sequence[str], complaints: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and options, and no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
            env=_without_keys(os.environ),
        )
    except OSError as exc:
        raise SimulatorError(f"the simulator can't be started: {exc}") from exc


def _without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what looks like an API key: a child that needs none should not hold one."""
    return {name: value for name, value in environment.items() if not KEY_SHAPE.search(value)}


def _announced(child: subprocess.Popen[bytes], limit_s: float) -> str | None:
    """The URL in the child's first line; None if the child ended, said something else, or took too long."""
    first_line: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen_to, args=(child.stdout, first_line), daemon=True).start()
    try:
        line = first_line.get(timeout=limit_s).decode(errors="replace").strip()
    except queue.Empty:
        return None
    announced = _ANNOUNCED.fullmatch(line)
    return announced[1] if announced else None


def _listen_to(stdout: IO[bytes], first_line: queue.Queue[bytes]) -> None:
    """Read to the end, so that the child never waits for a reader."""
    with stdout:
        first_line.put(stdout.readline())
        while stdout.read(_READ_BYTES):
            pass


def _complain(child: subprocess.Popen[bytes], complaints: IO[bytes], limit_s: float) -> NoReturn:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_LAST_WORDS_S)
    ended = child.returncode
    state = f"did not say where it listens (limit {limit_s:g} s)" if ended is None else f"ended with exit code {ended}"
    complaints.seek(0)
    words = complaints.read()[-_COMPLAINT_BYTES:].decode(errors="replace").strip()
    raise SimulatorError(f"the simulator {state}; it said: {words}" if words else f"the simulator {state}")


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        child.stdin.close()
    try:
        child.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
