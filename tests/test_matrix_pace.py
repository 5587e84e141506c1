"""A model that admits few requests holds up none that admits many: real processes, and a server that counts by second.

It takes a minute, so it runs in the weekly checks alone: `PACE_ROWS=1500 pytest tests/test_matrix_pace.py`.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.stub_server import StubServer, wait_until
from tests.workbench import KEY, KEY_ENV, Workbench

ROWS = int(os.environ.get("PACE_ROWS", "0"))
SLOW, FAST = "stub-1", "stub-2"
ADMITS = {SLOW: 20, FAST: 200}  # requests a second
SHARE = 0.85  # of what the fast model answers alone


def seconds_of_fast(folder: Path, models: tuple[str, ...]) -> float:
    """Seconds until the fast model has answered all rows, in a run over these models."""
    folder.mkdir()
    bench = Workbench(folder)
    bench.write_rows(ROWS)
    with StubServer(latency_s=(0.05, 0.15), models=models, admits=ADMITS) as server:
        settings = bench.settings(
            target={"base_url": server.base_url}, matrix={"model": list(models)}, limits={"concurrency": 128}
        )
        del settings["target"]["model"]
        job = folder / "job.yaml"
        job.write_text(json.dumps(settings), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "cometbatch", "run", "--quiet", str(job)],
            env={**os.environ, KEY_ENV: KEY},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: bool(server.calls), "the first answer")
            began = time.monotonic()
            wait_until(lambda: answered(server) == ROWS, "the last answer of the fast model", limit_s=300)
            return time.monotonic() - began
        finally:
            process.kill()
            process.wait()


def answered(server: StubServer) -> int:
    """How many answers the fast model gave."""
    return sum(count for (model, *_), count in dict(server.calls).items() if model == FAST)


@pytest.mark.skipif(not ROWS, reason="PACE_ROWS is not set: for the weekly checks")
def test_a_fast_model_keeps_its_pace_beside_a_slow_one(tmp_path: Path) -> None:
    """At least 85 % of what it answers alone, and a slow one gets what it admits all the while."""
    alone = seconds_of_fast(tmp_path / "alone", (FAST,))
    beside = seconds_of_fast(tmp_path / "beside", (SLOW, FAST))
    assert alone / beside >= SHARE, f"alone {ROWS / alone:.1f}/s, beside a slow one {ROWS / beside:.1f}/s"
