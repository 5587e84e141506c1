"""Pairs, verdicts and rubrics: what a judge's answers come to, and that missing is missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cometbatch.evaluation.judge import (
    ORDERS,
    Judged,
    Verdict,
    pair_figures,
    pair_value,
    pairs,
    read_rubric,
    read_verdict,
    single_value,
)
from cometbatch.job.judging import VERDICT_SCHEMA, rubric_schema
from cometbatch.prompt.schema import SchemaChecker

VERDICTS: tuple[Verdict | None, ...] = ("1", "2", "tie", None)


def test_pairs_are_against_the_baseline_or_of_all() -> None:
    """The baseline is always y, so that a win rate is that of the other."""
    assert pairs(3, baseline=1) == [(0, 1), (2, 1)]
    assert pairs(3) == [(0, 1), (0, 2), (1, 2)]
    assert pairs(1) == []


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"reason": "shorter", "verdict": "1"}', "1"),
        ('{"verdict": 2}', "2"),
        ('```json\n{"verdict": "tie"}\n```', "tie"),
        ('{"verdict": "3"}', None),
        ('{"verdict": true}', None),
        ('{"verdict": 1.0}', None),
        ('{"verdict": ["1"]}', None),
        ('{"verdict": "1"', None),
        ("Answer 1 is better", None),
        ("[]", None),
        ("", None),
        (None, None),
    ],
)
def test_a_verdict_that_does_not_fit_is_missing(text: str | None, verdict: Verdict | None) -> None:
    """Never a tie, and never a loss."""
    assert read_verdict(text) == verdict


@given(text=st.text(max_size=200))
def test_any_text_is_a_verdict_or_none(text: str) -> None:
    """Whatever a judge answers."""
    assert read_verdict(text) in VERDICTS


def test_the_schemas_take_what_is_read() -> None:
    """A judge that keeps to its schema gives a verdict."""
    answer = '{"reason": "clear", "verdict": "2"}'
    assert SchemaChecker(VERDICT_SCHEMA).cells(answer) is not None
    assert read_verdict(answer) == "2"
    criteria = {"clear": (1, 5), "right": (0, 1)}
    rubric = '{"reason": "good", "clear": 4, "right": 1}'
    assert SchemaChecker(rubric_schema(criteria)).cells(rubric) is not None
    assert read_rubric(rubric, criteria) == {"clear": 4, "right": 1}


@pytest.mark.parametrize("said", ["6", "0", "3.5", "3.0", '"3"', "true", "null"])
def test_a_number_out_of_range_is_missing(said: str) -> None:
    """So is one that is no whole number; the other criteria stay."""
    assert read_rubric(f'{{"clear": {said}, "right": 1}}', {"clear": (1, 5), "right": (0, 1)}) == {
        "clear": None,
        "right": 1,
    }
    assert read_rubric("no JSON", {"clear": (1, 5)}) == {"clear": None}


def test_half_of_a_pair_is_no_pair() -> None:
    """The value is the mean of both orders; with one order only, there is none."""
    assert pair_value("1", "2") == 1.0
    assert pair_value("1", "1") == 0.5
    assert pair_value("tie", "2") == 0.75
    assert pair_value("1", None) is None
    assert pair_value(None, "2") is None
    assert [single_value("1", order) for order in ORDERS] == [1.0, 0.0]
    assert single_value(None, "xy") is None


@given(verdicts=st.lists(st.tuples(st.sampled_from(VERDICTS), st.sampled_from(VERDICTS)), max_size=20))
def test_swapping_the_two_changes_sides_alone(verdicts: list[tuple[Verdict | None, Verdict | None]]) -> None:
    """Seen from y: the rest of the wins, as many flips and missing pairs."""
    ours = pair_figures(Judged(at, *each) for at, each in enumerate(verdicts))
    theirs = pair_figures(Judged(at, yx, xy) for at, (xy, yx) in enumerate(verdicts))
    assert (ours.pairs, ours.missing, ours.consistent, ours.flips) == (
        theirs.pairs,
        theirs.missing,
        theirs.consistent,
        theirs.flips,
    )
    assert ours.pairs + ours.missing == len(verdicts)
    if ours.win_rate is not None and theirs.win_rate is not None:
        assert ours.win_rate + theirs.win_rate == pytest.approx(1)
        assert ours.first_place == pytest.approx(theirs.first_place)
        assert ours.se == (None if theirs.se is None else pytest.approx(theirs.se))


def test_pairs_of_one_question_are_one_cluster() -> None:
    """Samples of a question say less than as many questions; without pairs there is nothing to say."""
    samples = [Judged(at // 4, "1" if at < 8 else "2", "2" if at < 8 else "1") for at in range(16)]
    apart = [Judged(at, each.xy, each.yx) for at, each in enumerate(samples)]
    together = pair_figures(samples)
    assert together.win_rate == pair_figures(apart).win_rate == 0.5
    assert together.se is not None
    assert together.se > 2 * (pair_figures(apart).se or 0)
    assert pair_figures([]).win_rate is None
    assert pair_figures([]).first_place is None
