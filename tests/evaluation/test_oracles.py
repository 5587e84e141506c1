"""Statistics against other packages, on data drawn with fixed seeds."""

import math
from fractions import Fraction
from math import comb

import choix
import evalica
import numpy as np
import pytest
from scipy import stats
from statsmodels.api import GLM, OLS, families
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from cometbatch.evaluation.statistics.agreement import kappa
from cometbatch.evaluation.statistics.bradley_terry import Strengths, fit, wins_of
from cometbatch.evaluation.statistics.length_control import length_control
from cometbatch.evaluation.statistics.means import estimate, wilson
from cometbatch.evaluation.statistics.paired import holm, mcnemar, paired
from cometbatch.evaluation.statistics.pass_k import pass_all, pass_at
from cometbatch.evaluation.statistics.sums import Sums

SEEDS = range(10)


def drawn(seed: int) -> np.random.Generator:
    """Chance that is the same each time."""
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_clustered_error_is_that_of_a_regression_on_a_constant(seed: int) -> None:
    """With answers of unequal number to each question, and clusters of questions; statsmodels' CR1."""
    chance = drawn(seed)
    counts = chance.integers(1, 6, 40)
    answers = [list(chance.random(count)) for count in counts]
    passages = chance.integers(0, 12, 40)
    found = estimate(Sums.of(answers, list(passages)))
    flat = np.concatenate(answers)
    groups = np.repeat(passages, counts)
    theirs = OLS(flat, np.ones(len(flat))).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": True, "df_correction": True}
    )
    clusters = len(set(groups))
    assert found is not None
    assert found.mean == pytest.approx(theirs.params[0])
    assert found.clusters == clusters
    assert found.se == pytest.approx(theirs.bse[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_wilson(seed: int) -> None:
    """Statsmodels' interval of a share."""
    chance = drawn(seed)
    answers = int(chance.integers(1, 500))
    right = int(chance.integers(0, answers + 1))
    found = wilson(right / answers, answers)
    low, high = proportion_confint(right, answers, method="wilson")
    assert [found.low, found.high] == pytest.approx([low, high], abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_mcnemar(seed: int) -> None:
    """Statsmodels' exact test; mid-p by the binomial distribution, term by term."""
    first, second = map(int, drawn(seed).integers(0, 40, 2))
    found = mcnemar(first, second)
    assert found.p_exact == pytest.approx(their_mcnemar([[5, first], [second, 5]], exact=True).pvalue)
    both, fewer = first + second, min(first, second)
    if first != second:
        exact = sum(comb(both, each) for each in range(fewer)) + Fraction(comb(both, fewer), 2)
        assert found.p_mid == pytest.approx(float(2 * exact / 2**both))


@pytest.mark.parametrize("seed", SEEDS)
def test_paired_t(seed: int) -> None:
    """Package scipy's test of related samples, on the questions' means."""
    chance = drawn(seed)
    first, second = chance.binomial(4, 0.7, 50), chance.binomial(4, 0.6, 50)
    counts = np.full(50, 4)
    sums = [Sums(each.astype(float), each.astype(float), counts) for each in (first, second)]
    found = paired(*sums)
    theirs = stats.ttest_rel(first / 4, second / 4)
    assert found is not None
    assert found.interval is not None
    assert [found.t, found.p] == pytest.approx([theirs.statistic, theirs.pvalue])
    low, high = theirs.confidence_interval()
    assert [found.interval.low, found.interval.high] == pytest.approx([low, high])
    assert found.correlation == pytest.approx(np.corrcoef(first, second)[0, 1])


@pytest.mark.parametrize("seed", SEEDS)
def test_holm(seed: int) -> None:
    """Statsmodels' adjustment."""
    values = list(drawn(seed).random(7) ** 3)
    assert holm(values) == pytest.approx(list(multipletests(values, method="holm")[1]))


@pytest.mark.parametrize("seed", SEEDS)
def test_kappa(seed: int) -> None:
    """Statsmodels' kappa, of three words."""
    table = drawn(seed).integers(0, 30, (3, 3))
    assert kappa(table.tolist()) == pytest.approx(cohens_kappa(table).kappa)


@pytest.mark.parametrize("seed", SEEDS)
def test_strengths(seed: int) -> None:
    """Package choix without ties; evalica with them."""
    chance = drawn(seed)
    items, games = 5, []
    true = chance.normal(size=items)
    for _ in range(400):
        x, y = map(int, chance.choice(items, 2, replace=False))
        games.append((0, x, y, float(chance.random() < 1 / (1 + math.exp(true[y] - true[x])))))
    won = [(x, y) if value else (y, x) for _, x, y, value in games]
    found = fit(wins_of(games, items).sum(0))
    assert isinstance(found, Strengths)
    theirs = choix.opt_pairwise(items, won, method="Newton-CG", tol=1e-12)
    assert list(found.values) == pytest.approx(list(theirs - theirs.mean()), abs=1e-5)
    tied = [(*game[:3], 0.5) if at % 5 == 0 else game for at, game in enumerate(games)]
    words = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    left, right, values = ([game[at] for game in tied] for at in (1, 2, 3))
    shares = evalica.bradley_terry(left, right, [words[value] for value in values], tolerance=1e-12, limit=10_000)
    ours = fit(wins_of(tied, items).sum(0))
    assert isinstance(ours, Strengths)
    their_values = np.log(shares.scores.sort_index().to_numpy())
    assert list(ours.values) == pytest.approx(list(their_values - their_values.mean()), abs=1e-5)


def test_the_ridge() -> None:
    """Package choix has the same penalty, as half the sum of squared strengths."""
    wins = [(0, 1), (0, 1), (1, 2)]
    found = fit(wins_of([(0, *pair, 1.0) for pair in wins], 3).sum(0), ridge=0.5)
    assert isinstance(found, Strengths)
    theirs = choix.opt_pairwise(3, wins, alpha=0.25, method="Newton-CG", tol=1e-12)
    assert list(found.values) == pytest.approx(list(theirs - theirs.mean()), abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_length_control(seed: int) -> None:
    """Statsmodels' logistic regression."""
    chance = drawn(seed)
    differences = chance.normal(0, 200, 80)
    values = chance.integers(0, 5, 80) / 4
    found = length_control(list(values), list(differences))
    terms = np.column_stack([np.ones(80), np.tanh(differences / differences.std(ddof=1))])
    theirs = GLM(values, terms, family=families.Binomial()).fit()
    assert found is not None
    assert [found.a, found.b] == pytest.approx(list(theirs.params), abs=1e-8)


@pytest.mark.parametrize(("answers", "right", "k"), [(8, 3, 2), (8, 3, 5), (20, 1, 7), (5, 5, 5), (200, 30, 50)])
def test_pass_k_counts_choices(answers: int, right: int, k: int) -> None:
    """The product form: each further answer is drawn from those that are left."""
    none, every = Fraction(1), Fraction(1)
    for drawn_so_far in range(k):
        left = answers - drawn_so_far
        none *= Fraction(max(0, answers - right - drawn_so_far), left)
        every *= Fraction(max(0, right - drawn_so_far), left)
    assert pass_at(answers, right, k) == float(1 - none)
    assert pass_all(answers, right, k) == float(every)
