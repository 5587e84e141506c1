"""A job with workers as processes, by the ledger of the service that they ask."""

import itertools
import os
import random
import signal
import time
from pathlib import Path

import cometbatch
from tests.workers.proofs import killed
from tests.workers.witness import KEY, Job, Service, processes, wait_for

LIMITS = {"concurrency": 32}
END_S, QUIET_S = 20.0, 2.0  # a moment, and more where a machine does other things
FENCE_S = 3.0


def test_two_workers_share_a_run_whose_path_is_longer_than_a_sockets(tmp_path: Path, temporary: Path) -> None:
    """Each row is asked once, also where a terminal's signals reach the workers, which the command alone may end.

    No process but the command shows the key, and no file is left in the temporary folder.
    """
    folder = tmp_path.joinpath(*["f" * 100] * 3)
    folder.mkdir(parents=True)
    with Service(latency_s=0.1) as service:
        job = Job(folder, service.base_url, 200, limits=LIMITS, partition_rows=20)
        with job.started("--workers", "2") as driver:
            wait_for(lambda: len(service.ledger().requests) > 60, "60 requests")
            workers = driver.workers()
            shown = [_shown(pid) for pid in workers]
            for pid, number in itertools.product(workers, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
                os.kill(pid, number)
            summary = driver.finish()
        ledger = service.ledger()
    assert len(workers) == 2
    assert not any(KEY.encode() in each for each in shown)
    job.check(summary, ledger, 0)
    assert summary["resent"] == 0
    assert cometbatch.verify(job.path).ok
    assert list(temporary.iterdir()) == []


def _shown(pid: int) -> bytes:
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline"))


def test_another_worker_goes_on_where_one_was_killed(tmp_path: Path) -> None:
    """What was in flight there is sent again, and counted; no other row is."""
    with Service(latency_s=0.2) as service:
        job = Job(tmp_path, service.base_url, 300, limits=LIMITS, partition_rows=20)
        with job.started("--workers", "2") as driver:
            wait_for(lambda: len(service.ledger().requests) > 60, "60 requests")
            first = driver.workers()
            flying = killed(driver, service, random.Random(0))
            wait_for(lambda: len(driver.workers()) == 2, "another worker")
            assert driver.workers() != first
            summary = driver.finish()
        ledger = service.ledger()
    job.check(summary, ledger, flying)
    assert ledger.answered_again <= summary["resent"] <= flying


def test_workers_end_with_a_killed_command_and_the_next_one_waits_for_them(tmp_path: Path, temporary: Path) -> None:
    """They remove what it left in the temporary folder, and send nothing more; what was in flight is in the bill."""
    with Service(latency_s=0.2) as service:
        job = Job(tmp_path, service.base_url, 600, limits=LIMITS, partition_rows=20)
        with job.started("--workers", "2") as driver:
            wait_for(lambda: len(service.ledger().requests) > 60, "60 requests")
            workers = set(driver.workers())
            driver.signal(signal.SIGKILL)
            died = time.monotonic()
            wait_for(lambda: workers.isdisjoint(pid for pid, _, _ in processes()), "the end of workers", END_S)
        before = service.ledger()
        assert before.last < died + QUIET_S
        assert len(workers) == 2
        assert list(temporary.iterdir()) == []
        summary = job.run()
        ledger = service.ledger()
    assert min(each.at for each in ledger.requests[len(before.requests) :]) > died + FENCE_S
    job.check(summary, ledger, LIMITS["concurrency"])
    assert ledger.answered_again <= summary["resent"] <= LIMITS["concurrency"]
    assert cometbatch.verify(job.path).ok
    assert list(tmp_path.rglob("nonce")) == []
