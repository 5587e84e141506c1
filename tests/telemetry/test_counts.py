"""The numbers of a session, whatever its rows are and however they come."""

import sys
from bisect import bisect_left
from collections import Counter
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cometbatch.records import Answered, Outcome, Usage
from cometbatch.telemetry import counts, names
from cometbatch.telemetry.counts import Counts, Histogram, Points
from cometbatch.telemetry.names import Metric
from tests.telemetry.outcomes import ASKED, SECRET, answered, completion, failed, outcomes

ROWS = st.lists(outcomes(), max_size=40)


def counted(*turns: list[Outcome]) -> dict[str, Points]:
    """The points of rows that came in these turns."""
    made = Counts(ASKED)
    for turn in turns:
        made.record(turn)
    return made.points()


def total(points: Points) -> Any:
    """The sum of numbers, or of histograms' values."""
    return sum(value.sum if isinstance(value, Histogram) else value for _, value in points)


def plain(points: dict[str, Points]) -> object:
    """Points to compare, in any order."""
    return {
        name: Counter(
            (
                tuple(sorted(attributes.items())),
                (tuple(value.counts), round(value.sum, 6), value.least, value.most)
                if isinstance(value, Histogram)
                else value,
            )
            for attributes, value in some
        )
        for name, some in points.items()
    }


def sent(rows: list[Outcome]) -> list[Outcome]:
    """Those for which there was a request."""
    return [row for row in rows if row.attempts]


def usage_of(row: Outcome) -> Usage:
    """What was used for a row."""
    return row.completion.usage if isinstance(row, Answered) else row.usage


@given(ROWS)
@settings(max_examples=60)
def test_sums_are_those_of_the_rows(rows: list[Outcome]) -> None:
    """Tokens by kind, cost, rows by status, reused and unpriced rows are what one gets by adding up row by row."""
    points = counted(rows)
    for field, metric in names.USAGE.items():
        assert total(points[metric.name]) == sum(getattr(usage_of(row), field) or 0 for row in sent(rows))
    assert total(points["cometbatch.cost_usd"]) == sum((row.cost_usd or Decimal(0) for row in sent(rows)), Decimal(0))
    statuses = Counter(row.status if isinstance(row, Answered) else "failed" for row in rows)
    assert Counter({str(each["status"]): 0 for each, _ in points["cometbatch.rows"]}) | statuses == Counter(
        {status: sum(value for each, value in points["cometbatch.rows"] if each["status"] == status)  # type: ignore[misc]
         for status in statuses}
    )  # fmt: skip
    assert total(points["cometbatch.reused"]) == sum(isinstance(row, Answered) and not row.attempts for row in rows)
    billed = [row for row in sent(rows) if isinstance(row, Answered) or row.asks > 1]
    assert total(points["cometbatch.unpriced"]) == sum(row.cost_usd is None for row in billed)


@given(ROWS)
@settings(max_examples=60)
def test_histograms_count_each_row_that_was_sent_once(rows: list[Outcome]) -> None:
    """In its bucket, whose upper bound is its own; a row that was not sent has no duration and no tokens."""
    points = counted(rows)
    values: dict[Metric, list[float]] = {
        names.DURATION: [row.latency_s for row in sent(rows) if row.latency_s is not None],
        names.INPUT_TOKENS: [usage_of(row).input_tokens or 0 for row in sent(rows)],
        names.OUTPUT_TOKENS: [usage_of(row).output_tokens or 0 for row in sent(rows)],
    }
    for metric, expected in values.items():
        histograms = [value for _, value in points[metric.name] if isinstance(value, Histogram)]
        buckets = [sum(each.counts[at] for each in histograms) for at in range(len(metric.bounds) + 1)]
        found = Counter(bisect_left(metric.bounds, value) for value in expected)
        assert buckets == [found[at] for at in range(len(buckets))]
        if expected:
            assert min(each.least for each in histograms if each.least is not None) == min(expected)
            assert max(each.most for each in histograms if each.most is not None) == max(expected)


