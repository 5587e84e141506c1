"""A run that is killed and stopped at random, and carried on by any number of workers: heavy, for the weekly checks.

    python -m tests.workers.random_sessions 0 20

takes the seeds from 0 to 19, about a minute each, and prints a line for each. Ends with an error at the first promise
that does not hold; the same seed alone draws the same steps again, though not at the same moments.
"""

import os
import random
import signal
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import cometbatch
from tests.workers.witness import ROW_USD, Driver, Job, Service, wait_for

SESSIONS = 6  # that are ended before their last call; then one may finish
ROWS = 1200
LIMITS = {"concurrency": 32}


def carry_out(seed: int) -> None:
    """One run: each row is there once, and the bill is at least what the service answered."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, Service(latency_s=0.1) as service:
        result = chance.choice(["out/answers/", "out/answers.parquet"])
        rows = chance.choice([20, 64])
        job = Job(Path(folder), service.base_url, ROWS, limits=LIMITS, partition_rows=rows, result=result)
        steps = [_cut_short(job, service, chance) for _ in range(SESSIONS)]
        summary = job.run(*_engine(chance))
        ledger = service.ledger()
        job.check(summary, ledger, summary["resent"])
        assert cometbatch.verify(job.path).ok
        told = Decimal(summary["cost_usd"]) + Decimal(summary["thrown_cost_usd"])
        assert len(ledger.answered) * ROW_USD <= told
        _say(seed, steps, again=ledger.answered_again, resent=summary["resent"])


def _engine(chance: random.Random) -> tuple[str, ...]:
    return chance.choice([("--workers", "2"), ("--workers", "4"), ()])


def _cut_short(job: Job, service: Service, chance: random.Random) -> str:
    """A session that does not come to its end, unless it is faster; returns what was done to it."""
    before, engine = len(service.ledger().requests), _engine(chance)
    wanted, kills_worker, pause_s = chance.randint(5, 150), chance.random() < 0.6, chance.uniform(0, 1.5)
    ending = chance.choice([signal.SIGKILL, signal.SIGTERM])
    with job.started(*engine) as driver:
        wait_for(lambda: _has_ended(driver) or len(service.ledger().requests) > before + wanted, "requests")
        workers = driver.workers()
        if kills_worker and workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            time.sleep(pause_s)
        if not _has_ended(driver):
            driver.signal(ending)
        driver.child.wait(60)
    return f"{engine[-1] if engine else 'alone'}{' worker' if kills_worker and workers else ''} {ending.name}"


def _has_ended(driver: Driver) -> bool:
    return driver.child.poll() is not None


def _say(seed: int, steps: list[str], **figures: Any) -> None:
    told = ", ".join(f"{name} {value}" for name, value in figures.items())
    sys.stdout.write(f"{seed}: {told} ({'; '.join(steps)})\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        carry_out(number)
