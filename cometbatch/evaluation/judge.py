"""Pairs of answers, verdicts on them, and what they come to. Pure; the command runs the jobs that ask the judge."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from cometbatch.prompt.answer_text import read_json

Verdict: TypeAlias = Literal["1", "2", "tie"]
"""Which of two answers, as they stood in the prompt, is better."""
ORDERS: Final = ("xy", "yx")
"""How the two answers of a pair stood in the prompt: x's answer first, or second."""
_VERDICTS: Final[dict[object, Verdict]] = {"1": "1", "2": "2", "tie": "tie"}
_TIE: Final = 0.5
_MIN_CLUSTERS: Final = 2


class Judged(Struct, frozen=True):
    """One pair of answers with its verdict in both orders; None is a verdict that is missing.

    `cluster`: the question, or what questions are clustered by; pairs of one question have the same.
    """

    cluster: int
    xy: Verdict | None
    yx: Verdict | None

    @property
    def value(self) -> float | None:
        """What x got, from 0 to 1."""
        return pair_value(self.xy, self.yx)


class PairFigures(Struct, frozen=True):
    """What the verdicts on x and y came to.

    `pairs`: that have both verdicts; `missing`: those that lack one. `win_rate`: the mean of what x got; `se`: its
    standard error by cluster, None for one cluster. `consistent`: pairs in which both orders say the same; `flips`:
    pairs in which the same place wins in both orders, so that each answer wins once. `first_place`: the share of
    verdicts that the answer in the first place got, ties half. Shares are None without pairs.
    """

    pairs: int
    missing: int
    win_rate: float | None
    se: float | None
    consistent: int
    flips: int
    first_place: float | None


def pairs(cells: int, baseline: int | None = None) -> list[tuple[int, int]]:
    """Which cells are compared: each with the baseline, or without one each with each. The first of a pair is x."""
    if baseline is None:
        return list(itertools.combinations(range(cells), 2))
    return [(cell, baseline) for cell in range(cells) if cell != baseline]


def read_verdict(text: str | None) -> Verdict | None:
    """The verdict in an answer; None where it is missing or does not fit: never a tie, never a loss."""
    said = _object(text).get("verdict")
    if isinstance(said, bool) or not isinstance(said, str | int):
        return None
    return _VERDICTS.get(str(said))


def read_rubric(text: str | None, criteria: Mapping[str, tuple[int, int]]) -> dict[str, int | None]:
    """The number for each criterion; None where it is missing, no whole number, or out of its range."""
    said = _object(text)
    return {name: _within(said.get(name), low, high) for name, (low, high) in criteria.items()}


def _object(text: str | None) -> Mapping[str, Any]:
    found = read_json(text) if text else None
    return found if isinstance(found, dict) else {}


def _within(said: object, low: int, high: int) -> int | None:
    if not isinstance(said, int) or isinstance(said, bool):
        return None
    return said if low <= said <= high else None


def pair_value(xy: Verdict | None, yx: Verdict | None) -> float | None:
    """What x got, from 0 to 1, as the mean of both orders; None where a verdict is missing."""
    if xy is None or yx is None:
        return None
    return (_share(xy, "1") + _share(yx, "2")) / 2


def single_value(verdict: Verdict | None, order: str) -> float | None:
    """What x got in one order, for a job that says `swap: false`."""
    return None if verdict is None else _share(verdict, "1" if order == ORDERS[0] else "2")


def _share(verdict: Verdict, place: Verdict) -> float:
    """What the answer in this place got."""
    return _TIE if verdict == "tie" else float(verdict == place)


def pair_figures(judged: Iterable[Judged]) -> PairFigures:
    """What these pairs came to. A pair that lacks a verdict is missing as a whole."""
    all_pairs = list(judged)
    whole = [pair for pair in all_pairs if pair.value is not None]
    values = [pair.value or 0.0 for pair in whole]
    firsts = [_share(verdict, "1") for pair in whole for verdict in (pair.xy, pair.yx) if verdict is not None]
    return PairFigures(
        len(whole),
        len(all_pairs) - len(whole),
        math.fsum(values) / len(values) if values else None,
        _clustered_error(values, [pair.cluster for pair in whole]),
        sum(_share(pair.xy or "tie", "1") == _share(pair.yx or "tie", "2") for pair in whole),
        sum(pair.xy == pair.yx != "tie" for pair in whole),
        math.fsum(firsts) / len(firsts) if firsts else None,
    )


def _clustered_error(values: Sequence[float], clusters: Sequence[int]) -> float | None:
    """The standard error of a mean, by cluster (CR1)."""
    residuals: dict[int, float] = {}
    mean = math.fsum(values) / len(values) if values else 0.0
    for value, cluster in zip(values, clusters, strict=True):
        residuals[cluster] = residuals.get(cluster, 0.0) + value - mean
    count = len(residuals)
    if count < _MIN_CLUSTERS:
        return None
    return math.sqrt(count / (count - 1) * math.fsum(each * each for each in residuals.values())) / len(values)
