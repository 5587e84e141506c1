"""What `--workers` promises, shown with real processes against a service that keeps a ledger. Some ten minutes.

    python -m tests.workers.proofs [NAME ...]

prints a line of figures for each, and ends with an error at the first promise that does not hold. `SCALE=0.2` makes
the tables shorter.
"""

import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.workers.witness import ROW_USD, Driver, Job, Ledger, Service, ports_of, wait_for

SCALE = float(os.environ.get("SCALE", "1"))
PER_S = 200
LATENCY_S = 0.5
UNRECORDED_S = 0.5  # in which an answer that has left may not be recorded yet, on a busy machine
LIMITED = {"requests_per_minute": PER_S * 60, "concurrency": 256}


@contextlib.contextmanager
def made(
    rows: int, *, limits: dict[str, Any] | None = None, service: dict[str, Any] | None = None, **job: Any
) -> Iterator[tuple[Job, Service]]:
    """A job and its service."""
    with tempfile.TemporaryDirectory() as folder, Service(**{"latency_s": LATENCY_S, **(service or {})}) as served:
        yield Job(Path(folder), served.base_url, max(200, round(rows * SCALE)), limits=limits or LIMITED, **job), served


def say(what: str, **figures: object) -> None:
    """One line of figures."""
    told = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
    )
    sys.stdout.write(f"{what}: {told}\n")
    sys.stdout.flush()


def bill(summary: dict[str, Any]) -> str:
    """What the summary says of money beyond the answers."""
    return f"{summary['thrown']} charged at {summary['thrown_cost_usd']}"


def check_peak(ledger: Ledger, workers: int) -> int:
    """The law of the rate, over any second."""
    peak = ledger.peak()
    assert peak <= PER_S + max(workers, 10), peak
    return peak


def through(ledger: Ledger) -> float:
    """Share of the limit that was used, until the last two answers' time."""
    return ledger.per_s(ledger.first, ledger.last - 2 * LATENCY_S) / PER_S


def rate() -> None:
    """N workers use the limit, and never more."""
    for workers in (1, 2, 4, 8):
        with made(3000) as (job, service):
            summary = job.run("--workers", str(workers))
            ledger = service.ledger()
            job.check(summary, ledger, 0)
            used = through(ledger)
            say(f"rate, {workers} workers", peak=check_peak(ledger, workers), used=used, again=ledger.answered_again)
            assert used >= 0.95, used


def rate_with_a_kill() -> None:
    """A worker is killed: the others use the limit again, and each row is there once."""
    with made(3600) as (job, service), job.started("--workers", "8") as driver:
        wait_for(lambda: len(driver.workers()) == 8, "eight workers")
        wait_for(lambda: len(service.ledger().requests) > 800, "800 requests")
        flying = killed(driver, service, random.Random(1))
        at = time.monotonic()
        summary = driver.finish()
        ledger = service.ledger()
        job.check(summary, ledger, flying)
        used = ledger.per_s(at, min(at + 10, ledger.last - 2 * LATENCY_S)) / PER_S
        say(
            "rate with a kill, 8 workers",
            peak=check_peak(ledger, 9),
            used=used,
            again=ledger.answered_again,
            in_flight=flying,
            bill=bill(summary),
        )
        assert ledger.answered_again == summary["resent"], (ledger.answered_again, summary["resent"])
        assert used >= 0.90, used


def killed(driver: Driver, service: Service, chance: random.Random) -> int:
    """Kill one worker; how many requests of it may have been in flight, or answered and not recorded yet."""
    pid = chance.choice(driver.workers())
    os.kill(pid, signal.SIGSTOP)  # so that it opens no connection after the look at them
    ports, at = ports_of(pid), time.monotonic()
    os.kill(pid, signal.SIGKILL)
    ledger = service.ledger()
    own = {number for number, port in enumerate(ledger.ports) if port in ports}
    return sum(each.connection in own and each.at > at - LATENCY_S - UNRECORDED_S for each in ledger.requests)


