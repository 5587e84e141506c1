"""Whose refusals they are, and how a pause of everyone is probed: laws, told the time."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.control.attribution import UNDER_WAY, RefusalsInARow
from cometbatch.control.pause import MAX_PROBE_S, SharedPause
from cometbatch.records import Failed
from cometbatch.runner.ports import Reply
from tests.scripted_run import RowsInMemory, ScriptedService, answer, make_runner, refused
from tests.virtual_time import run

FAST = settings(max_examples=100, deadline=None)
SECONDS = st.floats(0.01, 10_000)


def probes(pause: SharedPause, start: float, count: int) -> list[float]:
    """When the next probes of a pause leave, each sent as soon as it may be."""
    times, now = list[float](), start
    while len(times) < count and pause.is_on(now := now + pause.wait_s(now)):
        times.append(now)
        pause.sent(now)
    return times


@FAST
@given(first_s=SECONDS, wait_s=st.floats(1, 1e7), deadline_s=st.floats(-10, 10_000))
def test_a_pause_is_probed_at_double_the_wait_and_at_least_each_minute(
    first_s: float, wait_s: float, deadline_s: float
) -> None:
    """Never sooner, but for one probe at the deadline; and the pause ends when the service said."""
    pause = SharedPause(first_s)
    pause.extend(0.0, wait_s, deadline_s)
    times = probes(pause, 0.0, 30)
    waits = [later - earlier for earlier, later in itertools.pairwise([0.0, *times])]
    assert all(wait <= MAX_PROBE_S + 1e-6 for wait in waits)
    wanted = min(first_s, MAX_PROBE_S)
    for at, wait in zip(times, waits, strict=True):
        assert wait == pytest.approx(wanted) or at == pytest.approx(deadline_s)
        wanted = min(2 * wanted, MAX_PROBE_S)
    end = (times or [0.0])[-1]
    if len(times) < 30:
        assert end + pause.wait_s(end) == pytest.approx(wait_s)


@pytest.mark.parametrize(
    ("first_s", "wait_s", "deadline_s", "times"),
    [
        (10, 100, 9e9, [10, 30, 70]),
        (10, 100, 15, [10, 15, 55]),
        (10, 100, 10, [10, 30, 70]),
        (10, 100, -5, [10, 30, 70]),
        (10, 10, 9e9, []),
        (100, 200, 9e9, [60, 120, 180]),
    ],
)
def test_when_the_probes_of_a_pause_leave(first_s: float, wait_s: float, deadline_s: float, times: list[float]) -> None:
    """A deadline that has passed before the pause brings no probe, one within it brings one."""
    pause = SharedPause(first_s)
    pause.extend(0.0, wait_s, deadline_s)
    assert probes(pause, 0.0, 9) == times


@FAST
@given(waits=st.lists(st.floats(0.1, 1e6), min_size=1, max_size=9))
def test_the_last_word_on_a_pause_counts(waits: list[float]) -> None:
    """Whatever other routes have said before."""
    pause = SharedPause(30.0)
    for wait_s in waits:
        pause.extend(5.0, wait_s, 9e9)
    assert pause.until == 5.0 + waits[-1]


@FAST
@given(sent_at=st.floats(0, 100), began=st.floats(0, 100))
def test_an_answer_ends_the_pause_only_if_it_was_asked_for_since_the_pause_began(sent_at: float, began: float) -> None:
    """What was under way before tells nothing of how it is now."""
    pause = SharedPause(30.0)
    pause.extend(began, 1000.0, 9e9)
    pause.answered(sent_at)
    assert pause.is_on(101.0) == (sent_at < began)
    assert pause.wait_s(101.0) == 0 or sent_at < began


@FAST
@given(
    refusals=st.integers(0, 60),
    enough=st.integers(1, 20),
    took_s=st.floats(0.001, 5),
    min_s=st.floats(0, 3),
    under_way=st.integers(0, 30),
)
def test_refusals_are_everyones_where_they_are_many_last_and_leave_few_others_to_be_answered(
    refusals: int, enough: int, took_s: float, min_s: float, under_way: int
) -> None:
    """One refusal a second, each of which took as long as the last: what is sent later than that is no evidence."""
    in_a_row, asked = RefusalsInARow(enough, min_s), list[tuple[float, float]]()

    def in_flight(start: float, end: float) -> int:
        asked.append((start, end))
        return under_way

    for second in range(refusals):
        in_a_row.add(second - took_s, second)
    now = max(refusals - 1, 0)
    few_under_way = under_way <= max(1, UNDER_WAY * (refusals + under_way))
    lasted = now >= min_s
    assert in_a_row.are_everyones(now, in_flight) == (refusals >= enough and lasted and few_under_way)
    for start, end in asked:
        assert start == pytest.approx(-took_s)
        assert end == pytest.approx(now - took_s)


@FAST
@given(first=st.floats(0, 10), sent_at=st.floats(0, 20))
def test_an_answer_in_between_is_one_whose_request_was_sent_since_the_first_refusal(
    first: float, sent_at: float
) -> None:
    """It ends the row of refusals; an older one does not."""
    in_a_row = RefusalsInARow(3)
    for at in (0.0, 0.1, 0.2):
        in_a_row.add(first + at, first + at + 0.01)
    in_a_row.answered(sent_at)
    assert in_a_row.are_everyones(first + 1, lambda _start, _end: 0) == (sent_at < first)


@settings(max_examples=60, deadline=None)
@given(
    plans=st.lists(
        st.lists(st.tuples(st.sampled_from([429, 500, 503]), st.integers(1, 5000)), max_size=3), min_size=1, max_size=25
    ),
    concurrency=st.integers(1, 6),
    max_wait_s=st.sampled_from([0.5, 5.0, 30.0]),
    adaptive=st.booleans(),
)
def test_every_row_waits_as_long_as_it_was_asked_to_and_ends_once(
    plans: list[list[tuple[int, int]]], concurrency: int, max_wait_s: float, *, adaptive: bool
) -> None:
    """Sooner only as a probe of everyone's pause, which has been silent before it; a wait too long leaves its row."""
    rows = RowsInMemory(len(plans))

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        if attempt > len(plans[row]):
            return 0.3, answer()
        status, wait_s = plans[row][attempt - 1]
        return 0.05, refused(status, retry_after=str(wait_s))

    service = ScriptedService(script)
    runner = make_runner(
        rows,
        service,
        concurrency=concurrency,
        adaptive=adaptive,
        max_wait_s=max_wait_s,
        max_pushback_s=80_000.0,
    )
    stop = run(runner.run()).stop
    assert (stop is not None) == bool(rows.left)
    assert sorted([*rows.by_row, *rows.left]) == list(range(len(plans)))
    assert not [outcome for outcome in rows.recorded if isinstance(outcome, Failed) and outcome.attempts < 2]
    for row, plan in enumerate(plans):
        times = [at for at, each in service.sent if each == row]
        for (sent, again), (_, wait_s) in zip(itertools.pairwise(times), plan, strict=False):
            silent_s = again - max(at for at, _ in service.sent if at < again)
            assert again - sent >= wait_s or silent_s >= min(max_wait_s, MAX_PROBE_S) - 1e-6
