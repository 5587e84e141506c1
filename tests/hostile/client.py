"""Runs tables against the hostile server, in a process of its own, and tells how each went.

Prints a JSON line for each hostility that it is given: what became of the rows, the most memory that the process has
ever taken, and the longest time for which its event loop did not come round.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import cometbatch

ROWS = 80
HOSTILE = frozenset(range(1, 32, 4))  # none among the last: a service that answers no one at all is an outage
CONCURRENCY = 16
TICK_S = 0.005


class Ticker:
    """Measures how late the event loop comes round, in seconds, and not because others have the processor."""

    longest_s = 0.0

    async def tick(self) -> None:
        """For ever."""
        while True:
            before, used = time.monotonic(), time.process_time()
            await asyncio.sleep(TICK_S)
            late, used = time.monotonic() - before - TICK_S, time.process_time() - used
            self.longest_s = max(self.longest_s, min(late, used))


def peak_memory_mb() -> float:
    """The most that this process has taken. What getrusage says begins with what its parent had taken."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def job(folder: Path, url: str, what: str, timeout_s: float) -> cometbatch.Job:
    """A job of which some rows meet the hostility."""
    table = folder / "in.csv"
    deeds = [what if row in HOSTILE else "well" for row in range(ROWS)]
    table.write_text("number,deed\n" + "".join(f"{row},{deed}\n" for row, deed in enumerate(deeds)), encoding="utf-8")
    return cometbatch.load_job(
        {
            "input": {"path": str(table), "id": "number"},
            "output": {"path": str(folder / "out.parquet")},
            "target": {"base_url": url, "format": "chat", "model": "m"},
            "prompt": {"user": "Row {{ number }}. Do {{ deed }}."},
            "limits": {"concurrency": CONCURRENCY, "timeout_s": timeout_s, "adaptive": False},
            "retry": {"max_attempts": 1, "max_wait_s": 0.01, "max_pushback_s": 5},
            "prices": "none",
        }
    )


async def met(folder: Path, url: str, what: str, timeout_s: float) -> dict[str, Any]:
    """What came of one hostility."""
    started, ticker = time.monotonic(), Ticker()
    ticking = asyncio.create_task(ticker.tick())
    await cometbatch.run_async(job(folder, url, what, timeout_s), progress=False)
    ticking.cancel()
    columns = ["custom_id", "status", "response", "error_kind", "latency_s", "attempts"]
    rows = pq.read_table(folder / "out.parquet", columns=columns).to_pylist()
    return {
        "rows": [{**row, "response": (row["response"] or "")[:20]} for row in rows],
        "memory_mb": peak_memory_mb(),
        "blocked_s": ticker.longest_s,
        "took_s": time.monotonic() - started,
    }


def main(folder: Path, url: str, timeout_s: float, names: list[str]) -> None:
    """Meet each in turn."""
    for name in names:
        place = folder / name
        place.mkdir()
        told = asyncio.run(met(place, url, name, timeout_s))
        sys.stdout.write(json.dumps({"name": name, **told}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:])
