"""The window and the rate that find what a service sustains, against model services on made-up time."""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from cometbatch.control.window import AHEAD_S, LAST_PROBE_S, OUTAGE_FAILURES, START, START_SPACING_S, ConcurrencyWindow

REJECTION_S = 0.004
CAPACITY = 150.0  # requests a second

Rate = Callable[[float], float]
Latency = Callable[[random.Random], float]


class Service(Protocol):
    """Decides what it takes on."""

    def admits(self, now: float) -> bool:
        """Whether it takes on a request that comes now."""

    def took(self, until: float) -> None:
        """It will be busy with one for so long."""


class Bucket:
    """Refills at a rate, and holds this many requests."""

    def __init__(self, rate: Rate, size: float) -> None:
        self._rate, self._size, self._level, self._at = rate, size, size, 0.0

    def admits(self, now: float) -> bool:
        """Whether there is a request's worth in it."""
        rate = self._rate(now)
        self._level = min(self._size, self._level + (now - self._at) * rate)
        self._at = now
        if rate == 0 or self._level < 1:
            return False
        self._level -= 1
        return True

    def took(self, until: float) -> None:
        """How long it takes is no matter."""


class FixedWindow:
    """Counts from the start of each window anew."""

    def __init__(self, rate: Rate, window_s: float = 1.0) -> None:
        self._rate, self._window_s, self._index, self._count = rate, window_s, -1, 0

    def admits(self, now: float) -> bool:
        """Whether the window's quota has room."""
        if self._index != (index := int(now / self._window_s)):
            self._index, self._count = index, 0
        self._count += 1
        return self._count <= self._rate(now) * self._window_s

    def took(self, until: float) -> None:
        """How long it takes is no matter."""


class SlidingWindow:
    """Counts what it took on in the last second."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._taken: deque[float] = deque()

    def admits(self, now: float) -> bool:
        """Whether the last second has room."""
        while self._taken and self._taken[0] <= now - 1:
            self._taken.popleft()
        if len(self._taken) >= self._rate(now):
            return False
        self._taken.append(now)
        return True

    def took(self, until: float) -> None:
        """How long it takes is no matter."""


class Slots:
    """Works on this many at once."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._busy: list[float] = []

    def admits(self, now: float) -> bool:
        """Whether a slot is free."""
        while self._busy and self._busy[0] <= now:
            heapq.heappop(self._busy)
        return len(self._busy) < self._slots

    def took(self, until: float) -> None:
        """A slot is taken."""
        heapq.heappush(self._busy, until)


class Queue:
    """Refuses nobody: works on one after the other, and lets the others wait."""

    def __init__(self, rate: float) -> None:
        self._rate, self._free_at = rate, 0.0

    def admits(self, now: float) -> bool:
        """Always."""
        self._free_at = max(now, self._free_at) + 1 / self._rate
        return True

    def delay(self, now: float) -> float:
        """How long the last one waits."""
        return self._free_at - now

    def took(self, until: float) -> None:
        """Known already."""


class Strays:
    """Refuses some requests whatever their rate, and leaves the others to a service."""

    def __init__(self, service: Service, are_strays: Iterator[bool]) -> None:
        self._service, self._are_strays, self.count = service, are_strays, 0

    def admits(self, now: float) -> bool:
        """Whether it is no stray, and the service takes it on."""
        is_stray = next(self._are_strays)
        self.count += is_stray
        return not is_stray and self._service.admits(now)

    def took(self, until: float) -> None:
        """The service knows."""
        self._service.took(until)


class Course(Struct):
    """What came of a simulated run: when each request was sent, answered and refused, in seconds."""

    sent: list[float]
    answered: list[float]
    refused: list[float]

    def goodput(self, capacity: Rate) -> float:
        """Answers as a share of what the service could have given until the last one."""
        return len(self.answered) / sum(capacity(tick / 100) / 100 for tick in range(int(self.answered[-1] * 100)))

    def accepted(self, start: float, end: float) -> int:
        """How many requests of this time were not refused: refusals come within milliseconds."""
        return between(self.sent, start, end) - between(self.refused, start, end)

    def refused_share(self) -> float:
        """The share of requests that was sent for nothing."""
        return len(self.refused) / len(self.sent)


