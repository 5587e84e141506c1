"""Pairs of answers, verdicts on them, and what they come to. Pure; the command runs the jobs that ask the judge."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

Verdict: TypeAlias = Literal["1", "2", "tie"]
"""Which of two answers, as they stood in the prompt, is better."""
ORDERS: Final = ("xy", "yx")
"""How the two answers of a pair stood in the prompt: the first cell's answer first, or second."""
VERDICT_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"verdict": {"enum": ["1", "2", "tie"]}, "reason": {"type": "string"}},
    "required": ["verdict", "reason"],
    "additionalProperties": False,
}
"""What a judge of pairs must answer."""


class Judged(Struct, frozen=True):
    """One pair, judged in both orders; None is a verdict that is missing."""

    question: int
    xy: Verdict | None
    yx: Verdict | None


class PairFigures(Struct, frozen=True):
    """What the verdicts on two cells came to."""

    pairs: int
    missing: int
    win_rate: float | None
    se: float | None


def pairs(cells: int, baseline: int | None) -> list[tuple[int, int]]:
    """Which cells are compared: each with the baseline, or each with each. The first of a pair is x."""
    raise NotImplementedError


def read_verdict(text: str | None) -> Verdict | None:
    """The verdict in an answer; None where it is missing or does not fit: never a tie, never a loss."""
    raise NotImplementedError


def pair_value(xy: Verdict | None, yx: Verdict | None) -> float | None:
    """What x got, from 0 to 1, as the mean of both orders; None where one of them is missing."""
    raise NotImplementedError


def rubric_schema(criteria: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """What a judge by rubric must answer: a whole number within its range for each criterion, and a reason."""
    raise NotImplementedError


def read_rubric(text: str | None, criteria: Mapping[str, tuple[int, int]]) -> dict[str, int | None]:
    """The number for each criterion; None where it is missing, no whole number, or out of its range."""
    raise NotImplementedError


def pair_figures(judged: Sequence[Judged], clusters: Sequence[int] | None = None) -> PairFigures:
    """Win rate of x with its clustered error, consistency, flips, share of the first place, and what is missing."""
    raise NotImplementedError