def kills() -> None:
    """A worker is killed twenty times at random."""
    chance = random.Random(int(os.environ.get("SEED", "19")))
    with made(6000) as (job, service), job.started("--workers", "4") as driver:
        flying = done = 0
        wait_for(driver.workers, "workers")
        while done < 20 and driver.child.poll() is None:
            time.sleep(chance.uniform(0.3, 1.6))
            if driver.workers():
                flying += killed(driver, service, chance)
                done += 1
        summary = driver.finish()
        ledger = service.ledger()
        job.check(summary, ledger, flying)
        say(
            "kills",
            kills=done,
            peak=check_peak(ledger, 5),
            again=ledger.answered_again,
            in_flight=flying,
            resent=summary["resent"],
            bill=bill(summary),
        )
        assert ledger.answered_again <= summary["resent"] <= flying


def stopped_worker() -> None:
    """A worker stands still for 30 s and goes on: at most one turn's requests after that, and no part."""
    with made(8000) as (job, service), job.started("--workers", "4") as driver:
        wait_for(lambda: len(service.ledger().requests) > 600, "600 requests")
        pid = driver.workers()[1]
        ports = ports_of(pid)
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        time.sleep(30)
        run = job.output.with_name(f"_{job.output.name}.run")
        before = {path.name: path.stat().st_mtime_ns for path in (run / "committed").iterdir()}
        os.kill(pid, signal.SIGCONT)
        at = time.monotonic()
        time.sleep(2)
        gone = pid not in driver.workers()
        summary = driver.finish()
        ledger = service.ledger()
        own = {number for number, port in enumerate(ledger.ports) if port in ports and ledger.opened[number] < began}
        late = [each for each in ledger.after(at) if each.connection in own]
        while_still = [each for each in ledger.requests if began + 0.1 < each.at < at and each.connection in own]
        job.check(summary, ledger, ledger.answered_again)
        say(
            "worker stopped for 30 s",
            late=len(late),
            gone=gone,
            again=ledger.answered_again,
            resent=summary["resent"],
            files=len(before),
        )
        assert not while_still
        assert len(late) <= 64, late
        assert all(each.at < at + 1 for each in late)
        assert ledger.answered_again <= summary["resent"] + len(late)


def stopped_driver() -> None:
    """The coordinator stands still: the workers fall silent, and go on when it does; nothing is sent twice."""
    with made(3000) as (job, service), job.started("--workers", "4") as driver:
        wait_for(lambda: len(service.ledger().requests) > 600, "600 requests")
        driver.signal(signal.SIGSTOP)
        began = time.monotonic()
        time.sleep(6)
        driver.signal(signal.SIGCONT)
        at = time.monotonic()
        summary = driver.finish()
        ledger = service.ledger()
        job.check(summary, ledger, 0)
        silent = [each for each in ledger.requests if began + 1.1 < each.at < at]
        after = min(each.at for each in ledger.after(at)) - at
        say(
            "coordinator stopped for 6 s",
            sent_meanwhile=len(silent),
            went_on_after_s=after,
            again=ledger.answered_again,
            resent=summary["resent"],
        )
        assert not silent
        assert ledger.answered_again == 0


def driver_killed(*options: str) -> None:
    """The driver is killed, and the same command is given at once: nothing of old workers after its first request."""
    with made(3000) as (job, service):
        with job.started("--workers", "4") as driver:
            wait_for(lambda: len(service.ledger().requests) > 600, "600 requests")
            workers = driver.workers()
            driver.signal(signal.SIGKILL)
            at = time.monotonic()
            driver.child.wait()
            summary = job.run(*options)
        ledger = service.ledger()
        old = [each for each in ledger.requests if ledger.opened[each.connection] < at]
        new = [each.at for each in ledger.requests if ledger.opened[each.connection] >= at]
        job.check(summary, ledger, 256)
        say(
            f"driver killed, then {' '.join(options) or 'one process'}",
            old_for_s=max(each.at for each in old) - at,
            new_after_s=min(new) - at,
            again=ledger.answered_again,
            resent=summary["resent"],
            left=sum(Path(f"/proc/{pid}").exists() for pid in workers),
        )
        assert max(each.at for each in old) < min(new)
        assert min(new) - at >= 3
        assert ledger.answered_again <= summary["resent"]


