"""The bill and the budget after a kill -9: what was in flight is in both, once, and is said in dollars meanwhile.

Real processes and a server that counts for itself. A request costs $0.01.
"""

import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.stub_server import MODEL, StubServer, wait_until
from tests.workbench import KEY, KEY_ENV, Workbench

PRICE, IN_FLIGHT, ROWS = Decimal("0.01"), 20, 200
CLI = (sys.executable, "-m", "cometbatch")
ENVIRONMENT = {**os.environ, KEY_ENV: KEY}


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A table of two hundred rows."""
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    return bench


def job_file(bench: Workbench, server: StubServer, cap: float) -> Path:
    """A job whose every request costs one cent, with this much to spend."""
    return bench.write_job(
        target={"base_url": server.base_url, "format": "chat", "model": MODEL},
        prices={"per_request": 0.01},
        limits={"concurrency": IN_FLIGHT, "adaptive": False},
        budget={"max_cost_usd": cap},
        retry={"max_attempts": 5, "max_wait_s": 0.05},
    )


def kill_in_flight(job: Path, server: StubServer) -> int:
    """Start a run, and kill it when all its requests are on their way; how many were."""
    server.latency_s = (30.0, 30.0)
    before = server.requests
    process = subprocess.Popen(
        [*CLI, "run", "--quiet", str(job)], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: server.requests - before == IN_FLIGHT, "requests that are on their way")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    server.latency_s = (0.0, 0.01)
    return server.requests - before


def run(job: Path, code: int) -> dict[str, Any]:
    """Resume the run; its summary."""
    done = subprocess.run(
        [*CLI, "run", "--json", "--quiet", str(job)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return dict(json.loads(done.stdout)) if code == 0 else {}


def status(bench: Workbench) -> dict[str, Any]:
    """What `status` says, for a program."""
    done = subprocess.run([*CLI, "status", "--json", str(bench.output)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_the_cap_holds_over_a_kill_and_the_bill_has_what_was_in_flight(bench: Workbench) -> None:
    """A kill with 20 requests on their way: the server bills no more than the cap, and the run says no less."""
    with StubServer() as server:
        job = job_file(bench, server, 1.0)
        assert kill_in_flight(job, server) == IN_FLIGHT
        between = status(bench)
        assert (between["thrown"], between["resent"]) == (IN_FLIGHT, IN_FLIGHT)
        assert Decimal(between["thrown_cost_usd"]) == IN_FLIGHT * PRICE
        run(job, code=4)
        billed = server.requests * PRICE
        after = status(bench)
    assert billed <= Decimal("1.00")
    assert Decimal(after["cost_usd"]) + Decimal(after["thrown_cost_usd"]) == billed


def test_what_was_in_flight_is_counted_once_however_often_it_is_killed(bench: Workbench) -> None:
    """Three kills leave three times what was in flight, and not the sum of sums; the budget pays for each once."""
    with StubServer() as server:
        job = job_file(bench, server, 5.0)
        for kills in range(1, 4):
            kill_in_flight(job, server)
            assert status(bench)["resent"] == kills * IN_FLIGHT
        summary = run(job, code=0)
        assert summary["resent"] == 3 * IN_FLIGHT
        assert Decimal(summary["thrown_cost_usd"]) == 3 * IN_FLIGHT * PRICE
        assert Decimal(summary["cost_usd"]) == ROWS * PRICE
        assert server.requests == ROWS + 3 * IN_FLIGHT
