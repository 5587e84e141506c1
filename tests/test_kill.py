"""Kill a run again and again, for real: no row is lost, none is paid for twice beyond those in flight.

Real processes, real HTTP and a server that shares no code with us and counts for itself. Raise `KILLS` and `ROWS` at
will: `KILLS=200 ROWS=20000 pytest tests/test_kill.py`.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.stub_server import INPUT_PRICE, MODEL, OUTPUT_PRICE, Said, StubServer, Trouble, answer_to, wait_until
from tests.workbench import KEY, KEY_ENV, SYSTEM, Workbench, files

KILLS = int(os.environ.get("KILLS", "5"))  # for each case
ROWS = int(os.environ.get("ROWS", "240"))
CONCURRENCY = 8
TROUBLE = Trouble(reset=0.03, pushback=0.01, overload=0.03, slow=0.03)
LATENCY_S = (0.005, 0.03)
COMMAND = (sys.executable, "-m", "cometbatch", "run", "--json", "--quiet")


def said_to(row: int) -> Said:
    """What the stub answers to a row of the workbench's table."""
    return answer_to(SYSTEM, f"Parcel {row:04d} says: note {row}, in two\nlines")


def cost_of(said: Said) -> Decimal:
    """US dollars; cached tokens at the full rate."""
    return (said.input_tokens * Decimal(INPUT_PRICE) + said.output_tokens * Decimal(OUTPUT_PRICE)) / 1_000_000


class Run:
    """A job file, and processes that carry it out."""

    def __init__(self, bench: Workbench, server: StubServer, wire: str, partition_rows: int) -> None:
        self._job = bench.folder / "job.yaml"
        settings = bench.settings(
            target={"base_url": server.base_url, "format": wire, "model": MODEL},
            output={"partition_rows": partition_rows},
            limits={"concurrency": CONCURRENCY},
            retry={"max_attempts": 50, "max_wait_s": 0.05},
        )
        self._job.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
        self._environment = {**os.environ, KEY_ENV: KEY}

    def to_the_end(self, *more: str) -> dict[str, Any]:
        """Carry on to the last row; the summary. `more`: options of the command."""
        done = subprocess.run(
            [*COMMAND, str(self._job), *more],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return dict(json.loads(done.stdout))

    def killed_when(self, is_time: Callable[[], bool], *more: str) -> bool:
        """Carry on until it is time, then kill -9. False where the run was over before that."""
        process = subprocess.Popen(
            [*COMMAND, str(self._job), *more],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: is_time() or process.poll() is not None, "progress of a run that is to be killed")
        finally:
            process.kill()
        return process.wait() == -signal.SIGKILL


def moments(server: StubServer, seed: int) -> list[Callable[[], bool]]:
    """When to strike: at random points of the way, and last when every row is answered but not yet published."""
    chance = random.Random(seed)

    def after(requests: int) -> Callable[[], bool]:
        return lambda: server.requests >= requests

    points = sorted(chance.randrange(ROWS) for _ in range(KILLS - 1))
    return [*(after(point) for point in points), lambda: len(server.answered) == ROWS]


@pytest.mark.parametrize(
    ("wire", "partition_rows"),
    [("chat", 8192), ("chat", 50), ("responses", 50), ("messages", 7), ("gemini", 1)],
    ids=str,
)
def test_a_killed_run_loses_nothing_and_pays_at_most_for_what_was_in_flight(
    tmp_path: Path, wire: str, partition_rows: int
) -> None:
    """However often it is killed, the end is one right answer a row, in order, with an honest bill."""
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    with StubServer(TROUBLE, LATENCY_S, seed=partition_rows) as server:
        run = Run(bench, server, wire, partition_rows)
        kills = sum(run.killed_when(moment) for moment in moments(server, seed=partition_rows))
        summary = run.to_the_end()
        assert kills >= KILLS - 1

        rows = bench.result().to_pylist()
        expected = [said_to(row) for row in range(ROWS)]
        assert [row["parcel"] for row in rows] == [f"{row:04d}" for row in range(ROWS)]
        assert [row["response"] for row in rows] == [said.text for said in expected]
        assert [row["input_tokens"] for row in rows] == [said.input_tokens for said in expected]
        assert [row["output_tokens"] for row in rows] == [said.output_tokens for said in expected]
        assert [row["cost_usd"] for row in rows] == [cost_of(said) for said in expected]
        assert Decimal(summary["cost_usd"]) == sum(map(cost_of, expected))
        assert (summary["succeeded"], summary["finished"]) == (ROWS, True)

        twice = sum(count > 1 for count in server.answered.values())
        assert server.wasted <= kills * CONCURRENCY
        assert twice <= summary["resent"]  # what was in flight may have been answered, or not
        assert set(server.answered) == set(range(ROWS))

        before, requests = files(tmp_path), server.requests
        again = run.to_the_end()
        assert (server.requests, again["had_work"]) == (requests, False)
        assert files(tmp_path) == before
        assert (again["cost_usd"], again["resent"]) == (summary["cost_usd"], summary["resent"])


def test_a_killed_try_loses_nothing_and_asks_no_row_beyond_its_limit(tmp_path: Path) -> None:
    """The rows above are asked by the full run alone, and nothing that is recorded is asked again."""
    bench, rows, limit = Workbench(tmp_path), ROWS // 2, ROWS // 4
    bench.write_rows(rows)
    with StubServer(TROUBLE, LATENCY_S, seed=1) as server:
        run = Run(bench, server, "chat", 25)
        kills = sum(
            run.killed_when(lambda point=point: server.requests >= point, "--limit", str(limit))  # type: ignore[misc]
            for point in (limit // 4, limit // 2)
        )
        tried = run.to_the_end("--limit", str(limit))
        assert (tried["succeeded"], tried["finished"], set(server.answered)) == (limit, False, set(range(limit)))
        assert server.wasted <= kills * CONCURRENCY
        summary = run.to_the_end()
        assert (summary["succeeded"], summary["finished"]) == (rows, True)
        assert Decimal(summary["cost_usd"]) == sum(cost_of(said_to(row)) for row in range(rows))
        assert sum(count > 1 for count in server.answered.values()) <= summary["resent"]
