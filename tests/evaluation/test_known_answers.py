"""Statistics against answers that are known: from tables, textbooks, other packages, and arithmetic."""

import math
from decimal import Decimal

import numpy as np
import pytest

from cometbatch.evaluation.judge import Judged, Verdict, pair_figures
from cometbatch.evaluation.statistics.agreement import kappa
from cometbatch.evaluation.statistics.bradley_terry import Strengths, fit, wins_of
from cometbatch.evaluation.statistics.conventions import cost_of_right, shares
from cometbatch.evaluation.statistics.groups import group_totals
from cometbatch.evaluation.statistics.length_control import length_control
from cometbatch.evaluation.statistics.means import Estimate, estimate, t_quantile, wilson
from cometbatch.evaluation.statistics.paired import Paired, holm, mcnemar, paired
from cometbatch.evaluation.statistics.pass_k import mean_of, pass_all, pass_at, tries
from cometbatch.evaluation.statistics.planning import DETECTABLE, detectable, needed, questions_needed, variance_of
from cometbatch.evaluation.statistics.sums import Sums


def near(value: object) -> object:
    """The same to six digits after the point."""
    return pytest.approx(value, abs=5.1e-7)


def bits(words: str) -> list[list[float]]:
    """Questions with their scores: "1101 0000"."""
    return [[float(sign) for sign in word] for word in words.split()]


def shares_of(right: int, answers: int) -> Sums:
    """Questions with one answer each."""
    return Sums.of([[1.0]] * right + [[0.0]] * (answers - right))


def estimated(sums: Sums, *, is_bounded: bool = True) -> Estimate:
    """The estimate, which there is."""
    found = estimate(sums, is_bounded=is_bounded)
    assert found is not None
    return found


def compared(first: Sums, second: Sums, *, is_bounded: bool = True) -> Paired:
    """The comparison, which there is."""
    found = paired(first, second, is_bounded=is_bounded)
    assert found is not None
    return found


SIX = bits("1111 1101 0000 1001 1111 0100")


@pytest.mark.parametrize(
    ("right", "answers", "low", "high"),
    [
        (81, 263, 0.255289, 0.366210),
        (15, 148, 0.062386, 0.160487),
        (0, 20, 0, 0.161125),
        (18, 20, 0.698966, 0.972134),
        (4, 20, 0.080658, 0.416017),
        (19, 38, 0.348499, 0.651501),
        (50, 50, 0.928652, 1),
    ],
)
def test_one_answer_a_question_has_wilsons_interval(right: int, answers: int, low: float, high: float) -> None:
    """Newcombe's table of 1998, and R's binom.confint: the rule for intervals is Wilson's where that is right."""
    found = wilson(right / answers, answers)
    assert (found.low, found.high) == (near(low), near(high))
    assert estimated(shares_of(right, answers)).interval == found


@pytest.mark.parametrize(
    ("answers", "right", "se"),
    [(307, 14, 0.011926), (123, 2, 0.011450), (154, 8, 0.017941), (2376, 1695, 0.009279)],
)
def test_the_error_of_a_share(answers: int, right: int, se: float) -> None:
    """With one answer a question it is the closed form with n - 1."""
    assert estimated(shares_of(right, answers)).se == near(se)


def test_an_error_by_clusters_of_questions() -> None:
    """Scores 0 to 19 in four clusters: CR1, CR0, and the t interval of scores that are no shares."""
    found = estimated(Sums.of([[float(at)] for at in range(20)], [at % 4 for at in range(20)]), is_bounded=False)
    assert (found.se, found.se_population, found.se_independent) == (near(0.645497), near(0.559017), near(1.322876))
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (near(7.445740), near(11.554260))
    assert found.method == "t"


def test_six_questions_with_four_answers() -> None:
    """The clustered error is that of the questions' means; few questions are capped at their number."""
    found = estimated(Sums.of(SIX))
    assert (found.mean, found.se, found.se_population) == (near(0.583333), near(0.166667), near(0.152145))
    assert found.se_independent == near(0.102799)
    assert (found.within, found.between, found.correlation) == (near(0.138889), near(0.131944), near(0.487179))
    assert found.mean * (1 - found.mean) / found.se_population**2 == near(10.5)
    assert found.effective == 6
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (near(0.180082), near(0.899234))
    assert found.se == near(np.std([1, 0.75, 0, 0.5, 1, 0.25], ddof=1) / math.sqrt(6))


