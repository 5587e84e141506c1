"""Kill a run with a matrix again and again, for real: each call is answered once, and paid for twice at most in flight.

Real processes, real HTTP and a server that counts for itself. The small case is for each day; the weekly one has 5
models x 2 temperatures x 3 samples x 200 rows: `KILLS=20 MATRIX_ROWS=200 MATRIX_MODELS=5 MATRIX_SAMPLES=3 pytest
tests/test_matrix_kill.py`.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.stub_server import INPUT_PRICE, OUTPUT_PRICE, Said, StubServer, Trouble, answer_to, wait_until
from tests.workbench import KEY, KEY_ENV, SYSTEM, Workbench, files

KILLS = int(os.environ.get("KILLS", "3"))
ROWS = int(os.environ.get("MATRIX_ROWS", "25"))
SAMPLES = int(os.environ.get("MATRIX_SAMPLES", "2"))
MODELS = tuple(f"stub-{number}" for number in range(1, 1 + int(os.environ.get("MATRIX_MODELS", "2"))))
TEMPERATURES = (0, 1)
CALLS = len(MODELS) * len(TEMPERATURES) * SAMPLES * ROWS
CONCURRENCY = 8
TROUBLE = Trouble(reset=0.03, pushback=0.01, overload=0.03, slow=0.03)
LATENCY_S = (0.002, 0.012)


def said_to(model: str, row: int) -> Said:
    """What the stub answers to a row of the workbench's table in a model's name."""
    return answer_to(SYSTEM, f"{model}: Parcel {row:04d} says: note {row}, in two\nlines")


def cost_of(said: Said) -> Decimal:
    """US dollars; cached tokens at the full rate."""
    return (said.input_tokens * Decimal(INPUT_PRICE) + said.output_tokens * Decimal(OUTPUT_PRICE)) / 1_000_000


class Command:
    """The command, on one job file."""

    def __init__(self, bench: Workbench, server: StubServer) -> None:
        self.job = bench.folder / "job.yaml"
        settings = bench.settings(
            target={"base_url": server.base_url},
            output={"partition_rows": 64},
            limits={"concurrency": CONCURRENCY},
            retry={"max_attempts": 50, "max_wait_s": 0.05},
            matrix={"model": list(MODELS), "params.temperature": list(TEMPERATURES), "samples": SAMPLES},
        )
        del settings["target"]["model"]
        self.job.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
        self._environment = {**os.environ, KEY_ENV: KEY}

    def killed_after(self, server: StubServer, requests: int) -> bool:
        """Run until the server has had so many requests, then kill -9; False where the run was over before that."""
        process = subprocess.Popen(
            [sys.executable, "-m", "cometbatch", "run", "--quiet", str(self.job)],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(
                lambda: server.requests >= requests or process.poll() is not None, "progress of a run", limit_s=120
            )
        finally:
            process.kill()
        return process.wait() == -signal.SIGKILL

    def done(self, *words: str) -> dict[str, Any]:
        """What a command says in JSON that ends well."""
        done = subprocess.run(
            [sys.executable, "-m", "cometbatch", *words, "--json", str(self.job)],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


def test_a_killed_matrix_answers_each_call_once(tmp_path: Path) -> None:
    """However often it is killed: one right answer a call, in order, an honest bill, and nothing to send at the end."""
    bench = Workbench(tmp_path)
    bench.write_rows(ROWS)
    points = sorted(random.Random(17).randrange(CALLS) for _ in range(KILLS))
    with StubServer(TROUBLE, LATENCY_S, seed=5, models=MODELS) as server:
        command = Command(bench, server)
        kills = sum(command.killed_after(server, point) for point in points)
        summary = command.done("run", "--quiet")
        assert kills == KILLS
        assert (summary["succeeded"], summary["finished"]) == (CALLS, True)

        cells = [(model, temperature) for model in MODELS for temperature in TEMPERATURES]
        lines = [(*cell, sample, row) for cell in cells for sample in range(SAMPLES) for row in range(ROWS)]
        found = bench.result().to_pylist()
        assert [(each["model"], each["temperature"], each["sample"], each["row"]) for each in found] == lines
        expected = [said_to(model, row) for model, _, _, row in lines]
        assert [each["response"] for each in found] == [said.text for said in expected]
        assert [each["cost_usd"] for each in found] == [cost_of(said) for said in expected]
        assert Decimal(summary["cost_usd"]) == sum(map(cost_of, expected))

        wanted = Counter((model, temperature, row) for model, temperature, _, row in lines)
        assert {(model, float(temperature or 0), row) for model, temperature, row in server.calls} == set(wanted)
        again = sum(server.calls.values()) - CALLS
        assert 0 <= again <= kills * CONCURRENCY
        assert again <= summary["resent"]
        assert all(server.calls[call] >= SAMPLES for call in wanted)

        assert command.done("verify")["ok"]
        before, requests = files(tmp_path), server.requests
        assert command.done("run", "--quiet")["had_work"] is False
        assert (server.requests, files(tmp_path)) == (requests, before)
