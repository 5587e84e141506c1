"""The loop: what it promises about slots, waits, attempts, stops and faults, on a clock that jumps."""

import asyncio
import itertools
import random
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeGuard

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.control.attribution import ACCOUNT_REFUSALS, ASKED_TO_WAIT
from cometbatch.control.budget import Budget
from cometbatch.control.pause import MAX_PROBE_S
from cometbatch.errors import CheckpointError, InputError
from cometbatch.limiting.limits import Limits
from cometbatch.records import (
    Answered,
    CallRequest,
    Failed,
    HttpRequest,
    HttpResponse,
    Outcome,
    Record,
    Tally,
    TransportFailure,
)
from cometbatch.runner.model_queue import LARGE_BYTES, MISDIRECTED_PER_SLOT
from cometbatch.runner.patience import TOLD_AFTER_S
from cometbatch.runner.ports import Reply, Stop
from cometbatch.runner.sending import BACKLOG_PER_SLOT
from cometbatch.runner.turns import COALESCE_S, COALESCED_FROM, Runner
from tests.scripted_run import (
    HALF,
    PRICE_USD,
    MarksInMemory,
    RowsInMemory,
    Script,
    ScriptedService,
    Watcher,
    always,
    answer,
    by_row,
    cut_short,
    in_turn,
    lost,
    make_runner,
    moved,
    page,
    refused,
    row_request,
    unsendable,
)
from tests.virtual_time import run

INTERRUPTED = Stop("interrupted", "Interrupted.")
TERMINATED = Stop("terminated", "Terminated.")
PAGE, MOVED, BUSY, BROKEN = page(), moved(), refused(429), refused(500, message="boom")
FAST = settings(max_examples=60, deadline=None)


UNREACHED = TransportFailure("connection", "can't connect: refused", sent=False)


def carry(rows: RowsInMemory, script: Script, **options: Any) -> tuple[Stop | None, ScriptedService]:
    """Run the rows to the end; why it stopped, and what the service saw."""
    service = ScriptedService(script)
    return run(make_runner(rows, service, **options).run()).stop, service


def failure_of(outcome: Outcome) -> str:
    """The kind of a failed row's failure."""
    assert isinstance(outcome, Failed)
    return outcome.failure.kind


# -- rows in, outcomes out -------------------------------------------------------------------------------------------

FAULTS: list[Reply] = [
    BROKEN,
    lost(),
    BUSY,
    refused(429, retry_after="7"),
    refused(503, retry_after="2.5"),
    HttpResponse(200, {}, b'{"choices": [{"mess'),
]
ENDS: list[tuple[Reply, str]] = [
    (answer(), "succeeded"),
    (cut_short(), "incomplete"),
    (answer(""), "incomplete"),
    (refused(400), "invalid_request"),
    (refused(413), "too_large"),
    (TransportFailure("too_large", "more than the bound"), "invalid_response"),
]
LATENCIES = st.floats(0, 40)
Attempts = list[tuple[float, Reply]]


@st.composite
def scripted_rows(draw: st.DrawFn) -> tuple[Attempts, str] | None:
    """What the service does with one row, and how that ends; `None` for a row that can't be sent."""
    if draw(st.integers(0, 9)) == 0:
        return None
    faults = draw(st.lists(st.sampled_from(FAULTS), max_size=4))
    end, meaning = draw(st.sampled_from(ENDS))
    return [(draw(LATENCIES), reply) for reply in [*faults, end]], meaning


def is_success(outcome: Outcome) -> TypeGuard[Answered]:
    """Whether it is a whole answer."""
    return isinstance(outcome, Answered) and outcome.status == "succeeded"


def word_for(outcome: Outcome) -> str:
    """How a row ended, in the words of `ENDS`."""
    match outcome:
        case Answered(status=status):
            return status
        case Failed(failure=failure):
            return failure.kind


@FAST
@given(table=st.lists(scripted_rows(), max_size=30), concurrency=st.integers(1, 6), jitter=st.floats(0, 0.99))
def test_every_row_has_one_outcome_whatever_the_service_does(
    table: list[tuple[Attempts, str] | None], concurrency: int, jitter: float
) -> None:
    """Rows in are outcomes out, each once, each what its own replies say, with in flight never above the slots."""
    requests = [unsendable(row) if plan is None else row_request(row) for row, plan in enumerate(table)]
    rows, marks, watcher = RowsInMemory(requests), MarksInMemory(), Watcher()

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        plan = table[row]
        assert plan is not None
        return plan[0][attempt - 1]

    stop, service = carry(
        rows, script, concurrency=concurrency, jitter=lambda: jitter, marks=marks, observer=watcher, max_attempts=9
    )

    assert stop is None
    assert {row: (word_for(each), each.attempts) for row, each in rows.by_row.items()} == {
        row: ("template", 0) if plan is None else (plan[1], len(plan[0])) for row, plan in enumerate(table)
    }
    assert service.peak <= concurrency
    assert all(in_flight <= concurrency for in_flight in watcher.in_flight)
    assert marks.rows == {}
    assert watcher.outcomes == rows.recorded
    assert watcher.retries == len(service.sent) - sum(plan is not None for plan in table)


def test_all_slots_are_used_while_there_are_rows() -> None:
    """A run of N equal rows on C slots takes N/C times as long as one row."""
    rows = RowsInMemory(48)
    _, service = carry(rows, always(answer(), latency=10), concurrency=16)
    assert service.peak == 16
    assert service.ended[-1][0] == 30


def test_an_answer_is_recorded_with_all_that_is_known_of_it() -> None:
    """An outcome holds the row's names, the reply's ids, how long it took, and what it costs."""
    rows = RowsInMemory(1)
    reply = answer("Four.")
    named = HttpResponse(reply.status, reply.headers | {"x-cometapi-request-id": "20260901"}, reply.body)
    carry(rows, always(named, latency=2.5004))
    (outcome,) = rows.recorded
    assert is_success(outcome)
    assert (outcome.ordinal, outcome.custom_id, outcome.request_hash) == (0, "id-0", "hash-0")
    assert (outcome.http_status, outcome.request_id, outcome.latency_s) == (200, "20260901", 2.5)
    assert (outcome.completion.text, outcome.cost_usd) == ("Four.", PRICE_USD)


def test_a_table_without_rows_ends_at_once() -> None:
    """No rows, nothing sent, no reason to stop."""
    rows = RowsInMemory(0)
    stop, service = carry(rows, always(answer()))
    assert (stop, service.sent, rows.recorded) == (None, [], [])


def test_a_row_that_cannot_be_rendered_is_recorded_and_never_sent() -> None:
    """A template failure costs no request and is an outcome like any other."""
    rows = RowsInMemory([unsendable(0), row_request(1), unsendable(2)])
    stop, service = carry(rows, always(answer()))
    assert stop is None
    assert service.rows == [1]
    assert {row: each.attempts for row, each in rows.by_row.items()} == {0: 0, 1: 1, 2: 0}


def test_a_bug_in_an_adapter_ends_the_run() -> None:
    """What is no `Reply` is a bug, and a bug is raised, not retried."""
    rows = RowsInMemory(8)

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        if row == 5:
            raise ZeroDivisionError
        return 1.0, answer()

    with pytest.raises(ZeroDivisionError):
        carry(rows, script, concurrency=2)


# -- waiting ---------------------------------------------------------------------------------------------------------


def test_a_waiting_row_holds_no_slot() -> None:
    """While one row waits for its next attempt, fresh rows use its slot."""
    rows = RowsInMemory(6)

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        return (0.25, BROKEN) if (row, attempt) == (0, 1) else (0.25, answer())

    _, service = carry(rows, script, concurrency=1, jitter=lambda: 0.7)
    assert service.rows == [0, 1, 2, 3, 0, 4, 5]


