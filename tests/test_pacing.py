"""The window that finds what a service sustains, against model services on made-up time."""

import heapq
import math
import random
from collections.abc import Callable

import pytest
from msgspec import Struct

from cometbatch.pacing import LAST_PROBE_S, OUTAGE_FAILURES, START, Pace

REJECTION_S = 0.003
CAPACITY = 150.0  # requests a second


class Course(Struct):
    """What came of a simulated run: when each request was sent, answered and refused, in seconds."""

    sent: list[float]
    answered: list[float]
    refused: list[float]

    def goodput(self, capacity: Callable[[float], float], seconds: float) -> float:
        """Answers as a share of what the service could have given."""
        return len(self.answered) / sum(capacity(tick / 100) / 100 for tick in range(int(seconds * 100)))

    def refused_share(self) -> float:
        """The share of requests that was sent for nothing."""
        return len(self.refused) / len(self.sent)


def between(times: list[float], start: float, end: float) -> int:
    """How many moments lie in an interval."""
    return sum(start <= time < end for time in times)


def course(
    capacity: Callable[[float], float],
    *,
    seconds: float,
    latency_s: tuple[float, float] = (0.1, 0.3),
    burst: float = 15,
    ceiling: int = 256,
    seed: int = 1,
) -> Course:
    """Send as fast as a `Pace` lets us to a service that admits `capacity(time)` a second, beyond a burst."""
    chance, pace, run = random.Random(seed), Pace(ceiling), Course([], [], [])
    now, filled_at, bucket, in_flight = 0.0, 0.0, burst, 0
    replies: list[tuple[float, int, str, float]] = []
    while now < seconds:
        wait = pace.wait_s(now, in_flight)
        if now + wait <= (replies[0][0] if replies else math.inf):
            now += wait
            bucket, filled_at = min(burst, bucket + (now - filled_at) * capacity(now)), now
            pace.sent(now)
            in_flight += 1
            run.sent.append(now)
            admitted = bucket >= 1 and capacity(now) > 0
            bucket -= admitted
            delay = chance.uniform(*latency_s) if admitted else REJECTION_S
            heapq.heappush(replies, (now + delay, len(run.sent), "answer" if admitted else "refusal", now))
        else:
            now, _, kind, sent_at = heapq.heappop(replies)
            in_flight -= 1
            assert in_flight < ceiling
            if kind == "answer":
                run.answered.append(now)
                pace.answered(now, now - sent_at)
            else:
                run.refused.append(now)
                pace.pushed_back(now, sent_at)
    return run


def steady(_: float) -> float:
    """Always the same."""
    return CAPACITY


def falling(now: float) -> float:
    """A fifth of it for a while."""
    return CAPACITY / 5 if 15 <= now < 30 else CAPACITY


def outage(now: float) -> float:
    """Nothing for ten seconds."""
    return 0.0 if 10 <= now < 20 else CAPACITY


LATENCIES = [(0.05, 0.1), (0.1, 0.3), (0.2, 0.2)]
SEEDS = [1, 2, 3]


@pytest.mark.parametrize("latency_s", LATENCIES)
@pytest.mark.parametrize("burst", [15, 150])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_steady_service_is_used_and_not_pestered(latency_s: tuple[float, float], burst: float, seed: int) -> None:
    """At least 85 % of what it can do, and at most 10 % of the requests refused."""
    run = course(steady, seconds=30, latency_s=latency_s, burst=burst, seed=seed)
    assert run.goodput(steady, 30) >= 0.85
    assert run.refused_share() <= 0.10


@pytest.mark.parametrize("latency_s", LATENCIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_service_that_falls_to_a_fifth_and_comes_back_is_followed(latency_s: tuple[float, float], seed: int) -> None:
    """At least 75 % of what it can do over the whole time, and at most 20 % of the requests refused."""
    run = course(falling, seconds=45, latency_s=latency_s, seed=seed)
    assert run.goodput(falling, 45) >= 0.75
    assert run.refused_share() <= 0.20


@pytest.mark.parametrize("latency_s", LATENCIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_an_outage_is_probed_and_not_stormed(latency_s: tuple[float, float], seed: int) -> None:
    """During ten seconds of it at most a tenth of the healthy rate is sent; within five seconds all is well again."""
    run = course(outage, seconds=32, latency_s=latency_s, seed=seed)
    assert between(run.sent, 10, 20) <= 0.10 * CAPACITY * 10
    assert between(run.answered, 25, 30) >= 0.85 * CAPACITY * 5


def test_the_ceiling_is_never_passed() -> None:
    """However well it goes, no more than the ceiling is in flight."""
    run = course(lambda _: 1e6, seconds=3, ceiling=5, burst=1e6)
    assert len(run.answered) > 0  # the assertion is in `course`


def test_an_idle_window_does_not_grow() -> None:
    """What was not used proves nothing about what the service would sustain."""
    pace, now = Pace(256), 0.0
    for _ in range(200):
        assert pace.wait_s(now, 0) == 0
        pace.sent(now)
        pace.answered(now + 0.1, 0.1)
        now += 1.0
    assert pace.window <= START


def test_one_round_trip_cuts_once() -> None:
    """Forty refusals of requests that were in flight together are one piece of news."""
    pace = Pace(256)
    for at in range(100):
        pace.wait_s(at / 10, 1000)
        pace.answered(at / 10, 0.2)
    before = pace.window
    for _ in range(40):
        pace.pushed_back(10.0, 9.9)
    assert before * 0.6 <= pace.window < before


def test_latency_that_grows_several_fold_stops_growth_and_then_cuts() -> None:
    """A service that queues instead of refusing is heard too."""
    pace, now = Pace(256), 0.0
    for _ in range(100):
        pace.wait_s(now, 1000)
        pace.answered(now, 0.2)
        now += 0.05
    settled = pace.window
    for _ in range(100):
        pace.wait_s(now, 1000)
        pace.answered(now, 3.0)
        now += 0.05
    assert pace.window < settled


def test_probes_come_at_growing_intervals_up_to_a_bound() -> None:
    """Waiting doubles while nothing answers, and an outage's end is noticed within that bound."""
    pace, now = Pace(64), 0.0
    pace.answered(now, 0.1)
    waits = []
    for _ in range(OUTAGE_FAILURES + 8):
        now += 0.2
        pace.pushed_back(now, now - 0.01)
        if pace.is_probing:
            assert pace.window == 1
            waits.append(pace.wait_s(now, 0))
            now += waits[-1]
            pace.sent(now)
    assert waits == pytest.approx(sorted(waits))
    assert waits[-1] == pytest.approx(LAST_PROBE_S)
    pace.answered(now, 0.1)
    assert not pace.is_probing
    assert pace.wait_s(now, 0) == 0
