"""What of a judge's figures needs numpy and scipy: loaded late, and only where they are installed."""

from collections.abc import Iterable, Sequence
from typing import Final

from cometbatch.evaluation.statistics.bradley_terry import Unfit, fit, resampled, wins_of
from cometbatch.evaluation.statistics.interval import Interval
from cometbatch.evaluation.statistics.length_control import length_control
from cometbatch.evaluation.statistics.means import estimate
from cometbatch.evaluation.statistics.sums import Sums

SEED: Final = 0  # of resampled questions, so that the same verdicts give the same intervals


def error_of(clusters: Sequence[Sequence[float]], *, is_bounded: bool) -> tuple[float | None, Interval | None]:
    """The clustered error of a mean, and its interval at 95 %. `is_bounded`: all values are in [0, 1]."""
    found = estimate(Sums.of(clusters), is_bounded=is_bounded) if clusters else None
    return (None, None) if found is None else (found.se, found.interval)


def level_of(values: Sequence[float], longer: Sequence[int]) -> dict[str, float] | None:
    """The win rate if both answers were equally long. `longer`: by how many characters x is longer."""
    found = length_control(values, longer)
    return None if found is None else {"win_rate": found.rate, "a": found.a, "b": found.b, "sd_characters": found.sd}


def strengths_of(
    games: Iterable[tuple[int, int, int, float]], names: Sequence[str], ridge: float
) -> tuple[list[tuple[str, float, float, Interval | None]], str]:
    """Name, strength, error and interval of each, the strongest first; and why something is not there, in words."""
    wins = wins_of(games, len(names))
    if not len(wins):
        return [], "no strengths: no pair has a verdict"
    found = fit(wins.sum(0), ridge)
    if isinstance(found, Unfit):
        return [], found.describe(names)
    drawn = resampled(wins, SEED, ridge)
    intervals = drawn.intervals or (None,) * len(names)
    lines = [
        (name, float(value), float(error), each)
        for name, value, error, each in zip(names, found.values, found.errors, intervals, strict=True)
    ]
    why = f"{drawn.lost} of {drawn.resamples} resamples have none" if drawn.lost else "all questions say the same"
    lacking = f"strengths have no intervals: {why}"
    return sorted(lines, key=lambda line: -line[1]), "" if drawn.intervals else lacking
