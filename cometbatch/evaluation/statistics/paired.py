"""Two lines compared on the questions that both have: the difference, its interval, and a test."""

import math
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from scipy import special

from cometbatch.evaluation.statistics.interval import Interval
from cometbatch.evaluation.statistics.means import (
    ROUNDING,
    correction,
    population_error,
    spread_of,
    t_quantile,
)
from cometbatch.evaluation.statistics.sums import Counts, Floats, Sums, by_cluster

MIN_PAIRS: Final = 2  # questions from which a spread of differences can be told
TestName: TypeAlias = Literal["McNemar mid-p", "paired t", "none"]


class Discordance(Struct, frozen=True):
    """Questions of which one line alone has the answer right, and McNemar's p-values on them."""

    first_only: int
    second_only: int
    p_mid: float
    p_exact: float


class Paired(Struct, frozen=True):
    """The first line's score minus the second's, on the questions that both have.

    `only_one`: questions that only one of them has. `difference`: the mean over questions of the difference of their
    means. `se`: its standard error, by cluster; None for one cluster. `interval`: at 95 %; where all differences are
    equal, two pseudo-questions (+1 and -1) are added, so that it never has width 0. `t`, `freedom`, `p_t`: of the
    paired t test. `discordance`: only with one answer of 0 or 1 to each question, each its own cluster. `p`: of the
    `test` that fits. `variance`: of a question's difference, clustering included. `sampling`: the part of it that
    comes from drawing answers; None where no question has two answers. `correlation`: of the questions' means in both
    lines. `unpaired_se`: what the error would be without pairing.
    """

    questions: int
    clusters: int
    only_one: int
    first: float
    second: float
    difference: float
    se: float | None
    interval: Interval | None
    t: float | None
    freedom: int
    p_t: float | None
    discordance: Discordance | None
    p: float | None
    test: TestName
    variance: float | None
    sampling: float | None
    correlation: float | None
    unpaired_se: float | None

    @property
    def is_thinned(self) -> bool:
        """Whether more than one question in twenty is lost, because only one of the lines has it."""
        return self.only_one > 0.05 * (self.questions + self.only_one)


class _Error(Struct, frozen=True):
    """What is known of the error of a mean difference; the interval's own centre where questions were added."""

    se: float | None
    interval: Interval | None
    t: float | None
    p: float | None


def mcnemar(first_only: int, second_only: int) -> Discordance:
    """McNemar's exact and mid-p tests, both two-sided."""
    fewer, both = min(first_only, second_only), first_only + second_only
    below = float(special.bdtr(fewer - 1, both, 0.5)) if fewer else 0.0
    to_it = float(special.bdtr(fewer, both, 0.5)) if both else 1.0
    if first_only == second_only:
        return Discordance(first_only, second_only, 1.0, 1.0)
    return Discordance(first_only, second_only, min(1.0, below + to_it), min(1.0, 2 * to_it))


def two_sided_t(t: float, freedom: int) -> float:
    """The p-value of a t statistic."""
    return float(2 * special.stdtr(freedom, -abs(t)))


def holm(values: Sequence[float]) -> list[float]:
    """These p-values, adjusted for being several, in their order."""
    adjusted = [1.0] * len(values)
    highest = 0.0
    for rank, at in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[at]))
        adjusted[at] = highest
    return adjusted


