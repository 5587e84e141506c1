"""A call that is asked again: each ask is paid for, recorded before the next one, and part of the outcome's sums."""

import asyncio
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.control.budget import Budget
from cometbatch.records import (
    Acceptance,
    Answered,
    AskAgain,
    CallRequest,
    Completion,
    Done,
    Failed,
    HttpResponse,
    PossibleCharge,
    Rates,
    RejectedAsk,
    TransportFailure,
    Usage,
)
from cometbatch.results.tallies import tally
from cometbatch.runner.ports import Reply, Stop
from tests.scripted_run import (
    CHAT,
    MODEL,
    PRICE_USD,
    MarksInMemory,
    RowsInMemory,
    Script,
    ScriptedService,
    always,
    answer,
    in_turn,
    make_runner,
    refused,
    row_request,
)
from tests.virtual_time import run

BROKEN, BUSY, CUT = refused(500), refused(429), TransportFailure("connection", "cut")
Accept = Callable[[CallRequest, Completion, int], Acceptance]


def at_ask(wanted: int) -> Accept:
    """Takes the answer of this ask, and no earlier one."""
    return lambda request, _completion, ask: Done() if ask >= wanted else AskAgain(request)


def service(script: Script, accept: Accept) -> ScriptedService:
    """A service whose answers are looked at."""
    scripted = ScriptedService(script)
    scripted.accept = accept
    return scripted


def answer_without_counts() -> Reply:
    """An answer that does not say what it used."""
    return CHAT.build_response(MODEL, Completion("Four.", "stop"))


def test_an_outcome_has_the_sums_over_its_asks() -> None:
    """Attempts, usage and cost are those of all asks together; what the last one said is the answer."""
    rows, marks = RowsInMemory(1), MarksInMemory()
    replies = [answer("no", input_tokens=5, output_tokens=7), BROKEN, answer("yes", input_tokens=11, output_tokens=13)]
    run(make_runner(rows, service(in_turn(*replies), at_ask(2)), marks=marks).run())
    (outcome,) = rows.recorded
    assert isinstance(outcome, Answered)
    assert (outcome.completion.text, outcome.asks, outcome.attempts) == ("yes", 2, 3)
    assert (outcome.completion.usage.input_tokens, outcome.completion.usage.output_tokens) == (16, 20)
    assert outcome.cost_usd == 2 * PRICE_USD
    (ask,) = rows.asks
    assert (ask.ask, ask.attempt, ask.usage, ask.cost_usd) == (1, 1, Usage(5, 7), PRICE_USD)
    assert ask.completion is not None
    assert ask.completion.text == "no"
    assert [began[:3] for began in marks.began] == [(0, 1, 1), (0, 2, 1), (0, 2, 2)]
    assert marks.ended == [(0, True), (0, False), (0, True)]


def test_what_an_ask_cost_is_recorded_before_the_next_one_is_sent() -> None:
    """A crash in between does not forget it."""
    rows = RowsInMemory(1)
    recorded: list[int] = []

    def script(_row: int, _attempt: int) -> tuple[float, Reply]:
        recorded.append(len(rows.asks))
        return 1.0, answer()

    run(make_runner(rows, service(script, at_ask(4))).run())
    assert recorded == [0, 1, 2, 3]
    assert [type(record) for record in rows.records] == [RejectedAsk] * 3 + [Answered]


def test_the_next_ask_sends_what_it_is_given_and_keeps_the_hash_of_the_first() -> None:
    """The hash says what was sent first, whatever was asked afterwards."""
    rows = RowsInMemory(1)
    other = row_request(7)

    def accept(_request: CallRequest, _completion: Completion, ask: int) -> Acceptance:
        return Done() if ask == 2 else AskAgain(CallRequest(0, "id-0", other.http, "another hash", 1))

    asked = service(always(answer()), accept)
    run(make_runner(rows, asked).run())
    assert asked.rows == [0, 7]
    assert [outcome.request_hash for outcome in rows.recorded] == ["hash-0"]


def test_another_calls_request_is_a_bug() -> None:
    """Its answer would stand beside the wrong row."""
    with pytest.raises(ValueError, match="call 0 was to be asked again with the request of call 1"):
        run(make_runner(RowsInMemory(1), service(always(answer()), lambda *_: AskAgain(row_request(1)))).run())


FAULTS: list[Reply] = [BROKEN, BUSY, CUT]


@settings(max_examples=40, deadline=None)
@given(
    table=st.lists(
        st.tuples(st.lists(st.lists(st.sampled_from(FAULTS), max_size=2), min_size=1, max_size=4), st.booleans()),
        max_size=12,
    ),
    concurrency=st.integers(1, 5),
)
def test_every_call_ends_once_with_all_that_its_asks_took(
    table: list[tuple[list[list[Reply]], bool]], concurrency: int
) -> None:
    """Each ask of a call has its own faults, then an answer; or the last one is refused for good."""
    plans: list[list[Reply]] = []
    for asks, good in table:
        last: Reply = answer() if good else refused(400)
        plans.append([*[reply for faults in asks for reply in [*faults, answer()]][:-1], last])
    rows, marks = RowsInMemory(len(table)), MarksInMemory()
    asked = service(
        lambda row, attempt: (1.0, plans[row][attempt - 1]),
        lambda request, _completion, ask: Done() if ask >= len(table[request.ordinal][0]) else AskAgain(request),
    )
    stop = run(make_runner(rows, asked, concurrency=concurrency, marks=marks, max_attempts=9, max_alike=999).run()).stop
    assert stop is None
    assert sorted(rows.by_row) == list(range(len(table)))
    for row, (asks, good) in enumerate(table):
        outcome = rows.by_row[row]
        assert isinstance(outcome, Answered) == good
        assert (outcome.asks, outcome.attempts) == (len(asks), len(plans[row]))
        answers = len(asks) if good else len(asks) - 1
        assert (outcome.cost_usd or 0) == answers * PRICE_USD
    assert marks.rows == {}
    replies = [reply for plan in plans for reply in plan]
    assert len(rows.charges) == sum(reply is CUT for reply in replies)
    answers = sum(isinstance(reply, HttpResponse) and reply.status == 200 for reply in replies)
    assert tally(rows.recorded).cost_usd == answers * PRICE_USD