@pytest.mark.parametrize(
    ("sums", "low", "high"),
    [
        (Sums.of([[1.0]] * 30), 0.886487, 1),
        (Sums.of([[1.0, 1.0]] * 29 + [[1.0, 0.0]]), 0.850001, 0.998375),
        (shares_of(137, 164), 0.771063, 0.884317),
    ],
)
def test_the_interval_near_the_end(sums: Sums, low: float, high: float) -> None:
    """All right is no proof of being always right, and one wrong answer of sixty no measure of spread."""
    found = estimated(sums).interval
    assert found is not None
    assert (found.low, found.high) == (near(low), near(high))


def test_the_interval_near_the_end_rests_on_the_questions() -> None:
    """Of 30 questions with two answers, only one is not all right: 30 is the number that counts."""
    found = estimated(Sums.of([[1.0, 1.0]] * 29 + [[1.0, 0.0]]))
    assert (found.mean, found.se, found.effective) == (near(0.983333), near(0.016667), 30)


@pytest.mark.parametrize(
    ("answers", "right", "k", "chance"),
    [
        (6, 3, 1, 0.5),
        (5, 1, 2, 0.4),
        (5, 2, 2, 0.7),
        (10, 3, 5, 0.916667),
        (200, 1, 100, 0.5),
        (4, 0, 4, 0),
        (4, 4, 2, 1),
    ],
)
def test_pass_at_k(answers: int, right: int, k: int, chance: float) -> None:
    """At least one of k is right: exact, from whole numbers."""
    assert pass_at(answers, right, k) == near(chance)


def test_pass_at_half_is_half() -> None:
    """Whole numbers are divided once: no 0.4999999999999999."""
    assert pass_at(6, 3, 1) == 0.5


@pytest.mark.parametrize(
    ("k", "at_least_one", "se", "all_of_them"),
    [
        (1, 0.583333, 0.166667, 0.583333),
        (2, 0.722222, 0.164804, 0.444444),
        (3, 0.791667, 0.163512, 0.375000),
        (4, 0.833333, 0.166667, 0.333333),
    ],
)
def test_pass_k_over_questions(k: int, at_least_one: float, se: float, all_of_them: float) -> None:
    """pass@k and pass^k are means over questions, with the error of such a mean."""
    rights = [int(sum(answers)) for answers in SIX]
    values = [pass_at(4, right, k) for right in rights]
    assert mean_of((value, 1) for value in values) == near(at_least_one)
    assert estimated(Sums.of([[value] for value in values])).se == near(se)
    assert mean_of((pass_all(4, right, k), 1) for right in rights) == near(all_of_them)