def by_chance(share: float, seed: int) -> Iterator[bool]:
    """Whether each of a run's requests is one of a random share."""
    chance = random.Random(100 + seed)
    return (chance.random() < share for _ in itertools.count())


def between(times: list[float], start: float, end: float) -> int:
    """How many moments lie in an interval."""
    return sum(start <= time < end for time in times)


def course(
    service: Service,
    latency: Latency,
    *,
    rows: int = 4000,
    seconds: float = math.inf,
    ceiling: int = 256,
    silent: tuple[float, float] = (math.inf, math.inf),
    seed: int = 1,
) -> Course:
    """Send as fast as a `ConcurrencyWindow` lets us; there is always another row, so that refused ones hold up nobody.

    `silent`: what the service works on or takes on in that time is never answered.
    """
    chance, pace, run = random.Random(seed), ConcurrencyWindow(ceiling), Course([], [], [])
    now, in_flight = 0.0, 0
    replies: list[tuple[float, int, bool, float]] = []
    order = itertools.count()
    while now < seconds and len(run.answered) < rows:
        sends_at = now + pace.wait_s(now, in_flight)
        if sends_at > (replies[0][0] if replies else math.inf):
            now, _, is_answer, sent_at = heapq.heappop(replies)
            in_flight -= 1
            if is_answer:
                run.answered.append(now)
                pace.answered(now, now - sent_at)
            else:
                run.refused.append(now)
                pace.refused(now, sent_at)
            continue
        now, is_late = sends_at, sends_at > now
        if is_late and pace.wait_s(now, in_flight) > 0:
            continue
        pace.sent(now)
        in_flight += 1
        assert in_flight <= ceiling
        run.sent.append(now)
        is_admitted = service.admits(now)
        delay = latency(chance) if is_admitted else REJECTION_S * chance.uniform(0.5, 1.5)
        delay += service.delay(now) if isinstance(service, Queue) else 0.0
        if is_admitted:
            service.took(now + delay)
        if now + delay >= silent[0] and now < silent[1]:
            delay = math.inf
        heapq.heappush(replies, (now + delay, next(order), is_admitted, now))
    return run


def steady(_: float) -> float:
    """Always the same."""
    return CAPACITY


def falling(now: float) -> float:
    """A fifth of it for a while."""
    return CAPACITY / 5 if 10 <= now < 25 else CAPACITY


def outage(now: float) -> float:
    """Nothing for ten seconds."""
    return 0.0 if 10 <= now < 20 else CAPACITY


LATENCIES: dict[str, Latency] = {
    "20 ms": lambda _: 0.02,
    "50 ms": lambda chance: chance.uniform(0.04, 0.06),
    "200 ms": lambda chance: chance.uniform(0.1, 0.3),
    "1 s": lambda chance: chance.uniform(0.9, 1.1),
    "long tail": lambda chance: min(
        30.0, chance.lognormvariate(-0.7, 1.2)
    ),  # as models have: half in 0.5 s, 1 % in 8 s
}
SERVICES: dict[str, Callable[[Rate], Service]] = {
    "small bucket": lambda rate: Bucket(rate, 15),
    "large bucket": lambda rate: Bucket(rate, 150),
    "fixed window": FixedWindow,
    "sliding window": SlidingWindow,
}
SEEDS = [1, 2, 3]


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_steady_service_is_used_and_not_pestered(latency: str, service: str, seed: int) -> None:
    """At least 85 % of what it can do, and at most 10 % of the requests refused, however it counts."""
    run = course(SERVICES[service](steady), LATENCIES[latency], seed=seed)
    assert run.goodput(steady) >= 0.85
    assert run.refused_share() <= 0.10


