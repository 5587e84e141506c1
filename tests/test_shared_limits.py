"""One rate and one budget over several runs of a process: what all of them together send and spend."""

import asyncio
import copy
import pickle
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch.control.budget import Budget
from cometbatch.limiting.limits import Limits
from cometbatch.limiting.shared import SharedBudget, SharedRate
from cometbatch.simulator.app import create_app
from cometbatch.simulator.behaviour import Behaviour
from tests import virtual_time
from tests.test_limits import EPSILON, Departure, Line, burst, clock, excess
from tests.workbench import Network, Workbench

PRICE = Decimal("0.01")  # US dollars for a request
Sizes = list[list[int]]  # of each run its requests, in tokens


def run_lines(limits: Sequence[Limits], sizes: Sizes) -> list[list[Departure]]:
    """Each run sends its requests one after the other, all runs at once; when each left, and with how many tokens."""

    async def one(limit: Limits, tokens: Sequence[int]) -> list[Departure]:
        line = Line(limit)
        departures = list[Departure]()
        for amount in tokens:
            charge = await line.acquire(amount)
            departures.append((clock(), charge))
            limit.settle(charge, amount, amount)
        return departures

    async def all_of_them() -> list[list[Departure]]:
        lines = zip(limits, sizes, strict=True)
        return list(await asyncio.gather(*(one(limit, tokens) for limit, tokens in lines)))

    return virtual_time.run(all_of_them())


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=3),
    requests=st.sampled_from([None, 30.0, 600.0, 60_000.0]),
    tokens=st.sampled_from([600.0, 60_000.0]),
    own=st.sampled_from([None, 120.0]),
)
def test_all_runs_together_keep_to_the_rate(
    sizes: Sizes, requests: float | None, tokens: float, own: float | None
) -> None:
    """In any window no more than rate x time and a burst leaves, of tokens one large request more; own limits hold."""
    shared = SharedRate(requests, tokens, lambda: asyncio.get_running_loop().time())
    limits = [Limits(requests_per_minute=own, shared=shared) for _ in sizes]
    each = run_lines(limits, sizes)
    together = sorted(departure for line in each for departure in line)
    largest = max(max(line) for line in sizes)
    assert excess(together, tokens) <= burst(tokens) + (largest if largest > burst(tokens) else 0) + EPSILON
    counted = [[(when, 1.0) for when, _ in line] for line in (together, *each)]
    if requests is not None:
        assert excess(counted[0], requests) <= burst(requests) + EPSILON
    if own is not None:
        assert all(excess(line, own) <= burst(own) + EPSILON for line in counted[1:])


@settings(deadline=None, max_examples=8)
@given(runs=st.integers(2, 5), requests=st.sampled_from([240.0, 1200.0, 6000.0]))
def test_no_run_waits_for_another_to_end(runs: int, requests: float) -> None:
    """Runs that wait pass in turns: at any time each has sent as many requests as any other, but for one or a burst."""
    shared = SharedRate(requests, None, lambda: asyncio.get_running_loop().time())
    each = run_lines([Limits(shared=shared) for _ in range(runs)], [[1] * 8] * runs)
    order = [run for _, run in sorted((when, run) for run, line in enumerate(each) for when, _ in line)]
    sent = Counter[int]()
    for run in order[: 4 * runs]:
        sent[run] += 1
        assert max(sent.values()) - min(sent[other] for other in range(runs)) <= 1 + burst(requests)


def test_the_rate_is_used_by_whoever_is_there(bench: Workbench) -> None:
    """A run that has ended, or waits for something else, leaves its share to the others."""
    shared = SharedRate(600.0, None, lambda: asyncio.get_running_loop().time())
    short, long = run_lines([Limits(shared=shared), Limits(shared=shared)], [[1] * 5, [1] * 95])
    assert short[-1][0] < 2.0
    assert long[-1][0] <= 99 / 10 + 0.5  # 100 requests at 10 in a second