def driver_killed_then_workers() -> None:
    """With workers again."""
    driver_killed("--workers", "4")


def driver_killed_then_one_process() -> None:
    """In one process."""
    driver_killed()


def ended_in_order() -> None:
    """After SIGTERM the next session begins at once: the lock says that the last one ended in order."""
    with made(3000) as (job, service):
        with job.started("--workers", "4") as driver:
            wait_for(lambda: len(service.ledger().requests) > 600, "600 requests")
            driver.signal(signal.SIGTERM)
            driver.finish(143)
        at = time.monotonic()
        summary = job.run()
        ledger = service.ledger()
        job.check(summary, ledger, 0)
        first = min(each.at for each in ledger.after(at)) - at
        say("ended in order", new_after_s=first, again=ledger.answered_again, resent=summary["resent"])
        assert first < 2.5
        assert (ledger.answered_again, summary["resent"]) == (0, 0)


def adaptive() -> None:
    """A service of 100 requests a second, 64 in flight: eight workers are refused little more than one."""
    refused = {}
    for workers in (1, 8):
        limits = {"concurrency": 64, "adaptive": True}
        with made(2000, limits=limits, service={"latency_s": 0.3, "limit": 100}) as (job, service):
            summary = job.run("--workers", str(workers))
            ledger = service.ledger()
            job.check(summary, ledger, 0)
            refused[workers] = ledger.refused
            say(f"adaptive, {workers} workers", refused=ledger.refused, seconds=ledger.last - ledger.first)
    assert refused[8] <= 1.5 * refused[1], refused


def budget() -> None:
    """$1, eight workers and a kill: never passed, and at most nine worst rows are left."""
    sections = {"budget": {"max_cost_usd": 1}}
    with made(3000, sections=sections) as (job, service), job.started("--workers", "8") as driver:
        wait_for(lambda: len(service.ledger().requests) > 100, "100 requests")
        flying = killed(driver, service, random.Random(3))
        summary = driver.finish(4)
        ledger = service.ledger()
        paid = len(ledger.answered) * ROW_USD
        told = Decimal(summary["cost_usd"]) + Decimal(summary["thrown_cost_usd"])
        worst = Decimal("0.0055")
        say("budget", paid=paid, told=told, left=1 - told, in_flight=flying, resent=summary["resent"])
        assert paid <= 1
        assert 1 - told <= 9 * worst
        assert paid <= told <= 1
        job.write(budget={"max_cost_usd": 100})
        again = job.run("--workers", "8")
        job.check(again, service.ledger(), flying)


def grown_and_read() -> None:
    """A data set, begun in one process, stopped, carried on with workers, verified."""
    with made(2000, result="out/answers/") as (job, service):
        with job.started() as driver:
            wait_for(lambda: len(service.ledger().requests) > 500, "500 requests")
            driver.signal(signal.SIGTERM)
            driver.finish(143)
        summary = job.run("--workers", "3")
        ledger = service.ledger()
        rows = pq.read_table(job.output).num_rows
        say("data set, both ways", rows=rows, again=ledger.answered_again, resent=summary["resent"])
        assert rows == job.rows
        assert ledger.answered_again == 0


PROOFS: tuple[Callable[[], None], ...] = (
    rate,
    rate_with_a_kill,
    kills,
    stopped_worker,
    stopped_driver,
    driver_killed_then_workers,
    driver_killed_then_one_process,
    ended_in_order,
    adaptive,
    budget,
    grown_and_read,
)

if __name__ == "__main__":
    wanted = sys.argv[1:] or [each.__name__ for each in PROOFS]
    for proof in PROOFS:
        if proof.__name__ in wanted:
            proof()