def test_a_call_that_fails_keeps_what_its_rejected_asks_cost() -> None:
    """It has no answer, and a bill."""
    rows = RowsInMemory(2)
    replies = [answer(input_tokens=5, output_tokens=7), refused(400)]
    asked = service(lambda row, attempt: (1.0, answer() if row else replies[attempt - 1]), at_ask(2))
    run(make_runner(rows, asked, concurrency=1, earlier=tally([])).run())
    failed = rows.by_row[0]
    assert isinstance(failed, Failed)
    assert (failed.asks, failed.attempts, failed.usage, failed.cost_usd) == (2, 2, Usage(5, 7), PRICE_USD)
    assert tally([failed]).cost_usd == PRICE_USD


def test_what_is_unknown_of_one_ask_is_unknown_of_the_call() -> None:
    """A sum over a part of the asks would be too small; what it can have come to is a possible charge."""
    request = row_request(0, max_output_tokens=10)
    rows = RowsInMemory([request])
    asked = service(in_turn(answer_without_counts(), answer(input_tokens=5, output_tokens=7)), at_ask(2))
    asked.rates = Rates(input=Decimal(1), output=Decimal(1))
    run(make_runner(rows, asked).run())
    (outcome,) = rows.recorded
    assert isinstance(outcome, Answered)
    assert (outcome.completion.usage.input_tokens, outcome.completion.usage.output_tokens) == (None, None)
    assert outcome.cost_usd is None
    total = tally(rows.recorded)
    assert (total.unpriced, total.charges, total.charges_usd) == (1, 1, outcome.max_cost_usd)
    assert outcome.max_cost_usd == Decimal(len(request.http.body) + 10 + 5 + 7) / 10**6


def test_failures_of_an_earlier_ask_do_not_count_against_the_next() -> None:
    """Each ask has its attempts: the answer in between shows that the service works."""
    rows = RowsInMemory(1)
    plan = [BROKEN, BROKEN, answer(), BROKEN, BROKEN, answer()]
    run(make_runner(rows, service(in_turn(*plan), at_ask(2)), max_attempts=3).run())
    assert isinstance(rows.by_row[0], Answered)


def test_possible_charges_and_marks_name_ask_and_attempt() -> None:
    """So that a mark of a killed process is settled by the record of just its attempt."""
    rows, marks = RowsInMemory(1), MarksInMemory()
    run(make_runner(rows, service(in_turn(CUT, answer(), CUT, CUT, answer()), at_ask(2)), marks=marks).run())
    assert [(charge.ask, charge.attempt) for charge in rows.charges] == [(1, 1), (2, 1), (2, 2)]
    assert [began[:3] for began in marks.began] == [(0, 1, 1), (0, 1, 2), (0, 2, 1), (0, 2, 2), (0, 2, 3)]


def test_after_a_stop_no_ask_is_sent_and_the_next_session_sums_up_all_of_them() -> None:
    """A stop between two asks leaves the first one's cost; the call goes on in the next session, and pays it once."""
    first, second = RowsInMemory(1), RowsInMemory(1)
    asked = service(always(answer(), latency=5.0), at_ask(3))

    async def session() -> Stop | None:
        runner = make_runner(first, asked)
        asyncio.get_running_loop().call_at(7.0, runner.stop, Stop("interrupted", "Interrupted."))
        return (await runner.run()).stop

    assert run(session()) is not None
    assert [ask.ask for ask in first.asks] == [1, 2]
    assert first.recorded == []
    run(make_runner(second, asked, rejected={0: first.asks}).run())
    assert second.asks == []
    (outcome,) = second.recorded
    assert isinstance(outcome, Answered)
    assert (outcome.asks, outcome.cost_usd, len(asked.sent)) == (3, 3 * PRICE_USD, 3)


def test_rejected_asks_use_up_the_budget() -> None:
    """Answers that nobody takes are paid for all the same."""
    rows = RowsInMemory(9)
    asked = service(always(answer()), at_ask(99))
    asked.max_cost_usd = PRICE_USD
    stop = run(make_runner(rows, asked, concurrency=2, budget=Budget(5 * PRICE_USD, Decimal(0))).run()).stop
    assert stop is not None
    assert (stop.kind, stop.fix, len(rows.asks), len(asked.sent)) == ("budget", "budget", 5, 5)
    assert not any(isinstance(record, PossibleCharge) for record in rows.records)