def test_a_due_retry_goes_before_fresh_rows() -> None:
    """A row that was begun is finished first, so that partitions close and memory stays small."""
    rows = RowsInMemory(9)

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        return (1.0, BROKEN) if (row, attempt) == (0, 1) else (1.0, answer())

    _, service = carry(rows, script, concurrency=1, jitter=lambda: 0.0)
    assert service.rows[:3] == [0, 0, 1]


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_the_backlog_is_bounded_while_everything_fails(concurrency: int) -> None:
    """A service that fails everything gets no more rows than backlog, slots and held failures take; it ends the run."""
    rows = RowsInMemory(500)
    admitted_unfinished = []

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        admitted_unfinished.append(rows.handed_out - len(rows.recorded))
        return 0.01, (answer() if row == 0 else BROKEN)  # once anything was answered, a refusal is its row's own

    stop, _ = carry(rows, script, concurrency=concurrency, jitter=lambda: 0.99, max_alike=20)
    assert stop is not None
    assert "20 rows failed with the same error since the last answer" in stop.message
    assert max(admitted_unfinished) <= (BACKLOG_PER_SLOT + 1) * concurrency + 20


@pytest.mark.parametrize("jitter", [0.0, 0.25, 0.999])
def test_backoff_doubles_within_full_jitter_up_to_its_cap(jitter: float) -> None:
    """Before the n-th retry a row waits its share of 1, 2, 4 ... seconds, never more than `max_wait_s`."""
    rows = RowsInMemory(1)
    _, service = carry(
        rows, always(BROKEN, latency=0.0), jitter=lambda: jitter, max_attempts=8, max_wait_s=20.0, concurrency=1
    )
    times = [at for at, _ in service.sent]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits == pytest.approx([jitter * ceiling for ceiling in (1, 2, 4, 8, 16, 20, 20)])


def test_a_row_fails_with_its_last_failure_after_its_attempts() -> None:
    """`max_attempts` exchanges are made, all are counted, and the last one's words are kept."""
    rows = RowsInMemory(1)
    replies: list[Reply] = [lost(), refused(502, message="bad gateway"), refused(500, message="the last words")]
    _, service = carry(rows, in_turn(*replies), max_attempts=3)
    (outcome,) = rows.recorded
    assert isinstance(outcome, Failed)
    assert (outcome.attempts, len(service.sent)) == (3, 3)
    assert (outcome.failure.kind, outcome.failure.message, outcome.latency_s) == ("server_error", "the last words", 1.0)


def test_real_token_use_is_paid_by_the_next_calls() -> None:
    """What an answer says that it used reaches the limits: 100 tokens a row at 600 a minute is a row in 10 s."""
    rows = RowsInMemory(8)
    limits = Limits(tokens_per_minute=600)
    _, service = carry(
        rows, always(answer(input_tokens=60, output_tokens=40), latency=0.0), concurrency=1, limits=limits
    )
    assert service.sent[-1][0] == pytest.approx(7 * 10, rel=0.1)


def test_a_large_prompt_is_not_overtaken_by_small_ones_under_a_limit() -> None:
    """Calls leave in the order of the input, whatever their size: the one in hand is waited for."""
    sizes = [3, 90, 1, 40, 2, 2, 75, 1]
    rows = RowsInMemory([row_request(row, estimated_tokens=size) for row, size in enumerate(sizes)])
    _, service = carry(rows, always(answer(), latency=0.0), limits=Limits(tokens_per_minute=600))
    assert service.rows == list(range(len(sizes)))


# -- pushback --------------------------------------------------------------------------------------------------------


def test_pushback_pauses_everyone_and_costs_no_attempt() -> None:
    """After a 429 nobody sends for the wait, and the row still has all its attempts; every exchange is counted."""
    rows = RowsInMemory(4)

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        if row == 0:
            return 1.0, BUSY if attempt <= 4 else BROKEN if attempt <= 6 else answer()
        return 0.75, answer()

    watcher = Watcher()
    stop, service = carry(rows, script, concurrency=2, jitter=lambda: 0.5, max_attempts=3, observer=watcher)
    assert stop is None
    assert is_success(rows.by_row[0])
    assert rows.by_row[0].attempts == 7
    first_pushback, pause = 1.0, watcher.pauses[0]
    assert pause == 0.5
    assert not [at for at, _ in service.sent if first_pushback < at < first_pushback + pause]


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("asked", ["12", "3000"])
def test_a_retry_after_is_its_rows_own_and_kept_to_the_letter(status: int, asked: str, *, adaptive: bool) -> None:
    """Where the service names the wait, exactly that is waited, whatever jitter and cap say; the others go on."""
    rows = RowsInMemory(60)
    pushback = refused(status, retry_after=asked)

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        return (1.0, pushback) if (row, attempt) == (0, 1) else (1.0, answer())

    stop, service = carry(rows, script, concurrency=2, max_wait_s=5.0, adaptive=adaptive)
    assert stop is None
    assert all_succeeded(rows, 60)
    first, again = [at for at, row in service.sent if not row]
    assert 1.0 + float(asked) <= first + again < 2.0 + float(asked)  # when a slot is free
    others = [at for at, row in service.ended if row]
    assert len(others) == 59
    assert max(others) < 45


def test_a_retry_after_of_zero_is_no_licence_to_hammer() -> None:
    """A service that pushes back and names no time gets the usual, growing backoff."""
    rows = RowsInMemory(1)
    _, service = carry(rows, in_turn(*[refused(429, retry_after="0")] * 5, answer(), latency=0.01), concurrency=1)
    times = [at for at, _ in service.sent]
    assert times[-1] == pytest.approx(HALF * (1 + 2 + 4 + 8 + 16) + 5 * 0.01)


def test_requests_sent_before_a_pause_do_not_lengthen_the_backoff() -> None:
    """Sixteen pushbacks to one window of requests are one round of pushback, not sixteen."""
    watcher = Watcher()

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        return (1 + row / 100, BUSY) if attempt == 1 else (1.0, answer())

    rows = RowsInMemory(16)
    carry(rows, script, concurrency=16, jitter=lambda: 0.9, observer=watcher)
    assert watcher.pauses == [pytest.approx(0.9)] * 16


def test_rounds_of_pushback_double_the_pause_until_an_answer_comes() -> None:
    """Each round that follows a pause doubles the ceiling; an answer starts over."""
    watcher = Watcher()
    rows = RowsInMemory(2)
    replies = {0: [BUSY, BUSY, BUSY, answer()], 1: [BUSY, answer()]}
    carry(
        rows,
        lambda row, attempt: (1.0, replies[row][attempt - 1]),
        concurrency=1,
        jitter=lambda: 0.5,
        observer=watcher,
    )
    assert watcher.pauses == [0.5, 1.0, 2.0, 0.5]


def test_an_answer_from_before_a_pause_does_not_end_the_pushback() -> None:
    """It was sent before the service began to push back, and tells nothing of how it is now."""
    watcher = Watcher()

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        return (1.75, answer()) if row == 0 else (0.1, BUSY if attempt < 4 else answer())

    carry(RowsInMemory(2), script, concurrency=2, jitter=lambda: 0.5, observer=watcher)
    assert watcher.pauses == [0.5, 1.0, 2.0]  # the answer comes between the second and the third