def test_which_k_are_shown() -> None:
    """Powers of two, and all answers."""
    assert [tries(fewest) for fewest in (0, 1, 2, 6, 8)] == [[], [1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.parametrize(
    ("first_only", "second_only", "exact", "mid"),
    [
        (121, 59, 4.434442e-6, 3.266647e-6),
        (70, 59, 0.378688, 0.334688),
        (80, 59, 0.089452, 0.075551),
        (10, 10, 1, 1),
        (0, 5, 0.0625, 0.03125),
        (0, 6, 0.03125, 0.015625),
        (3, 12, 0.035156, 0.021271),
        (0, 0, 1, 1),
    ],
)
def test_mcnemar(first_only: int, second_only: int, exact: float, mid: float) -> None:
    """Vassar's and R's examples, and small counts by hand."""
    found = mcnemar(first_only, second_only)
    assert found.p_exact == near(exact)
    assert found.p_mid == near(mid)


def discordant(first_only: int, second_only: int, questions: int) -> tuple[Sums, Sums]:
    """Two lines with one answer a question, both right on the rest."""
    rest = questions - first_only - second_only
    first = shares_of(questions - second_only, questions)
    second = Sums.of([[1.0]] * rest + [[0.0]] * first_only + [[1.0]] * second_only)
    return first, second


def test_a_small_difference_of_shares() -> None:
    """Three questions against twelve, of a hundred."""
    found = compared(*discordant(3, 12, 100))
    assert (found.difference, found.se) == (near(-0.09), near(0.037859))
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (near(-0.165121), near(-0.014879))
    assert (found.p, found.test) == (near(0.021271), "McNemar mid-p")


def test_no_difference_at_all_has_an_interval() -> None:
    """Two pseudo-questions, one won by each, give it a width."""
    found = compared(shares_of(30, 40), shares_of(30, 40))
    assert (found.difference, found.p) == (0, 1)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (near(-0.068933), near(0.068933))


def test_paired_t() -> None:
    """Student's sleep data."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0, 2]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = compared(Sums.of([[x] for x in first]), Sums.of([[x] for x in second]), is_bounded=False)
    assert (found.t, found.p, found.difference, found.se) == tuple(map(near, (-4.062128, 0.002833, -1.58, 0.388959)))
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (near(-2.459886), near(-0.700114))
    assert found.test == "paired t"


def test_paired_with_samples() -> None:
    """Eight questions with four answers in both lines."""
    first = Sums.of(bits("1101 0000 1111 1011 0100 1111 1100 0001"))
    second = Sums.of(bits("1001 0010 1111 0010 0000 1110 1000 0000"))
    found = compared(first, second)
    assert (found.difference, found.se, found.t, found.freedom) == (0.1875, near(0.078348), near(2.393172), 7)
    assert (found.p, found.test) == (near(0.047945), "paired t")
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (near(0.002237), near(0.372763))
    assert (found.unpaired_se, found.correlation) == (near(0.181450), near(0.814613))
    assert found.variance is not None
    assert found.variance == near(0.049107)
    assert needed(found.variance, found.difference) == near(10.963515)
    assert questions_needed(found.variance, found.difference) == 11
    assert needed(found.variance, 0.05) == near(154.174423)
    assert questions_needed(found.variance, 0.05) == 155
    assert found.se is not None
    assert detectable(found.se) == near(0.219498)


def test_paired_by_passages() -> None:
    """Questions on one passage share its luck."""
    differences = [1, 1, 0, -1, 1, 0, 1, 1, 0, 0, -1, 0, 1, 1, 1, 0, 0, 1]
    passages = [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 2
    first = Sums.of([[float(each > 0)] for each in differences], passages)
    second = Sums.of([[float(each < 0)] for each in differences], passages)
    found = compared(first, second)
    assert (found.difference, found.se, found.t, found.freedom) == (near(0.388889), near(0.206583), near(1.882485), 4)
    assert (found.p, found.test) == (near(0.132899), "paired t")
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (near(-0.184677), near(0.962454))
    naive = compared(Sums(first.totals, first.squares, first.counts), second)
    assert naive.se == near(0.164474)


@pytest.mark.parametrize(
    ("variance", "difference", "exact", "whole"),
    [
        (1 / 9, 0.03, 968.997498, 969),
        (variance_of(1 / 9, 2 / 6, 1), 0.03, 3875.989992, 3876),
        (variance_of(1 / 9, 2 / 6, 10), 0.03, 1259.696747, 1260),
        (0.15 - 0.03**2, 0.03, 1300.297743, 1301),
        (0.2 - 0.05**2, 0.05, 620.061499, 621),
    ],
)
def test_questions_needed(variance: float, difference: float, exact: float, whole: int) -> None:
    """The published example, with samples, and shares of which some differ."""
    assert needed(variance, difference) == near(exact)
    assert questions_needed(variance, difference) == whole
    assert near(7.848880) == DETECTABLE**2


def test_holm() -> None:
    """Each p-value is adjusted for being one of several."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == [near(0.03), near(0.06), near(0.06), near(0.02)]


@pytest.mark.parametrize(
    ("table", "agreement"),
    [([[20, 5], [10, 15]], 0.4), ([[45, 15], [25, 15]], 0.130435), ([[25, 35], [5, 35]], 0.259259)],
)
def test_kappa(table: list[list[int]], agreement: float) -> None:
    """Textbook examples."""
    assert kappa(table) == near(agreement)


def strengths(wins: list[tuple[int, int, int, float]], items: int) -> Strengths:
    """The fit, which there is."""
    found = fit(wins_of(wins, items).sum(0))
    assert isinstance(found, Strengths)
    return found


def test_baseball() -> None:
    """The American League of 1987: strengths against Baltimore with their errors."""
    wins = [[7, 9, 7, 7, 9, 11], [7, 5, 11, 9, 9], [7, 7, 8, 12], [6, 7, 10], [7, 12], [6]]
    games = [
        (0, team, other, float(won))
        for team, row in enumerate(wins)
        for other, of_13 in enumerate(row, team + 1)
        for won in [1] * of_13 + [0] * (13 - of_13)
    ]
    found = strengths(games, 7)
    against = [found.difference(team, 6) for team in range(6)]
    assert [each for each, _ in against] == list(
        map(near, (1.581356, 1.436408, 1.294485, 1.247618, 1.107698, 0.683853))
    )
    assert [error for _, error in against] == list(
        map(near, (0.343256, 0.339569, 0.336669, 0.335861, 0.333878, 0.331877))
    )
    assert found.chance(0, 6) == near(0.829396)


def test_a_circle_of_wins() -> None:
    """Each beats the next one: all are alike; one win more moves two of them."""
    circle = [(0, 0, 1, 1.0), (0, 1, 2, 1.0), (0, 2, 0, 1.0)]
    assert list(strengths(circle, 3).values) == list(map(near, (0, 0, 0)))
    assert list(strengths([*circle, circle[0]], 3).values) == list(map(near, (0.419618, -0.419618, 0)))


def test_strengths_with_ties() -> None:
    """Sixteen games of five, of which eight are ties."""
    won, lost, tie = 1.0, 0.0, 0.5
    games = [
        (0, 1, tie), (0, 2, lost), (0, 2, tie), (0, 4, tie), (1, 0, won), (1, 2, tie), (1, 2, tie), (1, 3, tie),
        (2, 4, tie), (3, 0, won), (3, 1, won), (3, 2, won), (3, 4, tie), (3, 4, tie), (4, 0, won), (4, 3, won),
    ]  # fmt: skip
    found = strengths([(0, *game) for game in games], 5)
    assert list(found.shares) == list(map(near, (0.050800, 0.131151, 0.131686, 0.336889, 0.349475)))


def test_verdicts_in_both_orders() -> None:
    """Twelve questions; signs say who won, first with x in the first place, then with y there."""
    words = "xx xx yy xy tt xt yx xx x- yy xx ty"
    places: list[dict[str, Verdict | None]] = [
        {"x": "1", "y": "2", "t": "tie", "-": None},
        {"x": "2", "y": "1", "t": "tie", "-": None},
    ]
    judged = [Judged(at, places[0][word[0]], places[1][word[1]]) for at, word in enumerate(words.split())]
    found = pair_figures(judged)
    assert (found.pairs, found.missing, found.consistent, found.flips) == (11, 1, 7, 2)
    assert (found.win_rate, found.se, found.first_place) == (near(0.590909), near(0.118094), near(0.545455))


def test_length_control() -> None:
    """The win rate were both answers equally long."""
    values = [1, 1, 0, 1, 0.5, 0.75, 0.25, 1, 0, 1, 0, 1, 1, 0, 0.5, 1]
    differences = [120, 300, -80, 50, -20, 210, -150, 400, -220, 90, 30, 260, -40, -310, 10, 180]
    found = length_control(values, differences)
    assert found is not None
    assert sum(values) / len(values) == 0.625
    assert (found.sd, found.a, found.b, found.rate) == tuple(map(near, (191.910352, 0.276831, 3.522370, 0.568769)))


def test_groups() -> None:
    """All answers together, and each group alike."""
    found = group_totals([estimated(shares_of(*each)) for each in ((80, 100), (30, 60), (25, 40))])
    assert found is not None
    assert (found.micro, found.micro_se) == (near(0.675), near(0.032028))
    assert (found.macro, found.macro_se) == (near(0.641667), near(0.036306))


def test_three_denominators() -> None:
    """72 right, 20 wrong, 5 incomplete, 3 failed; and a run in which nothing failed."""
    found = shares(72, 92, 5, 3)
    assert (found.score, found.answered, found.low, found.high) == tuple(map(near, (0.742268, 0.782609, 0.72, 0.75)))
    whole = shares(140, 170, 6, 0)
    assert (whole.score, whole.answered, whole.low, whole.high) == (near(0.795455), near(0.823529), None, None)


def test_what_a_right_answer_costs() -> None:
    """Exact, then rounded half to even; nothing where a cost is unknown or nothing is right."""
    assert cost_of_right(Decimal("1.234567"), 72, 6) == Decimal("0.017147")
    assert cost_of_right(Decimal("0.0000005"), 1, 6) == Decimal("0.000000")
    assert cost_of_right(Decimal("0.0000015"), 1, 6) == Decimal("0.000002")
    assert cost_of_right(None, 72) is None
    assert cost_of_right(Decimal(1), 0) is None


def test_the_t_quantile() -> None:
    """A table's value."""
    assert t_quantile(5) == near(2.570582)
