"""The law of the gate: what leaves in any window, and in which order. All on virtual time."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.limiting.limits import Limits
from tests import virtual_time

EPSILON = 1e-6
Arrival = tuple[float, float, float]  # seconds after the one before, size in bursts, seconds for which nobody asks then
Departure = tuple[float, float]  # when it left, in seconds, and what it was charged, in tokens


def burst(per_minute: float) -> float:
    """What may leave at once: a twentieth of a second's worth, but at least one."""
    return max(1.0, per_minute / 60 * 0.05)


def excess(departures: Sequence[Departure], per_minute: float) -> float:
    """By how much the busiest window passes `rate * T`."""
    windows = itertools.combinations_with_replacement(range(len(departures)), 2)
    return max(
        sum(amount for _, amount in departures[first : last + 1])
        - per_minute / 60 * (departures[last][0] - departures[first][0])
        for first, last in windows
    )


def clock() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


class Line:
    """Callers in a line before one gate, as the loop has its calls: nobody is asked for before the first has passed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._first = asyncio.Lock()
        self.paused_until = 0.0

    async def acquire(self, estimated_tokens: int) -> float:
        async with self._first:
            while (charge := self._ask(estimated_tokens)) is None:  # noqa: ASYNC110 - there is none
                await asyncio.sleep(max(self.paused_until - clock(), self._limits.wait_s))
            return charge

    def _ask(self, estimated_tokens: int) -> float | None:
        return self._limits.take(estimated_tokens) if clock() >= self.paused_until else None


async def depart(limits: Limits, arrivals: Sequence[Arrival], unit: float) -> list[Departure]:
    """Send requests as they arrive, all waiting at once, and say when each left."""
    departures: list[Departure] = []

    async def one(amount: int) -> None:
        charge = await line.acquire(amount)
        departures.append((clock(), charge))

    line = Line(limits)
    async with asyncio.TaskGroup() as group:
        for gap, bursts, pause in arrivals:
            await asyncio.sleep(gap)
            group.create_task(one(int(bursts * unit)))
            if pause:
                line.paused_until = max(line.paused_until, clock() + pause)
    return departures


async def one_after_another(
    limits: Limits, sizes: Sequence[tuple[int, int]], latency_s: float = 0.0
) -> list[Departure]:
    """Send (estimated, real) requests, each settled before the next is sent; says when, and how much it was really."""
    departures: list[Departure] = []
    line = Line(limits)
    for estimated, actual in sizes:
        charge = await line.acquire(estimated)
        departures.append((clock(), actual))
        await asyncio.sleep(latency_s)
        limits.settle(charge, estimated, actual)
    return departures


def per_minute_of(departures: Sequence[Departure]) -> float:
    """Tokens a minute; what leaves last is not yet paid, so it does not count."""
    seconds = departures[-1][0] - departures[0][0]
    return 60 * sum(amount for _, amount in departures[:-1]) / seconds


gaps = st.sampled_from((0.0, 0.0, 0.0, 0.003, 0.4, 3.0))
pauses = st.sampled_from((0.0, 0.0, 0.0, 0.0, 0.01, 0.7, 5.0))
rates = st.sampled_from((0.5, 7, 60, 90, 600, 1300, 50_000, 3_000_000))


@settings(max_examples=60, deadline=None)
@given(rate=rates, arrivals=st.lists(st.tuples(gaps, st.just(0.0), pauses), min_size=1, max_size=20))
def test_no_window_holds_more_requests_than_rate_times_its_length_and_a_burst(
    rate: float, arrivals: list[Arrival]
) -> None:
    """Whatever arrives whenever, and however the service pauses us, requests keep to the law in every window."""
    left = virtual_time.run(depart(Limits(requests_per_minute=rate), arrivals, 0))
    assert excess([(at, 1) for at, _ in left], rate) <= burst(rate) + EPSILON
    assert len(left) == len(arrivals)


@settings(max_examples=60, deadline=None)
@given(
    rate=rates,
    arrivals=st.lists(st.tuples(gaps, st.floats(0, 1), pauses), min_size=1, max_size=15),
    per_minute=st.sampled_from((None, 60, 3000)),
)
def test_no_window_holds_more_tokens_than_rate_times_its_length_and_a_burst(
    rate: float, arrivals: list[Arrival], per_minute: float | None
) -> None:
    """Tokens keep to the same law, alone or beside a limit on requests."""
    limits = Limits(tokens_per_minute=rate, requests_per_minute=per_minute)
    left = virtual_time.run(depart(limits, arrivals, burst(rate)))
    assert excess(left, rate) <= burst(rate) + EPSILON
    if per_minute is not None:
        assert excess([(at, 1) for at, _ in left], per_minute) <= burst(per_minute) + EPSILON


@settings(max_examples=60, deadline=None)
@given(rate=rates, arrivals=st.lists(st.tuples(gaps, st.floats(0, 6), pauses), min_size=1, max_size=10))
def test_a_window_with_prompts_above_the_burst_holds_one_of_them_more(rate: float, arrivals: list[Arrival]) -> None:
    """A prompt that is larger than the burst leaves whole, and pays before it leaves, not after."""
    left = virtual_time.run(depart(Limits(tokens_per_minute=rate), arrivals, burst(rate)))
    assert excess(left, rate) <= burst(rate) + max(charge for _, charge in left) + EPSILON


def test_who_comes_first_leaves_first_whatever_its_size() -> None:
    """Small requests do not overtake a large one, even where they all wait at once."""
    sizes = [3, 90, 1, 40, 2, 2, 75, 1]

    async def order() -> list[float]:
        limits = Limits(tokens_per_minute=600, requests_per_minute=600)
        left = await depart(limits, [(0.0, size, 0.0) for size in sizes], 1)
        return [charge for _, charge in left]

    assert virtual_time.run(order()) == sizes


@pytest.mark.parametrize("tokens_per_minute", [60, 6_000, 200_000, 2_000_000])
def test_a_prompt_of_many_bursts_passes_in_its_size_over_the_rate(tokens_per_minute: int) -> None:
    """It is neither refused nor starved by the small ones that keep arriving behind it."""
    amount = int(80 * burst(tokens_per_minute))

    async def leave() -> list[Departure]:
        small = [(0.001, 1.0, 0.0)] * 20
        return await depart(Limits(tokens_per_minute=tokens_per_minute), [(0.0, amount, 0.0), *small], 1)

    left_at, charge = virtual_time.run(leave())[0]
    assert charge == amount
    assert left_at == pytest.approx(amount / (tokens_per_minute / 60), rel=0.03)


@pytest.mark.parametrize("requests_per_minute", [6, 60, 600, 1_200, 6_000, 60_000])
def test_a_steady_flow_reaches_its_limit(requests_per_minute: int) -> None:
    """Keeping below the limit costs at most three percent of it."""
    rows = 200 if requests_per_minute > 6_000 else 40

    async def leave() -> float:
        left = await depart(Limits(requests_per_minute=requests_per_minute), [(0.0, 0.0, 0.0)] * rows, 0)
        return left[-1][0]

    allowed_at_once = burst(requests_per_minute)
    assert virtual_time.run(leave()) <= 1.03 * (rows - allowed_at_once) / (requests_per_minute / 60)


@pytest.mark.parametrize(("estimated", "actual"), [(10, 30), (1, 50), (0, 20)])
def test_real_use_above_the_estimate_is_paid_by_the_next_rows(estimated: int, actual: int) -> None:
    """However low the estimates are, real tokens keep to the limit; only the newest row may not be paid yet."""
    left = virtual_time.run(one_after_another(Limits(tokens_per_minute=60), [(estimated, actual)] * 15))
    assert excess(left, 60) <= actual + burst(60) + actual * 0.1 + EPSILON
    assert per_minute_of(left) == pytest.approx(60, rel=0.1)


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([(100, 10)] * 150, id="ten times too high"),
        pytest.param([(100, 1)] * 200, id="a hundred times too high"),
        pytest.param([(20, 30), (20, 10)] * 25, id="noise around a good estimate"),
        pytest.param([(2, 20), (200, 200)] * 60, id="small rows far too low, large ones right"),
    ],
)
def test_estimates_are_learned_so_that_throughput_approaches_the_limit(sizes: list[tuple[int, int]]) -> None:
    """Once estimates have been learned, real tokens per minute are near the limit and not above it."""
    left = virtual_time.run(one_after_another(Limits(tokens_per_minute=6_000), sizes))
    learned = left[len(left) // 2 :]
    assert 0.9 * 6_000 <= per_minute_of(learned) <= 1.05 * 6_000


def test_credit_for_an_overestimate_is_bounded() -> None:
    """A refund of thousands does not let a crowd out at once: after the next row, one burst of it is left."""

    async def leave() -> list[Departure]:
        limits = Limits(tokens_per_minute=600)
        limits.settle(100_000.0, 0, 0)
        return await depart(limits, [(0.0, 50.0, 0.0)] * 4, 1)

    first, second, third, fourth = (at for at, _ in virtual_time.run(leave()))
    assert first == 0.0
    assert second >= (50 - 2 * burst(600)) / 10 - EPSILON
    assert third - second >= 4.9
    assert fourth - third >= 4.9


def test_a_charge_is_the_estimate_until_real_use_says_otherwise() -> None:
    """The first row is charged what the caller says, later ones in the light of what the service said."""

    async def charges() -> tuple[float, float]:
        limits = Limits(tokens_per_minute=1_000_000)
        first = limits.take(100)
        assert first is not None
        limits.settle(first, 100, 200)
        second = limits.take(100)
        assert second is not None
        return first, second

    first, second = virtual_time.run(charges())
    assert first == 100
    assert second == pytest.approx(110)


def test_a_row_without_tokens_teaches_nothing() -> None:
    """Estimates and real counts of 0 neither divide by zero nor change what others are charged."""

    async def charge() -> float | None:
        limits = Limits(tokens_per_minute=1_000_000)
        limits.settle(0.0, 0, 0)
        return limits.take(100)

    assert virtual_time.run(charge()) == 100


def test_without_limits_nobody_waits_at_all() -> None:
    """Any request passes at once, and is charged nothing."""

    async def main() -> float | None:
        return Limits().take(10**9)

    assert virtual_time.run(main()) == 0.0


@pytest.mark.parametrize("limits", [{"requests_per_minute": 60}, {"tokens_per_minute": 60}])
def test_who_fits_does_not_wait(limits: dict[str, Any]) -> None:
    """The first request finds an empty bucket and passes in no time."""

    async def main() -> float | None:
        return Limits(**limits).take(1)

    assert virtual_time.run(main()) is not None


def test_a_caller_that_is_cancelled_leaves_the_line_and_its_payment_to_the_next() -> None:
    """Nobody waits behind the dead, and what a large prompt had paid already is not paid again."""

    async def main() -> float:
        line = Line(Limits(tokens_per_minute=600))
        large = asyncio.create_task(line.acquire(1_000))
        following = asyncio.create_task(line.acquire(1_000))
        await asyncio.sleep(50)
        large.cancel()
        await following
        return clock()

    assert virtual_time.run(main()) == pytest.approx(100, rel=0.03)