def test_what_an_answer_leaves_of_its_reservation_is_there_for_the_next_call() -> None:
    """Twenty rows that cost a tenth of what they may: a budget of three such bounds is enough for all."""
    service = ScriptedService(always(answer()))
    service.max_cost_usd = 10 * PRICE_USD
    rows = RowsInMemory(20)
    runner = make_runner(rows, service, concurrency=1, budget=Budget(3 * service.max_cost_usd, Decimal(0)))
    assert run(runner.run()).stop is None
    assert len(rows.recorded) == 20


def test_a_service_that_only_pushes_back_stops_the_run() -> None:
    """After `max_pushback_s` of nothing but pushback the run stops, resumable, and no row has failed for it."""
    rows = RowsInMemory(100)
    stop, service = carry(rows, always(BUSY), concurrency=4, max_pushback_s=600.0)
    assert stop is not None
    assert (stop.kind, rows.recorded) == ("refused", [])
    assert "600 s" in stop.message
    assert 600 < service.ended[-1][0] < 700


@pytest.mark.parametrize("bad", [1, 4, 10])
def test_rows_that_always_run_out_of_time_fail_and_do_not_stop_the_run_for_ever(bad: int) -> None:
    """Five times 300 s are more than `max_pushback_s`; but rows that are not answered are no service that is not."""
    rows = RowsInMemory(20)
    silence = TransportFailure("timeout", "no whole reply within 300 s")
    stop, _ = carry(
        rows,
        lambda row, _: (300.0, silence) if row >= 20 - bad else (1.0, answer()),
        concurrency=16,
        adaptive=True,
        max_pushback_s=900.0,
    )
    assert stop is None
    assert len(rows.by_row) == 20
    failed = [outcome for outcome in rows.recorded if isinstance(outcome, Failed)]
    assert [(outcome.failure.kind, outcome.attempts) for outcome in failed] == [("timeout", 5)] * bad


def test_slow_answers_are_not_mistaken_for_pushback() -> None:
    """A single pushback while every answer takes longer than `max_pushback_s` stops nothing."""
    rows = RowsInMemory(6)

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        return (70.0, BUSY) if (row, attempt) == (1, 1) else (200.0, answer())

    stop, _ = carry(rows, script, concurrency=2, max_pushback_s=60.0)
    assert stop is None
    assert all(is_success(outcome) for outcome in rows.by_row.values())
    assert len(rows.by_row) == 6


def test_a_row_that_alone_is_pushed_back_fails_in_the_end() -> None:
    """Pushback costs no attempt, so time bounds it: a row that gets nothing else fails as rate_limited."""
    rows = RowsInMemory(1000)
    stop, service = carry(rows, by_row({0: (1.0, BUSY)}, (1.0, answer())), concurrency=2, max_pushback_s=100.0)
    assert stop is None
    assert failure_of(rows.by_row[0]) == "rate_limited"
    assert rows.by_row[0].attempts == service.times_sent(0) > 5
    assert sum(is_success(outcome) for outcome in rows.recorded) == 999


# -- stops -----------------------------------------------------------------------------------------------------------


def test_an_abort_admits_no_more_and_finishes_what_is_in_flight() -> None:
    """A refused key stops the run with the way on; answers on their way are recorded, the refused row is not."""
    rows, marks = RowsInMemory(100), MarksInMemory()
    refusal = refused(401, message="Invalid token")
    stop, service = carry(rows, by_row({2: (1.0, refusal)}, (5.0, answer())), concurrency=4, marks=marks)
    assert stop is not None
    assert (stop.kind, stop.message) == ("refused", "Invalid token")
    assert "key" in stop.hint
    assert service.rows == [0, 1, 2, 3]
    assert sorted(rows.by_row) == [0, 1, 3]
    assert marks.rows == {}


def stopped_at(
    when: float, rows: RowsInMemory, script: Script, *, then: Callable[[Runner], None] | None = None, **options: Any
) -> tuple[Stop | None, ScriptedService, float]:
    """Run, ask for a stop at this time, and say why and when it ended."""
    service = ScriptedService(script)

    async def main() -> tuple[Stop | None, float]:
        runner = make_runner(rows, service, **options)
        loop = asyncio.get_running_loop()
        loop.call_at(when, then or (lambda runner: runner.stop(INTERRUPTED)), runner)
        return (await runner.run()).stop, loop.time()

    stop, ended = run(main())
    return stop, service, ended


def test_a_stop_finishes_what_is_in_flight() -> None:
    """The first Ctrl-C sends nothing more, and what was sent is recorded."""
    rows = RowsInMemory(100)
    stop, service, ended = stopped_at(12.0, rows, always(answer(), latency=5.0), concurrency=4)
    assert stop == INTERRUPTED
    assert (len(service.sent), len(rows.by_row), ended) == (12, 12, 15.0)


