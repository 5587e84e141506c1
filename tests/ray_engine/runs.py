"""What tests of runs on Ray share: commands with processes that can be told from others, and a service that counts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.stub_server import MODEL, StubServer, answer_to
from tests.workbench import KEY, KEY_ENV, SYSTEM, Workbench

COMMAND = (sys.executable, "-m", "cometbatch", "run", "--json", "--quiet")


@dataclass
class TimedServer(StubServer):
    """A service that also notes when each prompt came in, and from which port: seconds of the monotonic clock."""

    came: list[tuple[float, int]] = field(default_factory=list)

    async def _generate(self, path: str, body: dict[str, Any], writer: Any) -> bool:
        self.came.append((time.monotonic(), writer.get_extra_info("peername")[1]))
        return await super()._generate(path, body, writer)

    def most_in_a_second(self) -> int:
        """The most requests in any second, wherever it begins."""
        times = sorted(at for at, _ in self.came)
        first = most = 0
        for last, at in enumerate(times):
            while at - times[first] >= 1:
                first += 1
            most = max(most, last - first + 1)
        return most


class RayRun:
    """A job over a table of `rows` rows, and the commands that carry it out."""

    def __init__(self, folder: Path, server: StubServer, rows: int, **sections: Any) -> None:
        self.bench = Workbench(folder)
        self.bench.write_rows(rows)
        self.rows = rows
        settings = {
            "target": {"base_url": server.base_url, "format": "chat", "model": MODEL},
            "output": {"partition_rows": 20},
            "limits": {"concurrency": 16},
            **sections,
        }
        self.job = self.bench.write_job(**settings)

    def run(self, *options: str, limit_s: float = 120) -> dict[str, Any]:
        """Carry the job out to its end; the summary."""
        with self.started(*options) as command:
            out, errors = command.process.communicate(timeout=limit_s)
        assert command.process.returncode == 0, errors
        return dict(json.loads(out))

    @contextmanager
    def started(self, *options: str) -> Iterator["Command"]:
        """A command that carries it out. Whatever it has started is dead afterwards."""
        command = Command(self.job, options)
        try:
            yield command
        finally:
            left = {*command.folders, *(folder for pid in others() if (folder := folder_of(pid)) is not None)}
            command.process.kill()
            command.process.communicate()
            for pid in others():
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            for folder in left:
                if folder.name.startswith("cometbatch-"):  # of its own cluster, whose command was killed
                    shutil.rmtree(folder, ignore_errors=True)

    def summary(self, out: str) -> dict[str, Any]:
        """What a command has written to its stdout: nothing but its summary."""
        return dict(json.loads(out))

    def check_result(self) -> None:
        """Each row is there once, in order, with its own answer."""
        found = self.bench.result().to_pylist()
        said = [answer_to(SYSTEM, f"Parcel {row:04d} says: note {row}, in two\nlines").text for row in range(self.rows)]
        assert [row["parcel"] for row in found] == [f"{row:04d}" for row in range(self.rows)]
        assert [row["response"] for row in found] == said


class Command:
    """A command that was started. `folders`: those of its own cluster that were asked for."""

    def __init__(self, job: Path, options: tuple[str, ...]) -> None:
        self.folders: list[Path] = []
        self.process = subprocess.Popen(
            [*COMMAND, str(job), *options],
            env={**os.environ, KEY_ENV: KEY},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a group of processes of its own, as a terminal's
        )

    def folder(self) -> Path:
        """Where Ray keeps the files of this command's own cluster."""
        self.folders.append(next(folder for pid in others(self) if (folder := folder_of(pid)) is not None))
        return self.folders[-1]


def folder_of(pid: int) -> Path | None:
    """Where a cluster keeps its files, if this is the process that knows all its nodes."""
    words, start = [""], "--session-dir="
    with suppress(OSError):  # it has ended
        words = title_of(pid).split("\0")
    named = [word.removeprefix(start) for word in words if word.startswith(start)]
    return Path(named[0]).parent if "gcs_server" in words[0] and named else None


def others(command: Command | None = None, named: str = "") -> list[int]:
    """The processes of this network, but for this one and a command's own; those alone whose title begins so.

    Ray's processes write their titles over their environment, so that none can be known by a variable.
    """
    found, own = [], Path("/proc/self/ns/net").readlink()
    for pid in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()):
        with suppress(OSError):
            is_here = Path(f"/proc/{pid}/ns/net").readlink() == own
            if (
                is_here
                and pid not in (os.getpid(), command and command.process.pid)
                and title_of(pid).startswith(named)
            ):
                found.append(pid)
    return found


def ports_of(pid: int) -> set[int]:
    """The ports of this machine from which a process has connected."""
    inodes = {link.readlink().name for link in _links(pid)}
    found = set()
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if f"socket:[{words[9]}]" in inodes:
            found.add(int(words[1].partition(":")[2], 16))
    return found


def _links(pid: int) -> list[Path]:
    return [link for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]


def parent_of(pid: int) -> int:
    """The process that started a process, or has taken its place."""
    return int(re.findall(r"PPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


def title_of(pid: int) -> str:
    """The command line of a process, or what it has put in its place."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


def holders_of(secret: str, pids: list[int]) -> list[str]:
    """The titles of the processes in whose environment this is."""
    found = []
    for pid in pids:
        with suppress(OSError):
            if secret.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(title_of(pid))
    return found


def files_with(secret: str, folder: Path) -> list[Path]:
    """The files below a folder that hold this."""
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and secret.encode() in path.read_bytes():
                found.append(path)
    return found


def said(errors: str) -> list[str]:
    """The lines of stderr, but for what Ray says of a network that leads nowhere, and what we say of a slow disk."""
    return [line for line in errors.splitlines() if not re.search(r"network_util\.cc|the disk took", line)]
