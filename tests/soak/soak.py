"""Random jobs, struck at random by real signals, for as long as asked.

`python -m tests.soak.soak --minutes 1 --seed 7`, and without `--seed` another each time.

Round n of seed s is round 0 of seed s + n, so a failure is played again with the seed that it prints and `--rounds 1`.
Jobs and blows follow from the seed; the moments at which the operating system lets things happen do not. Every process
is started here, waited for here, and ended here; the folder of a failed round is kept.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import cometbatch
from tests.stub_server import MODEL, StubServer, Trouble, wait_until
from tests.test_kill import COMMAND, cost_of, said_to
from tests.workbench import FORMATS, KEY, KEY_ENV, Workbench, files

LIMIT_S = 60  # for one process, from a blow or its start to its end
FROZEN_S = (0.02, 0.3)
HARD = ("kill", "twice")  # blows after which requests in flight may be answered for nobody
BLOWS: dict[str, tuple[int, ...]] = {
    "kill": (signal.SIGKILL,),
    "interrupt": (signal.SIGINT,),
    "terminate": (signal.SIGTERM,),
    "twice": (signal.SIGTERM, signal.SIGINT),
}
ENDS = {"kill": {-signal.SIGKILL}, "interrupt": {130}, "terminate": {143}, "twice": {130, 143}}
KEPT = {"in.csv", "job.yaml", "lock", "manifest.json", "reopened.json", "out.parquet"}


@dataclass(frozen=True)
class Blow:
    """One process's fate. `after`: how many more prompts the service has seen by then; `frozen_s`: stopped before."""

    kind: str
    after: int
    frozen_s: float