def test_threads_never_pass_the_rate_together() -> None:
    """The decision is one step, whichever threads ask at once."""
    now = [0.0]
    shared = SharedRate(60_000.0, None, lambda: now[0])  # 50 at once, and 1,000 in a second

    def asking(who: int) -> int:
        return sum(shared.enter(who, 0.0) == 0.0 for _ in range(200))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(asking, range(8))) == 50
        now[0] = 0.02
        assert sum(threads.map(asking, range(8))) <= 20


@settings(deadline=None)
@given(
    cap=st.integers(0, 60),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 9)), max_size=60),
)
def test_what_is_spent_and_set_aside_never_passes_the_cap(cap: int, steps: list[tuple[int, int, int]]) -> None:
    """Whatever several runs set aside, settle and give up; and each amount is booked once."""
    shared = SharedBudget(Decimal(cap))
    budgets = [Budget(None, Decimal(0), shared=shared) for _ in range(4)]
    waiting, spent = [list[int]() for _ in budgets], 0
    for run, amount, actual in steps:
        if waiting[run] and actual <= waiting[run][0]:
            budgets[run].settle(Decimal(waiting[run].pop(0)), Decimal(actual))
            spent += actual
        elif budgets[run].reserve(Decimal(amount)):
            waiting[run].append(amount)
        assert shared.left == cap - spent - sum(map(sum, waiting)) >= 0
    for run, budget in enumerate(budgets):
        for amount in waiting[run][:1]:  # one is given up, the others were never sent
            budget.give_up(Decimal(amount))
        shared.end(str(run), 1, budget.close())
    given_up = sum(amounts[0] for amounts in waiting if amounts)
    assert shared.left == cap - spent - given_up
    for run, amounts in enumerate(waiting):  # the next sessions find what was given up, and 1 that another process left
        shared.begin(str(run), 2, Decimal(sum(amounts[:1]) + 1))
    assert shared.left == cap - spent - given_up - len(budgets)


def test_own_caps_hold_beside_the_shared_one() -> None:
    """What the one refuses, the other does not book."""
    shared = SharedBudget(Decimal(5))
    budget = Budget(Decimal(2), Decimal(0), shared=shared)
    assert budget.reserve(Decimal(2))
    assert not budget.reserve(Decimal(1))
    assert not budget.is_shared_short(Decimal(1))
    assert (budget.left, shared.left) == (Decimal(0), Decimal(3))
    other = Budget(None, Decimal(0), shared=shared)
    assert not other.reserve(Decimal(4))
    assert other.is_shared_short(Decimal(4))
    assert "shared by several runs" in other.describe(Decimal(4))
    assert shared.left == 3


def test_an_error_of_a_run_holds_up_no_other_and_gives_nothing_back() -> None:
    """Requests of which nobody knows what came of them are not waited for, and stay booked at their most."""
    shared = SharedBudget(Decimal(5))
    budget = Budget(None, Decimal(0), shared=shared)
    assert budget.reserve(Decimal(2))
    budget.count_in_flight(1)
    assert (budget.close(), shared.left, shared.is_any_in_flight) == (Decimal(2), Decimal(3), False)


# -- whole runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def benches(tmp_path: Path) -> list[Workbench]:
    """Three tables of twenty rows."""
    found = [Workbench(tmp_path / name) for name in ("a", "b", "c")]
    for bench in found:
        bench.folder.mkdir()
        bench.write_rows(20)
    return found


def at_once() -> Network:
    """A service that answers at once."""
    return Network(create_app(Behaviour(latency_s=(0.0, 0.0))))


def job_of(bench: Workbench, **sections: Any) -> cometbatch.Job:
    """A job that pays for each request."""
    return bench.job(prices={"per_request": float(PRICE)}, **sections)


def outcomes_of(
    benches: Sequence[Workbench], network: httpx.AsyncBaseTransport, limits: cometbatch.Limits, **sections: Any
) -> list[cometbatch.RunSummary | BaseException]:
    """Run all of them on one loop, on virtual time."""

    async def main() -> list[cometbatch.RunSummary | BaseException]:
        runs = [
            cometbatch.run_async(job_of(bench, **sections), limits=limits, progress=False, http=network)
            for bench in benches
        ]
        return list(await asyncio.gather(*runs, return_exceptions=True))

    return virtual_time.run(main())