@given(ROWS, st.integers(1, 10), st.integers(1, 8))
@settings(max_examples=60)
def test_numbers_do_not_depend_on_how_rows_come(rows: list[Outcome], size: int, at_once: int) -> None:
    """One by one or all in a turn, counted at once or later: the same points. To look changes nothing."""
    turns = [rows[at : at + size] for at in range(0, len(rows), size)]
    together, before = plain(counted(rows)), counts.ROWS_AT_ONCE
    try:
        counts.ROWS_AT_ONCE = at_once  # type: ignore[misc]
        made = Counts(ASKED)
        for turn in turns:
            made.record(turn)
            made.points()
    finally:
        counts.ROWS_AT_ONCE = before  # type: ignore[misc]
    assert plain(made.points()) == together


@given(ROWS)
@settings(max_examples=40)
def test_each_point_has_an_identity_of_its_own(rows: list[Outcome]) -> None:
    """No two points of a metric have the same attributes, all are named by it, and none is a row's own text."""
    for metric in names.METRICS:
        points = counted(rows)[metric.name]
        identities = [tuple(sorted(attributes.items())) for attributes, _ in points]
        assert len(set(identities)) == len(identities)
        for attributes, _ in points:
            assert attributes.keys() <= set(metric.attributes)
            assert SECRET not in map(str, attributes.values())


def test_a_service_that_names_a_model_for_each_reply_fills_no_memory() -> None:
    """Ten names are told apart for each target; further ones, and what is no name, are one series."""
    rows: list[Outcome] = [answered(completion=completion(f"model-{row}"), target=row % 2) for row in range(2_000)]
    rows += [answered(completion=completion(name)) for name in (SECRET, "x" * 201, "", "\ud800", "a\nb", "tab\there")]
    points = counted(rows)["gen_ai.client.inference.duration"]
    named = Counter(str(each["gen_ai.request.model"]) for each, _ in points)
    assert named == {"large": 11, "small": 11}
    assert sum(value.count for _, value in points if isinstance(value, Histogram)) == len(rows)
    assert {each["gen_ai.response.model"] for each, _ in points} > {"_OTHER", "model-0"}


def test_failed_rows_are_counted_with_no_tokens() -> None:
    """The counters of tokens have them with 0, and the histograms at 0, as the conventions want it."""
    points = counted([failed()])
    assert all(total(points[metric.name]) == 0 for metric in names.USAGE.values())
    ((attributes, value),) = points["gen_ai.client.inference.operation.output_tokens"]
    assert (attributes["error.type"], isinstance(value, Histogram) and value.count) == ("rate_limited", 1)
    assert "error.type" not in points["gen_ai.client.inference.usage.input_tokens"][0][0]


def test_sums_of_many_rows_are_exact() -> None:
    """A cost is added as a decimal, and not rounded to what a sum of 28 digits has room for."""
    rows: list[Outcome] = [answered(cost_usd=Decimal(text)) for text in ("99999999999999.9", "0.000000000000000001")]
    ((_, cost),) = counted(rows)["cometbatch.cost_usd"]
    assert cost == Decimal("99999999999999.900000000000000001")


def test_a_row_takes_four_calls() -> None:
    """Counts of calls are the same on a busy machine: whatever is done a row in Python is a method of a list."""
    made, calls = Counts(ASKED), Counter[str]()
    turns: list[list[Outcome]] = [[answered(row) for row in range(32)] for _ in range(64)]

    def count(_: object, event: str, __: object) -> None:
        calls[event] += 1

    sys.setprofile(count)
    try:
        for turn in turns:
            made.record(turn)
    finally:
        sys.setprofile(None)
    rows = 64 * 32
    assert calls["call"] < 0.1 * rows
    assert calls["c_call"] < 4.5 * rows
