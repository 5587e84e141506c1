"""What a run with several workers did, by the ledger of the service that it asked: real processes, real signals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from tests.workers.ledger_service import INPUT_TOKENS, OUTPUT_TOKENS

KEY_ENV, KEY = "COMETAPI_KEY", "sk-" + "w0rk3r" * 6
INPUT_PRICE, OUTPUT_PRICE = Decimal(10), Decimal(40)  # US dollars per million tokens
ROW_USD = (INPUT_TOKENS * INPUT_PRICE + OUTPUT_TOKENS * OUTPUT_PRICE) / 1_000_000
POLL_S = 0.01


class Service:
    """The service with the ledger, for the length of a `with` block. Options as its command has them."""

    def __init__(self, *, latency_s: float = 0.5, limit: int = 0, retry_after_s: float = 0.0) -> None:
        self._options = ["--latency", f"{latency_s}", "--limit", f"{limit}", "--retry-after", f"{retry_after_s}"]
        self.base_url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.workers.ledger_service", *self._options]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._child.stdout is not None
        self.base_url = self._child.stdout.readline().strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait(10)

    def ledger(self) -> "Ledger":
        """What it has seen by now."""
        with urllib.request.urlopen(f"{self.base_url}/ledger", timeout=30) as reply:
            told = json.loads(reply.read())
        requests = [
            Request(at, int(connection), int(row), int(status)) for at, connection, row, status in told["requests"]
        ]
        return Ledger(requests, told["opened"], told["ports"])


@dataclass(frozen=True)
class Request:
    """One that came. `at`: seconds of CLOCK_MONOTONIC; `status`: 0 while it is under way."""

    at: float
    connection: int
    row: int
    status: int


@dataclass(frozen=True)
class Ledger:
    """What the service has seen. `opened`, `ports`: of each connection, when, and from which port."""

    requests: Sequence[Request]
    opened: Sequence[float]
    ports: Sequence[int]

    @property
    def answered(self) -> list[Request]:
        """Those that were answered."""
        return [each for each in self.requests if each.status == 200]

    @property
    def answered_again(self) -> int:
        """Answers to rows that had one."""
        return sum(count - 1 for count in Counter(each.row for each in self.answered).values())

    @property
    def refused(self) -> int:
        """Refusals."""
        return sum(each.status == 429 for each in self.requests)

    def peak(self, span_s: float = 1.0) -> int:
        """The most requests in any stretch of time of this length."""
        times = sorted(each.at for each in self.requests)
        first = most = 0
        for last, at in enumerate(times):
            while times[first] <= at - span_s:
                first += 1
            most = max(most, last - first + 1)
        return most

    def per_s(self, start: float, end: float) -> float:
        """Requests a second between two times."""
        return sum(start <= each.at < end for each in self.requests) / (end - start)

    @property
    def first(self) -> float:
        """When the first request came."""
        return min(each.at for each in self.requests)

    @property
    def last(self) -> float:
        """When the last request came."""
        return max(each.at for each in self.requests)

    def after(self, at: float) -> list[Request]:
        """Requests that came later."""
        return [each for each in self.requests if each.at > at]


@dataclass
class Job:
    """A job over parcels in a folder, and the processes that carry it out."""

    folder: Path
    base_url: str
    rows: int
    limits: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    partition_rows: int = 50
    result: str = "out/answers.parquet"

    def __post_init__(self) -> None:
        self.path = self.folder / "job.yaml"
        self.output = self.folder / self.result
        ordinals = range(self.rows)
        table = pa.table({"parcel": [f"p-{each}" for each in ordinals], "note": [f"note {each}" for each in ordinals]})
        numbered = table.append_column("number", pa.array([f"{each:07d}" for each in ordinals]))
        pq.write_table(numbered, self.folder / "in.parquet", row_group_size=1000)
        self.write()

    def write(self, **sections: Any) -> None:
        """Write the job file, with these sections over its own."""
        settings = {
            "input": {"path": str(self.folder / "in.parquet"), "id": "parcel"},
            "output": {
                "path": str(self.output) + ("/" if self.result.endswith("/") else ""),
                "partition_rows": self.partition_rows,
            },
            "target": {"base_url": self.base_url, "format": "chat", "model": "stub-1"},
            "prompt": {"user": "Parcel {{ number }}: {{ note }}"},
            "params": {"max_output_tokens": OUTPUT_TOKENS},
            "prices": {"input": float(INPUT_PRICE), "output": float(OUTPUT_PRICE)},
            "limits": {"concurrency": 256, "adaptive": False, **self.limits},
            **self.sections,
            **sections,
        }
        self.path.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML

    def command(self, *options: str) -> list[str]:
        """How it is run."""
        return [sys.executable, "-m", "cometbatch", "run", str(self.path), "--quiet", "--json", *options]

    @contextlib.contextmanager
    def started(self, *options: str) -> Iterator["Driver"]:
        """The command, running; killed at the end where it still does."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            environment = {**os.environ, KEY_ENV: KEY}
            child = subprocess.Popen(
                self.command(*options), stdout=out, stderr=err, env=environment, start_new_session=True
            )
            driver = Driver(child, out, err)
            try:
                yield driver
            finally:
                for pid in driver.workers():
                    _signal(pid, signal.SIGKILL)
                if child.poll() is None:
                    child.kill()
                child.wait()

    def run(self, *options: str, code: int = 0) -> dict[str, Any]:
        """Run it to its end; the summary."""
        with self.started(*options) as driver:
            return driver.finish(code)

    def check(self, summary: dict[str, Any], ledger: Ledger, resent: int) -> None:
        """Rows in = out = distinct, each with its own answer; the bill is what the service answered, or at most that.

        `resent`: the most rows that may have been sent twice, since they were in flight where something was killed.
        """
        table = pq.read_table(self.output)
        assert table["parcel"].to_pylist() == [f"p-{each}" for each in range(self.rows)]
        assert table["response"].to_pylist() == [f"answer {each}" for each in range(self.rows)]
        assert ledger.answered_again <= resent, (ledger.answered_again, resent)
        cost = Decimal(summary["cost_usd"])
        assert cost == self.rows * ROW_USD, (cost, self.rows * ROW_USD)


