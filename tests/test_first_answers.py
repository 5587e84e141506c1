"""A service that may ignore what is asked for: few calls, and none twice, until one of its answers was JSON."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.commands.asking import acceptance, first_answers
from cometbatch.control.budget import Budget
from cometbatch.control.first_answers import ENOUGH
from cometbatch.job import Response
from cometbatch.prompt.answers import Fits, Misfit, Verdict
from cometbatch.records import (
    Answered,
    AskAgain,
    CallRequest,
    Completion,
    Done,
    Failed,
    Record,
    RejectedAsk,
    Tally,
    Usage,
)
from cometbatch.results import tallies
from cometbatch.runner.ports import Reply, Stop
from tests.scripted_run import (
    CHAT,
    MODEL,
    PRICE_USD,
    RowsInMemory,
    Script,
    ScriptedService,
    make_runner,
    refused,
    row_request,
)
from tests.virtual_time import run

GOOD, ODD, PROSE, EMPTY = '{"n":1}', '{"n":"one"}', "Surely: one.", " "


class OneNumber:
    """Takes a JSON object whose n is a number."""

    def check(self, text: str) -> Verdict:
        """Whether it is one."""
        try:
            value = json.loads(text)
        except ValueError:
            return Misfit(("$: not JSON",), is_json=False)
        is_it = isinstance(value, dict) and isinstance(value.get("n"), int)
        return Fits(value) if is_it else Misfit(('$.n: "one" is not of type "integer"',), is_json=True)


def said(text: str, finish: Any = "stop", *, tokens: int = 2) -> Reply:
    """An answer of this text."""
    return CHAT.build_response(MODEL, Completion(text, finish, Usage(3, tokens)))


def plan(*texts: str) -> Script:
    """Each row gets these answers, one after the other, the last one for ever."""
    return lambda _row, attempt: (1.0, said(texts[min(attempt, len(texts)) - 1]))


class Session:
    """A session over a table of rows, with what earlier sessions recorded."""

    def __init__(self, table: int, script: Script, *before: "Session", max_asks: int = 2, **settings: Any) -> None:
        records = [record for each in before for record in each.rows.records]
        done = {record.ordinal for record in records if isinstance(record, Answered | Failed)}
        asks: dict[int, list[RejectedAsk]] = {}
        for record in records:
            if isinstance(record, RejectedAsk) and record.ordinal not in done:
                earlier = asks.get(record.ordinal, [])
                asks[record.ordinal] = [*(each.without_text() for each in earlier), record]
        counting: list[Record] = [record for record in records if not isinstance(record, RejectedAsk)]
        counting += [ask for some in asks.values() for ask in some]
        self.bill = tallies.tally(counting)
        self.rows: RowsInMemory = RowsInMemory([row_request(row) for row in range(table) if row not in done])
        self.service = ScriptedService(script)
        self.service.accept = acceptance(OneNumber(), CHAT, Response(json=True, max_asks=max_asks))
        self.first = first_answers(OneNumber(), Response(json=True), self.bill, asks.values())
        settings = {"concurrency": 50, "earlier": self.bill, "rejected": asks, "first_answers": self.first, **settings}
        self.stop: Stop | None = run(make_runner(self.rows, self.service, **settings).run()).stop

    @property
    def sent(self) -> int:
        """How many requests it sent."""
        return len(self.service.sent)


def test_a_service_that_answers_in_prose_is_stopped_after_twenty_answers() -> None:
    """They are paid, and recorded with their texts; no row is answered, and no row is asked twice."""
    first = Session(100, plan(PROSE))
    assert first.stop is not None
    assert (first.stop.kind, first.stop.fix) == ("refused", "response")
    assert first.stop.message == "20 answers came, and none of them was JSON"
    assert "response.mode: prompt" in first.stop.hint
    assert (first.sent, first.service.peak, first.rows.recorded) == (ENOUGH, ENOUGH, [])
    assert {ask.completion and ask.completion.text for ask in first.rows.asks} == {PROSE}
    total = tallies.tally(first.rows.records)
    assert (total.rejected, total.rejected_cost_usd, total.input_tokens) == (ENOUGH, ENOUGH * PRICE_USD, 3 * ENOUGH)


def test_after_such_a_stop_one_call_decides() -> None:
    """It costs one more answer to find that nothing has changed, and none twice once the service heeds the job."""
    first = Session(100, plan(PROSE))
    second = Session(100, plan(PROSE), first)
    assert second.stop is not None
    assert (second.sent, second.service.rows, second.stop.message[:10]) == (1, [ENOUGH], "21 answers")
    third = Session(100, plan(GOOD), first, second)
    assert third.stop is None
    assert third.service.sent[0][0] < third.service.sent[1][0] == third.service.sent[2][0]  # one, then all
    assert third.sent == 100
    by_row = third.rows.by_row
    assert [by_row[row].asks for row in (0, 20, 21, 99)] == [2, 2, 1, 1]
    everything = [*first.rows.records, *second.rows.records, *third.rows.records]
    assert len([record for record in everything if isinstance(record, RejectedAsk)]) == 21
    assert tallies.tally(third.rows.recorded).cost_usd == 121 * PRICE_USD
    assert tallies.tally(third.rows.recorded).reasked_cost_usd == 21 * PRICE_USD


def test_the_first_json_releases_what_was_held() -> None:
    """Rows whose answers came before it are asked again; none of them is paid for twice at the same ask."""

    def script(row: int, attempt: int) -> tuple[float, Reply]:
        return (10.0 if row == 7 else 1.0), said(GOOD if row == 7 or attempt > 1 else PROSE)

    session = Session(60, script, max_asks=3)
    assert session.stop is None
    assert all(outcome.asks == (1 if row == 7 else 2) for row, outcome in session.rows.by_row.items() if row < ENOUGH)
    assert tallies.tally(session.rows.recorded).succeeded == 60


@pytest.mark.parametrize("rows", [1, 5, ENOUGH - 1])
def test_rows_of_a_small_table_are_asked_again_without_waiting_for_json(rows: int) -> None:
    """No further row could bring it."""
    session = Session(rows, plan(PROSE, GOOD))
    assert session.stop is None
    assert [outcome.asks for outcome in session.rows.by_row.values()] == [2] * rows
    assert tallies.tally(session.rows.recorded).succeeded == rows


def test_a_small_table_of_prose_ends_with_rows_that_do_not_fit() -> None:
    """They were asked as often as the job says, and the last text stays beside the words of the check."""
    session = Session(5, plan("One.", PROSE))
    assert session.stop is None
    for outcome in session.rows.by_row.values():
        assert isinstance(outcome, Answered)
        said_last = outcome.completion
        assert (outcome.status, said_last.finish_reason, said_last.text) == ("incomplete", "invalid", PROSE)
        assert (said_last.detail, outcome.asks, outcome.cost_usd) == ("$: not JSON", 2, 2 * PRICE_USD)
        assert outcome.rejected_cost_usd == PRICE_USD


def test_a_second_ask_shows_the_model_its_last_answer_alone() -> None:
    """The row's own messages, the last answer word for word, and what is wrong with it: no earlier try."""
    texts = iter(['{"n":"a"}', "b", GOOD])
    asked: list[list[tuple[str, str]]] = []
    service = ScriptedService(lambda _row, _attempt: (1.0, said(next(texts))))
    judge = acceptance(OneNumber(), CHAT, Response(json=True, max_asks=3))

    def accept(request: CallRequest, completion: Completion, ask: int) -> Any:
        found = judge(request, completion, ask)
        if hasattr(found, "request"):
            read = CHAT.parse_request(found.request.http)
            asked.append([(each.role, each.text) for each in read.prompt.messages])  # type: ignore[union-attr]
        return found

    service.accept = accept
    rows = RowsInMemory([row_request(0, estimated_tokens=10)])
    run(make_runner(rows, service, first_answers=None).run())
    begin, end = "Your answer does not fit the schema:\n- ", "\nAnswer again, with the JSON alone."
    words, not_json = begin + '$.n: "one" is not of type "integer"' + end, begin + "$: not JSON" + end
    assert asked == [
        [("user", "0"), ("assistant", '{"n":"a"}'), ("user", words)],
        [("user", "0"), ("assistant", "b"), ("user", not_json)],
    ]
    assert (rows.by_row[0].asks, rows.by_row[0].request_hash) == (3, "hash-0")


