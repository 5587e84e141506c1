"""The loop finds what a service sustains, with no limits configured: the whole of it, on virtual time."""

import asyncio
import random
from collections.abc import Callable

import pytest

from cometbatch.records import Failed, TransportFailure
from cometbatch.runner.ports import Reply
from tests.scripted_run import RowsInMemory, ScriptedService, answer, make_runner, refused
from tests.virtual_time import run

CAPACITY = 150.0  # requests a second
BURST = 15.0  # requests that the service takes at once
CEILING = 256
BUSY = refused(429)
BUSY_A_SECOND = refused(429, retry_after="1")


class Service:
    """A service that admits `capacity(time)` requests a second and refuses the others at once."""

    def __init__(self, capacity: Callable[[float], float], outage: Reply = BUSY, refusal: Reply = BUSY) -> None:
        self._capacity = capacity
        self._refusal = refusal
        self._outage = outage
        self._chance = random.Random(5)
        self._bucket, self._filled_at = BURST, 0.0
        self.sent: list[float] = []
        self.answered: list[float] = []

    def __call__(self, row: int, attempt: int) -> tuple[float, Reply]:
        now = asyncio.get_running_loop().time()
        rate = self._capacity(now)
        self._bucket = min(BURST, self._bucket + (now - self._filled_at) * rate)
        self._filled_at = now
        self.sent.append(now)
        if rate and self._bucket >= 1:
            self._bucket -= 1
            self.answered.append(now)
            return self._chance.uniform(0.1, 0.3), answer()
        return 0.003, (self._refusal if rate else self._outage)

    @property
    def refused_share(self) -> float:
        return 1 - len(self.answered) / len(self.sent)

    def rate(self, start: float, end: float) -> float:
        return sum(start <= at < end for at in self.answered) / (end - start)


def carry_out(service: Service, rows: int) -> RowsInMemory:
    """Every row must be answered: pushback and outages lose none."""
    table = RowsInMemory(rows)
    runner = make_runner(
        table, ScriptedService(service), concurrency=CEILING, adaptive=True, jitter=random.Random(3).random
    )
    assert run(runner.run()).stop is None
    assert [outcome for outcome in table.recorded if getattr(outcome, "status", "failed") != "succeeded"] == []
    assert len(table.by_row) == rows
    return table


def test_a_steady_service_is_used_and_not_pestered() -> None:
    """At least 85 % of 150 requests a second, at most 10 % of requests refused, no row lost."""
    service = Service(lambda _: CAPACITY)
    carry_out(service, 4000)
    assert service.rate(0, service.answered[-1]) >= 0.85 * CAPACITY
    assert service.refused_share <= 0.10


@pytest.mark.parametrize("status", [429, 502, 503, 529])
def test_a_service_that_falls_to_a_fifth_and_comes_back_is_followed(status: int) -> None:
    """At least 75 % of what it can do, at most 20 % of requests refused, no row lost, whatever it refuses with."""
    service = Service(lambda now: CAPACITY / 5 if 10 <= now < 25 else CAPACITY, refusal=refused(status))
    carry_out(service, 4500)
    end = service.answered[-1]
    possible = sum((CAPACITY / 5 if 10 <= tick / 10 < 25 else CAPACITY) / 10 for tick in range(int(end * 10)))
    assert len(service.answered) >= 0.75 * possible
    assert service.refused_share <= 0.20


