"""What a judge's verdicts come to: win rates and strengths of cells in pairs, or means by criterion."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

import msgspec
from msgspec import Struct

from cometbatch.evaluation.judge import ORDERS, Judged, PairFigures, Verdict, pair_figures, read_rubric, read_verdict
from cometbatch.evaluation.statistics.interval import Interval
from cometbatch.reports.figures import EXTRA

MIRRORED: Final[Mapping[Verdict, Verdict]] = {"1": "2", "2": "1", "tie": "tie"}
"""What a verdict would be if the answers stood in the other order, and the judge did not mind."""


class Asked(Struct):
    """What a judge said of one pair of answers, by order, and how much longer the first one is, in characters."""

    row: int
    longer: int
    verdicts: dict[str, Verdict | None] = {}

    def judged(self, cluster: int, *, swap: bool, is_flipped: bool) -> Judged:
        """As a pair of both orders. Without `swap`, the other order is taken to be as the one that was asked."""
        xy, yx = (self.verdicts.get(order) for order in ORDERS)
        if not swap:
            yx = None if xy is None else MIRRORED[xy]
        return Judged(cluster, yx, xy) if is_flipped else Judged(cluster, xy, yx)


class PairVerdicts:
    """The verdicts on a pair of cells, line by line of the judge's result."""

    def __init__(self) -> None:
        self.asked: dict[tuple[int, int], Asked] = {}

    def add(self, row: int, sample: int, order: str, text: str | None, longer: int) -> None:
        """A line. `text`: what the judge says; None where that is no whole answer. `longer`: as of `Asked`."""
        pair = self.asked.setdefault((row, sample), Asked(row, longer, {}))
        pair.verdicts[order] = read_verdict(text)


class PairLine(Struct, frozen=True):
    """What the verdicts on x against y came to.

    `unanswered`: pairs of answers of which one lacks, so that nobody was asked. `interval`: of the win rate. `level`:
    the win rate if both answers were equally long. `values`: (question, what x got) of each whole pair.
    """

    figures: PairFigures
    unanswered: int
    interval: Interval | None = None
    level: dict[str, float] | None = None
    swap: bool = True
    values: tuple[tuple[int, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, each number at full precision."""
        figures = self.figures
        both = {"consistent": figures.consistent, "flips": figures.flips, "first_place": figures.first_place}
        return {
            "pairs": figures.pairs,
            "missing": figures.missing,
            "unanswered": self.unanswered,
            "win_rate": figures.win_rate,
            "se": figures.se,
            "interval": _ends(self.interval),
            **(both if self.swap else dict.fromkeys(both)),
            "length_controlled": self.level,
        }


def pair_line(
    verdicts: PairVerdicts, clusters: Mapping[int, int] | None, unanswered: int, *, swap: bool, is_flipped: bool
) -> PairLine:
    """The figures of a pair. `clusters`: of rows; None where each is its own. `is_flipped`: x is the second cell."""
    pairs = list(verdicts.asked.values())
    judged = [
        each.judged(each.row if clusters is None else clusters[each.row], swap=swap, is_flipped=is_flipped)
        for each in pairs
    ]
    values = [(pair.cluster, pair.value) for pair in judged if pair.value is not None]
    longer = [
        -each.longer if is_flipped else each.longer
        for each, pair in zip(pairs, judged, strict=True)
        if pair.value is not None
    ]
    interval, level = None, None
    if (found := _statistics()) is not None:
        _, interval = found.error_of(_by_cluster(values), is_bounded=True)
        level = found.level_of([value for _, value in values], longer)
    return PairLine(pair_figures(judged), unanswered, interval, level, swap, tuple(values))


def _by_cluster(values: Iterable[tuple[int, float]]) -> list[list[float]]:
    found: dict[int, list[float]] = {}
    for cluster, value in values:
        found.setdefault(cluster, []).append(value)
    return list(found.values())


class Strength(Struct, frozen=True):
    """A cell by the Bradley-Terry model, in log odds, of mean 0. `interval`: by resampled questions."""

    words: str
    value: float
    se: float
    interval: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"cell": self.words, "strength": self.value, "se": self.se, "interval": _ends(self.interval)}


def strengths(
    names: Sequence[str], games: Iterable[tuple[int, int, int, float]], ridge: float
) -> tuple[tuple[Strength, ...], str]:
    """The strengths of cells, the strongest first, or why there are none, in words; neither without numpy and scipy.

    `games`: (question, x, y, what x got), as numbers of `names`.
    """
    found = _statistics()
    if found is None:
        return (), ""
    values, why = found.strengths_of(games, names, ridge)
    return tuple(Strength(*each) for each in values), why


class Rating(Struct, frozen=True):
    """One criterion of one cell. `missing`: answers that the judge gave no number for, within the range."""

    mean: float | None
    se: float | None
    interval: Interval | None
    answers: int
    missing: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return msgspec.structs.asdict(self) | {"interval": _ends(self.interval)}


class Ratings:
    """What a judge said of the answers of one cell, line by line of its result."""

    def __init__(self, criteria: Mapping[str, tuple[int, int]]) -> None:
        self._criteria = criteria
        self._numbers: dict[str, list[tuple[int, float]]] = {name: [] for name in criteria}
        self._missing = dict.fromkeys(criteria, 0)

    def add(self, cluster: int, text: str | None) -> None:
        """A line. `text`: the judge's answer; None where there is no whole one."""
        for name, number in read_rubric(text, self._criteria).items():
            if number is None:
                self._missing[name] += 1
            else:
                self._numbers[name].append((cluster, float(number)))

    def ratings(self) -> dict[str, Rating]:
        """The mean of each criterion, with its clustered error and a t interval."""
        return {name: self._rating(name) for name in self._criteria}

    def _rating(self, name: str) -> Rating:
        numbers = self._numbers[name]
        mean = math.fsum(number for _, number in numbers) / len(numbers) if numbers else None
        found = _statistics()
        se, interval = (None, None) if found is None else found.error_of(_by_cluster(numbers), is_bounded=False)
        return Rating(mean, se, interval, len(numbers), self._missing[name])


def has_extra() -> bool:
    """Whether what intervals need is installed."""
    return _statistics() is not None


def _statistics() -> ModuleType | None:
    """What needs numpy and scipy; None where these are not installed."""
    try:
        import cometbatch.reports.judge_statistics  # noqa: PLC0415 - an extra, and slow to load
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        return None
    return cometbatch.reports.judge_statistics


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
