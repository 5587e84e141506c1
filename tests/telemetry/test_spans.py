"""Which rows get a span, and what is in it."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import Failed, Outcome, Usage
from cometbatch.telemetry import names, spans
from cometbatch.telemetry.spans import RowSpans
from tests.telemetry.outcomes import ASKED, NOON, SECRET, answered, completion, failed, outcomes


def record(chosen: RowSpans, rows: Sequence[Outcome], before: int = 0) -> None:
    """Tell of rows, where there is anything to choose; `before`: how many there were."""
    lost, now = [row for row in rows if isinstance(row, Failed)], before + len(rows)
    if lost or now > chosen.due:
        chosen.record(rows, lost, now)


@given(st.lists(st.integers(0, 2_700), max_size=12))
@settings(max_examples=50)
def test_a_row_of_a_thousand_has_a_span(turns: list[int]) -> None:
    """The first, the 1,001st and so on, however many rows a turn has."""
    chosen, row = RowSpans(ASKED), 0
    for size in turns:
        record(chosen, [answered(each) for each in range(row, row + size)], row)
        row += size
    assert [each.attributes["cometbatch.ordinal"] for each in chosen.take()] == list(range(0, row, 1_000))
    assert chosen.take() == []


@pytest.mark.parametrize("turn", [1, 7, 40])
def test_failed_rows_have_spans_ten_each_second(turn: int) -> None:
    """By the second in which a row ended: a storm of failures is told of, and floods nobody."""
    rows = [failed(row, finished_at=NOON + timedelta(seconds=row // 40)) for row in range(120)]
    chosen = RowSpans(ASKED)
    for at in range(0, len(rows), turn):
        record(chosen, rows[at : at + turn], at)
    found = [each.attributes["cometbatch.ordinal"] for each in chosen.take()]
    assert found == [*range(10), *range(40, 50), *range(80, 90)]


def test_spans_that_nobody_takes_are_bounded() -> None:
    """Later ones are dropped until those that are kept are sent."""
    chosen = RowSpans(ASKED)
    for second in range(300):
        record(chosen, [failed(row, finished_at=NOON + timedelta(seconds=second)) for row in range(10)], 10 * second)
    assert len(chosen.take()) == spans.MOST


def test_a_span_says_how_a_row_was_asked_and_answered() -> None:
    """Its times are those of the last request."""
    chosen = RowSpans(ASKED, "json")
    record(chosen, [answered(7, completion=completion(usage=Usage(30, 4, reasoning_output_tokens=2)), target=1)])
    (span,) = chosen.take()
    assert span.name == "chat small"
    assert span.end_ns - span.start_ns == 500_000_000
    assert span.end_ns == int(NOON.timestamp()) * 10**9
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small",
        "gen_ai.response.model": "large-2026",
        "gen_ai.response.id": "id-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.output.type": "json",
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "server.address": "api.example.com",
        "server.port": 443,
        "http.response.status_code": 200,
        "cometbatch.ordinal": 7,
        "cometbatch.attempts": 1,
        "cometbatch.asks": 1,
        "cometbatch.cost_usd": 0.000123,
        "cometbatch.request_id": "req-1",
    }


def test_a_failed_row_says_which_kind_of_error_and_no_message() -> None:
    """One that was never sent is no call to anybody."""
    chosen = RowSpans(ASKED)
    record(chosen, [failed(), failed(attempts=0, latency_s=None)])
    first, second = chosen.take()
    assert first.attributes["error.type"] == "rate_limited"
    assert first.attributes["http.response.status_code"] == 429
    assert (first.is_failed, first.is_sent, second.is_sent) == (True, True, False)
    assert second.start_ns == second.end_ns


@given(st.lists(outcomes(), max_size=20))
@settings(max_examples=40)
def test_no_text_of_a_row_is_in_a_span(rows: list[Outcome]) -> None:
    """Prompts, answers, messages, codes, and the row's own name stay here. A reused row has no span."""
    chosen = RowSpans(ASKED)
    record(chosen, rows)
    for span in chosen.take():
        assert SECRET not in repr(span)
        assert span.attributes.keys() <= names.ROW_ATTRIBUTES.keys()
        assert span.is_failed or span.is_sent