@pytest.mark.parametrize("refusal", [refused(503), BUSY], ids=["503", "429"])
@pytest.mark.parametrize(("latency_s", "rows", "full_s"), [(0.05, 10_000, 1.95), (1.0, 5000, 19.5)])
def test_refusals_that_come_at_any_rate_hold_nothing_back(
    refusal: Reply, latency_s: float, rows: int, full_s: float
) -> None:
    """2 % of them: no row is lost, and 95 % are answered within 1.5 times what the whole ceiling in use would take."""
    chance, answered = random.Random(5), list[float]()

    def script(_row: int, _attempt: int) -> tuple[float, Reply]:
        if chance.random() < 0.02:
            return 0.003, refusal
        answered.append(asyncio.get_running_loop().time() + latency_s)
        return latency_s, answer()

    table = RowsInMemory(rows)
    jitter = random.Random(3).random
    runner = make_runner(table, ScriptedService(script), concurrency=CEILING, adaptive=True, jitter=jitter)
    assert run(runner.run()).stop is None
    assert [outcome for outcome in table.recorded if isinstance(outcome, Failed)] == []
    assert answered[rows * 95 // 100] <= 1.5 * full_s


def test_rows_that_alone_are_refused_for_overload_fail_while_others_are_answered() -> None:
    """What the service has for everyone costs a row no attempt; what three rows alone meet does."""
    table = RowsInMemory(2000)
    poisonous = ScriptedService(lambda row, _: (0.2, refused(503) if row in (50, 60, 70) else answer()))
    assert run(make_runner(table, poisonous, concurrency=16, adaptive=True).run()).stop is None
    failed = {row: outcome.attempts for row, outcome in table.by_row.items() if isinstance(outcome, Failed)}
    assert failed == {50: 5, 60: 5, 70: 5}


@pytest.mark.parametrize(
    "refusal",
    [refused(503), BUSY, TransportFailure("connection", "refused", sent=False)],
    ids=["503", "429", "no connection"],
)
def test_an_outage_of_ten_seconds_loses_no_row_and_is_not_stormed(refusal: Reply) -> None:
    """At most a tenth of the healthy rate is sent during it, and all is well again within five seconds."""
    service = Service(lambda now: 0.0 if 10 <= now < 20 else CAPACITY, refusal)
    carry_out(service, 4500)
    assert sum(10 <= at < 20 for at in service.sent) <= 0.10 * CAPACITY * 10
    assert service.rate(25, 30) >= 0.85 * CAPACITY


@pytest.mark.parametrize(
    "refusal",
    [refused(503), refused(429, retry_after="1"), TransportFailure("connection", "refused", sent=False)],
    ids=["503", "429 with Retry-After", "no connection"],
)
@pytest.mark.parametrize("last", [1, 2, 3])
def test_an_outage_that_meets_only_the_last_rows_loses_none_of_them(refusal: Reply, last: int) -> None:
    """No further rows are left to tell an outage by; ten seconds of it are borne with all the same."""
    began: list[float] = []

    def script(row: int, _: int) -> tuple[float, Reply]:
        now = asyncio.get_running_loop().time()
        if row >= 40 - last:
            began.append(now)
            if now < began[0] + 10:
                return 0.003, refusal
        return 0.2, answer()

    table = RowsInMemory(40)
    chance = random.Random(1).random
    runner = make_runner(table, ScriptedService(script), concurrency=8, adaptive=True, jitter=chance)
    assert run(runner.run()).stop is None
    assert [outcome for outcome in table.recorded if isinstance(outcome, Failed)] == []
    assert len(table.by_row) == 40


def test_a_pause_asked_for_again_and_again_fails_no_row_before_its_time() -> None:
    """Ninety seconds of `Retry-After: 1` for the last row are ninety refusals, and less than `max_pushback_s`."""
    began: list[float] = []

    def script(row: int, _: int) -> tuple[float, Reply]:
        began.extend([asyncio.get_running_loop().time()] if row == 9 else [])
        return (0.01, BUSY_A_SECOND) if row == 9 and began[-1] < began[0] + 90 else (0.2, answer())

    table = RowsInMemory(10)
    assert run(make_runner(table, ScriptedService(script), concurrency=4, adaptive=True).run()).stop is None
    assert [outcome for outcome in table.recorded if isinstance(outcome, Failed)] == []


def test_a_long_outage_stops_the_run_and_fails_no_row() -> None:
    """Where no answer comes any more the run ends, resumable, and the rows that met it are not recorded."""
    service = Service(lambda now: 0.0 if now >= 5 else CAPACITY, TransportFailure("connection", "refused", sent=False))
    table = RowsInMemory(4000)
    runner = make_runner(table, ScriptedService(service), concurrency=CEILING, adaptive=True, max_pushback_s=900.0)
    stop = run(runner.run()).stop
    assert stop is not None
    assert "since the last answer" in stop.message
    assert len(table.recorded) == len(service.answered)
