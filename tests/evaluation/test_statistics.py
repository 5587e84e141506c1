"""What statistics say where there is little to go by, and what they never say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cometbatch.evaluation.statistics.agreement import kappa
from cometbatch.evaluation.statistics.bradley_terry import Resampled, Strengths, Unfit, fit, resampled, wins_of
from cometbatch.evaluation.statistics.length_control import length_control
from cometbatch.evaluation.statistics.means import estimate, wilson
from cometbatch.evaluation.statistics.paired import holm, mcnemar, paired
from cometbatch.evaluation.statistics.pass_k import pass_all, pass_at
from cometbatch.evaluation.statistics.planning import questions_needed, with_samples
from cometbatch.evaluation.statistics.sums import Sums

ANSWERS = st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=5), min_size=1, max_size=30)


@given(answers=ANSWERS, clusters=st.integers(1, 10))
def test_an_interval_holds_its_mean_and_is_never_a_point(answers: list[list[float]], clusters: int) -> None:
    """Whatever the scores: it lies within [0, 1], has a width, and is missing only where there is one cluster."""
    found = estimate(Sums.of(answers, [at % clusters for at in range(len(answers))]))
    if found is None:
        assert not any(answers)
        return
    if found.interval is None:
        assert found.clusters == 1 < found.answers
        return
    assert 0 <= found.interval.low <= found.mean <= found.interval.high <= 1
    assert found.interval.high - found.interval.low > 0.001


@given(answers=st.lists(st.integers(0, 4), min_size=2, max_size=30))
def test_equal_samples_have_the_error_of_question_means(answers: list[int]) -> None:
    """With as many answers to each question, the clustered error is that of the questions' means."""
    found = estimate(Sums.of([[1.0] * right + [0.0] * (4 - right) for right in answers]))
    assert found is not None
    assert found.se == pytest.approx(np.std(answers, ddof=1) / 4 / math.sqrt(len(answers)), abs=1e-12)


@given(first=ANSWERS, second=ANSWERS)
def test_a_comparison_turned_around_says_the_same(first: list[list[float]], second: list[list[float]]) -> None:
    """Who is compared with whom changes the sign, and nothing else."""
    size = max(len(first), len(second))
    sums = [Sums.of([*each, *[[]] * (size - len(each))]) for each in (first, second)]
    there, back = paired(*sums), paired(*reversed(sums))
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        assert there.difference == pytest.approx(-back.difference)
        assert there.p == (None if back.p is None else pytest.approx(back.p))
        assert (there.questions, there.only_one) == (back.questions, back.only_one)
        if there.interval is not None:
            assert there.interval.high > there.interval.low


def test_without_scores_there_is_no_estimate() -> None:
    """Not 0, and no error."""
    assert estimate(Sums.of([])) is None
    assert estimate(Sums.of([[], []])) is None
    assert paired(Sums.of([[1.0], []]), Sums.of([[], [1.0]])) is None


def test_one_cluster_has_no_error() -> None:
    """Its error is unknown, which is not 0."""
    found = estimate(Sums.of([[1.0], [0.0], [1.0]], [7, 7, 7]))
    assert found is not None
    assert (found.se, found.interval, found.clusters) == (None, None, 1)
    compared = paired(Sums.of([[1.0], [0.0]], [7, 7]), Sums.of([[0.0], [0.0]], [7, 7]))
    assert compared is not None
    assert (compared.se, compared.interval, compared.p, compared.test) == (None, None, None, "none")


def test_a_single_question_with_one_answer_has_wilsons_interval() -> None:
    """One right answer leaves nearly everything open."""
    found = estimate(Sums.of([[1.0]]))
    assert found is not None
    assert (found.se, found.within, found.between, found.correlation) == (None, None, None, None)
    assert found.interval == wilson(1.0, 1)


def test_scores_of_another_scale_get_a_t_interval() -> None:
    """It may leave [0, 1]; where all are equal there is none, since their spread is unknown."""
    found = estimate(Sums.of([[120.0], [80.0], [95.0]]), is_bounded=False)
    assert found is not None
    assert found.method == "t"
    assert found.effective is None
    equal = estimate(Sums.of([[120.0], [120.0]]), is_bounded=False)
    assert equal is not None
    assert (equal.se, equal.interval) == (0.0, None)


def test_equal_differences_have_an_interval_and_a_test() -> None:
    """A line that is right on each of ten questions where the other is wrong: sure, but not of exactly 1."""
    found = paired(Sums.of([[1.0, 1.0]] * 10), Sums.of([[0.0, 0.0]] * 10))
    assert found is not None
    assert (found.difference, found.se) == (1.0, 0.0)
    assert found.interval is not None
    assert found.interval.low < 0.6
    assert found.interval.high == 1.0
    assert found.p is not None
    assert 0 < found.p < 0.05
    scale = paired(Sums.of([[5.0]] * 10), Sums.of([[3.0]] * 10), is_bounded=False)
    assert scale is not None
    assert (scale.difference, scale.interval, scale.p) == (2.0, None, None)


def test_questions_of_one_line_alone_are_counted() -> None:
    """More than one in twenty is told."""
    first = Sums.of([[1.0, 0.0]] * 20)
    second = Sums.of([[1.0, 1.0]] * 19 + [[]])
    found = paired(first, second)
    assert found is not None
    assert (found.questions, found.only_one, found.is_thinned) == (19, 1, False)
    found = paired(first, Sums.of([[1.0, 1.0]] * 18 + [[], []]))
    assert found is not None
    assert (found.only_one, found.is_thinned) == (2, True)