def paired(first: Sums, second: Sums, *, is_bounded: bool = True) -> Paired | None:
    """The first line against the second, question by question; None where they have no question in common.

    `is_bounded`: all scores are in [0, 1]. Clusters are those of `first`.
    """
    common = (first.counts > 0) & (second.counts > 0)
    only_one = int(((first.counts > 0) ^ (second.counts > 0)).sum())
    if not common.any():
        return None
    if not common.all():
        first, second = first.only(common), second.only(common)
    differences = first.means - second.means
    clusters = first.clusters
    error = _error(differences, clusters, is_bounded=is_bounded)
    count, questions = len(by_cluster(differences, clusters)), len(differences)
    discordance = _discordance(first, second) if count == questions else None
    p = error.p if discordance is None else discordance.p_mid
    test: TestName = "none" if p is None else "paired t" if discordance is None else "McNemar mid-p"
    return Paired(
        questions=questions,
        clusters=count,
        only_one=only_one,
        first=float(first.means.mean()),
        second=float(second.means.mean()),
        difference=float(differences.mean()),
        se=error.se,
        interval=error.interval,
        t=error.t,
        freedom=count - 1,
        p_t=error.p,
        discordance=discordance,
        p=p,
        test=test,
        variance=None if error.se is None else questions * error.se**2,
        sampling=_sampling(first, second),
        correlation=_correlation(first.means, second.means),
        unpaired_se=_unpaired(first, second),
    )


def _error(differences: Floats, clusters: Counts | None, *, is_bounded: bool) -> _Error:
    mean = float(differences.mean())
    residuals = by_cluster(differences - mean, clusters)
    count = len(residuals)
    if count < MIN_PAIRS:
        return _Error(None, None, None, None)
    population = population_error(residuals, len(differences))
    se = population * correction(count)
    quantile = t_quantile(count - 1)
    if population * len(differences) > ROUNDING * max(1.0, float(np.abs(differences).sum())):
        t = mean / se
        low, high = mean - quantile * se, mean + quantile * se
        return _Error(se, _within(low, high, is_bounded=is_bounded), t, two_sided_t(t, count - 1))
    if not is_bounded:  # a pseudo-question of +1 means nothing on another scale
        return _Error(0.0, None, None, 1.0 if mean == 0 else None)
    return _with_pseudo_questions(differences, clusters, quantile, count - 1)


def _with_pseudo_questions(differences: Floats, clusters: Counts | None, quantile: float, freedom: int) -> _Error:
    """The error where nothing varies: as if there were two further questions, one won by each line."""
    questions = len(differences) + 2
    centre = float(differences.sum()) / questions
    residuals = np.append(by_cluster(differences - centre, clusters), [1 - centre, -1 - centre])
    se = population_error(residuals, questions) * correction(len(residuals))
    t = centre / se
    interval = _within(centre - quantile * se, centre + quantile * se, is_bounded=True)
    return _Error(0.0, interval, t, two_sided_t(t, freedom))


def _within(low: float, high: float, *, is_bounded: bool) -> Interval:
    """An interval of a difference: of scores in [0, 1] it ends at -1 and 1."""
    return Interval(max(-1.0, low), min(1.0, high)) if is_bounded else Interval(low, high)


def _discordance(first: Sums, second: Sums) -> Discordance | None:
    """Only where each question has one answer in both lines, right or wrong."""
    for sums in (first, second):
        if (sums.counts != 1).any() or not np.isin(sums.totals, (0.0, 1.0)).all():
            return None
    return mcnemar(int((first.totals > second.totals).sum()), int((first.totals < second.totals).sum()))


def _sampling(first: Sums, second: Sums) -> float | None:
    """The variance of a question's difference that comes from drawing answers, with as many answers as there are."""
    total = 0.0
    for sums in (first, second):
        within, _ = spread_of(sums)
        if within is None:
            return None
        total += within * float((1 / sums.counts).mean())
    return total


def _correlation(first: Floats, second: Floats) -> float | None:
    deviations = first - first.mean(), second - second.mean()
    spread = math.sqrt(float((deviations[0] ** 2).sum()) * float((deviations[1] ** 2).sum()))
    if len(first) < MIN_PAIRS or spread <= ROUNDING:
        return None
    return float((deviations[0] * deviations[1]).sum()) / spread


def _unpaired(first: Sums, second: Sums) -> float | None:
    """The error of the difference were the lines asked different questions."""
    total = 0.0
    for sums in (first, second):
        residuals = by_cluster(sums.means - sums.means.mean(), sums.clusters)
        if len(residuals) < MIN_PAIRS:
            return None
        total += (population_error(residuals, len(sums.counts)) * correction(len(residuals))) ** 2
    return math.sqrt(total)