@dataclass(frozen=True)
class Plan:
    """A job, a service and what happens to them."""

    wire: str
    rows: int
    partition_rows: int
    concurrency: int
    is_dataset: bool
    per_minute: int | None
    latency_s: tuple[float, float]
    trouble: Trouble
    blows: tuple[Blow, ...]

    @classmethod
    def of(cls, seed: int) -> "Plan":
        """The same plan for the same seed."""
        chance = random.Random(seed)

        def share() -> float:
            return chance.choice((0.0, 0.03))

        rows = chance.choice((1, chance.randint(2, 40), chance.randint(41, 400)))
        return cls(
            wire=chance.choice(FORMATS),
            rows=rows,
            partition_rows=chance.choice((1, 7, 64, 8192)),
            concurrency=chance.choice((1, 3, 8, 32)),
            is_dataset=chance.random() < 0.3,
            per_minute=chance.choice((None, None, 6_000, 30_000)),
            latency_s=chance.choice(((0.0, 0.0), (0.001, 0.01), (0.005, 0.05))),
            trouble=Trouble(reset=share(), pushback=share(), overload=share(), slow=share()),
            blows=tuple(
                Blow(
                    chance.choice(("kill", *BLOWS)),
                    chance.randint(0, max(1, rows // 3)),
                    chance.choice((0.0, 0.0, chance.uniform(*FROZEN_S))),
                )
                for _ in range(chance.randint(1, 5))
            ),
        )


class Round:
    """One plan carried out in one folder."""

    def __init__(self, plan: Plan, folder: Path, server: StubServer) -> None:
        self._plan, self._server = plan, server
        self._bench = Workbench(folder)
        self._bench.write_rows(plan.rows)
        limits: dict[str, object] = {"concurrency": plan.concurrency}
        if plan.per_minute is not None:
            limits["requests_per_minute"] = plan.per_minute
        self._output = folder / ("out" if plan.is_dataset else "out.parquet")
        self._job = self._bench.write_job(
            target={"base_url": server.base_url, "format": plan.wire, "model": MODEL},
            output={
                "path": f"{self._output}/" if plan.is_dataset else str(self._output),
                "partition_rows": plan.partition_rows,
            },
            limits=limits,
            retry={"max_attempts": 50, "max_wait_s": 0.05},
        )
        self._errors = folder.with_suffix(".stderr")

    def play(self) -> int:
        """Take every blow, then resume to the end and check it; how many processes were struck."""
        struck = [blow.kind for blow in self._plan.blows if self._take(blow)]
        summary = self._to_the_end()
        self._check_rows(summary)
        hard = sum(kind in HARD for kind in struck)
        assert self._server.wasted <= hard * self._plan.concurrency, f"{self._server.wasted} answers were wasted"
        twice = sum(count > 1 for count in self._server.answered.values())
        assert twice <= summary["resent"], f"{twice} rows answered twice, {summary['resent']} said to be sent again"
        self._check_rest(summary)
        return len(struck)

    def _take(self, blow: Blow) -> bool:
        """Carry on until it falls. False where the run was over before that."""
        goal = self._server.requests + blow.after + (blow.kind != "kill")  # a polite stop needs somebody to hear it
        with self._process() as process:
            self._wait(process, lambda: self._server.requests >= goal)
            if blow.frozen_s and process.poll() is None:
                process.send_signal(signal.SIGSTOP)
                time.sleep(blow.frozen_s)
                process.send_signal(signal.SIGCONT)
            for number in BLOWS[blow.kind]:
                process.send_signal(number)  # nobody, where it has ended and been waited for
            code = process.wait(LIMIT_S)
        words = self._errors.read_text(encoding="utf-8")
        assert code in {0, *ENDS[blow.kind]}, f"{blow}: exit code {code}: {words}"
        assert "Traceback" not in words, words
        assert "Unexpected" not in words, words
        return code != 0

    def _wait(self, process: subprocess.Popen[bytes], is_so: Callable[[], bool]) -> None:
        wait_until(lambda: is_so() or process.poll() is not None, "progress of a run", limit_s=LIMIT_S)

    @contextlib.contextmanager
    def _process(self) -> Iterator[subprocess.Popen[bytes]]:
        """A run in a process group of its own, of which nothing is left afterwards."""
        with self._errors.open("wb") as errors:
            process = subprocess.Popen(
                [*COMMAND, str(self._job)],
                env={**os.environ, KEY_ENV: KEY},
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        try:
            yield process
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 0)
                raise AssertionError("a process of the run goes on after its end")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _to_the_end(self) -> dict[str, Any]:
        done = subprocess.run(
            [*COMMAND, str(self._job)],
            env={**os.environ, KEY_ENV: KEY},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return dict(json.loads(done.stdout))

    def _check_rows(self, summary: dict[str, Any]) -> None:
        """Each row once, in order, with its own answer and cost."""
        paths = sorted(self._output.glob("*.parquet")) if self._plan.is_dataset else [self._output]
        rows = pa.concat_tables([pq.read_table(path) for path in paths]).to_pylist()
        expected = [said_to(row) for row in range(self._plan.rows)]
        assert [row["parcel"] for row in rows] == [f"{row:04d}" for row in range(self._plan.rows)]
        assert [row["response"] for row in rows] == [said.text for said in expected]
        assert [row["input_tokens"] for row in rows] == [said.input_tokens for said in expected]
        assert [row["cost_usd"] for row in rows] == [cost_of(said) for said in expected]
        assert Decimal(summary["cost_usd"]) == sum(map(cost_of, expected))
        assert (summary["succeeded"], summary["finished"]) == (self._plan.rows, True)

    def _check_rest(self, summary: dict[str, Any]) -> None:
        """The files prove the run, none is a stray, and carrying out a finished run sends and changes nothing."""
        assert (found := cometbatch.verify(self._output)).ok, found.describe()
        sessions = list((self._run_folder / "sessions").iterdir())
        newest = max(int(path.stem) for path in sessions)
        kept = {*sessions, self._run_folder / f"in_flight.{newest}"}
        others = [path for path in self._bench.folder.rglob("*") if path.is_file() and path.name not in KEPT]
        strays = [path for path in others if path.parent not in (self._output, self._run_folder / "parts")]
        assert set(strays) == kept
        before, requests = files(self._bench.folder), self._server.requests
        again = self._to_the_end()
        assert (self._server.requests, again["had_work"], again["resent"]) == (requests, False, summary["resent"])
        assert files(self._bench.folder) == before

    @property
    def _run_folder(self) -> Path:
        return self._output.with_name(f"_{self._output.name}.run")


def soak(seconds: float, seed: int, *, rounds: int | None = None) -> int:
    """Play rounds until the time is up and one is struck; how many were. Raises what the first failure raised."""
    deadline, struck, number = time.monotonic() + seconds, 0, 0
    while (time.monotonic() < deadline or not struck) and (rounds is None or number < rounds):
        struck += _play(seed + number)
        number += 1
    _say(f"soak: {number} runs, {struck} struck, seeds {seed} to {seed + number - 1}")
    return struck


def _play(seed: int) -> int:
    plan, folder = Plan.of(seed), Path(tempfile.mkdtemp(prefix=f"cometbatch-soak-{seed}-"))
    (folder / "run").mkdir()
    try:
        with StubServer(plan.trouble, plan.latency_s, seed=seed) as server:
            struck = Round(plan, folder / "run", server).play()
    except BaseException:
        _say(f"failed: {plan}\nseed {seed}, folder {folder}\nagain: python -m tests.soak.soak --rounds 1 --seed {seed}")
        raise
    shutil.rmtree(folder)
    return struck


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Random runs under random signals.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--rounds", type=int)
    asked = parser.parse_args()
    _say(f"soak: {asked.minutes:g} minutes, seed {asked.seed}")
    soak(asked.minutes * 60, asked.seed, rounds=asked.rounds)


if __name__ == "__main__":
    main()
