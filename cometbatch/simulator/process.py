"""The simulator as a child process: its start, its announcement and its end.

Laws: no child is left behind, because its stdin is a pipe from this process, and the child ends when the pipe closes,
however this process ends; Ctrl-C in a terminal does not end the child before the run has drained.
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
from cometbatch.records import KEY_SHAPE
from cometbatch.simulator.behaviour import Behaviour

COMMAND = (sys.executable, "-m", "cometbatch", "simulate", "--port", "0", "--until-stdin-closes")
START_LIMIT_S = 30.0  # seconds in which the child must say where it listens
END_LIMIT_S = 10.0  # seconds that the child gets to end before it is killed
_ANNOUNCED = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")
_COMPLAINT_BYTES = 2_000  # of the end of the child's stderr, for the error's message
_READ_BYTES = 4096
_LAST_WORDS_S = 1.0  # seconds that a child gets to end after it has closed its stdout


class SimulatorError(CometbatchError):
    """The simulator's process did not start, or did not say where it listens."""


class SimulatorProcess:
    """A simulator that runs during a `with` block. `base_url` is its address, from entry on.

    Entry raises `SimulatorError` if the simulator does not listen within `start_limit_s` seconds.
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
        """A simulator that already runs. The caller ends it with `close`, or uses it in a `with` block."""
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
        """End the child by closing its stdin; kill it if it does not end. A second call does nothing."""
        if self._child is not None:
            _end(self._child)
            self._child = None


def _started(command: Sequence[str], limit_s: float) -> tuple[subprocess.Popen[bytes], str]:
    with tempfile.TemporaryFile() as complaints:  # no pipe: a child that writes much fills it and waits
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
    """The environment without variables that look like an API key, because the child needs none."""
    return {name: value for name, value in environment.items() if not KEY_SHAPE.search(value)}


def _announced(child: subprocess.Popen[bytes], limit_s: float) -> str | None:
    """The URL in the child's first line; None if the child ended, wrote something else, or took too long."""
    first_line: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen_to, args=(child.stdout, first_line), daemon=True).start()
    try:
        line = first_line.get(timeout=limit_s).decode(errors="replace").strip()
    except queue.Empty:
        return None
    announced = _ANNOUNCED.fullmatch(line)
    return announced[1] if announced else None


def _listen_to(stdout: IO[bytes], first_line: queue.Queue[bytes]) -> None:
    """Read stdout to its end, so that the child never waits for a reader."""
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