def test_several_runs_spend_one_budget_and_no_more(benches: list[Workbench]) -> None:
    """The service bills exactly the cap; the runs end with the budget's error, and go on with further limits."""
    network, limits = at_once(), cometbatch.Limits(max_cost_usd="0.30")
    ended = outcomes_of(benches, network, limits)
    assert network.posts == 30
    assert limits.left_usd == 0
    stopped = [each for each in ended if isinstance(each, cometbatch.BudgetReachedError)]
    assert stopped
    assert all("Raise max_cost_usd of the shared limits" in str(each) for each in stopped)
    again = outcomes_of(benches, network, cometbatch.Limits(max_cost_usd=5))
    assert all(isinstance(each, cometbatch.RunSummary) and each.all_succeeded for each in again)
    assert network.posts == 60


def test_a_jobs_own_budget_holds_as_well(benches: list[Workbench]) -> None:
    """A run that reaches its own cap leaves the rest of the shared one to the others."""
    network, limits = at_once(), cometbatch.Limits(max_cost_usd=1)
    ended = outcomes_of(benches, network, limits, budget={"max_cost_usd": 0.05})
    assert all(isinstance(each, cometbatch.BudgetReachedError) for each in ended)
    assert (network.posts, limits.left_usd) == (15, Decimal("0.85"))


def test_what_one_run_gives_back_goes_to_one_that_waits(benches: list[Workbench]) -> None:
    """A run whose room is set aside by another's requests waits for what these really cost, and is not stopped."""
    network, limits = at_once(), cometbatch.Limits(max_cost_usd="0.0050")
    prices = {"input": 1.0, "output": 10.0}  # 64 tokens of output at most: much more than an answer has

    async def main() -> list[cometbatch.RunSummary | BaseException]:
        runs = [
            cometbatch.run_async(bench.job(prices=prices), limits=limits, progress=False, http=network)
            for bench in benches[:2]
        ]
        return list(await asyncio.gather(*runs, return_exceptions=True))

    summaries = virtual_time.run(main())
    spent = Decimal(0)
    for each in summaries:
        summary = each.summary if isinstance(each, cometbatch.BudgetReachedError) else each
        assert isinstance(summary, cometbatch.RunSummary)
        spent += summary.cost_usd or 0
    assert limits.left_usd == Decimal("0.0050") - spent >= 0


def test_charges_that_a_run_finds_are_in_the_shared_budget_once(benches: list[Workbench]) -> None:
    """Those that a run gave up in this process are booked already; those of another process are booked when found."""
    bench, network, limits = benches[0], at_once(), cometbatch.Limits(max_cost_usd=1)

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(3600)
            return await network.handle_async_request(request)

    async def cut(own: cometbatch.Limits | None) -> None:
        job = job_of(bench, limits={"concurrency": 4, "adaptive": False, "stop_within_s": 1})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await cometbatch.run_async(job, limits=own, progress=False, http=Silent())

    virtual_time.run(cut(limits))
    assert limits.left_usd == Decimal("0.96")
    virtual_time.run(cut(limits))
    assert limits.left_usd == Decimal("0.92")
    virtual_time.run(cut(None))  # as if by another process, for all that these limits know
    assert limits.left_usd == Decimal("0.92")
    (summary,) = outcomes_of([bench], network, limits)
    assert isinstance(summary, cometbatch.RunSummary)
    assert (summary.succeeded, summary.possible_charges.charges) == (20, 12)
    assert limits.left_usd == 1 - 20 * PRICE - 12 * PRICE