def test_mcnemar_is_only_for_one_right_or_wrong_answer_to_each_question() -> None:
    """With samples, with parts of a point, or with clusters of questions, it is the paired t test."""
    one = paired(Sums.of([[1.0], [0.0], [1.0]]), Sums.of([[0.0], [0.0], [1.0]]))
    samples = paired(Sums.of([[1.0, 1.0], [0.0, 1.0]]), Sums.of([[0.0, 1.0], [0.0, 0.0]]))
    points = paired(Sums.of([[1.0], [0.5], [1.0]]), Sums.of([[0.0], [0.0], [1.0]]))
    clusters = paired(Sums.of([[1.0], [0.0], [1.0]], [1, 1, 2]), Sums.of([[0.0], [0.0], [1.0]], [1, 1, 2]))
    found = [each.test for each in (one, samples, points, clusters) if each is not None]
    assert found == ["McNemar mid-p", "paired t", "paired t", "paired t"]


def test_more_samples_help_only_with_what_varies_within_questions() -> None:
    """From four to eight: half of the variance within goes, none of that between."""
    few, more = with_samples(0.1, 0.2, 50, 4), with_samples(0.1, 0.2, 50, 8)
    assert few.se == pytest.approx(math.sqrt((0.1 + 0.05) / 50))
    assert more.se == pytest.approx(math.sqrt((0.1 + 0.025) / 50))
    assert more.detectable == pytest.approx(2.801585 * more.se)
    assert questions_needed(0.1, 0) is None


def test_adjusted_p_values_end_at_one() -> None:
    """And there may be none."""
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_large_counts_stay_exact() -> None:
    """Neither overflow nor cancellation: thousands of answers, and tiny p-values."""
    assert pass_at(10_000, 1, 5_000) == 0.5
    assert pass_all(10_000, 9_999, 5_000) == 0.5
    assert mcnemar(0, 60).p_exact == pytest.approx(2 * 0.5**60)
    assert mcnemar(0, 60).p_mid == pytest.approx(0.5**60)


def test_kappa_needs_something_to_agree_on() -> None:
    """No case, or only one word."""
    assert kappa([[0, 0], [0, 0]]) is None
    assert kappa([[5, 0], [0, 0]]) is None


def games(*pairs: tuple[int, int]) -> list[tuple[int, int, int, float]]:
    """Wins of the first of each pair, each of a question of its own."""
    return [(question, *pair, 1.0) for question, pair in enumerate(pairs)]


def test_items_that_were_never_compared_have_no_strengths() -> None:
    """The reason names the parts."""
    found = fit(wins_of(games((0, 1), (1, 0), (2, 3), (3, 2)), 4).sum(0))
    assert found == Unfit("disconnected", ((0, 1), (2, 3)))
    assert found.describe(["a", "b", "c", "d"]) == (
        "no strengths: a, b and c, d were never compared with each other. Compare them, or set pairwise.ridge."
    )


def test_an_item_that_never_lost_has_no_strength() -> None:
    """It would be infinite; the reason names the item."""
    found = fit(wins_of(games((0, 1), (0, 2), (1, 2), (2, 1)), 3).sum(0))
    assert found == Unfit("separable", ((0,), (1, 2)))
    assert found.describe(["a", "b", "c"]) == (
        "no strengths: a never lost to b, c, so how much stronger it is can't be told. Set pairwise.ridge."
    )


def test_with_a_ridge_there_are_always_strengths() -> None:
    """Drawn together, and in the order of the wins."""
    for wins in (games((0, 1), (0, 2), (1, 2)), games((0, 1), (2, 0))):
        assert isinstance(fit(wins_of(wins, 4).sum(0), ridge=0.1), Strengths)


def test_clusters_that_all_say_the_same_give_no_interval() -> None:
    """An interval of no width would say that the strengths are known; nothing tells how far they may be."""
    wins = wins_of([(cluster, 0, 1, 1.0) for cluster in range(20)], 2)
    assert isinstance(fit(wins.sum(0), ridge=0.5), Strengths)
    assert resampled(wins, seed=0, ridge=0.5).intervals is None


def test_resampled_strengths_are_the_same_for_the_same_seed() -> None:
    """And others for another."""
    chance = np.random.Generator(np.random.PCG64(1))
    drawn = []
    for at in range(300):
        x, y = map(int, chance.choice(3, 2, replace=False))
        drawn.append((at % 60, x, y, float(chance.random() < 0.6)))
    wins = wins_of(drawn, 3)
    first, second, third = resampled(wins, seed=1), resampled(wins, seed=1), resampled(wins, seed=2)
    assert first == second
    assert first != third
    whole = fit(wins.sum(0))
    assert isinstance(whole, Strengths)
    assert first.intervals is not None
    for interval, value, error in zip(first.intervals, whole.values, whole.errors, strict=True):
        assert interval.low < value < interval.high
        assert (interval.high - interval.low) / error == pytest.approx(3.92, abs=1.0)


def test_resamples_without_strengths_are_counted() -> None:
    """Where they are many, there is no interval: it would be too narrow."""
    wins = wins_of(games((0, 1), (0, 1), (1, 0)), 2)
    found = resampled(wins, seed=1, resamples=200)
    assert isinstance(found, Resampled)
    assert found.intervals is None
    assert found.lost > 5


def test_length_that_tells_every_winner_has_no_fit() -> None:
    """Nor have too few pairs, or pairs of equal lengths."""
    assert length_control([1, 1, 0, 0], [10, 20, -10, -20]) is None
    assert length_control([1, 0], [10, -10]) is None
    assert length_control([1, 0, 1], [5, 5, 5]) is None
    assert length_control([1, 1, 1], [5, -5, 3]) is None