@pytest.mark.parametrize(
    ("reply", "finish"),
    [
        (said('{"n":', "length"), "length"),
        (said("", "refusal"), "refusal"),
        (said("", "content_filter"), "content_filter"),
        (said(EMPTY), "stop"),
    ],
)
def test_what_was_cut_refused_filtered_or_empty_is_not_asked_again(reply: Reply, finish: str) -> None:
    """It would be so again, and each ask is paid."""
    session = Session(30, lambda row, _attempt: (1.0, said(GOOD) if row else reply))
    assert session.stop is None
    outcome = session.rows.by_row[0]
    assert isinstance(outcome, Answered)
    assert (outcome.status, outcome.completion.finish_reason, outcome.asks) == ("incomplete", finish, 1)
    assert session.sent == 30


def test_refusals_say_nothing_of_the_service() -> None:
    """A table of rows that a model refuses is answered to its end, few rows at a time until the first JSON."""
    session = Session(100, lambda row, _attempt: (1.0, said("", "refusal") if row < 60 else said(GOOD)))
    assert session.stop is None
    assert [time for time, _ in session.service.sent].count(0.0) == ENOUGH
    assert session.sent == 100


def test_answers_that_are_cut_stop_the_run_with_the_setting_to_raise() -> None:
    """Each of a whole table would be paid for nothing."""
    session = Session(100, lambda _row, _attempt: (1.0, said('{"n":', "length")))
    assert session.stop is not None
    assert "20 were cut at the token cap" in session.stop.message
    assert "params.max_output_tokens" in session.stop.hint
    later = Session(100, plan(GOOD), session)
    assert [outcome.asks for outcome in later.rows.by_row.values()] == [1] * 100
    assert tallies.tally(later.rows.recorded).incompletes == {"length": ENOUGH}
    assert later.sent == 80