def test_runs_in_threads_share_one_rate_and_one_budget(benches: list[Workbench]) -> None:
    """Each with an event loop of its own, in real time."""
    network_of = {bench.folder: at_once() for bench in benches}
    limits = cometbatch.Limits(requests_per_minute=6000, tokens_per_minute=10_000_000, max_cost_usd=Decimal("0.45"))
    times, lock = list[float](), threading.Lock()

    def work(bench: Workbench) -> bool:
        def noted(request: httpx.Request) -> None:
            if request.method == "POST":
                with lock:
                    times.append(asyncio.get_running_loop().time())

        network_of[bench.folder]._answer = noted
        try:
            cometbatch.run(job_of(bench), limits=limits, progress=False, http=network_of[bench.folder])
        except cometbatch.BudgetReachedError:
            return False
        return True

    with ThreadPoolExecutor(3) as threads:
        ended = list(threads.map(work, benches))
    assert not all(ended)
    assert sum(network.posts for network in network_of.values()) == 45
    assert limits.left_usd == 0
    late_s = 0.1  # by which a busy machine may send what was let pass before
    assert excess([(when, 1.0) for when in sorted(times)], 6000) <= burst(6000) + 100 * late_s


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(concurrency=st.integers(1, 30), cap=st.integers(1, 50))
def test_no_run_hangs_at_a_shared_cap(tmp_path_factory: pytest.TempPathFactory, concurrency: int, cap: int) -> None:
    """Whatever the runs have set aside for calls that wait: each ends, and exactly what the cap allows is sent."""
    benches = [Workbench(tmp_path_factory.mktemp("shared")) for _ in range(2)]
    for bench in benches:
        bench.write_rows(20)
    network = Network(create_app(Behaviour(latency_s=(0.1, 0.4), faults=(cometbatch.parse_fault("429:0.2"),))))
    limits = cometbatch.Limits(max_cost_usd=cap * PRICE)
    sections = {"limits": {"concurrency": concurrency}, "retry": {"max_attempts": 50, "max_wait_s": 1.0}}

    async def main() -> None:
        runs = [
            cometbatch.run_async(job_of(bench, **sections), limits=limits, progress=False, http=network)
            for bench in benches
        ]
        async with asyncio.timeout(3600):
            await asyncio.gather(*runs, return_exceptions=True)

    virtual_time.run(main())
    done = sum(cometbatch.status(bench.output).summary.succeeded for bench in benches)
    assert done == min(40, cap)
    assert limits.left_usd == (cap - done) * PRICE


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests_per_minute": 0},
        {"requests_per_minute": float("nan")},
        {"tokens_per_minute": -1},
        {"tokens_per_minute": True},
        {"requests_per_minute": "60"},
        {"max_cost_usd": "five"},
        {"max_cost_usd": float("inf")},
        {"max_cost_usd": -1},
        {"max_cost_usd": True},
    ],
)
def test_what_is_no_limit_is_refused(wrong: dict[str, Any]) -> None:
    """By its name."""
    with pytest.raises(cometbatch.UsageError, match=next(iter(wrong))):
        cometbatch.Limits(**wrong)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_limits_are_never_copied(copied: Callable[[object], object]) -> None:
    """A copy, in this process or in another one, would be a second budget."""
    with pytest.raises(TypeError, match="within one process"):
        copied(cometbatch.Limits(max_cost_usd=1))


def test_limits_without_a_number_limit_nothing(benches: list[Workbench]) -> None:
    """A run with them is a run without them."""
    limits = cometbatch.Limits()
    (summary,) = outcomes_of(benches[:1], at_once(), limits)
    assert isinstance(summary, cometbatch.RunSummary)
    assert (summary.succeeded, limits.left_usd) == (20, None)


def test_a_shared_cap_needs_a_price_like_a_jobs_own(benches: list[Workbench]) -> None:
    """A cap that can't be held is refused before anything is sent."""
    network = at_once()
    job = benches[0].job(prices="none")
    with pytest.raises(cometbatch.UsageError, match="budget: there is no price"):
        virtual_time.run(
            cometbatch.run_async(job, limits=cometbatch.Limits(max_cost_usd=1), progress=False, http=network)
        )
    assert network.posts == 0
