"""The scores of one line of a leaderboard, added up by question: all that its statistics need."""

from collections.abc import Sequence
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Floats: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = npt.NDArray[np.int64]
Booleans: TypeAlias = npt.NDArray[np.bool_]


class Sums(Struct, frozen=True, eq=False):
    """One entry for each question. `totals`: the sum of its scores; `squares`: of their squares; `counts`: how many.

    `clusters`: the number of each question's cluster; None where each question is its own. A question without scores
    has the count 0. All lines of a leaderboard have the same questions, in the same order.
    """

    totals: Floats
    squares: Floats
    counts: Counts
    clusters: Counts | None = None

    @classmethod
    def of(cls, answers: Sequence[Sequence[float]], clusters: Sequence[int] | None = None) -> Self:
        """From the scores themselves, a list for each question."""
        return cls(
            np.array([sum(each) for each in answers], float),
            np.array([sum(score * score for score in each) for each in answers], float),
            np.array([len(each) for each in answers], np.int64),
            None if clusters is None else np.array(clusters, np.int64),
        )

    def only(self, kept: Booleans) -> "Sums":
        """Only these questions; clusters that none of them has are gone."""
        clusters = None if self.clusters is None else self.clusters[kept]
        return Sums(self.totals[kept], self.squares[kept], self.counts[kept], clusters)

    @property
    def answered(self) -> "Sums":
        """Only the questions that have scores."""
        kept = self.counts > 0
        return self if kept.all() else self.only(kept)

    @property
    def means(self) -> Floats:
        """The mean of each question; each has scores."""
        return self.totals / self.counts


def by_cluster(values: Floats, clusters: Counts | None) -> Floats:
    """The sum of these values for each cluster that has any; the values themselves where each is its own."""
    if clusters is None:
        return values
    _, places = np.unique(clusters, return_inverse=True)
    return np.asarray(np.bincount(places, weights=values), float)