@pytest.mark.parametrize(
    ("what", "options", "script", "room"),
    [
        ("the limits", {"limits": Limits(requests_per_minute=1)}, always(answer()), None),
        ("the tokens", {"limits": Limits(tokens_per_minute=1)}, always(answer()), None),
        ("a retry that is due", {}, always(refused(503, retry_after="3000")), None),
        ("the end of a pause", {"max_pushback_s": 9999.0}, always(refused(429, retry_after="3000")), None),
        ("room", {}, always(answer()), 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stop_is_heard_while_waiting(what: str, options: dict[str, Any], script: Script, room: int | None) -> None:
    """Whatever the next request waits for, a stop ends the wait at once."""
    rows = RowsInMemory(10, room=room)
    stop, service, ended = stopped_at(20.0, rows, script, concurrency=2, **options)
    assert (stop, ended) == (INTERRUPTED, 20.0)
    assert 1 <= len(service.sent) <= (ASKED_TO_WAIT if "3000" in str(script(0, 1)) else 2)


def test_the_first_reason_to_stop_stands() -> None:
    """A second stop, of whatever kind, does not change what the run says of itself."""

    def twice(runner: Runner) -> None:
        runner.stop(INTERRUPTED)
        runner.stop(TERMINATED)

    stop, _, _ = stopped_at(2.0, RowsInMemory(100), always(answer()), then=twice)
    assert stop == INTERRUPTED


def test_a_stop_before_the_start_sends_nothing() -> None:
    """A signal between the handlers' setup and the first request is not lost."""
    service = ScriptedService(always(answer()))

    async def main() -> Stop | None:
        runner = make_runner(RowsInMemory(5), service)
        runner.stop(INTERRUPTED)
        return (await runner.run()).stop

    assert run(main()) == INTERRUPTED
    assert service.sent == []


def test_the_second_signal_gives_up_what_is_in_flight() -> None:
    """`stop_now` ends the run at once; what was in flight stays marked and is not recorded."""
    rows, marks = RowsInMemory(100), MarksInMemory()

    def both(runner: Runner) -> None:
        assert runner.in_flight == 4  # what a person is told that is being waited for
        runner.stop(INTERRUPTED)
        runner.stop_now(TERMINATED)

    stop, service, ended = stopped_at(12.0, rows, always(answer(), latency=5.0), then=both, concurrency=4, marks=marks)
    assert (stop, ended) == (INTERRUPTED, 12.0)
    assert (len(service.sent), len(rows.by_row), service.sending) == (12, 8, set())
    assert sorted(marks.rows.values()) == [8, 9, 10, 11]


@pytest.mark.parametrize("when", [0.0, 0.5, 3.0, 3.25, 7.5])
def test_cancelling_a_run_leaves_no_task_behind(when: float) -> None:
    """A run that is cancelled takes all that it started with it."""
    service = ScriptedService(lambda row, _attempt: (1.0, answer()) if row % 3 else (0.25, BROKEN))

    async def main() -> set[asyncio.Task[Any]]:
        task = asyncio.create_task(make_runner(RowsInMemory(100), service, concurrency=3).run())
        await asyncio.sleep(when)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() == when
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert run(main()) == set()
    assert service.sending == set()


# -- faults of our own -----------------------------------------------------------------------------------------------


class FullDisk(RowsInMemory):
    """Takes this many outcomes, then no more."""

    def __init__(self, rows: int, fits: int) -> None:
        super().__init__(rows)
        self.fits = fits

    def record(self, records: Sequence[Record]) -> None:
        room = self.fits - len(self.recorded)
        super().record(records[:room])
        if len(records) > room:
            raise CheckpointError("the disk is full")


@pytest.mark.parametrize("fits", [0, 1, 5, 6])
def test_nothing_is_sent_once_an_outcome_could_not_be_recorded(fits: int) -> None:
    """A full disk ends the run with its error, and no answer is paid for that could not be kept."""
    rows = FullDisk(100, fits)
    service = ScriptedService(always(answer()))
    with pytest.raises(CheckpointError, match="disk is full"):
        run(make_runner(rows, service, concurrency=4).run())
    in_time = fits // 4 * 4 + 4  # the window whose answers ran into the full disk
    recorded_in_window = fits % 4  # each of those made place for one more request at that same moment
    assert len(service.sent) <= in_time + recorded_in_window
    assert len(rows.recorded) == fits


def test_nothing_is_sent_after_an_error_even_at_the_same_moment() -> None:
    """A slot that comes free in the moment of another's fault does not send."""
    rows = FullDisk(100, 0)

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        return (1.0, answer()) if row == 0 else (1.0, BROKEN)

    service = ScriptedService(script)
    with pytest.raises(CheckpointError):
        run(make_runner(rows, service, concurrency=8, jitter=lambda: 0.0).run())
    assert len(service.sent) == 8


def test_answers_are_recorded_whatever_becomes_of_one_that_came_with_them() -> None:
    """A mistake of ours over one reply ends the run; the others that came in the same moment are paid for."""

    class Mistaken(ScriptedService):
        async def exchange(self, request: HttpRequest) -> Reply:
            reply = await super().exchange(request)
            if self.ended[-1][1] == 3:
                raise ZeroDivisionError
            return reply

    rows, marks = RowsInMemory(8), MarksInMemory()
    with pytest.raises(ZeroDivisionError):
        run(make_runner(rows, Mistaken(always(answer())), concurrency=8, marks=marks).run())
    assert sorted(rows.by_row) == [0, 1, 2, 4, 5, 6, 7]
    assert set(marks.rows.values()) == {3}


def test_what_was_not_billed_is_not_marked_when_the_disk_is_full() -> None:
    """What stays marked is taken for billed by the next session: that is the row whose answer was not kept alone."""
    rows, marks = FullDisk(4, fits=0), MarksInMemory()
    service = ScriptedService(by_row({0: (1.0, answer())}, (1.0, refused(429))))
    with pytest.raises(CheckpointError):
        run(make_runner(rows, service, concurrency=4, marks=marks).run())
    assert set(marks.rows.values()) == {0}


def test_a_run_whose_own_task_is_cancelled_by_somebody_ends() -> None:
    """An error is better than to wait for ever."""

    class Slow(RowsInMemory):
        async def next_call(self) -> CallRequest | Failed | None:
            await asyncio.sleep(50.0)
            return await super().next_call()

    async def main() -> None:
        running = asyncio.create_task(make_runner(Slow(9), ScriptedService(always(answer()))).run())
        before = asyncio.all_tasks()
        await asyncio.sleep(5.0)
        (reading,) = asyncio.all_tasks() - before
        reading.cancel()
        with pytest.raises(RuntimeError, match="cancelled by somebody else"):
            await running

    run(main())


def test_what_is_given_up_before_it_began_leaves_no_trace() -> None:
    """A second signal can come in the moment in which requests are begun; no warning, nothing left in flight."""
    rows = RowsInMemory(9)

    async def main() -> Stop | None:
        runner = make_runner(rows, ScriptedService(always(answer())))
        running = asyncio.create_task(runner.run())
        while not runner.in_flight:  # noqa: ASYNC110 - the very moment in which it begins is what this is about
            await asyncio.sleep(0)
        runner.stop_now(TERMINATED)
        assert not runner.in_flight
        return (await running).stop

    assert run(main()) == TERMINATED
    assert not rows.recorded


class TornInput(RowsInMemory):
    """Can be read up to a row."""

    def ready_call(self) -> CallRequest | Failed | None:
        return None if self.handed_out == 6 else super().ready_call()

    async def next_call(self) -> CallRequest | Failed | None:
        if self.handed_out == 6:
            raise InputError("the file changed")
        return await super().next_call()


def test_an_input_that_cannot_be_read_on_ends_the_run() -> None:
    """A reader's error is the run's error, and no task is left behind."""
    rows = TornInput(100)
    service = ScriptedService(always(answer()))

    async def main() -> set[asyncio.Task[Any]]:
        with pytest.raises(InputError, match="the file changed"):
            await make_runner(rows, service, concurrency=4).run()
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert run(main()) == set()
    assert len(service.sent) <= 6


def test_a_row_that_waits_for_its_next_attempt_is_not_sent_once_the_input_is_broken() -> None:
    """No more is sent, whatever is due; the next session has it."""

    class SlowlyTorn(RowsInMemory):
        async def next_call(self) -> CallRequest | Failed | None:
            if self.handed_out:
                await asyncio.sleep(50.0)
                raise InputError("the file changed")
            return await super().next_call()

    service = ScriptedService(always(refused(500, retry_after="60")))
    with pytest.raises(InputError):
        run(make_runner(SlowlyTorn(1), service, concurrency=2).run())
    assert service.sent == [(0.0, 0)]


# -- a wrong path ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [PAGE, MOVED, refused(404), refused(405)], ids=["page", "redirect", "404", "405"])
def test_a_wrong_path_stops_the_run_before_any_row_fails(reply: HttpResponse) -> None:
    """Two windows of nothing but path mistakes stop the run; no row is recorded, so all are sent again once mended."""
    rows = RowsInMemory(1000)
    stop, service = carry(rows, always(reply), concurrency=4)
    assert stop is not None
    assert stop.kind == "refused"
    assert "target.base_url" in stop.hint
    assert rows.recorded == []
    assert len(service.sent) < MISDIRECTED_PER_SLOT * 4 + 4


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_small_table_of_path_mistakes_stops_too(count: int) -> None:
    """A table that is over before two windows are full is stopped at its end, with nothing recorded."""
    rows = RowsInMemory(count)
    stop, service = carry(rows, always(MOVED), concurrency=4)
    assert stop is not None
    assert (rows.recorded, len(service.sent)) == ([], count)


@pytest.mark.parametrize("odd", [(0,), (7,), (19,), (0, 1, 2), (0, 9, 19)])
def test_a_page_among_answers_fails_only_its_row(odd: tuple[int, ...]) -> None:
    """Once any request has worked, a page instead of an answer is that row's bad luck."""
    rows = RowsInMemory(20)
    stop, _ = carry(rows, by_row(dict.fromkeys(odd, (0.5, PAGE)), (1.0, answer())), concurrency=2)
    assert stop is None
    assert len(rows.by_row) == 20
    assert tuple(row for row, each in sorted(rows.by_row.items()) if isinstance(each, Failed)) == odd


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("count", [8, 1000])
def test_a_service_that_is_not_there_stops_the_run_soon_and_fails_no_row(count: int, adaptive: bool) -> None:
    """A misspelt host once failed every row of a small table, and kept a large one waiting for a quarter of an hour."""
    rows = RowsInMemory(count)
    stop, service = carry(rows, always(UNREACHED, latency=0.01), concurrency=256, adaptive=adaptive)
    assert stop is not None
    assert stop.kind == "refused"
    assert "address" in stop.hint
    assert "can't connect" in stop.message
    assert rows.recorded == []
    assert service.ended[-1][0] < 60


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_service_that_is_reached_late_answers_the_rows_that_it_missed(adaptive: bool) -> None:
    """Attempts that used up themselves before anything was ever sent say nothing of their rows."""
    rows = RowsInMemory(3)
    late = when(lambda now: UNREACHED if now < 35 else answer())

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        return late(row, attempt) if row else (10.0, UNREACHED if attempt < 5 else answer())

    stop, _ = carry(rows, script, adaptive=adaptive)
    assert stop is None
    assert all_succeeded(rows, 3)


def test_connections_refused_beside_requests_under_way_do_not_stop_a_run() -> None:
    """A service with few connections to give away and slow answers is there, though nothing is answered yet."""
    rows = RowsInMemory(12)
    script = by_row({0: (60.0, answer())}, (0.1, UNREACHED))
    stop, _ = carry(rows, script, concurrency=8, max_attempts=1)
    assert stop is None
    assert [word_for(rows.by_row[row]) for row in range(2)] == ["succeeded", "connection"]


def test_a_row_whose_connections_fail_is_its_own_failure_once_the_service_was_reached() -> None:
    """Whatever came of what was sent: a service that refuses is there."""
    rows = RowsInMemory(8)
    script = by_row({0: (0.1, refused(400))}, (0.1, UNREACHED))
    carry(rows, script, concurrency=1)
    assert {failure_of(outcome) for outcome in rows.recorded} == {"connection", "invalid_request"}


def test_a_doubt_is_not_settled_while_an_answer_is_on_its_way() -> None:
    """At the end of the table, a row in flight may still show that the path works."""
    rows = RowsInMemory(2)
    stop, _ = carry(rows, by_row({0: (1.0, PAGE)}, (9.0, answer())), concurrency=3)
    assert stop is None
    assert [word_for(rows.by_row[row]) for row in range(2)] == ["invalid_response", "succeeded"]


def test_doubts_about_the_path_stay_unrecorded_after_a_stop() -> None:
    """What the stop says, that none of the doubtful rows was recorded, stays true when a late answer comes in."""
    rows = RowsInMemory(100)
    stop, _ = carry(rows, by_row({0: (60.0, answer())}, (1.0, PAGE)), concurrency=4)
    assert stop is not None
    assert list(rows.by_row) == [0]


class HeldOpen(RowsInMemory):
    """Has room for this many rows beyond those that were recorded."""

    @property
    def has_room(self) -> bool:
        return self.room is None or self.handed_out - len(self.recorded) < self.room


def test_held_rows_that_fill_all_room_do_not_stall_the_run() -> None:
    """Rows whose failure is held keep their partitions open; the run goes on until their failures are decided."""
    rows = HeldOpen(40, room=3)
    script = by_row(dict.fromkeys(range(5), (1.0, PAGE)), (1.0, answer()))
    service = ScriptedService(script)

    async def main() -> Stop | None:
        return (await asyncio.wait_for(make_runner(rows, service, concurrency=4).run(), 1000)).stop

    assert run(main()) is None
    assert len(rows.by_row) == 40


def test_a_known_path_is_not_doubted() -> None:
    """A session that resumes a run with answers knows that the path works: the odd row just fails."""
    rows = RowsInMemory(1)
    stop, _ = carry(rows, always(PAGE), earlier=Tally(succeeded=1))
    assert stop is None
    assert failure_of(rows.by_row[0]) == "invalid_response"


# -- the row's failure, or everyone's --------------------------------------------------------------------------------


def when(plan: Callable[[float], Reply], *, latency: float = 0.1) -> Script:
    """A service whose replies depend on the time alone."""
    return lambda _row, _attempt: (latency, plan(asyncio.get_running_loop().time()))


def all_succeeded(rows: RowsInMemory, count: int) -> bool:
    """Whether every row has a whole answer."""
    return sorted(rows.by_row) == list(range(count)) and all(is_success(each) for each in rows.recorded)


def test_a_maintenance_page_in_the_middle_of_a_run_stops_it_and_fails_no_row() -> None:
    """Rows were once burnt at the speed of the line, failed for good, by a page that had nothing to do with them."""
    rows = RowsInMemory(500)
    stop, service = carry(rows, when(lambda now: answer() if now < 1 else page()))
    assert stop is not None
    assert "since the last answer" in stop.message
    assert all(is_success(outcome) for outcome in rows.recorded)
    assert len(service.sent) <= len(rows.recorded) + 2 * MISDIRECTED_PER_SLOT * 4


def test_a_short_maintenance_page_fails_only_what_met_it() -> None:
    """Once something is answered again, the few rows that met the page have failed, and the run goes on."""
    rows = RowsInMemory(40)
    stop, _ = carry(rows, by_row(dict.fromkeys((11, 12, 13), (0.1, page())), (0.1, answer())))
    assert stop is None
    assert [outcome.ordinal for outcome in rows.recorded if isinstance(outcome, Failed)] == [11, 12, 13]


@pytest.mark.parametrize("reply", [refused(500), refused(503), lost()], ids=["500", "503", "timeout"])
def test_an_isolated_row_gets_exactly_its_attempts(reply: Reply) -> None:
    """A row that fails while others are answered fails for good, after `max_attempts` and no more."""
    rows = RowsInMemory(400)
    _, service = carry(rows, by_row({7: (0.1, reply)}, (0.1, answer())), max_attempts=3)
    assert isinstance(rows.by_row[7], Failed)
    assert service.rows.count(7) == 3


@pytest.mark.parametrize("reply", [refused(500), refused(503)], ids=["500", "503"])
def test_attempts_used_up_in_an_outage_are_given_back_when_it_ends(reply: Reply) -> None:
    """Half a minute in which nothing is answered once failed every row that met it."""
    rows = RowsInMemory(300)
    stop, _ = carry(rows, when(lambda now: reply if 2 <= now < 32 else answer()), jitter=lambda: 0.99)
    assert stop is None
    assert all_succeeded(rows, 300)


@pytest.mark.parametrize("reply", [refused(503), TransportFailure("connection", "reset")], ids=["503", "reset"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_rows_that_fail_for_good_at_the_end_of_a_table_end_it(reply: Reply, adaptive: bool) -> None:
    """The last rows that always fail look like an outage; that once took a quarter of an hour and then stopped."""
    rows = RowsInMemory(200)
    bad = range(7, 200, 8)
    script = by_row(dict.fromkeys(bad, (0.1, reply)), (0.1, answer()))
    stop, service = carry(rows, script, concurrency=16, adaptive=adaptive)
    assert stop is None
    assert sorted(outcome.ordinal for outcome in rows.recorded if isinstance(outcome, Failed)) == list(bad)
    assert service.ended[-1][0] < 300


def test_a_refusal_of_every_row_stops_before_the_table_is_burnt() -> None:
    """A job that is wrong for every row ends after `max_alike` of them, none recorded."""
    rows = RowsInMemory(500)
    stop, service = carry(rows, always(refused(400, message="no such parameter")), max_alike=20)
    assert stop is not None
    assert "20 rows failed with the same error and no request has worked: no such parameter" in stop.message
    assert len(service.sent) < 20 + 4
    assert rows.recorded == []


def test_refusals_that_differ_are_the_rows_own() -> None:
    """Two kinds of refusal are no sign of a job that is wrong for every row."""
    rows = RowsInMemory(60)
    stop, _ = carry(rows, lambda row, _: (0.1, refused(400 if row % 2 else 413)), max_alike=20)
    assert stop is None
    assert len(rows.by_row) == 60


def test_refused_rows_side_by_side_do_not_stop_a_run_that_works() -> None:
    """A block of rows that are wrong, in the middle of a table, fails as rows do."""
    rows = RowsInMemory(300)
    stop, _ = carry(rows, lambda row, _: (0.1, refused(400) if 50 <= row < 250 else answer()), max_alike=20)
    assert stop is None
    assert sum(isinstance(outcome, Failed) for outcome in rows.recorded) == 200


def test_a_model_that_was_there_is_asked_for_again() -> None:
    """Its routes come and go (contract sheet, section 7.2); one that was never there stops the run."""
    gone = refused(503, code="model_not_found")
    rows = RowsInMemory(60)
    stop, _ = carry(rows, lambda row, attempt: (0.1, gone if (row, attempt) == (30, 1) else answer()))
    assert stop is None
    assert all_succeeded(rows, 60)
    stop, _ = carry(RowsInMemory(60), always(gone))
    assert stop is not None


def test_a_row_is_not_tried_for_ever() -> None:
    """After `max_row_s` its next failure is its last, however many attempts are left."""
    rows = RowsInMemory(2000)
    _, service = carry(rows, by_row({3: (0.1, refused(500))}, (0.5, answer())), max_attempts=99, max_row_s=60.0)
    assert isinstance(rows.by_row[3], Failed)
    assert max(at for at, row in service.sent if row == 3) <= 60 + 30


def test_a_person_is_told_that_nothing_is_answered_and_how_long_that_may_go_on() -> None:
    """Not at once, since a service may stumble; and no longer than it lasts."""
    replies = {"lost": TransportFailure("connection", "can't connect to nowhere")}
    said: list[str] = []

    def script(_row: int, _attempt: int) -> tuple[float, Reply]:
        return 0.5, replies.get("lost", answer())

    async def main() -> None:
        runner = make_runner(RowsInMemory(20), ScriptedService(script))
        running = asyncio.create_task(runner.run())
        for seconds in (TOLD_AFTER_S - 1, 3):
            await asyncio.sleep(seconds)
            said.append(runner.told.silences().get(0, ""))
        replies.clear()
        await running
        said.append(runner.told.silences().get(0, ""))

    run(main())
    assert (said[0], said[2]) == ("", "")
    assert "can't connect to nowhere" in said[1]
    assert "stops after 900 s" in said[1]


@pytest.mark.parametrize("cap", [None, 5 * PRICE_USD], ids=["the table", "the budget"])
def test_a_run_ends_with_its_last_answer_whatever_the_pace(cap: Decimal | None) -> None:
    """The pace of slow answers was waited for before the end was noticed: a minute for nothing."""
    rows, service = (
        RowsInMemory(5 if cap is None else 9),
        ScriptedService(lambda row, _: (1.0 if row == 4 else 60.0, answer())),
    )
    service.max_cost_usd = PRICE_USD

    async def main() -> float:
        budget = None if cap is None else Budget(cap, Decimal(0))
        await make_runner(rows, service, concurrency=1, adaptive=True, budget=budget).run()
        return asyncio.get_running_loop().time()

    ended = run(main())
    assert len(rows.by_row) == 5
    assert ended == pytest.approx(service.ended[-1][0])


def test_the_loop_says_what_it_is_waiting_for() -> None:
    """A pause with the seconds left, the rate limit, a service that answers nothing, the budget; else nothing."""

    async def words(script: Script, at: float, max_cost_usd: Decimal | None = None, **options: Any) -> str:
        service = ScriptedService(script)
        service.max_cost_usd = max_cost_usd
        runner = make_runner(RowsInMemory(500), service, **options)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(at)
        said = runner.told.waiting_for()
        runner.stop_now(Stop("interrupted", "enough"))
        await running
        return said

    said = run(words(always(refused(429, retry_after="90")), 30.0))
    found = re.fullmatch(r"service asks to wait (\d+) s", said)
    assert found
    assert 55 <= int(found[1]) <= 65
    assert run(words(always(answer(), latency=0.1), 5.0, limits=Limits(requests_per_minute=6))) == "rate limit"
    dying = when(lambda now: answer() if now < 1 else refused(503), latency=0.05)
    assert "probing" in run(words(dying, 20.0, adaptive=True))
    assert run(words(always(answer(), latency=9.0), 3.0)) == ""
    assert run(words(always(answer(), latency=9.0), 3.0, Decimal(1), budget=Budget(Decimal(2), Decimal(0)))) == "budget"


# -- a wait that the service asks for --------------------------------------------------------------------------------


def asked_to_wait(seconds: float, status: int = 429) -> HttpResponse:
    """A refusal that says how long."""
    return refused(status, message="the quota is used up", retry_after=f"{seconds:g}")


def pauses_of(service: ScriptedService, after: float) -> list[float]:
    """Seconds between sends from this time on."""
    times = [at for at, _ in service.sent if at >= after]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.mark.parametrize("adaptive", [False, True])
def test_everyone_pauses_where_nobody_is_answered_and_a_probe_ends_the_pause(*, adaptive: bool) -> None:
    """All are asked to wait an hour, and are answered after two minutes: nobody sleeps on one header's word."""
    rows = RowsInMemory(400)
    stop, service = carry(
        rows,
        when(lambda now: asked_to_wait(1800) if 5 <= now < 130 else answer()),
        adaptive=adaptive,
        max_wait_s=10.0,
    )
    assert stop is None
    assert all_succeeded(rows, 400)
    during = [at for at, _ in service.sent if 7 <= at < 130]
    assert len(during) <= 5
    assert max(pauses_of(service, 7)[:5]) <= MAX_PROBE_S + 1
    refused_rows = {row for at, row in service.sent if 5 <= at < 130}
    assert min(at for at, row in service.ended if at > 130 and row not in refused_rows) < 200


def test_probes_of_a_pause_come_after_max_wait_s_then_at_double_the_wait_up_to_a_minute() -> None:
    """One request at a time, of rows that were not refused yet; where none is left, the one whose wait ends first."""
    rows = RowsInMemory(6)
    stop, service = carry(
        rows, always(asked_to_wait(3000), latency=0.25), concurrency=1, max_wait_s=7.0, max_pushback_s=400.0
    )
    assert stop is not None
    assert [row for _, row in service.sent[:6]] == list(range(6))
    began = service.sent[3][0] + 0.25
    probes = [at - began for at, _ in service.sent[4:]]
    assert probes == pytest.approx([7, 21, 49, 105, 165, 225, 285, 345, 400.25 - began])
    assert service.rows[6:] == [0, 1, 2, 3, 4, 5, 0]
    assert (stop.kind, stop.fix, rows.recorded) == ("refused", "wait", [])


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("max_pushback_s", [5.0, 100.0, 900.0])
def test_a_wait_of_days_for_everyone_ends_the_run_after_max_pushback_s(
    max_pushback_s: float, *, adaptive: bool
) -> None:
    """A far `Retry-After` holds nobody in silence for longer than the service may answer nothing."""
    rows = RowsInMemory(1000)
    script = when(lambda now: answer() if now < 2 else asked_to_wait(581_981))
    stop, service = carry(rows, script, adaptive=adaptive, concurrency=16, max_pushback_s=max_pushback_s)
    assert stop is not None
    assert (stop.kind, stop.fix) == ("refused", "wait")
    assert all(is_success(outcome) for outcome in rows.recorded)
    assert max_pushback_s < service.ended[-1][0] < max_pushback_s + 5
    assert len(service.sent) <= len(rows.recorded) + 80


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("bad", [(0,), (17,), (59,), (0, 1, 2, 58, 59), tuple(range(0, 60, 7))])
def test_a_row_whose_wait_ends_after_its_time_is_left_for_a_later_session(
    bad: tuple[int, ...], *, adaptive: bool
) -> None:
    """All others are answered at once; then the run ends, resumable, and says in words how long the wait is."""
    rows = RowsInMemory(60)
    script = by_row(dict.fromkeys(bad, (0.1, asked_to_wait(581_981))), (0.1, answer()))
    stop, service = carry(rows, script, concurrency=2, adaptive=adaptive, max_wait_s=0.1, max_row_s=8.0)
    assert stop is not None
    assert (stop.kind, stop.fix) == ("refused", "wait")
    assert "6.8 days" in stop.message
    assert f"{len(bad)} row" in stop.message
    assert sorted(rows.by_row) == [row for row in range(60) if row not in bad]
    assert sorted(rows.left) == list(bad)
    assert all(service.times_sent(row) == 1 for row in bad)
    assert service.ended[-1][0] < 20


def test_rows_that_wait_as_they_were_asked_do_not_hold_up_the_others() -> None:
    """However many wait, and however little room there is: every other row is answered before the waits end."""
    rows = HeldOpen(300, room=30)
    script = lambda row, attempt: (0.1, asked_to_wait(600) if row % 5 == 0 and attempt == 1 else answer())  # noqa: E731
    stop, service = carry(rows, script, concurrency=2)
    assert stop is None
    assert all_succeeded(rows, 300)
    assert max(at for at, row in service.ended if row % 5) < 300
    waits = {row: [at for at, each in service.sent if each == row] for row in range(0, 300, 5)}
    assert all(again - first == pytest.approx(600.1, abs=0.2) for first, again in waits.values())


def test_the_words_for_a_wait_tell_who_is_asked_to_wait() -> None:
    """Everybody, or the last rows alone."""

    async def words(script: Script, at: float) -> str:
        runner = make_runner(RowsInMemory(8), ScriptedService(script))
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(at)
        said = runner.told.waiting_for()
        runner.stop_now(INTERRUPTED)
        await running
        return said

    assert re.fullmatch(r"service asks to wait 8\d s", run(words(always(asked_to_wait(90)), 8.0)))
    alone = by_row({2: (1.0, asked_to_wait(90))}, (1.0, answer()))
    assert run(words(alone, 8.0)) == "service asks the last rows to wait 83 s"
    assert run(words(alone, 2.5)) == ""


# -- one route's account, or everyone's ------------------------------------------------------------------------------

NO_KEY = refused(401, code="invalid_api_key", message="Incorrect API key")
NO_MONEY = refused(402, message="Insufficient Balance")
NO_QUOTA = refused(403, code="insufficient_quota", message="You exceeded your quota")
OF_AN_ACCOUNT = pytest.mark.parametrize("reply", [NO_KEY, NO_MONEY, NO_QUOTA], ids=["401", "402", "403"])


@OF_AN_ACCOUNT
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("latency", [0.1, 20.0])
def test_a_route_that_refuses_one_request_in_ten_stops_nothing(reply: Reply, latency: float, *, adaptive: bool) -> None:
    """The same key is answered elsewhere: each refusal costs its row an attempt, however long answers take."""
    chance = random.Random(7)
    rows = RowsInMemory(3000)

    def script(_row: int, _attempt: int) -> tuple[float, Reply]:
        is_answered = asyncio.get_running_loop().time() > 2 * latency
        return (0.02, reply) if is_answered and chance.random() < 0.1 else (latency, answer())

    stop, _ = carry(rows, script, concurrency=64, adaptive=adaptive, max_attempts=9)
    assert stop is None
    assert all_succeeded(rows, 3000)


@OF_AN_ACCOUNT
def test_a_row_that_one_route_refuses_fails_after_its_attempts(reply: Reply) -> None:
    """While others are answered with the same key in between."""
    rows = RowsInMemory(300)
    stop, service = carry(rows, by_row({30: (0.1, reply)}, (0.1, answer())), concurrency=2, max_attempts=3)
    assert stop is None
    assert service.times_sent(30) == 3
    assert failure_of(rows.by_row[30]) == ("auth" if reply is NO_KEY else "credit")
    assert len(rows.by_row) == 300


@OF_AN_ACCOUNT
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("concurrency", "most"), [(1, 14), (16, 2 * 16 + ACCOUNT_REFUSALS)])
def test_an_account_that_is_closed_in_the_middle_of_a_run_stops_it(
    reply: Reply, concurrency: int, most: int, *, adaptive: bool
) -> None:
    """Several refusals in a row met no answer in between; no row fails for it."""
    rows = RowsInMemory(1000)
    script = when(lambda now: answer() if now < 3 else reply)
    stop, service = carry(rows, script, concurrency=concurrency, adaptive=adaptive)
    assert stop is not None
    assert (stop.kind, stop.fix) == ("refused", "account")
    assert all(is_success(outcome) for outcome in rows.recorded)
    assert len(service.sent) - len(rows.recorded) <= most


@OF_AN_ACCOUNT
def test_the_last_row_of_a_table_whose_account_is_refused_stops_the_run(reply: Reply) -> None:
    """Its attempts met no answer in between, so nobody knows whose failure it is: the next session asks again."""
    rows = RowsInMemory(30)
    stop, service = carry(rows, by_row({29: (0.1, reply)}, (0.1, answer())), concurrency=1, max_attempts=3)
    assert stop is not None
    assert stop.fix == "account"
    assert (len(rows.by_row), service.times_sent(29)) == (29, 3)


@OF_AN_ACCOUNT
def test_a_row_whose_attempts_ran_out_while_answers_were_under_way_waits_for_them(reply: Reply) -> None:
    """They then show that the failure is its own, and it was asked no more than its attempts."""
    rows = RowsInMemory(10)
    script = by_row({3: (0.1, reply), 0: (0.05, answer())}, (60.0, answer()))
    stop, service = carry(rows, script, concurrency=10, max_attempts=3)
    assert stop is None
    assert service.times_sent(3) == 3
    assert failure_of(rows.by_row[3]) in {"auth", "credit"}
    assert len(rows.by_row) == 10


@OF_AN_ACCOUNT
@pytest.mark.parametrize("earlier", [Tally(), Tally(succeeded=50)], ids=["first session", "resumed"])
def test_before_any_answer_a_refused_account_stops_the_run_at_once(reply: Reply, earlier: Tally) -> None:
    """Answers of an earlier session are no evidence: the key may be another one since."""
    rows = RowsInMemory(100)
    stop, service = carry(rows, always(reply), concurrency=1, earlier=earlier)
    assert stop is not None
    assert (stop.fix, len(service.sent), rows.recorded) == ("account", 1, [])


@pytest.mark.parametrize(
    "reply",
    [
        refused(401, message="Invalid token (request id: 2026)"),
        refused(403, code="insufficient_user_quota"),
        refused(403, code="pre_consume_token_quota_failed"),
        refused(403, message="user quota is not enough"),
        refused(407),
        TransportFailure("proxy", "the proxy refuses a tunnel (407)", sent=False),
    ],
)
def test_words_that_leave_no_doubt_stop_the_run_at_once(reply: Reply) -> None:
    """Also while others are answered: they are the gateway's own, or the proxy's."""
    rows = RowsInMemory(100)
    stop, service = carry(rows, by_row({30: (0.1, reply)}, (0.1, answer())), concurrency=1)
    assert stop is not None
    assert (len(service.sent), len(rows.by_row)) == (31, 30)
    assert stop.hint


# -- the end of a table ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("max_wait_s", [0.2, 30.0])
@pytest.mark.parametrize("last", [1, 4, 12])
def test_the_last_rows_whose_requests_break_the_connection_get_their_attempts_and_no_more(
    last: int, max_wait_s: float, *, adaptive: bool
) -> None:
    """Each such request may have been billed."""
    rows = RowsInMemory(60)
    broken = TransportFailure("connection", "reset by peer")
    stop, service = carry(
        rows,
        lambda row, _: (0.05, broken if row >= 60 - last else answer()),
        adaptive=adaptive,
        max_attempts=3,
        max_wait_s=max_wait_s,
    )
    assert stop is None
    assert [service.times_sent(row) for row in range(60 - last, 60)] == [3] * last


def test_attempts_that_met_a_service_that_answered_nobody_are_forgotten_once_it_answers() -> None:
    """The last rows can't connect for a while; then one failure of the service itself is the first that counts."""
    rows, failed = RowsInMemory(12), list[int]()

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        if row == 10:
            return 5.0, answer()
        if row < 10 or failed:
            return 0.1, answer()
        if asyncio.get_running_loop().time() < 5.6:
            return 0.1, UNREACHED
        failed.append(attempt)
        return 0.1, BROKEN

    stop, service = carry(rows, script, concurrency=2, max_attempts=3, max_wait_s=1.0)
    assert stop is None
    assert is_success(rows.by_row[11])
    assert failed[0] > 3
    assert rows.by_row[11].attempts == service.times_sent(11)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (TransportFailure("timeout", "no reply within 2 s"), "each of the last rows fails after its attempts"),
        (refused(429), "each of the last rows fails after 50 refusals and 900 s"),
        (asked_to_wait(500), "the service asks the last rows to wait 9 min more"),
    ],
    ids=["timeout", "429", "429 with a wait"],
)
@pytest.mark.parametrize("adaptive", [False, True])
def test_near_the_end_of_a_table_a_person_is_told_what_becomes_of_the_last_rows(
    reply: Reply, words: str, *, adaptive: bool
) -> None:
    """They fail by themselves, or wait as they were asked to; that the run would stop is not true any more."""
    said: list[str] = []

    async def main() -> Stop | None:
        script = by_row({9: (2.0, reply)}, (0.5, answer()))
        runner = make_runner(RowsInMemory(10), ScriptedService(script), adaptive=adaptive)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(5.0 + TOLD_AFTER_S)
        said.append(runner.told.silences().get(0, ""))
        runner.stop_now(INTERRUPTED)
        return (await running).stop

    run(main())
    assert words in said[0]
    assert "the run stops" not in said[0]


def test_a_fixed_number_of_requests_is_no_flood_where_refusals_name_a_short_wait() -> None:
    """Refusals come in milliseconds, and each asks for a second: without a window all slots wait for a while, too."""
    rows, answered = RowsInMemory(1000), list[float]()

    def script(_row: int, _attempt: int) -> tuple[float, Reply]:
        now = asyncio.get_running_loop().time()
        if sum(at > now - 1 for at in answered[-10:]) >= 10:
            return 0.004, asked_to_wait(1)
        answered.append(now)
        return 0.2, answer()

    stop, service = carry(rows, script, concurrency=64, jitter=random.Random(3).random)
    assert stop is None
    assert all_succeeded(rows, 1000)
    assert service.ended[-1][0] < 130
    assert len(service.sent) < 130 * 64


# -- room ------------------------------------------------------------------------------------------------------------


def test_the_loop_waits_for_room_and_is_told_of_it() -> None:
    """Without room no row is asked for; `on_room` wakes the loop."""
    rows = RowsInMemory(10, room=3)
    service = ScriptedService(always(answer()))

    async def main() -> Stop | None:
        runner = make_runner(rows, service)

        def make_room() -> None:
            rows.room = None
            rows.on_room()

        asyncio.get_running_loop().call_at(50.0, make_room)
        return (await runner.run()).stop

    assert run(main()) is None
    assert len(rows.by_row) == 10
    assert service.sent[3][0] == 50.0


def test_no_task_is_made_for_a_row() -> None:
    """A run has no task for a row, however many there are, so that memory does not grow with the table."""
    seen = set()

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        seen.add(len(asyncio.all_tasks()))
        return 1.0, answer()

    carry(RowsInMemory(200), script, concurrency=5)
    assert max(seen) == 1 + 5  # this one, and one for each exchange of the scripted service


# -- turns -----------------------------------------------------------------------------------------------------------

FIRST_S = 1.0  # when the first reply comes
SPREAD_S = 0.0002  # between a row's reply and the next one's


class Turns(RowsInMemory):
    """Rows that remember when how many were written down, in seconds after the first reply had come."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.told: list[tuple[float, int]] = []

    def record(self, records: Sequence[Record]) -> None:
        super().record(records)
        self.told.append((asyncio.get_running_loop().time() - FIRST_S, len(records)))


def turns(in_flight: int, replies: Callable[[int], tuple[float, Reply]]) -> list[tuple[float, int]]:
    """The turns of a run that sends all of its rows at once."""
    rows = Turns(in_flight)
    carry(rows, lambda row, _attempt: replies(row), concurrency=in_flight)
    assert len(rows.by_row) == in_flight
    return rows.told


def test_replies_that_come_at_once_are_dealt_with_together() -> None:
    """A turn writes them with one call."""
    few = COALESCED_FROM - 1
    assert turns(few, lambda _row: (FIRST_S, answer())) == [(0.0, few)]


def test_of_few_requests_in_flight_each_reply_is_dealt_with_as_it_comes() -> None:
    """None waits for others that may come soon."""
    few = COALESCED_FROM - 1
    whens, counts = zip(*turns(few, lambda row: (FIRST_S + row * SPREAD_S, answer())), strict=True)
    assert whens == pytest.approx([row * SPREAD_S for row in range(few)])
    assert set(counts) == {1}


def test_of_many_requests_in_flight_replies_that_come_close_together_are_dealt_with_at_once() -> None:
    """They wait for one another, but for no longer than eight milliseconds."""
    told = turns(4 * COALESCED_FROM, lambda row: (FIRST_S + row * SPREAD_S, answer()))
    assert told[0][0] == pytest.approx(COALESCE_S)
    assert max(count for _, count in told) >= COALESCE_S / SPREAD_S


def test_replies_of_a_fast_service_wait_for_a_tenth_of_what_they_took() -> None:
    """A longer wait would hold up the next requests."""
    fast_s = 0.005
    told = turns(128, lambda row: (fast_s + row * SPREAD_S, answer()))
    assert told[0][0] == pytest.approx(fast_s * 1.1 - FIRST_S)


def test_large_replies_are_written_one_by_one() -> None:
    """So that few of them are in memory at a time, also where they come at once."""
    long = answer("x" * LARGE_BYTES)
    assert turns(6, lambda _row: (FIRST_S, long)) == [(0.0, 1)] * 6


def test_replies_that_have_come_are_recorded_when_the_run_is_given_up() -> None:
    """They are paid for, though their turn has not come yet."""
    rows = RowsInMemory(100)
    service = ScriptedService(by_row({3: (1.0, answer())}, (9.0, answer())))

    async def main() -> Stop | None:
        runner = make_runner(rows, service, concurrency=100)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(1.0)
        while not service.ended:  # noqa: ASYNC110 - the very moment in which it ends is what this is about
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(runner.stop_now, TERMINATED)
        return (await running).stop

    assert run(main()) == TERMINATED
    assert set(rows.by_row) == {3}