def test_budget_and_limits_count_each_ask_with_its_larger_input() -> None:
    """The second ask sends the first one's answer, too."""
    reserved: list[Decimal] = []

    class Watched(Budget):
        def reserve(self, amount: Decimal) -> bool:
            reserved.append(amount)
            return super().reserve(amount)

    from cometbatch.records import Rates  # noqa: PLC0415

    service = ScriptedService(plan(ODD, GOOD))
    service.rates = Rates(input=Decimal(1), output=Decimal(0))
    service.accept = acceptance(OneNumber(), CHAT, Response(json=True))
    rows = RowsInMemory([row_request(0, max_output_tokens=10)])
    run(make_runner(rows, service, budget=Watched(Decimal(1), Decimal(0))).run())
    first, second = reserved
    body = row_request(0).http.body
    assert first == Decimal(len(body)) / 10**6
    assert second > first + Decimal(len(ODD)) / 10**6


ANSWERS = st.sampled_from([GOOD, GOOD, ODD, PROSE, EMPTY, "cut", "refusal", "broken"])


def replies(words: list[str]) -> Iterator[Reply]:
    """What a row meets, in turn."""
    for word in words:
        yield (
            refused(500)
            if word == "broken"
            else said(
                {"cut": PROSE, "refusal": ""}.get(word, word),
                {"cut": "length", "refusal": "refusal"}.get(word, "stop"),
            )
        )


