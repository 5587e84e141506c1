"""Answers that were taken from earlier calls, as records, columns and totals: who paid is told, none counts twice."""

import functools
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.money.exact import EXACT
from cometbatch.records import Answered, Completion, Record, Tally, Usage
from cometbatch.results import row_checks
from cometbatch.results.codec import encode_record
from cometbatch.results.columns import (
    ASKED_COLUMNS,
    COLUMNS,
    REUSED_COLUMNS,
    columns_for,
    outcomes_table,
    read_outcomes,
)
from cometbatch.results.tallies import add, beyond, tally
from tests.test_output import NOW, costs, moments, outcome_lists

WITH_ORIGIN = columns_for(REUSED_COLUMNS)


@st.composite
def mixed(draw: st.DrawFn) -> list[Answered]:
    """Outcomes of consecutive rows with an answer, some of them taken from earlier calls."""
    answered = [outcome for outcome in draw(outcome_lists()) if isinstance(outcome, Answered)]
    return [_taken(draw, outcome) if draw(st.booleans()) else outcome for outcome in answered]


def _taken(draw: st.DrawFn, outcome: Answered) -> Answered:
    return msgspec.structs.replace(
        outcome,
        attempts=0,
        answered_attempts=(),
        cost_usd=Decimal(0),
        finished_at=draw(moments),
        reused_from=draw(st.sampled_from(["a" * 32, "b" * 32])),
        reused_ordinal=draw(st.integers(0, 2**40)),
        reused_cost_usd=draw(costs),
    )


@given(mixed())
@settings(max_examples=40)
def test_the_origin_survives_journal_and_part(outcomes: list[Answered]) -> None:
    """Who paid, the place there and the cost of then read back from a journal's line and from a part's columns."""
    for outcome in outcomes:
        assert msgspec.json.decode(encode_record(outcome), type=Answered) == outcome
    table = outcomes_table(outcomes, WITH_ORIGIN)
    first = outcomes[0].ordinal if outcomes else 0
    for before, after in zip(outcomes, read_outcomes(table, first, columns=WITH_ORIGIN), strict=True):
        assert isinstance(after, Answered)
        assert [getattr(after, name) for name in REUSED_COLUMNS] == [getattr(before, name) for name in REUSED_COLUMNS]


@given(mixed())
@settings(max_examples=40)
def test_a_total_is_of_what_this_run_asked_and_paid_for(outcomes: list[Answered]) -> None:
    """What was taken counts as an outcome and in fields of its own; every other figure is that of the rest alone."""
    paid = [outcome for outcome in outcomes if outcome.reused_from is None]
    taken = [outcome for outcome in outcomes if outcome.reused_from is not None]
    whole, rest = tally(outcomes), tally(paid)
    known = [outcome.reused_cost_usd for outcome in taken if outcome.reused_cost_usd is not None]
    assert (whole.calls, whole.reused, whole.reused_unpriced) == (len(outcomes), len(taken), len(taken) - len(known))
    assert whole.reused_cost_usd == functools.reduce(EXACT.add, known, Decimal(0))
    assert (whole.new_answers, whole.new_successes) == (len(paid), rest.succeeded)
    of_both = (
        "succeeded",
        "incomplete",
        "incompletes",
        *(name for name in Tally.__struct_fields__ if "reused" in name),
    )
    for name in set(Tally.__struct_fields__).difference(of_both):
        assert getattr(whole, name) == getattr(rest, name), name
    assert whole == add(rest, tally(taken))
    assert beyond(whole, tally(taken)) == msgspec.structs.replace(rest, incompletes=dict(rest.incompletes))


def test_a_run_without_the_columns_writes_what_it_did() -> None:
    """The columns are there where they are asked for; a journal line of an answer that was paid for has none of it."""
    record: Record = Answered(
        0, "succeeded", None, 1, 0.5, NOW, "ab", 200, None, Completion("x", "stop", Usage(1, 1)), Decimal(1)
    )
    assert b"reused" not in encode_record(record)
    assert columns_for(()) == COLUMNS
    assert {column.name for column in ASKED_COLUMNS} >= set(REUSED_COLUMNS)


CELLS: dict[str, Any] = {
    **{column.name: None for column in WITH_ORIGIN},
    "status": "succeeded",
    "response": "yes",
    "finish_reason": "stop",
    "http_status": 200,
    "attempts": 0,
    "latency_s": 0.5,
    "finished_at": NOW,
    "request_hash": "ab",
    "input_tokens": 3,
    "output_tokens": 1,
    "cost_usd": Decimal(0),
    "reused_from": "a" * 32,
    "reused_ordinal": 7,
    "reused_cost_usd": Decimal("0.1"),
}


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ({}, True),
        ({"reused_cost_usd": None}, True),
        ({"attempts": 1}, False),
        ({"asks": 2}, False),
        ({"reused_ordinal": None}, False),
        ({"reused_ordinal": -1}, False),
        ({"reused_cost_usd": Decimal(-1)}, False),
        ({"cost_usd": Decimal("0.1")}, False),
        ({"cost_usd": None}, False),
        ({"latency_s": None}, False),
        ({"reused_from": None}, False),
        ({"reused_from": None, "reused_ordinal": None, "reused_cost_usd": None}, False),  # attempts is 0
    ],
)
def test_a_row_that_was_taken_fits_together(changed: dict[str, Any], *, holds: bool) -> None:
    """`verify` holds a row that was taken against itself: who paid, that nothing was sent, and that it cost nothing."""
    cells = CELLS | changed
    assert (row_checks.contradiction(cells) is None and row_checks.wrong_cost(cells, None) is None) == holds