@pytest.mark.parametrize("latency_s", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_service_with_so_many_slots_is_used_and_not_pestered(latency_s: float, seed: int) -> None:
    """What bounds the requests in flight is found by the rate at which they pass: at least 80 %."""
    slots = Slots(round(CAPACITY * latency_s))
    run = course(slots, lambda chance: latency_s * chance.uniform(0.8, 1.2), seed=seed)
    assert run.goodput(steady) >= 0.80
    assert run.refused_share() <= 0.10


@pytest.mark.parametrize("latency", LATENCIES)
def test_a_service_that_queues_is_used(latency: str) -> None:
    """Nothing is refused; what it can do is used all the same."""
    run = course(Queue(CAPACITY), LATENCIES[latency])
    assert run.goodput(steady) >= 0.85


@pytest.mark.parametrize("capacity", [100.0, 150.0])
@pytest.mark.parametrize("size_s", [0.1, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_bucket_can_do_is_used_from_the_fifth_second_on(capacity: float, size_s: float, seed: int) -> None:
    """At least 93 %, and at most 5 % of the requests refused, with a bucket of a tenth of a second and of a second."""
    run = course(Bucket(lambda _: capacity, size_s * capacity), LATENCIES["200 ms"], rows=99_999, seconds=70, seed=seed)
    assert run.accepted(5, 70) >= 0.93 * capacity * 65
    assert between(run.refused, 5, 70) <= 0.05 * between(run.sent, 5, 70)


@pytest.mark.parametrize("capacity", [100.0, 150.0])
@pytest.mark.parametrize("size_s", [0.1, 1.0])
@pytest.mark.parametrize("fall", [(10, 25), (20, 40), (30, 40)])
def test_a_bucket_that_fills_more_slowly_for_a_while_is_followed(
    capacity: float, size_s: float, fall: tuple[float, float]
) -> None:
    """To a fifth and back: at least 85 % of what it can do, and at most 12 % of the requests refused."""

    def rate(now: float) -> float:
        return capacity / 5 if fall[0] <= now < fall[1] else capacity

    run = course(Bucket(rate, size_s * capacity), LATENCIES["200 ms"], rows=99_999, seconds=65)
    possible = capacity * (60 - 0.8 * (fall[1] - fall[0]))
    assert run.accepted(5, 65) >= 0.85 * possible
    assert between(run.refused, 5, 65) <= 0.12 * between(run.sent, 5, 65)


@pytest.mark.parametrize(("capacity", "most"), [(1.0, 0.40), (5.0, 0.25), (20.0, 0.12)])
def test_a_service_that_can_do_little_is_not_pestered(capacity: float, most: float) -> None:
    """With so few requests, a share refused is the time that it takes to find the rate."""
    run = course(Bucket(lambda _: capacity, 10 * capacity), LATENCIES["200 ms"], seconds=120)
    assert between(run.refused, 5, 120) <= most * between(run.sent, 5, 120)
    assert run.accepted(5, 120) >= 0.93 * capacity * 115


@pytest.mark.parametrize("window_s", [10.0, 60.0])
def test_a_quota_for_a_long_window_is_spread_over_it(window_s: float) -> None:
    """It is used up quickly once or twice; from then on it lasts."""
    run = course(FixedWindow(steady, window_s), LATENCIES["200 ms"], rows=round(5 * window_s * CAPACITY))
    assert run.goodput(steady) >= 0.80
    assert run.refused_share() <= 0.10


@pytest.mark.parametrize("latency", ["20 ms", "50 ms", "200 ms", "long tail"])
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_service_that_falls_to_a_fifth_and_comes_back_is_followed(latency: str, service: str, seed: int) -> None:
    """At least 75 % of what it can do over the whole time, and at most 20 % of the requests refused."""
    run = course(SERVICES[service](falling), LATENCIES[latency], seconds=40, seed=seed)
    assert run.goodput(falling) >= 0.75
    assert run.refused_share() <= 0.20


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("seed", SEEDS)
def test_an_outage_is_probed_and_not_stormed(latency: str, service: str, seed: int) -> None:
    """During ten seconds of it at most a tenth of the healthy rate is sent; within five seconds all is well again."""
    run = course(SERVICES[service](outage), LATENCIES[latency], seconds=40, seed=seed)
    assert between(run.sent, 10, 20) <= 0.10 * CAPACITY * 10
    assert between(run.answered, 25, 35) >= 0.85 * CAPACITY * 10


@pytest.mark.parametrize("latency", ["20 ms", "200 ms"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_service_that_falls_silent_is_probed_around(latency: str, seed: int) -> None:
    """What it took on is never answered, nor refused: it does not keep its place in the window for ever."""
    run = course(Bucket(steady, 15), LATENCIES[latency], seconds=40, silent=(10, 20), seed=seed)
    assert between(run.sent, 10, 20) <= 0.10 * CAPACITY * 10
    assert between(run.answered, 25, 35) >= 0.85 * CAPACITY * 10


def only_first(fast: int) -> Latency:
    """So many answers come at once (from a cache, say), all others take half a second."""
    count = itertools.count()
    return lambda _: 0.005 if next(count) < fast else 0.5


def stepping(times: float) -> Latency:
    """Longer rows begin after six hundred."""
    count = itertools.count()
    return lambda _: 0.3 if next(count) < 600 else 0.3 * times


@pytest.mark.parametrize(
    ("latency", "ideal_s"),
    [
        pytest.param(lambda: only_first(1), 5.9, id="first fast"),
        pytest.param(lambda: only_first(40), 5.8, id="first forty fast"),
        pytest.param(lambda: stepping(5), 14.8, id="five times longer"),
        pytest.param(lambda: stepping(10), 28.8, id="ten times longer"),
        pytest.param(lambda: lambda chance: 0.02 if chance.random() < 0.8 else 2.5, 6.3, id="two kinds"),
        pytest.param(lambda: lambda chance: chance.lognormvariate(-0.5, 1.0), 11.4, id="log-normal"),
        pytest.param(lambda: lambda chance: chance.expovariate(0.1), 118, id="exponential"),
        pytest.param(lambda: lambda chance: chance.uniform(1, 100), 595, id="1 to 100 s"),
    ],
)
def test_latency_that_has_other_reasons_than_us_holds_nothing_back(
    latency: Callable[[], Latency], ideal_s: float
) -> None:
    """No bound but the ceiling of 256: at most twice the time that all of it in use would take."""
    run = course(Bucket(lambda _: 1e9, 1e9), latency(), rows=3000)
    assert run.answered[-1] <= 2 * ideal_s


@pytest.mark.parametrize(("latency", "rows", "full_s"), [("50 ms", 10_000, 1.95), ("1 s", 5000, 19.5)])
@pytest.mark.parametrize(("share", "times"), [(0.005, 1.3), (0.02, 1.4), (0.05, 3.0)])
def test_refusals_that_come_at_any_rate_hold_nothing_back(
    latency: str, rows: int, full_s: float, share: float, times: float
) -> None:
    """No bound but the ceiling of 256: measured by the time that all of it in use would take."""
    for seed in SEEDS:
        service = Strays(Bucket(lambda _: 1e9, 1e9), by_chance(share, seed))
        run = course(service, LATENCIES[latency], rows=rows, seed=seed)
        assert run.answered[-1] <= times * full_s


@pytest.mark.parametrize("latency", ["50 ms", "200 ms", "1 s"])
@pytest.mark.parametrize("share", [0.005, 0.02, 0.05])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_limit_is_found_among_refusals_that_come_at_any_rate(latency: str, share: float, seed: int) -> None:
    """At least 75 % of what the service can do, and at most 5 % of the requests refused beyond the strays."""
    service = Strays(Bucket(lambda _: 200.0, 20), by_chance(share, seed))
    run = course(service, LATENCIES[latency], rows=6000, seed=seed)
    assert run.goodput(lambda _: 200.0) >= 0.75
    assert len(run.refused) - service.count <= 0.05 * len(run.sent)


@pytest.mark.parametrize("share", [0.005, 0.02, 0.05])
def test_refusals_that_come_at_any_rate_are_no_limit_that_is_gone(share: float) -> None:
    """The service can do far more from the tenth second on: half a minute later that is used."""
    service = Strays(Bucket(lambda now: CAPACITY if now < 10 else 1e9, 15), by_chance(share, seed=1))
    run = course(service, LATENCIES["1 s"], rows=20_000, seconds=60)
    assert between(run.answered, 40, 60) >= 0.80 * 256 * 20


def test_the_first_requests_that_are_refused_are_no_limit() -> None:
    """Nothing is known then, and five refusals tell little."""
    first_five = itertools.chain([True] * 5, itertools.repeat(False))
    run = course(Strays(Bucket(lambda _: 1e9, 1e9), first_five), LATENCIES["50 ms"], rows=10_000)
    assert run.answered[-1] <= 1.3 * 1.95


def test_the_ceiling_is_never_passed() -> None:
    """However well it goes, no more than the ceiling is in flight."""
    run = course(Bucket(lambda _: 1e6, 1e6), LATENCIES["50 ms"], seconds=3, ceiling=5)
    assert len(run.answered) > 0  # the assertion is in `course`


def test_an_idle_window_does_not_grow() -> None:
    """What was not used proves nothing about what the service would sustain."""
    pace, now = ConcurrencyWindow(256), 0.0
    for _ in range(200):
        assert pace.wait_s(now, 0) == 0
        pace.sent(now)
        pace.answered(now + 0.1, 0.1)
        now += 1.0
    assert pace.window <= START


def test_one_round_trip_cuts_the_window_once() -> None:
    """Forty requests that were in flight together and ran out of time are one piece of news."""
    pace = ConcurrencyWindow(256)
    for at in range(100):
        pace.wait_s(at / 10, 200)
        pace.answered(at / 10, 0.2)
    before = pace.window
    for _ in range(3):
        pace.timed_out(10.0, 9.9)
    assert before * 0.6 <= pace.window < before


def test_slow_answers_that_come_right_after_a_cut_cut_no_further() -> None:
    """They were sent before it, and tell nothing of what it has changed."""
    pace = ConcurrencyWindow(256)
    for at in range(100):
        pace.wait_s(at / 10, 200)
        pace.answered(at / 10, 0.2)
    pace.timed_out(10.0, 9.9)
    after = pace.window
    for _ in range(100):
        pace.answered(10.001, 3.0)
    assert pace.window == after


def test_latency_that_grows_several_fold_stops_growth_and_then_cuts() -> None:
    """A service that queues instead of refusing is heard too."""
    pace, now = ConcurrencyWindow(256), 0.0
    for _ in range(100):
        pace.wait_s(now, 200)
        pace.answered(now, 0.2)
        now += 0.05
    settled = pace.window
    for _ in range(100):
        pace.wait_s(now, 200)
        pace.answered(now, 3.0)
        now += 0.05
    assert pace.window < settled


def test_probes_come_at_growing_intervals_up_to_a_bound() -> None:
    """Waiting doubles while nothing answers, and an outage's end is noticed within that bound."""
    pace, now = ConcurrencyWindow(64), 0.0
    pace.answered(now, 0.1)
    waits = []
    for _ in range(OUTAGE_FAILURES + 8):
        now += 0.2
        pace.refused(now, now - 0.01)
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


@settings(max_examples=50, deadline=None)
@given(st.floats(0.0, 0.02), st.integers(1, 2000))
def test_requests_leave_at_the_pace_however_seldom_it_is_asked(look_s: float, looks: int) -> None:
    """Some leave together, a few milliseconds ahead of their time at most, and none is ever made up for later."""
    pace, now, sent = ConcurrencyWindow(64), 0.0, 0
    for _ in range(looks):
        while pace.wait_s(now, 0) <= 0:
            pace.sent(now)
            sent += 1
        now += look_s
    assert sent <= (now + AHEAD_S) / START_SPACING_S + 1


@pytest.mark.parametrize("share", [0.92, 0.94, 0.97])
def test_a_limit_just_below_the_ceiling_is_found(share: float) -> None:
    """The ceiling then keeps the rate near it, so that the refusals are few: they are no strays all the same."""
    capacity = share * 256
    run = course(Bucket(lambda _: capacity, 24), LATENCIES["1 s"], seconds=60)
    assert len(run.refused) <= 0.06 * len(run.sent)
    assert run.goodput(lambda _: capacity) >= 0.75
