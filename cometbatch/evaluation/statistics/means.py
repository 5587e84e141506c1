"""The mean of a line's scores, its clustered standard error, and an interval that holds what it says near 0 and 1."""

import math
from typing import Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from scipy import special

from cometbatch.evaluation.statistics.interval import Interval
from cometbatch.evaluation.statistics.sums import Floats, Sums, by_cluster

LEVEL: Final = 0.95
Z: Final = float(special.ndtri(0.5 + LEVEL / 2))
"""Half the width of a normal interval of 95 %, in standard errors: 1.959964."""
FEW_CLUSTERS: Final = 20
"""Below so many clusters away from the nearer end (0 or 1), the clusters alone count as observations."""
ROUNDING: Final = 1e-12
"""Residuals below this share of the values are rounding, not spread."""

Method: TypeAlias = Literal["wilson", "clustered wilson", "t"]


class Estimate(Struct, frozen=True):
    """A mean with what is known of its error.

    `se`: the clustered standard error (CR1); None for one cluster, never 0 for lack of data. `se_population`: the same
    without the correction for few clusters (CR0). `se_independent`: what it would be were all answers independent.
    `interval`: at 95 %; None where one cluster is all there is. `method`: how it was made. `effective`: the number of
    independent answers that it rests on; None for method "t". `within`, `between`: the variance of scores within a
    question, and of true means between questions; None where nothing tells them. `correlation`: between's share.
    """

    mean: float
    se: float | None
    se_population: float
    se_independent: float | None
    interval: Interval | None
    method: Method
    effective: float | None
    questions: int
    answers: int
    clusters: int
    within: float | None
    between: float | None

    @property
    def correlation(self) -> float | None:
        """How alike two answers to the same question are: between / (between + within)."""
        if self.within is None or self.between is None or self.within + self.between == 0:
            return None
        return self.between / (self.between + self.within)


def wilson(mean: float, answers: float, z: float = Z) -> Interval:
    """Wilson's interval for a share of independent answers; `answers` need not be a whole number."""
    square = z * z / answers
    middle = (mean + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(mean * (1 - mean) / answers + square / (4 * answers))
    return Interval(0.0 if mean == 0 else max(0.0, middle - half), 1.0 if mean == 1 else min(1.0, middle + half))


def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """Half the width of a t interval, in standard errors."""
    return float(special.stdtrit(freedom, 0.5 + level / 2))


def population_error(residuals: Floats, answers: float) -> float:
    """The standard error of a mean (CR0), from the residuals' sums by cluster."""
    return math.sqrt(float(np.square(residuals).sum())) / answers  # not by BLAS, whose last digits depend on threads


def correction(clusters: int) -> float:
    """What makes CR1 of CR0: few clusters, at least two, look more alike than they are."""
    return math.sqrt(clusters / (clusters - 1))


def estimate(sums: Sums, *, is_bounded: bool = True) -> Estimate | None:
    """The mean over all scores, with its error and interval; None without scores. `is_bounded`: all are in [0, 1]."""
    sums = sums.answered
    answers = int(sums.counts.sum())
    if answers == 0:
        return None
    mean = float(sums.totals.sum()) / answers
    residuals = by_cluster(sums.totals - mean * sums.counts, sums.clusters)
    clusters = len(residuals)
    population = population_error(residuals, answers)
    if population * answers <= ROUNDING * float(np.abs(sums.totals).sum()):
        population = 0.0
    se = population * correction(clusters) if clusters > 1 else None
    interval: Interval | None
    method: Method
    if is_bounded:
        interval, method, effective = _bounded(sums, mean, population, clusters)
    else:
        interval, method, effective = _unbounded(mean, se, clusters), "t", None
    within, between = spread_of(sums)
    spread = float(sums.squares.sum()) / answers - mean * mean
    independent = math.sqrt(max(0.0, spread) / (answers - 1)) if answers > 1 else None
    return Estimate(
        mean,
        se,
        population,
        independent,
        interval,
        method,
        effective,
        len(sums.counts),
        answers,
        clusters,
        within,
        between,
    )


def _bounded(sums: Sums, mean: float, population: float, clusters: int) -> tuple[Interval | None, Method, float | None]:
    """Wilson's interval on the number of independent answers that the clustered error stands for.

    That number is at most that of the answers. Where few clusters are away from the nearer end, their spread says
    little, and it is at most that of the clusters.
    """
    answers = int(sums.counts.sum())
    if clusters == answers:
        return wilson(mean, answers), "wilson", float(answers)
    if clusters == 1:
        return None, "clustered wilson", None
    totals, counts = by_cluster(sums.totals, sums.clusters), by_cluster(sums.counts.astype(float), sums.clusters)
    away = min(int((totals < counts).sum()), int((totals > 0).sum()))
    most = clusters if away < FEW_CLUSTERS or population == 0 else answers
    effective = most if population == 0 else min(mean * (1 - mean) / population**2, most)
    return wilson(mean, effective, t_quantile(clusters - 1)), "clustered wilson", float(effective)


def _unbounded(mean: float, se: float | None, clusters: int) -> Interval | None:
    """The t interval. Equal scores say nothing of how far others may be, so there is none for an error of 0."""
    if not se:
        return None
    half = t_quantile(clusters - 1) * se
    return Interval(mean - half, mean + half)


def spread_of(sums: Sums) -> tuple[float | None, float | None]:
    """The variance within questions, and between them beyond what the variance within explains; each has scores."""
    questions, answers = len(sums.counts), int(sums.counts.sum())
    if questions < 2 or answers == questions:  # noqa: PLR2004 - one mean has no variance
        return None, None
    counts = sums.counts.astype(float)
    within = float((sums.squares - sums.totals**2 / counts).sum()) / (answers - questions)
    within = max(0.0, within)
    mean = float(sums.totals.sum()) / answers
    among = float((counts * (sums.means - mean) ** 2).sum()) / (questions - 1)
    usual = (answers - float((counts**2).sum()) / answers) / (questions - 1)
    return within, max(0.0, (among - within) / usual)