class Driver:
    """The command as a process, and its workers."""

    def __init__(self, child: "subprocess.Popen[bytes]", out: Any, err: Any) -> None:
        self.child = child
        self.pid = child.pid
        self._out, self._err = out, err

    def workers(self) -> list[int]:
        """The processes of its workers that live, in the order in which they began."""
        return sorted(pid for pid, parent, words in processes() if parent == self.pid and "worker_process" in words)

    def finish(self, code: int = 0, limit_s: float = 120.0) -> dict[str, Any]:
        """Wait for its end; the summary. Fails at another exit code."""
        self.child.wait(limit_s)
        self._out.seek(0)
        self._err.seek(0)
        said, complained = self._out.read().decode(), self._err.read().decode()
        assert self.child.returncode == code, (self.child.returncode, said[-2000:], complained[-3000:])
        return json.loads(said) if said.strip() else {}

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.child.send_signal(number)


def processes() -> Iterator[tuple[int, int, str]]:
    """Each process: its number, its parent's, its command line."""
    for name in [each.name for each in Path("/proc").iterdir()]:
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
                if stat[0] != "Z":
                    yield int(name), int(stat[1]), Path(f"/proc/{name}/cmdline").read_text(errors="replace")


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def ports_of(pid: int) -> set[int]:
    """The local ports of a process's TCP connections."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if (target := str(Path(entry.path).readlink())).startswith("socket:["):
                inodes.add(target[8:-1])
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[9] in inodes}


def wait_for(is_so: Any, what: str, limit_s: float = 60.0) -> None:
    """Poll until it is so. Fails where it takes longer than the limit."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(POLL_S)
