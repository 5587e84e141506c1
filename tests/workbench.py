"""What the end-to-end tests share: a small table, a job over it, ways to run it, and looks at the disk."""

import json
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

import cometbatch
from cometbatch.run_state.in_flight import mark_bytes
from cometbatch.simulator.app import Simulator, create_app
from cometbatch.simulator.behaviour import Behaviour
from tests import virtual_time

FORMATS = ("chat", "responses", "messages", "gemini")
MODEL = "comet-sim-1"
KEY_ENV = "COMETAPI_KEY"
KEY = "sk-tests-need-no-real-key"
SYSTEM = "Be brief."
USER = "Parcel {{ parcel }} says: {{ note }}"
ANSWER_COLUMNS = ("custom_id", "status", "response", "finish_reason", "http_status", "input_tokens", "output_tokens",
                  "cache_read_input_tokens", "reasoning_output_tokens", "cost_usd", "request_hash")  # fmt: skip
"""The output columns that must come out the same however a run stumbles."""


class Network(httpx.AsyncBaseTransport):
    """The network in front of a simulator, or of nothing: counts what passes, and may answer first."""

    def __init__(
        self,
        behind: Simulator | None = None,
        *,
        answer: Callable[[httpx.Request], httpx.Response | None] | None = None,
    ) -> None:
        self.app = behind or create_app(Behaviour())
        self.requests: list[httpx.Request] = []
        self._behind = httpx.ASGITransport(self.app)
        self._answer = answer

    @property
    def posts(self) -> int:
        return sum(request.method == "POST" for request in self.requests)

    @property
    def ledger(self) -> dict[str, Any]:
        """What the server itself counted."""

        async def asked() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._behind, base_url="http://simulator") as client:
                return await client.get("/simulator/ledger")

        return dict(virtual_time.run(asked()).json())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answered = self._answer(request) if self._answer is not None else None
        return answered or await self._behind.handle_async_request(request)


class Workbench:
    """A folder with a table in it, and jobs over that table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.input = folder / "in.csv"
        self.output = folder / "out.parquet"

    @property
    def run_directory(self) -> Path:
        return self.output.with_name(f"_{self.output.name}.run")

    def write_rows(self, rows: int, name: str = "in.csv") -> None:
        """Rows that can be told from each other by the first words of their prompt."""
        self.input = self.folder / name
        lines = [f'{row:04d},"note {row}, in two\nlines"\n' for row in range(rows)]
        self.input.write_text("parcel,note\n" + "".join(lines), encoding="utf-8")

    def write_table(self, table: pa.Table) -> None:
        """A Parquet input."""
        self.input = self.folder / "in.parquet"
        pq.write_table(table, self.input)

    def settings(self, **sections: Mapping[str, object] | str | bool) -> dict[str, Any]:
        """A job as a mapping; the keys of a section go over the defaults."""
        settings: dict[str, Any] = {
            "input": {"path": str(self.input), "id": "parcel"},
            "output": {"path": str(self.output)},
            "target": {"base_url": "simulator", "format": "chat", "model": MODEL},
            "prompt": {"system": SYSTEM, "user": USER},
            "params": {"max_output_tokens": 64},
        }
        for name, section in sections.items():
            settings[name] = {**settings.get(name, {}), **section} if isinstance(section, Mapping) else section
        return settings

    def job(self, **sections: Mapping[str, object] | str | bool) -> cometbatch.Job:
        """A job with these keys over the defaults."""
        return cometbatch.load_job(self.settings(**sections))

    def write_job(self, **sections: Mapping[str, object] | str | bool) -> Path:
        """The same as a job file."""
        path = self.folder / "job.yaml"
        path.write_text(json.dumps(self.settings(**sections)), encoding="utf-8")  # JSON is YAML
        return path

    def result(self) -> pa.Table:
        """The result as it stands on the disk."""
        return pq.read_table(self.output)


def leave_in_flight(bench: Workbench, rows: Iterable[int], amount: Decimal | None = Decimal("0.01")) -> None:
    """Mark rows as a process does that was killed with their requests on the way."""
    (newest,) = bench.run_directory.glob("in_flight.*")
    marks = b"".join(mark_bytes(row, 1, 1, amount) for row in rows)
    newest.write_bytes(newest.read_bytes() + marks)


def simulator(*faults: str, **settings: Any) -> Network:
    """A simulated service with these faults ("429:0.05")."""
    return Network(create_app(Behaviour(faults=tuple(map(cometbatch.parse_fault, faults)), **settings)))


def carry_out(job: cometbatch.Job, network: httpx.AsyncBaseTransport, *, fresh: bool = False) -> cometbatch.RunSummary:
    """Run a job on virtual time."""
    return virtual_time.run(started(job, network, fresh=fresh))


def started(
    job: cometbatch.Job, network: httpx.AsyncBaseTransport, *, fresh: bool = False
) -> Awaitable[cometbatch.RunSummary]:
    """The same, still to be awaited."""
    return cometbatch.run_async(job, fresh=fresh, progress=False, http=network)


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file under a folder: content and time of its last change."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


_POOLS: list[pa.MemoryPool] = []  # never let go: what was allocated from one may outlive the measurement


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that Python's objects and Arrow's tables took while something was done."""
    usual = pa.default_memory_pool()
    _POOLS.append(pa.proxy_memory_pool(usual))
    pa.set_memory_pool(_POOLS[-1])
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] + int(_POOLS[-1].max_memory())
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)