@settings(max_examples=60, deadline=None)
@given(
    table=st.lists(st.lists(ANSWERS, min_size=1, max_size=4), min_size=1, max_size=45),
    max_asks=st.integers(1, 3),
    concurrency=st.integers(1, 30),
)
def test_every_row_ends_once_and_no_answer_is_paid_for_nothing(
    table: list[list[str]], max_asks: int, concurrency: int
) -> None:
    """Over as many sessions as it takes: what was sent and answered is what is recorded, call by call."""
    for row in table:
        row.append(GOOD)
    heard = [0] * len(table)

    def script(row: int, _attempt: int) -> tuple[float, Reply]:
        heard[row] += 1
        return 1.0 + row % 3, list(replies(table[row]))[min(heard[row], len(table[row])) - 1]

    sessions: list[Session] = []
    for _ in range(60):
        session = Session(len(table), script, *sessions, max_asks=max_asks, concurrency=concurrency, max_attempts=9)
        sessions.append(session)
        if session.stop is None:
            break
        assert session.stop.fix == "response"
    assert sessions[-1].stop is None
    outcomes = {key: each for session in sessions for key, each in session.rows.by_row.items()}
    assert sorted(outcomes) == list(range(len(table)))
    total = tallies.tally(outcomes.values())
    answered = 0
    for number, outcome in outcomes.items():
        assert isinstance(outcome, Answered)
        met = [words for words in table[number][: heard[number]] if words != "broken"]
        answered += len(met)
        assert outcome.asks == len(met) <= max_asks
        assert (outcome.status == "succeeded") == (met[-1] == GOOD)
    assert total.cost_usd == answered * PRICE_USD


def test_a_run_with_a_whole_answer_needs_no_proof() -> None:
    """Nor one whose answers did not fit, but were JSON."""
    asked = Response(json=True)
    assert first_answers(OneNumber(), asked, Tally(succeeded=1), []) is None
    ended = Tally(incomplete=2, incompletes={"invalid": 2})
    assert first_answers(OneNumber(), asked, ended, [], [PROSE, ODD]) is None
    prose = first_answers(OneNumber(), asked, ended, [], [PROSE, PROSE])
    assert prose is not None
    assert prose.room == ENOUGH - 2
    assert first_answers(OneNumber(), Response(pattern="x"), Tally(), []) is None
    session = Session(1, plan(ODD), max_asks=1)
    ask = RejectedAsk(0, 1, 1, session.rows.recorded[0].finished_at, Usage(), None, completion=Completion(ODD, "stop"))
    assert first_answers(OneNumber(), asked, Tally(rejected=1), [[ask]]) is None


def test_a_model_that_ignores_the_prompt_is_not_blamed_on_the_setting() -> None:
    """Where the prompt alone asks for JSON, another model is the way on, and no setting of the request."""
    first = first_answers(OneNumber(), Response(json=True, mode="prompt"), Tally(rejected=ENOUGH - 1), [])
    assert first is not None
    assert first.reason_to_stop() is None
    first.add(is_cut=False)
    found = first.reason_to_stop()
    assert found is not None
    assert (found.message, found.fix) == ("20 answers came, and none of them was JSON", "job")
    assert "Try another model. The next session starts with one call." in found.hint


def test_a_request_without_a_place_for_further_turns_is_asked_once() -> None:
    """Its answer is kept, with the words of the check beside it."""
    judge = acceptance(OneNumber(), CHAT, Response(json=True, max_asks=3))
    request = row_request(0)
    assert isinstance(judge(request, Completion(ODD, "stop"), 1), AskAgain)
    closed = msgspec.structs.replace(request, http=msgspec.structs.replace(request.http, body=b'{"messages":"a"}'))
    assert judge(closed, Completion(ODD, "stop"), 1) == Done('$.n: "one" is not of type "integer"', is_json=True)
