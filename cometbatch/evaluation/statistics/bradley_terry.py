"""Strengths from comparisons in pairs: the Bradley-Terry model by maximum likelihood, a tie being half a win of each.

The chance that i beats j is 1 / (1 + exp(strength j - strength i)). Strengths are in log odds, their mean is 0.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import numpy as np
from msgspec import Struct

from cometbatch.evaluation.statistics.interval import Interval
from cometbatch.evaluation.statistics.sums import Booleans, Floats

STEPS: Final = 100  # of Newton's method; ten are usual
EXACTNESS: Final = 1e-10  # the step in log odds below which it has arrived
RESAMPLES: Final = 1000
LARGEST_STEP: Final = 2.0  # log odds in one step, so that a step from far away never overshoots
MAX_LOST: Final = 0.025  # the share of resamples without strengths from which an interval would be wrong


class Strengths(Struct, frozen=True, eq=False):
    """A fit. `values`: strengths with mean 0; `errors`: their standard errors, from the information.

    `covariance`: of the strengths, for the error of a difference.
    """

    values: Floats
    errors: Floats
    covariance: Floats

    def difference(self, first: int, second: int) -> tuple[float, float]:
        """How much stronger the first is, and the standard error of that."""
        spread = self.covariance[first, first] + self.covariance[second, second] - 2 * self.covariance[first, second]
        return float(self.values[first] - self.values[second]), float(np.sqrt(max(0.0, spread)))

    def chance(self, first: int, second: int) -> float:
        """The chance that the first wins against the second."""
        return float(1 / (1 + np.exp(self.values[second] - self.values[first])))

    @property
    def shares(self) -> Floats:
        """Strengths as positive numbers whose sum is 1."""
        odds = np.exp(self.values - self.values.max())
        return np.asarray(odds / odds.sum())


class Unfit(Struct, frozen=True):
    """Why there are no strengths. `parts`: the items that go together, the strongest first where that can be said."""

    reason: Literal["disconnected", "separable"]
    parts: tuple[tuple[int, ...], ...]

    def describe(self, names: Sequence[str]) -> str:
        """For a person; `names`: of the items."""
        parts = [", ".join(names[item] for item in part) for part in self.parts]
        if self.reason == "disconnected":
            words = " and ".join(parts)
            return f"no strengths: {words} were never compared with each other. Compare them, or set pairwise.ridge."
        words = f"{parts[0]} never lost to {', '.join(parts[1:])}, so how much stronger it is can't be told"
        return f"no strengths: {words}. Set pairwise.ridge."


class Resampled(Struct, frozen=True):
    """Intervals at 95 % by resampling clusters. `intervals`: one for each item; None where too many resamples are lost.

    They are None also where all clusters, and so all resamples, say the same: that tells nothing of how far others
    may be. `lost`: how many of `resamples` have no strengths, because an item never lost in them, or was not compared.
    """

    intervals: tuple[Interval, ...] | None
    resamples: int
    lost: int


def wins_of(games: Iterable[tuple[int, int, int, float]], items: int) -> Floats:
    """What `resampled` takes, and summed over clusters what `fit` takes.

    `games`: (cluster, x, y, what x got, from 0 to 1), of `items` in all. Clusters are numbered as they first come.
    """
    places: dict[int, int] = {}
    rows = [(places.setdefault(cluster, len(places)), x, y, value) for cluster, x, y, value in games]
    wins = np.zeros((len(places), items, items))
    for place, x, y, value in rows:
        wins[place, x, y] += value
        wins[place, y, x] += 1 - value
    return wins


def fit(wins: Floats, ridge: float = 0.0) -> Strengths | Unfit:
    """Strengths from `wins[i, j]`: how often i won against j, ties half. `ridge`: a penalty on squared strengths.

    Without a penalty there are strengths only where each item has won against, and lost to, each other one, directly
    or over others. With one there always are, and they are drawn towards each other.
    """
    if ridge == 0 and (unfit := _why_unfit(wins)) is not None:
        return unfit
    values = _newton(wins[None], ridge)[0]
    inverse = np.linalg.inv(_information(wins[None], values[None], ridge)[0] + 1 / len(wins))
    covariance = inverse - 1 / len(wins)
    return Strengths(values, np.sqrt(np.diag(covariance).clip(0)), covariance)


def resampled(wins: Floats, seed: int, ridge: float = 0.0, resamples: int = RESAMPLES) -> Resampled:
    """Intervals by drawing clusters with replacement. `wins[c, i, j]`: how often i won against j in cluster c.

    The same seed gives the same intervals.
    """
    clusters, items = wins.shape[0], wins.shape[1]
    draws = np.random.Generator(np.random.PCG64(seed))
    flat = wins.reshape(clusters, items * items)
    drawn = np.empty((resamples, items, items))
    for at in range(resamples):
        weights = np.bincount(draws.integers(0, clusters, clusters), minlength=clusters)
        drawn[at] = (weights @ flat).reshape(items, items)
    kept = drawn if ridge else drawn[_are_connected(drawn)]
    lost = resamples - len(kept)
    if lost > MAX_LOST * resamples:
        return Resampled(None, resamples, lost)
    low, high = np.quantile(_newton(kept, ridge), (0.025, 0.975), axis=0)
    if (high - low).max() <= EXACTNESS:
        return Resampled(None, resamples, lost)
    return Resampled(tuple(Interval(float(a), float(b)) for a, b in zip(low, high, strict=True)), resamples, lost)


def _information(wins: Floats, values: Floats, ridge: float) -> Floats:
    """The information about the strengths, one matrix for each set of wins."""
    games = wins + wins.transpose(0, 2, 1)
    chances = _chances(values)
    weights = games * chances * (1 - chances)
    diagonal = np.arange(wins.shape[1])
    weights[:, diagonal, diagonal] = 0
    found = -weights
    found[:, diagonal, diagonal] = weights.sum(2) + ridge
    return np.asarray(found)


def _chances(values: Floats) -> Floats:
    differences = values[:, :, None] - values[:, None, :]
    return np.asarray(1 / (1 + np.exp(-differences)))


def _newton(wins: Floats, ridge: float) -> Floats:
    """The strengths that maximise the likelihood, for each set of wins."""
    games = wins + wins.transpose(0, 2, 1)
    items = wins.shape[1]
    values = np.zeros((len(wins), items))
    for _ in range(STEPS):
        slope = (wins - games * _chances(values)).sum(2) - ridge * values
        steps = np.linalg.solve(_information(wins, values, ridge) + 1 / items, slope[:, :, None])[:, :, 0]
        largest = np.abs(steps).max(initial=0.0)
        values += steps.clip(-LARGEST_STEP, LARGEST_STEP)
        values -= values.mean(1, keepdims=True)
        if largest < EXACTNESS:
            break
    return values


def _reachable(wins: Floats) -> Booleans:
    """Whether i has won against j, directly or over others, for each set of wins."""
    items = wins.shape[1]
    found = (wins > 0) | np.eye(items, dtype=bool)
    for _ in range(max(1, (items - 1).bit_length())):
        found = np.asarray(np.matmul(found.astype(np.float32), found.astype(np.float32)) > 0)
    return found


def _are_connected(wins: Floats) -> Booleans:
    return np.asarray(_reachable(wins).all(axis=(1, 2)))


def _why_unfit(wins: Floats) -> Unfit | None:
    beaten = _reachable(wins[None])[0]
    if beaten.all():
        return None
    compared = _reachable((wins + wins.T)[None])[0]
    if not compared.all():
        return Unfit("disconnected", _parts(compared))
    strongest = sorted(_parts(beaten & beaten.T), key=lambda part: -int(beaten[part[0]].sum()))
    return Unfit("separable", tuple(strongest))


def _parts(together: Booleans) -> tuple[tuple[int, ...], ...]:
    """The items that go together, each in one part."""
    return tuple(sorted({tuple(map(int, np.flatnonzero(row))) for row in together}))
