"""Processes that are measured, the stub server that answers them, and the virtual environments that they run in."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Struct

ROOT = Path(__file__).parent.parent.parent
TIMED = Path(__file__).parent / "timed.py"
ENVIRONMENT = {**os.environ, "COMETAPI_KEY": "sk-needed-by-nobody"}
CLOCK_TICKS_A_S = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
CLIENT_CORE, STUB_CORE = CORES[0], CORES[-1]


class Measured(Struct, frozen=True):
    """What a process took, its children included."""

    exit_code: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    last_words: str

    def or_fail(self, command: list[str], allowed: tuple[int, ...] = (0,)) -> Self:
        """Itself. Raises `SystemExit` where the process failed."""
        if self.exit_code not in allowed:
            raise SystemExit(f"{' '.join(command)} ended with {self.exit_code}:\n{self.last_words}")
        return self


class Running:
    """A process that is being measured."""

    def __init__(self, command: list[str], stdout: Path, *, one_core: bool = False) -> None:
        self.command = command
        cores = ["--cores", str(CLIENT_CORE)] if one_core else []
        timed = [sys.executable, "-I", "-S", str(TIMED), "--stdout", str(stdout), *cores, "--", *command]
        self._timed = subprocess.Popen(timed, stdout=subprocess.PIPE, text=True, cwd=stdout.parent, env=ENVIRONMENT)
        assert self._timed.stdout is not None
        self._lines = self._timed.stdout
        self.pid = int(self._lines.readline())

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._state()[0] not in ("", "Z")

    @property
    def cpu_s(self) -> float:
        """What it has used so far, to a hundredth of a second."""
        return sum(map(int, self._state()[11:15])) / CLOCK_TICKS_A_S  # fields 14 to 17 of proc(5)

    @property
    def peak_mb(self) -> float:
        """The most memory that it held since it began, or since `forget_peak`. 0 of a process that is ending."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return 0.0
        _, found, rest = status.partition("VmHWM:")
        return int(rest.split()[0]) * 1024 / 1e6 if found else 0.0

    def forget_peak(self) -> None:
        """Count the peak anew from here on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> Measured:
        """Wait for it."""
        report = self._lines.readline()
        self._timed.wait()
        self._lines.close()
        return msgspec.json.decode(report, type=Measured)

    def _state(self) -> list[str]:
        """The fields from the third on. The second, a name in brackets, may have spaces."""
        try:
            return (
                Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(") ")[2].split()
            )
        except OSError:
            return [""]


class StubSeen(Struct, frozen=True):
    """What the server did: answers, seconds from the first request to the last answer, and its own CPU."""

    answered: int
    busy_s: float
    cpu_s: float


class StubServer:
    """The server of one measured run, in a process of its own."""

    def __init__(
        self,
        python: Path,
        latency_s: float,
        spread_s: float = 0.0,
        *,
        most: int = sys.maxsize,
        one_core: bool = False,
        tls: Path | None = None,
    ) -> None:
        command = [str(python), "-m", "tests.benchmarks.stub", "--latency", str(latency_s), "--spread", str(spread_s)]
        command += ["--most", str(most), *([] if tls is None else ["--tls", str(tls)])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        if one_core:
            os.sched_setaffinity(self._process.pid, {STUB_CORE})
        self.base_url = f"{'http' if tls is None else 'https'}://127.0.0.1:{int(self._line())}"

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End it, whatever came."""
        self._process.kill()
        with self._process:  # waits for it, and closes its pipes
            pass

    def wait_for(self, said: str) -> None:
        """Until it says "asked" (the first request is there) or "silent" (it answers no more)."""
        while self._line() != said:
            pass

    def end(self) -> StubSeen:
        """End it, and what it has seen."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        while not (line := self._line()).startswith("{"):
            pass
        return msgspec.json.decode(line, type=StubSeen)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the stub server ended")
        return line.strip()


class Environments:
    """Virtual environments in a folder, made when they are first asked for and kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def python(self, name: str, packages: tuple[str, ...]) -> Path:
        """The interpreter of the environment that has these packages."""
        folder = self._folder / name
        installed = folder / "installed.json"
        python = folder / "bin/python"
        asked = json.dumps([*packages, _our_code() if str(ROOT) in packages else ""])
        if not installed.exists() or installed.read_text(encoding="utf-8") != asked:
            base = str(getattr(sys, "_base_executable", sys.executable))
            _run(base, "-m", "venv", "--clear", "--without-pip", str(folder))
            if packages:
                _run(base, "-m", "pip", "--python", str(python), "install", "--quiet", *packages)
            installed.write_text(asked, encoding="utf-8")
        return python

    def versions(self, name: str, packages: tuple[str, ...]) -> dict[str, Any]:
        """The version of everything that is installed there."""
        code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
        return dict(json.loads(subprocess.check_output([str(self.python(name, packages)), "-I", "-c", code])))


def _our_code() -> str:
    """A digest of this checkout's package: installed as users have it, and anew where it has changed."""
    paths = [ROOT / "pyproject.toml", *sorted((ROOT / "cometbatch").rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _run(*command: str) -> None:
    sys.stdout.write(f"+ {' '.join(command)}\n")
    sys.stdout.flush()
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
