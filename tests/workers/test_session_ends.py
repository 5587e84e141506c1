"""Runs with processes of their own, from the job to the result: what they answer, how they stop, who goes on with them.

Each starts real processes, so there are few of them.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cometbatch
from cometbatch.run_state.directory import RunDirectory
from cometbatch.run_state.epoch import Epoch
from tests.test_cli import background
from tests.workbench import ANSWER_COLUMNS, Workbench

ROWS = 60
QUICK: dict[str, Any] = {
    "simulator": {"latency_s": 0.05},
    "limits": {"concurrency": 8},
    "output": {"partition_rows": 5},
}


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A table of some ranges."""
    made = Workbench(tmp_path)
    made.write_rows(ROWS)
    return made


def epoch_of(bench: Workbench) -> Epoch | None:
    """What the lock says of the last session with workers."""
    return RunDirectory(bench.run_directory).epoch.read()


def has_answers(bench: Workbench) -> bool:
    """Whether an answer is recorded in a journal."""
    return any(b'"succeeded"' in path.read_bytes() for path in bench.run_directory.glob("journal/*.jsonl"))


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_workers(bench: Workbench) -> None:
    """They answer what one process answers, tell each part once, and leave a run that holds.

    What a worker that was killed was writing is removed.
    """
    events: list[dict[str, Any]] = []

    def hear(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "part_committed" and event["partition"] == 0:
            (bench.run_directory / "parts" / ".00000.part.1-9.tmp").touch()

    job = bench.job(**QUICK, engine={"workers": 2})
    summary = cometbatch.run(job, progress=False, events=hear)
    assert summary.finished
    assert summary.succeeded == ROWS
    committed = Counter(each["partition"] for each in events if each["event"] == "part_committed")
    assert committed == dict.fromkeys(range(ROWS // 5), 1)
    epoch = epoch_of(bench)
    assert epoch is not None
    assert (epoch.session, epoch.engine, epoch.closed) == (1, "workers", True)
    assert cometbatch.verify(job).ok
    assert len({path.name.split(".")[1] for path in bench.run_directory.glob("in_flight.*")}) == 2
    several = bench.result().select(ANSWER_COLUMNS)
    alone = cometbatch.run(job, workers=1, fresh=True, progress=False)
    assert alone.succeeded == ROWS
    assert bench.result().select(ANSWER_COLUMNS).equals(several)


def test_stopped_and_resumed(bench: Workbench) -> None:
    """SIGTERM finishes what is in flight; one process goes on with what workers left, and workers with what it left."""
    slow = {**QUICK, "simulator": {"latency_s": 0.3}}
    path = bench.write_job(**slow)
    job = cometbatch.load_job(path)
    with background("run", path, "--workers", "2") as process:
        wait_for(lambda: has_answers(bench))
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 143, told
    assert "--workers 2" in told
    left = cometbatch.status(job)
    assert 0 < left.summary.tally.calls < ROWS
    assert left.summary.tally.charges == 0
    assert (epoch := epoch_of(bench)) is not None
    assert epoch.closed
    limited = cometbatch.run(job, progress=False, limit=left.summary.tally.calls + 5)
    assert not limited.finished
    summary = cometbatch.run(job, progress=False, workers=2)
    assert summary.finished
    assert (summary.succeeded, summary.tally.attempts) == (ROWS, ROWS)
    assert cometbatch.verify(job).ok
